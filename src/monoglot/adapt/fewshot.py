"""How good is a model after few rows of new data, and how good is a dedicated one trained on the same rows?

    rows -> train, test -> shots (k rows of each answer, nested) -> adapt, or Rival.fit -> Answerer -> answers to the test rows
    -> Cell (score, seconds, megabytes) -> cells.jsonl -> summary -> fewshot.json, fewshot.png, report.html

A cell is one method with one number of shots and one seed. Each is kept as soon as it is done, so a run that is killed goes
on with --resume. Test media are encoded once for all cells whose encoders say the same; what answering a row takes is
measured apart, with nothing kept.
"""

from __future__ import annotations

import json
import platform
import shlex
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from monoglot import __version__, report
from monoglot.adapt.methods import METHODS
from monoglot.adapt.rivals import RIVALS, Answerer, Encoded, choose
from monoglot.adapt.rows import (
    labels,
    read_training,
    split_by_group,
    take_shots,
    write_samples,
)
from monoglot.adapt.run import adapt, load_keeping
from monoglot.adapters import is_adapter, megabytes, read_adapter
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.evaluate.intervals import over_seeds
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.report import some_of
from monoglot.evaluate.run import need_answers, score
from monoglot.files import read_json, sha256_of, write_json, write_text
from monoglot.nouns import Prediction, Sample
from monoglot.registry import unknown_name
from monoglot.report.fewshot import write_fewshot_report
from monoglot.store import base_folder, model_folder
from monoglot.tasks import TASKS

WAYS = (*METHODS, "auto")
"""Ways to adapt, see `adapt`."""
SHOTS = "1,2,5,10,20,50,all"
ALL = "all"
TIMED = 5
"""Rows that are answered one by one, to say how long one takes."""


@dataclass(frozen=True)
class Cell:
    """What one method reached with some shots and one seed."""

    name: str
    """A method of `adapt`, or a rival."""
    rival: bool
    shots: str
    """As asked for: a number, or `all`."""
    seed: int
    rows: int
    """Rows that it was trained on."""
    each: float
    """Of these, rows of each answer on average; of free text, all rows."""
    metric: str
    score: float
    low: float | None
    high: float | None
    """Bootstrap interval at 95% over the test rows of this cell."""
    errors: int
    """Test rows that could not be answered; they count as wrong."""
    seconds: float
    """To train."""
    megabytes: float
    """To keep, beside the shared base model; a rival is kept whole."""
    seconds_row: float
    """To read and answer one row, nothing kept."""
    why: str = ""
    """What was chosen for it."""

    @property
    def key(self) -> tuple[str, str, int]:
        return self.name, self.shots, self.seed


@dataclass(frozen=True)
class Plan:
    """What is to be measured."""

    train: list[Sample]
    test: list[Sample]
    shots: tuple[str, ...]
    seeds: int
    methods: tuple[str, ...]
    rivals: tuple[str, ...]

    def shots_of(self, shots: str, seed: int) -> list[Sample]:
        """The same rows for every method; fewer shots are among more."""
        return self.train if shots == ALL else take_shots(self.train, int(shots), seed=seed)

    def cells(self) -> Iterator[tuple[str, str, int]]:
        """Name, shots, seed: all of one seed before the next, so that a run that is stopped has whole curves."""
        for seed in range(self.seeds):
            for shots in self.shots:
                yield from ((name, shots, seed) for name in (*self.rivals, *self.methods))


def fewshot(
    model: str,
    data: Path,
    out: Path,
    *,
    test: Path | None = None,
    shots: str = SHOTS,
    seeds: int = 3,
    methods: str = "head,lora",
    rivals: str = "auto",
    limit_test: int | None = None,
    minutes: float = 2.0,
    resume: bool = False,
    keep: bool = False,
) -> Path:
    """Measure curves of few shots and write cells.jsonl, fewshot.json, fewshot.png, report.html; returns the last.

    Args:
        model: a model folder or the name of a bundled model.
        data: rows to take shots from, all of one task.
        test: rows to score with; without them whole groups of `data` are set apart, the same for every seed.
        shots: numbers of rows of each answer (of free text: rows), parted by commas; `all` for every row.
        seeds: how often shots are drawn and training repeated.
        methods: ways to adapt, parted by commas.
        rivals: names in RIVALS; `auto` for those that make sense, `none` for the plain answer alone.
        limit_test: at most so many test rows, drawn.
        minutes: most that a cell may train for.
        resume: go on with the cells that `out` has already.
        keep: keep the adapters, in out/adapters.

    Raises:
        InputError: a setting, a file or a row is wrong; told before anything is trained.
    """
    report.require()
    console = Console(width=None if Console().is_terminal else 150)
    wanted, ways, dedicated = read_shots(shots), _methods(methods), _names(rivals)
    if seeds < 1:
        raise InputError.at("command line", "--seeds", f"is {seeds}", "give 1 or more; 3 say how much chance does")
    folder = model_folder(model)
    base = load_keeping(folder)
    train, held, audit = read_training([data], base.model.config, held_out=test)
    notes = list(audit.notes)
    if held is None:
        train, held = split_by_group(train, seed=0)
        if not held:
            wrong = f"{len(train)} rows are too few to set some apart"
            raise InputError.at(data, "--test", wrong, "give test rows with --test")
        notes.append(
            f"no --test: {len(held)} of {len(train) + len(held)} rows, in groups of their own, are the test rows"
        )
    held = some_of(held, limit_test)
    for samples in (train, held):
        need_answers(samples)
    tasks = list(dict.fromkeys(sample.task for sample in (*train, *held)))
    if len(tasks) > 1:
        raise InputError.at(data, "task", f"the rows have several: {', '.join(tasks)}", "give the rows of one task")
    chosen = choose(dedicated, train)
    kept, found = distinct(wanted, train)
    plan = Plan(train, held, kept, seeds, ways, tuple(chosen))
    notes += found
    settings: dict[str, Any] = {
        "model": {"name": base.model.config.name, "sha256": _weights_hash(folder)},
        "data": {"name": data.name, "sha256": sha256_of(data) if data.is_file() else None, "rows": len(train)},
        "test": {"sha256": sha256_of(test) if test and test.is_file() else None, "rows": len(held)},
        "limit_test": limit_test,
        "minutes": minutes,
    }
    cells = _begin(out, settings, resume=resume)
    for note in notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    runner = Runner(plan, folder, base, out, minutes=minutes, keep=keep)
    left_out = run_cells(plan, cells, runner, out / "cells.jsonl", console)
    for name, why in left_out.items():
        notes.append(f"{name} is left out: {why}")
    result: dict[str, Any] = {
        "task": tasks[0],
        "metric": _metric(tasks[0]),
        "settings": settings
        | {"shots": list(kept), "seeds": seeds, "methods": list(ways), "rivals": chosen}
        | {"base_megabytes": round(megabytes(base_folder(read_adapter(folder)) if is_adapter(folder) else folder), 2)},
        "answers": len(set(labels(train))),
        "labels": {name: RIVALS[name].label(train) for name in chosen},
        "notes": notes,
        "command": _command(
            model=model,
            data=data,
            test=test,
            shots=shots,
            seeds=seeds,
            methods=methods,
            rivals=rivals,
            limit_test=limit_test,
            minutes_each=minutes,
            out=out,
        ),
        "versions": _versions(),
        "machine": {"processor": platform.machine(), "system": platform.system(), "threads": torch.get_num_threads()},
    }
    result |= summary([cell for cell in cells if cell.key in set(plan.cells())], plan, result["metric"])
    write_json(out / "fewshot.json", result)
    page = write_fewshot_report(out, result)
    console.print(shot_table(result))
    console.print(duel_table(result))
    return page


# --- what is asked for ------------------------------------------------------------------------------------------------


def read_shots(text: str) -> tuple[str, ...]:
    """Numbers of shots, rising, `all` last.

    >>> read_shots("5, 1,all")
    ('1', '5', 'all')
    """
    parts = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for part in parts:
        if part != ALL and not (part.isdecimal() and int(part) > 0):
            raise InputError.at("command line", "--shots", f"{part!r} is no number above 0", f"for example {SHOTS}")
    if not parts:
        raise InputError.at("command line", "--shots", "names none", f"for example {SHOTS}")
    numbers = sorted({int(part) for part in parts if part != ALL})
    return (*map(str, numbers), *((ALL,) if ALL in parts else ()))


def _names(text: str) -> list[str]:
    return list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def _methods(text: str) -> tuple[str, ...]:
    names = _names(text)
    for name in names:
        if name not in WAYS:
            raise InputError.at("command line", "--methods", unknown_name("method", name, WAYS))
    if not names:
        raise InputError.at("command line", "--methods", "names none", f"one or more of {', '.join(WAYS)}")
    return tuple(names)


def distinct(shots: Sequence[str], train: Sequence[Sample]) -> tuple[tuple[str, ...], list[str]]:
    """Numbers of shots that give different rows, and a note on the others: more than there are is all there are."""
    kept: dict[int, str] = {}
    for one in shots:
        rows = len(train) if one == ALL else len(take_shots(train, int(one), seed=0))
        kept[rows] = one if one == ALL or rows not in kept else kept[rows]
    most = max(Counter(labels(train)).values())
    notes = []
    if missing := [one for one in shots if one not in kept.values()]:
        notes.append(
            f"{', '.join(missing)} shots are left out: no answer has more than {most} rows, so they give no others"
        )
    if 1 in kept:
        notes.append(f"{kept.pop(1)} shots are left out: they are one row in all")
    if larger := [one for one in kept.values() if one != ALL and int(one) > most]:
        notes.append(f"{larger[0]} shots are all rows there are: no answer has more than {most}")
    return tuple(one for one in shots if one in kept.values()), notes


def _metric(task: str) -> dict[str, Any]:
    metric = METRICS[TASKS[task].metrics[0]]
    return {"name": metric.name, "unit": metric.unit, "higher_is_better": metric.higher_is_better}


# --- cells ------------------------------------------------------------------------------------------------------------


def run_cells(
    plan: Plan, cells: list[Cell], run: Callable[[str, str, int], Cell], path: Path, console: Console
) -> dict[str, str]:
    """Run the cells that are not there yet and add each to `cells` and to the file.

    Returns: methods that cannot learn these rows, each with why; the others go on without them.
    """
    done, left_out = {cell.key for cell in cells}, dict[str, str]()
    todo = [key for key in plan.cells() if key not in done]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(True))
    screen = Console(stderr=True)
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=len(todo))
        for name, shots, seed in todo:
            progress.update(bar, description=f"seed {seed}, {shots} shots, {name}")
            if name not in left_out:
                try:
                    cell = run(name, shots, seed)
                except InputError as error:
                    if name not in plan.methods:
                        raise
                    left_out[name] = str(error)
                    if len(left_out) == len(plan.methods):
                        raise
                else:
                    cells.append(cell)
                    write_text(path, "".join(json.dumps(asdict(one)) + "\n" for one in cells))
                    line = f"seed {seed}, {shots} shots, {name}: {cell.score:.3f} in {cell.seconds:.1f} s"
                    progress.console.print(line, highlight=False)
            progress.advance(bar)
    return left_out


def _begin(out: Path, settings: Mapping[str, Any], *, resume: bool) -> list[Cell]:
    """The cells of a run that is gone on with. Raises InputError where another run has been, or its settings were others."""
    path, about = out / "cells.jsonl", out / "settings.json"
    if path.exists() and not resume:
        raise InputError.at(
            out, "--out", "holds cells of an earlier run", "go on with --resume, or name another folder"
        )
    if not path.exists():
        write_json(about, settings)
        return []
    before = read_json(about, "the settings of the run")
    changed = [name for name, value in settings.items() if before.get(name) != value]
    if changed:
        wrong = f"its cells were made with other settings: {', '.join(changed)}"
        raise InputError.at(out, "--resume", wrong, "give the same model, rows and limits, or name another folder")
    try:
        return [Cell(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    except (ValueError, TypeError) as error:
        raise InputError.at(path, "", f"cannot be read ({error})", "remove it to begin again") from None


class Runner:
    """Runs one cell: train on its shots, answer the test rows, measure."""

    def __init__(self, plan: Plan, folder: Path, base: Predictor, out: Path, *, minutes: float, keep: bool):
        self.plan, self.folder, self.base, self.out = plan, folder, base, out
        self.minutes, self.keep, self.encoded = minutes, keep, Encoded()

    def __call__(self, name: str, shots: str, seed: int) -> Cell:
        rows = self.plan.shots_of(shots, seed)
        if name in self.plan.rivals:
            answerer = RIVALS[name].fit(rows, self.encoded, seed, self.minutes)
        else:
            answerer = self._adapted(name, shots, seed, rows)
        answers = answerer.answer(self.plan.test, False)
        found = score(self.plan.test, answers, {}, seed=seed)[0]
        readable = [sample for sample, answer in zip(self.plan.test, answers) if answer.error is None]
        classes = set(labels(rows))
        return Cell(
            name=name,
            rival=name in self.plan.rivals,
            shots=shots,
            seed=seed,
            rows=len(rows),
            each=len(rows) / len(classes),
            metric=found.metric,
            score=found.value,
            low=found.low,
            high=found.high,
            errors=found.errors,
            seconds=round(answerer.seconds, 3),
            megabytes=round(answerer.megabytes, 4),
            seconds_row=round(seconds_a_row(answerer, readable), 5),
            why=answerer.why,
        )

    def _adapted(self, method: str, shots: str, seed: int, rows: Sequence[Sample]) -> Answerer:
        """The model itself, adapted to the shots."""
        file = self.out / "shots" / f"seed{seed}_{shots}.jsonl"
        if not file.exists():
            write_samples(file, rows)
        folder = self.out / "adapters" / f"{method}_seed{seed}_{shots}"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        made = adapt(self.folder, file, folder, method=method, seed=seed, minutes=self.minutes, quiet=True)
        predictor = self._load(made.folder)
        if not self.keep:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # adapters of others are in it
                folder.parent.rmdir()
        why = f"{made.method}: {made.why}" if method == "auto" else made.why
        return Answerer(lambda asked, fresh: _answers(predictor, asked, fresh), made.seconds, made.megabytes, why)

    def _load(self, folder: Path) -> Predictor:
        """What was adapted; an adapter of the base shares its tensors, and what its encoders said."""
        shared = is_adapter(folder) and not is_adapter(self.folder)
        return self.base.with_adapter(folder) if shared else load_keeping(folder)


def _answers(predictor: Predictor, samples: Sequence[Sample], fresh: bool) -> list[Prediction]:
    cache = predictor.cache
    if fresh:
        predictor.keep_features(None)
    try:
        return list(predictor.predict_many(samples))
    finally:
        predictor.keep_features(cache)


def seconds_a_row(answerer: Answerer, samples: Sequence[Sample]) -> float:
    """Median over some rows, one at a time, their media read and encoded anew."""
    taken = []
    for sample in [*samples[:1], *some_of(samples, TIMED)]:  # the first one warms up
        started = time.perf_counter()
        answerer.answer([sample], True)
        taken.append(time.perf_counter() - started)
    return median(taken[1:]) if len(taken) > 1 else 0.0


# --- what the cells say -----------------------------------------------------------------------------------------------


def area(each: Sequence[float], scores: Sequence[float]) -> float:
    """The mean height of a curve over log k: its area by trapezoids, over its width. One point is its own mean.

    >>> round(area([1, 10, 100], [0.0, 0.5, 1.0]), 3)
    0.5
    """
    if len(each) == 1:
        return float(scores[0])
    x, y = np.log(each), np.asarray(scores, float)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))


def summary(cells: Sequence[Cell], plan: Plan, metric: Mapping[str, Any]) -> dict[str, Any]:
    """Curves of each method and rival, the best of both at each k, and the cells themselves; ready for JSON."""
    curves = [_curve(name, cells, plan) for name in (*plan.methods, *plan.rivals)]
    curves = [curve for curve in curves if curve["points"]]
    return {
        "curves": curves,
        "duels": [duel for shots in plan.shots if (duel := _duel(shots, cells, metric))],
        "cells": [asdict(cell) for cell in cells],
    }


def _curve(name: str, cells: Sequence[Cell], plan: Plan) -> dict[str, Any]:
    own = {(cell.shots, cell.seed): cell for cell in cells if cell.name == name}
    points = []
    for shots in plan.shots:
        found = [own[shots, seed] for seed in range(plan.seeds) if (shots, seed) in own]
        if found:
            points.append(
                {"shots": shots, "each": mean(cell.each for cell in found), "rows": found[0].rows, "seeds": len(found)}
                | _stated("score", [cell.score for cell in found])
                | {
                    field: mean(getattr(cell, field) for cell in found)
                    for field in ("seconds", "megabytes", "seconds_row")
                }
            )
    whole = [
        area([own[shots, seed].each for shots in plan.shots], [own[shots, seed].score for shots in plan.shots])
        for seed in range(plan.seeds)
        if all((shots, seed) in own for shots in plan.shots)
    ]
    return {
        "name": name,
        "rival": name in plan.rivals,
        "points": points,
        "area": _stated("mean", whole) if whole else None,
    }


def _stated(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Mean and half width of its interval; None for a single seed, which says nothing about spread."""
    middle, half = over_seeds(values)
    return {name: middle, "half": None if len(values) == 1 else half}


def _duel(shots: str, cells: Sequence[Cell], metric: Mapping[str, Any]) -> dict[str, Any] | None:
    """The best method against the best rival, each best by its mean, and their difference seed by seed (above 0: the method is better)."""
    sign = 1 if metric["higher_is_better"] else -1
    scores: dict[bool, dict[str, dict[int, float]]] = {True: {}, False: {}}
    for cell in cells:
        if cell.shots == shots:
            scores[cell.rival].setdefault(cell.name, {})[cell.seed] = cell.score
    if not scores[True] or not scores[False]:
        return None
    method, rival = (
        max(found, key=lambda name: sign * mean(found[name].values())) for found in (scores[False], scores[True])
    )
    ours, theirs = scores[False][method], scores[True][rival]
    differences = [sign * (ours[seed] - theirs[seed]) for seed in sorted(set(ours) & set(theirs))]
    if not differences:
        return None
    stated = _stated("difference", differences)
    return {"shots": shots, "method": method, "rival": rival} | stated | {"verdict": verdict(differences)}


def verdict(differences: Sequence[float]) -> str:
    """Who is better, seed by seed: sure only if the 95% interval of the mean lies on one side of 0.

    >>> verdict([0.1, 0.12, 0.11]), verdict([0.1, -0.1, 0.0]), verdict([0.1])
    ('win', 'even', 'ahead, one seed')
    """
    middle, half = over_seeds(differences)
    if len(differences) == 1:
        side = "ahead" if middle > 0 else "behind" if middle < 0 else "equal"
        return f"{side}, one seed"
    return "even" if abs(middle) <= half else "win" if middle > 0 else "loss"


def shot_table(result: Mapping[str, Any]) -> Table:
    """k x method on the terminal: mean ± half of the 95% interval over seeds."""
    metric = result["metric"]["name"]
    shots = result["settings"]["shots"]
    table = Table(
        "", *[f"{one} shots" if one != ALL else ALL for one in shots], "area", "train s", "MB", "s a row", box=None
    )
    table.title = f"{result['task']}: {metric}, mean ± 95% interval over seeds"
    for curve in result["curves"]:
        by_shots = {point["shots"]: point for point in curve["points"]}
        last = curve["points"][-1]
        table.add_row(
            result["labels"].get(curve["name"], f"monoglot {curve['name']}"),
            *[_plus_minus(by_shots[one], "score") if one in by_shots else "" for one in shots],
            _plus_minus(curve["area"], "mean") if curve["area"] else "",
            f"{last['seconds']:.1f}",
            f"{last['megabytes']:.2f}",
            f"{last['seconds_row']:.3f}",
        )
    return table


def duel_table(result: Mapping[str, Any]) -> Table:
    """The best method against the best rival at each number of shots."""
    table = Table("shots", "best method", "best rival", "difference", "", box=None)
    for duel in result["duels"]:
        rival = result["labels"].get(duel["rival"], duel["rival"])
        table.add_row(duel["shots"], duel["method"], rival, _plus_minus(duel, "difference", "+.3f"), duel["verdict"])
    return table


def _plus_minus(stated: Mapping[str, Any], name: str, form: str = ".3f") -> str:
    half = stated["half"]
    return f"{stated[name]:{form}}" + ("" if half is None else f" ± {half:.3f}")


# --- what it was measured with ----------------------------------------------------------------------------------------


def _weights_hash(folder: Path) -> str:
    """Of what the folder's answers depend on; an adapter's folder has weights of another name."""
    names = ("model.safetensors", "adapter.safetensors")
    return next((sha256_of(folder / name) for name in names if (folder / name).is_file()), "")


def _versions() -> dict[str, str]:
    found = {"monoglot": __version__, "python": platform.python_version()}
    for name in ("torch", "numpy", "scikit-learn"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _command(**options: Any) -> str:
    """The command line that asks for this."""
    words = ["monoglot", "fewshot"]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join(words)
