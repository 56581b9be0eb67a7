"""Does a task that was learned first help one that is learned from few rows, and what is forgotten on the way?

    page of tasks -> (checked: no test row is trained on) -> plan of cells -> base [-> source] [-> target] -> scores -> cells.jsonl
    cells.jsonl -> summarise -> Transfer -> tables, transfer.json, transfer.png, report.html

A cell is a way from the base through a source, a target, both or neither, with a seed, and the scores at its end. Cells are written as they
are done; with `resume` only those that are missing are run.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import time
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from monoglot import report
from monoglot.adapt.methods import METHODS
from monoglot.adapt.run import Adapted, adapt, load_keeping
from monoglot.data.rows import read_rows
from monoglot.errors import InputError
from monoglot.evaluate.compare import fingerprint
from monoglot.evaluate.metrics import METRICS
from monoglot.evaluate.paired import holm, t_interval
from monoglot.evaluate.report import labels_of, some_of
from monoglot.evaluate.run import evaluate, need_answers
from monoglot.files import appending, sha256_of, write_json
from monoglot.modalities.source import open_source
from monoglot.nouns import Media, Sample
from monoglot.registry import unknown_name
from monoglot.report.transfer import Change, Measured, Transfer, sentence, tables, to_json, write_transfer_report
from monoglot.store import model_folder
from monoglot.tasks import TASKS

CELLS = "cells.jsonl"


class TaskFiles(BaseModel):
    """One task of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    name: str = Field(min_length=1, description="How tables call it.")
    train: Path = Field(description="Rows to adapt to (JSONL), from the page's folder on.")
    test: Path = Field(description="Rows to score, of one task, never trained on.")


class TasksPage(BaseModel):
    """The YAML page of `monoglot transfer`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[TaskFiles, ...] = Field(min_length=2, description="Each is a source and a target.")
    old: tuple[Path, ...] = Field((), description="Rows of what the model could do before, to see what is forgotten.")


@dataclass(frozen=True)
class Settings:
    """What all cells of a folder have in common."""

    model: str
    method: str
    shots: int
    source_shots: int | None
    steps: int | None
    limit: int | None


@dataclass(frozen=True)
class Cell:
    """The scores at the end of a way: base [-> source] [-> target]."""

    source: str | None
    target: str | None
    seed: int | None
    """None for the base alone."""
    scores: Mapping[str, float]
    """As the metrics give them, by the name of the rows."""
    method: str = ""
    steps: int = 0
    seconds: float = 0.0

    @property
    def key(self) -> Key:
        return self.source, self.target, self.seed


Key = tuple[str | None, str | None, int | None]
"""(source, target, seed)"""


@dataclass(frozen=True)
class Rows:
    """Files that were read and checked."""

    train: Mapping[str, Path]
    measured: Mapping[str, tuple[Measured, list[Sample]]]
    """What is scored: test rows of each task, then old abilities."""


def transfer(
    page: Path,
    model: str,
    out: Path,
    *,
    seeds: int = 3,
    shots: int = 20,
    source_shots: int | None = None,
    method: str = "lora",
    steps: int | None = None,
    limit: int | None = None,
    resume: bool = False,
    batch_size: int = 16,
) -> Transfer:
    """Measure the transfer matrix and the forgetting table of a page of tasks.

    Args:
        page: YAML; see `TasksPage`.
        model: a model folder, or the name of a bundled model.
        out: a folder for cells.jsonl, transfer.json, transfer.png, report.html.
        seeds: how often everything is repeated, with other rows of the targets.
        shots: rows of each answer that a target is learned from.
        source_shots: the same of a source; None for all its rows.
        method: of each adaptation, as `monoglot.adapt.run.adapt` has it.
        steps: of each adaptation; as many as its rows ask for unless given.
        limit: at most so many rows are scored of each file, drawn.
        resume: go on with the cells that `out` has, which must be of the same settings and files.

    Raises:
        InputError: the page, a file or a row is wrong; a test row is also trained on; `out` holds cells of something else.
    """
    report.require()
    tasks = read_page(page)
    if method != "auto":
        METHODS[method]
    settings = Settings(model, method, shots, source_shots, steps, limit)
    rows = read_tasks(page, tasks, limit)
    check_leaks(rows)
    path = out / CELLS
    done = _begin(path, settings, tasks, resume)
    names = [task.name for task in tasks.tasks]
    left = [key for key in plan(names, seeds) if key not in done]
    runner = Runner(settings, rows, out / "models", set(done), batch_size)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    screen = Console(stderr=True)
    shown = Progress(
        *columns,
        TimeRemainingColumn(),
        console=screen,
        transient=True,
        disable=not screen.is_terminal,
        speed_estimate_period=1e9,  # a cell takes minutes: all that were run tell how long the rest takes
    )
    with shown as progress:
        bar = progress.add_task("", total=len(left))
        for number, key in enumerate(left, start=1):
            progress.update(bar, description=told(key))
            cell = runner.run(key)
            with appending(path) as file:
                file.write(json.dumps(asdict(cell), ensure_ascii=False) + "\n")
                file.flush()
                os.fsync(file.fileno())
            done[key] = cell
            progress.advance(bar)
            if not screen.is_terminal:
                screen.print(f"{number}/{len(left)} {told(key)}: {cell.seconds:.0f} s", highlight=False, markup=False)
    shutil.rmtree(out / "models", ignore_errors=True)

    found = summarise(settings, rows, done, seeds)
    command = ["monoglot", "transfer", str(page), "--model", model, "--out", str(out), "--seeds", str(seeds)]
    command += ["--shots", str(shots), "--method", method]
    command += [] if steps is None else ["--steps", str(steps)]
    command += [] if source_shots is None else ["--source-shots", str(source_shots)]
    command += [] if limit is None else ["--limit", str(limit)]
    write_json(out / "transfer.json", to_json(found, shlex.join(command)))
    write_transfer_report(found, out)
    return found


def show(found: Transfer, out: Path) -> None:
    """Print the tables and the sentence."""
    console = Console(width=None if Console().is_terminal else 150)
    for table in tables(found):
        console.print(table.caption, highlight=False, markup=False, soft_wrap=True)
        made = Table(*table.columns, box=None)
        for row in table.rows:
            made.add_row(*row)
        console.print(made)
    console.print(sentence(found), highlight=False, markup=False, soft_wrap=True)
    console.print(f"{out / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


# --- what is given ----------------------------------------------------------------------------------------------------


def read_page(path: Path) -> TasksPage:
    """Read the YAML page; its paths come back as seen from here. InputError names the file and the field."""
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        fix = "give a YAML page that lists tasks, see docs/transfer.md"
        raise InputError.at(path, "", f"cannot be read ({error.strerror})", fix) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError.at(path, "", f"is not YAML ({' '.join(str(error).split())})") from None
    fix = "expected `tasks:`, a list of {name, train, test}"
    if not isinstance(given, dict):
        raise InputError.at(path, "", "is not a page of keys and values", fix)
    old = given.get("old")
    try:
        page = TasksPage.model_validate(given | {"old": [old] if isinstance(old, str) else old or []})
    except ValidationError as error:
        raise InputError.at(path, *_first_problem(error), fix) from None
    names = [task.name for task in page.tasks]
    for name in names:
        if names.count(name) > 1:
            raise InputError.at(path, "tasks", f"two are called {name!r}", "give each its own name")
    base = path.parent
    tasks = [task.model_copy(update={"train": base / task.train, "test": base / task.test}) for task in page.tasks]
    return TasksPage(tasks=tuple(tasks), old=tuple(base / file for file in page.old))


def _first_problem(error: ValidationError) -> tuple[str, str]:
    """Field and what is wrong; a misspelt key before what is missing because of it."""
    first = min(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    field = ".".join(map(str, first["loc"]))
    if first["type"] == "extra_forbidden":
        known = TaskFiles if len(first["loc"]) > 1 else TasksPage
        return field, unknown_name("key", str(first["loc"][-1]), known.model_fields)
    if first["type"] == "too_short" and field == "tasks":
        return field, "transfer is between two tasks at least"
    return field, first["msg"][:1].lower() + first["msg"][1:]


def read_tasks(page: Path, tasks: TasksPage, limit: int | None) -> Rows:
    """Read all files. A test file holds rows of one task; old rows are parted by task."""
    measured = dict[str, tuple[Measured, list[Sample]]]()
    for task in tasks.tasks:
        train, test = _read(task.train), _read(task.test)
        kinds = sorted({sample.task for sample in test})
        if len(kinds) > 1:
            wrong = f"holds rows of {len(kinds)} tasks: {', '.join(kinds)}"
            raise InputError.at(task.test, "task", wrong, "give each task of the page its own file of test rows")
        measured[task.name] = _measured(task.name, some_of(test, limit), len(train))
    for path, label in zip(tasks.old, labels_of(tasks.old, "old")):
        samples = _read(path)
        kinds = sorted({sample.task for sample in samples})
        for kind in kinds:
            name = label if len(kinds) == 1 else f"{label} {kind}"
            if name in measured:
                raise InputError.at(page, "old", f"{name!r} is also the name of a task", "give that task another name")
            measured[name] = _measured(name, some_of([s for s in samples if s.task == kind], limit), 0)
    return Rows({task.name: task.train for task in tasks.tasks}, measured)


def _read(path: Path) -> list[Sample]:
    samples = list(read_rows(path, known_tasks=TASKS))
    if not samples:
        raise InputError.at(path, "", "has no rows", "give one JSON object a line, see docs/rows.md")
    need_answers(samples)
    return samples


def _measured(name: str, samples: list[Sample], trained: int) -> tuple[Measured, list[Sample]]:
    metric = METRICS[TASKS[samples[0].task].metrics[0]]
    return Measured(name, metric.name, metric.higher_is_better, len(samples), trained), samples


def check_leaks(rows: Rows) -> None:
    """InputError if a row that is scored is also trained on: the same media, or without media the same text; whatever is asked.

    Media are the same when their files hold the same bytes, under any name.
    """
    hashes = dict[str, str]()
    trained = {
        name: {content(sample, hashes) for sample in read_rows(path, known_tasks=TASKS)}
        for name, path in rows.train.items()
    }
    for name, (_, samples) in rows.measured.items():
        for source, known in trained.items():
            leaked = [sample for sample in samples if content(sample, hashes) in known]
            if leaked:
                wrong = f"{len(leaked)} of {len(samples)} rows that {name!r} is scored on are trained on in {source!r}"
                fix = f"leave them out of {rows.train[source]}, or score others"
                raise InputError.at(leaked[0].where, "", wrong, fix)


def content(sample: Sample, hashes: dict[str, str]) -> Hashable:
    """What makes two rows the same to `check_leaks`. `hashes` remembers media that were read."""
    if not sample.media:
        return " ".join(sample.text.lower().split())
    return tuple((_hash(item, hashes), item.start, item.end) for item in sample.media)


def _hash(media: Media, hashes: dict[str, str]) -> str:
    """sha256 of a file or of a shard's member. Raises MediaError when it is not there."""
    if media.source not in hashes:
        with open_source(media)[0] as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        hashes[media.source] = digest.hexdigest()
    return hashes[media.source]


# --- cells ------------------------------------------------------------------------------------------------------------


def plan(names: Sequence[str], seeds: int) -> Iterator[Key]:
    """All cells, seed by seed, so that what is done first is a whole matrix."""
    yield None, None, None
    for seed in range(seeds):
        yield from ((None, target, seed) for target in names)
        for source in names:
            yield source, None, seed
            yield from ((source, target, seed) for target in names if target != source)


def told(key: Key) -> str:
    """
    >>> told(("drums", "names", 0)), told((None, "names", 1)), told(("drums", None, 0)), told((None, None, None))
    ('drums -> names, seed 0', 'names, seed 1', 'all of drums, seed 0', 'before')
    """
    source, target, seed = key
    if seed is None:
        return "before"
    way = f"all of {source}" if target is None else " -> ".join(filter(None, (source, target)))
    return f"{way}, seed {seed}"


class Runner:
    """Runs cells. The model that a source made is kept until its last target is done."""

    def __init__(self, settings: Settings, rows: Rows, models: Path, done: set[Key], batch_size: int):
        self.settings, self.rows, self.models, self.done, self.batch_size = settings, rows, models, done, batch_size

    def run(self, key: Key) -> Cell:
        """One cell: adapt, score."""
        source, target, seed = key
        started = time.perf_counter()
        adapted: Adapted | None = None
        if seed is None:
            scores = self._scores(self.settings.model, self.rows.measured)
        elif target is None:
            assert source is not None
            adapted = self._adapt_source(source, seed)
            scores = self._scores(adapted.folder, self.rows.measured)
        else:
            start = self.settings.model if source is None else str(self._of_source(source, seed))
            adapted = self._adapt(start, target, seed, self.settings.shots, self.models / "target")
            scores = self._scores(adapted.folder, [target])
        self.done.add(key)
        if target is not None and seed is not None:
            self._tidy(source, seed)
        made: dict[str, Any] = {} if adapted is None else {"method": adapted.method, "steps": adapted.steps}
        return Cell(source, target, seed, scores, seconds=round(time.perf_counter() - started, 2), **made)

    def _scores(self, model: str | Path, names: Iterable[str]) -> dict[str, float]:
        """Main metric of the rows of each name."""
        predictor = load_keeping(model_folder(model))
        return {
            name: evaluate(predictor, self.rows.measured[name][1], batch_size=self.batch_size)[0][0].value
            for name in names
        }

    def _adapt_source(self, source: str, seed: int) -> Adapted:
        return self._adapt(self.settings.model, source, seed, self.settings.source_shots, self._place(source, seed))

    def _of_source(self, source: str, seed: int) -> Path:
        """The model that the source made: its cell was done, but a folder that is gone is made again."""
        folder = self._place(source, seed)
        return folder if folder.is_dir() else self._adapt_source(source, seed).folder

    def _place(self, source: str, seed: int) -> Path:
        return self.models / f"source{list(self.rows.train).index(source)}_seed{seed}"

    def _adapt(self, start: str, task: str, seed: int, shots: int | None, folder: Path) -> Adapted:
        shutil.rmtree(folder, ignore_errors=True)  # what a run that was stopped left there
        settings = self.settings
        return adapt(
            start,
            self.rows.train[task],
            folder,
            method=settings.method,
            shots=shots,
            seed=seed,
            changes={} if settings.steps is None else {"steps": settings.steps},
            quiet=True,
        )

    def _tidy(self, source: str | None, seed: int) -> None:
        """Remove models that nothing starts from any more."""
        shutil.rmtree(self.models / "target", ignore_errors=True)
        names = list(self.rows.train)
        if source is not None and all((source, name, seed) in self.done for name in names if name != source):
            shutil.rmtree(self._place(source, seed), ignore_errors=True)


def _begin(path: Path, settings: Settings, tasks: TasksPage, resume: bool) -> dict[Key, Cell]:
    """The cells that are there, after the first line, which says what they are of. A last line that was cut off is removed."""
    head = asdict(settings) | {"sha256": fingerprint(settings.model)}
    head["tasks"] = [
        {"name": task.name, "train": sha256_of(task.train), "test": sha256_of(task.test)} for task in tasks.tasks
    ]
    head["old"] = [sha256_of(file) for file in tasks.old]
    if path.exists() and not resume:
        raise InputError.at(path, "--out", "exists already", "give another folder, or --resume to go on")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = _whole_lines(path)
    if not lines:
        with appending(path) as file:
            file.write(json.dumps({"settings": head}, ensure_ascii=False) + "\n")
        return {}
    try:
        known = json.loads(lines[0])["settings"]
        cells = [Cell(**json.loads(line)) for line in lines[1:]]
    except (ValueError, KeyError, TypeError):
        raise InputError.at(path, "--resume", "holds something else than cells", "give another folder") from None
    for name, value in head.items():
        if known.get(name) != value:
            was = f"was {known.get(name)!r}, is {value!r}" if name in asdict(settings) else "are not the same files"
            raise InputError.at(path, "--resume", f"{name} {was}", "go on as it was begun, or give another folder")
    return {cell.key: cell for cell in cells}


def _whole_lines(path: Path) -> list[bytes]:
    """Lines that end; what follows the last end was cut off by a kill and is taken away."""
    if not path.exists():
        return []
    held = path.read_bytes()
    whole = held[: held.rfind(b"\n") + 1]
    if len(whole) < len(held):
        os.truncate(path, len(whole))
    return whole.splitlines()


# --- what is found ----------------------------------------------------------------------------------------------------


def summarise(settings: Settings, rows: Rows, cells: Mapping[Key, Cell], seeds: int) -> Transfer:
    """Gains and changes, seed by seed, with Student's interval over seeds and Holm's correction over each map."""
    measured = [one for one, _ in rows.measured.values()]
    names, better = list(rows.train), {one.name: 1 if one.higher_is_better else -1 for one in measured}

    def points(key: Key, on: str) -> float:
        return 100 * cells[key].scores[on]

    def changes(pairs: Sequence[tuple[str, str]], after: Any, before: Any) -> dict[tuple[str, str], Change]:
        """`after` and `before` say which cells are compared, of (source, on, seed)."""
        found = {}
        for source, on in pairs:
            ways = [(after(source, on, seed), before(on, seed)) for seed in range(seeds)]
            values = [
                better[on] * (points(late, on) - points(early, on))
                for late, early in ways
                if late in cells and early in cells
            ]
            if values:
                found[source, on] = t_interval(values)
        adjusted = holm([mean.p for mean in found.values()])
        return {pair: Change(*pair, mean, p) for (pair, mean), p in zip(found.items(), adjusted)}

    direct = {}
    for name in names:
        scores = [points((None, name, seed), name) for seed in range(seeds) if (None, name, seed) in cells]
        if scores:
            direct[name] = t_interval(scores)
    base = None, None, None
    counted = [cell for key, cell in cells.items() if key[2] is None or key[2] < seeds]
    return Transfer(
        model=settings.model,
        method=settings.method,
        shots=settings.shots,
        source_shots=settings.source_shots,
        seeds=seeds,
        tasks=tuple(one for one in measured if one.name in rows.train),
        old=tuple(one for one in measured if one.name not in rows.train),
        before={one.name: points(base, one.name) for one in measured} if base in cells else {},
        direct=direct,
        gains=changes(
            [(source, target) for source in names for target in names if source != target],
            lambda source, on, seed: (source, on, seed),
            lambda on, seed: (None, on, seed),
        ),
        kept=changes(
            [(source, one.name) for source in names for one in measured],
            lambda source, on, seed: (source, None, seed),
            lambda on, seed: base,
        ),
        seconds=sum(cell.seconds for cell in counted),
        adaptations=sum(cell.seed is not None for cell in counted),
    )
