"""Training a part of a model: low-rank changes and connectors, alone or folded in; the best look's weights in the end."""

from __future__ import annotations

import json
import math

import pytest
import torch
from pydantic import ValidationError
from runs import metrics, source, stored
from safetensors.torch import load_file

from monoglot.adapters import is_adapter, read_adapter
from monoglot.decode.predict import load
from monoglot.errors import InputError
from monoglot.model.lora import Lora, lora_names
from monoglot.store import load_model
from monoglot.train.checkpoint import BEST, read_best, write_best
from monoglot.train.loop import train
from monoglot.train.optim import freeze
from monoglot.train.recipe import Recipe
from monoglot.train.run import Run
from monoglot.train.start import start_model

LORA = {"adapter": True, "lora": {"rank": 2}, "optimizer": {"lr": 0.02}}
WATCHED = {
    "steps": 24,
    "validation": [{"name": "v", "data": "held_out.jsonl"}],
    "validate_every": 3,
    "optimizer": {"lr": 0.3, "warmup": 0, "schedule": "constant"},
    "plateau": {"scores": ["v"], "patience": 90, "best": True},
}
"""A rate so high that the last weights are not the best."""
WILD = {"lr": 0.5, "warmup": 0, "schedule": "constant"}


@pytest.fixture
def finished(monkeypatch):
    """The model of each run as it was trained, in float32, before it is stored."""
    models = []
    finish = Run.finish

    def keep(self):
        models.append({name: tensor.clone() for name, tensor in self.model.state_dict().items()})
        return finish(self)

    monkeypatch.setattr(Run, "finish", keep)
    return models


def start_weights(recipe: Recipe) -> dict[str, torch.Tensor]:
    return start_model(recipe)[0].state_dict()


# --- what is trained --------------------------------------------------------------------------------------------------


def test_only_low_rank_changes_are_trained(texts, tmp_path, finished):
    recipe = Recipe.model_validate(texts(steps=4, **LORA))
    before = start_weights(recipe)
    folder = train(recipe, tmp_path / "run", quiet=True)
    changed = {name for name, tensor in finished[0].items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert set(read_adapter(folder).changes) == changed
    moments = {name for name in stored(tmp_path / "run") if name.endswith("exp_avg")}
    assert len(moments) == len(changed)


def test_the_adapter_answers_as_the_trained_model_did(texts, tmp_path, finished):
    recipe = Recipe.model_validate(texts(steps=6, **LORA))
    folder = train(recipe, tmp_path / "run", quiet=True)
    assert is_adapter(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "adapter.json",
        "adapter.safetensors",
        "lineage.json",
    ]
    model, _ = load_model(folder)
    for name, tensor in model.state_dict().items():
        wanted = finished[0][name]
        assert torch.equal(tensor, wanted.half().float() if "lora_" in name else wanted)
    page = json.loads((folder / "adapter.json").read_text())
    assert (page["method"], page["lora"]["rank"], page["base"]["path"]) == ("lora", 2, "../../start")
    # A base that is loaded already answers just so under it.
    rows = [{"id": str(n), "task": "summarize", "text": f"a {n} is red"} for n in range(3)]
    alone = [answer.text for answer in load(folder).predict_many(rows)]
    assert alone == [answer.text for answer in load(tmp_path / "start").with_adapter(folder).predict_many(rows)]


def test_without_adapter_the_change_is_folded_in(texts, tmp_path, finished):
    recipe = Recipe.model_validate(texts(steps=6, **(LORA | {"adapter": False})))
    folder = train(recipe, tmp_path / "run", quiet=True)
    assert not is_adapter(folder)
    model, _ = load_model(folder)
    assert lora_names(model) == []
    trained = finished[0]
    for name, tensor in model.state_dict().items():
        wanted = trained[name]
        part = name.removesuffix(".weight")
        if f"{part}.lora_up" in trained and name.endswith(".weight"):
            wanted = wanted + 16 / 2 * trained[f"{part}.lora_up"] @ trained[f"{part}.lora_down"]
            wanted = wanted.to(torch.bfloat16).float()  # what was not trained is stored as it was
        assert torch.equal(tensor, wanted), name


def test_going_on_from_an_adapter(texts, tmp_path, finished):
    """It begins with the changes as stored; the new adapter is of the same base, which is unharmed."""
    first = train(Recipe.model_validate(texts(steps=4, **LORA)), tmp_path / "one", quiet=True)
    page = texts(steps=4, adapter=True, start=str(first), optimizer={"lr": 0.02})
    recipe = Recipe.model_validate(page)
    before = start_weights(recipe)
    adapter = read_adapter(first)
    assert all(torch.equal(before[name], tensor) for name, tensor in adapter.changes.items())
    second = read_adapter(train(recipe, tmp_path / "two", quiet=True))
    assert set(second.changes) == set(adapter.changes)
    assert not any(torch.equal(second.changes[name], tensor) for name, tensor in adapter.changes.items())
    assert second.settings.lora == adapter.settings.lora == Lora(rank=2)
    assert second.settings.base.sha256 == adapter.settings.base.sha256
    assert second.settings.base.path == "../../start"
    assert torch.equal(
        load_model(tmp_path / "two" / "model")[0].words.weight, load_model(tmp_path / "start")[0].words.weight
    )
    # Without `adapter` it is folded first, and the whole model is trained.
    whole = train(Recipe.model_validate(page | {"adapter": False}), tmp_path / "three", quiet=True)
    assert not is_adapter(whole)
    assert lora_names(load_model(whole)[0]) == []


def test_changes_over_changes_are_told(texts, tmp_path):
    first = train(Recipe.model_validate(texts(steps=2, **LORA)), tmp_path / "one", quiet=True)
    with pytest.raises(InputError) as caught:
        train(Recipe.model_validate(texts(steps=2, **LORA) | {"start": str(first)}), tmp_path / "two", quiet=True)
    assert str(caught.value) == (
        "recipe: lora: the model has low-rank changes already; go on training those, or fold them first"
    )
    assert not (tmp_path / "two").exists()


def test_only_connectors(recipe, tmp_path, finished):
    page = recipe(steps=3, adapter=True, train_only=["source.connectors.image"])
    before = start_weights(page)
    folder = train(page, tmp_path / "run", quiet=True)
    changed = {name for name, tensor in finished[0].items() if not torch.equal(tensor, before[name])}
    assert changed == {"source.connectors.image.weight", "source.connectors.image.bias"}
    adapter = read_adapter(folder)
    assert set(adapter.changes) == changed
    assert (adapter.settings.method, adapter.settings.lora) == ("connector", None)
    # Low-rank changes on top of that: the adapter holds both.
    more = recipe(steps=2, adapter=True, lora={"rank": 1}, start=str(folder))
    both = read_adapter(train(more, tmp_path / "more", quiet=True)).changes
    assert {name for name in both if "lora_" not in name} == changed
    assert all(torch.equal(both[name], adapter.changes[name]) for name in changed)


def test_names_that_train_nothing(texts, tmp_path):
    with pytest.raises(
        InputError, match=r"^recipe: train_only: no parameter starts with 'source\.connectors\.image'; "
    ):
        train(Recipe.model_validate(texts(steps=2, train_only=["source.connectors.image"])), tmp_path / "r", quiet=True)


def test_freeze_and_train_only():
    from torch import nn

    model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})

    def trained():
        return [name for name, parameter in model.named_parameters() if parameter.requires_grad]

    freeze(model, ["a"])
    assert trained() == ["b.weight", "b.bias"]
    freeze(model, ["nowhere"], ["a.w"])
    assert trained() == ["a.weight"]
    freeze(model, [])
    assert trained() == ["a.weight", "a.bias", "b.weight", "b.bias"]


# --- the best look ----------------------------------------------------------------------------------------------------


def held_out_loss(recipe: Recipe, weights: dict[str, torch.Tensor], tmp_path) -> float:
    """What a look says of some weights: a run of its own begins, and nothing is trained in it."""
    from monoglot.train.distributed import open_world

    world = open_world()
    try:
        with Run(recipe, tmp_path / f"look{len(list(tmp_path.iterdir()))}", world, quiet=True) as run:
            run.model.load_state_dict(weights)
            return run.look.losses(run.stage.trainee)["v"]
    finally:
        world.close()


@pytest.mark.parametrize("changes", [{}, {"ema": 0.1}, {"lora": {"rank": 2}, "adapter": True, "optimizer": WILD}])
def test_a_stage_ends_with_its_best_look(texts, tmp_path, finished, changes):
    for seed in range(6):  # until a run's last weights are not its best, which is a matter of luck
        recipe = Recipe.model_validate(texts(**(WATCHED | changes | {"seed": seed})))
        finished.clear()
        folder = train(recipe, tmp_path / f"run{seed}", quiet=True)
        looks = [line["held_out"]["v"] for line in metrics(tmp_path / f"run{seed}", "held_out")]
        assert len(looks) == 8
        if min(looks) < looks[-1] - 0.01:
            break
    else:
        pytest.fail("the last is as good as the best, whatever the seed")
    assert held_out_loss(recipe, finished[0], tmp_path) == pytest.approx(min(looks), abs=2e-6)
    assert load_model(folder)


def test_a_killed_run_ends_with_the_same_best(texts, losses, tmp_path, finished):
    recipe = Recipe.model_validate(texts(**WATCHED))
    whole = losses(recipe, tmp_path / "whole")
    looks = [line["held_out"]["v"] for line in metrics(tmp_path / "whole", "held_out")]
    best = 3 * (looks.index(min(looks)) + 1)
    for number, (save, stop) in enumerate([(best - 2, best + 1), (best, best + 2)]):
        run = tmp_path / f"run{number}"
        losses(recipe, run, save=save, stop=stop)
        assert losses(recipe, run, resume=True) == whole[save + 1 :]
        assert finished[-1].keys() == finished[0].keys()
        assert all(torch.equal(tensor, finished[0][name]) for name, tensor in finished[-1].items())
        one, other = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "whole", run))
        assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_the_last_weights_are_looked_at_too(texts, tmp_path):
    """The stage ends between two looks, and goes on falling: its last weights are its best."""
    page = texts(**WATCHED) | {"steps": 8, "optimizer": {"lr": 0.003}}
    train(Recipe.model_validate(page), tmp_path / "run", quiet=True)
    looks = metrics(tmp_path / "run", "held_out")
    assert [line["step"] for line in looks] == [3, 6, 8]
    falling = [line["held_out"]["v"] for line in looks]
    assert falling == sorted(falling, reverse=True)
    assert read_best(tmp_path / "run", 0)[0] == pytest.approx(falling[-1], abs=1e-6)


def test_the_best_of_another_run_does_not_count(texts, tmp_path, finished):
    """A run that begins anew in the folder of one that was killed before its first checkpoint."""
    recipe = Recipe.model_validate(texts(**WATCHED))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    write_best(tmp_path / "run", 0, -1.0, {"words.weight": torch.zeros(1)})
    train(recipe, tmp_path / "run", resume=True, quiet=True)
    assert read_best(tmp_path / "run", 0)[0] > 0


def test_each_stage_has_its_own_best(texts, tmp_path):
    page = texts(**WATCHED) | {"stages": [{"name": "one", "steps": 9}, {"name": "two", "steps": 9}]}
    train(Recipe.model_validate(page), tmp_path / "run", quiet=True)
    assert read_best(tmp_path / "run", 0) is None
    loss, weights = read_best(tmp_path / "run", 1)
    looks = [line["held_out"]["v"] for line in metrics(tmp_path / "run", "held_out") if line["step"] > 9]
    assert loss == pytest.approx(min(looks), abs=1e-6)
    assert weights


def test_a_damaged_best_is_told(tmp_path):
    write_best(tmp_path, 2, math.pi, {"a": torch.ones(2)})
    loss, weights = read_best(tmp_path, 2)
    assert loss == math.pi
    assert torch.equal(weights["a"], torch.ones(2))
    path = tmp_path / BEST
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(
        InputError, match=r"best\.safetensors: best: cannot be read \(.+\); delete it: the best look from"
    ):
        read_best(tmp_path, 2)


# --- pages that make no sense -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"adapter": True, "parallel": "fsdp"}, "parallel: adapter needs the whole model in each process; use 'ddp'"),
        ({"lora": {}, "parallel": "fsdp"}, "parallel: lora needs the whole model in each process; use 'ddp'"),
        (WATCHED | {"parallel": "fsdp"}, "parallel: plateau.best needs the whole model in each process; use 'ddp'"),
        ({"adapter": True, "start": "warm", "model": {}}, "adapter: needs a model folder as `start`"),
        ({"lora": {}, "start": "cold", "model": {}}, "lora: needs a model folder as `start`"),
        (
            {"adapter": True, "model_changes": {"dropout": 0.0}},
            "adapter: is for the model as `start` has it; leave out `model_changes`",
        ),
        (
            {"adapter": True, "freeze": ["words"], "words": {}},
            "words: an adapter keeps no rows of words; leave it out",
        ),
        (WATCHED | {"freeze": ["words"], "words": {}}, "words: plateau.best keeps no rows of words; leave it out"),
    ],
)
def test_pages_that_are_told(texts, changes, wrong):
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate({"steps": 2} | texts() | changes)
    assert caught.value.errors()[0]["msg"] == f"Value error, {wrong}"


def test_a_misspelt_setting(texts, tmp_path):
    import yaml

    from monoglot.train.recipe import read_recipe

    path = tmp_path / "page.yaml"
    path.write_text(yaml.safe_dump(texts(steps=2, lora={"rang": 3}, mixture=[source("a", quota=1)])))
    with pytest.raises(
        InputError, match=r"page\.yaml: lora\.rang: no key named 'rang'; closest: 'rank'; known: alpha, "
    ):
        read_recipe(path)
