"""A run in stages: what each draws, trains and sees; when it ends; what is told before anything starts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass

import pytest
import torch
import yaml
from runs import metrics, source, weights
from small import MODALITY_SETTINGS, tiny_model

from monoglot.data.mixture import Mixture
from monoglot.errors import InputError
from monoglot.store import load_model, save_model
from monoglot.train import run as run_module
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe, read_recipe
from monoglot.train.stages import make_plans
from monoglot.train.trainee import Trainee


@dataclass(frozen=True)
class Drawn:
    stage: str
    step: int
    name: str
    row: int
    epoch: int


@pytest.fixture
def run(texts, tmp_path, monkeypatch):
    """Run a page; gives every row that was trained on, in order."""

    def run(name="run", **changes) -> list[Drawn]:
        drawn: list[Drawn] = []
        do = run_module.Run.do

        def watched(self, step, waited):
            plan = self.stage.plan
            for d in self.stage.mixture.step(step.index):
                drawn.append(Drawn(plan.page.name, step.index, plan.names[d.source], d.row, d.epoch))
            do(self, step, waited)

        with monkeypatch.context() as patch:
            patch.setattr(run_module.Run, "do", watched)
            patch.setattr(run_module, "LOG_EVERY", 1)
            train(Recipe.model_validate(texts(**changes)), tmp_path / name, quiet=True)
        return drawn

    return run


def stages(run_folder) -> list[tuple[str, int]]:
    """(stage, step at which it begins) as the log has it."""
    return [(line["stage"], line["step"]) for line in metrics(run_folder, "event") if line["event"] == "stage"]


# --- what is drawn ----------------------------------------------------------------------------------------------------


def test_places_go_on_across_stages(run, tmp_path):
    """Nothing repeats before everything was seen, though the stages draw at other rates and one has more data sets."""
    drawn = run(
        stages=[
            {"name": "one", "steps": 3},
            {"name": "two", "steps": 2, "mixture": [source("b", quota=3), source("c", quota=1)]},
            {"name": "three", "steps": 4, "mixture": [source("c", quota=2), source("a", quota=1.5)], "replay": 0.25},
        ]
    )
    assert stages(tmp_path / "run") == [("one", 0), ("two", 3), ("three", 5)]
    assert [d.step for d in drawn] == sorted(d.step for d in drawn)
    assert {d.step for d in drawn} == set(range(9))
    for name, size in (("a", 12), ("b", 7), ("c", 5)):
        mine = [d for d in drawn if d.name == name]
        assert [d.epoch for d in mine] == [place // size for place in range(len(mine))]
        assert max(Counter((d.epoch, d.row) for d in mine).values()) == 1
    assert {d.name for d in drawn if d.stage == "three"} == {"a", "b", "c"}, "b is repeated"
    rows = Counter(d.name for d in drawn)
    logged = Counter()
    for line in metrics(tmp_path / "run", "loss"):
        logged.update(line["rows"])
    assert logged == rows


def test_replay_has_its_share(texts):
    recipe = Recipe.model_validate(
        texts(
            stages=[
                {"name": "one", "steps": 5},
                {"name": "two", "steps": 4000, "mixture": [source("c", quota=4)], "replay": 0.3},
            ]
        )
    )
    plan = make_plans(recipe)[1]
    assert plan.names == ["c", "a", "b"]
    mixture = Mixture(plan.names, [len(rows) for rows in plan.data], plan.quotas, seed=0)
    rows = Counter(draw.source for step in range(4000) for draw in mixture.step(step))
    assert rows.total() == pytest.approx(16000, abs=3), "steps stay as large"
    assert (rows[1] + rows[2]) / rows.total() == pytest.approx(0.3, abs=1e-3)
    assert rows[1] / rows[2] == pytest.approx(3 / 2, abs=1e-2), "as the stage before had them"


@pytest.mark.parametrize("balance", ["fixed", {"kind": "auto", "every": 2}])
def test_no_data_set_is_gone_through_too_often(run, balance):
    mixture = [source("a", weight=1), source("b", weight=1), source("c", weight=2)]
    drawn = run(mixture=mixture, rows=6, steps=30, max_repeats=4, balance=balance)
    rows = Counter(d.name for d in drawn)
    assert rows["c"] == 4 * 5
    assert rows["b"] == 4 * 7
    assert rows["a"] <= 4 * 12
    # Without the bound c would have 90 rows; what is cut goes to the others as far as they have room.
    assert rows.total() == 4 * (12 + 7 + 5)


def test_quotas_by_size_and_temperature(texts):
    def quotas(**changes):
        return make_plans(Recipe.model_validate(texts(steps=10, **changes)))[0].quotas

    three = [source(name) for name in "abc"]
    assert quotas(mixture=three, rows=6) == pytest.approx([2, 2, 2])
    assert quotas(mixture=three, rows=24, temperature=1) == pytest.approx([12, 7, 5])
    roots = [12**0.5, 7**0.5, 5**0.5]
    assert quotas(mixture=three, rows=1, temperature=2) == pytest.approx([root / sum(roots) for root in roots])
    mixed = [source("a", quota=1.5), source("b", weight=1), source("c", weight=3)]
    assert quotas(mixture=mixed, rows=5.5) == pytest.approx([1.5, 1, 3])
    assert quotas(mixture=[source("a"), source("b", weight=0)], rows=3) == [3, 0], "weight 0: it rests"


# --- what is trained --------------------------------------------------------------------------------------------------


def test_freeze_and_rates_of_a_stage(run, tmp_path, monkeypatch):
    """Weights move in the stages that train them; each stage has a schedule of its own."""
    kept = []
    next_stage = run_module.Run.next_stage

    def watched(self):
        kept.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        next_stage(self)

    monkeypatch.setattr(run_module.Run, "next_stage", watched)
    run(
        stages=[
            {"name": "one", "steps": 2, "freeze": ["words", "encoder_layers"]},
            {"name": "two", "steps": 3, "freeze": ["decoder_layers"], "optimizer": {"lr": 0.5}},
        ]
    )
    start, _ = load_model(tmp_path / "start")
    states = [start.state_dict(), *kept]

    def moved(stage: int) -> set[str]:
        before, after = states[stage : stage + 2]
        return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}

    assert "decoder_layers" in moved(0)
    assert not moved(0) & {"words", "encoder_layers"}
    assert {"words", "encoder_layers"} <= moved(1)
    assert "decoder_layers" not in moved(1)
    rates = [line["lr"] for line in metrics(tmp_path / "run", "lr")]
    assert rates == pytest.approx([0.01, 0.01, 0.5, 0.5, 0.25])


def test_model_changes_of_a_stage(recipe, tokenizer, tmp_path, monkeypatch):
    """Pictures get larger and clips longer from the second stage on, with the weights that the first has learned."""
    both = {"image": MODALITY_SETTINGS["image"], "video": MODALITY_SETTINGS["video"]}
    save_model(tmp_path / "two", tiny_model(encoders=True, modalities=both), tokenizer)
    seen = []
    encode = Trainee.encode

    def watched(self, batch):
        seen.extend((self.model.config.modalities["video"].frames, tuple(i.shape)) for i in batch.media["image"].items)
        return encode(self, batch)

    monkeypatch.setattr(Trainee, "encode", watched)
    changes = {"modalities": {"image": {"size": 96}, "video": {"frames": 3}}}
    train(
        recipe(
            start=str(tmp_path / "two"),
            feature_cache={"gigabytes": 0},
            stages=[{"name": "small", "steps": 2}, {"name": "large", "steps": 2, "model_changes": changes}],
            validation=[{"name": "v", "data": "name.jsonl", "rows": 2}],
            validate_every=2,
        ),
        tmp_path / "run",
        quiet=True,
    )
    sizes = [(frames, max(shape)) for frames, shape in seen]
    assert sizes == [(2, 64)] * 12 + [(3, 96)] * 12, "five rows a step and two held-out ones"
    model, _ = load_model(tmp_path / "run" / "model")
    assert (model.config.modalities["image"].size, model.config.modalities["video"].frames) == (96, 3)
    with pytest.raises(InputError, match="model_changes: the weights of the start do not fit"):
        train(recipe(stages=[{"name": "x", "steps": 1, "model_changes": {"ffn": 32}}]), tmp_path / "wrong", quiet=True)


def test_words_of_a_stage(run, tmp_path):
    """The second stage trains the words of its own answers; the first, all."""
    run(
        stages=[
            {"name": "one", "steps": 1},
            {"name": "two", "steps": 2, "freeze": ["words"], "words": {"others": 20}},
        ],
        ema=0.5,
    )
    assert "words.table" not in weights(tmp_path / "run")
    assert weights(tmp_path / "run", "weights.words.")["table"].shape[0] < 1100


# --- how it ends ------------------------------------------------------------------------------------------------------


def test_a_plateau_ends_a_stage(run, tmp_path):
    """At a rate of nothing the loss never falls: the look that finds it, and `patience` more."""
    still = {"optimizer": {"lr": 1e-12}}
    run(
        stages=[
            {"name": "one", "steps": 50, "plateau": {"scores": ["v"], "patience": 3}, **still},
            {"name": "two", "steps": 7, "plateau": {"scores": ["v"], "patience": 9}, **still},
        ],
        validation=[{"name": "v", "data": "held_out.jsonl"}],
        validate_every=2,
    )
    assert stages(tmp_path / "run") == [("one", 0), ("two", 8)]
    assert metrics(tmp_path / "run")[-1]["step"] == 15, "`steps` is the most"
    looks = metrics(tmp_path / "run", "held_out")
    assert [line["step"] for line in looks] == [2, 4, 6, 8, 10, 12, 14]
    lowest = min(line["held_out"]["v"] for line in looks)
    assert looks[-1]["regret"]["v"] == pytest.approx(looks[-1]["held_out"]["v"] - lowest, abs=1e-5)


def test_tokens_end_a_stage(run, tmp_path):
    run(stages=[{"name": "one", "tokens": 400}, {"name": "two", "steps": 1}], steps=None)
    one = [line for line in metrics(tmp_path / "run", "loss") if line["stage"] == "one"]
    read, told = 0, []
    for line in one:
        assert read < 400, "it ends with the step that reaches them"
        # The rate goes by tokens: up over the first 40, then down in a line.
        told.append((line["lr"], 0.01 * ((read + 1) / 40 if read < 40 else (400 - read) / 360)))
        read += line["tokens"]["source"] + line["tokens"]["target"]
    assert read >= 400
    assert [lr for lr, _ in told] == pytest.approx([expected for _, expected in told])
    assert stages(tmp_path / "run") == [("one", 0), ("two", len(one))]
    assert metrics(tmp_path / "run", "loss")[-1]["step"] == len(one)


def test_a_stage_in_passes(run, tmp_path):
    run(stages=[{"name": "one", "epochs": 1}, {"name": "two", "epochs": 2, "mixture": [source("c", quota=2)]}])
    assert stages(tmp_path / "run") == [("one", 0), ("two", 4)]
    assert metrics(tmp_path / "run")[-1]["step"] == 4 + 5


def test_the_same_stage_twice_is_one_run_cut_in_two(run, tmp_path):
    """Same rows, same words of the log; AdamW's moments and the schedule begin anew."""
    whole = run("whole", steps=6)
    parts = run("parts", stages=[{"name": "one", "steps": 2}, {"name": "two", "steps": 4}])
    assert [(d.step, d.name, d.row, d.epoch) for d in whole] == [(d.step, d.name, d.row, d.epoch) for d in parts]


def test_the_page_that_is_kept_gives_the_same_run(run, texts, tmp_path):
    """Though its stages say what they have not."""
    page = texts(
        freeze=["words"],
        words={"others": 5},
        epochs=3,
        temperature=2.0,
        stages=[{"name": "one", "steps": 1}, {"name": "two", "steps": 1, "words": None, "temperature": None}],
    )
    recipe = Recipe.model_validate(page)
    train(recipe, tmp_path / "run", quiet=True)
    assert read_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    assert recipe.curriculum[1].words is None
    train(read_recipe(tmp_path / "run" / "recipe.yaml"), tmp_path / "run", resume=True, quiet=True)
    lineage = json.loads((tmp_path / "run" / "model" / "lineage.json").read_text())
    assert Recipe.model_validate(lineage["recipe"]) == recipe
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text()) == lineage["recipe"]


# --- what is told before anything starts ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            '{"task": "sumarize", "text": "x", "target": "y"}\n',
            "c.jsonl:1: task: no task named 'sumarize'; closest: 'summ",
        ),
        ('{"task": "grounding", "text": "x", "box": [0, 0, 1, 1]}\n', "c.jsonl:1: image"),
        ("{\n" * 3, r"c.jsonl:1: broken JSON"),
        ("", "c.jsonl: data: has no rows; data set 'c' needs at least one"),
        (None, r"c.jsonl: data: cannot be read \(No such file or directory\)"),
    ],
)
def test_rows_that_are_no_tasks(texts, tmp_path, rows, message):
    """Also those of a later stage; no matter how many may be bad."""
    (tmp_path / "c.jsonl").unlink()
    if rows is not None:
        (tmp_path / "c.jsonl").write_text(rows)
    later = {"name": "two", "steps": 1, "mixture": [source("c", quota=1)]}
    page = texts(stages=[{"name": "one", "steps": 1}, later], quarantine_share=1)
    with pytest.raises(InputError, match=message) as caught:
        train(Recipe.model_validate(page), tmp_path / "run", quiet=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("bad", "share", "stops"), [(11, 0.01, True), (9, 0.01, False), (1, 0.0, True), (30, 1.0, False)]
)
def test_a_few_wrong_rows_do_not_keep_a_run_from_starting(texts, tmp_path, bad, share, stops):
    """What surely is more than the share that may be bad does; the rest is quarantined in its turn."""
    good = (tmp_path / "a.jsonl").read_text().splitlines() * 5
    wrong = [line.replace("summarize", "sumarize") if index < bad else line for index, line in enumerate(good)]
    (tmp_path / "a.jsonl").write_text("\n".join(wrong) + "\n")
    page = Recipe.model_validate(texts(steps=1, quarantine_share=share))
    if stops:
        with pytest.raises(InputError, match=r"a\.jsonl:1: task: no task named 'sumarize'"):
            make_plans(page)
    else:
        make_plans(page)


def test_too_little_to_draw(texts):
    page = texts(mixture=[source("a", quota=0.5)], steps=10)
    with pytest.raises(InputError, match=r"recipe: mixture: draws 0.5 rows a step; give at least one"):
        make_plans(Recipe.model_validate(page))
    page = texts(stages=[{"name": "one", "steps": 100, "max_repeats": 1}])
    with pytest.raises(InputError, match=r"recipe: stages.0.mixture: draws 0.19 rows a step; .* or max_repeats"):
        make_plans(Recipe.model_validate(page))


def test_held_out_rows_without_an_answer(texts, tmp_path):
    (tmp_path / "held_out.jsonl").write_text('{"task": "summarize", "text": "x"}\n')
    page = texts(steps=1, validation=[{"name": "v", "data": "held_out.jsonl"}], validate_every=1)
    with pytest.raises(InputError, match=r"held_out.jsonl:1: target: is missing; held-out rows need the answer"):
        train(Recipe.model_validate(page), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
