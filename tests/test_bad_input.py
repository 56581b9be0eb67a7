"""What users really give: broken, odd and enormous pictures, clips, sounds and texts. Each works, or is told in one line."""

from __future__ import annotations

import json
import re
import resource
import struct
import time
import zlib
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image
from small import square

Make = Callable[[Path], None]
"""Writes one file."""


@pytest.fixture
def ask(command, model_folder):
    """Ask the fitting question about one file; returns exit code, stdout, stderr."""

    def run(modality: str, path: Path, *more: object) -> tuple[int, str, str]:
        task = ("--task", "vqa", "--text", "what is this?")
        return command("predict", "--model", model_folder, *task, f"--{modality}", path, *more)

    return run


@pytest.fixture
def memory():
    """Call it for how many bytes the peak of this process has grown since the test began."""
    began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return lambda: 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - began)


def scene(height: int = 90, width: int = 120) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, (rows * columns) % 251], axis=-1).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------- pictures


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def truncated_jpeg(path: Path) -> None:
    Image.fromarray(scene(400, 600)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:4000])


PICTURES: dict[str, tuple[str, Make | None, str]] = {
    "missing": ("cup.png", None, "no such file; correct the path"),
    "a folder": ("cup", Path.mkdir, "is not a file; name one file"),
    "zero bytes": ("cup.png", Path.touch, "the file is empty (0 bytes); copy or download it again"),
    "text": (
        "cup.png",
        lambda path: path.write_text("<html>404 not found</html>"),
        "not a picture; give a PNG, JPEG, WebP, GIF, BMP or TIFF",
    ),
    "truncated JPEG": ("cup.jpg", truncated_jpeg, r"cannot be decoded \(.*truncated.*\); copy or export it again"),
    "a PNG of its header only": (
        "cup.png",
        lambda path: path.write_bytes(png_header(100, 100)),
        r"cannot be decoded \(.*\); copy or export it again",
    ),
    "100 million pixels": (
        "cup.png",
        lambda path: path.write_bytes(png_header(10_000, 10_000)),
        "10000 x 10000 pixels is too large; reduce it below 89,000,000 pixels",
    ),
    "20,000 x 20,000": (
        "cup.png",
        lambda path: path.write_bytes(png_header(20_000, 20_000)),
        r"too many pixels \(.*400000000.*\); reduce it below 89,000,000 pixels",
    ),
    "a sound": (
        "cup.wav",
        lambda path: soundfile.write(path, np.zeros(100), 8000),
        "not a picture; give a PNG, JPEG, WebP, GIF, BMP or TIFF",
    ),
}


@pytest.mark.parametrize("case", PICTURES)
def test_pictures_that_cannot_be_read(ask, tmp_path, case, memory, recwarn):
    name, make, wrong = PICTURES[case]
    path = tmp_path / name
    if make is not None:
        make(path)
    code, out, err = ask("image", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    said = err.removeprefix(f"{path}: image: ").rstrip("\n")
    assert said == wrong or re.fullmatch(wrong, said)
    assert memory() < 100e6
    assert not [str(warning.message) for warning in recwarn]


def animated_gif(path: Path) -> None:
    frames = [Image.fromarray(square((0, 0, 200), (10 * i, 20))) for i in range(4)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=100)


GOOD_PICTURES: dict[str, tuple[str, Make]] = {
    "animated GIF": ("a.gif", animated_gif),
    "CMYK": ("a.jpg", lambda path: Image.fromarray(scene()).convert("CMYK").save(path)),
    "16-bit grey": ("a.png", lambda path: Image.fromarray((scene()[..., 0].astype(np.uint16)) * 257).save(path)),
    "transparent": ("a.png", lambda path: Image.fromarray(scene()).convert("RGBA").save(path)),
    "palette with transparency": (
        "a.png",
        lambda path: Image.fromarray(scene()).quantize(16).save(path, transparency=3),
    ),
    "two colours": ("a.tif", lambda path: Image.fromarray(scene()).convert("1").save(path)),
    "one pixel": ("a.png", lambda path: Image.fromarray(scene(1, 1)).save(path)),
    "one row": ("a.png", lambda path: Image.fromarray(scene(1, 3000)).save(path)),
    "a wrong ending": ("a.txt", lambda path: Image.fromarray(scene()).save(path, "PNG")),
    "a name with spaces and signs": ("ein Bild #1 猫.png", lambda path: Image.fromarray(scene()).save(path)),
}


@pytest.mark.parametrize("case", GOOD_PICTURES)
def test_odd_pictures_work(ask, tmp_path, case):
    name, make = GOOD_PICTURES[case]
    make(tmp_path / name)
    code, out, err = ask("image", tmp_path / name, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["error"] is None


# ------------------------------------------------------------------------------------------------------------------- clips


def film(path: Path, times: list[float], *, frames: bool = True, sound: bool = False) -> None:
    """An MP4 with a frame at each time (seconds), and a second of sound if asked for."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=10) if frames else None
        sounds = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        if pictures is not None:
            pictures.width, pictures.height, pictures.pix_fmt = 64, 48, "yuv420p"
            pictures.codec_context.time_base = Fraction(1, 1000)
            for time_s in times:
                frame = av.VideoFrame.from_ndarray(scene(48, 64), format="rgb24")
                frame.pts, frame.time_base = round(time_s * 1000), Fraction(1, 1000)
                container.mux(pictures.encode(frame))
            if times:
                container.mux(pictures.encode())
            else:
                container.start_encoding()  # writes the header
        if sounds is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(sounds.encode(frame))
            container.mux(sounds.encode())


def truncated_film(path: Path) -> None:
    film(path, [0.1 * index for index in range(20)])
    path.write_bytes(path.read_bytes()[:1500])


GOOD_CLIPS: dict[str, tuple[str, Make]] = {
    "variable frame rate": ("a.mp4", lambda path: film(path, [0, 0.1, 0.5, 0.6, 2.0, 2.05, 3.5])),
    "one frame": ("a.mp4", lambda path: film(path, [0.0])),
    "with sound": ("a.mp4", lambda path: film(path, [0, 0.1, 0.2], sound=True)),
    "a GIF": ("a.gif", animated_gif),
    "a picture": ("a.png", lambda path: Image.fromarray(scene()).save(path)),
}
CLIPS: dict[str, tuple[str, Make, str]] = {
    "sound only": (
        "a.mp4",
        lambda path: film(path, [], frames=False, sound=True),
        "holds sound but no frames; give a clip, or name it as audio",
    ),
    "no frames": ("a.mp4", lambda path: film(path, []), r"(holds no frames|no readable video \(.*\)); .*"),
    "zero bytes": ("a.mp4", Path.touch, "the file is empty (0 bytes); copy or download it again"),
    "truncated": ("a.mp4", truncated_film, r"no readable video \(.*\); give an MP4, WebM, MKV or AVI, or copy it .*"),
    "text": ("a.mp4", lambda path: path.write_text("not a film"), r"no readable video \(.*\); give an MP4, .*"),
    "an animation of 20,000 x 20,000": (
        "a.png",
        lambda path: path.write_bytes(png_header(20_000, 20_000)),
        r"too many pixels \(.*\); reduce it below 89,000,000 pixels",
    ),
}


@pytest.mark.parametrize("case", GOOD_CLIPS)
def test_odd_clips_work(ask, tmp_path, case):
    name, make = GOOD_CLIPS[case]
    make(tmp_path / name)
    code, _, err = ask("video", tmp_path / name)
    assert (code, err) == (0, "")


@pytest.mark.parametrize("case", CLIPS)
def test_clips_that_cannot_be_read(ask, tmp_path, case, memory):
    name, make, wrong = CLIPS[case]
    path = tmp_path / name
    make(path)
    code, out, err = ask("video", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    said = err.removeprefix(f"{path}: video: ").rstrip("\n")
    assert said == wrong or re.fullmatch(wrong, said)
    assert memory() < 100e6


# ------------------------------------------------------------------------------------------------------------------ sounds


def ten_hours(path: Path) -> None:
    """16-bit mono at 16 kHz, all silence, almost nothing of it on the disk."""
    size = 10 * 3600 * 16000 * 2
    header = (
        b"RIFF" + struct.pack("<I", 36 + size) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 16000, 32000, 2, 16)
    )
    with open(path, "wb") as file:
        file.write(header + b"data" + struct.pack("<I", size))
        file.truncate(44 + size)


def tone(rate: int, channels: int = 1) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    return np.stack([wave] * channels, axis=1)


GOOD_SOUNDS: dict[str, tuple[str, Make]] = {
    "stereo at 96 kHz": ("a.wav", lambda path: soundfile.write(path, tone(96_000, 2), 96_000, subtype="PCM_24")),
    "8 kHz": ("a.wav", lambda path: soundfile.write(path, tone(8000), 8000, subtype="ULAW")),
    "six channels": ("a.flac", lambda path: soundfile.write(path, tone(48_000, 6), 48_000)),
    "OGG": ("a.ogg", lambda path: soundfile.write(path, tone(44_100), 44_100)),
    "one sample": ("a.wav", lambda path: soundfile.write(path, np.array([0.5]), 16_000)),
    "one sample at 96 kHz": ("a.wav", lambda path: soundfile.write(path, np.array([0.5]), 96_000)),
    "silence": ("a.wav", lambda path: soundfile.write(path, np.zeros(16_000), 16_000)),
    "too loud": ("a.wav", lambda path: soundfile.write(path, 50 * tone(16_000), 16_000, subtype="FLOAT")),
    "ten hours": ("a.wav", ten_hours),
    "the sound of a film": ("a.mp4", lambda path: film(path, [0, 0.1, 0.2], sound=True)),
}
SOUNDS: dict[str, tuple[str, Make, str]] = {
    "zero bytes": ("a.wav", Path.touch, "the file is empty (0 bytes); copy or download it again"),
    "no samples": (
        "a.wav",
        lambda path: soundfile.write(path, np.zeros(0), 16_000),
        "holds no samples; record or export it again",
    ),
    "pictures only": (
        "a.mp4",
        lambda path: film(path, [0, 0.1, 0.2]),
        "holds pictures but no sound; give a sound, or name it as video",
    ),
    "text": ("a.mp3", lambda path: path.write_text("no sound"), r"no readable audio \(.*\); give a WAV, .*"),
    "not numbers": (
        "a.wav",
        lambda path: soundfile.write(path, np.full(100, np.nan), 16_000, subtype="FLOAT"),
        "holds samples that are not numbers (NaN or infinite); export it again",
    ),
}


@pytest.mark.parametrize("case", GOOD_SOUNDS)
def test_odd_sounds_work(ask, tmp_path, case, memory):
    name, make = GOOD_SOUNDS[case]
    make(tmp_path / name)
    began = time.perf_counter()
    code, _, err = ask("audio", tmp_path / name)
    assert (code, err) == (0, "")
    assert memory() < 200e6
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("case", SOUNDS)
def test_sounds_that_cannot_be_read(ask, tmp_path, case):
    name, make, wrong = SOUNDS[case]
    path = tmp_path / name
    make(path)
    code, out, err = ask("audio", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    said = err.removeprefix(f"{path}: audio: ").rstrip("\n")
    assert said == wrong or re.fullmatch(wrong, said)


# ------------------------------------------------------------------------------------------------------------------- texts

MEGABYTE = {
    "words": "one small model " * 65_000,
    "one word": "a" * 1_000_000,
    "spaces": " " * 999_999 + "a",
    "Japanese": "猫が座る。" * 70_000,
    "emoji": "👩‍👩‍👧‍👦" * 40_000,
    "control characters": "\x00\x01\x7f" * 333_333,
    "what looks like symbols": "<bin_3><s></s><mask>" * 50_000,
}


@pytest.mark.parametrize("case", MEGABYTE)
def test_a_megabyte_of_text_is_quick(command, model_folder, case):
    began = time.perf_counter()
    code, _, err = command("predict", "--model", model_folder, "--task", "summarize", "--text", MEGABYTE[case])
    assert (code, err) == (0, "")
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("task", ["vqa", "grounding", "entailment"])
def test_tasks_that_need_a_text_say_so(command, tmp_path, task):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    code, _, err = command("predict", "--task", task, "--image", tmp_path / "a.png")
    assert code == 2
    assert re.fullmatch(rf"command line: text: task '{task}' needs .*; it is empty\n", err)


@pytest.mark.parametrize("task", ["caption", "name", "vqa", "grounding", "transcribe", "entailment", "matching"])
def test_tasks_that_need_media_say_so(command, task):
    code, _, err = command("predict", "--task", task, "--text", "the cup")
    assert code == 2
    assert re.fullmatch(rf"command line: [a-z/]+: task '{task}' needs one; add it to the row\n", err)


def test_a_language_without_a_prompt(command, tmp_path):
    Image.fromarray(scene()).save(tmp_path / "a.png")
    code, _, err = command("predict", "--task", "name", "--image", tmp_path / "a.png", "--lang", "tlh")
    assert (code, err) == (2, "command line: lang: 'tlh' has no prompt; known: en, ja, fr, es, de, it, ru\n")


def test_media_that_the_model_does_not_read(command, tmp_path, tokenizer, monkeypatch):
    from small import tiny_model

    from monoglot.store import save_model

    save_model(tmp_path / "eye", tiny_model(encoders=True, modalities={"image": {"size": 32}}), tokenizer)
    soundfile.write(tmp_path / "a.wav", tone(8000), 8000)
    arguments = ["predict", "--model", tmp_path / "eye", "--task", "transcribe", "--audio", tmp_path / "a.wav"]
    line = "task transcribe: audio: this model does not read it; it reads: image\n"
    assert command(*arguments) == (2, "", line)


# -------------------------------------------------------------------------------------------------------------- rows of files


def test_a_file_of_broken_media_ends_well(command, model_folder, tmp_path):
    """Every bad file above as a row between good ones: each bad row has its own error, each good row its answer."""
    groups = {"image": (PICTURES, GOOD_PICTURES), "video": (CLIPS, GOOD_CLIPS), "audio": (SOUNDS, GOOD_SOUNDS)}
    rows = []
    for modality, (bad, good) in groups.items():
        for name, case in [*((f"bad {key}", bad[key]) for key in bad), *((f"good {key}", good[key]) for key in good)]:
            folder = tmp_path / modality / name
            folder.mkdir(parents=True)
            path = folder / case[0]
            if case[1] is not None:
                case[1](path)
            rows.append({"id": f"{name} {modality}", "task": "caption", modality: str(path.relative_to(tmp_path))})
    data, out = tmp_path / "rows.jsonl", tmp_path / "p.jsonl"
    data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    code, printed, err = command("predict", "--model", model_folder, "--data", data, "--out", out)
    wrong = sum(row["id"].startswith("bad") for row in rows)
    assert (code, printed) == (0, "")
    assert err.endswith(f" rows/s; {wrong} could not be answered, their 'error' says why\n")
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    for row in found:
        assert (row["error"] is None) == row["id"].startswith("good")
        assert row["error"] is None or row["error"].startswith(f"{tmp_path}/")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xfe\x00\x01" * 1000,
        b"\x00" * 100_000,
        b"id,task,text\n1,vqa,what?\n",
        b'{"id": "1", "task": "caption", "image": "' + b"a" * 1_000_000 + b'"}\n',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"id": "\\ud800", "task": "summarize", "text": "a"}\n',
        b'{"id": "1", "task": "summarize", "text": "a", "weight": 1e999, "start": NaN}\n',
    ],
)
def test_files_that_are_no_rows(command, model_folder, tmp_path, data):
    rows, out = tmp_path / "rows.jsonl", tmp_path / "p.jsonl"
    rows.write_bytes(data)
    code, _, err = command("data", "validate", rows)
    assert code == 2
    lines = len([line for line in data.split(b"\n") if line.strip()])
    assert len(err.splitlines()) >= lines
    assert all(line.startswith(f"{rows}:") for line in err.splitlines())
    code, _, err = command("predict", "--model", model_folder, "--data", rows, "--out", out)
    assert (code, err.count("\n")) == (0, 1)
    found = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(found) == lines
    assert all(row["error"] for row in found)


def test_broken_media_do_not_end_an_evaluation_or_its_baselines(command, model_folder, tmp_path):
    film(tmp_path / "good.mp4", [0, 0.1, 0.2])
    truncated_film(tmp_path / "bad.mp4")
    animated_gif(tmp_path / "good.gif")
    soundfile.write(tmp_path / "good.wav", tone(8000), 8000)
    rows = [
        {"id": "film", "task": "name", "video": "good.mp4", "target": "film"},
        {"id": "cut", "task": "name", "video": "bad.mp4", "target": "cut"},
        {"id": "gif", "task": "name", "video": "good.gif", "target": "square"},
        {"id": "sound", "task": "name", "audio": "good.wav", "target": "tone"},
        {"id": "box", "task": "grounding", "image": "none.png", "text": "it", "box": [0, 0, 1, 1]},
    ]
    data, out = tmp_path / "rows.jsonl", tmp_path / "scores.json"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = command("evaluate", "--model", model_folder, "--data", data, "--train", data, "--out", out)
    assert (code, err) == (0, "")
    scores = json.loads(out.read_text())["scores"]["rows"]
    assert [(score["metric"], score["rows"], score["errors"]) for score in scores] == [
        ("exact_match", 4, 1),
        ("iou_at_0.5", 1, 1),
        ("iou", 1, 1),
    ]
    assert scores[0]["baselines"].keys() == {"most common", "nearest neighbour", "one frame"}
    assert scores[0]["baselines"]["nearest neighbour"] == 0.75  # each is nearest to itself, but for the broken one
    assert scores[1]["value"] == 0


def test_a_clip_that_stands_still_shows_its_middle(tmp_path):
    from monoglot.evaluate.baselines import middle_frame
    from monoglot.modalities.video import VideoConfig, prepare
    from monoglot.nouns import Media, Sample

    frames = [Image.fromarray(square((0, 0, 200), (10 * index, 20))) for index in range(5)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    settings = VideoConfig(size=32, frames=4)
    samples = [
        Sample("whole", "name", (Media("video", str(tmp_path / "a.gif")),)),
        Sample("end", "name", (Media("video", str(tmp_path / "a.gif"), start=0.4, end=0.5),)),
        Sample("none", "name", (Media("video", "none.gif"),)),
    ]
    whole, end, none = middle_frame(samples, settings)
    moving = prepare(samples[0].media[0], VideoConfig(size=32, frames=5))
    assert (prepare(whole.media[0], settings) == moving[2]).all()
    assert (prepare(end.media[0], settings) == moving[4]).all()
    assert none.media == samples[2].media
