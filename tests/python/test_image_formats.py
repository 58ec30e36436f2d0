"""Pictures as they come: every kind of PNG, JPEGs of print, WebP, cameras held askew, beside Pillow; lists of pictures with labels."""
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from deepseek import data

SIDE = 19


@pytest.fixture(scope="module")
def colours():
    """Smooth RGBA [SIDE, SIDE, 4]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / 6
    waves = [127 + 100 * np.sin(a * x + b * y + c) for a, b, c in [(1, 0.5, 0), (0.3, 1, 1), (0.7, 0.2, 2), (0.5, 0.5, 0.5)]]
    return np.stack(waves, -1).astype(np.uint8)


def decoded(folder, content, name="0.png", channels=3, size=SIDE):
    """What our reader makes of one file, u8 [C, size, size]: through a class folder and its normalisation."""
    (folder / "a").mkdir(exist_ok=True)
    (folder / "a" / name).write_bytes(content)
    train = data.load("image-folder", folder=folder, size=size, channels=channels, test_fraction=0, validation_fraction=0).train
    x, _ = train.read([0])
    raw = x[0] * np.reshape(train.stddev, (-1, 1, 1)) + np.reshape(train.mean, (-1, 1, 1))
    return np.rint(raw * 255).astype(int)


def encoded(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def of_pillow(content, channels=3):
    """Upright, on white."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    array = np.asarray(image.convert("RGB" if channels == 3 else "L"), int)
    return array.transpose(2, 0, 1) if channels == 3 else array[None]


def png(pixels, kind, depth, palette=None, interlaced=False):
    """A PNG of [H, W] or [H, W, C] samples by the specification, which Pillow can't write in all these ways."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    height, width = pixels.shape[:2]

    def packed(part):
        rows = b""
        for row in part:
            samples = row.ravel()
            if depth == 16:
                rows += b"\0" + samples.astype(">u2").tobytes()
            elif depth == 8:
                rows += b"\0" + samples.astype(np.uint8).tobytes()
            else:
                bits = "".join(f"{s:0{depth}b}" for s in samples)
                rows += b"\0" + int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
        return rows

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)] if interlaced else [(0, 0, 1, 1)]
    raw = b"".join(packed(p) for y, x, dy, dx in passes if (p := pixels[y::dy, x::dx]).size)

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + (chunk(b"PLTE", palette) if palette else b"") + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("what", ["grey", "rgb", "grey alpha", "rgba", "palette", "palette of 4", "1 bit"])
def test_kinds_of_png_are_those_of_pillow(tmp_path, colours, what, channels, interlaced):
    palette = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
    kinds = {"grey": (colours[..., 0], 0, 8), "rgb": (colours[..., :3], 2, 8), "grey alpha": (colours[..., [0, 3]], 4, 8), "rgba": (colours, 6, 8),
             "palette": (colours[..., 0], 3, 8, palette.tobytes()), "palette of 4": (colours[..., 0] // 64, 3, 2, palette[:4].tobytes()),
             "1 bit": (colours[..., 0] // 128, 0, 1)}
    content = png(*kinds[what], interlaced=interlaced)
    difference = np.abs(decoded(tmp_path, content, channels=channels) - of_pillow(content, channels))
    # Pillow rounds alpha twice, and lays colour on white before it becomes grey, as we do.
    assert difference.max() <= (1 if "a" in what.split()[-1][:1] or what == "rgba" else 0)


@pytest.mark.parametrize("interlaced", [False, True])
def test_sixteen_bits_become_the_nearest_of_eight(tmp_path, interlaced):
    deep = np.random.default_rng(1).integers(0, 65536, (SIDE, SIDE, 3))
    expected = np.rint(deep / 257).astype(int)
    np.testing.assert_array_equal(decoded(tmp_path, png(deep, 2, 16, interlaced=interlaced)), expected.transpose(2, 0, 1))
    np.testing.assert_array_equal(decoded(tmp_path, png(deep[..., 0], 0, 16, interlaced=interlaced), channels=1)[0], expected[..., 0])


def test_a_transparent_colour_of_a_palette_is_on_white(tmp_path, colours):
    image = Image.fromarray(colours[..., :3]).quantize(16)
    content = encoded(image, "PNG", transparency=3)
    np.testing.assert_array_equal(decoded(tmp_path, content), of_pillow(content))


@pytest.mark.parametrize("mode", ["CMYK", "RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_are_those_of_pillow(tmp_path, colours, mode, progressive):
    content = encoded(Image.fromarray(colours[..., :3]).convert(mode), "JPEG", quality=92, progressive=progressive)
    assert np.abs(decoded(tmp_path, content, "0.jpg") - of_pillow(content)).max() <= 3


def test_the_four_colours_of_print_as_luminance_too(tmp_path, colours):
    """YCCK: CMYK whose first three are stored as luminance and chrominance, by Adobe's marker."""
    content = bytearray(encoded(Image.fromarray(colours).convert("CMYK"), "JPEG", quality=95))
    at = content.index(b"Adobe") if b"Adobe" in content else -1
    if at < 0:  # Pillow writes no marker: one with transform 2 goes behind the start
        content[2:2] = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x02"
    else:
        content[at + 11] = 2
    assert np.abs(decoded(tmp_path, bytes(content), "0.jpg") - of_pillow(bytes(content))).max() <= 4


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(tmp_path, colours, format, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    content = encoded(Image.fromarray(colours[..., :3]), format, exif=exif, **{"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(format, {}))
    assert np.abs(decoded(tmp_path, content) - of_pillow(content)).max() <= (3 if format == "JPEG" else 0)


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 90}])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_webp_is_that_of_pillow(tmp_path, colours, options, alpha, channels):
    content = encoded(Image.fromarray(colours if alpha else colours[..., :3]), "WEBP", exact=True, **options)
    difference = np.abs(decoded(tmp_path, content, "0.webp", channels) - of_pillow(content, channels))
    assert difference.max() <= (0 if "lossless" in options and not alpha else 1)


def test_the_first_frame_of_a_moving_webp(tmp_path, colours):
    first = Image.fromarray(colours[..., :3])
    content = encoded(first, "WEBP", save_all=True, append_images=[first.transpose(Image.Transpose.ROTATE_90)], lossless=True)
    np.testing.assert_array_equal(decoded(tmp_path, content), colours[..., :3].transpose(2, 0, 1))


def test_content_and_not_the_name_decides(tmp_path, colours):
    content = encoded(Image.fromarray(colours[..., :3]), "WEBP", lossless=True)
    np.testing.assert_array_equal(decoded(tmp_path, content, "0.JPG"), of_pillow(content))


@pytest.mark.parametrize(("format", "name"), [("GIF", "GIF"), ("BMP", "BMP"), ("TIFF", "TIFF"), ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF")])
def test_other_formats_are_named(tmp_path, colours, format, name):
    with pytest.raises(NotImplementedError, match=f"0.png' is a {name} file; JPEG, PNG and WebP are read: convert it, with Pillow"):
        decoded(tmp_path, encoded(Image.fromarray(colours[..., :3]), format))


def test_damaged_webps_are_named(tmp_path, colours):
    content = encoded(Image.fromarray(colours[..., :3]), "WEBP", quality=90)
    for cut in (14, 25, len(content) // 2, len(content) - 5):
        with pytest.raises(ValueError, match="0.png': the file is damaged or not a WebP; replace it"):
            decoded(tmp_path, content[:cut])


def test_pictures_nobody_reads_are_not_passed_over(tmp_path, colours):
    (tmp_path / "a").mkdir()
    for name in ("0.png", "1.bmp", "2.jfif"):
        Image.fromarray(colours[..., :3]).save(tmp_path / "a" / name, {"jfif": "JPEG"}.get(name[2:]))
    with pytest.raises(NotImplementedError, match="'.*/a' has 1 pictures such as '1.bmp', which are not read.*extensions"):
        data.load("image-folder", folder=tmp_path)
    train = data.load("image-folder", folder=tmp_path, extensions=["png", ".JFIF"], test_fraction=0, validation_fraction=0).train
    assert [f.rsplit("/")[-1] for f in train.files] == ["0.png", "2.jfif"]
    with pytest.raises(FileNotFoundError, match="no .tga files"):
        data.load("image-folder", folder=tmp_path, extensions="tga")
    with pytest.raises(ValueError, match="'p/g' is no ending"):
        data.load("image-folder", folder=tmp_path, extensions="p/g")


# ---- labels in a CSV file ----


@pytest.fixture
def listed(tmp_path, colours):
    (tmp_path / "photos").mkdir()
    for i in range(10):
        Image.fromarray(np.roll(colours[..., :3], i, 0)).save(tmp_path / "photos" / f"p, {i}.png")
    return tmp_path


def write(path, rows, header="file,label", end="\n"):
    path.write_text(end.join([header, *rows]) + end, encoding="utf-8")
    return path


def opened(path, **options):
    return data.load("image-folder", **{"labels": path, "size": SIDE, "test_fraction": 0, "validation_fraction": 0, **options})


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_labels_come_from_a_file(listed, end):
    rows = [f'"photos/p, {i}.png",' + ("grün" if i % 3 else '"a ""b"""') for i in range(10)]
    parts = opened(write(listed / "labels.csv", rows, end=end))
    assert parts.train.class_names == ['a "b"', "grün"]
    np.testing.assert_array_equal(parts.train.read(list(range(10)))[1], [int(i % 3 > 0) for i in range(10)])
    assert parts.train.files[3] == str(listed / "photos" / "p, 3.png")
    split = opened(listed / "labels.csv", test_fraction=0.2, validation_fraction=0.25)
    assert (len(split.train), len(split.validation), len(split.test)) == (6, 2, 2)


def test_other_columns_another_folder_numbers_and_a_test_part(listed):
    rows = [f"p, {i}.png\t{10 - i}\t{i / 4}" for i in range(10)]
    path = write(listed / "train.tsv", rows[:8], "path\tkind\tvalue")
    test = write(listed / "test.tsv", rows[6:8], "path\tkind\tvalue")
    options = {"folder": listed / "photos", "file_column": "path", "test": test}
    parts = opened(path, label_column="value", task="regression", **options)
    assert parts.train.fields["y"]["dtype"] == "f32" and len(parts.test) == 2
    np.testing.assert_array_equal(parts.train.read(list(range(8)))[1], np.arange(8, dtype=np.float32) / 4)
    parts = opened(path, label_column="kind", **options)
    assert parts.train.class_names == [str(i) for i in range(3, 11)]  # as numbers, not as text
    assert parts.test.class_names == parts.train.class_names


@pytest.mark.parametrize(("rows", "header", "options", "message"), [
    (["photos/none.png,a"], "file,label", {}, "line 2: there is no file '.*photos/none.png'"),
    (['"photos/p, 1.png",'], "file,label", {}, "line 2: 'photos/p, 1.png' has no label"),
    (['"photos/p, 1.png",a,b'], "file,label", {}, "line 2: 3 fields, but the header has 2"),
    (['"photos/p, 1.png'], "file,label", {}, "a quote is not closed"),
    (['"photos/p, 1.png"x,a'], "file,label", {}, "text follows a closed quote"),
    (['"photos/p, 1.png",a'], "file,labels", {}, "has no column 'label'; did you mean 'labels'"),
    (['"photos/p, 1.png",a'], "file,label", {"task": "regression"}, "line 2: label is 'a', expected a number"),
    (['"photos/p, 1.png",0.5'], "file,label", {}, "say `task: regression`"),
    ([], "file,label", {}, "has a header, but no rows"),
    (['"photos/p, 1.png",a'], "file,label", {"task": "ranking"}, "expected classes or regression"),
    (['"photos/p, 1.png",a'], "file,label", {"extensions": "png"}, "leave one out"),
])
def test_mistakes_in_lists_are_told_by_line(listed, rows, header, options, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(write(listed / "labels.csv", rows, header), **options)


def test_labels_of_a_test_part_are_those_of_training(listed):
    train = write(listed / "train.csv", ['"photos/p, 1.png",a', '"photos/p, 2.png",b'])
    test = write(listed / "test.csv", ['"photos/p, 3.png",c'])
    with pytest.raises(ValueError, match="test.csv', line 2: 'c' is none of the classes a, b"):
        opened(train, test=test)
    with pytest.raises(ValueError, match="label_column is of `labels`"):
        data.load("image-folder", folder=listed, label_column="x")
