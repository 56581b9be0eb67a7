"""Media made on the spot: nothing is committed, nothing is downloaded."""

from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile
from PIL import Image


@pytest.fixture
def scene():
    """uint8[height, width, 3]: smooth colours and a few edges, so that resizing and flips show."""

    def make(height=90, width=120, seed=0):
        rows, cols = np.mgrid[0:height, 0:width]
        rng = np.random.default_rng(seed)
        a, b = rng.uniform(0.02, 0.08, 2)
        picture = np.stack([128 + 100 * np.sin(cols * a), 128 + 100 * np.cos(rows * b), 255 * (cols / width)], axis=-1)
        picture[height // 4 : height // 2, width // 8 : width // 3] = rng.integers(0, 256, 3)
        return picture.astype(np.uint8)

    return make


@pytest.fixture
def write_film(tmp_path):
    """Write frames whose red level tells their number (8 levels a frame), at the given times; returns the path."""

    def write(
        name="clip.mp4", count=30, times=None, keyframes=250, codec="libx264", sound=False, size=(64, 48), **options
    ):
        path = tmp_path / name
        times = np.arange(count) / 10 if times is None else times
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=10)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.codec_context.gop_size = keyframes
            stream.codec_context.time_base = Fraction(1, 1000)
            sounds = container.add_stream("aac", rate=16000, layout="mono") if sound else None
            for index, time in enumerate(times):
                pixels = np.full((size[1], size[0], 3), 60, np.uint8)
                pixels[..., 0] = 8 * index % 256
                pixels[:, : 4 + 4 * (index % 8), 1] = 200
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
            if sounds is not None:
                _mux_tone(container, sounds, 3.0)
        return path

    return write


@pytest.fixture
def write_compressed_sound(tmp_path):
    """Write a 440 Hz tone with PyAV (mp4, m4a, mp3, ...); returns the path."""

    def write(name="tone.m4a", codec="aac", seconds=3.0, rate=16000):
        path = tmp_path / name
        with av.open(str(path), "w") as container:
            _mux_tone(container, container.add_stream(codec, rate=rate, layout="mono"), seconds)
        return path

    return write


def tone(seconds, rate, hertz=440.0):
    return (0.4 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def _mux_tone(container, stream, seconds):
    samples = tone(seconds, stream.rate)
    for start in range(0, len(samples), 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = stream.rate, start, Fraction(1, stream.rate)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


@pytest.fixture
def write_sound(tmp_path):
    def write(name="tone.wav", samples=None, rate=16000, **options):
        path = tmp_path / name
        soundfile.write(path, tone(2.0, rate) if samples is None else samples, rate, **options)
        return path

    return write


@pytest.fixture
def save(tmp_path):
    """Save a picture (array or PIL image); returns the path."""

    def write(picture, name, **options):
        path = tmp_path / name
        (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
        return path

    return write
