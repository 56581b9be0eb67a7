"""Curves of few shots: what is measured, that nothing is measured twice, and what is made of it."""

from __future__ import annotations

import json
import math
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import t as student
from small import COLOURS, square
from small_rivals import colours

from monoglot.adapt import fewshot as page
from monoglot.adapt.fewshot import Cell, Plan, area, distinct, fewshot, read_shots, run_cells, summary, verdict
from monoglot.adapt.rivals import Encoded
from monoglot.adapt.rows import row_of, take_shots
from monoglot.data.features import FeatureCache
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.evaluate.intervals import T_95, over_seeds
from monoglot.nouns import Sample
from monoglot.report.fewshot import apart


@pytest.fixture
def rows(tmp_path):
    """Write pictures of squares and a file that asks for their colours; returns the file."""

    def write(count: int, name: str, names=("red", "blue", "green"), **more) -> object:
        lines = []
        rng = np.random.default_rng(len(name))
        for index in range(count):
            colour = names[index % len(names)]
            row, column = (int(number) for number in rng.integers(0, 60, 2))
            file = tmp_path / f"{name}{index}.png"
            Image.fromarray(square(COLOURS[colour], (row, column))).save(file)
            lines.append(
                {"id": str(index), "task": "classify", "text": "colour?", "image": file.name, "target": colour}
            )
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(line | more) + "\n" for line in lines))
        return path

    return write


@pytest.fixture
def trained(monkeypatch, model_folder, loaded):
    """`adapt` that trains nothing and notes what it was given; rivals without downloads."""
    calls = []

    def adapt(model, data, out, *, method, seed, minutes, quiet):
        calls.append(SimpleNamespace(method=method, seed=seed, data=data, rows=[s.id for s in read_rows(data)]))
        return SimpleNamespace(folder=model_folder, method=method, why="as asked", seconds=1.0, megabytes=0.5)

    monkeypatch.setattr(page, "adapt", adapt)
    monkeypatch.setattr(page, "load_keeping", lambda folder: Predictor(*loaded))
    monkeypatch.setattr(page, "Encoded", partial(Encoded, colours))
    return calls


@pytest.fixture
def measure(model_folder, tmp_path, trained):
    def run(data, **more):
        settings = {"shots": "1,2,all", "seeds": 2, "methods": "lora", "rivals": "probe"} | more
        fewshot(str(model_folder), data, tmp_path / "out", **settings)
        return json.loads((tmp_path / "out" / "fewshot.json").read_text())

    return run


def cell(name="lora", shots="1", seed=0, score=0.5, rival=False, each=1.0):
    measured = {"low": None, "high": None, "errors": 0, "seconds": 1.0, "megabytes": 1.0, "seconds_row": 0.01}
    return Cell(name, rival, shots, seed, 3, each, "accuracy", score, **measured)


# --- numbers ---


def test_area_is_numpys_trapezoid_over_log_k():
    rng = np.random.default_rng(0)
    each, scores = np.cumsum(rng.uniform(0.5, 9, 7)) + 1, rng.random(7)
    trapezoid = getattr(np, "trapezoid", None) or np.trapz
    width = math.log(each[-1]) - math.log(each[0])
    assert area(each, scores) == pytest.approx(trapezoid(scores, np.log(each)) / width)
    assert area([4, 20], [0.7, 0.7]) == pytest.approx(0.7)
    assert area([4], [0.3]) == 0.3


def test_quantiles_are_scipys():
    for degrees, quantile in enumerate(T_95, start=1):
        assert quantile == pytest.approx(student.ppf(0.975, degrees), abs=6e-4)


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_interval_over_seeds_is_scipys(count):
    values = np.random.default_rng(count).normal(size=count)
    low, high = student.interval(0.95, count - 1, values.mean(), values.std(ddof=1) / math.sqrt(count))
    middle, half = over_seeds(values.tolist())
    assert middle == pytest.approx(values.mean())
    assert half == pytest.approx((high - low) / 2, rel=0.02)
    assert half >= (high - low) / 2 * 0.999
    assert over_seeds([2.0]) == (2.0, math.inf)


def test_verdicts():
    assert verdict([0.2, 0.21, 0.19]) == "win"
    assert verdict([-0.2, -0.21, -0.19]) == "loss"
    assert verdict([0.4, -0.1, 0.1]) == "even"
    assert verdict([0.0, 0.0]) == "even"
    assert [verdict([value]) for value in (0.1, -0.1, 0.0)] == [
        "ahead, one seed",
        "behind, one seed",
        "equal, one seed",
    ]


def test_summary_pairs_the_best_of_both_by_seed():
    plan = Plan([], [], ("1", "all"), 3, ("lora", "head"), ("majority", "probe"))
    scores = {
        ("lora", "1"): (0.5, 0.6, 0.7), ("head", "1"): (0.4, 0.9, 0.1),
        ("probe", "1"): (0.4, 0.5, 0.6), ("majority", "1"): (0.2, 0.2, 0.2),
        ("lora", "all"): (0.9, 0.9, 0.9), ("head", "all"): (0.8, 0.8, 0.8),
        ("probe", "all"): (0.9, 1.0, 0.8), ("majority", "all"): (0.2, 0.2, 0.2),
    }  # fmt: skip
    cells = [
        cell(name, shots, seed, value, name in plan.rivals, 1.0 if shots == "1" else 10.0)
        for (name, shots), values in scores.items()
        for seed, value in enumerate(values)
    ]
    found = summary(cells, plan, {"higher_is_better": True})
    first, last = found["duels"]
    assert (first["method"], first["rival"], first["verdict"]) == ("lora", "probe", "win")
    assert first["difference"] == pytest.approx(0.1)
    assert last["verdict"] == "even"
    lora = found["curves"][0]
    assert [point["score"] for point in lora["points"]] == pytest.approx([0.6, 0.9])
    assert lora["area"]["mean"] == pytest.approx(np.mean([0.7, 0.75, 0.8]))
    assert lora["area"]["half"] == pytest.approx(4.303 * 0.05 / math.sqrt(3))
    errors = summary(cells, plan, {"higher_is_better": False})["duels"][0]
    assert (errors["method"], errors["rival"], errors["verdict"]) == ("head", "majority", "even")


def test_names_stand_apart():
    places = apart([0.1, 0.1, 0.1, 0.97, 0.99], 0.06)
    assert min(np.diff(places)) >= 0.06 - 1e-9
    assert max(places) <= 1
    assert sorted(places) == places


# --- shots ---


def test_shots_are_read():
    assert read_shots("all,20,5,5") == ("5", "20", "all")
    for wrong in ("0", "x", "1,-2", "", "1.5"):
        with pytest.raises(InputError, match="--shots"):
            read_shots(wrong)


def test_more_shots_than_there_are():
    train = [Sample(str(n), "name", text=f"t{n}", targets=(("a", "b")[n % 3 == 0],)) for n in range(9)]
    kept, notes = distinct(("1", "5", "20", "50", "all"), train)
    assert kept == ("1", "5", "all")
    assert notes == ["20, 50 shots are left out: no answer has more than 6 rows, so they give no others"]
    kept, notes = distinct(("1", "20", "50"), train)
    assert kept == ("1", "20")
    assert "20 shots are all rows there are" in notes[1]
    documents = [Sample(str(n), "summarize", text=f"t{n}", targets=("a",)) for n in range(4)]
    kept, notes = distinct(("1", "2", "all"), documents)
    assert kept == ("2", "all")
    assert notes == ["1 shots are left out: they are one row in all"]


def test_every_method_gets_the_same_nested_shots(rows, measure, trained, tmp_path):
    data = rows(12, "train")
    measure(data, test=rows(6, "test"), methods="lora,head")
    by_cell = {(call.method, call.seed, call.data.stem): call.rows for call in trained}
    train = list(read_rows(data))
    for seed in range(2):
        taken = [by_cell["lora", seed, f"seed{seed}_{shots}"] for shots in ("1", "2", "all")]
        assert taken == [by_cell["head", seed, f"seed{seed}_{shots}"] for shots in ("1", "2", "all")]
        assert [len(part) for part in taken] == [3, 6, 12]
        assert set(taken[0]) < set(taken[1]) < set(taken[2])
        assert taken[0] == [sample.id for sample in take_shots(train, 1, seed=seed)]
    assert by_cell["lora", 0, "seed0_1"] != by_cell["lora", 1, "seed1_1"]


# --- cells ---


def test_a_run_that_is_killed_goes_on(rows, measure, trained, monkeypatch, tmp_path):
    data, test = rows(12, "train"), rows(6, "test")
    run = page.Runner.__call__
    done = []

    def killed(self, *key):
        if len(done) == 5:
            raise KeyboardInterrupt
        done.append(key)
        return run(self, *key)

    monkeypatch.setattr(page.Runner, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(data, test=test)
    kept = (tmp_path / "out" / "cells.jsonl").read_text()
    assert len(kept.splitlines()) == 5

    monkeypatch.setattr(page.Runner, "__call__", lambda self, *key: done.append(key) or run(self, *key))
    result = measure(data, test=test, resume=True)
    assert len(done) == len(set(done)) == len(result["cells"]) == 3 * 2 * 3
    assert (tmp_path / "out" / "cells.jsonl").read_text().startswith(kept)
    count = len(trained)
    assert measure(data, test=test, resume=True)["cells"] == result["cells"]
    assert len(trained) == count


def test_a_folder_is_gone_on_with_only_when_asked_and_unchanged(rows, measure):
    data, test = rows(6, "train"), rows(6, "test")
    measure(data, test=test, shots="1", seeds=1)
    with pytest.raises(InputError, match="--out: holds cells of an earlier run; go on with --resume"):
        measure(data, test=test, shots="1", seeds=1)
    with pytest.raises(InputError, match="--resume: its cells were made with other settings: test"):
        measure(data, test=rows(9, "other"), shots="1", seeds=1, resume=True)
    more = measure(data, test=test, shots="1,2", seeds=2, resume=True)  # more cells are no other setting
    assert len(more["cells"]) == 2 * 2 * 3


def test_a_method_that_cannot_learn_the_rows_is_left_out(tmp_path):
    from rich.console import Console

    plan = Plan([], [], ("1",), 2, ("lora", "head"), ("majority",))
    cells = []

    def run(name, shots, seed):
        if name == "head":
            raise InputError("a head picks one of a few")
        return cell(name, shots, seed, rival=name == "majority")

    left_out = run_cells(plan, cells, run, tmp_path / "cells.jsonl", Console(quiet=True))
    assert left_out == {"head": "a head picks one of a few"}
    assert [one.key for one in cells] == [
        ("majority", "1", 0),
        ("lora", "1", 0),
        ("majority", "1", 1),
        ("lora", "1", 1),
    ]
    alone = Plan([], [], ("1",), 1, ("head",), ("majority",))
    with pytest.raises(InputError, match="a head picks"):
        run_cells(alone, [], run, tmp_path / "cells.jsonl", Console(quiet=True))


def test_test_media_are_encoded_once_but_anew_when_timed(rows, loaded, tmp_path):
    samples = list(read_rows(rows(3, "test", choices=["red", "blue", "green"])))
    predictor = Predictor(*loaded)
    cache = FeatureCache(tmp_path / "features", 10**8)
    predictor.keep_features(cache)
    calls = []
    hook = predictor.model.encoders["image"].register_forward_hook(lambda _, items, __: calls.append(len(items[0])))
    page._answers(predictor, samples, False)
    page._answers(predictor, samples, False)
    assert sum(calls) == 3
    page._answers(predictor, samples, True)
    hook.remove()
    assert sum(calls) == 6
    assert predictor.cache is cache


# --- the whole ---


def test_the_result_says_everything(rows, measure, tmp_path):
    result = measure(rows(12, "train"), test=rows(9, "test"), rivals="auto")
    assert result["task"] == "classify"
    assert result["metric"] == {"name": "accuracy", "unit": "fraction", "higher_is_better": True}
    assert result["answers"] == 3
    assert result["command"].startswith("monoglot fewshot --model ")
    assert [curve["name"] for curve in result["curves"]] == ["lora", "majority", "probe", "finetune"]
    probe = result["curves"][2]
    assert [point["each"] for point in probe["points"]] == [1, 2, 4]
    assert probe["points"][-1]["score"] > 0.9
    assert result["curves"][1]["points"][0]["score"] == pytest.approx(1 / 3)
    assert all(duel["verdict"] == "loss" for duel in result["duels"][1:])  # the tiny model has learned nothing
    assert {"model", "data", "test", "shots", "seeds"} <= set(result["settings"])
    assert str(tmp_path) not in json.dumps({key: value for key, value in result.items() if key != "command"})
    one = result["cells"][0]
    assert set(one) >= {"score", "seconds", "megabytes", "seconds_row", "rows", "seed"}
    assert (tmp_path / "out" / "fewshot.png").read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "out" / "report.html").read_text()
    for words in ("Few shots: classify", "fine-tuned", "monoglot, lora", "monoglot fewshot --model"):
        assert words in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert not (tmp_path / "out" / "adapters").exists()


def test_a_head_that_is_really_fitted(rows, model_folder, tmp_path, monkeypatch):
    """Nothing is replaced here but the downloaded encoder: the tiny model tells colours apart by its head."""
    monkeypatch.setattr(page, "Encoded", partial(Encoded, colours))
    monkeypatch.setenv("MONOGLOT_CACHE", str(tmp_path / "cache"))
    settings = {"shots": "2,all", "seeds": 1, "methods": "head", "rivals": "none"}
    fewshot(str(model_folder), rows(18, "train"), tmp_path / "out", test=rows(9, "test"), **settings)
    result = json.loads((tmp_path / "out" / "fewshot.json").read_text())
    head, plain = result["curves"]
    assert (head["name"], plain["name"]) == ("head", "majority")
    assert head["points"][-1]["score"] > plain["points"][-1]["score"]
    assert 0 < head["points"][0]["megabytes"] < 5
    assert result["duels"][-1]["verdict"] == "ahead, one seed"


def test_without_test_rows_groups_are_set_apart(rows, measure, tmp_path, capsys):
    result = measure(rows(24, "train"), shots="1", seeds=1)
    assert result["settings"]["data"]["rows"] + result["settings"]["test"]["rows"] == 24
    assert result["settings"]["test"]["rows"] >= 3
    assert any(note.startswith("no --test:") for note in result["notes"])
    assert "note: no --test:" in capsys.readouterr().out


def test_answers_that_training_has_not_are_told(rows, measure):
    result = measure(rows(6, "train", ("red", "blue")), test=rows(6, "test"), shots="1", seeds=1)
    assert any("'green'" in note for note in result["notes"])


def test_test_rows_may_be_limited(rows, measure):
    result = measure(rows(6, "train"), test=rows(9, "test"), shots="1", seeds=1, limit_test=4)
    assert result["settings"]["test"]["rows"] == 4


def test_wrong_settings_are_told_before_anything_is_trained(rows, measure, trained, tmp_path):
    data, test = rows(6, "train"), rows(3, "test")
    for wrong, settings in {
        "--methods: no method named 'laro'; closest: 'lora'": {"methods": "laro"},
        "--methods: names none": {"methods": ""},
        "no rival named 'prob'; closest: 'probe'": {"rivals": "prob"},
        "--seeds: is 0": {"seeds": 0},
        "--shots: 'many' is no number": {"shots": "many"},
    }.items():
        with pytest.raises(InputError, match=wrong):
            measure(data, test=test, **settings)
    mixed = tmp_path / "mixed.jsonl"
    samples = list(read_rows(data))
    other = {"id": "x", "task": "vqa", "text": "what?", "image": samples[0].media[0].source, "target": "red"}
    mixed.write_text("".join(json.dumps(row) + "\n" for row in [*map(row_of, samples), other]))
    with pytest.raises(InputError, match="task: the rows have several: classify, vqa; give the rows of one task"):
        measure(mixed, test=test)
    with pytest.raises(InputError, match=r"--test: .* rows are too few to set some apart"):
        measure(data)
    assert not trained
    assert not (tmp_path / "out").exists()


def test_the_verb(command, rows, trained, model_folder, tmp_path):
    data, test, out = rows(6, "train"), rows(3, "test"), tmp_path / "curve"
    call = ("fewshot", "--model", model_folder, "--data", data, "--test", test, "--out", out)
    settings = ("--shots", "1,all", "--seeds", 1, "--methods", "lora", "--rivals", "none")
    code, said, _ = command(*call, *settings)
    assert code == 0
    assert "most common answer" in said
    assert said.splitlines()[-1] == str(out / "report.html")
    code, _, told = command(*call, *settings)
    assert code == 2
    assert "--resume" in told
