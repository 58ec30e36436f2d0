"""Images changed at random, with labels that follow."""

from __future__ import annotations

import typing

from . import _core

if typing.TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    import numpy as np
else:
    from ._numpy import np


class ImageAugmenter:
    """Changes images at random, each of its own and by mixing it with another.

        augmenter = ImageAugmenter(methods=['cutmix', 'mixup'], probabilities=[0.6, 0.4], alpha=1.0)
        images, labels = augmenter.transform((images, labels))  # labels [N] become weights of classes [N, classes]

    methods: 'flip' (left-right), 'crop' (moved by up to crop_padding pixels each way, zeros coming in), 'rotate' (by up to rotation degrees
      either way), 'color' (brightness, contrast and saturation, each by up to the share `color` either way), 'randaugment'
      (randaugment_ops changes of magnitude randaugment_magnitude of 30, of uint8 images; arXiv 1909.13719), 'cutout' (a square of zeros, its side cutout_size of the shorter one), 'cutmix' (a rectangle of another image; arXiv
      1905.04899), 'mixup' (the weighted mean with another image; arXiv 1710.09412).
    probabilities: one per method. A sample gets at most one of cutmix and mixup, so theirs add up to 1 at most; the others come each by its
      own chance, in this order, before mixing. Default: 0.5 each.
    alpha: the weight of mixing is Beta(alpha, alpha); of cutmix the label's weight is the area that was really pasted.
    color, randaugment_ops, randaugment_magnitude: see methods.
    Trainer(augmentation=augmenter) changes each batch anew while it is loaded.
    seed: what happens to sample i in an epoch is a function of seed, epoch and i, on any number of threads.
    Raises ValueError for unknown methods, with the nearest one, and for numbers out of range.
    """

    def __init__(self, methods: Sequence[str] = ("cutmix", "mixup"), probabilities: Sequence[float] | None = None, alpha: float = 1.0,
                 seed: int = 0, *, crop_padding: int = 4, cutout_size: float = 0.5, rotation: float = 15.0, color: float = 0.4,
                 randaugment_ops: int = 2, randaugment_magnitude: int = 9) -> None:
        self.methods = list(methods)
        self.probabilities = [0.5] * len(self.methods) if probabilities is None else [float(p) for p in probabilities]
        # What Trainer(augmentation=...) and a run's config take; there the seed is train.seed.
        self.settings = {"methods": self.methods, "probabilities": [str(p) for p in self.probabilities], "alpha": alpha,
                         "crop_padding": crop_padding, "cutout_size": cutout_size, "rotation": rotation, "color": color,
                         "randaugment_ops": randaugment_ops, "randaugment_magnitude": randaugment_magnitude}
        self._augmenter = _core.ImageAugmenter.create(self.methods, self.probabilities, alpha, seed, crop_padding, cutout_size, rotation, color,
                                                          randaugment_ops, randaugment_magnitude)

    def transform(self, data: Any, *, epoch: int = 0, num_classes: int | None = None, channels_last: bool | None = None) -> Any:
        """The data with its images changed, of the same kind:

        - an array of images [N, C, H, W] or [N, H, W, C], uint8 or float32 ([N, H, W] without channels too). Where methods mix, partners_
          and weights_ tell with whom and by how much each was: w * own + (1 - w) * partner.
        - a pair (images, labels). Where methods mix, labels [N] become float32 [N, classes] that sum to 1.
        - a deepseek.data.Dataset; train on it with loss='cross_entropy', which takes such labels.
        - a PyTorch-style data set, len() and [i] giving (image, label): another such, which changes an image when it is asked for;
          set_epoch() has it change them anew.

        epoch: other numbers give other changes. num_classes: default: as many as the labels name.
        channels_last: default: if the last axis, and not the second, is 1, 3 or 4 long.
        """
        if isinstance(data, _core.Dataset):
            return self._dataset(data, epoch)
        if isinstance(data, (tuple, list)) and len(data) == 2 and hasattr(data[0], "shape") and np.ndim(data[0]) > 2:
            images = self._images(data[0], epoch, channels_last)
            return images, self._labels(np.asarray(data[1]), num_classes)
        if hasattr(data, "shape"):
            return self._images(data, epoch, channels_last)
        if hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, (str, bytes)):
            return AugmentedDataset(self, data, epoch, num_classes, channels_last)
        raise TypeError("expected images, a pair (images, labels), a deepseek.data.Dataset or a data set with len() and [i], "
                        f"got {type(data).__name__}")

    def _images(self, images: Any, epoch: int, channels_last: bool | None, ids: Sequence[int] | None = None,
                partners: Sequence[int] | None = None) -> np.ndarray:
        array = np.asarray(images)
        flat = array[..., None] if array.ndim == 3 else array
        if channels_last is None or array.ndim == 3:
            channels_last = array.ndim == 3 or flat.ndim == 4 and flat.shape[-1] in (1, 3, 4) and flat.shape[1] not in (1, 3, 4)
        if flat.dtype not in (np.uint8, np.float32):
            if flat.dtype.kind not in "fb":
                raise TypeError(f"images: expected uint8 or floats, got {flat.dtype}")
            flat = flat.astype(np.float32)
        n = len(flat)
        if partners is None:
            partners = self._augmenter.partners(n, epoch) if self._augmenter.mixes else []
        changed, weights = self._augmenter.transform(np.ascontiguousarray(flat), channels_last, epoch, range(n) if ids is None else ids, partners)
        self.partners_, self.weights_ = np.array(partners, np.int64), np.array(weights)
        return changed.reshape(array.shape)

    def _labels(self, labels: np.ndarray, num_classes: int | None) -> np.ndarray:
        if not self._augmenter.mixes:
            return labels
        if len(labels) != len(self.weights_):
            raise ValueError(f"labels: {len(labels)} of them for {len(self.weights_)} images")
        own = _one_hot(labels, num_classes)
        weights = self.weights_.astype(np.float32).reshape(-1, *[1] * (own.ndim - 1))
        return own * weights + own[self.partners_] * (1 - weights)

    def _dataset(self, data: _core.Dataset, epoch: int) -> _core.Dataset:
        from .data import Dataset

        images = self._images(data.inputs, epoch, False)
        labels = self._labels(data.targets, len(data.class_names) or None)
        return Dataset(images, labels, data.class_names, data.scale, data.mean, data.stddev)


def _one_hot(labels: np.ndarray, num_classes: int | None) -> np.ndarray:
    """Classes [N] as float32 [N, classes]; floats, weights of classes or numbers to predict, as they are."""
    if labels.dtype.kind not in "iub":
        return labels.astype(np.float32, copy=False)
    count = num_classes or int(labels.max(initial=-1)) + 1
    if labels.size and not 0 <= labels.min() <= labels.max() < count:
        raise ValueError(f"labels: expected classes in [0, {count}), got {labels.min()} to {labels.max()}; raise num_classes")
    return np.eye(count, dtype=np.float32)[labels.astype(np.int64)]


class AugmentedDataset:
    """Of ImageAugmenter.transform(): (image, label) pairs of another data set, changed when they are asked for."""

    def __init__(self, augmenter: ImageAugmenter, data: Any, epoch: int, num_classes: int | None, channels_last: bool | None) -> None:
        self._augmenter, self._data, self._channels_last = augmenter, data, channels_last
        self._num_classes = num_classes
        self.set_epoch(epoch)

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch
        mixes = self._augmenter._augmenter.mixes
        self._partners = self._augmenter._augmenter.partners(len(self._data), epoch) if mixes else None

    def _classes(self) -> int:
        if self._num_classes is None:
            named = getattr(self._data, "classes", None) or getattr(self._data, "class_names", None)
            labels = getattr(self._data, "targets", None)
            if named:
                self._num_classes = len(named)
            elif labels is not None:
                self._num_classes = int(np.max(np.asarray(labels))) + 1
            else:
                raise ValueError("num_classes: this data set does not say how many classes it has; pass num_classes to transform()")
        return self._num_classes

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        index = range(len(self))[index]
        image, label = self._data[index]
        ids, images, labels = [index], [image], [label]
        if self._partners is not None:
            ids.append(self._partners[index])
            other, other_label = self._data[ids[1]]
            images.append(other)
            labels.append(other_label)
        arrays = np.stack([np.asarray(i) for i in images])
        changed = self._augmenter._images(arrays, self._epoch, self._channels_last, ids, [1, 0] if len(ids) == 2 else [])[0]
        if self._partners is not None:
            values = np.asarray(labels)
            both = _one_hot(values, self._classes() if values.dtype.kind in "iub" else None)
            weight = np.float32(self._augmenter.weights_[0])
            label = both[0] * weight + both[1] * (1 - weight)
        if type(image).__module__.partition(".")[0] == "torch":
            import torch

            return torch.from_numpy(changed.copy()), torch.from_numpy(label) if isinstance(label, np.ndarray) else label
        return changed, label

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[i] for i in range(len(self)))


__all__ = ["AugmentedDataset", "ImageAugmenter"]
