"""Pictures that measure: how far away each point is, or how warm.

data side   Media -> values [H, W] and where there are none -> metres or degrees -> square, averaged over what is valid -> float32[2, S, S]
model side  float32[b, 2, S, S] -> four convolutions of stride 2 -> a token for 16 x 16 pixels: float[b, (S / 16)^2, 128]

A plugin in one file: `monoglot --plugin examples/depth.py VERB ...`, or MONOGLOT_PLUGINS=examples/depth.py.

A picture reader stretches 16-bit grey to what an eye can see; here numbers keep their meaning. `scale` and `offset` make metres or degrees of what
the file holds, `lowest` and `highest` say which range is told apart. Cameras write 0 where they saw nothing: such pixels are left out of every
average, and a second channel says how much of each place was seen.

Letters: b items, H and W of the file, S side of the square.
"""

from __future__ import annotations

import io
import zlib
from itertools import pairwise
from typing import Literal

import numpy as np
import torch.nn.functional as F
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from monoglot.errors import MediaError
from monoglot.modalities.base import MODALITIES, Encoder, Grid, Modality, run_by_shape
from monoglot.modalities.image import open_with_pillow
from monoglot.modalities.source import open_source
from monoglot.nouns import Media
from monoglot.rng import stream

TOKEN = 16
"""Pixels on either side of a token: four convolutions of stride 2."""


class DepthConfig(BaseModel):
    """How such pictures are read; as given, depth cameras' millimetres. A thermal camera's hundredths of a kelvin: scale 0.01, offset -273.15."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field("conv", description="Network that turns a picture into tokens; MODALITIES['depth'].encoders.")
    size: int = Field(96, ge=TOKEN, multiple_of=TOKEN, description="Both sides of the square, in pixels.")
    scale: float = Field(0.001, gt=0, description="Metres, or degrees, that one step of an integer file stands for.")
    offset: float = Field(0.0, description="Added to that; files of floating point numbers are taken as they are.")
    lowest: float = Field(0.2, description="Metres or degrees: what is nearer, or colder, counts as this.")
    highest: float = Field(6.0, description="Metres or degrees: what is farther, or warmer, counts as this.")
    positions: Literal["grid", "square", "none"] = Field("grid", description="How tokens get positions.")

    @model_validator(mode="after")
    def _range(self) -> DepthConfig:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest:g} is not below highest {self.highest:g}")
        return self


# --- data side --------------------------------------------------------------------------------------------------------


def prepare(media: Media, config: DepthConfig, variant: int = 0) -> np.ndarray:
    """Read one picture.

    `media.source` is a PNG or TIFF of one channel, an NPY file [H, W], or such an array in memory. Integers are steps of `scale`, 0 is invalid;
    floating point numbers are metres or degrees, what is not finite is invalid.

    Args:
        variant: 0 the plain reading. Any other k the k-th copy: noise of 1% of the range, holes, and for k > 0 a part of the picture, of 80% of its
            sides at least. Never mirrored, since left and right have names. The copy depends on the values and k only.

    Returns:
        float32[2, size, size]: 0 at `lowest` to 1 at `highest`, 0 where nothing is valid; and the share that is valid, 0 to 1.

    Raises:
        MediaError: cannot be read, has colours, or nothing in it is valid.
    """
    values, name = _read(media)
    valid = np.isfinite(values) if values.dtype.kind == "f" else values > 0
    if not valid.any():
        raise MediaError.at(name, media.modality, "holds no valid value", "0, or nan, means that nothing was seen")
    found = values.astype(np.float64)
    if values.dtype.kind != "f":
        found = found * config.scale + config.offset
    found = np.where(valid, (found - config.lowest) / (config.highest - config.lowest), 0).clip(0, 1)
    shown = valid.astype(np.float64)
    if variant:
        rng = stream(0, "depth", zlib.crc32(values.tobytes()), variant)
        if variant > 0:
            rows, cols = (max(1, round(side * rng.uniform(0.8, 1))) for side in values.shape)
            top, left = (int(rng.integers(side - part + 1)) for side, part in zip(values.shape, (rows, cols)))
            part = np.s_[top : top + rows, left : left + cols]
            if shown[part].any():
                found, shown = found[part], shown[part]
        found = (found + rng.normal(0, 0.01, found.shape)).clip(0, 1)
        holes = rng.random(found.shape) < rng.uniform(0, 0.1)
        shown = np.where(holes, 0, shown) if shown[~holes].any() else shown
    seen, total = (_to_square(part, config.size) for part in (shown, found * shown))
    return np.stack([np.divide(total, seen, out=np.zeros_like(total), where=seen > 1e-4).clip(0, 1), seen.clip(0, 1)])


def _to_square(values: np.ndarray, size: int) -> np.ndarray:
    """float[H, W] -> float32[size, size], means over areas; the aspect ratio is not kept."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    return np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32)


def _read(media: Media) -> tuple[np.ndarray, str]:
    """(integers or floats [H, W], name for messages)"""
    if isinstance(media.source, np.ndarray):
        values, name = media.source, "picture in memory"
    else:
        file, name = open_source(media)
        with file:
            data = file.read()
        if data.startswith(b"\x93NUMPY"):
            try:
                values = np.load(io.BytesIO(data), allow_pickle=False)
            except (ValueError, EOFError) as error:
                wrong = f"is no NPY file ({' '.join(str(error).split())[:80]})"
                raise MediaError.at(name, media.modality, wrong, "export it again") from None
        else:
            picture = open_with_pillow(io.BytesIO(data), media, name)
            try:
                values = np.asarray(picture)
            except Exception as error:  # decoders of foreign bytes raise almost anything
                wrong = f"cannot be decoded ({' '.join(str(error).split())[:80]})"
                raise MediaError.at(name, media.modality, wrong, "copy or export it again") from None
    if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
        wrong = f"{values.dtype}{list(values.shape)} is not one value a pixel"
        raise MediaError.at(name, media.modality, wrong, "give a PNG, TIFF or NPY of one channel")
    return values, name


def grid(item: np.ndarray | Tensor, config: DepthConfig) -> Grid:
    """One token for 16 x 16 pixels."""
    return Grid(1, item.shape[-2] // TOKEN, item.shape[-1] // TOKEN)


# --- model side -------------------------------------------------------------------------------------------------------


class ConvEncoder(Encoder):
    """float[2, S, S] -> float[(S / 16)^2, 128], row by row."""

    channels = 128

    def __init__(self, config: DepthConfig):
        super().__init__()
        widths = (2, 32, 64, 96, self.channels)
        self.steps = nn.ModuleList(nn.Conv2d(a, b, 5, stride=2, padding=2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.GroupNorm(1, b) for b in widths[1:])  # within one item

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, x: Tensor) -> Tensor:
        for step, norm in zip(self.steps, self.norms):
            x = F.gelu(norm(step(x)))
        return x.flatten(2).transpose(1, 2)


DEPTH = MODALITIES.add("depth", Modality("depth", DepthConfig, prepare, grid, {"conv": ConvEncoder}))
