"""Speech by espeak-ng, for the packs that need voices: text + Voice -> float32[time] at SPEECH_RATE.

The voices are split once, here, so that no pack trains on a voice that another one tests.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from monoglot.data.packs.fetch import MissingSource, Package, sha256_of
from monoglot.data.packs.sounds import read_mono

SPEECH_RATE = 16_000
"""Hz of synthetic speech."""

VOICES: dict[str, tuple[str, ...]] = {  # espeak-ng's accent+timbre; no accent and no timbre is in two splits
    "train": (
        *("en-us+m1", "en-us+f2", "en-us+m7", "en-us+steph", "en+m3", "en+f1", "en+linda"),
        *("en-gb-scotland+m2", "en-gb-scotland+f3", "en-029+f3", "en-029+quincy"),
    ),
    "valid": ("en-gb-x-gbclan+m4", "en-gb-x-gbclan+Annie"),
    "test": ("en-us-nyc+m5", "en-us-nyc+max", "en-gb-x-rp+f5", "en-gb-x-rp+adam", "en-gb-x-gbcwmd+m6"),
}
"""Chosen so that Whisper tiny.en understands the test voices about as well as those that train (WER 0.32 and 0.27 on six
short phrases). Plain `en-gb` is not here: espeak-ng ignores a timbre after it."""
SPEEDS = (130, 190)
"""Words a minute, lowest and highest."""
PITCHES = (35, 65)
"""espeak-ng's own scale, 0 to 99; 50 is a voice's usual pitch."""


@dataclass(frozen=True)
class Voice:
    """One way to speak."""

    name: str
    speed: int
    pitch: int

    @property
    def fields(self) -> dict[str, str | int]:
        """What a row says of it."""
        return {"voice": self.name, "speed": self.speed, "pitch": self.pitch}


def draw_voice(split: str, chance: np.random.Generator) -> Voice:
    """A voice of a split at a random speed and pitch."""
    names = VOICES[split]
    return Voice(
        names[int(chance.integers(len(names)))],
        int(chance.integers(SPEEDS[0], SPEEDS[1] + 1)),
        int(chance.integers(PITCHES[0], PITCHES[1] + 1)),
    )


@cache
def espeak_package() -> Package:
    """The installed espeak-ng, as a source to note.

    Raises:
        MissingSource: it is not installed.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise MissingSource(
            "the command espeak-ng is missing; install it (apt-get install espeak-ng) or leave this out"
        )
    version = re.search(r"\d+(\.\d+)+", subprocess.run([program, "--version"], capture_output=True, text=True).stdout)
    return Package(
        "program", "espeak-ng", version[0] if version else "unknown", sha256_of(Path(program)), Path(program)
    )


def espeak(text: str, voice: Voice) -> np.ndarray:
    """Speak a text: float32[time] at SPEECH_RATE.

    Raises:
        MissingSource: espeak-ng is not installed or cannot do this.
    """
    espeak_package()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "speech.wav"
        options = ["-v", voice.name, "-s", str(voice.speed), "-p", str(voice.pitch), "-b", "1", "-w", str(file)]
        done = subprocess.run(["espeak-ng", *options, "--", text], capture_output=True, text=True)
        if done.returncode != 0 or not file.is_file():
            raise MissingSource(f"espeak-ng: voice {voice.name} cannot read {text!r} ({done.stderr.strip()})")
        return read_mono(file, SPEECH_RATE)
