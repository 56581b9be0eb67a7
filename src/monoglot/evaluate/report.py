"""Scores of files, as a table on the terminal and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from monoglot import __version__
from monoglot.data.rows import read_rows, write_rows
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.run import Score, evaluate, need_answers
from monoglot.files import write_json
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS


def evaluate_files(
    model: str,
    data: Sequence[Path],
    train: Sequence[Path],
    *,
    out: Path | None = None,
    limit: int | None = None,
    batch_size: int = 16,
    precision: str = "auto",
) -> dict[str, list[Score]]:
    """Score a model on each file and print one table. Scores are given by file stem; where two share one, by <folder>.<stem>.

    Args:
        train: rows that the baselines of each file may learn from; empty for none.
        out: scores.json; all predictions are written beside it as <stem>.predictions.jsonl.
        precision: as in `Predictor`.

    Raises:
        InputError: a file cannot be read, has no rows, or a row is wrong or lacks its answer; told before the model is loaded.
            A run that is stopped prints and writes the scores of the files that are done.
    """
    labels = labels_of(data)
    sets = [spread(list(read_rows(path, known_tasks=TASKS)), limit) for path in data]
    for path, samples in zip(data, sets):
        if not samples:
            raise InputError.at(path, "", "has no rows", "evaluation needs at least one")
    training: list[list[Sample]] = [list(read_rows(path, known_tasks=TASKS)) for path in train] or [[] for _ in data]
    for samples in (*sets, *training):
        need_answers(samples)
    predictor = load(model, precision=precision)
    console = Console(width=None if Console().is_terminal else 150)
    results: dict[str, list[Score]] = {}
    seconds: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        screen = Console(stderr=True)
        with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
            for label, samples, known in zip(labels, sets, training):
                bar = progress.add_task(label, total=len(samples))

                def advance(_: Prediction, bar: TaskID = bar) -> None:
                    progress.advance(bar)

                started = time.perf_counter()
                scores, predictions = evaluate(
                    predictor,
                    samples,
                    training=known,
                    batch_size=batch_size,
                    on_answer=advance,
                )
                results[label], seconds[label] = scores, time.perf_counter() - started
                if out is not None:
                    write_rows(out.parent / f"{label}.predictions.jsonl", [answer.to_json() for answer in predictions])
    finally:
        if results:
            console.print(score_table(results))
            if out is not None:
                write_json(out, to_json(model, predictor, results, seconds))
    return results


def labels_of(data: Sequence[Path], field: str = "--data") -> list[str]:
    """A name for each file; InputError for a file that is given twice."""
    stems = [path.stem for path in data]
    labels = [s if stems.count(s) == 1 else f"{path.resolve().parent.name}.{s}" for path, s in zip(data, stems)]
    for path, label in zip(data, labels):
        if labels.count(label) > 1:
            raise InputError.at(path, field, f"two files would be called {label!r}", "give each once, or rename one")
    return labels


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, evenly over the file: its first rows are often of one kind."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[index * len(samples) // limit] for index in range(limit)]


def score_table(results: dict[str, list[Score]]) -> Table:
    """Rows of file, metric, count, value with interval, baselines."""
    table = Table("rows from", "task", "metric", "n", "score", "95% interval", "plain baselines", box=None)
    for stem, scores in results.items():
        for s in scores:
            interval = "" if s.low is None or s.high is None else f"{s.low:.3f} .. {s.high:.3f}"
            rivals = ", ".join(f"{name} {value:.3f}" for name, value in s.baselines.items())
            count = f"{s.rows} ({s.errors} unreadable)" if s.errors else str(s.rows)
            table.add_row(stem, s.task, s.metric, count, f"{s.value:.3f}", interval, rivals)
    return table


def to_json(
    model: str, predictor: Predictor, results: dict[str, list[Score]], seconds: dict[str, float]
) -> dict[str, Any]:
    """What scores.json holds."""
    return {
        "model": str(model),
        "name": predictor.model.config.name,
        "monoglot": __version__,
        "search": predictor.search.model_dump(exclude_unset=True),
        "precision": predictor.precision[0],
        "scores": {stem: [score.to_json() for score in scores] for stem, scores in results.items()},
        "seconds": {stem: round(value, 1) for stem, value in seconds.items()},
    }
