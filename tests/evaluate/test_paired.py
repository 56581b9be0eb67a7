"""Paired statistics against closed forms, explicit loops, tables, and simulation under the null."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from monoglot.evaluate.intervals import averaged, ratio
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.paired import (
    holm,
    mcnemar,
    paired_bootstrap,
    rows_needed,
    standard_error,
    swap_test,
    t_inside,
    t_interval,
    t_quantile,
)
from monoglot.rng import stream


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 1), (1, 9), (9, 1), (7, 7), (3, 40), (400, 460)])
def test_mcnemar_is_the_binomial(only_a, only_b):
    count = only_a + only_b
    far = abs(only_a - only_b)
    ways = sum(math.comb(count, k) for k in range(count + 1) if abs(2 * k - count) >= far)
    assert mcnemar(only_a, only_b) == pytest.approx(float(Fraction(ways, 2**count)), rel=1e-12)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_swaps_of_right_and_wrong_rows_are_mcnemar():
    a = np.array([1, 1, 0, 0, 0, 0, 0, 0, 1, 0.0])
    b = np.array([1, 0, 1, 1, 1, 1, 1, 1, 1, 0.0])
    assert swap_test(averaged(a), averaged(b), ratio, seed=0) == pytest.approx(mcnemar(1, 6), rel=1e-12)


def test_every_swap_is_counted_as_an_explicit_loop_counts_it():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=9), rng.normal(0.5, 1, size=9)
    signs = [sum(s * d for s, d in zip(way, b - a)) for way in itertools.product((-1, 1), repeat=9)]
    expected = np.mean(np.abs(signs) >= abs((b - a).sum()) - 1e-12)
    assert swap_test(averaged(a), averaged(b), ratio, seed=0) == pytest.approx(expected)
    drawn = swap_test(averaged(a), averaged(b), ratio, seed=0, rounds=400)
    assert drawn == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))


def test_a_corpus_score_is_swapped_by_group():
    """Against a loop that swaps the terms and computes the score anew."""
    rng = np.random.default_rng(1)
    a, b = (np.stack([rng.integers(0, 6, 12), np.arange(12) % 5 + 1], axis=1).astype(float) for _ in "ab")
    labels = [f"speaker {index // 3}" for index in range(12)]

    def apart(swapped):
        x = np.array([b[i] if swapped[i // 3] else a[i] for i in range(12)]).sum(axis=0)
        y = np.array([a[i] if swapped[i // 3] else b[i] for i in range(12)]).sum(axis=0)
        return abs(ratio(y) - ratio(x))

    ways = [apart(way) for way in itertools.product((False, True), repeat=4)]
    expected = np.mean(np.array(ways) >= ways[0] - 1e-12)
    assert swap_test(a, b, ratio, seed=0, groups=labels) == pytest.approx(expected)


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(2)
    found = []
    for _ in range(400):
        hard = rng.random(40)
        a, b = (averaged(hard + rng.normal(0, 0.3, 40)) for _ in "ab")
        found.append(swap_test(a, b, ratio, seed=0, rounds=300))
    ordered = np.sort(found)
    furthest = np.abs(ordered - (np.arange(400) + 0.5) / 400).max()
    assert furthest < 1.63 / math.sqrt(400)  # Kolmogorov's 1%
    assert np.mean(ordered <= 0.05) <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / 400)


def test_mcnemar_keeps_its_level():
    """Discrete, so at most 5%, exactly: summed over all that may happen among 30 rows that changed."""
    wrong = sum(math.comb(30, k) for k in range(31) if mcnemar(k, 30 - k) <= 0.05) / 2**30
    assert 0.03 < wrong <= 0.05


def test_power_grows_with_rows_and_with_the_difference():
    rng = np.random.default_rng(3)

    def power(rows, difference):
        found = 0
        for _ in range(60):
            a = rng.normal(0, 1, rows)
            found += (
                swap_test(averaged(a), averaged(a + rng.normal(difference, 1, rows)), ratio, seed=0, rounds=200) < 0.05
            )
        return found / 60

    assert power(20, 0.3) < power(80, 0.3) < power(80, 0.6)
    assert power(80, 0.6) > 0.95


def test_rows_needed_have_the_power_that_is_promised():
    rows = rows_needed(50, 1.0 / math.sqrt(50), 0.5)  # a spread of 1 a row, a difference of half of it
    assert rows == 32  # (1.960 + 0.842)² / 0.25 = 31.4
    rng = np.random.default_rng(4)
    zeros = averaged(np.zeros(rows))
    found = [
        swap_test(zeros, averaged(rng.normal(0.5, 1, rows)), ratio, seed=0, rounds=300) <= 0.05 for _ in range(300)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize("metric", ["wer", "bleu_4", "exact_match"])
def test_paired_bootstrap_is_the_explicit_loop(metric):
    rng = np.random.default_rng(5)
    words = ["a", "b", "c", "d", "e", "f"]
    said = [[" ".join(rng.choice(words, 6)) for _ in range(14)] for _ in range(3)]
    expected, first, second = said
    a, b = (METRICS[metric].score(answers, [[text] for text in expected]).terms for answers in (first, second))
    labels = [f"g{index // 2}" for index in range(14)]
    value, scores = METRICS[metric].value, []
    for drawn in stream(7, "bootstrap").integers(7, size=(100, 7)):
        rows = [2 * group + which for group in drawn for which in (0, 1)]
        scores.append(value(b[rows].sum(axis=0)) - value(a[rows].sum(axis=0)))
    found = paired_bootstrap(a, b, value, seed=7, groups=labels, resamples=100)
    assert found == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=1e-12)


@pytest.mark.parametrize("metric", ["wer", "bleu_2"])
def test_the_order_of_the_two_turns_the_sign_and_nothing_else(metric):
    rng = np.random.default_rng(6)
    said = [[" ".join(rng.choice(list("abcd"), 5)) for _ in range(40)] for _ in range(3)]
    a, b = (METRICS[metric].score(answers, [[text] for text in said[2]]).terms for answers in said[:2])
    value, labels = METRICS[metric].value, list(range(40))
    low, high = paired_bootstrap(a, b, value, seed=0, groups=labels)
    assert paired_bootstrap(b, a, value, seed=0, groups=labels) == pytest.approx((-high, -low), abs=1e-12)
    assert swap_test(a, b, value, seed=0) == swap_test(b, a, value, seed=0)
    assert standard_error(a, b, value, labels) == pytest.approx(standard_error(b, a, value, labels))


def test_jackknife_of_a_mean_is_the_textbook_error():
    a, b = np.random.default_rng(7).normal(size=(2, 25))
    found = standard_error(averaged(a), averaged(b), ratio, list(range(25)))
    assert found == pytest.approx((b - a).std(ddof=1) / 5)
    assert math.isnan(standard_error(averaged(a), averaged(b), ratio, ["one"] * 25))


def test_one_group_and_equal_answers_show_nothing():
    a, b = averaged([0.0, 0.0]), averaged([1.0, 1.0])
    assert swap_test(a, b, ratio, seed=0, groups=["one", "one"]) == 1.0
    assert swap_test(a, a, ratio, seed=0) == 1.0


def test_holm_against_its_rule():
    """Smallest first: the k-th of m is rejected at 5% while all before it are and p <= 0.05 / (m - k + 1)."""
    rng = np.random.default_rng(8)
    for count in (1, 2, 5, 9):
        p = (rng.random(count) ** 4).tolist()
        rejected = set()
        for rank, index in enumerate(sorted(range(count), key=p.__getitem__)):
            if p[index] > 0.05 / (count - rank):
                break
            rejected.add(index)
        assert {index for index, adjusted in enumerate(holm(p)) if adjusted <= 0.05} == rejected
    assert holm([]) == []
    assert holm([0.8, 0.9]) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("freedom", "quantile"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (30, 2.042)]
)
def test_student_is_the_printed_table(freedom, quantile):
    assert t_quantile(freedom) == pytest.approx(quantile, abs=6e-4)


@pytest.mark.parametrize("freedom", [1, 2, 3, 6, 7])
def test_student_is_the_integral_of_its_density(freedom):
    x = np.linspace(-1.7, 1.7, 20001)
    factor = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
    density = factor * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    area = ((density[1:] + density[:-1]) / 2 * np.diff(x)).sum()
    assert t_inside(1.7, freedom) == t_inside(-1.7, freedom) == pytest.approx(area, abs=1e-7)


def test_t_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(9)
    found = [t_interval(rng.normal(1.0, 2.0, 3)) for _ in range(2000)]
    assert np.mean([one.low <= 1.0 <= one.high for one in found]) == pytest.approx(0.95, abs=0.015)
    assert all((one.p < 0.05) == (one.low > 0 or one.high < 0) for one in found)


def test_a_single_seed_or_equal_differences_have_no_interval():
    for values in ([2.0], [2.0, 2.0, 2.0], [0.0, 0.0]):
        one = t_interval(values)
        assert (one.mean, one.p) == (values[0], 1.0)
        assert math.isnan(one.low)
        assert math.isnan(one.high)
    with pytest.raises(ValueError, match="of nothing"):
        t_interval([])
