"""`monoglot compare`: two files of predictions whose outcome is known, two models, and everything that may be given wrong."""

from __future__ import annotations

import json

import pytest

from monoglot.evaluate.compare import compare
from monoglot.evaluate.paired import mcnemar, swap_test


@pytest.fixture
def made(tmp_path):
    """rows.jsonl of 40 words to name, and predictions: A has the first 20 right, B all but the last 4 and the first."""
    words = [f"w{index}" for index in range(40)]
    rows = [{"id": w, "task": "name", "image": "none.png", "target": w} for w in words]
    write(tmp_path / "rows.jsonl", rows)
    predictions(tmp_path / "a.jsonl", {w: w if index < 20 else "no" for index, w in enumerate(words)})
    predictions(tmp_path / "b.jsonl", {w: w if 0 < index < 36 else "no" for index, w in enumerate(words)})
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def predictions(path, answers, task="name"):
    kept = {"box": None, "confidence": 0.5, "candidates": [], "seconds": 0.1, "error": None}
    return write(path, [{"id": name, "task": task, "text": text, **kept} for name, text in answers.items()])


def test_right_and_wrong_are_counted_and_tested(made, command):
    code, shown, _ = command(
        *("compare", made / "a.jsonl", made / "b.jsonl", "--data", made / "rows.jsonl"),
        *("--out", made / "compare.json", "--examples", 3),
    )
    assert code == 0
    result = json.loads((made / "compare.json").read_text())
    (one,) = result["comparisons"]
    assert (one["a"], one["b"], one["rows"], one["a_better"], one["b_better"]) == (0.5, 35 / 40, 40, 1, 16)
    assert one["difference"] == pytest.approx(0.375)
    assert one["p"] == one["p_holm"] == mcnemar(1, 16)
    assert 0.2 < one["low"] < 0.375 < one["high"] < 0.55
    assert one["verdict"] == "B is better (+37.5 points, p < 0.001)"
    assert "B is better (+37.5 points, p < 0.001)" in shown
    assert result["command"].startswith("monoglot compare ")
    assert "--examples 3" in result["command"]
    examples = [json.loads(line) for line in (made / "compare.examples.jsonl").read_text().splitlines()]
    assert [(row["id"], row["a"]["score"], row["b"]["text"]) for row in examples] == [
        ("w0", 1.0, "no"),
        ("w20", 0.0, "w20"),
        ("w21", 0.0, "w21"),
    ]


def test_the_other_way_round(made):
    (one,) = compare(str(made / "a.jsonl"), str(made / "b.jsonl"), [made / "rows.jsonl"])
    (back,) = compare(str(made / "b.jsonl"), str(made / "a.jsonl"), [made / "rows.jsonl"])
    assert back.difference == -one.difference
    assert (back.p, back.low, back.high) == (one.p, pytest.approx(-one.high), pytest.approx(-one.low))
    assert back.verdict == "A is better (-37.5 points, p < 0.001)"


def test_groups_are_swapped_whole(made):
    rows = [json.loads(line) | {"group": f"g{i // 20}"} for i, line in enumerate((made / "rows.jsonl").open())]
    (one,) = compare(str(made / "a.jsonl"), str(made / "b.jsonl"), [write(made / "grouped.jsonl", rows)])
    assert (one.groups, one.test, one.p) == (2, "swaps", 1.0)  # -1 and +16 rows: swapping either is further apart
    assert one.verdict.startswith("no difference shown (+37.5 points, p = 1.000; at least ")
    (alone,) = compare(str(made / "a.jsonl"), str(made / "b.jsonl"), [write(made / "one.jsonl", rows[:20])])
    assert alone.verdict == "no difference can be shown (-5.0 points; a single group)"
    assert alone.low is None


def test_lower_may_be_better_and_several_tests_are_corrected(tmp_path):
    said = [f"the {'big ' * (index % 3)}cat number {index} sat" for index in range(30)]
    rows = [{"id": str(i), "task": "transcribe", "audio": "none.wav", "target": text} for i, text in enumerate(said)]
    write(tmp_path / "rows.jsonl", rows)
    bad = {str(i): text.replace("cat", "hat") for i, text in enumerate(said)}
    good = bad | {str(i): said[i] for i in range(12)}
    a, b = predictions(tmp_path / "a.jsonl", bad, "transcribe"), predictions(tmp_path / "b.jsonl", good, "transcribe")
    wer, cer = compare(str(a), str(b), [tmp_path / "rows.jsonl"])
    assert (wer.metric, cer.metric) == ("wer", "cer")
    assert wer.difference < 0
    assert (wer.a_better, wer.b_better) == (0, 12)
    assert wer.test == "swaps"
    assert not wer.right_or_wrong
    assert wer.p == pytest.approx(2 / 2**12, rel=0.5)
    assert wer.p_holm == pytest.approx(2 * min(wer.p, cer.p))
    assert wer.verdict.startswith("B is better (-")
    assert "points, lower is better, p < 0.001" in wer.verdict


def test_no_difference_says_how_many_rows_would_show_one(made):
    predictions(made / "c.jsonl", {f"w{i}": f"w{i}" if i < 19 or i in (30, 31) else "no" for i in range(40)})
    (one,) = compare(str(made / "a.jsonl"), str(made / "c.jsonl"), [made / "rows.jsonl"])
    assert one.p == mcnemar(1, 2) == 1.0
    variance = (3 / 40 - (1 / 40) ** 2) * 40 / 39
    assert one.rows_needed == pytest.approx(7.849 * variance / 0.02**2, rel=1e-3)
    assert (
        one.verdict
        == f"no difference shown (+2.5 points, p = 1.000; at least {one.rows_needed:,} rows would be needed to show 2 points)"
    )


def test_two_models_on_the_same_rows(coloured_rows, command, model_folder, tmp_path):
    rows, out = coloured_rows(4), tmp_path / "compare.json"
    assert command("predict", "--model", model_folder, "--data", rows, "--out", tmp_path / "a.jsonl")[0] == 0
    code, shown, errors = command("compare", tmp_path / "a.jsonl", model_folder, "--data", rows, "--out", out)
    assert code == 0, errors
    found = json.loads(out.read_text())
    assert [one["metric"] for one in found["comparisons"]] == ["exact_match", "iou_at_0.5", "iou"]
    assert all(one["difference"] == 0 and one["p"] == 1 for one in found["comparisons"])
    assert "no difference shown (every row scores the same under A and B)" in shown
    assert found["notes"] == []
    code, shown, _ = command("compare", model_folder, model_folder, "--data", rows)
    assert code == 0
    assert "note: A and B are the same" in shown


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: (d / "b.jsonl").unlink(), "b.jsonl: no such file; give a model, or a file that"),
        (lambda d: predictions(d / "b.jsonl", {"x1": "no"}), "b.jsonl: id: no row in common with "),
        (lambda d: predictions(d / "b.jsonl", {"w3": "no"}), "39 of 40 rows of "),
        (lambda d: predictions(d / "b.jsonl", {f"w{i}": "" for i in range(40)}, "vqa"), "is of task 'vqa'"),
        (lambda d: (d / "b.jsonl").write_text('{"id": "w1"}\n'), "b.jsonl:1: is not a prediction"),
        (lambda d: (d / "b.jsonl").write_text("[1]\n"), "b.jsonl:1: is not a prediction"),
        (
            lambda d: (d / "b.jsonl").write_text((d / "a.jsonl").read_text() * 2),
            "b.jsonl:41: id: 'w0' is answered twice",
        ),
        (lambda d: (d / "rows.jsonl").write_text(""), "rows.jsonl: has no rows"),
        (lambda d: write(d / "rows.jsonl", [{"task": "name", "image": "a.png"}]), "target: is missing"),
    ],
)
def test_what_does_not_fit_is_told(made, command, change, told):
    change(made)
    code, _, error = command("compare", made / "a.jsonl", made / "b.jsonl", "--data", made / "rows.jsonl")
    assert code == 2
    assert told in error
    assert error.count("\n") == 1


def test_what_does_not_go_together_is_told(made, command):
    rows = made / "rows.jsonl"
    (made / "again.jsonl").write_text(rows.read_text())
    pair = ("compare", made / "a.jsonl", made / "b.jsonl", "--data", rows)
    assert "'w0' stands in two of the files" in command(*pair, "--data", made / "again.jsonl")[2]
    assert "--examples: needs --out" in command(*pair, "--examples", 2)[2]
    assert "no such folder" in command("compare", made / "a.jsonl", made / "nowhere", "--data", rows)[2]


def test_a_task_without_a_metric_is_told(made, monkeypatch):
    from dataclasses import replace

    from monoglot.tasks import TASKS

    monkeypatch.setitem(TASKS._entries, "name", replace(TASKS["name"], metrics=()))
    with pytest.raises(ValueError, match=r"rows\.jsonl:1: task: 'name' has no metric"):
        compare(str(made / "a.jsonl"), str(made / "b.jsonl"), [made / "rows.jsonl"])


def test_a_seed_that_is_drawn_is_the_same_each_time(made):
    from monoglot.evaluate.intervals import averaged, ratio

    a, b = averaged([0.1 * i for i in range(30)]), averaged([0.1 * i + (i % 3 - 1) * 0.2 + 0.05 for i in range(30)])
    assert swap_test(a, b, ratio, seed=1) == swap_test(a, b, ratio, seed=1) != swap_test(a, b, ratio, seed=2)
