"""Bootstrap against an explicit loop and theory; Wilson against its defining equation."""

import math

import numpy as np
import pytest

from monoglot.evaluate.intervals import averaged, bootstrap, ratio, wilson
from monoglot.rng import stream


def test_bootstrap_is_the_explicit_loop():
    terms = np.random.default_rng(0).integers(0, 9, (37, 2)).astype(float)
    draws = stream(5, "bootstrap").integers(37, size=(200, 37))
    scores = [terms[rows, 0].sum() / terms[rows, 1].sum() for rows in draws]
    expected = np.quantile(scores, [0.05, 0.95])
    assert bootstrap(terms, ratio, seed=5, resamples=200, level=0.9) == pytest.approx(tuple(expected))


def test_bootstrap_of_a_mean_has_the_normal_width():
    values = np.random.default_rng(1).normal(3.0, 2.0, 4000)
    low, high = bootstrap(values, seed=0, resamples=2000)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / math.sqrt(4000), rel=0.08)
    assert low < values.mean() < high


def test_groups_are_drawn_whole():
    values = np.repeat(np.random.default_rng(2).normal(size=40), 25)  # 25 copies of each of 40 values
    labels = [f"speaker {i // 25}" for i in range(1000)]
    items, groups = bootstrap(values, seed=0), bootstrap(values, seed=0, groups=labels)
    assert groups == pytest.approx(bootstrap(values[::25], seed=0))
    assert (groups[1] - groups[0]) / (items[1] - items[0]) == pytest.approx(5, rel=0.2)


def test_uneven_groups_weigh_by_their_items():
    terms = np.array([[1.0, 1], [1, 1], [1, 1], [0, 1]])
    low, high = bootstrap(terms, seed=0, groups=["a", "a", "a", "b"])
    assert (low, high) == (0.0, 1.0)
    assert bootstrap(np.ones(6), seed=0, groups=[1, 1, 2, 2, None, None]) == (1.0, 1.0)


def test_seed_names_the_interval():
    values = np.arange(50.0)
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3) != bootstrap(values, seed=4)


def test_many_items_are_drawn_in_pieces(monkeypatch):
    values = np.arange(50.0)
    whole = bootstrap(values, seed=3, resamples=100)
    monkeypatch.setattr("monoglot.evaluate.intervals._DRAWS_AT_ONCE", 120)
    assert bootstrap(values, seed=3, resamples=100) == whole


def test_difference_of_two_models_on_the_same_items():
    rng = np.random.default_rng(0)
    hard = rng.random(300)
    first, second = averaged(hard), averaged(hard + 0.05 + 0.02 * rng.normal(size=300))
    low, high = bootstrap(np.hstack([first, second]), lambda t: ratio(t[..., 2:]) - ratio(t[..., :2]), seed=0)
    assert 0.04 < low < 0.05 < high < 0.06


def test_a_single_item_or_group_has_no_interval():
    assert all(map(math.isnan, bootstrap(np.array([0.5]), seed=0)))
    assert all(map(math.isnan, bootstrap(np.ones(3), seed=0, groups="aaa")))


def test_wrong_calls_are_told():
    with pytest.raises(ValueError, match="per_item is empty"):
        bootstrap(np.zeros(0), seed=0)
    with pytest.raises(ValueError, match="2 group labels for 3 items"):
        bootstrap(np.ones(3), seed=0, groups=[1, 2])
    with pytest.raises(ValueError, match="level must lie inside"):
        bootstrap(np.ones(3), seed=0, level=95)
    with pytest.raises(ValueError, match="got 3 of 2"):
        wilson(3, 2)


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (5, 20), (97, 100), (0, 50)])
def test_wilson_ends_are_z_deviations_from_the_share(successes, trials):
    share = successes / trials
    for end in wilson(successes, trials):
        assert (share - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / trials, rel=1e-5, abs=1e-12)
