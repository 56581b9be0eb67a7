"""What a modality is: one file with a data side (`prepare`, used by data workers) and a model side (`encoder`).

Neither side uses the other:

Media -> prepare -> array -> (tokens: how much room it takes) -> Encoder -> one [L, C] tensor an item
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel
from torch import Tensor, nn

from monoglot import plugins
from monoglot.nouns import Media
from monoglot.registry import Registry


class Grid(NamedTuple):
    """How the tokens of one media item lie in time and space; they are flattened in this order."""

    frames: int
    rows: int
    cols: int
    kept: tuple[int, ...] = ()
    """Which tokens of the grid there are, in this order; empty: all, in the grid's order."""
    pooled: bool = False
    """A token that stands for the whole item comes first: the mean of all others. A grid of no frames has it alone."""

    @property
    def cells(self) -> int:
        """How many tokens lie in a place of their own."""
        return len(self.kept) or self.frames * self.rows * self.cols

    @property
    def length(self) -> int:
        return self.pooled + self.cells

    def pick(self, tokens: Tensor) -> Tensor:
        """One entry a place of the grid, [frames * rows * cols, ...] -> those that are kept, [cells, ...]."""
        return tokens[list(self.kept)] if self.kept else tokens

    def arrange(self, tokens: Tensor) -> Tensor:
        """What an encoder says of the whole grid, [L, C], as the model reads it, [length, C].

        >>> Grid(1, 1, 2, pooled=True).arrange(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [2.0, 1.0, 3.0]
        >>> Grid(0, 0, 0, pooled=True).arrange(torch.tensor([[1.0], [3.0]])).flatten().tolist()
        [2.0]
        """
        picked = self.pick(tokens) if self.cells else tokens[:0]
        return torch.cat([tokens.mean(0, keepdim=True), picked]) if self.pooled else picked


class Encoder(nn.Module):
    """The model side of a modality.

    `channels` is the width C of what comes out. `forward` takes a list of prepared items (tensors of any shapes that
    `prepare` makes) and returns one float [L, C] tensor an item, in order, with L = `Modality.grid(item).length`; items
    of equal shape run together, and no item changes another's output.
    """

    channels: int
    shared: tuple[str, ...] = ()
    """Names of parts that encoders of one kind have in common: a model that sees pictures and frames has one eye."""

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        raise TypeError(f"{type(self).__name__} must define forward")


@dataclass(frozen=True)
class Modality:
    """One kind of media, declared once, behaviour included.

    `config` is the pydantic model of its settings. `prepare(media, config, variant)` reads one item into a compact
    array; variant 0 is the plain reading, variant k > 0 the k-th augmented copy (same media and k: same result).
    `grid(item, config)` says how many tokens it will be. `encoders` are the networks that a configuration can name,
    each built from the config. `timed`: `start` and `end` of a row cut a window out of it, in seconds.
    """

    name: str
    config: type[BaseModel]
    prepare: Callable[[Media, Any, int], np.ndarray]
    grid: Callable[[np.ndarray | Tensor, Any], Grid]
    encoders: Mapping[str, Callable[[Any], Encoder]]
    timed: bool = False


MODALITIES: Registry[Modality] = plugins.MODALITIES


PUBLISHED = (
    "Do as the published model did at evaluation also where that is random or wrong; the draws are seeded, so that they "
    "repeat."
)
"""What the switch `published` of a modality's settings says, in all of them."""


def with_defaults(settings: Any, defaults: Mapping[str, Mapping[str, Any]]) -> Any:
    """Settings as given, and for what is not given the values that the named encoder needs.

    >>> with_defaults({"encoder": "cnn14", "hop": 480}, {"cnn14": {"rate": 48000, "hop": 200}})
    {'rate': 48000, 'hop': 480, 'encoder': 'cnn14'}
    """
    if not isinstance(settings, Mapping):
        return settings
    return {**defaults.get(str(settings.get("encoder")), {}), **settings}


def sampled(grid: Grid, item: np.ndarray | Tensor, most: int) -> Grid:
    """A grid of at most `most` tokens, drawn at random and in random order: the published model at high resolutions.

    The draw depends on the item only.

    >>> sampled(Grid(1, 2, 3), np.zeros(6), 4).length
    4
    """
    if grid.length <= most:
        return grid
    rng = random.Random(zlib.crc32(np.ascontiguousarray(item).tobytes()))
    return grid._replace(kept=tuple(rng.sample(range(grid.length), most)))


def run_by_shape(run: Callable[[Tensor], Tensor], items: list[Tensor]) -> list[Tensor]:
    """Stack items of equal shape, `run` each stack ([n, ...] -> [n, L, C]), give results back in the order of items."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, item in enumerate(items):
        groups.setdefault(tuple(item.shape), []).append(index)
    results: list[Tensor | None] = [None] * len(items)
    for indices in groups.values():
        for index, result in zip(indices, run(torch.stack([items[i] for i in indices]))):
            results[index] = result
    return [result for result in results if result is not None]
