"""Files of rows: whoever answers them, line for line what one process answers; killed and begun again; memory."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from monoglot.data import cluster
from monoglot.data.cluster import ALONE, Workers
from monoglot.data.rows import read_all, repeated_ids
from monoglot.decode import rows as rows_module
from monoglot.decode.rows import Ask, predict_file, predict_file_by
from monoglot.errors import InputError
from monoglot.tasks import TASKS

HAS_RAY = importlib.util.find_spec("ray") is not None


@pytest.fixture
def given(coloured_rows) -> Path:
    """Rows about pictures, some broken, two of one id far apart, blank lines between, a byte-order mark in front."""
    path = coloured_rows(4)
    lines = path.read_text().splitlines()
    again = json.dumps(json.loads(lines[0]) | {"text": "once more"})
    lines = ["", *lines[:3], '{"id": "broken', "", "[1]", *lines[3:], again, '{"id": "t", "task": "taks"}', "  "]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    return path


def read(path: Path) -> list[dict]:
    """Numbers differ a little with the rows that run together."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{key: row[key] for key in ("id", "task", "text", "error")} for row in rows]


@pytest.mark.parametrize("block_rows", [1, 3, 100])
def test_blocks_say_what_the_whole_says(given, model_folder, loaded, tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(rows_module, "BLOCK_ROWS", block_rows)
    ask = Ask(str(model_folder), search={"beam": 1, "max_length": 3}, batch_size=2)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    expected = predict_file(ask.load(), given, whole, batch_size=2)
    answered = predict_file_by(ALONE, ask, given, parts)
    assert read(parts) == read(whole)
    assert (answered.rows, answered.errors) == (expected.rows, expected.errors)
    assert expected.errors == 4
    assert "is also the id of line 2" in read(whole)[-2]["error"]
    lines = parts.read_bytes().splitlines(keepends=True)
    parts.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert predict_file_by(ALONE, ask, given, parts, resume=True).rows == len(lines) - 5
    assert read(parts) == read(whole)


def test_no_rows_and_no_rows_left(model_folder, tmp_path):
    data, out = tmp_path / "rows.jsonl", tmp_path / "p.jsonl"
    data.write_text("\n")
    assert str(predict_file_by(ALONE, Ask("no model is needed"), data, out)) == "0 rows"
    assert out.read_bytes() == b""
    with pytest.raises(InputError, match="exists already"):
        predict_file_by(ALONE, Ask("no model is needed"), data, out)


def test_a_model_that_is_missing_is_told(given, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        predict_file_by(ALONE, Ask(str(tmp_path / "none")), given, tmp_path / "p.jsonl")


def test_repeated_ids_are_those_that_reading_tells_of(given):
    told = [row.id for row in read_all(given, known_tasks=TASKS) if "is also the id" in str(getattr(row, "error", ""))]
    assert list(repeated_ids(given)) == told
    assert list(repeated_ids(given).values()) == [2]


@pytest.fixture
def workers(request) -> Iterator[Workers]:
    """Two processes, or two of a Ray that is started once for all calls of a test."""
    if request.param == "processes":
        yield Workers(2)
        return
    if not HAS_RAY:
        pytest.skip("needs the extra cluster")
    with cluster._ray(Workers(2, "local")):
        yield Workers(2, "auto")


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["processes", "ray"], indirect=True)
def test_several_workers(given, model_folder, tmp_path, workers):
    lines = given.read_text(encoding="utf-8-sig").splitlines()
    for copy in range(200):  # several blocks
        lines += [line.replace('{"id": "', f'{{"id": "{copy}-', 1) for line in lines[1:4]]
    given.write_text("\n".join(lines))
    ask = Ask(str(model_folder), search={"beam": 1, "max_length": 3}, threads=1)
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    predict_file(ask.load(), given, whole)
    predict_file_by(workers, ask, given, parts)
    assert read(parts) == read(whole)
    kept = parts.read_bytes().splitlines(keepends=True)
    parts.write_bytes(b"".join(kept[:300]) + b'{"id": "cut')
    predict_file_by(workers, ask, given, parts, resume=True)
    assert read(parts) == read(whole)
    with pytest.raises(InputError, match="no such folder"):
        predict_file_by(workers, Ask(str(tmp_path / "none")), given, tmp_path / "none.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_command_goes_on(given, model_folder, tmp_path, workers):
    """Killed whole, workers too, wherever it was: every row once, in order."""
    given.write_text(
        "".join(json.dumps({"id": f"r{n}", "task": "summarize", "text": f"text {n}"}) + "\n" for n in range(900))
    )
    out = tmp_path / "p.jsonl"
    arguments = [sys.executable, "-m", "monoglot", "predict", "--model", model_folder, "--data", given, "--out", out]
    arguments += ["--max-length", "2", "--workers", str(workers), "--resume"]
    for wanted in (1, 300, 600):
        process = subprocess.Popen(arguments, start_new_session=True, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < wanted):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(arguments, check=True, stderr=subprocess.DEVNULL)
    assert [row["id"] for row in read(out)] == [f"r{number}" for number in range(900)]
