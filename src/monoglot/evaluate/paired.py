"""Is B better than A on the same rows? Intervals and tests of paired differences, without scipy.

    terms of A and of B, float64[N, K] each -> sums by group -> difference B - A, interval, p, rows needed
    paired differences of a few seeds, float64[S] -> mean, t interval, p                         several p -> Holm

As in `intervals`, a score is a function of summed terms, so one bootstrap and one test serve means and corpus scores (WER, BLEU) alike.

Letters: N items, K terms an item, G groups, R rounds, S seeds.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from monoglot.evaluate.intervals import Statistic, bootstrap, sum_by_group
from monoglot.rng import stream

ROUNDS = 10_000
"""Random swaps of a test; up to as many are enumerated instead."""
POWER, LEVEL = 0.8, 0.95
"""What "rows needed" means: a difference so large would be found, at this level, four times of five."""
_DRAWS_AT_ONCE = 4_000_000
EQUAL = 1e-9
"""Relative; differences that differ by less are the same one, summed in another order."""


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, value: Statistic, *, seed: int, groups: Sequence[Hashable], resamples: int = 1000
) -> tuple[float, float]:
    """95% percentile interval of value(B) - value(A); both models' terms of a group are drawn together.

    Args:
        a, b: float64[N, K], the terms of the same items under each model.
        groups: N labels; whole groups are drawn.

    Returns:
        (low, high); (nan, nan) for a single group.
    """
    terms = a.shape[1]
    return bootstrap(
        np.hstack([a, b]),
        lambda totals: value(totals[..., terms:]) - value(totals[..., :terms]),
        seed=seed,
        groups=groups,
        resamples=resamples,
        level=LEVEL,
    )


def swap_test(
    a: np.ndarray,
    b: np.ndarray,
    value: Statistic,
    *,
    seed: int,
    groups: Sequence[Hashable] | None = None,
    rounds: int = ROUNDS,
) -> float:
    """Two-sided p of paired randomisation: were A and B the same, swapping their terms of any group would change nothing.

    Of a mean this is the sign-flip test. All 2 ** G swaps are counted where they are at most `rounds`; else so many are drawn, and the
    observed one counts among them, so that p is never 0. Groups that both models answer alike are left out: swapping them does nothing.

    Source: Noreen, Computer-Intensive Methods for Testing Hypotheses (1989); for corpus scores as in Riezler and Maxwell (2005).

    >>> a, b = np.zeros((5, 2)) + (0, 1), np.ones((5, 2))
    >>> swap_test(a, b, lambda t: t[..., 0] / t[..., 1], seed=0)  # all five better: 2 of 32 swaps are as far apart
    0.0625
    """
    both = np.hstack([a, b])
    both = both if groups is None else sum_by_group(both, groups)
    terms = a.shape[1]
    total_a, total_b = both[:, :terms].sum(axis=0), both[:, terms:].sum(axis=0)
    change = both[:, terms:] - both[:, :terms]
    change = change[np.abs(change).any(axis=1)]
    size = len(change)
    observed = abs(float(value(total_b) - value(total_a)))
    if not size:
        return 1.0
    exact = size < 60 and 2**size <= rounds
    rng = stream(seed, "swap test")
    count, step = 2**size if exact else rounds, max(1, _DRAWS_AT_ONCE // size)
    as_far = 0
    for start in range(0, count, step):
        numbers = np.arange(start, min(start + step, count))
        bits = numbers[:, None] >> np.arange(size) & 1 if exact else rng.integers(2, size=(len(numbers), size))
        moved = bits @ change
        apart = np.abs(value(total_b - moved) - value(total_a + moved))
        as_far += int((apart >= observed - EQUAL * max(observed, 1.0)).sum())
    return as_far / count if exact else (as_far + 1) / (count + 1)


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided McNemar p: of the rows that only one model has right, is one model's share more than chance?

    Source: the binomial form of McNemar, Psychometrika 12 (1947): B(n, 1/2), twice the smaller tail.

    >>> mcnemar(0, 5), mcnemar(3, 3)
    (0.0625, 1.0)
    """
    count, fewer = only_a + only_b, min(only_a, only_b)
    ways = tail = 1
    for k in range(fewer):
        ways = ways * (count - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / 2**count)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p, adjusted so that among all of them a false find is as rare as of a single test.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).

    >>> holm([0.03, 0.01, 0.02])
    [0.04, 0.03, 0.04]
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def standard_error(a: np.ndarray, b: np.ndarray, value: Statistic, groups: Sequence[Hashable]) -> float:
    """Jackknife standard error of value(B) - value(A) over groups; of a mean over single items it is sd / sqrt(N). nan for one group.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 11.2.
    """
    both, terms = sum_by_group(np.hstack([a, b]), groups), a.shape[1]
    if len(both) < 2:
        return math.nan
    left = both.sum(axis=0) - both
    differences = value(left[:, terms:]) - value(left[:, :terms])
    return float(np.sqrt((len(both) - 1) * np.var(differences)))


def rows_needed(rows: int, error: float, difference: float) -> int:
    """How many rows of this kind would show `difference`, were it there: level 95%, power 80%, the spread as observed.

    >>> rows_needed(100, 0.05, 0.02)  # a spread of 0.5 a row: (1.96 + 0.84)² 0.5² / 0.02²
    4906
    """
    normal = NormalDist()
    deviations = normal.inv_cdf((1 + LEVEL) / 2) + normal.inv_cdf(POWER)
    return math.ceil(rows * (deviations * error / difference) ** 2)


@dataclass(frozen=True)
class Mean:
    """The mean of a few paired differences."""

    mean: float
    low: float
    high: float
    """95% t interval; (nan, nan) for a single value, or for equal ones: they say nothing about spread."""
    p: float
    """Two-sided, of a mean of 0; 1 where there is no interval."""
    values: tuple[float, ...]


def t_interval(values: Sequence[float]) -> Mean:
    """Mean, Student's interval and p of S paired differences.

    >>> found = t_interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 2), round(found.high, 2), round(found.p, 3)
    (2.0, -0.48, 4.48, 0.074)
    """
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        raise ValueError("t_interval of nothing")
    mean = float(numbers.mean())
    spread = float(numbers.std(ddof=1)) if len(numbers) > 1 else 0.0
    if spread <= EQUAL * max(1.0, abs(mean)):
        return Mean(mean, math.nan, math.nan, 1.0, tuple(map(float, numbers)))
    error, freedom = spread / math.sqrt(len(numbers)), len(numbers) - 1
    reach = t_quantile(freedom) * error
    return Mean(mean, mean - reach, mean + reach, 1 - t_inside(mean / error, freedom), tuple(map(float, numbers)))


def t_inside(t: float, freedom: int) -> float:
    """P(|T| <= |t|) of Student's t with a whole number of degrees of freedom.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 26.7.3 and 26.7.4: a finite sum.
    """
    angle = math.atan(abs(t) / math.sqrt(freedom))
    odd, cosine = freedom % 2, math.cos(angle)
    term, total = (cosine if odd else 1.0), 0.0
    for k in range(freedom // 2):
        total += term
        term *= cosine**2 * (2 * k + 1 + odd) / (2 * k + 2 + odd)
    total *= math.sin(angle)
    return 2 / math.pi * (angle + total) if odd else total


def t_quantile(freedom: int, level: float = LEVEL) -> float:
    """The t that |T| stays within with probability `level`.

    >>> round(t_quantile(2), 3)
    4.303
    """
    low, high = 0.0, 1.0
    while t_inside(high, freedom) < level:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_inside(middle, freedom) < level else (low, middle)
    return high
