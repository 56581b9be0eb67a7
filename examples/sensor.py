"""Series of readings of several sensors at once: vibration, temperature, motion.

data side   Media -> table [n, columns] -> window -> even steps of time -> float32[channels, n], in the units of the file
model side  float32[b, channels, n] -> each channel by its own mean and spread -> three convolutions, a token for 8 readings
                                    -> what was taken out, on a log scale -> one token in front:  float[b, 1 + n / 8, 128]

A plugin in one file: `monoglot --plugin examples/sensor.py VERB ...`, or MONOGLOT_PLUGINS=examples/sensor.py.

Amplitude is information, and spans decades: a bearing that wears out shakes a hundred times as hard, in the same rhythm. A network that reads
raw values sees either the loud or the quiet; one that reads normalised values sees neither loud nor quiet. So shape and size go separate ways:
the convolutions see each channel with mean 0 and spread 1, and the first token says mean and spread by their logarithms.

Letters: b items of one length, n readings.
"""

from __future__ import annotations

import csv
import io
import math
import zlib
from typing import Literal

import numpy as np
import soxr
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from monoglot.errors import MediaError
from monoglot.modalities.base import MODALITIES, Encoder, Grid, Modality, run_by_shape
from monoglot.modalities.source import open_source, window
from monoglot.nouns import Media
from monoglot.rng import stream

TOKEN = 8
"""Readings that one token stands for: three convolutions of stride 2."""
TIME = ("t", "time", "seconds", "timestamp")
"""Headings of a column that holds seconds and no reading."""
SMALLEST = 1e-3
"""In the units of the file: means and spreads below this are told apart no further."""


class SensorConfig(BaseModel):
    """How series are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field("conv", description="Network that turns a series into tokens; MODALITIES['sensor'].encoders.")
    channels: int = Field(8, ge=1, description="Most readings that are taken at a time; those that are absent are 0.")
    rate: float = Field(50.0, gt=0, description="Readings a second after resampling.")
    file_rate: float | None = Field(
        None, gt=0, description="Readings a second of a file that has no column of time; `rate` unless given."
    )
    max_seconds: float = Field(20.0, gt=0, description="What follows after this much of the window is left out.")
    positions: Literal["grid", "square", "none"] = Field(
        "square", description="How tokens get positions: in one column; as if they filled a square; or not at all."
    )


# --- data side --------------------------------------------------------------------------------------------------------


def prepare(media: Media, config: SensorConfig, variant: int = 0) -> np.ndarray:
    """Read one series.

    `media.source` is a CSV file (with or without headings; a column called time, t, seconds or timestamp holds seconds, evenly spaced or not),
    an NPY file [n] or [n, columns], such an array in memory, or (array, readings a second). `start` and `end` cut a window out of it.

    Args:
        variant: 0 the plain reading. Any other k the k-th copy: a gain of 0.8 to 1.25, noise of up to 5% of each channel's spread and, for k > 0,
            a speed of 0.9 to 1.1 and up to a tenth cut off at either end. The copy depends on the values and k only.

    Returns:
        float32[channels, n], n a multiple of 8: the last reading is repeated to fill up; channels that the file has not are 0.

    Raises:
        MediaError: cannot be read, holds no readings, more columns than the model has channels, or values that are no numbers.
    """
    table, rate, name = _read(media, config)
    start, end = window(media, name, len(table) / rate)
    first = min(round(start * rate), len(table) - 1)
    table = table[first : max(first + 1, round(min(end, start + config.max_seconds) * rate))]
    speed = 1.0
    if variant:
        rng = stream(0, "sensor", zlib.crc32(table.tobytes()), variant)
        if variant > 0:
            speed = rng.uniform(0.9, 1.1)
            cut = rng.uniform(0, 0.1, 2) * len(table)
            table = table[int(cut[0]) : len(table) - int(cut[1])]
        noise = rng.normal(0, rng.uniform(0, 0.05), table.shape) * table.std(0)
        table = (table * rng.uniform(0.8, 1.25) + noise).astype(np.float32)
    if rate * speed != config.rate and len(table) > 1:
        table = soxr.resample(table, rate * speed, config.rate)
    length = max(1, min(len(table), int(config.max_seconds * config.rate)))
    series = np.zeros((config.channels, math.ceil(length / TOKEN) * TOKEN), np.float32)
    series[: table.shape[1], :length] = table[:length].T
    series[:, length:] = series[:, length - 1 : length]
    return series


def _read(media: Media, config: SensorConfig) -> tuple[np.ndarray, float, str]:
    """(float32[n, columns], n > 0; readings a second; name for messages)"""
    rate: float = config.file_rate or config.rate
    source, name, seconds = media.source, "series in memory", None
    fix = f"give one reading a row, at most {config.channels} columns"
    if isinstance(source, (tuple, list)) and len(source) == 2 and isinstance(source[1], (int, float)):
        source, rate = source
    if isinstance(source, np.ndarray):
        table = source
    else:
        file, name = open_source(media)
        with file:
            table, seconds = _from_bytes(file.read(), media, name)
    table = table[:, None] if table.ndim == 1 else table
    if table.ndim != 2 or not table.size or table.dtype.kind not in "fiu" or not 0 < rate < math.inf:
        wrong = f"{table.dtype}{list(table.shape)} at {rate} a second is no series"
        raise MediaError.at(name, media.modality, wrong, fix)
    if table.shape[1] > config.channels:
        raise MediaError.at(
            name, media.modality, f"has {table.shape[1]} columns, the model takes {config.channels}", fix
        )
    table = table.astype(np.float32)
    if not np.isfinite(table).all():
        raise MediaError.at(name, media.modality, "holds values that are not numbers", "leave such rows out")
    if seconds is not None and len(table) > 1:
        steps = np.diff(seconds)
        if not np.isfinite(seconds).all() or steps.min() <= 0:
            raise MediaError.at(name, media.modality, "its seconds do not rise", "sort it by time, each moment once")
        rate = 1 / float(np.median(steps))
        even = np.arange(seconds[0], seconds[-1] + 0.5 / rate, 1 / rate)
        table = np.stack([np.interp(even, seconds, column) for column in table.T], axis=1).astype(np.float32)
    return table, float(rate), name


def _from_bytes(data: bytes, media: Media, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """A table, and its column of seconds if it has one."""
    try:
        if data.startswith(b"\x93NUMPY"):
            return np.load(io.BytesIO(data), allow_pickle=False), None
        text = data.decode("utf-8-sig")
        first = text.partition("\n")[0].strip()
        between = next((letter for letter in ",;\t" if letter in first), ",")
        heads = [head.strip().lower() for head in next(csv.reader([first], delimiter=between))]
        has_heads = any(head and not _is_number(head) for head in heads)
        if not text.partition("\n")[2 if has_heads else 0].strip():
            raise ValueError("it holds no readings")
        table = np.loadtxt(io.StringIO(text), delimiter=between, ndmin=2, skiprows=int(has_heads))
    except (ValueError, EOFError, UnicodeDecodeError, csv.Error, StopIteration) as error:
        wrong = f"is neither CSV nor NPY ({' '.join(str(error).split())[:80]})"
        raise MediaError.at(name, media.modality, wrong, "export it again, numbers in every cell") from None
    clock = [number for number, head in enumerate(heads) if head in TIME]
    if not clock or not table.size:
        return table, None
    return np.delete(table, clock[0], axis=1), table[:, clock[0]]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def grid(item: np.ndarray | Tensor, config: SensorConfig) -> Grid:
    """One token for mean and spread, then one for 8 readings, along time."""
    return Grid(1 + item.shape[-1] // TOKEN, 1, 1)


# --- model side -------------------------------------------------------------------------------------------------------


class ConvEncoder(Encoder):
    """float[channels, n] -> float[1 + n / 8, 128]."""

    channels = 128

    def __init__(self, config: SensorConfig):
        super().__init__()
        half = self.channels // 2
        self.sizes = nn.Linear(3 * config.channels, self.channels)
        self.conv1 = nn.Conv1d(config.channels, half, kernel_size=5, stride=2, padding=2)
        self.conv2 = nn.Conv1d(half, self.channels, kernel_size=5, stride=2, padding=2)
        self.conv3 = nn.Conv1d(self.channels, self.channels, kernel_size=5, stride=2, padding=2)

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, series: Tensor) -> Tensor:
        mean, spread = series.mean(-1, keepdim=True), series.std(-1, correction=0, keepdim=True)
        x = (series - mean) / (spread + SMALLEST)
        x = F.gelu(self.conv3(F.gelu(self.conv2(F.gelu(self.conv1(x))))))
        there = series.abs().amax(-1, keepdim=True) > 0
        sizes = torch.stack([mean.sign() * torch.log1p(mean.abs() / SMALLEST), torch.log1p(spread / SMALLEST), there])
        first = self.sizes(sizes.permute(1, 0, 2, 3).flatten(1) / 5)  # a factor of 150 is 1
        return torch.cat([first[:, None], x.transpose(1, 2)], dim=1)


SENSOR = MODALITIES.add("sensor", Modality("sensor", SensorConfig, prepare, grid, {"conv": ConvEncoder}, timed=True))
