"""Augmentation beside the papers' definitions, SciPy and PyTorch's functions."""

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch

import deepseek
from deepseek import _core, nn
from deepseek.data import ImageAugmenter, SeriesAugmenter, VolumeAugmenter, mosaic


def pictures(n=64, shape=(3, 12, 10), dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    raw = rng.integers(1, 256, (n, *shape))
    return raw.astype(np.uint8) if dtype == np.uint8 else (raw / 255).astype(np.float32)


def test_the_call_that_is_promised():
    original_dataset = (pictures(), np.arange(64) % 5)
    augmenter = ImageAugmenter(methods=['cutmix', 'mixup'], probabilities=[0.6, 0.4], alpha=1.0)
    augmented_data = augmenter.transform(original_dataset)
    images, labels = augmented_data
    assert images.shape == (64, 3, 12, 10) and images.dtype == np.uint8
    assert labels.shape == (64, 5) and labels.dtype == np.float32
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    assert (images != original_dataset[0]).any(axis=(1, 2, 3)).mean() > 0.8


@pytest.mark.parametrize("alpha", [0.2, 1.0, 2.5])
def test_weights_are_beta_distributed(alpha):
    drawn = [_core.symmetric_beta(alpha, key) for key in range(20000)]
    assert scipy.stats.kstest(drawn, "beta", (alpha, alpha)).pvalue > 1e-3
    augmenter = ImageAugmenter(["mixup"], [1.0], alpha)
    augmenter.transform(np.zeros((20000, 1, 1, 1), np.uint8))
    assert scipy.stats.kstest(augmenter.weights_, "beta", (alpha, alpha)).pvalue > 1e-3


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mixup_is_the_weighted_mean(dtype, channels_last):
    images = pictures(dtype=dtype, shape=(12, 10, 3) if channels_last else (3, 12, 10))
    augmenter = ImageAugmenter(["mixup"], [1.0], 0.7)
    mixed = augmenter.transform(images)
    w = augmenter.weights_.astype(np.float32).reshape(-1, 1, 1, 1)
    expected = images * w + images[augmenter.partners_] * (1 - w)
    if dtype == np.uint8:
        assert np.abs(mixed.astype(float) - expected).max() <= 0.5 + 1e-4
    else:
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


@pytest.mark.parametrize("channels_last", [False, True])
def test_cutmix_pastes_a_rectangle_of_the_weight_s_area(channels_last):
    n = 2000
    # Each picture is its number, so that each pixel tells whose it is.
    images = np.zeros((n, 9, 14, 2) if channels_last else (n, 2, 9, 14), np.float32)
    images += np.arange(n).reshape(-1, 1, 1, 1)
    augmenter = ImageAugmenter(["cutmix"], [1.0])
    mixed = augmenter.transform(images, channels_last=channels_last)
    planes = mixed if channels_last else mixed.transpose(0, 2, 3, 1)
    assert (planes[..., 0] == planes[..., 1]).all()
    for i in range(n):
        pasted = planes[i, ..., 0] != i
        assert (planes[i, ..., 0][pasted] == augmenter.partners_[i]).all()
        if augmenter.partners_[i] != i:
            assert augmenter.weights_[i] == pytest.approx(1 - pasted.mean(), abs=1e-12)
            ys, xs = np.nonzero(pasted)
            if len(ys):
                assert pasted.sum() == (np.ptp(ys) + 1) * (np.ptp(xs) + 1)  # a full rectangle
    # The centre is anywhere: each pixel is pasted about as often as its mirror image.
    share = (planes[..., 0] != np.arange(n).reshape(-1, 1, 1)).mean(0)
    assert np.abs(share - share[::-1, ::-1]).max() < 0.05
    # Before it is cut off at the borders the area is 1 - Beta(1, 1), half on average.
    assert 0.5 < augmenter.weights_.mean() < 0.75


def test_each_of_its_own():
    images = pictures(400)
    assert (ImageAugmenter(["flip"], [1.0]).transform(images) == images[..., ::-1]).all()
    flipped = ImageAugmenter(["flip"], [0.3]).transform(images)
    turned = (flipped != images).any(axis=(1, 2, 3))
    assert (flipped[turned] == images[turned][..., ::-1]).all() and 0.2 < turned.mean() < 0.4
    padded = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    for before, wide, after in zip(images, padded, ImageAugmenter(["crop"], [1.0], crop_padding=2).transform(images)):
        assert any((wide[:, y:y + 12, x:x + 10] == after).all() for y in range(5) for x in range(5))
    holes = ImageAugmenter(["cutout"], [1.0], cutout_size=0.4).transform(images)
    assert ((holes == images) | (holes == 0)).all() and (holes == 0).any(axis=(1, 2, 3)).all()
    assert (holes == 0).all(axis=1).sum(axis=(1, 2)).max() == 16  # 4 x 4 of 10 x 12
    both = ImageAugmenter(["flip", "cutout", "crop"], [1.0, 1.0, 1.0])
    assert (both.transform(images) == both.transform(images)).all()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("padding", [3, 30])
def test_flip_and_crop_together_are_one_after_the_other(channels_last, padding):
    images = pictures(40)
    if channels_last:
        images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    both = ImageAugmenter(["flip", "crop"], [1.0, 1.0], seed=2, crop_padding=padding).transform(images, channels_last=channels_last)
    cropped = ImageAugmenter(["cutout", "crop"], [0.0, 1.0], seed=2, crop_padding=padding)  # crop's numbers are of its place in the list
    mirrored = np.ascontiguousarray(images[:, :, ::-1] if channels_last else images[..., ::-1])
    np.testing.assert_array_equal(both, cropped.transform(mirrored, channels_last=channels_last))


def test_rotation_is_that_of_scipy():
    image = pictures(1, (1, 21, 21), np.float32)
    augmenter = ImageAugmenter(["rotate"], [1.0], rotation=40)
    found = augmenter.transform(image)[0, 0]
    errors = [np.abs(scipy.ndimage.rotate(image[0, 0], a, reshape=False, order=1, mode="grid-constant") - found).max()
              for a in np.arange(-40, 40, 0.01)]
    assert min(errors) < 2e-2
    grey = (image[:, 0] * 255).astype(np.uint8)
    assert ImageAugmenter(["rotate"], [1.0], rotation=0).transform(grey).tolist() == grey.tolist()


def test_a_sample_s_fate_depends_on_seed_epoch_and_number():
    images, before = pictures(500), deepseek.num_threads()
    methods = (["flip", "rotate", "cutout", "cutmix", "mixup"], [0.5, 0.5, 0.5, 0.4, 0.4])
    results = []
    for threads in (1, 2, 5):
        deepseek.set_num_threads(threads)
        results.append(ImageAugmenter(*methods, seed=3).transform(images, epoch=1))
    deepseek.set_num_threads(before)
    assert (results[0] == results[1]).all() and (results[0] == results[2]).all()
    for other in (ImageAugmenter(*methods, seed=4).transform(images, epoch=1), ImageAugmenter(*methods, seed=3).transform(images, epoch=2)):
        assert (other != results[0]).any(axis=(1, 2, 3)).mean() > 0.8


class Pairs(torch.utils.data.Dataset):
    """As torchvision's: images [C, H, W] and classes."""

    classes = ["a", "b", "c"]

    def __init__(self, as_torch):
        self.images, self.labels, self.as_torch = pictures(30, dtype=np.float32), np.arange(30) % 3, as_torch

    def __len__(self):
        return 30

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]) if self.as_torch else self.images[i]
        return image, int(self.labels[i])


@pytest.mark.parametrize("as_torch", [False, True])
def test_data_sets_of_pytorch_s_kind(as_torch):
    pairs = Pairs(as_torch)
    methods = (["flip", "cutmix", "mixup"], [0.5, 0.5, 0.5])
    whole, labels = ImageAugmenter(*methods, seed=1).transform((pairs.images, pairs.labels))
    lazy = ImageAugmenter(*methods, seed=1).transform(pairs)
    assert len(lazy) == 30
    for i, (image, label) in enumerate(lazy):
        assert isinstance(image, torch.Tensor) == as_torch
        assert (np.asarray(image) == whole[i]).all()
        np.testing.assert_allclose(label, labels[i], atol=1e-7)
    first = np.asarray(lazy[0][0])
    lazy.set_epoch(1)
    assert (np.asarray(lazy[0][0]) != first).any()
    with pytest.raises(IndexError):
        lazy[30]
    if as_torch:
        batch, targets = next(iter(torch.utils.data.DataLoader(lazy, batch_size=8)))
        assert batch.shape == (8, 3, 12, 10) and targets.shape == (8, 3)


def test_our_data_sets_train_on_soft_labels():
    from deepseek import nn, optim

    dataset = deepseek.data.Dataset(pictures(dtype=np.float32), np.arange(64) % 4, mean=0.5, stddev=0.25)
    mixed = ImageAugmenter().transform(dataset)
    assert mixed.targets.shape == (64, 4) and mixed.mean == dataset.mean and mixed.class_names == dataset.class_names
    model = nn.Sequential(nn.Flatten(), nn.Linear(360, 4))
    theirs = torch.nn.Linear(360, 4)
    theirs.load_state_dict({name.removeprefix("1."): torch.from_numpy(np.asarray(value)) for name, value in model.state_dict().items()})
    trainer = deepseek.Trainer(model, loss="cross_entropy", optimizer=optim.SGD(lr=0.02), batch_size=64)
    history = trainer.fit(mixed, epochs=5, progress=False)
    x = torch.from_numpy((mixed.inputs - np.float32(0.5)) / np.float32(0.25)).flatten(1)
    rule = torch.optim.SGD(theirs.parameters(), lr=0.02)
    for epoch in history:
        loss = torch.nn.functional.cross_entropy(theirs(x), torch.from_numpy(mixed.targets))
        assert epoch["training"]["loss"] == pytest.approx(loss.item(), rel=1e-4)
        rule.zero_grad()
        loss.backward()
        rule.step()
    plain = ImageAugmenter(["flip"], [0.5]).transform(dataset)
    assert plain.targets.tolist() == dataset.targets.tolist()


def test_colour_is_pillow_s():
    from PIL import Image, ImageEnhance, ImageOps

    rng = np.random.default_rng(0)
    ramp = np.stack(np.meshgrid(np.arange(24) * 9, np.arange(20) * 11), -1)
    image = np.clip(np.concatenate([ramp, ramp[..., :1] // 2], -1) + rng.integers(0, 20, (20, 24, 3)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(image)
    kinds = {"brightness": ImageEnhance.Brightness, "contrast": ImageEnhance.Contrast, "saturation": ImageEnhance.Color, "sharpness": ImageEnhance.Sharpness}
    for what, enhancer in kinds.items():
        for factor in (0.0, 0.4, 1.0, 1.9):
            ours = _core.change_color(what, factor, image)
            theirs = np.asarray(enhancer(picture).enhance(factor))
            # They cut off where we round, and round means of grey.
            np.testing.assert_allclose(ours.astype(int), theirs.astype(int), atol=2, err_msg=f"{what} {factor}")
    for bits in (4, 7, 8):
        np.testing.assert_array_equal(_core.change_color("posterize", bits, image), np.asarray(ImageOps.posterize(picture, bits)))
    for threshold in (0, 100, 255):
        np.testing.assert_array_equal(_core.change_color("solarize", threshold, image), np.asarray(ImageOps.solarize(picture, threshold)))
    np.testing.assert_allclose(_core.change_color("autocontrast", 0, image).astype(int), np.asarray(ImageOps.autocontrast(picture)).astype(int), atol=1)
    np.testing.assert_array_equal(_core.change_color("equalize", 0, image), np.asarray(ImageOps.equalize(picture)))


@pytest.mark.parametrize("method", ["color", "randaugment"])
def test_colour_and_randaugment_of_batches(method):
    images = np.random.default_rng(0).integers(0, 256, (16, 3, 12, 10), np.uint8)
    augmenter = ImageAugmenter([method], [1.0], seed=3)
    changed = augmenter.transform(images)
    assert changed.shape == images.shape and changed.dtype == np.uint8 and (changed != images).any()
    np.testing.assert_array_equal(augmenter.transform(images), changed)
    # The same whichever way the channels stand.
    last = augmenter.transform(np.ascontiguousarray(images.transpose(0, 2, 3, 1)), channels_last=True)
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), changed)
    still = ImageAugmenter([method], [1.0], color=0.0, randaugment_magnitude=0)
    if method == "color":
        np.testing.assert_array_equal(still.transform(images), images)
    else:
        with pytest.raises(ValueError, match="randaugment changes u8 images"):
            augmenter.transform(images.astype(np.float32))


def test_training_on_augmented_batches(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 240)
    images = np.zeros((240, 1, 12, 12), np.uint8)
    for i, label in enumerate(labels):  # a bar at one of three heights
        images[i, 0, 4 * label:4 * label + 3] = 200
    images += rng.integers(0, 40, images.shape, np.uint8)
    data = deepseek.data.Dataset(images, labels, scale=1 / 255)
    augmenter = ImageAugmenter(["flip", "cutmix", "mixup"], [0.5, 0.3, 0.3], alpha=0.4)
    results = []
    for _ in range(2):
        deepseek.manual_seed(1)
        model = nn.Sequential(nn.Flatten(), nn.Linear(144, 16), nn.ReLU(), nn.Linear(16, 3))
        trainer = deepseek.Trainer(model, optimizer=deepseek.optim.AdamW(lr=0.01), augmentation=augmenter, epochs=8, batch_size=32, seed=5)
        history = trainer.fit(data, validation=data, progress=False)
        results.append(history[-1]["training"]["loss"] if "training" in history[-1] else history[-1])
        assert trainer.evaluate(data)["accuracy"] > 0.95
    assert results[0] == results[1]
    with pytest.raises(ValueError, match="augmentation.methods: unknown 'cutmx'; did you mean 'cutmix'"):
        deepseek.Trainer(model, augmentation={"methods": ["cutmx"]}, epochs=1).fit(data, progress=False)
    with pytest.raises(ValueError, match="augmentation.probabilities: 'often' is no number"):
        deepseek.Trainer(model, augmentation={"methods": ["flip"], "probabilities": ["often"]}, epochs=1).fit(data, progress=False)


def test_jitter_and_scaling_of_series():
    series = np.ones((50, 200, 3), np.float32)
    noise = SeriesAugmenter(["jitter"], [1.0], jitter=0.2).transform(series) - 1
    assert scipy.stats.kstest(noise.ravel() / 0.2, "norm").pvalue > 1e-3
    factors = SeriesAugmenter(["scaling"], [1.0], scaling=0.3).transform(series)
    assert np.ptp(factors, axis=1).max() < 1e-6  # one factor for all steps of a channel
    assert scipy.stats.kstest((factors[:, 0].ravel() - 1) / 0.3, "norm").pvalue > 1e-3
    assert SeriesAugmenter().transform(np.ones((4, 9))).shape == (4, 9)


def test_windows_of_series_are_warped():
    steps = 101
    ramp = np.tile(np.arange(steps, dtype=np.float32)[None, :, None], (200, 1, 1))
    warped = SeriesAugmenter(["window_warp"], [1.0], window=0.3).transform(ramp)[..., 0]
    seen = set()
    for series in warped:
        slopes = np.diff(series)
        assert series[0] == 0 and abs(series[-1] - steps + 1) < 1e-3 and (slopes > 0).all()
        # The window at half or twice the speed of the rest: two slopes, whose ratio is 2, but at its ends.
        inside = slopes[np.abs(slopes - np.median(slopes)) > 0.02 * np.median(slopes)]
        ratio = np.median(inside) / np.median(slopes)
        assert abs(ratio - 2) < 0.02 or abs(ratio - 0.5) < 0.02
        seen.add(round(float(ratio), 1))
    assert seen == {0.5, 2.0}


def test_volumes_and_their_masks_move_together():
    rng = np.random.default_rng(0)
    masks = np.zeros((6, 20, 22, 24), np.uint8)
    for i in range(6):
        z, y, x = rng.integers(4, 10, 3)
        masks[i, z:z + 8, y:y + 8, x:x + 8] = 1
    images = np.stack([masks * 2.0, -masks.astype(float)], 1)
    moved, followed = VolumeAugmenter(["flip", "elastic"], [1.0, 1.0], displacement=2).transform(images, masks)
    assert moved.dtype == np.float32 and followed.dtype == np.uint8 and set(np.unique(followed)) == {0, 1}
    assert (followed != masks).any()
    # Linear between voxels against the nearest one: they agree but within a voxel of the border.
    sure = (moved[:, 0] < 0.02) | (moved[:, 0] > 1.98)
    np.testing.assert_array_equal(followed[sure], moved[:, 0][sure] > 1)
    assert sure.mean() > 0.8
    np.testing.assert_allclose(moved[:, 1], -moved[:, 0] / 2, atol=1e-6)  # channels move as one
    for i in range(6):  # flips alone are NumPy's
        flipped = VolumeAugmenter(["flip"], [1.0], seed=i).transform(images[:1])[0, 0]
        assert any(np.array_equal(flipped, np.flip(images[0, 0].astype(np.float32), axes))
                   for axes in ([], [0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]))


def test_elastic_is_that_of_scipy():
    """Where a smooth image comes from, found from two coordinates as images, is what SciPy samples it at."""
    shape = (9, 10, 11)
    axes = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"))
    smooth = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    images = np.concatenate([axes, smooth[None]])[None]
    moved = VolumeAugmenter(["elastic"], [1.0], displacement=1.5, seed=4).transform(images)[0]
    expected = scipy.ndimage.map_coordinates(smooth, moved[:3], order=1, mode="nearest")
    np.testing.assert_allclose(moved[3], expected, atol=1e-4)
    distance = np.abs(moved[:3] - axes).max()
    assert 0.5 < distance < 10


def test_intensity_of_volumes():
    images = np.random.default_rng(0).normal(size=(40, 1, 4, 4, 4)).astype(np.float32)
    changed = VolumeAugmenter(["intensity"], [1.0], contrast=0.3, brightness=0.2).transform(images)
    for before, after in zip(images, changed):
        slope, offset = np.polyfit(before.ravel(), after.ravel(), 1)
        assert 0.7 <= slope <= 1.3 and abs(offset) <= 0.2
        np.testing.assert_allclose(after, slope * before + offset, atol=1e-5)


@pytest.mark.parametrize("augmenter, data", [(SeriesAugmenter(seed=1), np.random.default_rng(0).normal(size=(9, 30, 2)).astype(np.float32)),
                                             (VolumeAugmenter(seed=1), np.random.default_rng(0).normal(size=(9, 1, 6, 6, 6)).astype(np.float32))])
def test_signals_depend_on_seed_epoch_and_number_alone(augmenter, data):
    changed = augmenter.transform(data)
    deepseek.set_num_threads(3)
    np.testing.assert_array_equal(augmenter.transform(data), changed)
    deepseek.set_num_threads(2)
    np.testing.assert_array_equal(augmenter.transform(data[:5]), changed[:5])
    assert (augmenter.transform(data, epoch=1) != changed).any()


def test_mosaic_and_its_boxes():
    n, height, width = 12, 24, 32
    rng = np.random.default_rng(0)
    images = np.zeros((n, 1, height, width), np.int64)
    boxes, labels = [], []
    for i in range(n):  # each box is filled with a number of its own
        x, y = rng.integers(0, width - 8), rng.integers(0, height - 8)
        images[i, 0, y:y + 8, x:x + 6] = i + 1
        boxes.append([[x, y, x + 6, y + 8]])
        labels.append([i + 1])
    out, new_boxes, new_labels = mosaic(images, boxes, labels, seed=3)
    assert out.shape == images.shape
    assert sum(len(b) for b in new_boxes) > n
    for image, image_boxes, image_labels in zip(out, new_boxes, new_labels):
        assert len(image_boxes) == len(image_labels)
        for (x1, y1, x2, y2), label in zip(image_boxes.astype(int), image_labels):
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height and (x2 - x1) * (y2 - y1) >= 0.1 * 48
            assert (image[0, y1:y2, x1:x2] == label).all()  # the box holds its picture and nothing else
    again = mosaic(images, boxes, labels, seed=3)
    np.testing.assert_array_equal(out, again[0])
    assert (mosaic(images, boxes, labels, seed=3, epoch=1)[0] != out).any()
    with pytest.raises(ValueError, match="boxes and labels for each"):
        mosaic(images, boxes[:-1], labels)


@pytest.mark.parametrize("build, message", [
    (lambda: SeriesAugmenter(["jiter"]), "unknown 'jiter'; did you mean 'jitter'"),
    (lambda: SeriesAugmenter(["jitter"], [2.0]), "2 of jitter is not in"),
    (lambda: SeriesAugmenter(window=0), "window in"),
    (lambda: SeriesAugmenter().transform(np.zeros((3, 1))), "two steps or more"),
    (lambda: VolumeAugmenter(grid=1), "grid 2 or more"),
    (lambda: VolumeAugmenter().transform(np.zeros((2, 8, 8, 8))), "expected f32 \\[N, C, D, H, W\\]"),
    (lambda: VolumeAugmenter().transform(np.zeros((2, 1, 8, 8, 8)), np.zeros((2, 8, 8, 7), int)), "masks: expected"),
])
def test_mistakes_of_signals(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown 'cutmx'; did you mean 'cutmix'"):
        ImageAugmenter(["cutmx"])
    with pytest.raises(ValueError, match="one for each of 2 methods, got 1"):
        ImageAugmenter(["cutmix", "mixup"], [0.5])
    with pytest.raises(ValueError, match="add up to 1.2"):
        ImageAugmenter(["cutmix", "mixup"], [0.6, 0.6])
    with pytest.raises(ValueError, match="alpha"):
        ImageAugmenter(alpha=0)
    with pytest.raises(ValueError, match="labels: 3 of them for 64 images"):
        ImageAugmenter().transform((pictures(), np.zeros(3, int)))
    with pytest.raises(ValueError, match=r"expected classes in \[0, 2\)"):
        ImageAugmenter().transform((pictures(), np.arange(64)), num_classes=2)
    with pytest.raises(TypeError, match="got str"):
        ImageAugmenter().transform("images")
    with pytest.raises(TypeError, match="got int64"):
        ImageAugmenter().transform(np.zeros((2, 3, 4, 4), np.int64))
    with pytest.raises(ValueError, match=r"expected u8 or f32 \[N, C, H, W\]"):
        ImageAugmenter().transform(np.zeros((2, 3, 4, 4, 5), np.uint8))
