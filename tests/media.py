"""One sample of each kind of media: what the shared checks in contracts/test_every_modality.py run on. A kind that is added gets an entry here.

Plugins are registered inside of `plugged` only, so that other tests see what monoglot itself brings.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image
from small import MODALITY_SETTINGS, square

from monoglot import plugins
from monoglot.modalities import MODALITIES

EXAMPLES = Path(__file__).parents[1] / "examples"
PLUGINS = (EXAMPLES / "sensor.py", EXAMPLES / "depth.py")


@dataclass(frozen=True)
class Kind:
    """A kind of media, small."""

    settings: dict[str, Any]
    """Of its config, for a model that takes milliseconds."""
    items: list[Any]
    """Three media in memory that differ, of different sizes where the kind has any."""
    write: Callable[[Path, Any], Path]
    """(path without suffix, item) -> the file, with its suffix."""


def tone(samples: int, pace: int) -> np.ndarray:
    return np.sin(np.arange(samples) / pace).astype(np.float32) / 2


def readings(count: int, pace: float, gain: float) -> np.ndarray:
    """float32[count, 2]: a vibration, and a temperature that rises."""
    return np.stack([gain * np.sin(np.arange(count) / pace), 20 + np.arange(count) / 50], axis=1).astype(np.float32)


def ramp(height: int, width: int, near: int, far: int) -> np.ndarray:
    """uint16[height, width]: millimetres, rising to the right, with a hole."""
    picture = np.tile(np.linspace(near, far, width).astype(np.uint16), (height, 1))
    picture[: height // 4, : width // 4] = 0
    return picture


def _picture(path: Path, item: np.ndarray) -> Path:
    Image.fromarray(item).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def _clip(path: Path, frames: np.ndarray) -> Path:
    with av.open(str(path.with_suffix(".mp4")), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return path.with_suffix(".mp4")


def _sound(path: Path, item: tuple[np.ndarray, int]) -> Path:
    soundfile.write(path.with_suffix(".wav"), item[0], item[1], subtype="FLOAT")
    return path.with_suffix(".wav")


def _table(path: Path, item: np.ndarray) -> Path:
    np.savetxt(path.with_suffix(".csv"), item, delimiter=",", header="vibration,temperature", comments="", fmt="%.9g")
    return path.with_suffix(".csv")


RED, BLUE = square((220, 20, 20)), square((20, 20, 220), (50, 5))
KINDS = {
    "image": Kind(MODALITY_SETTINGS["image"], [RED, BLUE, np.zeros((7, 5), np.uint8)], _picture),
    "video": Kind(MODALITY_SETTINGS["video"], [np.stack([RED, BLUE]), np.stack([BLUE] * 3), np.stack([RED])], _clip),
    "audio": Kind(
        MODALITY_SETTINGS["audio"], [(tone(3000, 9), 16_000), (tone(9000, 5), 22_050), (tone(1, 1), 8000)], _sound
    ),
    "sensor": Kind(
        {"channels": 3, "max_seconds": 3.0}, [readings(90, 5, 3.0), readings(60, 2, 0.1), readings(1, 1, 1)], _table
    ),
    "depth": Kind({"size": 32}, [ramp(40, 60, 500, 900), ramp(30, 30, 4000, 2000), ramp(1, 1, 700, 700)], _picture),
}


@contextmanager
def plugged(*files: Path) -> Iterator[None]:
    """The modalities of these plugins, inside only; what else is loaded inside is forgotten, too."""
    entries, loaded, variable = dict(MODALITIES._entries), dict(plugins._loaded), os.environ.get(plugins.VARIABLE)
    try:
        for file in files:
            plugins.load_file(file)
        yield
    finally:
        for kept, before in ((MODALITIES._entries, entries), (plugins._loaded, loaded)):
            kept.clear()
            kept.update(before)
        plugins._finished = None
        os.environ.pop(plugins.VARIABLE, None)
        if variable is not None:
            os.environ[plugins.VARIABLE] = variable
