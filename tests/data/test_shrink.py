"""Media made smaller: what they hold afterwards against what they held before, and everything that stays as it is."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from monoglot.data import shrink as module
from monoglot.data.film import encode
from monoglot.data.pack import suffix_of
from monoglot.data.shrink import Shrink
from monoglot.errors import MediaError
from monoglot.modalities.video import VideoConfig, read_frames
from monoglot.nouns import Media, Sample


def small(settings: Shrink, *media: Media) -> tuple[Media, ...]:
    return settings(Sample("1", "caption", media)).media


def opened(media: Media) -> Image.Image:
    return Image.open(io.BytesIO(media.source))


def smooth(height: int, width: int) -> np.ndarray:
    rows, cols = np.mgrid[0:height, 0:width]
    return np.stack([255 * cols / width, 255 * rows / height, 128 + 0 * rows], axis=-1).astype(np.uint8)


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "after"), [((900, 600), (90, 60)), ((91, 300), (27, 90)), ((2000, 3), (90, 1))])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_pictures(tmp_path, size, after, kind):
    path = tmp_path / f"a.{kind}"
    Image.fromarray(smooth(size[1], size[0])).save(path)
    (made,) = small(Shrink(image_side=90), Media("image", str(path)))
    assert (opened(made).size, opened(made).format) == (after, "JPEG")
    expected = np.asarray(Image.fromarray(smooth(size[1], size[0])).resize(after, Image.Resampling.BOX)).astype(int)
    assert np.abs(np.asarray(opened(made)).astype(int) - expected).mean() < 4


def test_a_picture_that_is_small_enough_is_not_touched(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(smooth(90, 60)).save(path)
    media = Media("image", str(path))
    assert small(Shrink(image_side=90), media) == (media,)
    assert small(Shrink(), media) == (media,)
    assert small(Shrink(audio_rate=8000, video_side=32), media) == (media,)


def test_transparent_pictures_stay_transparent_and_turned_ones_are_turned(tmp_path):
    clear = np.dstack([smooth(100, 100), np.full((100, 100), 90, np.uint8)])
    Image.fromarray(clear).save(tmp_path / "clear.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(smooth(100, 200)).save(tmp_path / "turned.jpg", exif=exif)
    one, two = small(
        Shrink(image_side=50), *(Media("image", str(tmp_path / name)) for name in ("clear.png", "turned.jpg"))
    )
    assert (opened(one).format, opened(one).mode, opened(one).getpixel((20, 20))[3]) == ("PNG", "RGBA", 90)
    assert (opened(two).size, opened(two).getexif().get(0x0112)) == ((25, 50), None)


def test_rows_about_one_picture_read_it_once(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.fromarray(smooth(90, 60)).save(path)
    read, count = module.read_picture, []
    monkeypatch.setattr(module, "read_picture", lambda *given: count.append(1) or read(*given))
    made = [small(Shrink(image_side=32), Media("image", str(path)))[0].source for _ in range(5)]
    assert len(count) == 1
    assert len(set(made)) == 1


# --- clips ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path) -> Path:
    """Four seconds at 10 frames a second, 160 wide and 64 high; where the white bar stands says which frame it is."""
    frames = np.zeros((40, 64, 160, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 4 * number : 4 * number + 4] = 255
    path = tmp_path / "clip.mp4"
    path.write_bytes(encode(frames, 10, crf=10))
    return path


def numbers(source, count: int) -> list[float]:
    frames = read_frames(Media("video", source), VideoConfig(size=160, frames=count, frame_positions=0))
    bright = [np.asarray(frame).mean(axis=(0, 2)) ** 2 for frame in frames]
    return [float((np.arange(160) * one).sum() / one.sum() / 4) - 0.375 for one in bright]


def facts(data: bytes) -> tuple[int, int, int, float]:
    """Frames, width, height, seconds."""
    with av.open(io.BytesIO(data)) as film:
        stream = film.streams.video[0]
        frames = sum(1 for _ in film.decode(stream))
        return frames, stream.width, stream.height, round(float(stream.duration * stream.time_base), 3)


def test_clips_of_fewer_and_smaller_frames(clip):
    (made,) = small(Shrink(video_side=80, video_fps=5), Media("video", str(clip)))
    assert facts(made.source) == (20, 80, 32, 4.0)
    assert numbers(made.source, 20) == pytest.approx(np.arange(1, 40, 2), abs=0.4)  # the frame at the middle of each
    (made,) = small(Shrink(video_side=81), Media("video", str(clip)))
    assert facts(made.source) == (40, 80, 32, 4.0)  # sides are even
    assert numbers(made.source, 40) == pytest.approx(np.arange(40), abs=0.4)
    (made,) = small(Shrink(video_fps=0.1), Media("video", str(clip)))
    assert facts(made.source)[:3] == (1, 160, 64)


def test_a_window_becomes_a_file_of_its_own(clip):
    (made,) = small(Shrink(video_fps=10), Media("video", str(clip), start=1.0, end=2.5))
    assert (made.start, made.end) == (None, None)
    assert facts(made.source) == (15, 160, 64, 1.5)
    assert numbers(made.source, 15) == pytest.approx(np.arange(10, 25), abs=0.4)


def test_with_one_item_all_of_a_row_are_cut(clip, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.linspace(-1, 1, 32000), 8000)
    media = [Media("video", str(clip), 1.0, 2.0), Media("audio", str(tmp_path / "a.wav"), 1.0, 2.0)]
    film, sound = small(Shrink(video_side=32), *media)
    assert (film.start, sound.start) == (None, None)
    samples, rate = soundfile.read(io.BytesIO(sound.source))
    assert (len(samples), rate) == (8000, 8000)
    assert samples[[0, -1]] == pytest.approx([-0.5, 0.0], abs=1e-3)
    assert small(Shrink(image_side=32), *media) == tuple(media)


def test_clips_that_stay_as_they_are(clip, tmp_path):
    whole = Media("video", str(clip))
    assert small(Shrink(video_side=160, video_fps=10), whole) == (whole,)
    frames = [Image.fromarray(smooth(40, 40)), Image.fromarray(smooth(40, 40)[::-1])]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    animation = Media("video", str(tmp_path / "a.gif"), start=0.0, end=0.1)
    assert small(Shrink(video_side=16), animation) == (animation,)


def test_a_clip_on_its_side_is_turned(clip, tmp_path):
    data = bytearray(clip.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix of the track
    turned = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    data[at : at + 36] = turned
    (tmp_path / "side.mp4").write_bytes(data)
    media = Media("video", str(tmp_path / "side.mp4"))
    (made,) = small(Shrink(video_side=80), media)
    assert facts(made.source)[1:3] == (32, 80)
    before, after = (
        read_frames(Media("video", s), VideoConfig(size=32, frames=1))[0] for s in (media.source, made.source)
    )
    assert np.abs(np.asarray(before).astype(int) - np.asarray(after)).mean() < 3


# --- sounds -----------------------------------------------------------------------------------------------------------


def test_sounds_become_mono_flac(tmp_path):
    tone = np.sin(np.arange(48000) * 2 * np.pi * 440 / 48000) / 2
    soundfile.write(tmp_path / "a.wav", np.stack([tone, tone], axis=1), 48000, subtype="FLOAT")
    (made,) = small(Shrink(audio_rate=16000), Media("audio", str(tmp_path / "a.wav")))
    samples, rate = soundfile.read(io.BytesIO(made.source))
    assert (made.source[:4], rate, samples.shape) == (b"fLaC", 16000, (16000,))
    assert np.abs(samples - tone[::3])[200:-200].max() < 2e-3


def test_a_sound_that_is_smaller_as_it_is_stays(tmp_path):
    noise = np.random.default_rng(0).uniform(-1, 1, 16000)
    soundfile.write(tmp_path / "a.ogg", noise, 16000)
    media = Media("audio", str(tmp_path / "a.ogg"))
    assert small(Shrink(audio_rate=16000), media) == (media,)
    (cut,) = small(Shrink(audio_rate=16000), Media("audio", media.source, 0.0, 0.5))
    assert len(soundfile.read(io.BytesIO(cut.source))[0]) == 8000


def test_long_sounds_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_SPAN_S", 1.0)
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    media = Media("audio", str(tmp_path / "a.wav"))
    assert small(Shrink(audio_rate=8000), media) == (media,)


# --- broken -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modality", ["image", "video", "audio"])
@pytest.mark.parametrize("data", [b"", b"no media at all" * 100])
def test_broken_media_are_told(tmp_path, modality, data):
    path = tmp_path / "a"
    path.write_bytes(data)
    media = Media(modality, str(path))
    for settings in (Shrink(image_side=9, video_side=9, audio_rate=9), Shrink(check=True)):
        with pytest.raises(MediaError, match=f"^{path}: {modality}: ") as error:
            small(settings, media)
        assert "\n" not in str(error.value)
    assert small(Shrink(), media) == (media,)


def test_what_is_cut_off_is_found_though_it_is_small_enough(tmp_path, clip):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 60, 3), np.uint8)).save(tmp_path / "a.png")
    cut = (tmp_path / "a.png").read_bytes()[:200]
    (tmp_path / "a.png").write_bytes(cut)
    with pytest.raises(MediaError, match="cannot be decoded"):
        small(Shrink(image_side=500), Media("image", str(tmp_path / "a.png")))
    soundfile.write(tmp_path / "a.wav", np.array([0.0, np.nan]), 8000, subtype="FLOAT")
    with pytest.raises(MediaError, match="not numbers"):
        small(Shrink(audio_rate=8000), Media("audio", str(tmp_path / "a.wav")))
    with pytest.raises(MediaError, match="holds no frames"):
        small(Shrink(video_side=16), Media("video", str(tmp_path / "a.wav")))
    with pytest.raises(MediaError, match=r"starts at 9 s but lasts 4 s"):
        small(Shrink(video_side=16), Media("video", str(clip), start=9.0))


def test_endings_go_by_what_is_inside(clip):
    assert suffix_of(clip.read_bytes()) == ".mp4"
    for kind, suffix in (("PNG", ".png"), ("JPEG", ".jpg"), ("GIF", ".gif"), ("WEBP", ".webp"), ("TIFF", "")):
        file = io.BytesIO()
        Image.new("RGB", (4, 4)).save(file, kind)
        assert suffix_of(file.getvalue()) == suffix
    for kind, suffix in (("WAV", ".wav"), ("FLAC", ".flac")):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(9), 8000, format=kind)
        assert suffix_of(file.getvalue()) == suffix
