"""Images, volumes and time series changed at random, with labels, masks and boxes that follow."""

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
        self._arguments = (alpha, seed, crop_padding, cutout_size, rotation, color, randaugment_ops, randaugment_magnitude)
        self._augmenter = _core.ImageAugmenter.create(self.methods, self.probabilities, *self._arguments)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_augmenter"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._augmenter = _core.ImageAugmenter.create(self.methods, self.probabilities, *self._arguments)

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

        if not data.paired:
            raise TypeError("expected a data set of one input and one target; give the images themselves, or train with augmentation=")
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


class SeriesAugmenter:
    """Changes time series at random.

        series = SeriesAugmenter(["jitter", "window_warp"], [0.5, 0.5]).transform(series)  # [N, T] or [N, T, C]

    methods: 'jitter' (normal noise of deviation `jitter`), 'scaling' (each channel times a normal number around 1 of deviation `scaling`;
      arXiv 1706.00527), 'window_warp' (a window of the share `window` of the series at half or twice its speed, the whole brought back to its
      length; Rashid and Louis, 2019). Each comes by its own chance, in this order.
    seed: what happens to series i in an epoch is a function of seed, epoch and i, on any number of threads.
    Raises ValueError for unknown methods, with the nearest one, and for numbers out of range.
    """

    def __init__(self, methods: Sequence[str] = ("jitter", "scaling", "window_warp"), probabilities: Sequence[float] | None = None, seed: int = 0, *,
                 jitter: float = 0.03, scaling: float = 0.1, window: float = 0.1) -> None:
        self._settings = (list(methods), [0.5] * len(methods) if probabilities is None else [float(p) for p in probabilities], seed, jitter, scaling, window)
        self.transform(np.zeros((0, 2, 1), np.float32))  # checks them

    def transform(self, series: Any, *, epoch: int = 0) -> np.ndarray:
        """float32 of the same shape, [N, T] or [N, T, C]."""
        array = np.asarray(series, np.float32)
        flat = np.ascontiguousarray(array[..., None] if array.ndim == 2 else array)
        return _core.augment_series(*self._settings, flat, epoch, range(len(flat))).reshape(array.shape)


class VolumeAugmenter:
    """Changes volumes at random; masks follow.

        images, masks = VolumeAugmenter(displacement=4).transform(images, masks)  # [N, C, D, H, W] and [N, D, H, W]

    methods: 'flip' (along each axis by chance 1/2), 'elastic' (moved by normal displacements of deviation `displacement` voxels at the points of
      a grid of `grid` per axis, linear between them; after arXiv 1505.04597), 'intensity' (x * (1 + a) + b, up to `contrast` and `brightness`
      either way). Each comes by its own chance, in this order. Images are linear between voxels, masks take the nearest one.
    seed: as for SeriesAugmenter. Raises ValueError for unknown methods, with the nearest one, and for numbers and shapes that are wrong.
    """

    def __init__(self, methods: Sequence[str] = ("flip", "elastic", "intensity"), probabilities: Sequence[float] | None = None, seed: int = 0, *,
                 displacement: float = 3.0, contrast: float = 0.2, brightness: float = 0.1, grid: int = 4) -> None:
        self._settings = (list(methods), [0.5] * len(methods) if probabilities is None else [float(p) for p in probabilities], seed, displacement,
                          contrast, brightness, grid)
        self.transform(np.zeros((0, 1, 2, 2, 2), np.float32))  # checks them

    def transform(self, images: Any, masks: Any = None, *, epoch: int = 0) -> Any:
        """Images as float32; with masks, both. Masks are integers and keep their type."""
        array = np.ascontiguousarray(images, np.float32)
        labels = None if masks is None else np.ascontiguousarray(masks, np.int64)
        changed, moved = _core.augment_volumes(*self._settings, array, labels, epoch, range(len(array)))
        return changed if masks is None else (changed, moved.astype(np.asarray(masks).dtype))


def mosaic(images: Any, boxes: Sequence[Any], labels: Sequence[Any], *, seed: int = 0, epoch: int = 0, min_area: float = 0.1) -> Any:
    """Each image becomes a quarter of itself and three others around a point at random (Bochkovskiy et al., arXiv 2004.10934); boxes follow.

    images: [N, C, H, W]. boxes: for each image [M, 4] of x1, y1, x2, y2 in pixels. labels: for each image [M].
    min_area: boxes of which less than this share is left are left out.
    Returns (images, boxes, labels) of the same kinds. The point is between 1/4 and 3/4 of each side; parts meet there.
    """
    array = np.asarray(images)
    if array.ndim != 4 or not len(array) == len(boxes) == len(labels):
        raise ValueError(f"expected images [N, C, H, W] with boxes and labels for each, got {list(array.shape)}, {len(boxes)} and {len(labels)}")
    n, _, height, width = array.shape
    out, all_boxes, all_labels = np.empty_like(array), [], []
    for i in range(n):
        random = np.random.default_rng([seed, epoch, i])
        y, x = int(height * random.uniform(0.25, 0.75)), int(width * random.uniform(0.25, 0.75))
        kept_boxes, kept_labels = [], []
        for part, source in enumerate((i, *random.integers(0, n, 3))):
            # Top left, top right, bottom left, bottom right, each from its own corner of the source.
            rows, columns = ((0, y), (y, height))[part // 2], ((0, x), (x, width))[part % 2]
            from_y, from_x = (height - y, 0)[part // 2], (width - x, 0)[part % 2]
            h, w = rows[1] - rows[0], columns[1] - columns[0]
            out[i, :, rows[0]:rows[1], columns[0]:columns[1]] = array[source, :, from_y:from_y + h, from_x:from_x + w]
            box = np.asarray(boxes[source], np.float32).reshape(-1, 4)
            if len(box) != len(labels[source]):
                raise ValueError(f"image {source}: {len(box)} boxes and {len(labels[source])} labels")
            moved = box + np.array([columns[0] - from_x, rows[0] - from_y] * 2, np.float32)
            clipped = np.clip(moved, [columns[0], rows[0]] * 2, [columns[1], rows[1]] * 2)
            area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])  # noqa: E731
            keep = area(clipped) >= np.maximum(min_area * area(box), 1e-6)
            kept_boxes.append(clipped[keep].astype(np.float32))
            kept_labels.append(np.asarray(labels[source])[keep])
        all_boxes.append(np.concatenate(kept_boxes))
        all_labels.append(np.concatenate(kept_labels))
    return out, all_boxes, all_labels


__all__ = ["AugmentedDataset", "ImageAugmenter", "SeriesAugmenter", "VolumeAugmenter", "mosaic"]
