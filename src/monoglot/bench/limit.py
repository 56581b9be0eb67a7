"""The least time that a machine can take for one model's work: the roofline of Williams et al. (CACM 52(4), 2009).

ModelConfig, Asked -> Work (arithmetic, bytes) of each part --+
machine -> Rates (products a second, bytes a second) ---------+-> seconds = the longer of both

A part reads each of its weights once, and a decoding step once for all beams and rows. Nothing is added for what lies between products (norms,
softmax, the search). Numbers are taken to be stored in the precision that products are computed in; weights that 16 bits hold exactly, in 16 bits.

Letters: B rows, K beams, S source, D width, F ffn, L layers, C channels of a modality's encoder, V vocabulary.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from monoglot.data.collate import Batch
from monoglot.modalities.base import Encoder
from monoglot.model.config import ModelConfig
from monoglot.model.unified import UnifiedModel

PARTS = ("media", "encode", "cross", "steps")
"""Encoders of media; the transformer's encoder; keys and values of the source for the decoder; all steps of the decoder."""
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Of a number in each precision."""


@dataclass(frozen=True)
class Work:
    """What is to be done: operations (a multiplication and an addition are two), and bytes that are read."""

    operations: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.operations + other.operations, self.bytes + other.bytes)


@dataclass(frozen=True)
class Rates:
    """What a machine reaches."""

    operations: float
    """A second, in products of large matrices."""
    bytes: float
    """A second, reading as much as a step of the decoder reads, again and again."""

    def or_better(self, other: Rates) -> Rates:
        return Rates(max(self.operations, other.operations), max(self.bytes, other.bytes))

    def seconds(self, work: Work) -> float:
        """
        >>> Rates(operations=100.0, bytes=10.0).seconds(Work(operations=200.0, bytes=30.0))
        3.0
        """
        return max(work.operations / self.operations, work.bytes / self.bytes)


@dataclass(frozen=True)
class Asked:
    """How much is read and written."""

    places: int
    """S, of one row."""
    media: tuple[tuple[int, int], ...]
    """(tokens, channels) of each media item of one row."""
    steps: int
    """How often the decoder is asked: tokens that are written, and eos."""
    rows: int = 1
    beam: int = 1


# --- work -------------------------------------------------------------------------------------------------------------


def transformer_work(c: ModelConfig, asked: Asked, size: int, weight_size: int | None = None) -> dict[str, Work]:
    """Work of `encode`, `cross` and `steps`; `size` is the bytes of a number, `weight_size` of a weight (the same unless given).

    With 'untied' positions an encoder also has one bias of places for all its layers, and the decoder one of its own and one over the source.
    """
    d, f, places, rows = c.width, c.ffn, asked.places, asked.rows
    weight_size = weight_size or size
    untied = c.positions == "untied"

    weights = c.encoder_layers * (4 * d * d + 2 * d * f) + (2 * d * d if untied else 0)
    between = (2 * c.encoder_layers + untied) * places * places * d  # scores and sums of values; scores of places
    connect = sum(tokens * channels * d for tokens, channels in asked.media)
    encode = Work(
        2.0 * rows * (places * weights + between + connect),
        weight_size * float(weights + sum(channels * d for _, channels in asked.media)),
    )

    weights = c.decoder_layers * 2 * d * d + (d * d if untied else 0)
    cross = Work(2.0 * rows * places * weights, weight_size * float(weights))

    return {"encode": encode, "cross": cross, "steps": _steps(c, asked, size, weight_size, untied)}


def step_weights(c: ModelConfig) -> int:
    """Weights that a step of the decoder reads: its layers but for keys and values of the source, and the projection to words."""
    layer = 4 * c.width**2 + 2 * c.width**2 + 2 * c.width * c.ffn
    return c.decoder_layers * layer + c.vocabulary.size * c.width


def _steps(c: ModelConfig, asked: Asked, size: int, weight_size: int, untied: bool) -> Work:
    d, rows, beams = c.width, asked.rows, asked.rows * asked.beam
    total = Work(0.0, 0.0)
    for step in range(asked.steps):
        queries, past = (rows if step == 0 else beams), step + 1  # at first all beams are the same
        weights = step_weights(c)
        between = 2 * c.decoder_layers * (past + asked.places) * d
        of_places = (
            rows * asked.places * d * untied
        )  # the same for all beams; of the past, they are the same for all sources
        # Keys and values of the source are a row's, those of the past a beam's.
        kept = 2 * c.decoder_layers * d * (rows * asked.places + queries * past) + of_places
        total += Work(2.0 * (queries * (weights + between) + of_places), float(weight_size * weights + size * kept))
    return total


def weight_bytes(model: UnifiedModel, precision: str) -> int:
    """Bytes that each weight of the decoder needs: those of the precision, two where 16 bits lose nothing."""
    matrices = [p for p in (*model.decoder_layers.parameters(), model.words.weight) if p.dim() == 2]
    for short in (torch.float16, torch.bfloat16):
        if all(torch.equal(matrix.to(short).to(matrix.dtype), matrix) for matrix in matrices):
            return min(2, BYTES[precision])
    return BYTES[precision]


@torch.no_grad()
def media_work(model: UnifiedModel, batch: Batch, size: int) -> Work:
    """Work of the encoders of a batch's media. Operations are counted by torch as the encoder runs; `model` is one that is not packed."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counted:  # other attention is not counted
        model.encode_media(batch.media)
    encoders = nn.ModuleList(model.encoders[name] for name in batch.media)
    return Work(float(counted.get_total_flops()), size * float(sum(p.numel() for p in encoders.parameters())))


# --- rates ------------------------------------------------------------------------------------------------------------

SIDES = (128, 512, 1024, 2048)
"""Rows and columns of the matrices that are multiplied."""


@torch.no_grad()
def measure_rates(precision: str, step_bytes: int, *, seconds: float = 2.0) -> Rates:
    """The best that products in `precision` reach, and the best reading of `step_bytes`; about so many seconds for each."""
    operations, last = 0.0, 0.0
    for side in SIDES:
        if last * 2 * (side / SIDES[0]) ** 3 > seconds:  # without instructions for a precision, products take minutes
            break
        took = _best(_product(precision, side), seconds / len(SIDES))
        operations = max(operations, 2.0 * side**3 / took)
        last = 2.0 * SIDES[0] ** 3 / operations
    numbers = torch.ones(max(step_bytes, 1 << 20) // 4)
    return Rates(operations, 4 * len(numbers) / _best(numbers.sum, seconds))


def _product(precision: str, side: int) -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, side, side, generator=generator)
    if precision == "int8":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the way to make one will change
            packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(b, 0.03, 0, torch.qint8), None)
        return lambda: torch.ops.quantized.linear_dynamic(a, packed)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    a, b = a.to(dtype), b.to(dtype)
    return lambda: a @ b


def _best(run: Callable[[], object], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - started)
        if now > end:
            return best


def media_of(batch: Batch, model: UnifiedModel) -> Sequence[tuple[int, int]]:
    """(tokens, channels) of each media item of a batch."""
    return [
        (grid.length, cast("Encoder", model.encoders[name]).channels)
        for name, media in batch.media.items()
        for grid in media.grids
    ]
