"""Clips: every way of choosing frames against decoding everything, then everything that can be wrong with a file."""

import struct

import av
import numpy as np
import pytest
from PIL import Image

from monoglot.errors import MediaError
from monoglot.modalities.video import Film, VideoConfig, centres, prepare
from monoglot.nouns import Media

CONFIG = VideoConfig(size=32, frames=4)
FIX = "give an MP4, WebM, MKV or AVI, or copy it again if it was cut off"


def read(source, config=CONFIG, variant=0, **window):
    item = prepare(Media("video", source, **window), config, variant)
    assert item.shape == (config.frames, 3, config.size, config.size)
    assert item.dtype == np.uint8
    return item


def decode_everything(path, config=CONFIG, start=0.0, end=None):
    """The slow way: all frames, sorted by time; each wanted time takes the last frame that began by then."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = sorted(container.decode(stream), key=lambda frame: frame.pts)
        first = stream.start_time or 0
        times = np.array([(frame.pts - first) * float(stream.time_base) for frame in frames])
        length = float(stream.duration * stream.time_base) if stream.duration else container.duration / av.time_base
        end = length if end is None else min(end, length)
    chosen = np.maximum(np.searchsorted(times, centres(start, end, config.frames) + Film.TICK_S, side="right") - 1, 0)
    size = {"width": config.size, "height": config.size, "format": "rgb24", "interpolation": "BICUBIC"}
    return np.stack([frames[index].to_ndarray(**size).transpose(2, 0, 1) for index in chosen])


def numbers(item):
    """Frame numbers, from the red level."""
    return np.rint(item[:, 0].mean(axis=(1, 2)) / 8).astype(int).tolist()


# --- right readings


@pytest.mark.parametrize("keyframes", [1, 5, 250])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mpeg4"),
        ("a.ts", "libx264"),
        ("a.mov", "mpeg4"),
    ],
)
@pytest.mark.parametrize("frames", [1, 3, 8])
def test_frames_equal_decoding_everything(write_film, name, codec, keyframes, frames, monkeypatch):
    monkeypatch.setattr(Film, "PATIENCE_S", 0.4)  # so that a short clip jumps as a long one does
    path = write_film(name, keyframes=keyframes, codec=codec)
    config = VideoConfig(size=32, frames=frames)
    assert np.array_equal(read(path, config), decode_everything(path, config))
    window = {"start": 0.85, "end": 2.3}
    assert np.array_equal(read(path, config, **window), decode_everything(path, config, **window))


def test_the_choice_is_the_centres_of_equal_intervals(write_film):
    assert numbers(read(write_film(count=24), VideoConfig(size=32, frames=4))) == [3, 9, 15, 21]


def test_variable_frame_rate_goes_by_time(write_film):
    times = np.concatenate(
        [np.arange(10) * 0.02, 0.2 + np.arange(10) * 0.5]
    )  # ten quick frames, then ten slow ones: 5.2 s
    path = write_film("vfr.mkv", times=times)
    item = read(path, VideoConfig(size=32, frames=8))
    assert np.array_equal(item, decode_everything(path, VideoConfig(size=32, frames=8)))
    assert numbers(item)[1] == 11  # by counting frames it would be the fourth


def test_long_gaps_jump_and_short_ones_decode(write_film, monkeypatch):
    jumps = []
    jump = Film._jump
    monkeypatch.setattr(Film, "_jump", lambda film, time: jumps.append(time) or jump(film, time))
    rare, often = write_film("rare.mp4", keyframes=250), write_film("often.mp4", keyframes=3)
    read(rare)
    assert jumps == []
    read(often)
    assert len(jumps) == 4


def test_few_frames_repeat(write_film):
    assert numbers(read(write_film(count=2), VideoConfig(size=32, frames=6))) == [0, 0, 0, 1, 1, 1]


def test_one_frame(write_film):
    for name in ("one.mp4", "one.mkv", "one.webm"):
        item = read(write_film(name, count=1, codec="libvpx-vp9" if name == "one.webm" else "libx264"))
        assert (item == item[0]).all()


def test_bytes_and_tar_member(write_film, tmp_path):
    import tarfile

    path = write_film()
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        tar.add(path, "clip.mp4")
    assert np.array_equal(read(path.read_bytes()), read(path))
    assert np.array_equal(read(f"tar://{tmp_path}/s.tar#clip.mp4"), read(path))


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.m4v", "mpeg4"), ("a.y4m", "rawvideo")])
def test_streams_without_times_go_by_number(write_film, name, codec, monkeypatch):
    monkeypatch.setattr(Film, "PATIENCE_S", 0.1)
    path = write_film(name, count=24, codec=codec)
    seen = numbers(read(path, VideoConfig(size=32, frames=4)))
    assert np.abs(np.array(seen) - [3, 9, 15, 21]).max() <= 1


def test_a_clip_with_sound(write_film):
    path = write_film(sound=True)
    assert np.array_equal(read(path), decode_everything(path))


def test_a_still_picture_is_a_clip_of_one_frame(scene, save):
    for name in ("a.png", "a.jpg"):
        item = read(save(scene(), name))
        assert (item == item[0]).all()


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
@pytest.mark.parametrize("kept", [64 * 2**20, 5 * 4 * 40 * 40])
def test_animations(kind, kept, save, monkeypatch):
    monkeypatch.setattr("monoglot.modalities.video.KEPT_BYTES", kept)
    frames = [Image.new("RGBA", (40, 40), (0, 0, 0, 0)) for _ in range(12)]
    for index, frame in enumerate(frames):
        frame.paste((20 * index, 0, 200, 255), (0, 0, 20, 40))
    durations = [50] * 6 + [200] * 6  # 1.5 s
    options = {"lossless": True} if kind == "webp" else {"disposal": 2 if kind == "gif" else 1}
    path = save(frames[0], f"a.{kind}", save_all=True, append_images=frames[1:], duration=durations, **options)
    item = read(path, VideoConfig(size=32, frames=5))
    assert (item[:, :, 16, 28] == 255).all()  # transparent: white
    seen = np.rint(item[:, 0, 16, 4] / 20).astype(int).tolist()
    assert seen == [3, 6, 8, 9, 11]  # 0.15, 0.45, 0.75, 1.05, 1.35 s
    seen = (
        np.rint(read(path, VideoConfig(size=32, frames=2), start=0.5, end=0.9)[:, 0, 16, 4] / 20).astype(int).tolist()
    )
    assert seen == [7, 8]


def test_frames_in_memory(scene):
    clip = np.stack([scene(32, 32, seed) for seed in range(8)])
    item = read(clip)
    assert np.array_equal(item, clip[[1, 3, 5, 7]].transpose(0, 3, 1, 2))
    assert np.array_equal(read([Image.fromarray(frame) for frame in clip]), item)
    assert numbers(read(np.full((1, 20, 30, 3), 80, np.uint8))) == [10] * 4


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, -1, 0), -1), ((-1, 0, 0, -1), 2), ((0, -1, 1, 0), 1)])
def test_a_film_taken_sideways_is_turned(write_film, matrix, turns):
    """The display matrix of the track header (ISO 14496-12, 8.3.2): (0 1 -1 0) turns a quarter clockwise."""
    path = write_film(count=4, size=(64, 64))
    plain = read(path)
    data = bytearray(path.read_bytes())
    a, b, c, d = (value << 16 for value in matrix)
    at = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, at) == (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    assert np.array_equal(read(path), np.rot90(plain, turns, axes=(2, 3)))


# --- wrong files, each with its one line


def message(source, config=CONFIG, **window):
    with pytest.raises(MediaError) as error:
        prepare(Media("video", source, **window), config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_missing_and_empty(tmp_path):
    path = tmp_path / "none.mp4"
    assert (
        message(path) == f"{path}: video: no such file; check the path (a row's paths are relative to the row's file)"
    )
    path.touch()
    assert message(path) == f"{path}: video: the file is empty (0 bytes); copy or download it again"


@pytest.mark.parametrize("name", ["words.mp4", "words.txt"])
def test_not_a_video(tmp_path, name):
    path = tmp_path / name
    path.write_text("just words\n" * 100)  # FFmpeg would draw a .txt as a film of a text screen
    expected = "no readable video (Invalid data found when processing input); " + FIX
    assert message(path) == f"{path}: video: {expected}"


def test_sound_only(write_compressed_sound, write_sound):
    for path in (write_compressed_sound("a.mp4"), write_compressed_sound("a.m4a"), write_sound("a.wav")):
        assert message(path) == f"{path}: video: holds sound but no frames; give a clip, or name it as audio"


def test_a_cover_picture_is_not_a_film(scene, save, write_compressed_sound, tmp_path):
    sound, cover, path = (
        write_compressed_sound("a.mp3", codec="mp3"),
        save(scene(64, 64), "cover.png"),
        tmp_path / "b.mp3",
    )
    body = b"\0image/png\0\x03\0" + cover.read_bytes()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = len(frame)
    syncsafe = bytes((size >> shift) & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\x03\0\0" + syncsafe + frame + sound.read_bytes())
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 1
    assert "holds sound but no frames" in message(path)


def test_no_frames(tmp_path):
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    assert message(path) == f"{path}: video: no readable video (End of file); {FIX}"


@pytest.mark.parametrize(
    ("name", "options"), [("a.mp4", {}), ("a.mp4", {"movflags": "faststart"}), ("a.mkv", {}), ("a.webm", {})]
)
def test_truncated(write_film, name, options):
    path = write_film(
        name, count=30, keyframes=5, codec="libvpx-vp9" if name == "a.webm" else "libx264", size=(320, 240), **options
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 5 // 9])
    text = message(path)
    assert text.startswith(f"{path}: video: ")
    if name != "a.mp4" or options:  # what lies before the cut can be read
        assert "has no frame at" in text or "cannot be decoded" in text
        assert numbers(read(path, VideoConfig(size=32, frames=2), end=0.4)) == [1, 3]


def test_windows(write_film):
    path = write_film(count=20)
    with av.open(str(path)) as container:
        length = container.duration / av.time_base
    assert message(path, start=5.0) == f"{path}: video: starts at 5 s but lasts {length:.3g} s; move start and end"
    assert message(path, start=1.0, end=1.0) == f"{path}: video: the window 1 to 1 s is empty; give 0 <= start < end"
    assert message(path, start=-1.0) == f"{path}: video: the window -1 to {length:g} s is empty; give 0 <= start < end"
    assert np.array_equal(read(path, start=0.5, end=99.0), read(path, start=0.5))


def test_wrong_memory(scene):
    clip = np.zeros((3, 8, 8, 3), np.uint8)
    assert "cut the frames" in message(clip, start=1.0)
    assert (
        message([])
        == "frames in memory: video: an empty list is not a clip; give uint8[frames, height, width, 3] or PIL images"
    )
    assert "uint8[8, 8, 3] is not a clip" in message(clip[0])
    assert "float32[8, 8, 3] is not a picture" in message(clip.astype(np.float32))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_large_an_animation(tmp_path):
    path = tmp_path / "a.gif"
    Image.new("P", (8, 8)).save(path, save_all=True, append_images=[Image.new("P", (8, 8), 1)])
    whole = path.read_bytes()
    path.write_bytes(whole[:6] + struct.pack("<HH", 9_500, 9_500) + whole[10:])
    assert message(path).endswith("9500 x 9500 pixels is too large; reduce it below 89,000,000 pixels")


# --- variants


def test_variants_change_colours_only_and_all_frames_alike(write_film):
    path = write_film()
    plain = read(path).astype(float)
    for variant in (1, 2, -1):
        copy = read(path, variant=variant)
        assert np.array_equal(copy, read(path, variant=variant))
        assert not np.array_equal(copy, plain)
        assert np.corrcoef(copy.astype(float).ravel(), plain.ravel())[0, 1] > 0.9
    still = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 40, 40, 3), dtype=np.uint8), 4, axis=0)
    copy = read(still, variant=7)
    assert (copy == copy[0]).all()


def test_configuration_is_checked():
    with pytest.raises(ValueError, match="frames 9: more than frame_positions 8"):
        VideoConfig(frames=9, frame_positions=8)
    assert VideoConfig(frames=9, frame_positions=0).frames == 9
