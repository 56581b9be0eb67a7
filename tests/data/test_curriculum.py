"""When: what a stage repeats of earlier ones, and when it is over."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.data.curriculum import Ending, with_replay

names = st.sampled_from("abcdef")
quotas = st.dictionaries(names, st.floats(0.1, 20), min_size=1, max_size=4)


@given(own=quotas, earlier=st.lists(quotas, max_size=3), share=st.floats(0, 0.9))
def test_replay(own, earlier, share):
    """Steps stay as large; the share goes to what this stage has not, in the proportions of the last stage that had it."""
    result = with_replay(own, earlier, share)
    assert sum(result.values()) == pytest.approx(sum(own.values()))
    last = {}
    for stage in earlier:
        last |= {name: quota for name, quota in stage.items() if name not in own}
    if not last or not share:
        assert result == own
        return
    assert set(result) == {*own, *last}
    assert list(result)[: len(own)] == list(own), "a stage's own data sets stand first"
    assert sum(result[name] for name in last) == pytest.approx(share * sum(own.values()))
    assert all(result[name] == pytest.approx((1 - share) * own[name]) for name in own)
    one = next(iter(last))
    assert all(result[name] * last[one] == pytest.approx(result[one] * last[name]) for name in last)


def test_the_first_that_comes_true_ends_a_stage():
    assert [Ending(steps=3).over(steps, 10**9) for steps in (0, 2, 3, 4)] == [False, False, True, True]
    assert [Ending(tokens=100).over(10**9, tokens) for tokens in (0, 99, 100, 150)] == [False, False, True, True]
    both = Ending(steps=10, scores=("a",), patience=1)
    assert [both.over(10, 0), both.over(9, 0)] == [True, False]
    both.look({"a": 1.0})
    both.look({"a": 1.0})
    assert both.over(1, 0)


def test_plateau():
    ending = Ending(steps=99, scores=("a", "b"), patience=2, least=0.1)
    looks = [
        ({"a": 3.0, "b": 3.0, "c": 0.0}, False),
        ({"a": 2.95, "b": 3.0, "c": 9.0}, False),  # not low enough: the first without a lower one
        ({"a": 2.95, "b": 2.8, "c": 9.0}, False),  # one score is enough
        ({"a": 2.85, "b": 5.0, "c": 9.0}, False),  # lower than 3.0 by more than 0.1
        ({"a": 2.80, "b": 2.75, "c": 9.0}, False),
        ({"a": float("nan"), "b": 2.75, "c": 9.0}, True),
    ]
    assert [(looked, ending.look(looked)) for looked, _ in looks] == looks
    assert ending.best == {"a": 2.85, "b": 2.8}
    assert not Ending(steps=99).look({"a": 1.0}), "nothing is watched"


def test_it_goes_on_from_its_state():
    ending, again = (Ending(steps=99, scores=("a",), patience=2) for _ in range(2))
    ending.look({"a": 1.0})
    ending.look({"a": 1.0})
    again.load_state(json.loads(json.dumps(ending.state())))
    assert (again.best, again.waited) == (ending.best, ending.waited) == ({"a": 1.0}, 1)
    assert again.look({"a": 1.0})


def test_progress_goes_by_what_ends_the_stage():
    assert Ending(steps=10).progress(3, 70) == (3, 10)
    assert Ending(tokens=100).progress(3, 70) == (70, 100)
    assert Ending(tokens=100).progress(3, 700) == (99, 100), "the step that is too much has a rate, too"
