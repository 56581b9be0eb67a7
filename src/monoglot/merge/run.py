"""A merge from its page to the new model folder.

MergePage -> parents -> plan -> [Fisher information] -> [search] -> weights, written tensor by tensor -> [test] -> model folder, its card and lineage
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from monoglot import __version__
from monoglot.adapters import Answers, read_answers, write_answers
from monoglot.errors import InputError
from monoglot.files import atomic_path, write_json, write_text
from monoglot.merge.figure import draw
from monoglot.merge.information import measure_information
from monoglot.merge.parents import Parent, open_parent
from monoglot.merge.plan import Coefficients, Plan, make_plan
from monoglot.merge.recipe import MergePage
from monoglot.merge.score import RESULT, Judge, Measured, verdict
from monoglot.merge.search import Trial, find
from monoglot.merge.write import Layout, layout_of, write_safetensors
from monoglot.store import FORMAT, stored


@dataclass
class Merged:
    """What came out."""

    folder: Path
    coefficients: Coefficients
    report: dict[str, Any]
    """Counts of tensors: merged, same, kept, missing, shape_changed."""
    trials: list[Trial] = field(default_factory=list)
    """Of a search: the parents, then what was tried."""
    scores: dict[str, list[Measured]] = field(default_factory=dict)
    """On the test rows, of the parents (by name) and of the result (RESULT)."""
    verdict: str = ""
    """One line: whether merging helped or hurt; empty when nothing was measured."""
    notes: list[str] = field(default_factory=list)
    """What else there is to tell."""


def merge(page: MergePage, *, quiet: bool = False, command: str = "") -> Merged:
    """Merge models into a new folder, which appears whole or not at all.

    Args:
        command: what was typed, for the lineage.

    Raises:
        InputError: the page, a model or a file of rows is not as it must be, or the folder is there already; told before anything is written.
    """
    out = _new_folder(page.out)
    parents = [open_parent(given) for given in page.parents]
    base = None if page.base is None else open_parent(page.base)
    with tempfile.TemporaryDirectory() as scratch:
        judge, test = _judges(page, Path(scratch) / "features")
        plan = make_plan(parents, base, page.merger)
        with _folder_beside(out) as folder:
            merged = _merged(page, plan, judge, test, folder, Path(scratch), command)
    merged.folder = out
    if not quiet:
        for line in told(page, merged):
            Console(stderr=True).print(line, highlight=False, markup=False, soft_wrap=True)
    return merged


def _judges(page: MergePage, cache: Path) -> tuple[Judge | None, Judge | None]:
    """Who judges the search and who the result; no row is shown to both."""
    s = page.search
    judge = None if s is None else Judge(s.data, s.score, s.rows, cache=cache)
    test = Judge(page.test, cache=cache) if page.test else None
    if judge is not None and test is not None:
        judge.check_apart(test)
    return judge, test


def _merged(
    page: MergePage, plan: Plan, judge: Judge | None, test: Judge | None, folder: Path, scratch: Path, command: str
) -> Merged:
    """Fill a folder with the merged model."""
    if page.merger.needs_fisher:
        plan.fisher = measure_information(page, plan, scratch)
    count = len(plan.parents)
    merged = Merged(folder, given_coefficients(page), plan.report())
    if judge is not None:

        def made(c: Coefficients) -> Path:
            write_model(scratch / "trial", page, plan, c)
            return scratch / "trial"

        merged.trials = find(page, plan.parents, judge, made)
        best = min(merged.trials[count:], key=lambda trial: trial.badness)
        merged.coefficients = best.coefficients or merged.coefficients
        measured = {parent.given: trial.scores for parent, trial in zip(plan.parents, merged.trials)}
        merged.verdict = f"{verdict(measured | {RESULT: best.scores})}, on the rows that were searched"
    write_model(folder, page, plan, merged.coefficients)
    if test is not None:
        merged.scores = {parent.given: test.measure(parent.folder) for parent in plan.parents}
        merged.scores[RESULT] = test.measure(folder)
        merged.verdict = verdict(merged.scores)
    write_json(folder / "lineage.json", lineage(page, plan, merged) | {"command": command})
    write_text(folder / "README.md", card(page, plan, merged))
    if judge is not None:
        chosen = {"weights": list(merged.coefficients.weights), "scale": merged.coefficients.scale}
        write_json(folder / "search.json", {"trials": [trial.to_json() for trial in merged.trials], "chosen": chosen})
        if problem := draw(merged.trials, [Path(file).stem for file in judge.sets], folder / "search.png"):
            merged.notes.append(problem)
    return merged


def given_coefficients(page: MergePage) -> Coefficients:
    """What the page says: weights with a sum of 1, equal ones unless it has them."""
    count = len(page.parents)
    weights = page.weights or (1.0,) * count
    shares = tuple(weight / sum(weights) for weight in weights)
    return Coefficients(shares, page.setting("scale"), page.setting("density"), page.seed)


def write_model(folder: Path, page: MergePage, plan: Plan, c: Coefficients) -> None:
    """Write a merged model's settings, tokenizer and weights; one tensor at a time is held."""
    config = plan.config.model_copy(update={"name": page.name}).model_dump(mode="json")
    write_json(folder / "config.json", {"format": FORMAT, "monoglot": __version__, "model": config})
    shutil.copyfile(plan.parents[0].tokenizer, folder / "tokenizer.json")
    if answers := common_answers(plan.parents):
        write_answers(folder, answers)
    dtype: torch.dtype = getattr(torch, page.dtype)
    layout: Layout = {}
    aliases: dict[str, str] = {}
    for job in plan.jobs:
        name, *others = job.slot.names
        layout |= layout_of(name, job.slot.shape, job.slot.dtype, dtype, page.int8)
        aliases |= {other: name for other in others}

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for job in plan.jobs:
            yield from stored({job.slot.names[0]: plan.tensor(job, c)}, dtype, page.int8)[0].items()

    with atomic_path(folder / "model.safetensors") as temporary:
        write_safetensors(temporary, layout, tensors(), {"format": str(FORMAT), "aliases": json.dumps(aliases)})


def common_answers(parents: Sequence[Parent]) -> list[Answers]:
    """What the result limits its answers to: for each question of a parent the answers of all parents."""
    found: dict[tuple[str, str, str], Answers] = {}
    for parent in parents:
        for given in read_answers(parent.folder):
            known = found.setdefault((given.task, given.text, given.lang), given)
            choices = tuple(dict.fromkeys((*known.choices, *given.choices)))
            found[given.task, given.text, given.lang] = known.model_copy(update={"choices": choices})
    return list(found.values())


def lineage(page: MergePage, plan: Plan, merged: Merged) -> dict[str, Any]:
    c = merged.coefficients
    page_says = {name: getattr(c, name) for name in plan.merger.settings} | (
        {"seed": c.seed} if plan.merger.draws else {}
    )
    return {
        "parents": [
            {"model": parent.given, "sha256": parent.sha256, "weight": weight}
            for parent, weight in zip(plan.parents, c.weights)
        ],
        "base": None if plan.base is None else {"model": plan.base.given, "sha256": plan.base.sha256},
        "method": page.method,
        "source": plan.merger.source,
        "settings": page_says,
        "tensors": merged.report,
        "scores": {name: [score.to_json() for score in scores] for name, scores in merged.scores.items()},
        "verdict": merged.verdict,
        "recipe": page.model_dump(mode="json", exclude_none=True),
        "monoglot": __version__,
        "torch": torch.__version__,
    }


def card(page: MergePage, plan: Plan, merged: Merged) -> str:
    """README.md of the result."""
    c = merged.coefficients
    lines = [
        f"# {page.name}",
        "",
        f"A monoglot model: {plan.merger.summary} ({page.method}; {plan.merger.source}).",
        "",
    ]
    lines += [f"- {weight:.3g} x {parent.given}" for parent, weight in zip(plan.parents, c.weights)]
    lines += [f"- from the common start {plan.base.given}"] if plan.base else []
    lines += [f"- {name} {getattr(c, name):g}" for name in plan.merger.settings]
    lines += ["", *told(page, merged)]
    if merged.scores:
        lines += ["", "| rows | metric | n | model | score | 95% interval |", "|---|---|---|---|---|---|"]
        lines += [
            f"| {score.rows_from} | {score.metric} | {score.rows} | {name} | {score.value:.3f} | {score.interval} |"
            for name, scores in merged.scores.items()
            for score in scores
        ]
    return "\n".join(lines) + "\n"


def told(page: MergePage, merged: Merged) -> list[str]:
    """What a merge says in the end, in lines."""
    report, c = merged.report, merged.coefficients
    counts = ", ".join(f"{report[fate]} {fate}" for fate in ("merged", "same", "kept"))
    weights = ", ".join(f"{weight:.3g}" for weight in c.weights)
    lines = [f"{page.method} of {len(page.parents)}, weights {weights}: {counts} tensors."]
    if report["kept_parts"]:
        lines.append(f"Kept, since one model has it alone: {', '.join(report['kept_parts'])}.")
    lines += [f"Missing in {model}: {', '.join(names)}." for model, names in report["missing"].items()]
    lines += [f"Of another shape in {model}: {', '.join(names)}." for model, names in report["shape_changed"].items()]
    return [*lines, *([merged.verdict] if merged.verdict else []), *merged.notes]


def _new_folder(out: str | None) -> Path:
    if out is None:
        raise InputError.at("command line", "--out", "is missing", "say where the merged model goes")
    if Path(out).exists():
        raise InputError.at(out, "out", "is there already", "give a new folder")
    return Path(out)


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """A folder to work in, which takes the place of `out` when the block ends well and is removed when it does not."""
    folder = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        folder.mkdir(parents=True)
        yield folder
        folder.rename(out)
    except OSError as error:
        wrong = f"cannot be written ({error.strerror or error})"
        raise InputError.at(out, "out", wrong, "free some space or choose another place") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
