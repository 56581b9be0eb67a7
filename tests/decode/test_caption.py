"""Rows that a model answers, against `predict_many` on the same rows; what stays, what is left out, and calls that were stopped."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from monoglot.data.cluster import Workers
from monoglot.data.pack import pack
from monoglot.data.rows import read_rows
from monoglot.decode import caption, predict
from monoglot.decode.caption import CaptionBlock, Part, _is_answered, caption_file
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.nouns import Media, Prediction, Sample


@pytest.fixture(autouse=True)
def model(monkeypatch, model_folder, loaded) -> Path:
    monkeypatch.setattr(predict, "load_model", lambda folder: loaded)
    return model_folder


@pytest.fixture
def rows(coloured_rows) -> Path:
    """Twelve rows: names and questions with choices in turn; every third has its answer."""
    path = coloured_rows(6)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for number, line in enumerate(lines):
        if line.pop("box", None):
            line |= {"task": "vqa", "text": "which colour?", "target": "red", "choices": ["red", "green", "blue"]}
        if number % 3:
            line.pop("target")
    path.write_text("\n\n".join(map(json.dumps, lines)))
    return path


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("block_rows", [1, 5, 100])
def test_answers_are_those_of_predict_many(rows, model, loaded, tmp_path, block_rows):
    counts = caption_file(rows, tmp_path / "out.jsonl", model, block_rows=block_rows)
    assert counts == Counter(answered=8, kept=4)
    given, made = read_lines(rows), read(tmp_path / "out.jsonl")
    expected = list(Predictor(*loaded).predict_many(list(read_rows(rows)), batch_size=1))
    assert [row["id"] for row in made] == [row["id"] for row in given]
    for number, (before, after, answer) in enumerate(zip(given, made, expected)):
        assert after["image"] == before["image"]
        assert after["meta"] == "kept"
        if number % 3 == 0:
            assert after == before
        else:
            assert after.pop("confidence") == pytest.approx(answer.confidence, rel=1e-3)
            assert after == before | {"target": answer.text}
    assert list(read_rows(tmp_path / "out.jsonl"))
    assert sorted(path.name for path in tmp_path.glob("out*")) == ["out.jsonl"]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines() if line]


def test_another_task_is_asked_of_rows_without_answer_only(rows, model, tmp_path):
    caption_file(rows, tmp_path / "out.jsonl", model, task="caption", share=1.0)
    tasks = {row["id"]: row["task"] for row in read(tmp_path / "out.jsonl")}
    given = read_lines(rows)
    assert {tasks.pop(row["id"]) for row in given[::6]} == {"name"}
    assert {tasks.pop(row["id"]) for row in given[3::6]} == {"vqa"}
    assert set(tasks.values()) == {"caption"}


def test_boxes_are_answers_of_grounding_and_questions_of_others(rows, model, tmp_path):
    whole = Sample("1", "grounding", (Media("image", "a.png"),), "it", where="x:1")
    assert not _is_answered(whole)
    assert _is_answered(replace(whole, box=(0.0, 0.0, 1.0, 1.0)))
    assert not _is_answered(replace(whole, box=(0.0, 0.0, 1.0, 1.0), task="region_caption", text=""))
    assert not _is_answered(replace(whole, text=""))  # wrong, which its prediction will say
    part = Part()
    for box in ((0.1, 0.2, 0.3, 0.4), (0.1, 0.2, 0.1, 0.4)):
        part.add(whole, Prediction("1", "grounding", "", box, 0.5), 0.0, tmp_path)
    assert [row["box"] for row in part.rows] == [[0.1, 0.2, 0.3, 0.4]]
    assert part.failed[0].error.startswith("x:1: box: [0.1, 0.2, 0.1, 0.4] has x1 <= x0")


def test_unsure_answers_are_left_out_and_told(rows, model, tmp_path):
    caption_file(rows, tmp_path / "all.jsonl", model)
    sure = sorted(row["confidence"] for row in read(tmp_path / "all.jsonl") if "confidence" in row)
    least = (sure[3] + sure[4]) / 2
    counts = caption_file(rows, tmp_path / "out.jsonl", model, least_confidence=least)
    assert counts == Counter(answered=4, kept=4, unsure=4)
    kept = [row for row in read(tmp_path / "all.jsonl") if row.get("confidence", 1) >= least]
    assert read(tmp_path / "out.jsonl") == kept
    problems = read(tmp_path / "out.jsonl.problems.jsonl")
    assert len(problems) == 4
    assert {f"is below {least:g}" in problem["error"] for problem in problems} == {True}


def test_rows_that_fail_are_left_out_and_told(rows, model, tmp_path):
    lines = read_lines(rows)
    lines[1]["image"] = "absent.png"
    del lines[4]["image"]
    lines[4]["text"] = "no picture"
    rows.write_text("\n".join([*map(json.dumps, lines), "{"]))
    counts = caption_file(rows, tmp_path / "out.jsonl", model, block_rows=4)
    assert counts == Counter(answered=6, kept=4, failed=3)
    problems = read(tmp_path / "out.jsonl.problems.jsonl")
    assert [problem["row"].rsplit(":", 1)[1] for problem in problems] == ["2", "5", "13"]
    with pytest.raises(InputError, match=r"out2.jsonl.problems.jsonl: data: 1 of 13 rows cannot be answered"):
        caption_file(rows, tmp_path / "out2.jsonl", model, share=0)


def test_stopped_it_goes_on_and_ends_the_same(rows, model, tmp_path, monkeypatch):
    caption_file(rows, tmp_path / "whole.jsonl", model, block_rows=4)
    out, answers = tmp_path / "out.jsonl", CaptionBlock._answers
    asked = []

    def stops(self, block):
        asked.append(block.number)
        if block.number == 1 and len(asked) == 2:
            raise KeyboardInterrupt
        return answers(self, block)

    monkeypatch.setattr(CaptionBlock, "_answers", stops)
    with pytest.raises(KeyboardInterrupt):
        caption_file(rows, out, model, block_rows=4)
    assert not out.exists()
    with pytest.raises(InputError, match=r"origin.json: data: belongs to other rows or settings \(task differ\)"):
        caption_file(rows, out, model, task="caption", block_rows=4)
    caption_file(rows, out, model, block_rows=4)
    assert asked == [0, 1, 1, 2]
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    with pytest.raises(InputError, match="--out: exists already"):
        caption_file(rows, out, model)


def test_rows_of_a_pack(rows, model, tmp_path):
    pack(rows, tmp_path / "pack")
    caption_file(tmp_path / "pack", tmp_path / "out.jsonl", model)
    caption_file(rows, tmp_path / "plain.jsonl", model)
    made, plain = read(tmp_path / "out.jsonl"), read(tmp_path / "plain.jsonl")
    assert [row | {"image": ""} for row in made] == [row | {"image": ""} for row in plain]
    assert made[0]["image"].startswith("tar://pack/shard-000000.tar#000000000.png@")
    assert list(read_rows(tmp_path / "out.jsonl"))


def test_what_is_wrong_is_told_before_anything_is_asked(rows, model, tmp_path, monkeypatch):
    monkeypatch.setattr(caption, "load", None)
    out = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match="no task named 'captoin'; closest: 'caption'"):
        caption_file(rows, out, model, task="captoin")
    with pytest.raises(InputError, match="--model: is no model"):
        caption_file(rows, out, tmp_path / "nothing")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(InputError, match="has no rows"):
        caption_file(tmp_path / "empty.jsonl", out, model)
    assert not list(tmp_path.glob("out*"))


def test_command_line(rows, model, tmp_path, command):
    out = tmp_path / "out.jsonl"
    code, said, _ = command("data", "caption", rows, "--model", model, "--out", out, "--beam", 1)
    assert (code, said) == (0, f"{out}: 8 rows answered, 4 had an answer\n")
    code, _, err = command("data", "caption", rows, "--model", model, "--out", tmp_path / "b.jsonl", "--gpus", 1)
    assert (code, err[:40]) == (2, "command line: --gpus: needs --cluster; R")


@pytest.mark.slow
def test_two_processes_answer_the_same(rows, model, tmp_path):
    caption_file(rows, tmp_path / "alone.jsonl", model, block_rows=4)
    caption_file(rows, tmp_path / "two.jsonl", model, block_rows=4, threads=1, workers=Workers(2))
    alone, two = read(tmp_path / "alone.jsonl"), read(tmp_path / "two.jsonl")
    assert [row | {"confidence": 0} for row in two] == [row | {"confidence": 0} for row in alone]
