"""Scores of files, as a table on the terminal and as JSON."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from monoglot import __version__
from monoglot.data.rows import read_rows, write_rows
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.run import Score, evaluate
from monoglot.files import write_json
from monoglot.nouns import Sample
from monoglot.tasks import TASKS


def evaluate_files(
    model: str,
    data: Sequence[Path],
    train: Sequence[Path],
    *,
    out: Path | None = None,
    limit: int | None = None,
    batch_size: int = 16,
) -> dict[str, list[Score]]:
    """Score a model on each file and print one table. Scores are given by file stem.

    Args:
        train: rows that the baselines of each file may learn from; empty for none.
        out: scores.json; all predictions are written beside it as <stem>.predictions.jsonl.
    """
    sets = [list(islice(read_rows(path, known_tasks=TASKS), limit)) for path in data]
    for path, samples in zip(data, sets):
        if not samples:
            raise InputError.at(path, "", "has no rows", "evaluation needs at least one")
    training: list[list[Sample]] = [list(read_rows(path, known_tasks=TASKS)) for path in train] or [[] for _ in data]
    predictor = load(model)
    console = Console(width=None if Console().is_terminal else 150)
    results: dict[str, list[Score]] = {}
    seconds: dict[str, float] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        for path, samples, known in zip(data, sets, training):
            bar = progress.add_task(path.stem, total=len(samples))
            started = time.perf_counter()
            scores, predictions = evaluate(
                predictor,
                samples,
                training=known,
                batch_size=batch_size,
                on_answer=lambda _, bar=bar: progress.advance(bar),
            )
            results[path.stem], seconds[path.stem] = scores, time.perf_counter() - started
            if out is not None:
                write_rows(
                    out.parent / f"{path.stem}.predictions.jsonl", [prediction.to_json() for prediction in predictions]
                )
    console.print(score_table(results))
    if out is not None:
        write_json(out, to_json(model, predictor, results, seconds))
    return results


def score_table(results: dict[str, list[Score]]) -> Table:
    """Rows of file, metric, count, value with interval, baselines."""
    table = Table("rows from", "task", "metric", "n", "score", "95% interval", "plain baselines", box=None)
    for stem, scores in results.items():
        for s in scores:
            interval = "" if s.low is None or s.high is None else f"{s.low:.3f} .. {s.high:.3f}"
            rivals = ", ".join(f"{name} {value:.3f}" for name, value in s.baselines.items())
            table.add_row(stem, s.task, s.metric, str(s.rows), f"{s.value:.3f}", interval, rivals)
    return table


def to_json(
    model: str, predictor: Predictor, results: dict[str, list[Score]], seconds: dict[str, float]
) -> dict[str, Any]:
    """What scores.json holds."""
    return {
        "model": str(model),
        "name": predictor.model.config.name,
        "monoglot": __version__,
        "beam": predictor.beam,
        "scores": {stem: [score.to_json() for score in scores] for stem, scores in results.items()},
        "seconds": {stem: round(value, 1) for stem, value in seconds.items()},
    }
