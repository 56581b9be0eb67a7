"""Is one model better than another? Both on the same rows, difference by difference.

rows + (a model folder | a file of predictions) x 2 -> answers of A, of B -> terms of each metric (paired) -> Comparison
-> a table, a verdict a line, compare.json, the rows that changed
"""

from __future__ import annotations

import hashlib
import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from monoglot import __version__
from monoglot.data.rows import read_rows, sample_to_row, write_rows
from monoglot.decode.predict import Predictor, load
from monoglot.errors import InputError
from monoglot.evaluate.metrics import METRICS, Scores
from monoglot.evaluate.paired import (
    LEVEL,
    holm,
    mcnemar,
    paired_bootstrap,
    rows_needed,
    standard_error,
    swap_test,
)
from monoglot.evaluate.report import labels_of, some_of
from monoglot.evaluate.run import need_answers
from monoglot.files import write_json
from monoglot.nouns import Prediction, Sample
from monoglot.store import model_folder
from monoglot.tasks import TASKS

WORTH = 0.02
"""The difference, 2 points, that "rows needed" speaks of."""


@dataclass(frozen=True)
class Comparison:
    """One metric of the rows of one task of one file, under A and under B. Scores are as the metric gives them; points are hundredths."""

    data: str
    task: str
    metric: str
    higher_is_better: bool
    rows: int
    groups: int
    """What was resampled and swapped: `group`s where rows name them, else rows."""
    a: float
    b: float
    difference: float
    """B - A."""
    low: float | None
    high: float | None
    """95% paired bootstrap interval of the difference; None for a single group."""
    test: str
    """"McNemar" (exact; rows that are right or wrong, none of them grouped) or "swaps" (paired randomisation)."""
    p: float
    p_holm: float
    """`p` adjusted for all tests that are printed together."""
    right_or_wrong: bool
    a_better: int
    b_better: int
    """Rows that only A (only B) has right; of a metric of degrees, rows where the own score of A (of B) is better."""
    rows_needed: int | None
    """How many rows would show a difference of 2 points (level 95%, power 80%) at the spread observed; None when no row changed."""
    a_errors: int
    b_errors: int
    """Rows that could not be answered; they count as wrong."""

    @property
    def verdict(self) -> str:
        """In words: who is better, by how much, how sure."""
        points = f"{100 * self.difference:+.1f} points"
        sure = "p < 0.001" if self.p_holm < 0.001 else f"p = {self.p_holm:.3f}"
        if self.groups < 2:
            return f"no difference can be shown ({points}; a single {'row' if self.rows == 1 else 'group'})"
        if self.rows_needed is None:
            return "no difference shown (every row scores the same under A and B)"
        if self.p_holm >= 1 - LEVEL:
            return f"no difference shown ({points}, {sure}; at least {self.rows_needed:,} rows would be needed to show 2 points)"
        better = "B" if (self.difference > 0) == self.higher_is_better else "A"
        return f"{better} is better ({points}{'' if self.higher_is_better else ', lower is better'}, {sure})"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def compare(
    a: str,
    b: str,
    data: Sequence[Path],
    *,
    out: Path | None = None,
    examples: int = 0,
    limit: int | None = None,
    batch_size: int = 16,
    seed: int = 0,
) -> list[Comparison]:
    """Compare two models on files of rows; print and write what was found.

    Args:
        a, b: model folders, names of bundled models, or .jsonl files that `monoglot predict --data` wrote.
        data: files of rows with answers.
        out: compare.json; rows that changed are written beside it as <name>.examples.jsonl.
        examples: most rows of each task of each file to write there, those that changed most first.
        limit: at most so many rows of each file, drawn.

    Raises:
        InputError: a file cannot be read, a row lacks its answer, predictions do not fit the rows.
    """
    if examples and out is None:
        raise InputError.at("command line", "--examples", "needs --out", "the rows that changed are written beside it")
    labels = labels_of(data)
    sets = [some_of(list(read_rows(path, known_tasks=TASKS)), limit) for path in data]
    for path, samples in zip(data, sets):
        if not samples:
            raise InputError.at(path, "", "has no rows", "give rows that both models can answer")
        for sample in samples:
            if not TASKS[sample.task].metrics:
                raise InputError.at(sample.where, "task", f"{sample.task!r} has no metric", "leave these rows out")
        need_answers(samples)
    same = fingerprint(a) == fingerprint(b)
    notes = ["A and B are the same: every difference is 0, whatever the rows"] if same else []
    first = _source(a, data, sets)
    second = first if same else _source(b, data, sets)
    answers_a = _answers("A", first, labels, sets, batch_size)
    answers_b = answers_a if same else _answers("B", second, labels, sets, batch_size)

    found, changed = list[Comparison](), list[dict[str, Any]]()
    for label, samples, of_a, of_b in zip(labels, sets, answers_a, answers_b):
        for task in dict.fromkeys(sample.task for sample in samples):
            chosen = [index for index, sample in enumerate(samples) if sample.task == task]
            part = [samples[i] for i in chosen], [of_a[i] for i in chosen], [of_b[i] for i in chosen]
            found += compare_answers(label, *part, seed=seed)
            if examples:
                changed += changes(label, *part, most=examples, base=out.parent if out else None)
    found = [replace(one, p_holm=p) for one, p in zip(found, holm([one.p for one in found]))]

    console = Console(width=None if Console().is_terminal else 150)
    console.print(table(found))
    for line in lines(a, b, found, notes):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    if out is not None:
        command = ["monoglot", "compare", a, b, *(word for path in data for word in ("--data", str(path)))]
        command += ["--out", str(out), *(["--examples", str(examples)] if examples else [])]
        command += ["--limit", str(limit)] if limit else []
        result = {"command": shlex.join(command), "monoglot": __version__, "a": a, "b": b, "notes": notes}
        write_json(out, result | {"comparisons": [one.to_json() for one in found]})
        if examples:
            write_rows(out.with_name(f"{out.stem}.examples.jsonl"), changed)
    return found


def compare_answers(
    label: str, samples: Sequence[Sample], a: Sequence[Prediction], b: Sequence[Prediction], *, seed: int = 0
) -> list[Comparison]:
    """Every metric of one task. `p_holm` is `p` until it is known how many tests there are."""
    groups = [str(sample.meta.get("group", sample.id)) for sample in samples]
    count = len(set(groups))
    found = []
    for name in TASKS[samples[0].task].metrics:
        metric = METRICS[name]
        left, right = _scores(name, samples, a), _scores(name, samples, b)
        gained = (right.per_item - left.per_item) * (1 if metric.higher_is_better else -1)
        a_better, b_better = int((gained < 0).sum()), int((gained > 0).sum())
        paired = left.terms, right.terms, metric.value
        right_or_wrong = all(_right_or_wrong(scores) for scores in (left, right))
        exact = right_or_wrong and count == len(samples)
        p = mcnemar(a_better, b_better) if exact else swap_test(*paired, seed=seed, groups=groups)
        low, high = paired_bootstrap(*paired, seed=seed, groups=groups)
        error = standard_error(*paired, groups)
        found.append(
            Comparison(
                label,
                samples[0].task,
                name,
                metric.higher_is_better,
                len(samples),
                count,
                left.value,
                right.value,
                right.value - left.value,
                None if math.isnan(low) else low,
                None if math.isnan(high) else high,
                "McNemar" if exact else "swaps",
                p,
                p,
                right_or_wrong,
                a_better,
                b_better,
                rows_needed(len(samples), error, WORTH) if error > 1e-12 else None,
                sum(answer.error is not None for answer in a),
                sum(answer.error is not None for answer in b),
            )
        )
    return found


def _scores(metric: str, samples: Sequence[Sample], answers: Sequence[Prediction]) -> Scores:
    box = METRICS[metric].reads == "box"
    return METRICS[metric].score(
        [answer.box if box else answer.text for answer in answers],
        [sample.box if box else sample.targets for sample in samples],  # type: ignore[misc]
        lang=[sample.lang for sample in samples],
    )


def _right_or_wrong(scores: Scores) -> bool:
    """Each item counts once and is 0 or 1, so that the score is a share."""
    terms = scores.terms
    return terms.shape[1] == 2 and bool((terms[:, 1] == 1).all() and np.isin(scores.per_item, (0.0, 1.0)).all())


def changes(
    label: str,
    samples: Sequence[Sample],
    a: Sequence[Prediction],
    b: Sequence[Prediction],
    *,
    most: int,
    base: Path | None,
) -> list[dict[str, Any]]:
    """Rows whose score by the task's main metric differs, those that differ most first, with both answers.

    Args:
        base: the folder that the rows will be written to.
    """
    metric = TASKS[samples[0].task].metrics[0]
    left, right = (_scores(metric, samples, answers).per_item for answers in (a, b))
    order = sorted(np.flatnonzero(left != right), key=lambda index: (-abs(right[index] - left[index]), index))
    found = []
    for index in map(int, order[:most]):
        sides = {
            side: {"text": answer.text, "box": answer.box, "score": float(score[index]), "error": answer.error}
            for side, answer, score in (("a", a[index], left), ("b", b[index], right))
        }
        found.append(sample_to_row(samples[index], base=base) | {"data": label, "metric": metric} | sides)
    return found


# --- answers ----------------------------------------------------------------------------------------------------------


def fingerprint(source: str) -> str:
    """The same for two copies of one model, or of one file of predictions."""
    path = model_folder(source)
    if path.is_file():
        files = [path]
    else:
        names = ("*.safetensors", "config.json", "tokenizer.json", "adapter.json", "answers.json")
        files = [file for name in names for file in sorted(path.glob(name))]
    digest = hashlib.sha256()
    for file in files:
        digest.update((file.suffix if path.is_file() else file.name).encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest() if files else str(path)


def _source(source: str, data: Sequence[Path], sets: Sequence[Sequence[Sample]]) -> Predictor | list[list[Prediction]]:
    """A loaded model, or the answers of a file for each set of rows."""
    if not source.endswith(".jsonl"):
        return load(source)
    predictions = read_predictions(Path(source))
    ids = [sample.id for samples in sets for sample in samples]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        wrong = f"the id {twice!r} stands in two of the files of rows"
        raise InputError.at(source, "id", wrong, "compare these files one at a time, each with its own predictions")
    missing = [name for name in ids if name not in predictions]
    rows = ", ".join(map(str, data))
    if len(missing) == len(ids):
        raise InputError.at(source, "id", f"no row in common with {rows}", "give the predictions of these rows")
    if missing:
        wrong = f"{len(missing)} of {len(ids)} rows of {rows} have no prediction, the first is {missing[0]!r}"
        raise InputError.at(source, "id", wrong, "finish it with `monoglot predict --resume`")
    for samples in sets:
        for sample in samples:
            if predictions[sample.id].task != sample.task:
                wrong = f"the prediction of {sample.id!r} is of task {predictions[sample.id].task!r}"
                fix = f"its row in {sample.where} is of {sample.task!r}: these are predictions of other rows"
                raise InputError.at(source, "task", wrong, fix)
    return [[predictions[sample.id] for sample in samples] for samples in sets]


def read_predictions(path: Path) -> dict[str, Prediction]:
    """Predictions by id, as `monoglot predict --data` writes them. Raises InputError with the line that is none."""
    if not path.is_file():
        raise InputError.at(path, "", "no such file", "give a model, or a file that `monoglot predict --data` wrote")
    found = dict[str, Prediction]()
    with path.open(encoding="utf-8", errors="replace") as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                given = json.loads(text)
                box: Any = given["box"] and tuple(given["box"])
                one = Prediction(given["id"], given["task"], given["text"], box, error=given["error"])
            except (ValueError, KeyError, TypeError):
                fix = "expected what `monoglot predict --data` writes"
                raise InputError.at(path, "", "is not a prediction", fix, line=line) from None
            if one.id in found:
                raise InputError.at(path, "id", f"{one.id!r} is answered twice", "give one answer a row", line=line)
            found[one.id] = one
    return found


def _answers(
    name: str,
    source: Predictor | list[list[Prediction]],
    labels: Sequence[str],
    sets: Sequence[Sequence[Sample]],
    batch_size: int,
) -> list[list[Prediction]]:
    """One answer a row of each set."""
    if isinstance(source, list):
        return source
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    screen = Console(stderr=True)
    answers = []
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        for label, samples in zip(labels, sets):
            bar = progress.add_task(f"{name}: {label}", total=len(samples))
            of_set = []
            for answer in source.predict_many(samples, batch_size=batch_size):
                of_set.append(answer)
                progress.advance(bar)
            answers.append(of_set)
    return answers


# --- what is shown ----------------------------------------------------------------------------------------------------


def table(found: Sequence[Comparison]) -> Table:
    """A row for each file, task and metric; differences are in points (hundredths)."""
    made = Table(
        "rows from", "task", "metric", "n", "A", "B", "B - A, points", "95% interval", "p", "p (Holm)", box=None
    )
    made.add_column("better in A")
    made.add_column("better in B")
    for one in found:
        interval = "" if one.low is None or one.high is None else f"{100 * one.low:+.1f} .. {100 * one.high:+.1f}"
        name = one.metric + ("" if one.higher_is_better else " (lower is better)")
        shown = [one.data, one.task, name, str(one.rows), f"{one.a:.3f}", f"{one.b:.3f}"]
        shown += [f"{100 * one.difference:+.1f}", interval, f"{one.p:.3f}", f"{one.p_holm:.3f}"]
        made.add_row(*shown, str(one.a_better), str(one.b_better))
    return made


def lines(a: str, b: str, found: Sequence[Comparison], notes: Sequence[str]) -> list[str]:
    """What is said below the table: which is which, a verdict each, rows that could not be answered, notes."""
    said = [f"A = {a}", f"B = {b}"]
    said += [f"{one.data}, {one.task}, {one.metric}: {one.verdict}" for one in found]
    for one in {(one.data, one.task): one for one in found}.values():
        if one.a_errors or one.b_errors:
            unread = f"{one.a_errors} rows under A and {one.b_errors} under B"
            said.append(f"{one.data}, {one.task}: {unread} could not be answered and count as wrong")
    if len(found) > 1:
        said.append(f"p in the verdicts is Holm's over these {len(found)} tests.")
    return said + [f"note: {note}" for note in notes]
