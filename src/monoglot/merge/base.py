"""What a method of merging is: a function of one tensor's versions.

    Pieces (versions, weights, base, Fisher information, settings) -> Merger.merge -> float32 tensor

Versions are read when they are asked for, one at a time, so that a method holds as few of them as its formula allows.
Letters: P parents that have the tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from monoglot.registry import Registry
from monoglot.rng import stream

Read = Callable[[], Tensor]
"""Reads one version of a tensor, float32."""


@dataclass(frozen=True)
class Pieces:
    """The versions of one tensor that are merged.

    >>> import torch
    >>> ones, twos = torch.ones(2), torch.full((2,), 2.0)
    >>> pieces = Pieces("bias", [lambda: ones, lambda: twos], [3.0, 1.0])
    >>> pieces.shares, pieces.mean()
    ([0.75, 0.25], tensor([1.2500, 1.2500]))
    """

    name: str
    versions: list[Read]
    """One for each of the P parents that have the tensor."""
    weights: list[float]
    """How much each of these parents counts; they need not sum to 1."""
    base: Read | None = None
    """The common start's version, for the methods that need it."""
    fisher: list[Read] | None = None
    """Diagonal Fisher information of each version, for the method that needs it."""
    scale: float = 1.0
    density: float = 1.0
    seed: int = 0
    ids: list[int] = field(default_factory=list)
    """Each parent's number on the page: draws belong to a parent, wherever it stands among those that have the tensor."""

    @property
    def shares(self) -> list[float]:
        """Weights of the parents that have the tensor, summing to 1."""
        total = sum(self.weights)
        if not total:  # only parents of no weight have it
            return [1 / len(self.weights)] * len(self.weights)
        return [weight / total for weight in self.weights]

    def mean(self) -> Tensor:
        """The weighted mean of the versions."""
        return weighted_sum(self.shares, (read() for read in self.versions))

    def changes(self) -> Iterator[Tensor]:
        """Version minus base (a task vector), one after the other."""
        base = self.from_base()
        for read in self.versions:
            yield read() - base

    def from_base(self) -> Tensor:
        assert self.base is not None, "the page checks that the method has its base"
        return self.base()

    def rng(self, index: int) -> np.random.Generator:
        """Draws for version `index`: they depend on the seed, the tensor and the parent only."""
        return stream(self.seed, "merge", self.name, self.ids[index] if self.ids else index)


def weighted_sum(weights: list[float], tensors: Iterator[Tensor]) -> Tensor:
    """The sum of weight x tensor, each tensor let go before the next is read."""
    total: Tensor | None = None
    for weight in weights:
        tensor = next(tensors)
        if total is None:
            total = tensor * weight
        else:
            total.add_(tensor, alpha=weight)
        del tensor
    assert total is not None, "a tensor has at least one version"
    return total


@dataclass(frozen=True)
class Merger:
    """A way to make one model of several."""

    merge: Callable[[Pieces], Tensor]
    summary: str
    source: str
    least: int = 2
    """Fewest parents."""
    most: int | None = None
    needs_base: bool = False
    """The parents' common start has to be given."""
    needs_fisher: bool = False
    """Rows have to be given on which the Fisher information of each parent is measured."""
    weighted: bool = True
    """False if the parents count the same by definition."""
    needs_weights: bool = False
    settings: dict[str, float] = field(default_factory=dict)
    """Which of `scale` and `density` it has, and what they are unless said."""
    lossless: bool = True
    """True if equal versions x give x whatever the settings are; False if only when they equal the base too, or with density 1."""
    draws: bool = False
    """True if it depends on a seed."""


MERGERS: Registry[Merger] = Registry("method of merging")
