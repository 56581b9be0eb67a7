"""Which rows a limit leaves, and what a run of `evaluate` leaves behind with it."""

import json
from collections import Counter

import pytest

from monoglot.evaluate.report import evaluate_files, some_of
from monoglot.nouns import Prediction, Sample


def rows(count: int) -> list[Sample]:
    """Yes and no take turns, as in the packs."""
    return [Sample(str(number), "matching", targets=(("yes", "no")[number % 2],)) for number in range(count)]


@pytest.mark.parametrize(("count", "limit"), [(1600, 200), (500, 100), (400, 50)])
def test_a_limit_keeps_the_answers_in_balance(count, limit):
    """Every k-th row would have one answer only; a draw has as many of each as chance gives, within four deviations."""
    drawn = some_of(rows(count), limit)
    answers = Counter(sample.targets for sample in drawn)
    assert sum(answers.values()) == len({sample.id for sample in drawn}) == limit
    assert abs(answers[("yes",)] - limit / 2) < 4 * (limit / 4) ** 0.5
    assert [int(sample.id) for sample in drawn] == sorted(int(sample.id) for sample in drawn)


def test_a_limit_draws_the_same_rows_each_time_and_others_by_another_seed():
    assert some_of(rows(100), 10) == some_of(rows(100), 10) != some_of(rows(100), 10, seed=1)


@pytest.mark.parametrize("limit", [None, 3, 4])
def test_no_limit_and_a_large_one_leave_all(limit):
    assert some_of(rows(3), limit) == rows(3)


def test_evaluate_answers_the_drawn_rows(tmp_path, monkeypatch):
    class Yes:
        model = type("Model", (), {"config": type("Config", (), {"modalities": {}, "name": "yes"})})
        precision = ("float32", "as asked")
        search = type("Search", (), {"model_dump": staticmethod(lambda **_: {})})
        precision = ("float32", "as asked")

        def predict_many(self, samples, **_):
            return (Prediction(sample.id, sample.task, "yes") for sample in samples)

    monkeypatch.setattr("monoglot.evaluate.report.load", lambda model, **_: Yes())
    lines = [
        {"id": s.id, "task": "matching", "image": "a.png", "text": "a cat", "target": s.targets[0]} for s in rows(60)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    scores = evaluate_files("any", [tmp_path / "a.jsonl"], [], out=tmp_path / "scores.json", limit=20)["a"]
    answered = [json.loads(line)["id"] for line in (tmp_path / "a.predictions.jsonl").read_text().splitlines()]
    drawn = some_of(rows(60), 20)
    assert answered == [sample.id for sample in drawn]
    assert (scores[0].rows, scores[0].value) == (20, sum(s.targets == ("yes",) for s in drawn) / 20)
