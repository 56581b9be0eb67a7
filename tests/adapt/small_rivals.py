"""A dedicated encoder that costs nothing, and rows that it can tell apart."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from small import COLOURS, square
from torch import Tensor, nn

from monoglot.adapt.rivals import Backbone
from monoglot.modalities.image import ImageConfig
from monoglot.nouns import Media, Sample


class Colours(Backbone):
    """Means of 4 x 4 parts of a picture; its last layer mixes their colours. Counts the pictures that it saw."""

    name, modality = "colours", "image"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config, self.seen = ImageConfig(size=32), 0
        self.tail = nn.Conv2d(3, 6, 1)

    def first(self, items: Tensor) -> Tensor:
        self.seen += len(items)
        return F.adaptive_avg_pool2d(items.float() / 255, 4)

    def last(self, maps: Tensor) -> Tensor:
        return self.tail(maps).mean((2, 3))


def colours(_: str = "image") -> Backbone:
    return Colours().eval().requires_grad_(False)


def squares(count: int, *, first: int = 0, names: tuple[str, ...] = ("red", "blue", "green")) -> list[Sample]:
    """Pictures in memory of squares; what is asked is their colour."""
    rng = np.random.default_rng(first)
    rows = []
    for index in range(first, first + count):
        colour = names[index % len(names)]
        row, column = (int(number) for number in rng.integers(0, 60, 2))
        picture = square(COLOURS[colour], (row, column))
        rows.append(Sample(str(index), "name", (Media("image", picture),), targets=(colour,)))
    return rows
