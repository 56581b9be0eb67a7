"""Coefficients are found on validation rows; what matters to a model is measured; the result is told honestly."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from family import moved, saved, start

from monoglot.decode.predict import load
from monoglot.errors import InputError
from monoglot.evaluate.run import evaluate
from monoglot.merge import figure
from monoglot.merge import run as run_module
from monoglot.merge.information import fisher_information, log_likelihood
from monoglot.merge.plan import Coefficients
from monoglot.merge.recipe import make_page
from monoglot.merge.run import merge
from monoglot.merge.score import Judge, Measured, read_answered, row_losses, verdict
from monoglot.merge.search import look
from monoglot.store import read_weights


@pytest.fixture
def texts(tmp_path):
    """Write rows about words; returns the file."""

    def write(name: str, *words: str) -> str:
        rows = [{"id": w, "task": "summarize", "text": f"the {w}", "target": w} for w in words]
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


# --- the search itself ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", [0.07, 0.3, 0.5, 0.62, 0.9])
def test_two_parents_by_a_grid_and_its_neighbours(best):
    asked = []

    def measured(c: Coefficients) -> float:
        asked.append(c)
        assert sum(c.weights) == pytest.approx(1)
        return abs(c.weights[1] - best)

    found = look(Coefficients((0.5, 0.5)), measured, 12)
    assert found.weights[1] == pytest.approx(best, abs=1 / 16 + 1e-9)
    assert len(asked) == len(set(asked)) == 7
    assert look(Coefficients((0.5, 0.5)), measured, 1).weights == (0.5, 0.5)


def test_several_parents_one_at_a_time():
    wanted = np.array([0.7, 0.25, 0.05])

    def measured(c: Coefficients) -> float:
        assert sum(c.weights) == pytest.approx(1)
        return float(np.abs(np.array(c.weights) - wanted).sum())

    equal = Coefficients((1 / 3,) * 3)
    assert measured(look(equal, measured, 20)) < 0.5 * measured(equal)


def test_scale_follows_weights():
    def measured(c: Coefficients) -> float:
        return abs(c.weights[1] - 0.25) + abs(c.scale - 1.5)

    found = look(Coefficients((0.5, 0.5)), measured, 12, scaled=True)
    assert (found.weights, found.scale) == ((0.75, 0.25), 1.5)
    alone = look(Coefficients((1.0,), scale=0.5), lambda c: abs(c.scale - 0.4), 12, scaled=True)
    assert (alone.weights, alone.scale) == ((1.0,), 0.375)


# --- what is measured -------------------------------------------------------------------------------------------------


def test_a_metric_is_that_of_evaluate(model_folder, coloured_rows, tmp_path):
    rows = [json.loads(line) for line in coloured_rows(8).read_text().splitlines()]
    names = tmp_path / "names.jsonl"
    names.write_text("".join(json.dumps(row) + "\n" for row in rows if row["task"] == "name"))
    judge = Judge([names], cache=tmp_path / "features")
    (found,) = judge.measure(model_folder)
    score = evaluate(load(model_folder), read_answered(names))[0][0]
    assert (found.metric, found.rows, found.rows_from) == (score.metric, 8, "names")
    assert (found.value, found.low, found.high) == (score.value, score.low, score.high)
    assert judge.measure(model_folder) == [found]  # from kept features now


def test_a_loss_is_the_mean_over_tokens(family, texts):
    file = texts("rows", "red", "blue", "the red")
    (found,) = Judge([file], "loss").measure(family["a"])
    predictor = load(family["a"])
    samples = read_answered(Path(file))
    total = sum(float(-log_likelihood(predictor.model, predictor.preparer, s).detach()) for s in samples)
    tokens = row_losses(predictor, samples)[:, 1].sum()
    assert found.value == pytest.approx(total / tokens, rel=1e-4)
    assert found.low < found.value < found.high
    assert not found.higher_is_better


def test_rows_that_cannot_be_searched_on(texts, tmp_path, family):
    file = texts("rows", "red", "blue")
    with pytest.raises(InputError, match="the row is searched on too; keep test rows apart"):
        Judge([file]).check_apart(Judge([texts("others", "green", "blue")]))
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(InputError, match=r"empty\.jsonl: has no rows"):
        Judge([empty])
    mixed = tmp_path / "mixed.jsonl"
    other = {"id": "9", "task": "infill", "text": "a <mask> b", "target": "a c b"}
    mixed.write_text(Path(file).read_text() + json.dumps(other) + "\n")
    with pytest.raises(InputError, match=r"mixed\.jsonl: task: has infill, summarize; give a file for each task"):
        Judge([mixed])
    unanswered = tmp_path / "unanswered.jsonl"
    unanswered.write_text(json.dumps({"id": "1", "task": "summarize", "text": "x"}) + "\n")
    with pytest.raises(InputError, match=r"unanswered\.jsonl:1: target: is missing"):
        Judge([unanswered])
    settings = {"method": "interpolate", "out": str(tmp_path / "m"), "search": {"data": [file]}, "test": [file]}
    with pytest.raises(InputError, match="keep test rows apart"):
        merge(make_page({"parents": [family["a"], family["b"]], **settings}), quiet=True)


def test_the_verdict():
    def score(value: float, low: float, high: float, up: bool = True) -> list[Measured]:
        return [Measured("rows", "accuracy" if up else "loss", 100, value, low, high, up)]

    told = verdict({"a": score(0.8, 0.7, 0.9), "b": score(0.3, 0.2, 0.4), "merged": score(0.6, 0.5, 0.7)})
    assert told == "Merging hurts: rows 0.600 against 0.800 (0.700 .. 0.900) of a"
    told = verdict({"a": score(0.8, 0.7, 0.9), "b": score(0.3, 0.2, 0.4), "merged": score(0.75, 0.6, 0.8)})
    assert told == "Merging does not hurt: rows 0.750 against 0.800 (0.700 .. 0.900) of a"
    losses = {"a": score(1.0, 0.9, 1.1, False), "b": score(2.0, 1.9, 2.1, False)}
    assert verdict({**losses, "merged": score(1.2, 1.1, 1.3, False)}).startswith("Merging hurts")
    assert verdict({**losses, "merged": score(1.05, 1.0, 1.2, False)}).startswith("Merging does not hurt")
    alone = [replace(score(1.0, 0, 0)[0], low=None, high=None)]  # a single row says nothing about spread
    assert verdict({"a": alone, "merged": score(0.0, 0, 0)}).startswith("Merging does not hurt")


# --- from end to end --------------------------------------------------------------------------------------------------


def test_the_search_finds_the_model_in_between(tmp_path, texts):
    """A model that was trained, and two that stand on either side of it: the search comes back to it."""
    good = learned(start(), Path(texts("train", "red", "blue")))
    away = moved(good, 5, size=0.05).state_dict()
    ends = {}
    for name, way in (("near", -0.25), ("far", 0.75)):  # near + 0.25 (far - near) is the good one
        model = moved(good, 0, size=0.0)
        state = {n: t + way * (away[n] - t) * 12 for n, t in good.state_dict().items()}
        model.load_state_dict(state)
        ends[name] = saved(tmp_path / name, model)
    page = {
        "parents": [ends["near"], ends["far"]],
        "method": "interpolate",
        "search": {"data": [texts("valid", "red", "blue")], "score": "loss"},
        "test": [texts("test", "red ", "blue ")],
        "out": str(tmp_path / "m"),
    }
    done = merge(make_page(page), quiet=True)
    assert done.coefficients.weights == pytest.approx((0.75, 0.25), abs=0.07)
    assert done.verdict.startswith("Merging does not hurt: test")
    table = json.loads((done.folder / "search.json").read_text())
    assert [trial["model"] for trial in table["trials"]] == [ends["near"], ends["far"], *["merged"] * 7]
    losses = [trial["scores"][0]["value"] for trial in table["trials"]]
    assert min(losses[2:]) < min(losses[:2])
    assert table["chosen"] == {"weights": list(done.coefficients.weights), "scale": 1.0}
    assert (done.folder / "search.png").read_bytes().startswith(b"\x89PNG")
    lineage = json.loads((done.folder / "lineage.json").read_text())
    assert lineage["scores"]["merged"][0]["rows"] == 2
    assert done.verdict in (done.folder / "README.md").read_text()
    # The folder holds the model of the chosen trial.
    (again,) = Judge(page["search"]["data"], "loss").measure(done.folder)
    assert again.value == min(losses[2:])


def learned(model, file: Path, steps: int = 60):
    """The model after a few plain steps on the rows of a file."""
    from small import tiny_tokenizer

    from monoglot.decode.predict import Predictor

    predictor = Predictor(model, tiny_tokenizer())
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    samples = read_answered(file)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(-log_likelihood(model, predictor.preparer, sample) for sample in samples).backward()
        optimizer.step()
    return model.eval()


def test_several_files_make_a_front(family, tmp_path, texts):
    page = {
        "parents": [family["a"], family["b"], family["c"]],
        "method": "task_arithmetic",
        "base": family["base"],
        "search": {"data": [texts("one", "red"), texts("two", "blue")], "score": "loss", "trials": 3},
        "out": str(tmp_path / "m"),
    }
    done = merge(make_page(page), quiet=True)
    assert len(done.trials) == 3 + 3
    assert all(len(trial.scores) == 2 for trial in done.trials)
    assert "on the rows that were searched" in done.verdict
    assert (done.folder / "search.png").is_file()


def test_without_matplotlib_a_line_says_so(monkeypatch, tmp_path):
    import builtins

    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'monoglot[report]'" in figure.draw([], ["rows"], tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


# --- Fisher information -----------------------------------------------------------------------------------------------


def test_fisher_information_is_the_mean_squared_gradient(family, texts):
    """Against differences of log p in two places of each tensor."""
    samples = read_answered(Path(texts("rows", "red", "blue", "the")))
    predictor = load(family["a"])
    names = ["decoder_layers.1.ffn.up.weight", "words.weight", "encoder_norm.bias"]
    found = fisher_information(predictor, samples, [*names, "no.parameter"])
    assert list(found) == [n for n, _ in predictor.model.named_parameters() if n in names]
    parameters = dict(predictor.model.named_parameters())
    for name in names:
        flat, information = parameters[name].data.reshape(-1), found[name].reshape(-1)
        for place in (int(information.argmax()), len(flat) // 2):
            squares = []
            for sample in samples:
                ends = []
                for step in (1e-2, -1e-2):
                    flat[place] += step
                    ends.append(float(log_likelihood(predictor.model, predictor.preparer, sample).detach()))
                    flat[place] -= step
                squares.append(((ends[0] - ends[1]) / 2e-2) ** 2)
            assert information[place].item() == pytest.approx(np.mean(squares), rel=0.02, abs=1e-5)


def test_fisher_from_end_to_end(family, tmp_path, texts):
    files = [texts("one", "red", "blue"), texts("two", "the", "what")]
    page = {"parents": [family["a"], family["b"]], "method": "fisher", "fisher_data": files, "out": str(tmp_path / "m")}
    done = merge(make_page(page), quiet=True)
    one, other = (
        fisher_information(load(family[p]), read_answered(Path(file)), ["encoder_norm.weight"])["encoder_norm.weight"]
        for p, file in zip("ab", files)
    )
    a, b, found = (
        read_weights(Path(folder) / "model.safetensors")["encoder_norm.weight"]
        for folder in (family["a"], family["b"], done.folder)
    )
    torch.testing.assert_close(found, (one * a + other * b) / (one + other), rtol=1e-4, atol=1e-5)


def test_fisher_reads_rows_before_it_measures(family, tmp_path, texts, monkeypatch):
    monkeypatch.setattr(run_module, "write_model", lambda *_: pytest.fail("too late"))
    page = {"parents": [family["a"], family["b"]], "method": "fisher", "fisher_data": ["none.jsonl"]}
    with pytest.raises(InputError, match=r"none\.jsonl"):
        merge(make_page({**page, "out": str(tmp_path / "m")}), quiet=True)
