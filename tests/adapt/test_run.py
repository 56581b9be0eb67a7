"""`monoglot adapt` from rows to a folder that answers them: every way to do it, what is kept of it, what is told."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small import COLOURS, square, tiny_model, tiny_tokenizer

from monoglot.adapt import run as run_module
from monoglot.adapt.run import adapt
from monoglot.adapters import is_adapter, read_adapter, read_answers, weights_sha256
from monoglot.decode.predict import load
from monoglot.errors import InputError
from monoglot.files import sha256_of
from monoglot.store import save_model
from monoglot.train import run as train_module
from monoglot.train.run import Run

QUESTION = "what colour?"


@pytest.fixture(autouse=True)
def light(monkeypatch, tmp_path):
    """Features are kept apart from the user's own, and the report of the training, which tests/report looks at, is not drawn."""
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(train_module, "write_run_report", lambda folder: folder / "report.html")
    # Training goes over in a few steps here, so it may also be short.
    monkeypatch.setattr(run_module, "steps_for", lambda rows: 48)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """A model folder with real eyes; it has learned nothing."""
    folder = tmp_path_factory.mktemp("base") / "tiny"
    model = tiny_model(encoders=True, encoder_layers=1, decoder_layers=1, modalities={"image": {"size": 32}})
    with torch.no_grad():
        model.words.weight.mul_(0.2)
    save_model(folder, model, tiny_tokenizer())
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for colour, rgb in COLOURS.items():
        for number in range(10):
            row, column = (int(place) for place in rng.integers(0, 20, 2))
            Image.fromarray(square(rgb, (row, column), side=70)).save(folder / f"{colour}{number}.png")
    return folder


@pytest.fixture
def colours(pictures, tmp_path):
    """Write rows that ask for the colour of squares; returns the file."""

    def write(name: str, names=("red", "blue"), numbers=range(8), **changes) -> Path:
        rows = [
            {
                "id": f"{colour}{number}",
                "task": "classify",
                "image": str(pictures / f"{colour}{number}.png"),
                "text": QUESTION,
                "target": colour,
            }
            | changes
            for number in numbers
            for colour in names
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return write


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def texts(tmp_path):
    """Write rows of text alone: to classify, or to answer freely."""

    def write(name: str, task: str = "classify", **changes) -> Path:
        said = {"red": "it is red", "blue": "what is the blue"}
        rows = [
            {
                "id": f"{colour}{n}",
                "task": task,
                "text": f"{text} {n}",
                "target": colour if task == "classify" else text,
            }
            | changes
            for n in range(10)
            for colour, text in said.items()
        ]
        return write_rows(tmp_path / f"{name}.jsonl", rows)

    return write


SURE = {"optimizer": {"lr": 0.01}, "steps": 96}


def lineage(folder: Path) -> dict:
    return json.loads((folder / "lineage.json").read_text())


def answers(folder: Path, rows: Path) -> list[str]:
    return [answer.text for answer in load(folder).predict_many(map(json.loads, rows.read_text().splitlines()))]


def targets(rows: Path) -> list[str]:
    return [json.loads(line)["target"] for line in rows.read_text().splitlines()]


def told(action) -> str:
    with pytest.raises(InputError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- every method -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["head", "connector", "lora", "full"])
def test_it_learns_the_colours(base, colours, tmp_path, method, capsys):
    train, test = colours("train"), colours("test", numbers=(8, 9))
    before = sha256_of(base / "model.safetensors")
    changes = SURE if method != "head" else None
    result = adapt(base, train, tmp_path / "out", method=method, held_out=test, changes=changes)
    assert result.folder == tmp_path / "out"
    assert result.method == method
    assert result.why.startswith("as asked")
    assert is_adapter(result.folder) == (method != "full")
    assert result.before[0].value <= 0.5 < result.after[0].value == 1.0
    assert answers(result.folder, test) == targets(test)
    assert (result.before[0].rows, result.before[0].task) == (4, "classify")
    assert (result.steps > 0) == (method != "head")
    assert result.megabytes < (0.2 if method != "full" else 60)
    assert sha256_of(base / "model.safetensors") == before
    assert read_answers(result.folder)[0].choices == ("blue", "red")
    # What stays in the folder, beside the result: nothing half done.
    names = {path.name for path in result.folder.iterdir()}
    assert not names & {"model", "tried", "checkpoint"}
    assert {"README.md", "lineage.json", "report.html", "rows"} <= names
    assert not list(result.folder.glob("run/*.safetensors"))
    assert targets(result.folder / "rows" / "train.jsonl") == targets(train)
    html = (result.folder / "report.html").read_text()
    assert "Mended" in html
    assert "as asked" in html
    said = " ".join(capsys.readouterr().out.split())
    assert f"classify {result.before[0].metric} 4 {result.before[0].value:.3f} 1.000" in said
    assert f"{result.folder}: {method} in " in said


def test_auto_takes_what_the_held_out_rows_like(base, colours, tmp_path, monkeypatch):
    result = adapt(base, colours("train", numbers=range(10)), tmp_path / "out", minutes=5, changes=SURE, quiet=True)
    held_out = targets(result.folder / "rows" / "held_out.jsonl")
    assert 2 <= len(held_out) <= 5
    assert result.method == "head", "the first of equals is the cheaper one"
    assert result.why.startswith(f"best of {len(held_out)} held-out rows: head ")
    assert ", lora " in result.why
    assert "left out" not in result.why
    assert not (result.folder / "tried").exists()
    assert load(result.folder).predict_many([])
    # And when lora's scores are higher.
    order = iter([0.1, 0.9])
    monkeypatch.setattr(run_module, "_main", lambda scores: (next(order), "so so"))
    result = adapt(base, colours("train", numbers=range(10)), tmp_path / "two", minutes=5, changes=SURE, quiet=True)
    assert (result.method, result.why.split(": ")[1]) == ("lora", "head so so, lora so so")
    assert (result.folder / "run" / "metrics.jsonl").is_file()
    assert read_adapter(result.folder).settings.base.sha256 == weights_sha256(base)
    assert result.after[0].value > 0.5


def test_auto_without_time_for_training(base, colours, texts, tmp_path):
    result = adapt(base, colours("train", numbers=range(10)), tmp_path / "out", minutes=0, quiet=True)
    assert result.method == "head"
    assert "lora left out, adapt: minutes: 0 minutes are 0 steps of " in result.why
    line = told(lambda: adapt(base, texts("free", "summarize"), tmp_path / "two", minutes=0, quiet=True))
    assert line.startswith("adapt: minutes: 0 minutes are 0 steps of ")
    assert line.endswith(" s, fewer than 20; give more time, or use --method head")


def test_auto_goes_round_a_head_that_cannot_be(base, colours, tmp_path, monkeypatch):
    def too_large(*_):
        raise InputError.at("head", "classes", "is too large", "use the method 'lora'")

    monkeypatch.setattr(run_module, "fit_heads", too_large)
    rows = colours("train", numbers=range(10))
    result = adapt(base, rows, tmp_path / "out", minutes=5, changes=SURE, quiet=True)
    assert result.method == "lora"
    assert "head left out, head: classes: is too large; use the method 'lora', lora " in result.why
    line = told(lambda: adapt(base, rows, tmp_path / "two", minutes=0, quiet=True))
    assert line.startswith("head left out, head: classes: is too large; use the method 'lora'; lora left out, adapt: ")


def test_few_rows_are_all_learned_from(base, colours, tmp_path):
    result = adapt(base, colours("train", numbers=range(3)), tmp_path / "out", quiet=True)
    assert (result.before, result.after) == ([], [])
    assert result.why.startswith("6 rows are too few to hold some out and compare, so 'head' without a comparison; ")
    assert lineage(result.folder)["rows"] == {"train": 6, "held_out": 0, "refitted": False}
    assert "No rows were held out" in (result.folder / "report.html").read_text()


def test_shots(base, colours, tmp_path):
    result = adapt(base, colours("train", numbers=range(8)), tmp_path / "out", shots=2, seed=3, quiet=True)
    assert sorted(targets(result.folder / "rows" / "train.jsonl")) == ["blue", "blue", "red", "red"]
    assert (lineage(result.folder)["shots"], lineage(result.folder)["seed"]) == (2, 3)


# --- old abilities ----------------------------------------------------------------------------------------------------


def test_replay_and_old_scores(base, colours, texts, tmp_path):
    """Their share of every step is as asked, and old rows are scored before and after."""
    old = texts("old", choices=["red", "blue"])
    share = 1 / 3
    result = adapt(
        base,
        colours("train"),
        tmp_path / "out",
        method="lora",
        replay=[old],
        replay_share=share,
        old=[old],
        changes={"steps": 12},
        quiet=True,
    )
    lines = [json.loads(line) for line in (result.folder / "run" / "metrics.jsonl").read_text().splitlines()]
    quotas = next(line["quotas"] for line in lines if "quotas" in line)
    assert quotas["replay_1_old"] / sum(quotas.values()) == pytest.approx(share)
    assert any(line["rows"]["replay_1_old"] for line in lines if "rows" in line)
    page = lineage(result.folder)
    assert page["replay"] == [{"path": str(old), "sha256": sha256_of(old)}]
    scores = page["scores"]["old"]["old"]
    assert scores["before"][0]["rows"] == scores["after"][0]["rows"] == 20
    assert "old: classify (old)" in (result.folder / "report.html").read_text()


def test_old_rows_of_one_answer_are_scored_too(base, colours, tmp_path):
    """They need not be fit to be trained on."""
    one = colours("old", names=("red",), numbers=(1,), choices=["red", "blue"])
    result = adapt(base, colours("train", numbers=range(3)), tmp_path / "out", method="head", old=[one], quiet=True)
    assert lineage(result.folder)["scores"]["old"]["old"]["before"][0]["rows"] == 1


# --- lineage ----------------------------------------------------------------------------------------------------------


def test_a_chain_of_two(base, colours, tmp_path):
    """The second adaptation is of the first one's result; the answers of the question are united."""
    train, more = colours("train"), colours("more", names=("green", "black", "red"))
    first = adapt(base, train, tmp_path / "one", method="lora", changes=SURE, quiet=True, command="monoglot adapt ...")
    page = lineage(first.folder)
    assert page["parents"] == [{"model": str(base), "sha256": weights_sha256(base)}]
    assert (page["method"], page["before"], page["seed"], page["shots"]) == ("lora", [], 0, None)
    assert page["data"] == [{"path": str(train), "sha256": sha256_of(train)}]
    assert page["rows"] == {"train": 16, "held_out": 0, "refitted": False}
    assert page["command"] == "monoglot adapt ..."
    assert (first.folder / page["base"]["path"]).resolve() == base.resolve()
    second = adapt(
        first.folder, more, tmp_path / "two", method="lora", held_out=more_test(colours), changes=SURE, quiet=True
    )
    page = lineage(second.folder)
    assert page["parents"] == [{"model": str(first.folder), "sha256": sha256_of(first.folder / "adapter.safetensors")}]
    assert [step["data"] for step in page["before"]] == [lineage(first.folder)["data"]]
    assert page["before"][0]["parents"] == lineage(first.folder)["parents"]
    assert page["scores"]["after"] == [score.to_json() for score in second.after]
    assert page["held_out"]["sha256"] == sha256_of(tmp_path / "test.jsonl")
    assert read_answers(second.folder)[0].choices == ("blue", "red", "black", "green")
    assert second.after[0].value > second.before[0].value
    assert set(answers(second.folder, tmp_path / "test.jsonl")) & {"green", "black"}
    assert read_adapter(second.folder).settings.base == read_adapter(first.folder).settings.base


def more_test(colours) -> Path:
    return colours("test", names=("green", "black", "red"), numbers=(8, 9))


def test_a_head_after_a_head(base, colours, tmp_path):
    """Another question leaves the first one's head as it is; the same question is learned anew, with old rows by --replay."""
    train, other = colours("train"), colours("other", names=("green", "black"), text="is it dark?")
    test = colours("test", numbers=(8, 9))
    first = adapt(base, train, tmp_path / "one", method="head", quiet=True)
    second = adapt(first.folder, other, tmp_path / "two", method="head", quiet=True)
    assert [given.text for given in read_answers(second.folder)] == [QUESTION, "is it dark?"]
    assert answers(second.folder, test) == answers(first.folder, test) == targets(test)
    assert answers(second.folder, other) == targets(other)
    more = colours("more", names=("green", "black"))
    third = adapt(second.folder, more, tmp_path / "three", method="head", replay=[train], quiet=True)
    assert answers(third.folder, more) == targets(more)
    assert set(answers(third.folder, test)) >= {"red", "blue"}
    assert answers(third.folder, other) == targets(other)
    alone = adapt(second.folder, more, tmp_path / "alone", method="head", quiet=True)
    assert set(answers(alone.folder, test)) <= {"green", "black"}
    assert alone.why.endswith(", never blue, red, of which there is no row")
    # Training would change what the other heads read.
    for method in ("lora", "connector", "full"):
        line = told(lambda method=method: adapt(second.folder, more, tmp_path / "four", method=method, quiet=True))
        assert line == (
            f"{second.folder}: --method: 'is it dark?' is answered by a head, which reads what {method!r} changes; "
            "use --method head, or adapt the base to all of the rows"
        )
    auto = adapt(second.folder, colours("many", numbers=range(10)), tmp_path / "five", quiet=True)
    assert auto.method == "head"


def test_a_head_on_low_rank_changes_keeps_them(base, colours, tmp_path):
    first = adapt(base, colours("train"), tmp_path / "one", method="lora", changes={"steps": 6}, quiet=True)
    second = adapt(first.folder, colours("other", text="which?"), tmp_path / "two", method="head", quiet=True)
    one, two = read_adapter(first.folder), read_adapter(second.folder)
    assert one.changes.keys() == two.changes.keys()
    assert all((two.changes[name] == tensor).all() for name, tensor in one.changes.items())


# --- going on ---------------------------------------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("minutes", [None, 10.0])
def test_a_killed_one_goes_on(base, colours, tmp_path, monkeypatch, minutes):
    """The same adapter, bit by bit, also where the time had cut the steps."""
    train, test = colours("train"), colours("test", numbers=(8, 9))
    if minutes is not None:
        monkeypatch.setattr(
            run_module,
            "_in_time",
            lambda recipe, minutes: recipe.model_copy(update={"steps": 20, "validate_every": 3}),
        )
    given = {"method": "lora", "held_out": test, "minutes": minutes, "changes": {"steps": 30}, "quiet": True}
    whole = adapt(base, train, tmp_path / "whole" / "out", **given)
    due = Run.do_what_is_due

    def dying(self):
        due(self)
        if self.stand.step == 11:
            self.save()
        if self.stand.step == 14:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "do_what_is_due", dying)
        with pytest.raises(Killed):
            adapt(base, train, tmp_path / "part" / "out", **given)
    out = tmp_path / "part" / "out"
    assert told(lambda: adapt(base, train, out, **given)) == (
        f"{out}: --out: the folder is not empty; give a new one, or --resume to go on"
    )
    done = adapt(base, train, out, resume=True, **given)
    assert done.steps == whole.steps == (20 if minutes else 30)
    one, other = (folder / "adapter.safetensors" for folder in (whole.folder, out))
    assert one.read_bytes() == other.read_bytes()
    assert lineage(out)["scores"]["after"] == lineage(whole.folder)["scores"]["after"]


def test_the_time_is_kept_to(base, colours, tmp_path, monkeypatch):
    """As many steps as fit, by a clock on which each of the first ones takes half a second."""
    ticks = count(0.0, 0.5)
    monkeypatch.setattr(run_module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    changes = {"steps": 1_000_000}
    result = adapt(base, colours("train"), tmp_path / "out", method="lora", minutes=0.25, changes=changes, quiet=True)
    assert result.steps == 30


# --- what is told -----------------------------------------------------------------------------------------------------


def test_rows_of_text_alone(base, texts, tmp_path):
    rows = texts("texts")
    line = told(lambda: adapt(base, rows, tmp_path / "c", method="connector", quiet=True))
    assert line == "rows: method: rows of text alone have no connector to train; use --method lora"
    assert not (tmp_path / "c").exists(), "so that another method may be tried at once"
    for method in ("head", "lora"):
        changes = SURE if method == "lora" else None
        result = adapt(base, rows, tmp_path / method, method=method, changes=changes, quiet=True)
        assert result.after[0].rows == 4
        assert set(answers(result.folder, rows)) <= {"red", "blue"}


def test_free_text_has_no_head(base, texts, tmp_path):
    rows = texts("free", "summarize")
    line = told(lambda: adapt(base, rows, tmp_path / "out", method="head", quiet=True))
    assert (
        line
        == f"{rows}:1: task: task 'summarize' has free answers here, and a head picks one of a few; use --method lora"
    )
    assert not (tmp_path / "out").exists()


def test_other_things_that_are_told_before_anything_is_written(base, colours, tmp_path):
    rows, out = colours("train"), tmp_path / "out"
    sound = write_rows(
        tmp_path / "sound.jsonl",
        [{"id": str(n), "task": "classify", "text": "who?", "audio": "a.wav", "target": "ab"[n % 2]} for n in range(4)],
    )
    cases = [
        ({"data": sound}, f"{sound}:1: audio: this model does not read it; it reads: image; docs/new_modality.md says how to add one"),
        ({"method": "lroa"}, "no method named 'lroa'; closest: 'lora'; known: connector, full, head, lora"),
        ({"method": "lora", "changes": {"stpes": 3}}, "command line: --set: stpes: no key named 'stpes'; closest: 'steps'"),
        ({"method": "lora", "changes": {"steps": None}}, "command line: --set: steps: None is no whole number; an adaptation has so many"),
        ({"method": "lora", "changes": {"optimizer": {"lr": -1}}}, "command line: --set: optimizer.lr: Input should be greater than 0"),
        ({"replay": [tmp_path / "none.jsonl"]}, f"{tmp_path}/none.jsonl: "),
        ({"old": [tmp_path / "none.jsonl"]}, f"{tmp_path}/none.jsonl: "),
        ({"model": tmp_path / "none"}, f"{tmp_path}/none: model: no such folder"),
    ]  # fmt: skip
    for changes, wrong in cases:
        given = {"model": base, "data": rows, "out": out, "quiet": True} | changes
        line = told(lambda given=given: adapt(**given))
        assert line.startswith(wrong), line
        assert not out.exists()


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def two(base, colours, tmp_path) -> tuple[Path, Path]:
    """Two adapters on one base that say other things of the same squares."""
    swapped = colours("b", names=("red", "blue"), numbers=range(4))
    rows = [json.loads(line) for line in swapped.read_text().splitlines()]
    write_rows(swapped, [row | {"target": {"red": "blue", "blue": "red"}[row["target"]]} for row in rows])
    right = colours("a", numbers=range(4))
    return tuple(adapt(base, data, tmp_path / data.stem, method="head", quiet=True).folder for data in (right, swapped))


def test_rows_pick_their_adapter(base, two, colours, tmp_path, command):
    rows = [json.loads(line) for line in colours("test", numbers=(8, 9)).read_text().splitlines()]
    named = [row | {"id": f"{row['id']}{name}", "adapter": name} for row in rows for name in ("a", "b", "c")]
    data, out = write_rows(tmp_path / "rows.jsonl", named), tmp_path / "p.jsonl"
    arguments = ["predict", "--model", base, "--adapter", two[0], "--adapter", two[1], "--data", data, "--out", out]
    code, _, err = command(*arguments)
    assert code == 0
    assert err.endswith("; 4 could not be answered, their 'error' says why\n")
    said = [json.loads(line) for line in out.read_text().splitlines()]
    assert [answer["id"] for answer in said] == [row["id"] for row in named]
    other = {"red": "blue", "blue": "red"}
    for row, answer in zip(named, said):
        wanted = {"a": row["target"], "b": other[row["target"]], "c": ""}[row["adapter"]]
        assert answer["text"] == wanted
        assert (answer["error"] is not None) == (row["adapter"] == "c")
    assert said[2]["error"] == f"{data}:3: adapter: no adapter named 'c'; known: a, b"


def test_one_adapter_answers_every_row(base, two, colours, tmp_path, command):
    rows = [json.loads(line) for line in colours("test", numbers=(8, 9)).read_text().splitlines()]
    rows[0]["adapter"] = "a"
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "p.jsonl"
    code, told, said = command("predict", "--model", base, "--adapter", two[0], "--data", data, "--out", out)
    assert (code, told) == (0, "")
    assert said.startswith(f"{out}: 4 rows in ")
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == targets(data)
    # One question, by an adapter on its base or by the adapter's own folder.
    asked = ["--task", "classify", "--image", rows[0]["image"], "--text", QUESTION]
    assert command("predict", "--model", base, "--adapter", two[1], *asked)[:2] == (0, "blue\n")
    assert command("predict", "--model", two[0], *asked)[:2] == (0, "red\n")
    line = "command line: --adapter: several given for one question; give one, or --data\n"
    assert command("predict", "--model", base, "--adapter", two[0], "--adapter", two[1], *asked) == (2, "", line)


def test_an_adapter_is_evaluated_like_a_model(two, colours, tmp_path, command):
    out = tmp_path / "scores.json"
    assert command("evaluate", "--model", two[0], "--data", colours("test", numbers=(8, 9)), "--out", out)[0] == 0
    assert next(score["value"] for score in json.loads(out.read_text())["scores"]["test"]) == 1.0


def test_the_verb(base, colours, tmp_path, command):
    out = tmp_path / "out"
    options = ["--data", colours("train"), "--method", "lora", "--set", "steps=4", "--seed", "2", "--out", out]
    code, printed, _ = command("adapt", "--model", base, *options)
    assert code == 0
    assert f"{out}: lora in " in " ".join(printed.split())
    page = lineage(out)
    assert (page["steps"], page["seed"], page["method"]) == (4, 2, "lora")
    line = f"{out}: --out: the folder is not empty; give a new one, or --resume to go on\n"
    assert command("adapt", "--model", base, *options) == (2, "", line)
    line = "command line: --set: does not go with --method head; it has no training recipe\n"
    options[options.index("lora")] = "head"
    assert command("adapt", "--model", base, *options) == (2, "", line)


@pytest.mark.parametrize("method", ["head", "lora"])
def test_all_rows_are_learned_from_in_the_end(base, colours, tmp_path, method, monkeypatch):
    """The scores are of what was learned without the held-out rows; what is kept is what all rows give in the steps that were found."""
    rows = colours("train", numbers=range(10))
    changes = {} if method == "head" else {"steps": 24, "validate_every": 8, "optimizer": {"lr": 0.02}}
    given = {"method": method, "quiet": True}
    first = adapt(base, rows, tmp_path / "first" / "out", refit=False, changes=changes, **given)
    both = adapt(base, rows, tmp_path / "both" / "out", changes=changes, **given)
    assert (first.refitted, both.refitted) == (False, True)
    assert [score.value for score in both.after] == [score.value for score in first.after]
    written = {path.stem: len(targets(path)) for path in (both.folder / "rows").iterdir()}
    assert written == {"train": 16, "held_out": 4, "all": 20}
    assert lineage(both.folder)["rows"] == {"train": 16, "held_out": 4, "refitted": True}
    monkeypatch.setattr(run_module, "_set_apart", lambda samples, seed: (samples, []))
    if changes:
        changes = changes | {"steps": both.steps - first.steps}
    alone = adapt(base, rows, tmp_path / "again", changes=changes, **given)
    kept, wanted = read_adapter(both.folder), read_adapter(alone.folder)
    assert kept.tensors.keys() == wanted.tensors.keys()
    assert all(torch.equal(kept.tensors[name], tensor) for name, tensor in wanted.tensors.items())
    assert sorted(path.name for path in both.folder.iterdir() if path.is_dir()) == (
        ["rows"] if method == "head" else ["rows", "run", "run_held_out"]
    )
