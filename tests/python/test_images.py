"""Pictures on disk: decoding and resizing beside Pillow, image folders, training on one, and broken files."""
import io

import numpy as np
import pytest
from PIL import Image

import deepseek
from deepseek import data, nn

SIZE = 24


def picture(seed, height=40, width=56):
    """Smooth colours, so that JPEG keeps them."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / 20
    waves = [np.sin(a * x + b * y + c) for a, b, c in random.uniform(0.5, 2, (3, 3))]
    return (127 + 100 * np.stack(waves, -1)).astype(np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Two classes: bright pictures and dark ones, as JPEG and PNG, in colour and grey, of several sizes."""
    for label, name in enumerate(["dark", "light"]):
        (tmp_path / name).mkdir()
        for i in range(30):
            array = picture(i, 30 + i % 3 * 10, 36 + i % 2 * 20) // 2 + 128 * label
            image = Image.fromarray(array if i % 5 else array[:, :, 0])
            image.save(tmp_path / name / (f"{i:02}.png" if i % 2 else f"{i:02}.JPG"), **({} if i % 2 else {"quality": 95, "format": "JPEG"}))
        (tmp_path / name / "notes.txt").write_text("no picture")
    return tmp_path


def covered(path, channels):
    """What Pillow makes of a picture: resized to cover the size, its middle."""
    image = Image.open(path).convert("RGB" if channels == 3 else "L")
    scale = max(SIZE / image.height, SIZE / image.width)
    image = image.resize((max(SIZE, round(image.width * scale)), max(SIZE, round(image.height * scale))), Image.Resampling.BILINEAR)
    left, top = (image.width - SIZE) // 2, (image.height - SIZE) // 2
    array = np.asarray(image.crop((left, top, left + SIZE, top + SIZE)))
    return array.transpose(2, 0, 1) if channels == 3 else array[None]


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_are_those_of_pillow(folder, channels):
    parts = data.load("image-folder", folder=folder, size=SIZE, channels=channels, test_fraction=0.2, validation_fraction=0)
    train = parts.train
    assert train.class_names == ["dark", "light"] and len(train) == 48 and len(parts.test) == 12
    x, y = train.read(list(range(len(train))))
    raw = x * np.reshape(train.stddev, (1, channels, 1, 1)) + np.reshape(train.mean, (1, channels, 1, 1))
    for i, path in enumerate(train.files):
        assert y[i] == ("light" in path)
        difference = np.abs(raw[i] * 255 - covered(path, channels))
        # PNG to the bit; in JPEG decoders may round a value either way.
        assert difference.max() <= (0.01 if path.endswith("png") else 3 if channels == 3 else 2), path
    np.testing.assert_allclose(x.mean((0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(x.std((0, 2, 3)), 1, atol=1e-3)


def test_large_jpegs_are_decoded_small(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("0.jpg", "1.jpg"):
        Image.fromarray(picture(1, 480, 640)).save(tmp_path / "a" / name, quality=95)
    parts = data.load("image-folder", folder=tmp_path, size=SIZE, test_fraction=0.5, validation_fraction=0)
    x, _ = parts.train.read([0])
    raw = 255 * (x[0] * np.reshape(parts.train.stddev, (3, 1, 1)) + np.reshape(parts.train.mean, (3, 1, 1)))
    assert np.abs(raw - covered(parts.train.files[0], 3)).mean() < 4


def test_a_run_trains_on_a_folder_and_goes_on_where_it_stopped(folder, tmp_path):
    parts = data.load("image-folder", folder=folder, size=SIZE, test_fraction=0.2, validation_fraction=0.2)

    def train(output, epochs, resume=False):
        deepseek.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 11 * 11, 2))
        trainer = deepseek.Trainer(model, optimizer="adam", metrics=["accuracy"], batch_size=8, augmentation={"methods": ["flip"]}, output=str(output), epochs=epochs)
        trainer.fit(parts.train, parts.validation, progress=False, resume=resume)
        return trainer, model.state_dict()

    trainer, whole = train(tmp_path / "whole", 4)
    assert trainer.evaluate(parts.test)["accuracy"] > 0.9
    train(tmp_path / "parts", 2)
    _, resumed = train(tmp_path / "parts", 4, resume=True)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, resumed[name])


def jpeg(**options):
    out = io.BytesIO()
    Image.fromarray(picture(0)).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize(("content", "message"), [
    (b"", "neither a JPEG nor a PNG nor a WebP"),
    (b"GIF89a" + bytes(20), "is a GIF file; JPEG, PNG and WebP are read: convert it"),
    (jpeg()[:60], "damaged or not a JPEG"),
    (jpeg()[: len(jpeg()) // 2], "damaged or not a JPEG"),
    (b"\xff\xd8\xff\xe0" + bytes(range(200)), "damaged or not a JPEG"),
    (b"\x89PNG\r\n\x1a\n" + bytes(40), "damaged or not a PNG"),
])
def test_broken_files_are_named(tmp_path, content, message):
    (tmp_path / "a").mkdir()
    for name in ("0.jpg", "1.jpg", "2.jpg"):
        (tmp_path / "a" / name).write_bytes(jpeg() if name != "1.jpg" else content)
    with pytest.raises((ValueError, NotImplementedError), match=f"(?s)1.jpg.*{message}"):
        data.load("image-folder", folder=tmp_path, size=SIZE, test_fraction=0.4, validation_fraction=0)[0].read([0, 1])
        data.load("image-folder", folder=tmp_path, size=SIZE, test_fraction=0.4, validation_fraction=0)[2].read([0])


def test_bad_folders_are_refused(tmp_path):
    for name, problem in [("missing", "No such file"), ("empty", "has no folders; expected one for each class, or a CSV of `labels`"),
                          ("flat", "no folders, but 1 pictures without a label")]:
        if name != "missing":
            (tmp_path / name).mkdir()
        if name == "flat":
            (tmp_path / name / "a.png").write_bytes(b"")
        with pytest.raises((ValueError, OSError), match=problem):
            data.load("image-folder", folder=tmp_path / name)
    with pytest.raises(ValueError, match="size is 0"):
        data.load("image-folder", folder=tmp_path / "flat", size=0)
