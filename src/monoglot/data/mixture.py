"""How often: which rows stand in which step. Computed from (seed, step, slot), never stored, so that a run can begin at any step.

    weights, sizes -> quotas -> Mixture -> Draw (data set, row, epoch)

Every data set has a quota, its rows a step; a quota may be a fraction: 0.25 is one row in every fourth step. A data set is gone through in a
new random order each epoch; nothing repeats before everything was seen. Quotas may change from a step on (the next stage, a balancer); places
go on where they were.

Letters: K data sets.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from monoglot.rng import stream

_ROUNDS = 6  # of the permutation's network; 4 are enough to look random (Luby and Rackoff 1988), the rest is margin
_MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Draw:
    """One slot of one step."""

    source: int
    """Which data set of the mixture."""
    row: int
    """Which of its rows."""
    epoch: int
    """How often that row was drawn before."""


@dataclass(frozen=True)
class Segment:
    """From step `first` on, each data set moves on by its quota a step."""

    first: int
    quotas: tuple[float, ...]
    places: tuple[float, ...]
    """Rows that were drawn of each before, with the fraction of a row that is due."""


class Mixture:
    """Quotas over data sets of given sizes.

    Args:
        names: of the data sets; the order of each depends on its own name only, so that adding one never moves another.
        sizes: rows of each.
        quotas: rows of each in every step; may be fractions, and 0 for a data set that rests.
        first: the step from which these quotas hold.
        places: rows drawn of each data set before `first`, by name; one that is not named is new.

    >>> mixture = Mixture(["a", "b"], sizes=[3, 2], quotas=[2, 0.5], seed=0)
    >>> [len({d.row for step in range(3) for d in mixture.step(step) if d.source == 0}), mixture.count(0, 8)]
    [3, [16, 4]]
    """

    def __init__(
        self,
        names: Sequence[str],
        sizes: Sequence[int],
        quotas: Sequence[float],
        *,
        seed: int,
        first: int = 0,
        places: Mapping[str, float] = MappingProxyType({}),
    ):
        if min(sizes, default=0) < 1:
            raise ValueError(f"every data set of a mixture needs at least one row, got sizes {list(sizes)}")
        self.names, self.sizes, self.seed = list(names), list(sizes), seed
        # Fractions begin at different places, so that rare data sets don't all stand in the same step.
        due = [places.get(name, float(stream(seed, "mixture", name).random())) for name in names]
        self.segments = [Segment(first, tuple(map(float, quotas)), tuple(due))]

    def step(self, step: int, slots: slice = slice(None)) -> list[Draw]:
        """The rows of one step, data set by data set; `slots` picks some of them, and only these are computed."""
        starts, ends = self._places(step), self._places(step + 1, self._segment(step))
        drawn = [(k, n) for k, ends_at in enumerate(ends) for n in range(math.floor(starts[k]), math.floor(ends_at))]
        draws = []
        for source, place in drawn[slots]:
            epoch, index = divmod(place, self.sizes[source])
            draws.append(Draw(source, self._order(source, epoch)(index), epoch))
        return draws

    def change(self, step: int, quotas: Sequence[float]) -> None:
        """Other quotas from `step` on; a change that was planned for later is forgotten."""
        places = tuple(self._places(step))
        self.segments = [segment for segment in self.segments if segment.first < step]
        self.segments.append(Segment(step, tuple(map(float, quotas)), places))

    def quotas(self, step: int) -> list[float]:
        """Rows a step of each data set, at that step."""
        return list(self._segment(step).quotas)

    def places(self, step: int) -> list[float]:
        """Rows drawn of each data set before that step, with the fraction that is due."""
        return self._places(step)

    def count(self, first: int, end: int) -> list[int]:
        """Rows drawn of each data set in steps `first .. end`."""
        return [math.floor(b) - math.floor(a) for a, b in zip(self._places(first), self._places(end))]

    def _segment(self, step: int) -> Segment:
        return self.segments[max(0, bisect.bisect_right(self.segments, step, key=lambda segment: segment.first) - 1)]

    def _places(self, step: int, segment: Segment | None = None) -> list[float]:
        segment = segment or self._segment(step)
        return [place + (step - segment.first) * quota for place, quota in zip(segment.places, segment.quotas)]

    @lru_cache(maxsize=1024)  # noqa: B019 (a mixture lives as long as its run)
    def _order(self, source: int, epoch: int) -> Permutation:
        return Permutation(self.sizes[source], self.seed, self.names[source], epoch)


class Permutation:
    """A random order of 0 .. size - 1 of which any place is computed: nothing is stored, whatever the size.

    A balanced Feistel network over the next power of 4, walked until it falls inside.
    Source: Black and Rogaway, Ciphers with arbitrary finite domains (2002), cycle walking; the round function is splitmix64's (Steele et al. 2014).

    >>> sorted(map(Permutation(10, 0, "a"), range(10))) == list(range(10))
    True
    """

    def __init__(self, size: int, seed: int, *names: object):
        self.size = size
        self._half = max(1, ((size - 1).bit_length() + 1) // 2)
        self._keys = [int(key) for key in stream(seed, "order", *names).integers(0, 1 << 63, _ROUNDS)]

    def __call__(self, place: int) -> int:
        while True:
            left, right = place >> self._half, place & ((1 << self._half) - 1)
            for key in self._keys:
                left, right = right, left ^ (_mix(right ^ key) >> (64 - self._half))
            place = left << self._half | right
            if place < self.size:
                return place


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ value >> 30) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ value >> 27) * 0x94D049BB133111EB) & _MASK
    return value ^ value >> 31


def share_out(
    rows: float, weights: Sequence[float], sizes: Sequence[int], *, temperature: float | None = None
) -> list[float]:
    """Rows a step of each data set: by weight alone, or by weight times rows^(1 / temperature).

    Temperature 1 is proportional to size, as if all data sets were one file; higher ones come nearer to the weights alone.
    Source: temperature sampling as in arXiv 1907.05019.

    >>> share_out(8, [1, 3], [10, 10])
    [2.0, 6.0]
    >>> [round(q, 2) for q in share_out(11, [1, 1], [10000, 100], temperature=2)]
    [10.0, 1.0]
    """
    pulls = [w if temperature is None else w * size ** (1 / temperature) for w, size in zip(weights, sizes)]
    total = sum(pulls)
    if not total > 0:
        raise ValueError("the weights of the mixture sum to zero")
    return [rows * pull / total for pull in pulls]


def capped(quotas: Sequence[float], most: Sequence[float]) -> list[float]:
    """`quotas`, none above its bound; what is cut goes to the others in proportion, as far as they have room.

    >>> capped([4, 2, 2], [1, 100, 100])
    [1.0, 3.5, 3.5]
    """
    result, full, most = list(map(float, quotas)), [False] * len(quotas), list(map(float, most))
    while True:
        over = sum(max(0.0, q - bound) for q, bound in zip(result, most))
        full = [was or q >= bound for was, q, bound in zip(full, result, most)]
        result = [min(q, bound) for q, bound in zip(result, most)]
        free = sum(q for q, is_full in zip(result, full) if not is_full)
        if over <= 1e-9 * sum(quotas) or free == 0:
            return result
        result = [q if is_full else q * (1 + over / free) for q, is_full in zip(result, full)]
