"""Pages of what nano would be without a part of its recipe, all of one budget in steps.

    recipes, one after the other, or one with stages -> one page with stages
    -> reference, no_curriculum, no_balance, single_modality, cold, dedicated_<set> -> runs/ablations/*.yaml

    python -m benchmarks.nano.ablations recipes/nano_[1-5]_*.yaml --share 0.2 --dedicated names_en drums
    monoglot train runs/ablations/reference.yaml --out runs/reference
    python -m benchmarks.nano --model runs/reference/model --as reference

`reference` is the recipe itself, shortened in the same way: the others are compared with it, not with the longer run that ships.
A dedicated model has the same parts and trains on one data set: on as many of its rows as the whole drew, but in no fewer than FEWEST steps.
All but `cold` begin with the same model, runs/ablations/start, so that connectors are fitted once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from monoglot.errors import InputError
from monoglot.files import write_text
from monoglot.store import save_model
from monoglot.train.connectors import begin_connectors
from monoglot.train.recipe import Recipe, Stage, merged, read_recipe
from monoglot.train.start import start_model

Page = dict[str, Any]

ALONE, FEWEST = 32, 200
"""Rows in a step of a dedicated model, and its least number of steps."""

SEEN = ("emoji",)
"""Packs whose rows have pictures and no other media: what `single_modality` keeps."""
OWN = ("optimizer", "freeze", "train_only", "words", "rows", "temperature", "balance", "model_changes")
"""What the one stage of `no_curriculum` takes over from the last stage."""


def stages_of(page: Page) -> list[Page]:
    """The parts that have a mixture: the stages, or the page itself."""
    return page.get("stages") or [page]


def joined(written: Sequence[Page]) -> Page:
    """Pages of runs that go on from each other, as one page: a stage each. What no stage can say is the first one's start, the last one's rest.

    Connectors of all runs are fitted before the first step: their encoders are frozen and say the same in each.
    """
    if len(written) == 1:
        return copy(written[0])
    parts = set(Stage.model_fields)
    own = {"start", "model", "seed"}  # of the first run
    page = {key: value for key, value in written[0].items() if key in own}
    for later in written:
        page |= {key: value for key, value in later.items() if key not in parts | own}
    if fitted := [connector for one in written for connector in one.get("connectors", ())]:
        page["connectors"] = fitted
    stages = [{key: value for key, value in one.items() if key in parts} for one in written]
    return copy(page | {"name": "nano", "stages": stages})


def shortened(page: Page, share: float) -> Page:
    """The page with a share of its steps, in every stage; a plateau no longer ends one."""
    page = copy(page)
    for stage in (page, *page.get("stages", ())):
        stretch(stage, share)
        stage.pop("plateau", None)
    return page


def stretch(stage: Page, share: float) -> None:
    """As many times the steps, in place; the rate falls as before."""
    for key in ("steps", "schedule_steps"):
        if key in stage:
            stage[key] = max(1, round(share * stage[key]))


def copy(page: Page) -> Page:
    return yaml.safe_load(yaml.safe_dump(page))


def steps(page: Page) -> int:
    """Of all stages together."""
    return sum(stage.get("steps") or page["steps"] for stage in stages_of(page))


def no_curriculum(page: Page) -> Page:
    """One stage of as many steps: every data set from the first step on, as often a step as it comes on average over the stages."""
    found = copy(page)
    stages = found.pop("stages", None)
    if not stages:
        raise InputError("no_curriculum: the recipe has no stages, so nothing would change")
    total = steps(page)
    sources: dict[str, Page] = {}
    often: dict[tuple[str, str], float] = {}
    for stage in stages:
        share = (stage.get("steps") or page["steps"]) / total
        for source in stage.get("mixture") or found.get("mixture", ()):
            kept = sources.setdefault(source["name"], source)
            key = "quota" if "quota" in kept else "weight"
            often[source["name"], key] = often.get((source["name"], key), 0.0) + share * source.get(key, 1.0)
    for (name, key), value in often.items():
        sources[name][key] = round(value, 4)
    last = {key: stages[-1][key] for key in OWN if key in stages[-1]}
    found |= last | {"mixture": list(sources.values()), "steps": total}
    return changed(found, stages)


def changed(page: Page, stages: Sequence[Page]) -> Page:
    """A page of one stage whose model is as the last of the stages leaves it."""
    changes: Page = {}
    for stage in stages:
        changes = merged(changes, stage.get("model_changes") or {})
    page.pop("model_changes", None)
    if not changes:
        return page
    return page | ({"model": merged(page["model"], changes)} if "model" in page else {"model_changes": changes})


def no_balance(page: Page) -> Page:
    """As if all data sets were one file: each is drawn in proportion to its rows, whatever share the page gives it, and none counts more."""
    found = copy(page)
    for stage in (found, *found.get("stages", ())):
        stage.pop("balance", None)
        quotas = [source.pop("quota", None) for source in stage.get("mixture", ())]
        if quotas and all(quotas):
            stage |= {"rows": round(sum(quotas), 4), "temperature": 1.0}
        elif any(quotas):
            raise InputError("no_balance: some data sets of a stage have a quota and some do not; give all of them one")
    if found == page:
        raise InputError("no_balance: the recipe balances nothing, so nothing would change")
    return found


def keeping(page: Page, keep: Callable[[Page], bool]) -> Page:
    """The data sets for which `keep` holds; stages without any are left out, and the others take their steps."""
    found, total = copy(page), steps(page)
    for stage in (found, *found.get("stages", ())):
        if "mixture" in stage:
            stage["mixture"] = [source for source in stage["mixture"] if keep(source)]
    if "stages" in found:
        found["stages"] = [stage for stage in found["stages"] if stage.get("mixture") or found.get("mixture")]
        rest = steps(found) if found["stages"] else 0
        for stage in found["stages"]:
            stage.setdefault("steps", page.get("steps"))
            stretch(stage, total / rest)
    found["validation"] = [held for held in found.get("validation", ()) if keep(held)]
    if not any(stage.get("mixture") for stage in (found, *found.get("stages", ()))):
        raise InputError("the recipe has none of these data sets")
    return found


def rows_kept(page: Page, found: Page) -> Page:
    """With quotas, the data sets that are left fill the step: as many rows as before."""
    for before, after in zip(stages_of(page), stages_of(found)):
        quotas = [source.get("quota") for source in before.get("mixture", ())]
        left = [source.get("quota") for source in after.get("mixture", ())]
        if quotas and all(quotas) and all(left) and left:
            grown = sum(quotas) / sum(left)
            for source in after["mixture"]:
                source["quota"] = round(source["quota"] * grown, 4)
    return found


def single_modality(page: Page) -> Page:
    return rows_kept(page, keeping(page, lambda source: source["data"].split("/")[0] in SEEN))


def cold(page: Page) -> Page:
    """The same eyes and ears, and no language: source and target layers and words are random."""
    if page.get("start", "warm") != "warm":
        raise InputError("cold: the recipe goes on from another model; give the page of its first run")
    return copy(page) | {"start": "cold"}


def dedicated(page: Page, name: str) -> Page:
    """One data set alone, in one stage as the last one is: as many rows as the page draws of it, ALONE at a time."""
    sources = {s["name"]: s for stage in (page, *stages_of(page)) for s in stage.get("mixture", ())}
    if name not in sources:
        raise InputError(f"no data set {name!r}; the recipe has {', '.join(sources)}")
    found, stages = copy(page), stages_of(page)
    found.pop("stages", None)
    found |= {key: stages[-1][key] for key in OWN if key in stages[-1]}
    rows = sum(_quota(page, stage, name) * (stage.get("steps") or page["steps"]) for stage in stages)
    found.pop("rows", None)
    found["mixture"] = [{k: v for k, v in sources[name].items() if k != "weight"} | {"quota": ALONE}]
    found = changed(found, stages)
    return found | {"steps": max(FEWEST, round(rows / ALONE)), "validation": []}


MADE = ("start", "seed", "model", "model_changes", "connectors")
"""What of a page the model follows from that it begins with."""


def write_start(page: Page, folder: Path) -> None:
    """The model that a page begins with, its connectors fitted; not again if it is there and of the same page."""
    made = {key: page[key] for key in MADE if key in page}
    told = folder / "lineage.json"  # before the weights, so both are looked for
    if (folder / "model.safetensors").exists() and json.loads(told.read_text(encoding="utf-8")).get("recipe") == made:
        return
    recipe = Recipe.model_validate(page)
    model, tokenizer, lineage = start_model(recipe)
    begin_connectors(recipe, model, tokenizer)
    (folder / "model.safetensors").unlink(missing_ok=True)  # weights never stand beside another page
    save_model(folder, model, tokenizer, lineage=lineage | {"recipe": made})


def starting(page: Page, folder: Path) -> Page:
    """The page, begun with the model of `write_start`."""
    return {key: value for key, value in page.items() if key not in MADE or key == "seed"} | {
        "start": folder.as_posix()
    }


def _quota(page: Page, stage: Page, name: str) -> float:
    """Rows of a data set in each step of a stage."""
    sources = stage.get("mixture") or page.get("mixture", ())
    quotas = {source["name"]: source.get("quota") for source in sources}
    if name not in quotas:
        return 0
    if quotas[name] is not None:
        return quotas[name]
    shares = {source["name"]: source.get("weight", 1.0) for source in sources if source.get("quota") is None}
    left = (stage.get("rows") or page["rows"]) - sum(quota for quota in quotas.values() if quota)
    return left * shares[name] / sum(shares.values())


ABLATIONS: dict[str, Callable[[Page], Page]] = {
    "reference": copy,
    "no_curriculum": no_curriculum,
    "no_balance": no_balance,
    "single_modality": single_modality,
    "cold": cold,
}


def pages(page: Page, share: float, names: Sequence[str] = (), start: Path | None = None) -> dict[str, Page | str]:
    """{name: page}, or why there is none; a dedicated model for each of `names`; with `start` all but `cold` begin with that model."""
    short = shortened(page, share)
    begun = starting(short, start) if start else short
    makers = ABLATIONS | {f"dedicated_{name}": (lambda p, n=name: dedicated(p, n)) for name in names}
    found: dict[str, Page | str] = {}
    for name, make in makers.items():
        try:
            found[name] = make(short if name == "cold" else begun) | {"name": name}
        except InputError as nothing:
            found[name] = str(nothing)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano.ablations", description=__doc__)
    parser.add_argument("recipes", type=Path, nargs="+", help="in the order of the runs")
    parser.add_argument("--share", type=float, default=0.2, help="of the recipe's steps")
    parser.add_argument("--dedicated", nargs="*", default=[], help="data sets that get a model of their own")
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    arguments = parser.parse_args()
    runs = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in arguments.recipes]
    whole, start = joined(runs), arguments.out / "start"
    write_start(whole, start)
    for name, page in pages(whole, arguments.share, arguments.dedicated, start).items():
        if isinstance(page, str):
            print(f"left out: {page}")
            continue
        path = arguments.out / f"{name}.yaml"
        write_text(path, yaml.safe_dump(page, sort_keys=False, allow_unicode=True))
        read_recipe(path)  # a page that cannot be run is told here
        kept, only = "dedicated" if name.startswith("dedicated") else name, ""
        if kept in ("dedicated", "single_modality"):  # they are asked what they were taught
            data = {source["data"].removesuffix(".train.jsonl") for s in stages_of(page) for source in s["mixture"]}
            only = " --only " + " ".join(sorted(data))
        print(f"monoglot train {path} --out runs/{name}")
        print(f"python -m benchmarks.nano --model runs/{name}/model --as {kept}{only}")


if __name__ == "__main__":
    main()
