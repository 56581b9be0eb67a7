"""Boxes as words and back. The published quantisation is in tests/parity/test_words_and_places.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.nouns import Symbols
from monoglot.text.boxes import box_to_text, text_to_box

fraction = st.floats(0, 1)


@given(st.tuples(fraction, fraction), st.tuples(fraction, fraction), st.integers(2, 2000))
def test_round_trip(xs, ys, num_bins):
    box = (min(xs), min(ys), max(xs), max(ys))
    text = box_to_text(box, num_bins=num_bins)
    assert isinstance(text, Symbols)
    back = text_to_box(text, num_bins=num_bins)
    assert all(abs(a - b) <= 0.5 / (num_bins - 1) + 1e-12 for a, b in zip(box, back))
    assert box_to_text(back, num_bins=num_bins) == text


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((10, 20, 30, 40), r"leaves \[0, 1\]; is it in pixels\?"),
        ((-0.1, 0, 1, 1), r"leaves \[0, 1\]"),
        ((float("nan"), 0, 1, 1), r"leaves \[0, 1\]"),
        ((0.5, 0, 0.4, 1), "turned around"),
        ((0, 0.5, 1, 0.4), "turned around"),
        ((0, 0.5, 1), "has 3 numbers"),
    ],
)
def test_what_is_not_a_box(box, message):
    with pytest.raises(InputError, match=message):
        box_to_text(box)


def test_reading_what_a_model_wrote():
    assert text_to_box("") is None
    assert text_to_box("<bin_1> <bin_2> <bin_3>") is None
    assert text_to_box("<bin_999> <bin_999> <bin_0> <bin_0>") == (0, 0, 1, 1)
    assert text_to_box("there: <bin_0><bin_0> and <bin_999> <bin_999> <bin_5>") == (0, 0, 1, 1)
    assert text_to_box("<bin_5000> <bin_0> <bin_0> <bin_0>") == (0, 0, 1, 0)


@given(st.text())
def test_any_text_has_a_box_or_none(text):
    box = text_to_box(text)
    assert box is None or len(box) == 4


def test_absurd_numbers_are_no_bins():
    assert text_to_box(f"<bin_{'9' * 5000}> " * 4) is None
