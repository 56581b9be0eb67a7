"""Rows in, predictions out, as files: `monoglot predict --data rows.jsonl --out preds.jsonl [--resume]`."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monoglot.data.rows import BadRow, read_all
from monoglot.errors import InputError
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS

if TYPE_CHECKING:
    from monoglot.decode.predict import Predictor

_OPENING = b'{"id": "'
"""How every prediction begins: a last line without an end that begins so was cut off by a kill."""


def predict_file(predictor: Predictor, data: Path, out: Path, *, resume: bool = False, batch_size: int = 16) -> int:
    """Answer every row of `data`, in order; each prediction is on disk as soon as it is made. Returns how many rows have an `error`.

    A row that is wrong or cannot be read gets a prediction with an `error`, its `id` or else its line number as `id`.
    With `resume`, rows that `out` has already are left out, and a last line that was cut off by a kill is written again.

    Raises:
        InputError: see `check_files`; or `out` cannot be written. What it holds then is complete up to its last line.
    """
    check_files(data, out, resume=resume)
    done = _done(out) if resume else Counter[str]()
    with open(data, "rb") as file:
        total = sum(1 for line in file if line.strip())
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    errors = 0
    screen = Console(stderr=True)
    shown = Progress(*columns, transient=True, console=screen, disable=not screen.is_terminal)
    with _open(out) as target, shown as progress:
        bar = progress.add_task("rows", total=total, completed=done.total(), rate="")
        for prediction in predictor.predict_many(_left(data, done), batch_size=batch_size):
            _append(target, prediction, out)
            errors += prediction.error is not None
            progress.advance(bar)
            progress.update(bar, rate=f"{progress.tasks[0].speed or 0:.1f} rows/s")
    return errors


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


def _left(data: Path, done: Counter[str]) -> Iterator[Sample | BadRow]:
    """Rows that are not answered yet. Two rows of one id are two rows."""
    left = done.copy()
    for row in read_all(data, known_tasks=TASKS):
        left[row.id] -= 1
        if left[row.id] < 0:
            yield row


def _done(out: Path) -> Counter[str]:
    """How often each id is answered. A last line that was cut off is removed.

    Raises InputError when `out` holds anything but predictions; nothing of it is touched.
    """
    done, good = Counter[str](), 0
    if not out.exists():
        return done
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
            done[name] += 1
            good += len(line)
    os.truncate(out, good)
    return done


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
