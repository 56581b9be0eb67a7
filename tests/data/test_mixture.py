"""Which rows stand in which step: quotas kept, every row once an epoch, computed from the step alone."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.data.mixture import Mixture

sizes_and_quotas = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 7)), min_size=1, max_size=4)


@given(sets=sizes_and_quotas, seed=st.integers(0, 99))
def test_every_row_once_an_epoch(sets, seed):
    sizes, quotas = zip(*sets)
    mixture = Mixture(sizes, quotas, seed)
    steps = 12
    draws = [draw for step in range(steps) for draw in mixture.step(step)]
    assert all(len(mixture.step(step)) == sum(quotas) for step in range(3))
    for source, (size, quota) in enumerate(sets):
        mine = [draw for draw in draws if draw.source == source]
        assert [draw.epoch for draw in mine] == [place // size for place in range(steps * quota)]
        for epoch in range(steps * quota // size):
            assert sorted(draw.row for draw in mine if draw.epoch == epoch) == list(range(size))
    assert mixture.epochs(steps) == [steps * quota / size for size, quota in sets]


@given(sets=sizes_and_quotas, order=st.permutations(range(9)))
def test_any_order_of_asking_gives_the_same(sets, order):
    sizes, quotas = zip(*sets)
    expected = [Mixture(sizes, quotas, 0).step(step) for step in range(9)]
    mixture = Mixture(sizes, quotas, 0)
    assert [mixture.step(step) for step in order] == [expected[step] for step in order]


def test_a_far_step_needs_one_order_a_data_set():
    mixture = Mixture([1000, 50], [8, 8], seed=0)
    mixture.step(10**9)
    assert mixture._order.cache_info().misses <= 3


def test_epochs_and_sets_have_orders_of_their_own():
    mixture = Mixture([40, 40], [40, 40], seed=0)
    first, second = mixture.step(0), mixture.step(1)
    orders = [tuple(d.row for d in part) for part in (first[:40], first[40:], second[:40], second[40:])]
    assert len(set(orders)) == 4
    assert Mixture([40], [40], 1).step(0) != Mixture([40], [40], 0).step(0)
    # Another data set leaves those before it as they were.
    assert Mixture([40, 7], [40, 2], 0).step(0)[:40] == first[:40]


def test_a_small_set_may_stand_several_times_in_a_step():
    assert Counter(draw.row for draw in Mixture([2], [6], 0).step(0)) == {0: 3, 1: 3}


def test_an_empty_set():
    with pytest.raises(ValueError, match="at least one row, got sizes"):
        Mixture([3, 0], [1, 1], 0)
