"""exact_match, accuracy, vqa_accuracy, iou, iou_at_0.5, and what every metric promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.metrics.match import vqa_normalised

FRACTION = st.floats(0, 1, width=16)
BOX = st.tuples(FRACTION, FRACTION, FRACTION, FRACTION).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)


def test_exact_match_takes_any_reference():
    scores = METRICS["exact_match"].score(
        [" The  red CUP. ", "blue", "", "猫。", None], [["cup", "the red cup"], ["red"], ["no"], ["猫"], ["x"]]
    )
    assert scores.per_item.tolist() == [1, 0, 0, 1, 0]
    assert scores.value == 0.4
    assert METRICS["exact_match"].score(["", "?"], ["?", "?"]).per_item.tolist() == [0, 1]
    assert METRICS["vqa_accuracy"].score(["", "a"], ["A", "A"]).per_item.tolist() == [0, 1]
    assert METRICS["accuracy"].score(["Refund", "other"], ["refund", "delivery"]).value == 0.5


@pytest.mark.parametrize(
    ("answer", "normal"),
    [
        ("The Dogs!", "dogs"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("dont", "don't"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("she's", "she's"),
        ("shes", "shes"),
        ("well", "well"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("1,000 people", "1000 people"),
        ("1,000-5", "10005"),
        ("3.5 kg.", "3.5 kg"),
        ("u.s.", "us"),
        ("  a\tman\nand the dog ", "man and dog"),
        ("", ""),
        ("日本", "日本"),
        ("A.", "a"),
    ],
)
def test_vqa_normalisation(answer, normal):
    assert vqa_normalised(answer) == normal


@pytest.mark.parametrize("matches", range(11))
def test_vqa_accuracy_is_the_mean_over_nine_of_ten(matches):
    people = ["Yes."] * matches + ["no"] * (10 - matches)
    leave_one_out = [people[:i] + people[i + 1 :] for i in range(10)]
    expected = np.mean([min(1, sum(answer == "Yes." for answer in nine) / 3) for nine in leave_one_out])
    assert METRICS["vqa_accuracy"].score(["yes"], [people]).value == pytest.approx(expected)


def test_vqa_accuracy_of_few_references_is_any():
    scores = METRICS["vqa_accuracy"].score(["two", "a cat", "red"], [["2", "3"], ["cat"], ["blue"] * 9])
    assert scores.per_item.tolist() == [1, 1, 0]


@settings(deadline=None)
@given(BOX, BOX)
def test_iou_is_the_count_of_cells(first, second):
    grid = 12
    a, b = (np.round(np.array(box) * grid).astype(int) for box in (first, second))
    cells = np.zeros((2, grid, grid), bool)
    for layer, (x0, y0, x1, y1) in zip(cells, (a, b)):
        layer[y0:y1, x0:x1] = True
    union = (cells[0] | cells[1]).sum()
    expected = (cells[0] & cells[1]).sum() / union if union else 0.0
    assert METRICS["iou"].score([tuple(a)], [tuple(b)]).value == pytest.approx(expected)


def test_no_box_scores_nothing_and_half_counts():
    scores = METRICS["iou_at_0.5"].score([None, (0.0, 0.0, 0.5, 1.0)], [(0.0, 0.0, 1.0, 1.0), np.array([0.0, 0, 1, 1])])
    assert scores.per_item.tolist() == [0, 1]


def test_boxes_without_an_area_score_nothing():
    turned, line = (0.9, 0.9, 0.1, 0.1), (0.2, 0.2, 0.2, 0.8)
    whole = (0.0, 0.0, 1.0, 1.0)
    scores = METRICS["iou"].score([turned, whole, line, (float("nan"),) * 4], [whole, turned, line, whole])
    assert scores.per_item.tolist() == [0, 0, 0, 0]


def test_wrong_input_is_told():
    with pytest.raises(InputError, match="exact_match: nothing to score"):
        METRICS["exact_match"].score([], [])
    with pytest.raises(InputError, match="2 predictions, 1 references, 2 languages"):
        METRICS["wer"].score(["a", "b"], ["a"])
    with pytest.raises(InputError, match="item 1 has no reference"):
        METRICS["cider_d"].score(["a", "b"], ["a", []])
    with pytest.raises(InputError, match="item 0 has no reference"):
        METRICS["iou"].score([(0, 0, 1, 1)], [None])
    with pytest.raises(InputError, match="prediction 0 has 3 numbers"):
        METRICS["iou"].score([(0, 0, 1)], [(0, 0, 1, 1)])
    with pytest.raises(InputError, match="no metric named 'cider-d'; closest: 'cider_d'"):
        METRICS["cider-d"]


SLOW = {"meteor": pytest.mark.slow}  # reads a long list


@pytest.mark.parametrize("name", [pytest.param(name, marks=SLOW.get(name, ())) for name in sorted(METRICS)])
def test_every_metric_keeps_its_promises(name):
    metric = METRICS[name]
    assert metric.name == name
    if metric.reads == "box":
        good = [(0.0, 0.0, 0.5, 0.5), (0.2, 0.2, 0.9, 0.9)]
        bad, references = [None, (0.0, 0.0, 0.1, 0.1)], good
    else:
        good, bad = ["a red bus parks here", "two dogs run in grass"], ["", "nothing like that at all"]
        if name == "objects_f1":
            good = ["a bus 0 0 1 1", "two dogs 0.5 0.5 1 1"]
        references = [[text] for text in good]
    best, worst = metric.score(good, references), metric.score(bad, references)
    assert best.terms.dtype == np.float64
    assert best.per_item.shape == (2,)
    assert np.isfinite(best.terms).all()
    assert np.isfinite(worst.per_item).all()
    assert (best.value > worst.value) == metric.higher_is_better
    low, high = metric.score(good + bad, references * 2).interval(seed=1)
    assert low <= metric.score(good + bad, references * 2).value <= high
