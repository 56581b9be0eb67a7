"""Rows in, predictions out, as files: `monoglot predict --data rows.jsonl --out preds.jsonl [--resume] [--workers N | --cluster HOST:PORT]`.

    rows -> (this process: Predictor.predict_many | workers: blocks of rows, each answered so) -> a line a row, in the order of rows

Whoever works, the file grows at its end alone, so that what it holds is the answer to the first rows, and going on is
counting lines. No row and no answer is kept: memory does not grow with them, but for some hundred bytes a row that find repeated ids.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monoglot.data.lines import LineIndex, line_index
from monoglot.data.rows import BadRow, read_all, repeated_ids
from monoglot.errors import InputError
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS

if TYPE_CHECKING:
    from monoglot.data.cluster import Block, Workers
    from monoglot.decode.predict import Predictor

BLOCK_ROWS = 256
"""Rows that a worker takes at a time."""
_OPENING = b'{"id": "'
"""How every prediction begins: a last line without an end that begins so was cut off by a kill."""


@dataclass(frozen=True)
class Answered:
    """What became of the rows that a call answered."""

    rows: int
    errors: int
    seconds: float

    def __str__(self) -> str:
        """
        >>> str(Answered(rows=12, errors=1, seconds=4.0))
        "12 rows in 4.0 s, 3.0 rows/s; 1 could not be answered, its 'error' says why"
        """
        counted = "1 row" if self.rows == 1 else f"{self.rows:,} rows"
        speed = f" in {self.seconds:,.1f} s, {self.rows / self.seconds:,.1f} rows/s" if self.rows else ""
        whose = "its" if self.errors == 1 else "their"
        errors = f"; {self.errors:,} could not be answered, {whose} 'error' says why" if self.errors else ""
        return f"{counted}{speed}{errors}"


def predict_file(
    predictor: Predictor, data: Path, out: Path, *, resume: bool = False, batch_size: int = 16
) -> Answered:
    """Answer every row of `data`, in order; each prediction is on disk as soon as it is made.

    A row that is wrong or cannot be read gets a prediction with an `error`, its `id` or else its line number as `id`.
    With `resume`, rows that `out` has already are left out, and a last line that was cut off by a kill is written again.

    Raises:
        InputError: see `check_files`; `out` holds anything but predictions of the first rows of `data`; or it cannot be written.
            What it holds then is complete up to its last line.
    """
    check_files(data, out, resume=resume)
    rows = read_all(data, known_tasks=TASKS)
    done = _done(out, rows) if resume else 0
    return _write(predictor.predict_many(rows, batch_size=batch_size), out, done, _count(data))


def predict_file_by(workers: Workers, ask: Ask, data: Path, out: Path, *, resume: bool = False) -> Answered:
    """`predict_file` by several processes, of this machine or of a Ray cluster; each has the model and takes blocks of rows.

    Raises:
        InputError: as `predict_file`; or there is no Ray at the address.
        RuntimeError: the process of a worker died again and again. What `out` holds is complete up to its last line.
    """
    from monoglot.data.cluster import Block, found_by

    check_files(data, out, resume=resume)
    if workers.cluster:  # they may be in other folders
        data, ask = data.resolve(), ask.resolve()
    done = _done(out, read_all(data, known_tasks=TASKS)) if resume else 0
    total = _count(data)
    starts = range(done, total, BLOCK_ROWS)
    blocks = [Block(number, start, min(start + BLOCK_ROWS, total)) for number, start in enumerate(starts)]
    make = partial(AnswerBlock, data, ask, repeated_ids(data))
    found = found_by(make, blocks, workers, in_order=True) if blocks else iter(())
    return _write(chain.from_iterable(answers for _, answers in found), out, done, total)


@dataclass(frozen=True)
class Ask:
    """What is asked of which model."""

    model: str
    adapters: tuple[str, ...] = ()
    search: dict[str, Any] = field(default_factory=dict)
    """Fields of `SearchSettings`, as the command line has them."""
    batch_size: int = 16
    threads: int | None = None
    """Processor threads of each process; None: as torch has it."""
    precision: str = "auto"

    def resolve(self) -> Ask:
        """The same in any folder."""
        model = str(Path(self.model).resolve()) if Path(self.model).is_dir() else self.model
        return replace(self, model=model, adapters=tuple(str(Path(folder).resolve()) for folder in self.adapters))

    def load(self) -> Predictor:
        """The predictor that answers. Raises InputError."""
        from monoglot.decode.predict import load
        from monoglot.decode.search import SearchSettings

        if self.threads:
            import torch

            torch.set_num_threads(self.threads)
        predictor = load(
            self.model, search=SearchSettings.read("command line", **self.search), precision=self.precision
        )
        if len(self.adapters) == 1:
            return predictor.with_adapter(self.adapters[0])
        for folder in self.adapters:
            predictor.add_adapter(folder)
        return predictor


@dataclass
class AnswerBlock:
    """Block -> the answers to its rows."""

    data: Path
    ask: Ask
    firsts: dict[str, int]
    """First line of each id that several rows have."""
    index: LineIndex = field(init=False)
    predictor: Predictor = field(init=False)

    def __post_init__(self) -> None:
        with open(self.data, "rb", buffering=0) as file:
            self.index = line_index(self.data, file)
        self.predictor = self.ask.load()

    def __call__(self, block: Block) -> list[Prediction]:
        offset, line = int(self.index.starts[block.start]), self.index.number(block.start)
        rows = read_all(self.data, known_tasks=TASKS, offset=offset, line=line, firsts=self.firsts)
        mine = islice(rows, block.stop - block.start)
        return list(self.predictor.predict_many(mine, batch_size=self.ask.batch_size))


def check_files(data: Path, out: Path, *, resume: bool = False) -> None:
    """Before a model is loaded: InputError unless `data` can be read and `out` is new (or, with `resume`, another file)."""
    read_all(data)
    if not out.exists():
        return
    if not resume:
        raise InputError.at(out, "--out", "exists already", "give another file, or --resume to go on")
    if not out.is_file() or out.samefile(data):
        wrong = "is the file of --data" if out.is_file() else "is not a file"
        raise InputError.at(out, "--out", wrong, "give a file for the predictions")


def _count(data: Path) -> int:
    """Rows, good and bad."""
    with open(data, "rb") as file:
        return sum(
            1 for number, line in enumerate(file) if line.removeprefix(b"" if number else b"\xef\xbb\xbf").strip()
        )


def _done(out: Path, rows: Iterator[Sample | BadRow]) -> int:
    """How many rows are answered; they are taken from `rows`. A last line that was cut off is removed.

    Raises InputError when `out` holds anything but predictions of these rows in their order; nothing of it is touched.
    """
    good = done = 0
    if not out.exists():
        return 0
    with open(out, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n") and _OPENING.startswith(line[: len(_OPENING)]):
                break
            try:
                given = json.loads(line)
                name, _ = given["id"], given["confidence"]
            except (ValueError, KeyError, TypeError):
                fix = "--resume goes on with a file that predict wrote"
                raise InputError.at(out, "--out", "is not a prediction", fix, line=number) from None
            row = next(rows, None)
            if row is None or row.id != name:
                wrong = f"answers {name!r}, but --data " + ("ends before" if row is None else f"has {row.id!r} here")
                fix = "--resume goes on with the same rows; new ones may follow them"
                raise InputError.at(out, "--out", wrong, fix, line=number)
            good, done = good + len(line), done + 1
    os.truncate(out, good)
    return done


def _write(answers: Iterable[Prediction], out: Path, done: int, total: int) -> Answered:
    """Append a line for each answer."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    screen = Console(stderr=True)
    shown = Progress(*columns, transient=True, console=screen, disable=not screen.is_terminal)
    rows = errors = 0
    started = time.perf_counter()
    with _open(out) as target, shown as progress:
        bar = progress.add_task("rows", total=total, completed=done, rate="")
        for answer in answers:
            _append(target, answer, out)
            rows += 1
            errors += answer.error is not None
            progress.update(bar, advance=1, rate=f"{progress.tasks[0].speed or 0:.1f} rows/s")
    return Answered(rows, errors, time.perf_counter() - started)


def _open(out: Path) -> TextIO:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # A path that is not UTF-8 may stand in an error; escaped it is still JSON.
        return open(out, "a", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError.at(out, "--out", f"cannot be written ({error.strerror})", "choose another place") from None


def _append(target: TextIO, prediction: Prediction, out: Path) -> None:
    try:
        target.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
        target.flush()
    except OSError as error:
        with suppress(OSError):  # what is left in its buffer cannot be written either
            target.close()
        fix = "free some space, then --resume"
        raise InputError.at(out, "--out", f"cannot be written ({error.strerror})", fix) from None
