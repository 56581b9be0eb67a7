"""`agree` notes what it compares, and is not easily pleased."""

from __future__ import annotations

import numpy as np
import pytest
import record
import torch


@pytest.fixture(autouse=True)
def records(monkeypatch) -> record.Records:
    """Notes of this page are no notes on the model."""
    monkeypatch.setattr(record, "RECORDS", record.Records())
    return record.RECORDS


def test_the_largest_difference_is_noted(records):
    record.agree("set/case", "states", torch.tensor([[1.0, 2.5]]), np.array([[1.0, 2.0]]), 0.5)
    record.agree("set/case", "norms", [0.0, 101.0], [0.0, 100.0], 0.02, relative=True)
    record.agree("set/case", "ids", torch.tensor([3, 4]), [3, 4])
    record.agree("set/case", "words", ["a", "b"], ["a", "b"])
    record.agree("set/case", "nothing", [], [])
    record.agree("set/case", "a mark for nothing", [np.nan, -np.inf], [np.nan, -np.inf], 0.0)
    noted = [(one.what, one.values, one.difference, one.kind) for one in records.agreements]
    assert noted == [
        ("states", 2, 0.5, "absolute"),
        ("norms", 2, pytest.approx(0.01), "relative"),
        ("ids", 2, 0.0, "unequal"),
        ("words", 2, 0.0, "unequal"),
        ("nothing", 0, 0.0, "absolute"),
        ("a mark for nothing", 2, 0.0, "absolute"),
    ]
    assert all(one.test.endswith("test_the_largest_difference_is_noted") for one in records.agreements)


@pytest.mark.parametrize(
    ("ours", "theirs", "bound", "message"),
    [
        ([1.0, 2.0], [1.0, 2.1], 0.05, "absolute difference 0.1 exceeds 0.05"),
        ([1.0, np.nan], [1.0, 2.0], 0.05, "difference inf"),
        ([1.0, 2.0], [1.0, np.nan], 0.05, "difference inf"),
        ([np.inf], [-np.inf], 1.0, "difference inf"),
        ([1.0], [1.0, 1.0], 0.05, r"shapes \(1,\) and \(2,\)"),
        (1.0, [1.0], 0.05, r"shapes \(\) and \(1,\)"),
        ([1, 2, 4], [1, 3, 3], 0, "unequal difference 2 exceeds 0"),
        ([1.4], [1], 0, "unequal difference 1"),
        (["a"], ["b"], 0, "unequal difference 1"),
    ],
)
def test_what_does_not_agree_fails_and_is_noted(records, ours, theirs, bound, message):
    with pytest.raises(AssertionError, match=message):
        record.agree("set/case", "this", ours, theirs, bound)
    assert not records.agreements[0].holds
