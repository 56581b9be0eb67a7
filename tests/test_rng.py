"""Named streams of one seed."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from monoglot.rng import stream

names = st.lists(st.one_of(st.integers(), st.text(max_size=5)), max_size=3)


@given(seed=st.integers(), names=names)
def test_the_same_names_give_the_same_numbers(seed, names):
    assert stream(seed, *names).random(4).tolist() == stream(seed, *names).random(4).tolist()


def test_the_numbers_are_the_same_on_every_machine():
    assert stream(0, "mixture", 17).integers(1000, size=5).tolist() == [619, 60, 350, 158, 513]


def test_another_name_or_seed_gives_others():
    keys = [(0,), (1,), (0, "a"), (0, "b"), (0, "a", 1), (0, "a", 2), (1, "a")]
    draws = [tuple(stream(*key).integers(1 << 60, size=3)) for key in keys]
    assert all(one != other for one, other in itertools.combinations(draws, 2))


def test_drawing_from_one_moves_no_other():
    first, second = stream(0, "a"), stream(0, "b")
    first.random(100)
    assert second.random() == stream(0, "b").random()
