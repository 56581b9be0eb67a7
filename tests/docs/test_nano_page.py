"""The page about nano: what it says follows from the records, also from small ones."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from small import tiny_model, tiny_tokenizer

from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.evaluate import baselines
from monoglot.nouns import Prediction
from monoglot.store import load_model, save_model
from monoglot.train.recipe import Recipe

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nano():
    """The modules of benchmarks/nano."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(str(ROOT))
        pytest.importorskip("benchmarks.nano.page")
        import benchmarks.nano as package
        from benchmarks.nano import __main__, ablations, measure, page, sets  # noqa: F401

        yield package


def record(task: str, right: list[bool], **changes) -> dict:
    """A record of rows that are right or wrong."""
    metric = {"name": "exact_match", "transcribe": "wer"}.get(task, "accuracy")
    terms = [[float(one), 1.0] for one in right]
    value = float(np.mean(right))
    made = {"task": task, "lang": "en", "metric": metric, "higher_is_better": metric != "wer", "rows": len(right)}
    made |= {"of": 100, "drawn": "same", "value": value, "low": value - 0.1, "high": value + 0.1}
    made |= {"baselines": {"chance": 0.25}, "terms": terms, "groups": [str(k) for k in range(len(right))]}
    made |= {"choices": task != "name", "right": right if metric != "wer" else None, "confidence": [0.75] * len(right)}
    return made | {"shown": [], "errors": 0, "seconds": 1.0} | changes


# Averages and differences --------------------------------------------------------------------------------------------


def test_the_average_is_over_tasks_then_over_their_sets(nano):
    a = {"emoji/names_en": record("name", [True] * 4), "emoji/names_ja": record("name", [False] * 4)}
    a["emoji/matching"] = record("matching", [True, True, True, False])
    a["prompts/transcribe"] = record("transcribe", [True, False])  # half of the words are wrong: 50 points
    b = {stem: record(r["task"], [False] * r["rows"]) for stem, r in a.items()}
    lines, (ours, theirs, low, high) = nano.page.against(a, b)
    assert len(lines) == 4
    assert ours == pytest.approx((50 + 75 + 50) / 3)
    assert theirs == pytest.approx((0 + 0 + 100) / 3)  # no wrong words at all
    assert low <= ours - theirs <= high


def test_the_interval_of_one_set_is_the_paired_bootstrap(nano):
    from monoglot.evaluate.metrics import METRICS
    from monoglot.evaluate.paired import paired_bootstrap

    rng = np.random.default_rng(0)
    one, other = (rng.random(200) < share for share in (0.7, 0.5))
    a, b = ({"emoji/matching": record("matching", side.tolist())} for side in (one, other))
    _, (_, _, low, high) = nano.page.against(a, b)
    terms = [np.asarray(r["emoji/matching"]["terms"]) for r in (b, a)]
    expected = paired_bootstrap(*terms, METRICS["accuracy"].value, seed=3, groups=range(200))
    assert (low, high) == pytest.approx([100 * edge for edge in expected], abs=2.0)


def test_other_rows_are_not_compared(nano):
    a = {"emoji/matching": record("matching", [True])}
    b = {"emoji/matching": record("matching", [True], drawn="others")}
    assert nano.page.against(a, b) is None
    assert nano.page.rival_section("quick", a, b) == ""


# Calibration ---------------------------------------------------------------------------------------------------------


def test_calibration_error_against_a_sum_over_rows(nano):
    rng = np.random.default_rng(1)
    sure = rng.random(500)
    right = rng.random(500) < sure**2
    error = nano.page.calibration_error(nano.page.reliability(sure, right))
    expected = 0.0
    for k in range(10):
        inside = (np.floor(sure * 10) == k).nonzero()[0]
        expected += abs(sum(sure[i] - right[i] for i in inside)) / 500
    assert error == pytest.approx(expected)


def test_a_model_that_is_as_sure_as_it_is_right_has_no_error(nano):
    right = np.arange(100) % 4 != 0
    lines = nano.page.reliability(np.full(100, 0.75), right)
    assert lines == [(100, 0.75, 0.75)]
    assert nano.page.calibration_error(lines) == 0


# The page ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(nano, tmp_path_factory):
    """The page of a few records, with pictures; its folder and the records."""
    tmp_path = tmp_path_factory.mktemp("page")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("before\n<!-- scores -->\nold\n<!-- /scores -->\nafter\n")
    Image.new("RGBA", (20, 10), "red").save(tmp_path / "a.png")
    right = [True] * 6 + [False] * 2
    row = {
        "id": "1",
        "media": ["image", "a.png"],
        "text": "",
        "truth": "cat",
        "answer": "dog",
        "box": "",
        "confidence": 0.75,
    }
    shown = [row | {"id": str(k), "right": one} for k, one in enumerate(right)]
    records = {
        "emoji/names_en": record("name", right, shown=shown),
        "emoji/names_ja": record("name", right[::-1], lang="ja", baselines={"most common": 0.9}, shown=shown),
        "emoji/matching": record("matching", [False] * 4, shown=shown[-2:]),
        "stamps/taught": record("name", right),
    }
    kept = {
        "sets": records,
        "limit": 8,
        "command": "c",
        "date": "d",
        "machine": "m",
        "threads": 1,
        "torch": "t",
        "weights": "w" * 64,
    }
    weaker = {stem: record(r["task"], [False] * r["rows"]) for stem, r in records.items()}
    rivals = {name: {"sets": weaker} for name in ("quick", "dedicated", "cold")} | {"reference": {"sets": records}}
    names = {stem: records[stem] | {"rows": 100} for stem in ("emoji/names_en", "emoji/names_ja")}
    nano.page.write(kept, rivals | {"whole": {"sets": names, "weights": kept["weights"]}}, tmp_path, tmp_path)
    return tmp_path, records


def test_every_number_of_a_record_is_on_the_page(nano, written):
    folder, _ = written
    text = (folder / "docs/nano.md").read_text("utf-8")
    assert (
        "| emoji names, English | name | noto drawing style | 8 of 100 | exact_match | **75.0%** | 65.0% to 85.0% |"
        in text
    )
    both = "75.0% (65.0% to 85.0%) | 75.0% (65.0% to 85.0%) | chance 25.0% |"
    assert f"| emoji names | 8 of 100 | {both}" in text
    assert f"| emoji names | 100 | {both}" in text  # all rows: not a rival of its own
    assert "### Whole" not in text
    assert "nano is ahead in 3 of 4 sets" in text
    assert re.search(r"\| cold start[^|]*\| 4 \|", text)
    assert text.index("**picture and text match**") < text.index("**emoji names, Japanese**")  # the worst come first
    assert "Not measured: what kind of thing" in text


def test_all_rows_of_other_weights_are_not_shown(nano, written):
    folder, records = written
    kept = {"sets": records, "limit": 8, "command": "c", "date": "d", "machine": "m", "threads": 1, "torch": "t"}
    names = {stem: records[stem] | {"rows": 100} for stem in ("emoji/names_en", "emoji/names_ja")}
    text = nano.page.page(
        kept | {"weights": "new"}, {"whole": {"sets": names, "weights": "old"}}, folder, folder / "docs"
    )
    assert "| emoji names | 8 of 100 |" in text
    assert "| emoji names | 100 |" not in text


def test_the_readme_has_the_same_scores_and_keeps_the_rest(written):
    folder, _ = written
    text = (folder / "README.md").read_text("utf-8")
    assert text.startswith("before\n<!-- scores -->\n| held-out set |")
    assert text.endswith("<!-- /scores -->\nafter\n")
    assert "**75.0%**" in text
    assert "stamps" not in text


def test_the_montage_has_as_many_right_answers_as_there_are(nano, written, monkeypatch):
    folder, records = written
    drawn = []
    monkeypatch.setattr(nano.page, "draw_montage", lambda picked, packs, path: drawn.extend(picked))
    said = nano.page.montage(records, folder, folder / "x.png")
    # One set is right in 75%, the other never; of the six right and four wrong rows that are kept, so many fit the mean.
    assert Counter(row["right"] for _, row in drawn) == {True: 3, False: 4}
    assert "3 of 7 are right, as are 38% on average over these 2 sets" in said
    for name in ("nano_answers.png", "nano_calibration.png"):
        assert Image.open(folder / "docs" / name).size[0] > 300


# Measuring -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def packs(tmp_path):
    """Pictures of four colours to be named, for training and as a test."""
    colours = {"red": (250, 0, 0), "blue": (0, 0, 250), "lime": (0, 250, 0), "black": (0, 0, 0)}
    (tmp_path / "packs/emoji").mkdir(parents=True)
    for part in ("train", "test"):
        lines = []
        for name, colour in colours.items():
            Image.new("RGB", (64, 64), colour).save(tmp_path / f"packs/emoji/{part}_{name}.png")
            lines.append({"id": name, "task": "name", "image": f"{part}_{name}.png", "target": name})
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / f"packs/emoji/names_en.{part}.jsonl").write_text(text)
    return tmp_path / "packs"


def test_neighbours_are_those_of_evaluate(nano, packs):
    from monoglot.data.rows import read_rows
    from monoglot.tasks import TASKS

    predictor = Predictor(tiny_model(encoders=True, modalities={"image": {"size": 64}}), tiny_tokenizer())
    test, train = (list(read_rows(packs / f"emoji/names_en.{p}.jsonl", known_tasks=TASKS)) for p in ("test", "train"))
    nearest = nano.measure.Neighbours(predictor)
    for _ in range(2):  # the second time from what is kept
        expected = baselines.nearest_neighbour(test, train, predictor.model, predictor.preparer)
        assert nearest(test, train) == expected
    assert not any(there.requires_grad for _, there in nearest._known.values())  # graphs would hold gigabytes
    assert [answer.text for answer in expected] == ["red", "blue", "lime", "black"]


def test_a_run_goes_on_where_it_was_and_measures_another_model_anew(nano, packs, tmp_path, monkeypatch):
    asked: list[str] = []

    class Says(Predictor):
        def predict_many(self, rows, **_):
            for row in rows:
                asked.append(row.id)
                yield Prediction(row.id, row.task, "red", confidence=0.5)

    made = Says(tiny_model(encoders=True, modalities={"image": {"size": 64}}), tiny_tokenizer())
    monkeypatch.setattr(nano.__main__, "load", lambda model, **_: made)
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- scores -->\n<!-- /scores -->\n")
    command = [
        "--model",
        str(folder),
        "--packs",
        str(packs),
        "--results",
        str(tmp_path / "r"),
        "--root",
        str(tmp_path),
        "--limit",
        "0",
    ]
    nano.__main__.main(command)
    assert len(asked) == 4
    found = json.loads((tmp_path / "r/nano.json").read_text())["sets"]["emoji/names_en"]
    assert (found["value"], found["rows"], found["right"]) == (0.25, 4, [True, False, False, False])
    assert found["baselines"]["nearest neighbour"] == 1.0
    assert "**25.0%**" in (tmp_path / "docs/nano.md").read_text("utf-8")
    nano.__main__.main(command)
    assert len(asked) == 4  # nothing is measured twice
    (folder / "model.safetensors").write_bytes(b"another")
    nano.__main__.main(command)
    assert len(asked) == 8


# Ablations -----------------------------------------------------------------------------------------------------------


def test_ablations_stand_beside_the_recipe_on_the_sets_that_both_were_asked(nano):
    def record(value: float, task: str = "name") -> dict:
        terms = [[float(n < value * 20), 1.0] for n in range(20)]
        return {
            "task": task,
            "metric": "accuracy",
            "higher_is_better": True,
            "value": value,
            "drawn": "x",
            "terms": terms,
            "groups": list(range(20)),
        }

    recipe = {"emoji/names_en": record(0.5), "emoji/names_ja": record(0.3), "emoji/kinds": record(0.8, "vqa")}
    without = {"emoji/names_en": record(0.25), "emoji/kinds": record(0.9, "vqa")}
    rivals = {"reference": {"sets": recipe, "steps": 393, "stages": 4}, "no_curriculum": {"sets": without}}
    section = nano.page.ablation_section(rivals)
    assert "The recipe in 4 stages without a part, against the recipe, both of 393 steps" in section
    assert re.search(r"no curriculum.* \| 2 \| 65\.0 \| 57\.5 \| -7\.5 ", section)
    assert "| name | 40.0 | -25.0 |" in section  # the recipe on all that it was asked, the difference on what both were
    assert "| vqa | 80.0 | +10.0 |" in section
    assert nano.page.ablation_section({"no_curriculum": {"sets": without}}) == ""


CURRICULUM = """
name: nano
start: nano
balance: auto
rows: 16
stages:
  - name: pictures
    mixture:
      - {name: names, data: emoji/names_en.train.jsonl, weight: 2}
      - {name: drums, data: sounds/drums.train.jsonl, weight: 1}
    steps: 100
  - name: clips
    mixture:
      - {name: names, data: emoji/names_en.train.jsonl, weight: 1}
      - {name: direction, data: clips/direction.train.jsonl, weight: 3}
    steps: 300
    optimizer: {lr: 1.0e-4}
"""


def test_ablations_keep_the_budget_and_take_one_thing_away(nano):
    made = nano.ablations.pages(yaml.safe_load(CURRICULUM), 0.5, ["drums"])
    assert "goes on from another model" in made.pop("cold")
    assert {name: nano.ablations.steps(page) for name, page in made.items()} == dict.fromkeys(made, 200)
    for page in made.values():
        Recipe.model_validate(page)
    flat = {source["name"]: source["weight"] for source in made["no_curriculum"]["mixture"]}
    assert flat == {"names": 1.25, "drums": 0.25, "direction": 2.25}  # weights times the shares of the steps
    assert made["no_curriculum"]["optimizer"] == {"lr": 1.0e-4}
    assert "balance" not in made["no_balance"]
    quotas = {"mixture": [{"name": "names", "quota": 3}, {"name": "drums", "quota": 0.5}]}
    assert nano.ablations.no_balance(quotas) == {"mixture": [{"name": "names"}, {"name": "drums"}]} | {
        "rows": 3.5,
        "temperature": 1.0,  # in proportion to the rows
    }
    assert [s["name"] for stage in made["single_modality"]["stages"] for s in stage["mixture"]] == ["names", "names"]
    assert nano.ablations.cold({"name": "nano", "model": {}}) == {"name": "nano", "model": {}, "start": "cold"}
    (only,) = made["dedicated_drums"]["mixture"]
    assert (only["name"], only["quota"]) == ("drums", nano.ablations.ALONE)
    # 100 and 300 steps, 30 times over, of 2/3 and 1/4 of 16 rows
    many = nano.ablations.pages(yaml.safe_load(CURRICULUM), 30, ["names"])["dedicated_names"]
    assert many["steps"] == round((3000 * 16 * 2 / 3 + 9000 * 16 / 4) / nano.ablations.ALONE)


def test_pages_of_runs_that_go_on_from_each_other_are_one_page_with_stages(nano):
    whole = yaml.safe_load(CURRICULUM)
    shared = {"rows": 16, "balance": "auto"}
    runs = [shared | {"start": start} | stage for start, stage in zip(("nano", "runs/1/model"), whole["stages"])]
    runs[1]["int8"] = ["words"]
    for run, modality in zip(runs, ("audio", "image")):
        run["connectors"] = [{"modality": modality, "data": [{"data": "x.jsonl"}]}]
    page = nano.ablations.joined(runs)
    assert (page["start"], page["int8"], [stage["name"] for stage in page["stages"]]) == (
        "nano",
        ["words"],
        ["pictures", "clips"],
    )
    assert [connector["modality"] for connector in page.pop("connectors")] == ["audio", "image"]
    one, other = (Recipe.model_validate(p).stages for p in (page, whole))
    assert one == other


def test_a_page_of_one_stage_has_the_model_that_the_last_stage_leaves(nano):
    page = yaml.safe_load(CURRICULUM)
    page |= {"start": "warm", "model": {"modalities": {"image": {"size": 160, "pooled": "alone"}}}}
    page["stages"][1]["model_changes"] = {"modalities": {"image": {"pooled": "first"}}}
    fitted = [{"modality": "image", "pooled": True, "data": [{"data": "emoji/names_en.train.jsonl"}]}]
    page["connectors"] = fitted
    made = nano.ablations.pages(page, 1.0, ["names"])
    for name in ("no_curriculum", "dedicated_names"):
        assert made[name]["model"]["modalities"]["image"] == {"size": 160, "pooled": "first"}
        assert "model_changes" not in made[name]
        assert made[name]["connectors"] == fitted
        Recipe.model_validate(made[name])
    assert made["reference"]["model"] == page["model"]
    begun = nano.ablations.pages(page, 1.0, ["names"], Path("start"))
    for name in ("no_curriculum", "dedicated_names"):
        assert begun[name]["start"] == "start"
        assert begun[name]["model_changes"] == page["stages"][1]["model_changes"]
        assert not {"model", "connectors"} & set(begun[name])
    assert begun["cold"]["connectors"] == fitted, "other words, so other connectors"


def test_pages_begin_with_one_model_that_is_written_once(nano, tmp_path):
    model = tiny_model(encoders=True, modalities={"image": {"size": 64}})
    save_model(tmp_path / "parent", model, tiny_tokenizer())
    page = yaml.safe_load(CURRICULUM) | {"start": (tmp_path / "parent").as_posix()}
    page["stages"][1]["model_changes"] = {"modalities": {"image": {"size": 96}}}
    made, folder = nano.ablations.dedicated(page, "names"), tmp_path / "start"
    nano.ablations.write_start(made, folder)
    began, _ = load_model(folder)
    assert began.config.modalities["image"].size == 96
    assert all(torch.equal(began.state_dict()[name], tensor) for name, tensor in model.state_dict().items())
    written = (folder / "model.safetensors").stat().st_mtime_ns
    nano.ablations.write_start(made, folder)
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    nano.ablations.write_start(made | {"model_changes": {"dropout": 0.3}}, folder)
    assert load_model(folder)[0].config.dropout == 0.3, "another page, another start"
    page = nano.ablations.starting(made, folder)
    assert Recipe.model_validate(page).start == folder.as_posix()
    assert not {"model_changes", "connectors", "model"} & set(page)


def test_a_shortened_stage_lets_its_rate_fall_as_far(nano):
    page = yaml.safe_load(CURRICULUM)
    page["stages"][0]["schedule_steps"] = 150
    made = nano.ablations.pages(page, 0.2)
    assert [made["reference"]["stages"][0][key] for key in ("steps", "schedule_steps")] == [20, 30]
    assert made["single_modality"]["stages"][0]["schedule_steps"] == 30


def test_an_ablation_that_would_change_nothing_says_so(nano):
    page = yaml.safe_load(CURRICULUM)
    flat = {key: page[key] for key in ("name", "start", "rows")} | page["stages"][0]
    made = nano.ablations.pages(flat, 1.0)
    assert "has no stages" in made["no_curriculum"]
    assert "balances nothing" in made["no_balance"]
    with pytest.raises(InputError, match="the recipe has names, drums"):
        nano.ablations.dedicated(flat, "nomes")
