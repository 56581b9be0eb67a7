"""Boxes as words and back. The published quantisation is in tests/parity/test_words_and_places.py."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.nouns import Symbols
from monoglot.text.boxes import (
    box_to_text,
    objects_to_parts,
    read_objects,
    text_to_box,
    text_to_objects,
    write_objects,
)

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


# --- objects ----------------------------------------------------------------------------------------------------------

CUP, DOG = ("red cup", (0.1, 0.25, 0.4, 0.9)), ("dog", (0.0, 0.0, 1.0, 1.0))


def test_objects_there_and_back(tokenizer):
    assert read_objects("red cup 0.1 0.25 0.4 0.9; dog 0 0 1 1;") == [CUP, DOG]
    assert read_objects(write_objects([CUP, DOG])) == [CUP, DOG]
    parts = objects_to_parts([CUP, DOG])
    assert [isinstance(part, Symbols) for part in parts] == [True, False, True, False]
    written = tokenizer.decode([token for part in parts for token in tokenizer.encode(part)])
    for (label, box), (expected, place) in zip(text_to_objects(written), [CUP, DOG], strict=True):
        assert label == expected
        assert box == pytest.approx(place, abs=0.5 / 999)


@pytest.mark.parametrize(
    "wrong",
    ["cup", "cup 0 0 1", "0 0 1 1", "cup 0 0 1 x", "cup 0 0 10 10", "cup 0 0 nan 1", "cup 1 0 0 1", "dog 0 0 1 1; 1"],
)
def test_what_is_no_object(wrong):
    with pytest.raises(InputError, match=r"rows\.jsonl:3: target: .* is not an object"):
        read_objects(wrong, "rows.jsonl:3")


def test_objects_that_a_model_did_not_finish():
    assert text_to_objects("") == text_to_objects("<bin_1> <bin_2> cup") == text_to_objects("<bin_1> " * 4) == []
    assert text_to_objects("cup <bin_0> <bin_0> <bin_999> <bin_999> a; b <bin_3> <bin_4>") == [("a b", (0, 0, 1, 1))]


@given(st.text())
def test_any_text_has_objects_or_none(text):
    objects = text_to_objects(text)
    assert read_objects(write_objects(objects)) is not None
