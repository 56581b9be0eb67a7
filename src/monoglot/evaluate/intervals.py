"""How sure is a score? Resample what was measured, ask Wilson for a plain share, or Student for a mean over seeds.

    per-item terms float64[N, K] -> summed over a resample -> statistic -> one score a resample -> percentiles

Every score here is a function of summed per-item terms: a mean is [value, 1] summed and divided, a word error rate is
[edits, words], BLEU is [matches ..., n-grams ..., lengths]. So one bootstrap serves them all, ratios of sums included,
and a cluster bootstrap is the same after summing within each cluster.

Letters: N items, K terms an item, G groups, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from statistics import NormalDist, mean, stdev

import numpy as np

from monoglot.rng import stream

Statistic = Callable[[np.ndarray], np.ndarray]
"""Summed terms float64[..., K] -> scores float64[...]. Given single rows of terms it returns the score of each item."""

T_95 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
    *(2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)
"""97.5% quantile of Student's t with 1, 2, ... 30 degrees of freedom."""

_DRAWS_AT_ONCE = 4_000_000
"""Resampled indices held in memory at a time (32 MB)."""


def ratio(totals: np.ndarray) -> np.ndarray:
    """First term / second term: a mean when the second counts items, an error rate when it counts words.

    A denominator below 1 counts as 1, so that edits against an empty reference stay finite (and 0 / 0 is 0).

    >>> float(ratio(np.array([3.0, 4.0])))
    0.75
    """
    return totals[..., 0] / np.maximum(totals[..., 1], 1.0)


def averaged(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Values float[N] as terms float64[N, 2] whose `ratio` is their mean."""
    column = np.asarray(values, dtype=np.float64)
    return np.stack([column, np.ones_like(column)], axis=1)


def bootstrap(
    per_item: np.ndarray,
    statistic: Statistic = ratio,
    *,
    seed: int,
    resamples: int = 1000,
    groups: Sequence[Hashable] | None = None,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `statistic(per_item.sum(axis=0))`.

    Args:
        per_item: float[N, K] terms of each item, or float[N] plain values (read as `averaged(values)`: the mean).
        statistic: maps summed terms float64[..., K] to scores float64[...], on any number of leading axes.
        seed: the same seed, the same interval.
        resamples: how often the set is drawn anew, with replacement.
        groups: N labels (speaker, picture, drawing style ...). Whole groups are drawn, because items that share one are
            not independent. None draws items.
        level: the share of resampled scores inside the interval.

    Returns:
        (low, high); (nan, nan) when there is a single item or group, which says nothing about spread.

    Raises:
        ValueError: nothing to resample, the labels are not one an item, or `level` lies outside (0, 1).

    To compare two models on the same items, resample their terms together:
    `bootstrap(np.hstack([a, b]), lambda t: ratio(t[..., 2:]) - ratio(t[..., :2]), seed=0)`.

    >>> low, high = bootstrap(np.array([0.0, 1.0, 1.0, 1.0] * 25), seed=0)
    >>> 0.6 < low < 0.75 < high < 0.9
    True
    """
    terms = np.asarray(per_item, dtype=np.float64)
    if terms.ndim == 1:
        terms = averaged(terms)
    if not len(terms):
        raise ValueError("bootstrap of nothing: per_item is empty")
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie inside (0, 1), got {level}")
    if groups is not None:
        terms = sum_by_group(terms, groups)
    size = len(terms)
    if size == 1:
        return math.nan, math.nan

    rng = stream(seed, "bootstrap")
    totals = []
    step = max(1, _DRAWS_AT_ONCE // size)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(size, size=(rows, size)) + size * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * size).reshape(rows, size)  # how often each item was drawn
        totals.append(times @ terms)
    scores = statistic(np.concatenate(totals))
    low, high = np.quantile(scores, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def wilson(successes: float, trials: int, *, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a share of independent yes/no items; honest at 0 and 1, where a bootstrap has no width.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927).

    >>> low, high = wilson(0, 10)
    >>> round(low, 3), round(high, 3)
    (0.0, 0.278)
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"need 0 <= successes <= trials and trials >= 1, got {successes} of {trials}")
    z = NormalDist().inv_cdf((1.0 + level) / 2.0)
    share = successes / trials
    spread = z * math.sqrt(share * (1.0 - share) / trials + z * z / (4.0 * trials * trials))
    centre, scale = share + z * z / (2.0 * trials), 1.0 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half width of its 95% interval, by Student's t; infinite for one value. Beyond 31 values it is a little wide.

    >>> over_seeds([1.0, 2.0, 3.0])
    (2.0, 2.484...)
    """
    if len(values) == 1:
        return float(values[0]), math.inf
    quantile = T_95[min(len(values) - 1, len(T_95)) - 1]
    return mean(values), quantile * stdev(values) / math.sqrt(len(values))


def sum_by_group(terms: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """float64[N, K] and N labels -> float64[G, K], groups in order of first appearance."""
    if len(groups) != len(terms):
        raise ValueError(f"{len(groups)} group labels for {len(terms)} items; give one each")
    numbers: dict[Hashable, int] = {}
    index = np.array([numbers.setdefault(label, len(numbers)) for label in groups])
    sums = np.zeros((len(numbers), terms.shape[1]))
    np.add.at(sums, index, terms)
    return sums
