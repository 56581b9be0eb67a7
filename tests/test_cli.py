"""The command line as a user meets it: what is printed, where, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small import square
from vqgan_layout import F8, checkpoint

from monoglot import cli
from monoglot.decode import predict as predictor_module
from monoglot.nouns import Prediction
from monoglot.tasks import TASKS

TASK_NAMES = ", ".join(sorted(TASKS))


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "cup.png"
    Image.fromarray(square((220, 20, 20))).save(path)
    return path


@pytest.fixture
def write_rows(tmp_path, picture):
    """Write rows (objects, or lines as they are); returns the file."""

    def write(*rows: dict | str, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
        return path

    return write


def question(number: int, **changes) -> dict:
    row = {"id": f"q{number}", "task": "vqa", "image": "cup.png", "text": f"what is {number}?", "target": "red"}
    return {key: value for key, value in (row | changes).items() if value is not None}


def predictions(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ---------------------------------------------------------------------------------------------------------------- help


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Usage: monoglot [OPTIONS] COMMAND"),
        (["--help"], "Usage: monoglot [OPTIONS] COMMAND"),
        (["data"], "Usage: monoglot data [OPTIONS] COMMAND"),
        (["data", "--help"], "Usage: monoglot data [OPTIONS] COMMAND"),
        (["predict", "--help"], "Usage: monoglot predict [OPTIONS]"),
        (["train", "--help"], "Usage: monoglot train [OPTIONS]"),
        (["adapt", "--help"], "Usage: monoglot adapt [OPTIONS]"),
    ],
)
def test_help(command, arguments, says):
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(says)


def in_a_process(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options)


@pytest.mark.parametrize(
    "arguments", [[], ["--help"], ["data", "--help"], ["predict", "--help"], ["adapt", "--help"], ["predict"]]
)
def test_torch_is_not_imported_before_it_is_needed(arguments):
    script = (
        "import sys\nfrom monoglot.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit: pass\n"
        "heavy = [name for name in ('torch', 'numpy.random', 'av', 'PIL', 'tokenizers') if name in sys.modules]\n"
        "print('heavy:', heavy)"
    )
    done = in_a_process("-c", script, *arguments)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_a_wrong_question_is_told_without_torch(tmp_path):
    script = (
        "import sys\nfrom monoglot.cli import main\ntry: main(sys.argv[1:])\nexcept SystemExit as stop: print(stop)\n"
        "print('torch' in sys.modules)"
    )
    done = in_a_process("-c", script, "predict", "--task", "vqa", "--image", tmp_path / "no.png", "--text", "what?")
    assert done.stdout.split() == ["2", "False"]
    assert done.stderr == f"{tmp_path / 'no.png'}: image: no such file; correct the path\n"


def test_as_a_module_with_a_reader_that_leaves():
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "monoglot", "--help"], stdout=write, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (0, b"")


# --------------------------------------------------------------------------------------------------- wrong command lines

WRONG = {
    "no task": (["predict", "--text", "a"], f"command line: --task: is missing; one of: {', '.join(TASKS)}"),
    "a misspelt task": (
        ["predict", "--task", "captoin", "--text", "a"],
        f"command line: task: no task named 'captoin'; closest: 'caption', 'region_caption', 'matching'; known: {TASK_NAMES}",
    ),
    "nothing to read": (
        ["predict", "--task", "caption"],
        "command line: text: nothing to read; give at least one of text, image, video, audio",
    ),
    "a URL": (
        ["predict", "--task", "name", "--image", "https://example.org/a.png"],
        "command line: image: 'https://example.org/a.png' cannot be read;"
        " expected a local file or tar://shard.tar#member",
    ),
    "an empty path": (
        ["predict", "--task", "name", "--image", ""],
        "command line: image: is an empty string; expected a path or a list of paths",
    ),
    "one choice": (
        ["predict", "--task", "classify", "--text", "a", "--choices", "yes"],
        "command line: choices: has 1 item; expected a list of at least two different strings",
    ),
    "no choice": (
        ["predict", "--task", "classify", "--text", "a", "--choices", " , "],
        "command line: choices: has 0 items; expected a list of at least two different strings",
    ),
    "the same choice twice": (
        ["predict", "--task", "classify", "--text", "a", "--choices", "yes,no,yes"],
        "command line: choices: 'yes' stands there twice; expected a list of at least two different strings",
    ),
    "choices that are needed": (
        ["predict", "--task", "classify", "--text", "a"],
        'command line: choices: task \'classify\' needs the possible answers; for example ["yes", "no"]',
    ),
    "an empty text": (
        ["predict", "--task", "summarize", "--text", " \n "],
        "command line: text: task 'summarize' needs the text to summarise; it is empty",
    ),
    "text that is not UTF-8": (
        ["predict", "--task", "summarize", "--text", "caf\udce9"],
        "command line: --text: is not UTF-8; write it in UTF-8",
    ),
    "a box of three numbers": (
        ["predict", "--task", "region_caption", "--image", "a.png", "--box", "0.1,0.2,0.3"],
        "command line: --box: '0.1,0.2,0.3' is not four numbers;"
        " give x0,y0,x1,y1 as fractions, for example 0.1,0.2,0.5,0.8",
    ),
    "a box in pixels": (
        ["predict", "--task", "region_caption", "--image", "a.png", "--box", "10,20,30,40"],
        "command line: box: [10.0, 20.0, 30.0, 40.0] lies outside [0, 1]; pixel boxes are the usual cause:"
        ' give fractions, or add "box_unit": "pixel"',
    ),
    "a box turned around": (
        ["predict", "--task", "region_caption", "--image", "a.png", "--box", "0.5,0.2,0.3,0.4"],
        "command line: box: [0.5, 0.2, 0.3, 0.4] has x1 <= x0; expected the corners x0 y0 x1 y1, not x y width height",
    ),
    "a box that is no number": (
        ["predict", "--task", "region_caption", "--image", "a.png", "--box", "nan,0,1,1"],
        "command line: box: is a list: [NaN, 0.0, 1.0, 1.0]; expected four numbers x0 y0 x1 y1",
    ),
    "a question beside a file": (
        ["predict", "--data", "rows.jsonl", "--out", "p.jsonl", "--task", "vqa"],
        "command line: --task: does not go with --data; each row of the file says it itself",
    ),
    "a file for one answer": (
        ["predict", "--task", "summarize", "--text", "a", "--out", "p.jsonl"],
        "command line: --out: needs --data; one answer is printed",
    ),
    "rows that are not there": (
        ["predict", "--data", "no.jsonl", "--out", "p.jsonl"],
        "no.jsonl: no such file; expected a JSONL file of rows",
    ),
    "rows without a place to go": (
        ["predict", "--data", "rows.jsonl"],
        "command line: --out: is missing; say where the predictions of --data go",
    ),
    "no such pack": (
        ["data", "build", "emojis"],
        "no pack named 'emojis'; closest: 'emoji'; known: clips, docstrings, emoji, gcompris, lineart, packages, photos,"
        " prompts, readings, sensor, solar, sounds, speakers, spoken, sprites, stamps",
    ),
    "no file to validate": (
        ["data", "validate", "no.jsonl"],
        "no.jsonl: no such file; expected a JSONL file of rows",
    ),
    "baselines for other files": (
        ["evaluate", "--data", "a.jsonl", "--train", "b.jsonl", "--train", "c.jsonl"],
        "command line: --train: 2 given for 1 --data; give one for each",
    ),
    "no such recipe": (
        ["train", "no.yaml"],
        "no.yaml: recipe: cannot be read (No such file or directory);"
        " give a YAML file, for example recipes/nano_quick.yaml",
    ),
}


@pytest.mark.parametrize(
    ("arguments", "verb", "words"),
    [
        (["predictt"], "monoglot", ["No such command", "'predictt'"]),
        (["data", "check"], "monoglot data", ["No such command", "'check'"]),
        (["predict", "--imge", "a.png"], "monoglot predict", ["--imge", "--image"]),
        (["predict", "--batch", "many"], "monoglot predict", ["'--batch'"]),
        (["predict", "--threads", "0"], "monoglot predict", ["'--threads'"]),
        (["predict", "a.png"], "monoglot predict", ["a.png"]),
        (["predict", "--task"], "monoglot", ["'--task'"]),
        (["evaluate"], "monoglot evaluate", ["'--data'"]),
        (["train"], "monoglot train", ["recipe"]),
    ],
)
def test_wrong_options(command, arguments, verb, words):
    """How typer words it differs between its versions."""
    code, out, err = command(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"{verb}: ")
    assert err.endswith(f" (`{verb} --help` lists what there is)\n")
    assert all(word.lower() in err.lower() for word in words)


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_in_one_line(command, case, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, line = WRONG[case]
    assert command(*arguments) == (2, "", f"{line}\n")


@pytest.mark.parametrize(
    "arguments", [["--debug", "predict", "--task", "captoin"], ["predict", "--task", "captoin", "--debug"]]
)
def test_debug_shows_where_and_keeps_the_code(command, arguments):
    code, _, err = command(*arguments, "--text", "a")
    assert code == 2
    assert err.startswith("Traceback (most recent call last):")
    assert err.splitlines()[-1].startswith("command line: task: no task named 'captoin'")


def test_our_own_failure_is_code_1(command, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(predictor_module, "load", fail)
    arguments = ["predict", "--task", "summarize", "--text", "a"]
    assert command(*arguments) == (1, "", "monoglot failed: RuntimeError: two lines (--debug shows where)\n")
    code, _, err = command("--debug", *arguments)
    assert code == 1
    assert "in fail" in err


# ------------------------------------------------------------------------------------------------------------ one answer


def test_json_holds_the_keys_of_the_contract(command, model_folder, picture):
    code, out, err = command(
        *("predict", "--model", model_folder, "--task", "classify", "--image", picture, "--text", "what colour?"),
        *("--choices", "red, blue", "--json"),
    )
    assert (code, err) == (0, "")
    answer = json.loads(out)
    assert list(answer) == ["id", "task", "text", "box", "confidence", "candidates", "seconds", "error"]
    assert list(answer) == [field.name for field in fields(Prediction)]
    assert answer["text"] in ("red", "blue")
    assert answer["task"] == "classify"
    assert (answer["box"], answer["error"]) == (None, None)
    assert sum(candidate["probability"] for candidate in answer["candidates"]) == pytest.approx(1, abs=1e-4)
    assert answer["candidates"][0] == {"text": answer["text"], "probability": answer["confidence"]}
    assert answer["seconds"] > 0


def test_grounding_prints_four_numbers(command, model_folder, picture):
    arguments = ["predict", "--model", model_folder, "--task", "grounding", "--image", picture, "--text", "the cup"]
    code, out, err = command(*arguments)
    assert (code, err) == (0, "")
    x0, y0, x1, y1 = map(float, out.split())
    assert 0 <= x0 <= x1 <= 1
    assert 0 <= y0 <= y1 <= 1
    assert json.loads(command(*arguments, "--json")[1])["box"] == pytest.approx([x0, y0, x1, y1], abs=6e-4)


def test_japanese_goes_through(command, model_folder, picture):
    arguments = ["predict", "--model", model_folder, "--task", "classify", "--image", picture]
    code, out, _ = command(*arguments, "--text", "何色ですか", "--choices", "赤,青")
    assert code == 0
    assert out.strip() in ("赤", "青")


def test_a_choice_longer_than_the_model_can_write(command, model_folder, picture):
    arguments = ["predict", "--model", model_folder, "--task", "classify", "--image", picture]
    line = "task classify: choices: 'zzzzzzzzzzzzzzzzzzzz'... is longer than 63 tokens; shorten it\n"
    assert command(*arguments, "--choices", "a," + "z" * 100) == (2, "", line)


# ----------------------------------------------------------------------------------------------------------- model folders


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _replace(old: str, new: str):
    return lambda path: path.write_text(path.read_text().replace(old, new))


FOLDERS = {
    "incomplete": (
        "tokenizer.json",
        Path.unlink,
        "{folder}: model: incomplete: tokenizer.json missing;"
        " a model folder holds config.json, model.safetensors, tokenizer.json",
    ),
    "another version": (
        "config.json",
        _replace('"format": 1', '"format": 99'),
        "{file}: format: version 99 is not known here; this monoglot reads version 1",
    ),
    "no JSON": (
        "config.json",
        lambda path: path.write_text("{{{"),
        "{file}: cannot be read as JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1));"
        " expected the settings of a model",
    ),
    "another JSON": (
        "config.json",
        lambda path: path.write_text("[1, 2]"),
        "{file}: format: version None is not known here; this monoglot reads version 1",
    ),
    "unknown settings": (
        "config.json",
        _replace('"width"', '"wdth"'),
        "{file}: model.wdth: Extra inputs are not permitted",
    ),
    "settings of another model": (
        "config.json",
        _replace('"ffn": 64', '"ffn": 128'),
        None,
    ),
    "truncated weights": ("model.safetensors", _cut, None),
    "empty weights": ("model.safetensors", lambda path: path.write_bytes(b""), None),
    "truncated tokenizer": ("tokenizer.json", _cut, None),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_damaged_model_folders(command, model_folder, tmp_path, case):
    name, damage, expected = FOLDERS[case]
    folder = tmp_path / "model"
    shutil.copytree(model_folder, folder)
    damage(folder / name)
    code, out, err = command("predict", "--model", folder, "--task", "summarize", "--text", "a")
    assert (code, out, err.count("\n")) == (2, "", 1)
    if expected:
        assert err == expected.format(folder=folder, file=folder / name) + "\n"
    else:
        assert err.startswith(
            f"{folder / name if case != 'settings of another model' else folder / 'model.safetensors'}: "
        )


def test_no_model_folder(command, tmp_path):
    folder = tmp_path / "none"
    line = f"{folder}: model: no such folder; give a model folder or the name of a bundled model\n"
    assert command("predict", "--model", folder, "--task", "summarize", "--text", "a") == (2, "", line)


# ------------------------------------------------------------------------------------------------------------ many answers


def test_every_row_gets_one_prediction_in_its_order(command, model_folder, write_rows, tmp_path):
    data = write_rows(
        question(0),
        '{"id": "cut", "task": ',
        question(1, box=[5, 5, 6, 6]),
        question(2, task="vqaa"),
        question(3, image="none.png"),
        question(4, text=None),
        "",
        '["no", "row"]',
        question(5, traget="red"),
        question(0, text="again?"),
        {"task": "summarize", "text": "a b"},
        {"id": ["x"], "task": 7, "text": 1},
        question(6, choices=["red", "blue"]),
    )
    out = tmp_path / "new" / "p.jsonl"
    code, printed, err = command("predict", "--model", model_folder, "--data", data, "--out", out, "--batch", 2)
    assert (code, printed) == (0, "")
    assert untimed(err) == f"{out}: 12 rows in T; 9 could not be answered, their 'error' says why\n"
    found = predictions(out)
    assert [row["id"] for row in found] == ["q0", "2", "q1", "q2", "q3", "q4", "8", "q5", "q0", "11", "12", "q6"]
    assert [row["task"] for row in found[:4]] == ["vqa", "", "vqa", "vqaa"]
    assert all(list(row) == [field.name for field in fields(Prediction)] for row in found)
    assert {row["id"]: row["error"] for row in found if row["error"]} == {
        "2": f"{data}:2: broken JSON at character 22: Expecting value; expected one JSON object a line",
        "q1": f"{data}:3: box: [5, 5, 6, 6] lies outside [0, 1]; pixel boxes are the usual cause: give fractions,"
        ' or add "box_unit": "pixel"',
        "q2": f"{data}:4: task: no task named 'vqaa'; closest: 'vqa'; known: {TASK_NAMES}",
        "q3": f"{tmp_path / 'none.png'}: image: no such file; check the path (a row's paths are relative to the row's file)",
        "q4": f"{data}:6: text: task 'vqa' needs a question; it is empty",
        "8": f'{data}:8: is a list: ["no", "row"]; expected one JSON object a line',
        "q5": f"{data}:9: traget: unknown key; did you mean 'target'?",
        "q0": f"{data}:10: id: 'q0' is also the id of line 1; expected unique ids",
        "12": f'{data}:12: id: is a list: ["x"]; expected a string that is not empty, or a whole number',
    }
    assert [row["id"] for row in found if not row["error"]] == ["q0", "11", "q6"]
    assert all(row["text"] == "" and row["confidence"] == 0 for row in found if row["error"])


def untimed(line: str) -> str:
    return re.sub(r"[\d.,]+ s, [\d.,]+ rows/s", "T", line)


def test_one_bad_row_is_counted_as_one(command, model_folder, write_rows, tmp_path):
    data, out = write_rows(question(0), question(1, image="none.png")), tmp_path / "p.jsonl"
    code, _, err = command("predict", "--model", model_folder, "--data", data, "--out", out)
    assert (code, untimed(err)) == (0, f"{out}: 2 rows in T; 1 could not be answered, its 'error' says why\n")


def test_no_rows_no_predictions(command, model_folder, write_rows, tmp_path):
    out = tmp_path / "p.jsonl"
    assert command("predict", "--model", model_folder, "--data", write_rows(), "--out", out) == (
        0,
        "",
        f"{out}: 0 rows\n",
    )
    assert out.read_text() == ""


def test_what_is_there_is_not_written_over(command, write_rows, tmp_path):
    data, out = write_rows(question(0)), tmp_path / "p.jsonl"
    out.write_text("kept")
    line = f"{out}: --out: exists already; give another file, or --resume to go on\n"
    assert command("predict", "--data", data, "--out", out) == (2, "", line)
    assert out.read_text() == "kept"


@pytest.mark.parametrize(
    "cut", [b'{"id": "q3", "task": "vqa", "te', b'{"i', b"", b'{"id": "q3", "task": "vqa", "confidence": 0.0}']
)
def test_resume_leaves_each_row_once_and_in_order(command, model_folder, write_rows, tmp_path, cut):
    rows = [question(number) for number in range(5)]
    rows.insert(2, question(0, text="one more of this id"))
    data, whole, out = write_rows(*rows), tmp_path / "whole.jsonl", tmp_path / "p.jsonl"
    arguments = ["predict", "--model", model_folder, "--data", data]
    assert command(*arguments, "--out", whole)[0] == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    out.write_bytes(b"".join(lines[:2]) + cut)
    assert command(*arguments, "--out", out, "--resume")[0] == 0

    def answers(path: Path) -> list[tuple]:  # numbers differ a little with the rows that run together
        return [(row["id"], row["text"], row["error"]) for row in predictions(path)]

    assert answers(out) == answers(whole)
    assert [row["id"] for row in predictions(out)] == ["q0", "q1", "q0", "q2", "q3", "q4"]
    done = out.read_bytes()
    assert command(*arguments, "--out", out, "--resume") == (0, "", f"{out}: 0 rows\n")
    assert out.read_bytes() == done


def test_resume_wants_the_same_rows(command, model_folder, write_rows, tmp_path):
    """New rows may follow; others in their place are told, and nothing is touched."""
    rows, out = [question(number) for number in range(4)], tmp_path / "p.jsonl"
    assert command("predict", "--model", model_folder, "--data", write_rows(*rows[:3]), "--out", out)[0] == 0
    before = out.read_bytes()
    arguments = ["predict", "--model", model_folder, "--out", out, "--resume", "--data"]
    fix = "--resume goes on with the same rows; new ones may follow them"
    line = f"{out}:2: --out: answers 'q1', but --data has 'q2' here; {fix}\n"
    assert command(*arguments, write_rows(rows[0], *rows[2:])) == (2, "", line)
    line = f"{out}:3: --out: answers 'q2', but --data ends before; {fix}\n"
    assert command(*arguments, write_rows(*rows[:2])) == (2, "", line)
    assert out.read_bytes() == before
    assert command(*arguments, write_rows(*rows))[0] == 0
    assert out.read_bytes().startswith(before)
    assert [row["id"] for row in predictions(out)] == ["q0", "q1", "q2", "q3"]


def test_resume_starts_a_file_that_is_not_there(command, model_folder, write_rows, tmp_path):
    out = tmp_path / "p.jsonl"
    arguments = ["predict", "--model", model_folder, "--data", write_rows(question(0)), "--out", out, "--resume"]
    assert command(*arguments)[0] == 0
    assert len(predictions(out)) == 1


@pytest.mark.parametrize("text", ['{"id": "a", "task": "vqa"}\n', "notes\n", "notes", "[1]\n", "3\n"])
def test_resume_spares_other_files(command, write_rows, tmp_path, text, model_folder):
    out = tmp_path / "notes.txt"
    out.write_text(text)
    arguments = ["predict", "--model", model_folder, "--data", write_rows(question(0)), "--out", out, "--resume"]
    line = f"{out}:1: --out: is not a prediction; --resume goes on with a file that predict wrote\n"
    assert command(*arguments) == (2, "", line)
    assert out.read_text() == text


def test_resume_spares_the_rows_and_folders(command, write_rows, tmp_path):
    data = write_rows(question(0))
    data.write_text(data.read_text().rstrip("\n"))
    before = data.read_text()
    line = f"{data}: --out: is the file of --data; give a file for the predictions\n"
    assert command("predict", "--data", data, "--out", data, "--resume") == (2, "", line)
    assert data.read_text() == before
    line = f"{tmp_path}: --out: is not a file; give a file for the predictions\n"
    assert command("predict", "--data", data, "--out", tmp_path, "--resume") == (2, "", line)


def test_a_place_where_nothing_can_be_written(command, model_folder, write_rows, picture):
    out = picture / "p.jsonl"
    code, _, err = command("predict", "--model", model_folder, "--data", write_rows(question(0)), "--out", out)
    assert code == 2
    assert err.startswith(f"{out}: --out: cannot be written (")
    assert err.count("\n") == 1


@pytest.fixture
def largest_file():
    """No file may grow beyond this many bytes: the system says so as it says that a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fills_keeps_what_is_done(command, model_folder, write_rows, tmp_path, largest_file, capfd):
    data, out = write_rows(*(question(number) for number in range(5))), tmp_path / "p.jsonl"
    arguments = ["predict", "--model", model_folder, "--data", data, "--out", out]
    largest_file(1500)
    code, printed, err = command(*arguments)
    largest_file(resource.RLIM_INFINITY)
    line = f"{out}: --out: cannot be written (File too large); free some space, then --resume\n"
    assert (code, printed, err) == (2, "", line)
    assert out.stat().st_size == 1500
    assert command(*arguments, "--resume")[0] == 0
    assert [row["id"] for row in predictions(out)] == [f"q{number}" for number in range(5)]


def test_no_space_left(command, model_folder, write_rows, tmp_path, monkeypatch):
    from monoglot.decode import rows

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, text: str) -> None:
            self.file.write(text[:10])

        def flush(self) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self) -> None:
            self.flush()

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

    plain = rows._open
    monkeypatch.setattr(rows, "_open", lambda out: Full(plain(out)))
    out = tmp_path / "p.jsonl"
    code, _, err = command("predict", "--model", model_folder, "--data", write_rows(question(0)), "--out", out)
    line = f"{out}: --out: cannot be written (No space left on device); free some space, then --resume\n"
    assert (code, err) == (2, line)


def test_a_stopped_run_keeps_what_is_finished(command, model_folder, write_rows, tmp_path, monkeypatch):
    data, out = write_rows(*(question(number, text="what?") for number in range(6))), tmp_path / "p.jsonl"
    arguments = ["predict", "--model", model_folder, "--data", data, "--out", out, "--batch", 2]
    answer, calls = predictor_module.Predictor._answer, []

    def stop_at_third(self, examples):
        calls.append(len(examples))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return answer(self, examples)

    monkeypatch.setattr(predictor_module.Predictor, "_answer", stop_at_third)
    assert command(*arguments) == (130, "", "stopped; what was finished is kept\n")
    assert [row["id"] for row in predictions(out)] == ["q0", "q1", "q2", "q3"]
    monkeypatch.setattr(predictor_module.Predictor, "_answer", answer)
    assert command(*arguments, "--resume")[0] == 0
    assert [row["id"] for row in predictions(out)] == [f"q{number}" for number in range(6)]


@pytest.mark.parametrize("arguments", [["demo"], ["train", "x.yaml"], ["data", "validate", "x"]])
def test_ctrl_c_in_any_verb(command, arguments, monkeypatch):
    import monoglot.data.rows
    import monoglot.demo
    import monoglot.train.recipe

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(monoglot.demo, "run_demo", stop)
    monkeypatch.setattr(monoglot.train.recipe, "read_recipe", stop)
    monkeypatch.setattr(monoglot.data.rows, "check_rows", stop)
    assert command(*arguments) == (130, "", "stopped; what was finished is kept\n")


# ---------------------------------------------------------------------------------------------------------------- validate


def test_validate_lists_every_problem(command, write_rows):
    data = write_rows(
        question(0),
        '{"id": "cut", ',
        question(1, text=5, weight="heavy"),
        {"id": "m"},
        question(2, box=[0.1, 0.2, 1.3, 0.4]),
        question(0),
        question(3, traget="red"),
        question(4, text=None),
        question(5, image="none.png"),
        {"id": "c", "task": "classify", "text": "yes?"},
        question(6, target="green", choices=["red", "blue"]),
    )
    code, out, err = command("data", "validate", data)
    assert code == 2
    assert out == f"{data}: 11 rows, 12 problems; tasks: vqa 1\n"
    assert err.splitlines() == [
        f"{data}:2: broken JSON at character 14: Expecting property name enclosed in double quotes;"
        " expected one JSON object a line",
        f"{data}:3: text: is 5; expected a string",
        f"{data}:3: weight: is the string 'heavy'; expected a number above 0",
        f"{data}:4: task: missing; every row names its task, such as 'caption' or 'vqa'",
        f"{data}:4: text: nothing to read; give at least one of text, image, video, audio",
        f"{data}:5: box: [0.1, 0.2, 1.3, 0.4] lies outside [0, 1]; pixel boxes are the usual cause: give fractions,"
        ' or add "box_unit": "pixel"',
        f"{data}:6: id: 'q0' is also the id of line 1; expected unique ids",
        f"{data}:7: traget: unknown key; did you mean 'target'?",
        f"{data}:8: text: task 'vqa' needs a question; it is empty",
        f"{data}:9: image: no such file: {data.parent / 'none.png'}; paths start from the folder of the row's file",
        f'{data}:10: choices: task \'classify\' needs the possible answers; for example ["yes", "no"]',
        f"{data}:11: target: 'green' is not among the choices; expected one of 'red', 'blue'",
    ]


def test_validate_good_rows(command, write_rows):
    data = write_rows(question(0), question(1), {"id": "s", "task": "summarize", "text": "a", "target": "b"})
    assert command("data", "validate", data) == (0, f"{data}: 3 rows, 0 problems; tasks: summarize 1, vqa 2\n", "")


# ---------------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_prints_a_table_and_writes_scores(command, model_folder, coloured_rows, tmp_path):
    data, out = coloured_rows(6), tmp_path / "scores" / "scores.json"
    lines = data.read_text().splitlines()
    unreadable = json.loads(lines[0]) | {"id": "bad", "image": "none.png"}
    data.write_text("\n".join([*lines, json.dumps(unreadable)]) + "\n")
    code, printed, err = command(*("evaluate", "--model", model_folder, "--data", data, "--train", data, "--out", out))
    assert (code, err) == (0, "")
    assert "7 (1 unreadable)" in printed
    scores = json.loads(out.read_text())["scores"]["rows"]
    assert [(s["task"], s["metric"], s["rows"], s["errors"]) for s in scores] == [
        ("name", "exact_match", 7, 1),
        ("grounding", "iou_at_0.5", 6, 0),
        ("grounding", "iou", 6, 0),
    ]
    assert scores[0]["baselines"]["nearest neighbour"] == pytest.approx(6 / 7)  # each picture's neighbour is itself
    assert len(predictions(out.parent / "rows.predictions.jsonl")) == 13


def test_files_of_one_name_are_told_apart(command, model_folder, tmp_path):
    files = []
    for number, folder in enumerate(("one", "two"), start=1):
        (tmp_path / folder).mkdir()
        files.append(tmp_path / folder / "test.jsonl")
        row = {"task": "summarize", "text": "a b. c", "target": "a"}
        files[-1].write_text("".join(json.dumps(row | {"id": str(i)}) + "\n" for i in range(number)))
    out = tmp_path / "scores.json"
    arguments = ["evaluate", "--model", model_folder, "--out", out]
    code, _, _ = command(*arguments, "--data", files[0], "--data", files[1])
    assert code == 0
    scores = json.loads(out.read_text())["scores"]
    assert {label: score[0]["rows"] for label, score in scores.items()} == {"one.test": 1, "two.test": 2}
    line = f"{files[0]}: --data: two files would be called 'one.test'; give each once, or rename one\n"
    assert command(*arguments, "--data", files[0], "--data", files[0]) == (2, "", line)


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (question(1, target=None), "{data}:2: target: is missing; evaluation needs the answer"),
        (question(1, target=None, box=[0, 0, 1, 1]), "{data}:2: target: is missing; evaluation needs the answer"),
        (question(1, task="grounding"), "{data}:2: box: is missing; evaluation needs the answer"),
        (question(1, weight=-1), "{data}:2: weight: is -1; expected a number above 0"),
        ("{", "{data}:2: broken JSON at character 2: Expecting property name enclosed in double quotes;"
         " expected one JSON object a line"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_scored_are_told_before_a_model_is_loaded(command, write_rows, row, line):
    data = write_rows(question(0), row)
    expected = (
        (2, "", line.format(data=data) + "\n") if row != "{" else (2, "", line.replace("{data}", str(data)) + "\n")
    )
    assert command("evaluate", "--model", "none", "--data", data) == expected
    good = write_rows(question(0), name="good.jsonl")
    assert command("evaluate", "--model", "none", "--data", good, "--train", data) == expected


def test_evaluate_nothing(command, write_rows):
    data = write_rows()
    line = f"{data}: has no rows; evaluation needs at least one\n"
    assert command("evaluate", "--data", data) == (2, "", line)


def test_a_stopped_evaluation_keeps_the_files_that_are_done(command, model_folder, write_rows, tmp_path, monkeypatch):
    from monoglot.evaluate import report

    first, second = write_rows(question(0), name="a.jsonl"), write_rows(question(0), name="b.jsonl")
    evaluate, calls, out = report.evaluate, [], tmp_path / "scores.json"

    def stop_at_second(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    monkeypatch.setattr(report, "evaluate", stop_at_second)
    code, printed, err = command("evaluate", "--model", model_folder, "--data", first, "--data", second, "--out", out)
    assert (code, err) == (130, "stopped; what was finished is kept\n")
    assert "vqa_accuracy" in printed
    assert list(json.loads(out.read_text())["scores"]) == ["a"]


# ------------------------------------------------------------------------------------------------------------------- train

RECIPE = """\
name: tiny
start: cold
steps: 2
data_folder: {folder}
model: {{width: 32, heads: 2, ffn: 64, encoder_layers: 1, decoder_layers: 1}}
mixture:
  - {{name: colours, data: rows.jsonl, quota: 4}}
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.format(folder=tmp_path))
    return path


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["stpes=3"], "{recipe}: stpes: no key named 'stpes'; closest: 'steps'"),
        (["optimizer.rl=3"], "{recipe}: optimizer.rl: no key named 'rl'; closest: 'lr'"),
        (["model.wdth=3"], "{recipe}: model.wdth: no key named 'wdth'; closest: 'width'"),
        (["steps=0"], "{recipe}: steps: Input should be greater than or equal to 1"),
        (["steps"], "command line: steps: is not key=value; for example steps=100 or optimizer.lr=0.001"),
        (["steps=[1"], "command line: steps=[1: the value is not YAML; put it in quotes"),
        (["name.x=1"], "command line: name.x=1: 'name' holds no keys"),
        ([], "{folder}/rows.jsonl: data: cannot be read (No such file or directory);"
         " build it with `monoglot data build`, or correct the path"),
    ],
)  # fmt: skip
def test_wrong_recipes(command, recipe, tmp_path, overrides, line):
    run = tmp_path / "run"
    code, out, err = command("train", recipe, *overrides, "--out", run)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(line.format(recipe=recipe, folder=tmp_path))
    assert not run.exists()


def test_a_misspelt_key_in_the_page(command, recipe):
    recipe.write_text(recipe.read_text().replace("quota", "qouta"))
    code, _, err = command("train", recipe)
    assert code == 2
    assert err.startswith(
        f"{recipe}: mixture.0.qouta: no key named 'qouta'; closest: 'quota'; known: "
    ) or err.startswith(f"{recipe}: mixture.0.quota: Field required")


@pytest.mark.parametrize("text", ["a: [1", "just words", "- a\n- b\n", "\x00"])
def test_pages_that_are_no_recipe(command, recipe, text):
    recipe.write_text(text)
    code, _, err = command("train", recipe)
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith(f"{recipe}: recipe: is not ")


def test_a_run_that_is_there_is_not_written_over(command, recipe, tmp_path, coloured_rows):
    coloured_rows(4)
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("kept")
    line = f"{run}: run: the folder is not empty; give a new one, or --resume to go on\n"
    assert command("train", recipe, "--out", run) == (2, "", line)
    assert [path.name for path in run.iterdir()] == ["notes.txt"]


def test_main_reads_the_words_of_the_process(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["monoglot", "--help"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert "predict" in capsys.readouterr().out


def test_answers_do_not_depend_on_the_way_in(command, model_folder, write_rows, tmp_path, loaded):
    """One question on the command line, in a file, and in Python."""
    data, out = write_rows(question(0)), tmp_path / "p.jsonl"
    command("predict", "--model", model_folder, "--data", data, "--out", out)
    by_file = predictions(out)[0]
    arguments = ["predict", "--model", model_folder, "--task", "vqa", "--image", tmp_path / "cup.png"]
    by_options = json.loads(command(*arguments, "--text", "what is 0?", "--json")[1])
    in_python = predictor_module.Predictor(*loaded).predict(
        task="vqa", image=np.asarray(Image.open(tmp_path / "cup.png")), text="what is 0?"
    )
    assert by_file["text"] == by_options["text"] == in_python.text
    assert by_file["confidence"] == pytest.approx(in_python.confidence, rel=1e-4)


# --- how to search ----------------------------------------------------------------------------------------------------


def asked(model_folder, picture, *options):
    return ["predict", "--model", model_folder, "--task", "caption", "--image", picture, "--json", *options]


def test_search_options_reach_the_search(command, model_folder, picture):
    greedy = json.loads(command(*asked(model_folder, picture, "--beam", "1"))[1])
    assert len(greedy["candidates"]) == 1
    five = json.loads(command(*asked(model_folder, picture, "--n-best", "5", "--max-length", "3"))[1])
    assert len(five["candidates"]) == 5
    drawing = ("--sample", "--top-k", "50", "--top-p", "0.9", "--temperature", "1.5", "--seed")
    drawn = [json.loads(command(*asked(model_folder, picture, *drawing, seed))[1])["text"] for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_search_options_hold_for_files_too(command, model_folder, write_rows, tmp_path):
    data, out = write_rows(question(0)), tmp_path / "p.jsonl"
    options = ("--n-best", "4", "--length-penalty", "0.5", "--min-length", "2", "--no-repeat-ngram", "2")
    assert command("predict", "--model", model_folder, "--data", data, "--out", out, *options)[0] == 0
    assert len(predictions(out)[0]["candidates"]) == 4


def test_choices_can_all_be_scored(command, model_folder, picture):
    arguments = asked(model_folder, picture, "--choices", "a,b,c,d,e,f", "--text", "is it?", "--score-all")
    arguments[arguments.index("caption")] = "vqa"
    assert len(json.loads(command(*arguments)[1])["candidates"]) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--top-k", "5"), "command line: search: top_k and top_p limit what is drawn: they need sample"),
        (("--temperature", "0"), "command line: temperature: "),
        (("--top-p", "1.5", "--sample"), "command line: top_p: "),
        (("--beam", "0"), "Invalid value for '--beam'"),
        (("--picture", "a.png"), "command line: --vqgan: is missing"),
        (("--vqgan", "a.ckpt", "--picture", "a.png"), "--picture: task 'caption' paints nothing"),
    ],
)
def test_search_options_that_make_no_sense(command, model_folder, picture, options, message):
    code, out, error = command(*asked(model_folder, picture, *options))
    assert (code, out) == (2, "")
    assert message in error
    assert error.count("\n") == 1


def test_a_picture_is_painted(command, model_folder, tmp_path):
    torch.save({"state_dict": checkpoint(**F8)}, tmp_path / "last.ckpt")
    arguments = ["predict", "--model", model_folder, "--task", "generate_image", "--text", "a red cup"]
    painting = ["--vqgan", tmp_path / "last.ckpt", "--picture"]
    code, out, error = command(*arguments, *painting, tmp_path / "cup.png")
    assert (code, error) == (0, "")
    assert len(out.split()) == 16
    assert Image.open(tmp_path / "cup.png").size == (32, 32)
    code, _, error = command(*arguments, *painting, tmp_path / "cup.nothing")
    assert code == 2
    assert "cup.nothing: --picture: cannot be written" in error
