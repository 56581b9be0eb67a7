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
from monoglot.train.recipe import Recipe, as_page, read_recipe

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
    assert all(source.quota or source.weight != 0 for stage in recipe.curriculum for source in stage.mixture)
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
HELD_OUT = {"name": "names", "data": "names.jsonl"}


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
        ({"steps": 3, "schedule_steps": 2}, "schedule_steps: needs `steps`, and to be no less than that"),
        ({"steps": None, "epochs": 3, "schedule_steps": 9}, "schedule_steps: needs `steps`"),
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


STAGES = [{"name": "one", "steps": 5}, {"name": "two", "tokens": 9, "mixture": [{**SOURCE, "quota": 4}]}]


def staged(*stages, **page):
    """The pieces of a page with stages."""
    return {"stages": list(stages or STAGES), "mixture": PAGE["mixture"]} | page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (staged({"name": "one", "stps": 3}), "stages.0.stps: no key named 'stps'; closest: 'steps'"),
        (staged({"name": "one", "plateau": {"scores": ["v"], "patienc": 3}}), "stages.0.plateau.patienc: .*'patience'"),
        (
            staged({"name": "one", "optimizer": {"sheculde": "cosine"}}),
            "stages.0.optimizer.sheculde: no key named 'sheculde'; closest: 'schedule'",
        ),
        (staged({"name": "one", "optimizer": {"schedule": "cosne"}}), "stages.0.optimizer.schedule: .*'cosine'"),
        (staged({"name": "one", "balance": "eqaul"}), "stages.0.balance: no balancer named 'eqaul'; closest: 'equal'"),
        (
            staged({"name": "one", "balance": {"kind": "equal", "every": 3}}),
            "stages.0.balance: every: is a setting of auto; 'equal' does not look at it",
        ),
        (staged({"steps": 3}), "stages.0.name: Field required"),
        (staged({"name": "one"}, {"name": "one"}), r"stages: two have one name: \['one'\]"),
        (staged({"name": "one", "mixture": []}), "stages.0.mixture: has no data set; give at least one"),
        (staged(STAGES[0], {"name": "two"}, mixture=[]), "stages.0.mixture: has no data set; give at least one"),
        (
            staged(STAGES[0], {"name": "two", "mixture": [{**WEIGHED, "weight": 0}], "rows": 2}),
            "stages.1.mixture: the weights sum to zero; nothing would be drawn",
        ),
        (staged(STAGES[0], {"name": "two", "rows": 9}), "stages.1.rows: is 9, but the quotas sum to 5; leave it out"),
        (
            staged(STAGES[0], {"name": "two", "mixture": [SOURCE, SOURCE]}),
            r"stages.1: two data sets of the mixture have one name: \['a'\]",
        ),
        (
            staged(STAGES[0], {"name": "two", "mixture": [{**SOURCE, "data": "other.jsonl"}]}),
            "stages.1.mixture: 'a' is another file in an earlier stage; give it another name",
        ),
        (staged({"name": "one", "steps": 3, "epochs": 2}), "stages.0.length: give either steps, epochs or tokens"),
        (staged({"name": "one"}, steps=None), "stages.0.length: give either steps, epochs or tokens"),
        (staged({"name": "one", "replay": 0.2}), "stages.0.replay: the first stage has nothing to repeat"),
        (staged(STAGES[0], {"name": "two", "replay": 1}), "stages.1.replay: .*less than 1"),
        (staged(replay=0.2), "replay: is said by a stage, which repeats those before it"),
        (
            staged({"name": "one", "plateau": {"scores": ["nmaes"]}}, validate_every=5, validation=[HELD_OUT]),
            "stages.0.plateau.scores: no validation set named 'nmaes'; closest: 'names'",
        ),
        (
            staged({"name": "one", "plateau": {"scores": ["names"]}}, validation=[HELD_OUT]),
            "stages.0.plateau.scores: validate_every is 0",
        ),
        (
            staged({"name": "one", "tokens": 9, "plateau": {"scores": ["names"]}}),
            "stages.0.plateau: needs `steps`: the most that the stage may take",
        ),
        (
            staged({"name": "one", "tokens": 9, "max_repeats": 2}),
            "stages.0.max_repeats: needs `steps` or `epochs`: how long is the stage?",
        ),
        (
            staged({"name": "one", "words": {}}, loss={"constrain": True}),
            "stages.0.words: cannot be used with loss.constrain",
        ),
        ({"parallel": "fsdp", "loss": {"kind": "self_critical"}}, "parallel: the loss 'self_critical' needs the whole"),
        ({"parallel": "fsdp", "conflicts_every": 3}, "parallel: conflicts_every needs the whole model in each process"),
        (
            staged(STAGES[0], {"name": "two", "balance": "gradnorm"}, parallel="fsdp"),
            "parallel: balance 'gradnorm' needs the whole model in each process; use 'ddp'",
        ),
        ({"plateau": {"scores": []}}, "plateau.scores: .*at least 1 item"),
        ({"temperature": 0}, "temperature: .*greater than 0"),
        ({"workers": -1}, "workers: .*greater than or equal to 0"),
    ],
)
def test_wrong_stages(tmp_path, changes, message):
    test_wrong_pages(tmp_path, changes, message)


def test_stages_inherit(tmp_path):
    """What a stage leaves out is its page's; whoever gives a length of its own has no other."""
    page = staged(
        {"name": "one", "steps": 5, "optimizer": {"warmup": 0.2}},
        {"name": "two", "freeze": [], "words": None},
        {
            "name": "three",
            "tokens": 100,
            "balance": "equal",
            "optimizer": {"lr": 0.5, "schedule": "cosine"},
            "replay": 0.3,
        },
        epochs=2,
        schedule_epochs=4,
        optimizer={"lr": 0.1, "clip": 2.0},
        words={"others": 7},
        temperature=2.0,
        model_changes={"dropout": 0.0},
        freeze=["words"],
        balance="auto",
    )
    del page["mixture"]
    recipe = read_recipe(write(tmp_path, **page, steps=None))
    one, _, three = recipe.curriculum
    assert [(s.steps, s.epochs, s.tokens, s.schedule_epochs) for s in recipe.curriculum] == [
        (5, None, None, None),
        (None, 2, None, 4),
        (None, None, 100, None),
    ]
    assert [(s.optimizer.lr, s.optimizer.warmup, s.optimizer.clip) for s in recipe.curriculum] == [
        (0.1, 0.2, 2.0),
        (0.1, 0.05, 2.0),
        (0.5, 0.05, 2.0),
    ]
    assert (one.optimizer.schedule, three.optimizer.schedule) == ("linear", "cosine")
    assert [s.freeze for s in recipe.curriculum] == [("words",), (), ("words",)]
    assert [s.words and s.words.others for s in recipe.curriculum] == [7, None, 7]
    assert [s.balance.kind for s in recipe.curriculum] == ["auto", "auto", "equal"]
    assert [s.replay for s in recipe.curriculum] == [0, 0, 0.3]
    assert [s.model_changes for s in recipe.curriculum] == [{}] * 3, "the page's are made once, before the first stage"
    assert all(s.mixture == recipe.mixture and s.temperature == 2 for s in recipe.curriculum)
    assert read_recipe(write(tmp_path)).curriculum[0].name == "r", "a page without stages is one"
    again = write(tmp_path, yaml.safe_dump(as_page(recipe)))
    assert read_recipe(again) == recipe, "a stage may say that it has nothing of what its page has"


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("stages.0.steps=7", lambda r: r.stages[0].steps == 7),
        ("stages.one.steps=7", lambda r: r.stages[0].steps == 7),
        ("stages.two.optimizer.lr=0.5", lambda r: (r.stages[0].optimizer.lr, r.stages[1].optimizer.lr) == (1e-3, 0.5)),
        (
            "stages.two.mixture.a.quota=9",
            lambda r: (r.stages[0].mixture[0].quota, r.stages[1].mixture[0].quota) == (2, 9),
        ),
        ("mixture.b.quota=9", lambda r: [s.quota for s in r.stages[0].mixture] == [2, 9]),
        ("mixture.1.quota=9", lambda r: [s.quota for s in r.stages[0].mixture] == [2, 9]),
        ("mixture.0={name: z, data: z.jsonl, quota: 1}", lambda r: r.stages[0].mixture[0].name == "z"),
        ("optimizer.lr=0.5", lambda r: [s.optimizer.lr for s in r.stages] == [0.5, 0.5]),
        ("optimizer.clip=3", lambda r: [s.optimizer.clip for s in r.stages] == [2.0, 3.0]),
        ("name=x", lambda r: r.name == "x"),
        ("seed=4", lambda r: r.seed == 4),
        ("model_changes.dropout=0.5", lambda r: r.model_changes == {"dropout": 0.5}),
        ("validation.names.rows=3", lambda r: r.validation[0].rows == 3),
    ],
)
def test_overrides_reach_into_lists(tmp_path, override, found):
    stages = [{**STAGES[0], "optimizer": {"clip": 2.0}}, STAGES[1]]
    assert found(read_recipe(write(tmp_path, **staged(*stages), validation=[HELD_OUT]), [override]))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("steps=9", "command line: steps=9: every stage has a length of its own; change stages.NAME.steps"),
        ("epochs=9", "command line: epochs=9: every stage has a length of its own; change stages.NAME.epochs"),
        (
            "mixture.a.quota=9",
            "mixture.a.quota=9: every stage has its own 'mixture.a.quota'; change stages.NAME.mixture.a",
        ),
        ("optimizer.lr=9", "optimizer.lr=9: every stage has its own 'optimizer.lr'; change stages.NAME.optimizer.lr"),
        (
            "balance.every=9",
            "balance.every=9: every stage has its own 'balance.every'; change stages.NAME.balance.every",
        ),
        ("stages.three.steps=9", "stages.three.steps=9: no item named 'three'; known: one, two"),
        ("stages.2.steps=9", "stages.2.steps=9: no item named '2'; known: one, two"),
        ("stages.one.stps=9", "stages.0.stps: no key named 'stps'; closest: 'steps'"),
        ("replay=0.5", "replay: is said by a stage, which repeats those before it"),
    ],
)
def test_overrides_without_effect_are_refused(tmp_path, override, message):
    both = {"mixture": PAGE["mixture"], "optimizer": {"lr": 0.1}, "balance": "auto"}
    page = staged(*[stage | both for stage in STAGES])
    with pytest.raises(InputError, match=message) as caught:
        read_recipe(write(tmp_path, **page), [override])
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
        ("mixture.0.name.x=3", "'name' holds no keys"),
        ("mixture.2.quota=3", "command line: mixture.2.quota=3: no item named '2'; known: a, b"),
        ("mixture.c.quota=3", "command line: mixture.c.quota=3: no item named 'c'; known: a, b"),
        ("stages.first.steps=3", "command line: stages.first.steps=3: no item named 'first'"),
        ("validation.0.rows=3", "command line: validation.0.rows=3: no item named '0'"),
        ("steps=[", "the value is not YAML"),
        ("stps=3", "no key named 'stps'; closest: 'steps'"),
        ("optimizer.lrr=3", "no key named 'lrr'; closest: 'lr'"),
    ],
)
def test_wrong_overrides(tmp_path, override, message):
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path), [override])
