"""Between two models that were fine-tuned from one start: how do both tasks fare along the line, and by each method?

    python benchmarks/merge_curve.py --packs packs --seeds 3 --out benchmarks/results/merge_curve_MACHINE_DATE.json

For each seed nano is fine-tuned on task A (is a solar cell defective, pictures) and on task B (which word is spoken, in three languages, sounds)
with its words and encoders frozen; the two are interpolated at five weights, merged by each method at its own settings, and tested on held-out rows of
both tasks (other blocks of cells, other speakers). Needs the packs solar and speakers. The experts of all seeds on one task make a soup. Nothing is
chosen by the test rows. Finished parts are kept beside the result: a run that was stopped goes on. The figure goes to docs/merge_curve.png.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from monoglot.evaluate.intervals import over_seeds
from monoglot.merge.recipe import make_page
from monoglot.merge.run import merge
from monoglot.merge.score import Judge
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe
from monoglot.train.run import processor_name

LANGS = ("es", "fr", "it")
TASKS: dict[str, dict[str, Any]] = {
    "cells": {"test": ["solar/defects.test.jsonl"], "train": {"solar/defects.train.jsonl": 16}},
    "words": {
        "test": [f"speakers/words_{lang}.test.jsonl" for lang in LANGS],
        "train": {f"speakers/words_{lang}{part}.train.jsonl": 16 / 6 for lang in LANGS for part in ("", "_espeak")},
    },
}
"""Of each task: held-out rows, and how many rows of which files stand in every step. Nano has not learned from any of them."""
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the second task's expert."""
METHODS: dict[str, dict[str, Any]] = {"task_arithmetic": {"scale": 2.0}, "ties": {}, "dare": {}, "model_stock": {}}
"""Tried beside interpolation: at their own settings, but for the sum of both changes, which a scale of 2 is."""


class Parts:
    """Finished measurements in a file beside the result, one a line."""

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.known: dict[str, Any] = dict(json.loads(line) for line in lines)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self.known:
            began = time.perf_counter()
            self.known[name] = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([name, self.known[name]]) + "\n")
            print(f"{name}: {self.known[name]} ({time.perf_counter() - began:.0f} s)", flush=True)
        return self.known[name]


def expert(task: str, seed: int, arguments: argparse.Namespace) -> Path:
    """nano, fine-tuned on one task."""
    folder = arguments.work / f"{task}_{seed}"
    page = {
        "name": f"{task}_{seed}",
        "seed": seed,
        "start": "nano",
        "data_folder": ".",
        "mixture": [
            {
                "name": Path(file).stem,
                "data": str(spread([arguments.packs / file], arguments, arguments.train_rows)),
                "quota": quota,
            }
            for file, quota in TASKS[task]["train"].items()
        ],
        "steps": arguments.steps,
        "freeze": ["words", "encoders"],
        "loss": {"constrain": True},
        "optimizer": {"lr": arguments.lr, "warmup": 0.1},
        "feature_cache": {"folder": str(arguments.work / "features")},
    }
    if not (folder / "model" / "lineage.json").exists():
        begun = (folder / "recipe.yaml").exists()
        if folder.exists() and not begun:
            shutil.rmtree(folder)
        train(Recipe.model_validate(page), folder, resume=begun, quiet=True)
    return folder / "model"


def spread(files: list[Path], arguments: argparse.Namespace, most: int) -> Path:
    """A part of some files' rows in one file, spread evenly over them: what all seeds learn from is encoded once."""
    part = arguments.work.resolve() / f"{len(files)}_{files[0].name}"
    if not part.exists():
        rows = []
        for file in files:
            for line in file.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                rows.append(row | {k: str(file.parent.resolve() / row[k]) for k in ("image", "audio") if k in row})
        count = min(most, len(rows))
        rows = [rows[index * len(rows) // count] for index in range(count)]
        part.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return part


def measure(folder: Path | str, judge: Judge) -> dict[str, float]:
    return {task: round(score.value, 4) for task, score in zip(TASKS, judge.measure(folder))}


def merged(parents: list[Path], arguments: argparse.Namespace, judge: Judge, **settings: Any) -> dict[str, float]:
    """Scores of a merged model, which is not kept."""
    folder = arguments.work / "merged"
    shutil.rmtree(folder, ignore_errors=True)
    merge(make_page({"parents": [str(p) for p in parents], "out": str(folder), **settings}), quiet=True)
    return measure(folder, judge)


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    arguments.work.mkdir(parents=True, exist_ok=True)
    judge = Judge(
        [
            spread([arguments.packs / file for file in task["test"]], arguments, arguments.rows)
            for task in TASKS.values()
        ],
        rows=arguments.rows,
        cache=arguments.work / "features",
    )
    parts = Parts(arguments.work / "parts.jsonl")
    one, two = TASKS
    found: dict[str, Any] = {"nano": parts.once("nano", lambda: measure("nano", judge)), "seeds": []}
    pairs: dict[int, list[Path]] = {}

    def made(seed: int, name: str, **told: Any) -> dict[str, float]:
        return parts.once(f"{seed} {name}", lambda: merged(pairs[seed], arguments, judge, **told))

    for seed in range(arguments.seeds):
        pairs[seed] = [expert(task, seed, arguments) for task in TASKS]
        line = {str(w): made(seed, str(w), method="interpolate", weights=[1 - w, w]) for w in WEIGHTS}
        found["seeds"].append({"seed": seed, "line": line})
    for seed in found["seeds"]:
        seed["methods"] = {
            method: made(seed["seed"], method, method=method, base="nano", **METHODS[method])
            for method in arguments.methods
        }
    if arguments.soups and arguments.seeds > 1:
        soups = {task: [pair[place] for pair in pairs.values()] for place, task in enumerate(TASKS)}
        found["soups"] = {
            task: parts.once(f"soup {task}", lambda task=task: merged(soups[task], arguments, judge)) for task in TASKS
        }
    found["summary"] = summary(found, one, two)
    return found


def summary(found: dict[str, Any], one: str, two: str) -> dict[str, Any]:
    """Means over seeds, and what a step of a quarter towards the other expert costs or brings: mean and 95% half width over seeds (t)."""

    def values(task: str, of: Callable[[dict[str, Any]], dict[str, float]]) -> np.ndarray:
        return np.array([of(seed)[task] for seed in found["seeds"]])

    told: dict[str, Any] = {"line": {}, "methods": {}, "against_the_expert": {}}
    for weight in WEIGHTS:
        told["line"][str(weight)] = {t: _spread(values(t, lambda s, w=weight: s["line"][str(w)])) for t in (one, two)}
    for method in found["seeds"][0]["methods"]:
        told["methods"][method] = {t: _spread(values(t, lambda s, m=method: s["methods"][m])) for t in (one, two)}
    for task, own in ((one, 0.0), (two, 1.0)):
        at = values(task, lambda s, own=own: s["line"][str(own)])
        for inner in (0.25, 0.5, 0.75):
            change = values(task, lambda s, w=inner: s["line"][str(w)]) - at
            told["against_the_expert"][f"{task} at {inner}"] = _spread(change)
    return told


def _spread(values: np.ndarray) -> dict[str, float]:
    middle, half = over_seeds(values.tolist())
    return {"mean": round(middle, 4)} | ({} if len(values) == 1 else {"half_width": round(half, 4)})


def draw(found: dict[str, Any], path: Path) -> None:
    figure = Figure(figsize=(9.6, 3.6), layout="constrained")
    line, front = figure.subplots(1, 2)
    one, two = TASKS
    for task, colour in ((one, "#4a7fd6"), (two, "#d1702a")):
        for seed in found["seeds"]:
            line.plot(WEIGHTS, [100 * seed["line"][str(w)][task] for w in WEIGHTS], color=colour, alpha=0.35, lw=1)
        means = [100 * found["summary"]["line"][str(w)][task]["mean"] for w in WEIGHTS]
        line.plot(WEIGHTS, means, color=colour, marker="o", label=task)
        line.axhline(100 * found["nano"][task], color=colour, linestyle=":", lw=1)
    line.set(xlabel=f"weight of the expert on {two}", ylabel="held-out rows right, %", xticks=WEIGHTS)
    line.legend(title="dotted: nano before", fontsize=8, title_fontsize=8)
    x, y = ([100 * found["summary"]["line"][str(w)][task]["mean"] for w in WEIGHTS] for task in (one, two))
    front.plot(x, y, color="#2f9a64", marker="o", label="interpolate")
    points = {"nano": (found["nano"][one], found["nano"][two])}
    points |= {m: (s[one]["mean"], s[two]["mean"]) for m, s in found["summary"]["methods"].items()}
    for name, (a, b) in points.items():
        front.scatter([100 * a], [100 * b], color="#84888f" if name == "nano" else "#8a63c9", s=18)
        front.annotate(name, (100 * a, 100 * b), xytext=(4, 3), textcoords="offset points", fontsize=7)
    front.set(xlabel=f"{one}, %", ylabel=f"{two}, %")
    front.legend(fontsize=8)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning, 16 rows each")
    parser.add_argument("--train-rows", type=int, default=400, help="of each file that is learned from")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--rows", type=int, default=100, help="held-out rows of each task")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--soups", action=argparse.BooleanOptionalAction, default=True, help="of all seeds of a task")
    parser.add_argument("--work", type=Path, default=Path("runs/merge_curve"), help="models, features, finished parts")
    parser.add_argument("--figure", type=Path, default=Path("docs/merge_curve.png"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = time.perf_counter()
    result: dict[str, Any] = {
        "command": f"python benchmarks/merge_curve.py --packs packs --seeds {arguments.seeds} --steps {arguments.steps} "
        f"--train-rows {arguments.train_rows} --rows {arguments.rows}",
        "date": date.today().isoformat(),
        "machine": {"processor": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "settings": {name: getattr(arguments, name) for name in ("steps", "lr", "train_rows", "rows")},
        **run(arguments),
    }
    result["seconds"], result["load"] = round(time.perf_counter() - began), round(os.getloadavg()[0], 2)
    print(json.dumps(result["summary"], indent=1))
    draw(result, arguments.figure)
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
