"""Which rows stand in which step: quotas kept, every row once an epoch, computed from the step alone."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from monoglot.data import mixture as module
from monoglot.data.mixture import Mixture, Permutation, capped, share_out

sizes_and_quotas = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 7)), min_size=1, max_size=4)
fractions = st.one_of(st.floats(0, 7), st.sampled_from([0.25, 0.5, 1 / 3, 2.0]))
sizes_and_fractions = st.lists(st.tuples(st.integers(1, 30), fractions), min_size=1, max_size=4)


def make(sets, seed=0, **more) -> Mixture:
    sizes, quotas = zip(*sets)
    return Mixture([f"set {index}" for index in range(len(sets))], sizes, quotas, seed=seed, **more)


def drawn(mixture, source, steps) -> list:
    return [draw for step in steps for draw in mixture.step(step) if draw.source == source]


def assert_every_row_once_an_epoch(draws, size, first=0) -> None:
    """Nothing repeats before everything was seen: the draws of a data set are whole passes, but for the last."""
    assert [draw.epoch for draw in draws] == [place // size for place in range(first, first + len(draws))]
    rows = Counter((draw.epoch, draw.row) for draw in draws)
    assert max(rows.values(), default=1) == 1
    assert all(0 <= draw.row < size for draw in draws)


# --- quotas -----------------------------------------------------------------------------------------------------------


@given(sets=sizes_and_quotas, seed=st.integers(0, 99))
def test_every_row_once_an_epoch(sets, seed):
    mixture, steps = make(sets, seed), 12
    assert all(len(mixture.step(step)) == sum(quota for _, quota in sets) for step in range(3))
    for source, (size, quota) in enumerate(sets):
        mine = drawn(mixture, source, range(steps))
        assert [draw.epoch for draw in mine] == [place // size for place in range(steps * quota)]
        for epoch in range(steps * quota // size):
            assert sorted(draw.row for draw in mine if draw.epoch == epoch) == list(range(size))
    assert mixture.count(0, steps) == [steps * quota for _, quota in sets]


@given(sets=sizes_and_fractions, seed=st.integers(0, 99), steps=st.integers(1, 60))
def test_fractions_are_exact_on_average(sets, seed, steps):
    mixture = make(sets, seed)
    counts = np.array(
        [[sum(d.source == s for d in mixture.step(step)) for s in range(len(sets))] for step in range(steps)]
    )
    assert mixture.count(0, steps) == counts.sum(0).tolist()
    for source, (size, quota) in enumerate(sets):
        mine = counts[:, source]
        assert set(mine) <= {math.floor(quota), math.ceil(quota)}, "as even as can be"
        assert abs(mine.sum() - steps * quota) < 1, "at no time more than a row from the quota"
        assert_every_row_once_an_epoch(drawn(mixture, source, range(steps)), size)


def test_a_quarter_is_one_row_in_every_fourth_step():
    mixture = make([(50, 0.25)])
    stands = [step for step in range(400) if mixture.step(step)]
    assert len(stands) == 100
    assert set(np.diff(stands)) == {4}


def test_rare_sets_do_not_all_stand_in_the_same_step():
    mixture = make([(9, 0.1)] * 40)
    most = max(len(mixture.step(step)) for step in range(20))
    assert most < 20, most
    assert make([(9, 0.0), (9, 1)]).count(0, 100) == [0, 100], "a data set may rest"


@given(sets=sizes_and_fractions, order=st.permutations(range(9)))
def test_any_order_of_asking_gives_the_same(sets, order):
    expected = [make(sets).step(step) for step in range(9)]
    mixture = make(sets)
    assert [mixture.step(step) for step in order] == [expected[step] for step in order]


def test_a_far_step_costs_what_a_near_one_does(monkeypatch):
    """Counted in calls of the permutation's round, where all the work is."""
    calls = Counter()
    mix = module._mix

    def counted(value):
        calls["round"] += 1
        return mix(value)

    monkeypatch.setattr(module, "_mix", counted)
    for step in (0, 10**3, 10**6, 10**9):
        mixture = make([(1000, 8), (50, 8), (10**7, 0.5)])
        calls.clear()
        misses = mixture._order.cache_info().misses
        rows = len(mixture.step(step))
        assert 16 <= rows <= 17
        # A place is walked until it falls inside, 4 times on average at worst; 6 rounds each.
        assert calls["round"] <= 6 * 8 * rows, (step, calls)
        assert mixture._order.cache_info().misses - misses <= 5, "one order a data set, two where an epoch ends"


def test_epochs_and_sets_have_orders_of_their_own():
    mixture = Mixture(["a", "b"], [40, 40], [40, 40], seed=0)
    first, second = mixture.step(0), mixture.step(1)
    orders = [tuple(d.row for d in part) for part in (first[:40], first[40:], second[:40], second[40:])]
    assert len(set(orders)) == 4
    assert Mixture(["a"], [40], [40], seed=1).step(0) != Mixture(["a"], [40], [40], seed=0).step(0)


@given(sets=sizes_and_fractions, other=st.tuples(st.integers(1, 30), fractions), place=st.integers(0, 4))
def test_another_data_set_moves_no_others_rows(sets, other, place):
    """Whether it stands before, between or behind them."""
    names = [f"set {index}" for index in range(len(sets))]
    place = min(place, len(sets))
    more, more_names = list(sets), list(names)
    more.insert(place, other)
    more_names.insert(place, "new")
    without = make(sets)
    sizes, quotas = zip(*more)
    with_it = Mixture(more_names, sizes, quotas, seed=0)
    for step in range(5):
        by_name = [(names[d.source], d.row, d.epoch) for d in without.step(step)]
        assert [
            (more_names[d.source], d.row, d.epoch) for d in with_it.step(step) if more_names[d.source] != "new"
        ] == by_name


def test_a_small_set_may_stand_several_times_in_a_step():
    assert Counter(draw.row for draw in make([(2, 6)]).step(0)) == {0: 3, 1: 3}


def test_an_empty_set():
    with pytest.raises(ValueError, match="at least one row, got sizes"):
        make([(3, 1), (0, 1)])


# --- changing quotas --------------------------------------------------------------------------------------------------

changes = st.lists(st.tuples(st.integers(1, 9), st.lists(fractions, min_size=3, max_size=3)), max_size=4)


@given(changes=changes, sizes=st.lists(st.integers(1, 20), min_size=3, max_size=3))
def test_places_go_on_across_changes(changes, sizes):
    mixture = make([(size, 1.5) for size in sizes])
    before, at = [mixture.step(step) for step in range(3)], 3
    for after, quotas in changes:
        mixture.change(at := at + after, quotas)
        assert mixture.quotas(at) == pytest.approx(quotas)
    assert [mixture.step(step) for step in range(3)] == before, "what was drawn stays drawn"
    steps, total = at + 10, [0.0] * 3
    for step in range(steps):
        total = [t + q for t, q in zip(total, mixture.quotas(step))]
    for source, size in enumerate(sizes):
        mine = drawn(mixture, source, range(steps))
        assert_every_row_once_an_epoch(mine, size)
        assert abs(len(mine) - total[source]) < 1 + 1e-6
    assert mixture.count(0, steps) == [len(drawn(mixture, source, range(steps))) for source in range(3)]


def test_a_change_that_was_planned_for_later_is_forgotten():
    mixture = make([(30, 2), (30, 2)])
    mixture.change(10, [4, 0])
    mixture.change(5, [1, 3])
    assert [mixture.quotas(step) for step in (4, 5, 10, 99)] == [[2, 2], [1, 3], [1, 3], [1, 3]]


@given(sets=sizes_and_fractions, steps=st.integers(0, 40))
def test_places_go_on_in_the_next_mixture(sets, steps):
    """A stage begins where the one before it stood, though it has data sets of its own."""
    one = make(sets)
    places = dict(zip(one.names, one.places(steps)))
    sizes, quotas = zip(*sets)
    two = Mixture(["new", *one.names], [5, *sizes], [1, *quotas], seed=0, first=steps, places=places)
    for source, (size, _) in enumerate(sets):
        mine = drawn(one, source, range(steps)) + drawn(two, source + 1, range(steps, steps + 20))
        assert_every_row_once_an_epoch(mine, size)
    assert [d.epoch for d in drawn(two, 0, range(steps, steps + 5))] == [0] * 5


# --- the order of rows ------------------------------------------------------------------------------------------------


@given(size=st.integers(1, 3000), seed=st.integers(0, 9))
def test_a_permutation_has_every_row_once(size, seed):
    order = Permutation(size, seed, "a", 3)
    assert sorted(map(order, range(size))) == list(range(size))


def test_permutations_look_uniform():
    """Every row is as likely at every place, every pair of neighbours as likely as any other (chi-square, by scipy)."""
    size, orders = 12, 4000
    at_place, pairs = np.zeros((size, size)), np.zeros((size, size))
    for seed in range(orders):
        order = list(map(Permutation(size, seed, "names", 0), range(size)))
        at_place[range(size), order] += 1
        pairs[order[:-1], order[1:]] += 1
    assert chisquare(at_place.ravel()).pvalue > 1e-3
    assert chisquare(pairs[~np.eye(size, dtype=bool)]).pvalue > 1e-3


def test_a_large_permutation_has_no_trend():
    size = 100_003
    rows = np.array([Permutation(size, 0, "a", 0)(place) for place in range(0, size, 25)])
    assert len(set(rows)) == len(rows)
    places = np.arange(len(rows))
    assert abs(np.corrcoef(places, rows)[0, 1]) < 4 / math.sqrt(len(rows))
    assert abs(np.corrcoef(rows[:-1], rows[1:])[0, 1]) < 4 / math.sqrt(len(rows))
    assert chisquare(np.histogram(rows, bins=20, range=(0, size))[0]).pvalue > 1e-3


# --- from weights to quotas -------------------------------------------------------------------------------------------

weighed = st.lists(st.tuples(st.floats(0.01, 100), st.integers(1, 10**6)), min_size=1, max_size=6)


@given(sets=weighed, rows=st.floats(0.5, 500), temperature=st.one_of(st.none(), st.floats(0.5, 50)))
def test_shares_sum_to_the_rows_and_follow_weight_and_size(sets, rows, temperature):
    weights, sizes = zip(*sets)
    quotas = share_out(rows, weights, sizes, temperature=temperature)
    assert sum(quotas) == pytest.approx(rows)
    assert all(quota >= 0 for quota in quotas)
    pulls = [w if temperature is None else w * size ** (1 / temperature) for w, size in sets]
    for one in range(len(sets)):
        assert quotas[one] * pulls[0] == pytest.approx(quotas[0] * pulls[one], rel=1e-6)


def test_temperatures():
    sizes = [10_000, 100]
    assert share_out(101, [1, 1], sizes, temperature=1) == pytest.approx([100, 1])
    assert share_out(2, [1, 1], sizes, temperature=1e6) == pytest.approx([1, 1], rel=1e-3)
    assert share_out(2, [1, 0], sizes, temperature=2) == [2, 0]
    with pytest.raises(ValueError, match="the weights of the mixture sum to zero"):
        share_out(2, [0, 0], sizes)


bounded = st.lists(st.tuples(st.floats(0.01, 50), st.floats(0.01, 50)), min_size=1, max_size=7)


@given(sets=bounded)
def test_caps(sets):
    """Nobody is above the bound; no row is lost while someone has room; those below it keep their proportions."""
    quotas, most = zip(*sets)
    result = capped(quotas, most)
    assert all(q <= bound for q, bound in zip(result, most))
    assert sum(result) == pytest.approx(min(sum(quotas), sum(most)), rel=1e-6)
    free = [(q, before) for q, before, bound in zip(result, quotas, most) if q < bound * (1 - 1e-9)]
    assert all(q / before == pytest.approx(free[0][0] / free[0][1], rel=1e-6) for q, before in free)
    assert all(q >= before * (1 - 1e-9) for q, before in free), "what is cut goes to the others"
    if all(q <= bound for q, bound in sets):
        assert result == pytest.approx(quotas)
