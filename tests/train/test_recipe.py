"""A run is one page: what is misspelt, missing or absurd is told by file and field, in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from small import MODALITY_SETTINGS, tiny_model

from monoglot import store
from monoglot.errors import InputError
from monoglot.store import save_model
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe, read_recipe

RECIPES = sorted((Path(__file__).parents[2] / "recipes").glob("*.yaml"))
PAGE = {
    "name": "r",
    "start": "some/model",
    "steps": 10,
    "mixture": [{"name": "a", "data": "a.jsonl", "quota": 2}, {"name": "b", "data": "b.jsonl", "quota": 3}],
}


def write(tmp_path, page=None, **changes) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump({**PAGE, **changes}) if page is None else page)
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_our_own_recipes_are_in_order(path):
    recipe = read_recipe(path)
    assert all(source.quota or source.weight for stage in recipe.curriculum for source in stage.mixture)
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_the_page_to_copy_runs_as_it_is(coloured_rows, tokenizer, tmp_path, monkeypatch):
    """Copied, with rows where it wants them, it trains the bundled model; here a tiny one stands in its place."""
    seeing = {"image": MODALITY_SETTINGS["image"]}
    save_model(tmp_path / "bundled" / "nano", tiny_model(encoders=True, modalities=seeing), tokenizer)
    monkeypatch.setattr(store, "BUNDLED", tmp_path / "bundled")
    (tmp_path / "mine").mkdir()
    rows = coloured_rows(4).read_text().replace('"image": "', f'"image": "{tmp_path}/')
    for split in ("train", "valid"):
        (tmp_path / "mine" / f"{split}.jsonl").write_text(rows)
    monkeypatch.chdir(tmp_path)
    page = next(path for path in RECIPES if path.stem == "finetune_forkme")
    recipe = read_recipe(page, ["steps=2", "validate_every=1", "feature_cache.gigabytes=0"])
    model = train(recipe, tmp_path / "run", quiet=True)
    assert json.loads((model / "lineage.json").read_text())["parents"] == ["nano"]
    assert "held_out" in (tmp_path / "run" / "metrics.jsonl").read_text()


def test_defaults_and_overrides(tmp_path):
    path = write(tmp_path)
    assert read_recipe(path).steps == 10
    changed = read_recipe(
        path, ["steps=20", "optimizer.lr=1e-4", "feature_cache.gigabytes=0", "freeze=[encoders]", "name=x=y"]
    )
    assert (changed.steps, changed.optimizer.lr, changed.feature_cache.gigabytes) == (20, 1e-4, 0)
    assert (changed.freeze, changed.name) == (("encoders",), "x=y")
    assert changed.optimizer.weight_decay == 0.01
    assert [source.quota for source in changed.mixture] == [2, 3]


SOURCE = PAGE["mixture"][0]
WEIGHED = {"name": "a", "data": "a.jsonl"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stps": 3}, "stps: no key named 'stps'; closest: 'steps'"),
        (
            {"optimizer": {"weight_deccay": 0}},
            "optimizer.weight_deccay: no key named 'weight_deccay'; closest: 'weight_decay'",
        ),
        ({"mixture": [{**SOURCE, "quotta": 1}]}, "mixture.0.quotta: no key named 'quotta'; closest: 'quota'"),
        ({"mixture": [{**SOURCE, "wieght": 1}]}, "mixture.0.wieght: no key named 'wieght'; closest: 'weight'"),
        (
            {"validation": [{"name": "v", "data": "v.jsonl", "rwos": 1}]},
            "validation.0.rwos: no key named 'rwos'; closest: 'rows'",
        ),
        ({"feature_cache": {"gigabyte": 1}}, "feature_cache.gigabyte: no key named 'gigabyte'; closest: 'gigabytes'"),
        ({"words": {"othres": 1}}, "words.othres: no key named 'othres'; closest: 'others'"),
        ({"model": {"widht": 3}}, "model.widht: no key named 'widht'; closest: 'width'"),
        ({"model": {"vocabulary": {"num_word": 3}}}, "model.vocabulary.num_word: .*closest: 'num_words'"),
        ({"model": {"modalities": {"image": {"sise": 3}}}}, "model.modalities: image: sise: .*closest: 'size'"),
        ({"model": {"modalities": {"imago": {}}}}, "model.modalities: no modality named 'imago'; closest: 'image'"),
        ({"mixture": []}, "mixture: has no data set; give at least one"),
        ({"mixture": [{**SOURCE, "quota": 0}]}, "mixture.0.quota: .*greater than 0"),
        ({"mixture": [{**WEIGHED, "weight": -1}], "rows": 4}, "mixture.0.weight: .*greater than or equal to 0"),
        ({"mixture": [{**SOURCE, "loss_weight": 0}]}, "mixture.0.loss_weight: .*greater than 0"),
        ({"mixture": [{**SOURCE, "weight": 1}]}, r"mixture.0: a: give quota \(rows a step\) or weight .* not both"),
        (
            {"mixture": [{**WEIGHED, "weight": 0}], "rows": 4},
            "mixture: the weights sum to zero; nothing would be drawn",
        ),
        ({"mixture": [WEIGHED]}, "rows: is missing; data sets without a quota share so many rows a step"),
        (
            {"mixture": [SOURCE, {**WEIGHED, "name": "b"}], "rows": 2},
            "rows: the quotas take 2 of 2 rows; nothing is left",
        ),
        ({"rows": 6}, "rows: is 6, but the quotas sum to 5; leave it out"),
        ({"mixture": [SOURCE, SOURCE]}, r"two data sets of the mixture have one name: \['a'\]"),
        ({"steps": 0}, "steps: .*greater than or equal to 1"),
        ({"steps": "many"}, "steps: .*integer"),
        ({"start": "warm"}, "start: warm needs the settings of a model under `model`"),
        ({"start": "cold"}, "start: cold needs the settings of a model under `model`"),
        ({"precision": "float16"}, "precision: "),
        ({"quarantine_share": 2}, "quarantine_share: "),
        ({"smoothing": 1}, "smoothing: "),
        ({"loss": {"kind": "cross"}}, "loss.kind: .*'cross_entropy'"),
        ({"loss": {"drop_wrst": 1}}, "loss.drop_wrst: no key named 'drop_wrst'; closest: 'drop_worst'"),
        ({"loss": {"kind": "self_critical", "r_drop": 1}}, "loss: r_drop: has no meaning for 'self_critical'"),
        ({"loss": {"kind": "self_critical"}, "smoothing": 0.1}, "smoothing: has no meaning for .*'self_critical'"),
        ({"loss": {"constrain": True}, "words": {}}, "words: cannot be used with loss.constrain"),
        ({"loss": {"kind": "self_critical"}, "words": {}}, "words: cannot be used with the loss 'self_critical'"),
        ({"ema": 1}, "ema: .*less than 1"),
        ({"epochs": 3}, "length: give either steps, epochs or tokens"),
        ({"steps": None}, "length: give either steps, epochs or tokens"),
        ({"schedule_epochs": 3}, "schedule_epochs: needs `epochs`, and to be no less than that"),
        ({"steps": None, "epochs": 3, "schedule_epochs": 2}, "schedule_epochs: needs `epochs`, and to be no less"),
        ({"model": {"width": 64, "heads": 2}}, "model: some/model has its own settings; say under `model_changes`"),
        (
            {"start": "cold", "model": {"width": 64, "heads": 2}, "model_changes": {"dropout": 0}},
            "model_changes: start 'cold' has its settings under `model`",
        ),
    ],
)
def test_wrong_pages(tmp_path, changes, message):
    path = write(tmp_path, **changes)
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_key(tmp_path):
    with pytest.raises(InputError, match="mixture: has no data set; give at least one"):
        read_recipe(write(tmp_path, "name: x\nstart: m\nsteps: 3\n"))


@pytest.mark.parametrize("page", ["", "- a\n- b", "3", "a: [", "\t: x", "a: b: c"])
def test_what_is_no_page(tmp_path, page):
    path = write(tmp_path, page)
    with pytest.raises(InputError, match=r"recipe: is not (YAML|a page)") as caught:
        read_recipe(path)
    assert "\n" not in str(caught.value)


def test_no_file(tmp_path):
    with pytest.raises(InputError, match=r"absent.yaml: recipe: cannot be read \(No such file or directory\)"):
        read_recipe(tmp_path / "absent.yaml")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not YAML"):
        read_recipe(tmp_path / "b.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps", "command line: steps: is not key=value"),
        ("=3", "is not key=value"),
        ("steps.x=3", "'steps' holds no keys"),
        ("mixture.0.quota=3", "'mixture' holds no keys"),
        ("steps=[", "the value is not YAML"),
        ("stps=3", "no key named 'stps'; closest: 'steps'"),
        ("optimizer.lrr=3", "no key named 'lrr'; closest: 'lr'"),
    ],
)
def test_wrong_overrides(tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path), [override])
