"""How often: which rows stand in which step. Computed from (seed, step, slot), never stored, so that a run can begin at any step.

Every data set has a quota in every step. It is gone through in a new random order each epoch; nothing repeats before everything was seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from monoglot.rng import stream


@dataclass(frozen=True)
class Draw:
    """One slot of one step."""

    source: int
    """Which data set of the mixture."""
    row: int
    """Which of its rows."""
    epoch: int
    """How often that row was drawn before."""


class Mixture:
    """Quotas over data sets of given sizes.

    >>> mixture = Mixture(sizes=[3, 2], quotas=[2, 1], seed=0)
    >>> [len({d.row for step in range(3) for d in mixture.step(step) if d.source == 0}), len(mixture.step(0))]
    [3, 3]
    """

    def __init__(self, sizes: Sequence[int], quotas: Sequence[int], seed: int):
        if min(sizes, default=0) < 1:
            raise ValueError(f"every data set of a mixture needs at least one row, got sizes {list(sizes)}")
        self.sizes, self.quotas, self.seed = list(sizes), list(quotas), seed
        self._order = lru_cache(maxsize=4 * len(self.sizes))(self._order_uncached)

    def step(self, step: int) -> list[Draw]:
        """The rows of one step, data set by data set."""
        draws = []
        for source, (size, quota) in enumerate(zip(self.sizes, self.quotas)):
            for place in range(step * quota, (step + 1) * quota):
                epoch, index = divmod(place, size)
                draws.append(Draw(source, int(self._order(source, epoch)[index]), epoch))
        return draws

    def epochs(self, steps: int) -> list[float]:
        """How often each data set is gone through in that many steps."""
        return [steps * quota / size for size, quota in zip(self.sizes, self.quotas)]

    def _order_uncached(self, source: int, epoch: int) -> np.ndarray:
        return stream(self.seed, "mixture", source, epoch).permutation(self.sizes[source])
