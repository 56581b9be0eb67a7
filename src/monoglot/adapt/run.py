"""`monoglot adapt`: a few rows, a little training, and the model does the new task.

    rows -> read_training -> [take_shots] -> split_by_group -> method -> adapter or model folder
         -> scores on held-out rows before and after -> a table, report.html, lineage.json

The folder is the result itself: `monoglot predict --model FOLDER`. rows/ in it holds what was trained on and what was held out, run/ how the training went.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from torch import Tensor

from monoglot import __version__
from monoglot.adapt.heads import fit_heads
from monoglot.adapt.methods import FEW, METHODS, ROWS_A_STEP, candidates, has_classes, steps_for, trained_parts
from monoglot.adapt.rows import (
    CLOSED_TASKS,
    answer_sets,
    labels,
    read,
    read_training,
    split_by_group,
    take_shots,
    with_choices,
    write_samples,
)
from monoglot.adapters import (
    SETTINGS,
    Adapter,
    AdapterSettings,
    Answers,
    Limits,
    is_adapter,
    megabytes,
    read_adapter,
    read_answers,
    save_adapter,
    write_answers,
)
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.report import labels_of, some_of
from monoglot.evaluate.run import Score, evaluate, need_answers
from monoglot.files import read_json, sha256_of, write_json, write_text
from monoglot.model.features import open_cache
from monoglot.nouns import Prediction, Sample
from monoglot.report.adapt import write_adapt_report
from monoglot.store import BUNDLED, base_folder, base_of, model_folder, read_config
from monoglot.train.distributed import open_world
from monoglot.train.loop import train
from monoglot.train.recipe import Recipe, first_problem, merged
from monoglot.train.run import Run

LOOKED_AT = 128
"""Held-out rows whose loss says when training has gone on for long enough."""
LOOKS = 8
"""Times that it is looked at, at most."""
SCORED = 500
"""Held-out rows that are answered before and after, at most."""
AUTO_MINUTES = 2.0
LEAST_STEPS = 20
"""With less time than for so many, nothing is trained step by step."""


@dataclass(frozen=True)
class Adapted:
    """What came of it."""

    folder: Path
    """A model folder or an adapter."""
    method: str
    why: str
    """Why this method."""
    seconds: float
    """From rows to the finished folder, without the scores before and after."""
    megabytes: float
    """What has to be kept beside the base."""
    steps: int
    """Of training; 0 for a head."""
    before: list[Score]
    after: list[Score]
    """Of the same held-out rows; empty if there are none."""
    notes: tuple[str, ...] = ()
    """What there is to know about the rows."""
    refitted: bool = False
    """The result has learned from the held-out rows, too, after they had been scored."""


@dataclass
class Job:
    """One adaptation: what is given, and what is found on the way."""

    model: Path
    out: Path
    rows: Path
    """Folder of train.jsonl, held_out.jsonl and all.jsonl."""
    train: list[Sample]
    held_out: list[Sample]
    answers: tuple[Answers, ...]
    file: str = "train"
    """Name of the rows to train on, in the folder of rows."""
    heads: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """Tensors of heads that the model has for other questions than those of the rows, by the place of their answers."""
    replay: Sequence[Path] = ()
    replayed: dict[str, list[Sample]] = field(default_factory=dict)
    """Rows of `replay`, by the names of their data sets."""
    replay_share: float = 0.25
    seed: int = 0
    minutes: float | None = None
    changes: dict[str, Any] = field(default_factory=dict)
    """Fields of a recipe that are other than the method's."""
    quiet: bool = False
    resume: bool = False


def adapt(
    model: str | Path,
    data: Path | Sequence[Path],
    out: Path,
    *,
    method: str = "auto",
    shots: int | None = None,
    seed: int = 0,
    held_out: Path | None = None,
    minutes: float | None = None,
    replay: Sequence[Path] = (),
    replay_share: float = 0.25,
    old: Sequence[Path] = (),
    changes: dict[str, Any] | None = None,
    refit: bool = True,
    resume: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Adapted:
    """Adapt a model to rows and write the result to a new folder.

    Args:
        model: a model folder, an adapter (which goes on), or a bundled model's name.
        data: rows to learn from (JSONL, or packs).
        method: head, connector, lora, full; auto picks.
        shots: learn from so many rows of each answer only.
        held_out: rows to compare with; without it some of `data` are set apart, whole groups, if there are enough.
        minutes: most time to spend on training; 2 for 'auto'.
        replay: old rows to repeat against forgetting, a `replay_share` of every step.
        old: rows of old abilities that are scored before and after.
        changes: fields of the training recipe, for example {"steps": 300}.
        refit: learn from all rows in the end, if some of `data` were set apart; the scores are of what was learned without these.

    Raises:
        InputError: rows, model or folder are not as they must be; told before anything is trained.

    >>> adapt("nano", Path("drums.jsonl"), Path("out/drums"), method="lora").megabytes  # doctest: +SKIP
    0.8
    """
    if method != "auto":
        METHODS[method]  # a wrong name is told first
    paths = [Path(data)] if isinstance(data, (str, Path)) else [Path(path) for path in data]
    folder, out = model_folder(model), Path(out)
    _check_out(out, resume)
    predictor = load_keeping(folder)
    samples, apart, audit = read_training(
        paths,
        predictor.model.config,
        held_out=held_out,
        tokens=lambda text: len(predictor.tokenizer.encode(f" {text}")),
    )
    if shots is not None:
        samples = take_shots(samples, shots, seed=seed)
    refit = refit and apart is None
    everything = samples
    if apart is None:
        samples, apart = _set_apart(samples, seed)
    answers = _answers(folder, everything if refit else samples)
    everything = with_choices(everything, answers)
    samples, apart = with_choices(samples, answers), some_of(with_choices(apart, answers), SCORED)
    apart = [sample for sample in apart if sample.targets or sample.box]
    replayed = {f"replay_{n}_{Path(path).stem}": with_choices(_old(path), answers) for n, path in enumerate(replay, 1)}
    job = Job(
        folder,
        out,
        rows=out / "rows",
        train=samples,
        held_out=apart,
        answers=answers,
        heads=_heads(folder, answers),
        replay=replay,
        replayed=replayed,
        replay_share=replay_share,
        seed=seed,
        minutes=_time(minutes, method, halved=refit and bool(apart)),
        changes=dict(changes or {}),
        quiet=quiet,
        resume=resume,
    )
    console = Console(stderr=True, quiet=quiet)
    for note in audit.notes:
        console.print(f"note: {note}", highlight=False, soft_wrap=True)
    old_rows = {
        name: some_of(_old(path), SCORED)
        for name, path in zip(labels_of(list(map(Path, old)), field="--old"), map(Path, old))
    }
    names, why = _methods(job, method)
    for name in names:
        _check(job, name)
    for stem, rows in {"train": samples, "held_out": apart, **job.replayed}.items():
        write_samples(job.rows / f"{stem}.jsonl", rows)

    said: dict[str, list[Prediction]] = {}
    before, said["before"] = _scores(predictor, apart, samples, seed)
    old_before = {name: _scores(predictor, rows, [], seed)[0] for name, rows in old_rows.items()}
    done = _one(job, predictor, names[0], why) if len(names) == 1 else _auto(job, predictor, names, console)
    after, said["after"] = _scores(load_keeping(out), apart, samples, seed)
    refit = refit and bool(apart)
    if refit:
        done = _on_all(job, predictor, done, everything, console)
    adapted = load_keeping(out)
    old_after = {name: _scores(adapted, rows, [], seed)[0] for name, rows in old_rows.items()}
    result = Adapted(
        out, done.method, done.why, done.seconds, _kept(out), done.steps, before, after, audit.notes, refit
    )
    forgotten = {name: (old_before[name], old_after[name]) for name in old_rows}
    _write_lineage(job, result, paths, held_out, shots, forgotten, command)
    if not quiet:
        show(result, forgotten)
    try:
        write_adapt_report(out, _facts(result, job), apart, said, result.before, result.after, forgotten, result.notes)
    except InputError as error:  # an extra is missing: the result is whole without it
        console.print(f"no report.html: {error}", highlight=False, soft_wrap=True)
    return result


# --- methods ---


@dataclass(frozen=True)
class Done:
    """A finished folder."""

    method: str
    why: str
    seconds: float
    steps: int


def _one(job: Job, predictor: Predictor, method: str, why: str) -> Done:
    """Adapt by one method; the result is in `job.out`."""
    started = time.perf_counter()
    if METHODS[method].page is None:
        told = _head(job, predictor)
        return Done(method, f"{why}; {told}", time.perf_counter() - started, 0)
    steps = _train(job, predictor, method)
    return Done(method, why, time.perf_counter() - started, steps)


def _auto(job: Job, predictor: Predictor, names: Sequence[str], console: Console) -> Done:
    """Try some methods within the time, keep what the held-out rows like best."""
    assert job.minutes is not None
    tried: list[tuple[float, str, Done, Path]] = []
    notes = []
    began = time.perf_counter()
    for place, name in enumerate(names):
        left = job.minutes - (time.perf_counter() - began) / 60
        here = replace(job, out=job.out / "tried" / name, minutes=max(0.0, left) / (len(names) - place))
        console.print(f"auto: trying {name} ({METHODS[name].what})", highlight=False)
        try:
            done = _one(here, predictor, name, "tried")
        except InputError as error:
            if METHODS[name].page is not None and not isinstance(error, TooLittleTime):
                raise
            notes.append(f"{name} left out, {error}")
            continue
        score, told = _main(_scores(load_keeping(here.out), job.held_out, [], job.seed)[0])
        notes.append(f"{name} {told}")
        tried.append((score, name, done, here.out))
    if not tried:
        raise InputError("; ".join(notes))
    best = max(tried, key=lambda one: one[0])  # the first of equals, which is the cheaper
    _bring(best[3], job.out)
    shutil.rmtree(job.out / "tried", ignore_errors=True)
    why = f"best of {len(job.held_out)} held-out rows: {', '.join(notes)}"
    return Done(best[1], why, time.perf_counter() - began, best[2].steps)


def _on_all(job: Job, predictor: Predictor, done: Done, samples: list[Sample], console: Console) -> Done:
    """The same once more from all rows, for as long as the held-out ones said; the result takes the place of the first."""
    changes = job.changes
    if METHODS[done.method].page is not None:
        changes = {**changes, "steps": _steps_found(job.out / "run")}
    told = f" for {changes['steps']} steps" if "steps" in changes else ""
    console.print(f"once more from all {len(samples)} rows{told}", highlight=False)
    write_samples(job.rows / "all.jsonl", samples)
    again = replace(
        job, out=job.out / "again", train=samples, held_out=[], file="all", minutes=None, changes=changes, resume=False
    )
    shutil.rmtree(again.out, ignore_errors=True)  # of a run that was stopped
    last = _one(again, predictor, done.method, done.why)
    if (job.out / "run").exists():
        shutil.rmtree(job.out / "run_held_out", ignore_errors=True)
        os.replace(job.out / "run", job.out / "run_held_out")
    _bring(again.out, job.out)
    shutil.rmtree(again.out, ignore_errors=True)
    return replace(last, seconds=done.seconds + last.seconds, steps=done.steps + last.steps, why=done.why)


def _steps_found(run: Path) -> int:
    """Steps that suit all rows: twice as many as up to the best look, since the rate, which had hardly fallen there, falls to nothing in them."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    looks = [(line["held_out"]["held_out"], line["step"]) for line in lines if "held_out" in line]
    steps: int = _page(run)["steps"]
    best = min((look for look in looks if look[0] is not None), default=(0.0, steps))[1]
    return min(steps, max(LEAST_STEPS, 2 * best))


class TooLittleTime(InputError):
    """Training would take longer than there is time for."""


def _head(job: Job, predictor: Predictor) -> str:
    """Fit heads and store them; says how they came out."""
    parent = read_adapter(job.model) if is_adapter(job.model) else None
    answers, tensors, told = fit_heads(predictor, _with_replay(job), job.answers, job.heads)
    base = base_of(base_folder(parent), parent.settings.base, job.out) if parent else base_of(job.model, None, job.out)
    lora = parent.settings.lora if parent else None
    changes = parent.changes if parent else {}
    settings = AdapterSettings(base=base, method="head", lora=lora, answers=answers)
    save_adapter(job.out, settings, changes, heads=tensors, card=_card(job, "head", base.name))
    return told


def _train(job: Job, predictor: Predictor, method: str) -> int:
    """Train by the engine and bring the result to `job.out`; returns steps."""
    recipe = _recipe(job, method)
    run = job.out / "run"
    begun = job.resume and (run / "recipe.yaml").exists()
    if begun:
        page = _page(run)  # as it was cut to the time
        recipe = recipe.model_copy(update={key: page[key] for key in ("steps", "validate_every") if key in page})
    elif job.minutes is not None:
        recipe = _in_time(recipe, job.minutes)
    result = train(recipe, run, resume=begun, quiet=job.quiet)
    steps = int(read_json(result / "lineage.json", "where the model comes from")["run"]["steps"])
    if is_adapter(result):
        made = read_adapter(result)
        base = base_of(base_folder(made), made.settings.base, job.out)
        settings = made.settings.model_copy(update={"base": base, "method": method, "answers": job.answers})
        save_adapter(job.out, settings, made.tensors, card=_card(job, method, base.name))
        shutil.rmtree(result)
    else:
        _bring(result, job.out)
        if job.answers:
            write_answers(job.out, job.answers)
        write_text(job.out / "README.md", _card(job, method, job.model.name))
    for spent in (run / "checkpoint", result):
        shutil.rmtree(spent, ignore_errors=True)
    (run / "best.safetensors").unlink(missing_ok=True)
    return steps


def _recipe(job: Job, method: str) -> Recipe:
    """The page of a run. Paths in it are whole, so that it can be read from anywhere."""
    name = job.out.resolve().name
    quota = min(ROWS_A_STEP, len(job.train))
    steps = steps_for(len(job.train))
    base = base_folder(read_adapter(job.model)) if is_adapter(job.model) else job.model
    page: dict[str, Any] = {
        "name": name,
        "start": job.model.name if _bundled(job.model) else str(job.model.resolve()),
        "data_folder": str(job.rows.resolve()),
        "seed": job.seed,
        "mixture": [{"name": name, "data": f"{job.file}.jsonl", "quota": quota}],
        "steps": steps,
        "adapter": METHODS[method].adapter,
        "train_only": trained_parts(method, job.train, read_config(base).modalities),
        "loss": {"constrain": bool(job.answers)},
        "samples": 0,
        "quarantine_share": 0.01,
    }
    page |= METHODS[method].page or {}
    if method == "connector" and not page["train_only"]:
        raise InputError.at("rows", "method", "rows of text alone have no connector to train", "use --method lora")
    if method == "lora" and is_adapter(job.model) and read_adapter(job.model).settings.lora is not None:
        page.pop("lora")  # the adapter's own changes go on
    if job.replayed:
        left = job.replay_share / (1 - job.replay_share) * quota / len(job.replayed)
        page["mixture"] += [{"name": name, "data": f"{name}.jsonl", "quota": left} for name in job.replayed]
    if job.held_out:
        page["validation"] = [{"name": "held_out", "data": "held_out.jsonl", "rows": LOOKED_AT}]
    page = merged(page, job.changes)
    if not isinstance(page["steps"], int):
        wrong = f"steps: {page['steps']!r} is no whole number"
        raise InputError.at("command line", "--set", wrong, "an adaptation has so many steps at most")
    if job.held_out:
        page.setdefault("validate_every", max(1, math.ceil(page["steps"] / LOOKS)))
        page.setdefault("plateau", {"scores": ["held_out"], "patience": 3, "least": 0.002, "best": True})
    try:
        return Recipe.model_validate(page)
    except ValidationError as error:
        raise InputError.at("command line", "--set", ": ".join(first_problem(error))) from None


def _in_time(recipe: Recipe, minutes: float) -> Recipe:
    """The recipe with as many steps as fit, by the time of the first few. Raises TooLittleTime."""
    with tempfile.TemporaryDirectory() as folder:
        world = open_world()
        seconds = []
        try:
            with Run(recipe, Path(folder) / "probe", world, quiet=True) as run:
                for step in run.stage.reader.ahead(0, 3):
                    began = time.perf_counter()
                    run.do(step, 0.0)
                    seconds.append(time.perf_counter() - began)
        finally:
            world.close()
    assert recipe.steps is not None
    looks = 1.3 if recipe.validation else 1.0  # what looking at held-out rows takes beside the steps
    fit = int(60 * minutes / (min(seconds) * looks))
    if fit < LEAST_STEPS:
        wrong = f"{minutes:.2g} minutes are {fit} steps of {min(seconds):.2g} s, fewer than {LEAST_STEPS}"
        raise TooLittleTime.at("adapt", "minutes", wrong, "give more time, or use --method head")
    steps = min(recipe.steps, fit)
    return recipe.model_copy(
        update={"steps": steps, "validate_every": min(recipe.validate_every, math.ceil(steps / LOOKS))}
    )


def _bring(result: Path, out: Path) -> None:
    """Move a finished model or adapter to where it belongs."""
    if is_adapter(result):
        made = read_adapter(result)
        base = base_of(base_folder(made), made.settings.base, out)
        _save_again(made, out, made.settings.model_copy(update={"base": base}))
    else:
        for path in sorted(result.iterdir()):
            if path.is_file():
                os.replace(path, out / path.name)
    if (result / "run").exists():
        shutil.rmtree(out / "run", ignore_errors=True)
        os.replace(result / "run", out / "run")


def _save_again(made: Adapter, out: Path, settings: AdapterSettings) -> None:
    card = (made.folder / "README.md").read_text(encoding="utf-8")
    save_adapter(out, settings, made.changes, heads=made.heads(), card=card)


# --- what can be done ---


def _methods(job: Job, method: str) -> tuple[list[str], str]:
    """Methods to try, and why those."""
    if method != "auto":
        return [method], "as asked"
    names, why = candidates(job.train, job.held_out)
    if job.heads and "head" in names:
        return ["head"], "the heads of earlier questions read what other methods change"
    return names, why


def _check(job: Job, method: str) -> None:
    """InputError for what a method cannot do with these rows; told before anything is written."""
    if METHODS[method].page is not None:
        if job.heads:
            given = job.answers[min(job.heads)]
            wrong = f"{given.text or given.task!r} is answered by a head, which reads what {method!r} changes"
            raise InputError.at(job.model, "--method", wrong, "use --method head, or adapt the base to all of the rows")
        _recipe(job, method)
    elif not has_classes(job.train):
        first = next(s for s, label in zip(job.train, labels(job.train)) if s.task not in CLOSED_TASKS or not label[3])
        wrong = f"task {first.task!r} has free answers here, and a head picks one of a few"
        raise InputError.at(first.where or f"sample {first.id}", "task", wrong, "use --method lora")


# --- rows ---


def _check_out(out: Path, resume: bool) -> None:
    if out.exists() and any(out.iterdir()) and not resume:
        raise InputError.at(out, "--out", "the folder is not empty", "give a new one, or --resume to go on")
    if resume and "scores" in _page_of(out / "lineage.json"):
        raise InputError.at(out, "--resume", "is finished already", "predict with it, or give a new folder")


def _time(minutes: float | None, method: str, *, halved: bool) -> float | None:
    """Minutes for training; half of them if all rows are learned from afterwards."""
    whole = AUTO_MINUTES if minutes is None and method == "auto" else minutes
    return whole / 2 if whole is not None and halved else whole


def _set_apart(samples: list[Sample], seed: int) -> tuple[list[Sample], list[Sample]]:
    """(to train on, held out): none are held out where each answer has few rows."""
    kinds = len(set(labels(samples)))
    return (samples, []) if len(samples) < FEW * kinds else split_by_group(samples, seed=seed)


def _answers(folder: Path, samples: Sequence[Sample]) -> tuple[Answers, ...]:
    """What the new questions may be answered with, and what the model had before; a question that comes again has both."""
    found = {(given.task, given.text, given.lang): given for given in read_answers(folder)}
    for new in answer_sets(samples):
        key = (new.task, new.text, new.lang)
        before = found[key].choices if key in found else ()
        choices = tuple(dict.fromkeys([*before, *new.choices]))
        found[key] = Answers(task=new.task, text=new.text, lang=new.lang, choices=choices)
    return tuple(found.values())


def _heads(folder: Path, answers: Sequence[Answers]) -> dict[int, dict[str, Tensor]]:
    """Heads that a model has, by the place of their answers among these; without those whose answers are new ones."""
    if not is_adapter(folder):
        return {}
    made = read_adapter(folder)
    places = {
        (given.task, given.text, given.lang): place for place, given in enumerate(answers) if given.head is not None
    }
    keys = {index: (given.task, given.text, given.lang) for index, given in enumerate(made.settings.answers)}
    return {places[keys[index]]: tensors for index, tensors in made.heads().items() if keys[index] in places}


def _old(path: Path) -> list[Sample]:
    """Rows of old abilities. InputError if there are none, or one has no answer."""
    samples = list(read(path))
    if not samples:
        raise InputError.at(path, "data", "holds no row", "leave it out")
    need_answers(samples)
    return samples


def _with_replay(job: Job) -> list[Sample]:
    """The rows to train on, and old ones that ask the same questions."""
    limits = Limits(job.answers)
    asked = {found[0] for found in map(limits.of, job.train) if found}
    old = (sample for samples in job.replayed.values() for sample in samples if sample.targets)
    return job.train + [sample for sample in old if (found := limits.of(sample)) and found[0] in asked]


# --- scores ---


def load_keeping(folder: Path) -> Predictor:
    """A model that answers the same media again and again: what its encoders say is kept."""
    predictor = load(folder, precision="float32")  # as it is trained, and as features are kept
    predictor.keep_features(open_cache(predictor.model))
    return predictor


def _scores(
    predictor: Predictor, samples: Sequence[Sample], training: Sequence[Sample], seed: int
) -> tuple[list[Score], list[Prediction]]:
    return evaluate(predictor, samples, training=training, seed=seed) if samples else ([], [])


def _main(scores: Sequence[Score]) -> tuple[float, str]:
    """Mean of each task's first metric, higher being better, and how to say it."""
    first: dict[str, Score] = {}
    for score in scores:
        first.setdefault(score.task, score)
    mean = sum(s.value if s.higher_is_better else -s.value for s in first.values()) / len(first)
    return mean, ", ".join(f"{s.metric} {s.value:.3f}" for s in first.values())


def _kept(out: Path) -> float:
    """Megabytes of the files that prediction reads."""
    if is_adapter(out):
        return sum((out / name).stat().st_size for name in (SETTINGS, "adapter.safetensors")) / 1e6
    return megabytes(out)


def show(result: Adapted, forgotten: dict[str, tuple[list[Score], list[Score]]]) -> None:
    """The table that `monoglot adapt` ends with."""
    console = Console(width=None if Console().is_terminal else 150)
    if result.before:
        table = Table("held-out rows", "metric", "n", "before", "after", "95% interval", "plain baselines", box=None)
        for was, now in zip(result.before, result.after):
            table.add_row(*_line(was.task, was, now))
        for name, (old, new) in forgotten.items():
            for was, now in zip(old, new):
                table.add_row(*_line(f"{name}: {was.task} (old)", was, now))
        console.print(table)
    if result.refitted:
        told = "Scored without the held-out rows; what is kept has learned from them, too."
        console.print(told, highlight=False, soft_wrap=True)
    what = f"{result.method} in {result.seconds:.1f} s, {result.megabytes:.2f} MB"
    console.print(f"{result.folder}: {what} ({result.why})", highlight=False, soft_wrap=True)


def _line(name: str, was: Score, now: Score) -> tuple[str, ...]:
    interval = "" if now.low is None or now.high is None else f"{now.low:.3f} .. {now.high:.3f}"
    rivals = ", ".join(f"{rival} {value:.3f}" for rival, value in was.baselines.items())
    return name, now.metric, str(now.rows), f"{was.value:.3f}", f"{now.value:.3f}", interval, rivals


# --- papers ---


def _facts(result: Adapted, job: Job) -> list[tuple[str, str]]:
    return [
        ("base", job.model.name),
        ("method", f"{result.method}: {METHODS[result.method].what}"),
        ("why", result.why),
        (
            "rows",
            f"{len(job.train)} trained on, {len(job.held_out)} held out"
            + (", then all of them" if result.refitted else ""),
        ),
        ("time", f"{result.seconds:.1f} s" + (f", {result.steps} steps" if result.steps else "")),
        ("size", f"{result.megabytes:.2f} MB"),
    ]


def _card(job: Job, method: str, base: str) -> str:
    """README.md of the result."""
    answers = "\n".join(
        f"- {given.task} {given.text!r} ({given.lang}): {', '.join(given.choices[:20])}{' ...' if len(given.choices) > 20 else ''}"
        for given in job.answers
    )
    limited = f"\nAnswers are limited to\n\n{answers}\n" if answers else ""
    return (
        f"# {job.out.name}\n\n{base}, adapted with monoglot {__version__} by the method {method} ({METHODS[method].what}) to "
        f"{len(job.train)} rows.\n{limited}\nlineage.json has its parents, data and scores.\n"
    )


def _write_lineage(
    job: Job,
    result: Adapted,
    paths: Sequence[Path],
    held_out: Path | None,
    shots: int | None,
    forgotten: dict[str, tuple[list[Score], list[Score]]],
    command: str,
) -> None:
    own = "adapter.safetensors" if is_adapter(job.model) else "model.safetensors"
    page = {
        "parents": [{"model": str(job.model), "sha256": sha256_of(job.model / own)}],
        "base": read_adapter(result.folder).settings.base.model_dump() if is_adapter(result.folder) else None,
        "before": _before(job.model),
        "method": result.method,
        "why": result.why,
        "data": [_about(path) for path in paths],
        "held_out": None if held_out is None else _about(held_out),
        "replay": [_about(path) for path in job.replay],
        "rows": {"train": len(job.train), "held_out": len(job.held_out), "refitted": result.refitted},
        "notes": list(result.notes),
        "seed": job.seed,
        "shots": shots,
        "steps": result.steps,
        "scores": {
            "before": [score.to_json() for score in result.before],
            "after": [score.to_json() for score in result.after],
            "old": {
                name: {"before": [s.to_json() for s in was], "after": [s.to_json() for s in now]}
                for name, (was, now) in forgotten.items()
            },
        },
        "seconds": round(result.seconds, 2),
        "megabytes": round(result.megabytes, 3),
        "monoglot": __version__,
        "command": command,
    }
    write_json(result.folder / "lineage.json", page)


def _before(model: Path) -> list[dict[str, Any]]:
    """What was adapted before this, the latest first: what each step of the way was, without its scores."""
    page = _page_of(model / "lineage.json")
    if "method" not in page:
        return []
    kept = {key: page.get(key) for key in ("parents", "method", "data", "rows", "seed", "shots", "steps", "monoglot")}
    return [kept, *page.get("before", [])]


def _page_of(path: Path) -> dict[str, Any]:
    """A model's lineage.json; empty if there is none."""
    return read_json(path, "where a model comes from") if path.is_file() else {}


def _about(path: Path) -> dict[str, Any]:
    file = path / "pack.json" if path.is_dir() else path
    return {"path": str(path), "sha256": sha256_of(file)}


def _page(run: Path) -> dict[str, Any]:
    import yaml

    page: dict[str, Any] = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    return page


def _bundled(folder: Path) -> bool:
    return folder.resolve().parent == BUNDLED.resolve()
