"""Pictures: against Pillow and numpy done by hand, then everything that can be wrong with a file."""

import io
import struct
import tarfile
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from monoglot.errors import MediaError
from monoglot.modalities import MODALITIES
from monoglot.modalities.image import ImageConfig, prepare, to_square
from monoglot.nouns import Media

CONFIG = ImageConfig(size=64)


def read(source, variant=0, config=CONFIG):
    item = prepare(Media("image", source), config, variant)
    assert item.shape == (3, config.size, config.size)
    assert item.dtype == np.uint8
    assert item.flags.c_contiguous
    return item


def planar(picture):
    return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)


def by_pillow(array):
    return planar(Image.fromarray(array).resize((64, 64), Image.Resampling.BICUBIC))


def difference(a, b):
    return np.abs(a.astype(int) - b.astype(int))


# --- right readings


def test_a_file_reads_as_pillow_resizes_it(scene, save):
    pixels = scene()
    assert np.array_equal(read(save(pixels, "a.png")), by_pillow(pixels))


def test_path_bytes_pil_array_and_tar_member_agree(scene, save, tmp_path):
    pixels = scene()
    path = save(pixels, "a.png")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        tar.add(save(scene(seed=1), "other.png"), "0.png")
        tar.add(path, "folder/a.png")
    expected = read(path)
    for source in (str(path), path.read_bytes(), Image.open(path), pixels, f"tar://{tmp_path}/shard.tar#folder/a.png"):
        assert np.array_equal(read(source), expected)


def test_an_upscaled_single_pixel_is_flat():
    assert (read(np.full((1, 1, 3), 77, np.uint8)) == 77).all()


def test_a_reduced_jpeg_is_close_to_the_full_one(scene, save):
    path = save(scene(600, 800), "a.jpg", quality=95)
    full = np.asarray(Image.open(path).convert("RGB"))
    assert difference(read(path), by_pillow(full)).mean() < 1.5


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(scene, save, orientation):
    pixels = scene(64, 64)
    turned = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(pixels, "a.png", exif=exif)
    assert np.array_equal(read(path), turned.transpose(2, 0, 1))


def test_transparency_goes_on_white(save):
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[16:48, 16:48] = (200, 0, 0, 255)
    pixels[0:8, 0:8] = (0, 0, 0, 128)
    item = read(save(pixels, "a.png"))
    assert (item[:, 60, 60] == 255).all()
    assert item[:, 32, 32].tolist() == [200, 0, 0]
    assert difference(item[:, 4, 4], np.full(3, 127)).max() <= 1


def test_colours_hidden_under_transparency_do_not_bleed(save):
    pixels = np.zeros((128, 128, 4), np.uint8)  # hidden black around an opaque white disc: all white, when looked at
    rows, cols = np.mgrid[0:128, 0:128]
    pixels[(rows - 64) ** 2 + (cols - 64) ** 2 < 1600] = 255
    assert read(save(pixels, "a.png")).min() >= 254


def test_sixteen_bits_are_scaled_not_cut(save):
    ramp = np.linspace(0, 65535, 64 * 64).round().reshape(64, 64)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for source in (
        save(ramp.astype(np.uint16), "a.png"),
        save(ramp.astype(np.uint16), "a.tif"),
        Image.fromarray(ramp.astype(np.int32)),
    ):
        item = read(source)
        assert difference(item, np.stack([expected] * 3)).max() <= 1


def test_float_pictures_are_fractions_or_levels():
    ramp = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    expected = np.stack([np.rint(ramp * 255)] * 3)
    assert difference(read(Image.fromarray(ramp)), expected).max() <= 1
    assert difference(read(Image.fromarray(ramp * 255)), expected).max() <= 1


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_other_modes_convert(mode, scene):
    grey = Image.fromarray(scene(64, 64)).convert("L").point(lambda level: 255 if level > 127 else 0).convert("RGB")
    source = grey.convert("L").convert("LA") if mode == "LA" else grey.convert("RGB" if mode == "LAB" else mode)
    if mode == "LAB":
        source = Image.new("LAB", (64, 64), (255, 128, 128))
        assert read(source).shape == (3, 64, 64)
        return
    assert difference(read(source), planar(grey)).max() <= 3


def test_cmyk_jpeg(scene, save):
    picture = Image.fromarray(scene(64, 64))
    item = read(save(picture.convert("CMYK"), "a.jpg", quality=98))
    assert difference(item, planar(picture)).mean() < 4


def test_palette_with_transparency(save):
    picture = Image.new("P", (64, 64), 0)
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.paste(1, (0, 0, 32, 64))
    item = read(save(picture, "a.png", transparency=0))
    assert item[:, 10, 10].tolist() == [200, 100, 50]
    assert item[:, 10, 60].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_is_the_picture(kind, save):
    frames = [Image.new("RGB", (64, 64), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if kind == "webp" else {}
    item = read(save(frames[0], f"a.{kind}", save_all=True, append_images=frames[1:], duration=100, **options))
    assert difference(item[:, 30, 30], np.array([250, 0, 0])).max() <= 8


# --- wrong files, each with its one line


def message(source, config=CONFIG):
    with pytest.raises(MediaError) as error:
        prepare(Media("image", source), config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_file(tmp_path):
    path = tmp_path / "none.png"
    assert (
        message(path) == f"{path}: image: no such file; check the path (a row's paths are relative to the row's file)"
    )


def test_zero_bytes(tmp_path):
    path = tmp_path / "empty.png"
    path.touch()
    assert message(path) == f"{path}: image: the file is empty (0 bytes); copy or download it again"


def test_a_folder(tmp_path):
    assert message(tmp_path) == f"{tmp_path}: image: is not a file; name one file"


def test_not_a_picture(tmp_path):
    path = tmp_path / "words.png"
    path.write_text("just words")
    assert message(path) == f"{path}: image: not a picture; give a PNG, JPEG, WebP, GIF, BMP or TIFF"


def test_an_eps_is_never_run(tmp_path):
    path = tmp_path / "a.eps"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    assert "not a picture" in message(path)


@pytest.mark.parametrize("kind", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_truncated(scene, save, kind):
    path = save(scene(200, 300), f"a.{kind}")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    text = message(path)
    assert text.startswith(f"{path}: image: ")
    assert "cannot be" in text or "not a picture" in text
    if kind == "jpg":
        assert "cannot be decoded (image file is truncated" in text
        assert text.endswith("; copy or export it again")


def png_header(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(("width", "height"), [(20_000, 20_000), (10_000, 10_000), (60_000, 60_000)])
def test_a_huge_picture_is_refused_from_its_header(tmp_path, width, height):
    path = tmp_path / "huge.png"
    path.write_bytes(png_header(width, height))
    message(png_header(30, 30))  # everything that is imported late is imported
    tracemalloc.start()
    text = message(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "pixels" in text
    assert text.endswith("; reduce it below 89,000,000 pixels")
    assert peak < 1_000_000


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_wrong_arrays(array):
    shape = f"{array.dtype}{list(array.shape)}"
    assert message(array) == f"array in memory: image: {shape} is not a picture; give uint8[height, width, 3]"


def test_wrong_source():
    assert message(3.5).startswith("in memory: image: a float cannot be read; give a path")


def test_no_such_tar_or_member(scene, save, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(save(scene(), "a.png"), "a.png")
    shard = tmp_path / "s.tar"
    assert (
        message(f"tar://{shard}#b.png")
        == f"{shard}: image: no member 'b.png' in this tar; it holds 1 files; list them with tar -tf"
    )
    assert "no such file" in message(f"tar://{tmp_path}/t.tar#b.png")
    assert message(f"tar://{shard}").endswith("no member is named; write tar://shard.tar#member")
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    assert "not a plain tar" in message(f"tar://{tmp_path}/bad.tar#a.png")


def test_a_member_is_read_without_the_rest(tmp_path, scene):
    """A member of a 2 GB shard (sparse on disk) is read at once: headers are skipped through, contents are not read."""
    picture = io.BytesIO()
    Image.fromarray(scene()).save(picture, "png")
    big = tarfile.TarInfo("big.bin")
    big.size = 2 * 2**30
    small = tarfile.TarInfo("a#1.png")
    small.size = len(picture.getvalue())
    path = tmp_path / "s.tar"
    with open(path, "wb") as file:
        file.write(big.tobuf())
        file.seek(big.size, io.SEEK_CUR)
        file.write(small.tobuf() + picture.getvalue())
        file.write(bytes(-small.size % 512 + 1024))
    assert np.array_equal(read(f"tar://{path}#a#1.png"), by_pillow(scene()))


# --- variants


def test_variants_are_repeatable_and_differ(scene):
    source = scene()
    assert np.array_equal(read(source, 3), read(source, 3))
    copies = [read(source, variant) for variant in (0, 1, 2, -1, -2)]
    for index, copy in enumerate(copies):
        assert not any(np.array_equal(copy, other) for other in copies[:index])


def test_a_variant_does_not_depend_on_where_the_file_lies(scene, save, tmp_path):
    (tmp_path / "b").mkdir()
    assert np.array_equal(read(save(scene(), "a.png"), 5), read(save(scene(), "b/c.png"), 5))


def centre_of(item, dark=True):
    weight = 255.0 - item.mean(axis=0) if dark else item.mean(axis=0)
    weight = np.maximum(weight - weight.min() - 0.5 * np.ptp(weight), 0)
    rows, cols = np.mgrid[0 : weight.shape[0], 0 : weight.shape[1]]
    return np.array([(rows * weight).sum(), (cols * weight).sum()]) / weight.sum()


def test_negative_variants_keep_places_and_positive_ones_move():
    pixels = np.full((64, 64, 3), 240, np.uint8)
    pixels[10:20, 40:50] = 10
    plain = centre_of(read(pixels))
    stays = [np.abs(centre_of(read(pixels, -k)) - plain).max() for k in range(1, 20)]
    moves = [np.abs(centre_of(read(pixels, k)) - plain).max() for k in range(1, 20)]
    assert max(stays) < 0.6
    assert sorted(moves)[5] > 1
    assert max(moves) < 32


def test_no_variant_mirrors():
    pixels = np.full((64, 64, 3), 240, np.uint8)
    pixels[:, 48:] = 10
    for variant in range(-10, 20):
        item = read(pixels, variant).mean(axis=(0, 1))
        assert item[36:60].mean() < item[4:28].mean()


def test_transparent_pictures_get_backgrounds():
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[24:40, 24:40] = (255, 0, 0, 255)
    corners = {tuple(read(Image.fromarray(pixels), -k)[:, 0, 0] // 64) for k in range(1, 30)}
    assert len(corners) > 4


def test_configuration_is_checked():
    with pytest.raises(ValueError, match="multiple of 32"):
        ImageConfig(size=100)
    with pytest.raises(ValueError, match="sise"):
        ImageConfig(sise=64)
    assert all(field.description for modality in MODALITIES.values() for field in modality.config.model_fields.values())


def test_to_square_ignores_the_aspect():
    assert to_square(Image.new("RGB", (10, 200)), 32).size == (32, 32)
