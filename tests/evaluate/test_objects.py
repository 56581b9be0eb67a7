"""What was found in pictures: labels and places, each counted once."""

from __future__ import annotations

import pytest

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS

F1 = METRICS["objects_f1"]
CUP, DOG = "cup 0 0 0.5 0.5", "dog 0.5 0.5 1 1"


@pytest.mark.parametrize(
    ("said", "expected", "value"),
    [
        (f"{CUP}; {DOG}", f"{DOG}; {CUP}", 1),
        (CUP, f"{CUP}; {DOG}", 2 / 3),  # precision 1, recall 1/2
        (f"{CUP}; {CUP}", CUP, 2 / 3),  # one cup is found once
        ("Cup 0 0 0.5 0.4", CUP, 1),
        ("cup 0 0 0.5 0.2", CUP, 0),  # IoU 0.4
        ("dog 0 0 0.5 0.5", CUP, 0),
        ("cup 0 0 1 1; cup 0 0 0.5 0.5", f"{CUP}; cup 0 0 1 1", 1),
        ("", CUP, 0),
        ("not objects", CUP, 0),
    ],
)
def test_one_picture(said, expected, value):
    assert F1.score([said], [[expected]]).value == pytest.approx(value)


def test_a_set_is_counted_together():
    scores = F1.score([CUP, ""], [[CUP], [f"{DOG}; {CUP}; {DOG}"]])
    assert scores.value == pytest.approx(2 * 1 / (1 + 4))
    assert scores.per_item.tolist() == [1, 0]


def test_a_wrong_reference_is_told():
    with pytest.raises(InputError, match="'a cup' is not an object"):
        F1.score([CUP], [["a cup"]])
