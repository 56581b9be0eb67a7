"""Rows in, predictions out, as files: `monoglot predict --data rows.jsonl --out preds.jsonl [--resume]`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor
from monoglot.errors import InputError
from monoglot.nouns import Sample
from monoglot.tasks import TASKS


def predict_file(predictor: Predictor, data: Path, out: Path, *, resume: bool = False, batch_size: int = 16) -> int:
    """Answer every row of `data`; each prediction is on disk before the next batch begins. Returns how many rows have an `error`.

    With `resume`, rows whose id `out` has already are left out, and a last line that was cut off by a kill is written again.
    """
    done = _done(out) if resume else set()
    if not resume and out.exists():
        raise InputError.at(out, "--out", "exists already", "give another file, or --resume to go on")
    out.parent.mkdir(parents=True, exist_ok=True)
    errors = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with open(data, "rb") as file:
        total = sum(1 for line in file if line.strip())
    with Progress(*columns, transient=True) as progress, open(out, "a", encoding="utf-8") as target:
        bar = progress.add_task("rows", total=total, completed=len(done), rate="")
        try:
            for prediction in predictor.predict_many(_left(data, done), batch_size=batch_size):
                target.write(json.dumps(prediction.to_json(), ensure_ascii=False) + "\n")
                target.flush()
                errors += prediction.error is not None
                progress.advance(bar)
                progress.update(bar, rate=f"{progress.tasks[0].speed or 0:.1f} rows/s")
        except OSError as error:
            raise InputError.at(
                out, "", f"cannot be written ({error.strerror})", "free some space, then --resume"
            ) from None
    return errors


def _left(data: Path, done: set[str]) -> Iterator[Sample]:
    return (sample for sample in read_rows(data, known_tasks=TASKS) if sample.id not in done)


def _done(out: Path) -> set[str]:
    """Ids that are answered; a broken last line is cut off the file."""
    if not out.exists():
        return set()
    done, good = set(), 0
    with open(out, "rb") as file:
        for line in file:
            try:
                done.add(str(json.loads(line)["id"]))
            except (ValueError, KeyError):
                break
            if not line.endswith(b"\n"):
                done.discard(str(json.loads(line)["id"]))
                break
            good += len(line)
    with open(out, "r+b") as file:
        file.truncate(good)
    return done
