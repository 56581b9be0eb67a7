"""Rows that lack an answer, answered by a model: pseudo-labels to train on.

    rows -> blocks -> (worker: Predictor.predict_many) -> <out>.parts/<block>.jsonl -> out, and what is left out beside it

A part is a line of what is known of its block, then its rows. See data/cluster.py for who works, and how a killed call goes on.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from monoglot.data.cluster import ALONE, Block, Workers, blocks_of, work_through
from monoglot.data.pack import LeftOut, Problem, numbered, of_another, write_problems
from monoglot.data.rowfile import RowFile
from monoglot.data.rows import parse_row, sample_to_row
from monoglot.decode.predict import Predictor, load
from monoglot.decode.search import SearchSettings
from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json, sha256_of, write_json
from monoglot.nouns import Prediction, Sample
from monoglot.store import model_folder
from monoglot.tasks import TASKS, pose

BLOCK_ROWS = 256
"""Rows of a block unless said otherwise: as many as `predict_many` reads ahead."""
ORIGIN = "origin.json"


def caption_file(
    source: Path,
    out: Path,
    model: str | Path,
    *,
    task: str = "",
    least_confidence: float = 0.0,
    share: float = 0.01,
    search: SearchSettings | None = None,
    batch_size: int = 16,
    threads: int | None = None,
    block_rows: int = BLOCK_ROWS,
    workers: Workers = ALONE,
) -> Counter[str]:
    """Write the rows of a file again, with a model's answer where they have none; go on where an earlier call was stopped.

    A row that has a target (for grounding: a box) stays as it is. One that has none gets the answer as `target` or `box`, and
    its probability as the key `confidence`. Rows keep their order.

    Args:
        source: a JSONL file of rows, or a pack.
        out: the new JSONL file. `<out>.problems.jsonl` says which rows are not in it, and why.
        model: a model folder, or the name of a bundled model.
        task: what to ask; the row's own unless given.
        least_confidence: rows whose answer is less probable are left out.
        share: of rows that may fail, FEW at least. 0 stops at the first.
        threads: processor threads of a worker.

    Returns:
        How many rows were `answered`, `kept` as they are, `unsure` (below `least_confidence`), `failed`.

    Raises:
        InputError: something given is wrong, too many rows fail, or `out` exists. Finished blocks stay.
    """
    if task:
        TASKS[task]  # a wrong name is told now
    if out.exists():
        raise InputError.at(out, "--out", "exists already", "give another file")
    source, out, folder = source.resolve(), out.resolve(), model_folder(model).resolve()
    rows = RowFile(source)
    if not len(rows):
        raise InputError.at(source, "data", "has no rows", "there is nothing to answer")
    search = search or SearchSettings()
    parts, problems = _beside(out, ".parts"), _beside(out, ".problems.jsonl")
    origin = {"file": source.name, "fingerprint": rows.fingerprint(), "rows": len(rows), "block_rows": block_rows}
    origin |= {"model": _hash_of(folder), "task": task, "search": search.model_dump(exclude_unset=True)}
    _begin(parts, origin | {"least_confidence": least_confidence})
    ask = Ask(folder, task, least_confidence, search, batch_size, threads, gpu=workers.gpus > 0)
    blocks = blocks_of(len(rows), block_rows)
    with LeftOut(problems, len(rows), share, cannot="cannot be answered") as left_out:
        for failed in work_through(partial(CaptionBlock, source, out, ask), blocks, workers, "answering"):
            for problem in failed:
                left_out(problem)
    return _join(out, blocks)


@dataclass(frozen=True)
class Ask:
    """What is asked of which model."""

    model: Path
    task: str
    least_confidence: float
    search: SearchSettings
    batch_size: int
    threads: int | None
    gpu: bool


@dataclass
class CaptionBlock:
    """Block -> its part; returns the rows that could not be answered."""

    source: Path
    out: Path
    ask: Ask
    rows: RowFile = field(init=False)
    predictor: Predictor = field(init=False)

    def __post_init__(self) -> None:
        if self.ask.threads:
            torch.set_num_threads(self.ask.threads)
        self.rows = RowFile(self.source)
        self.predictor = load(self.ask.model, search=self.ask.search)
        if self.ask.gpu:
            self.predictor.model.cuda()

    def __call__(self, block: Block) -> list[Problem]:
        path = _part(self.out, block)
        if not path.exists():
            part = Part()
            for sample, answer in self._answers(block):
                part.add(sample, answer, self.ask.least_confidence, self.out.parent)
            with atomic_path(path) as draft, open(draft, "w", encoding="utf-8") as file:
                for line in (part.head(), *part.rows):
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
        return _head(path).failed

    def _answers(self, block: Block) -> Iterator[tuple[Sample | Problem, Prediction | None]]:
        """The rows of a block in order, each with its answer if it needs one."""
        rows = [row for _, row in numbered(self.rows, block.start, block.stop)]
        asked = {
            place: replace(row, task=self.ask.task or row.task)
            for place, row in enumerate(rows)
            if isinstance(row, Sample) and not _is_answered(row)
        }
        answers = self.predictor.predict_many(asked.values(), batch_size=self.ask.batch_size)
        for place, row in enumerate(rows):
            yield (asked[place], next(answers)) if place in asked else (row, None)


@dataclass
class Part:
    """What became of a block's rows."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Problem] = field(default_factory=list)
    unsure: list[Problem] = field(default_factory=list)

    def add(self, row: Sample | Problem, answer: Prediction | None, least_confidence: float, base: Path) -> None:
        """Args: base: the folder of the file that the row goes to."""
        try:
            if isinstance(row, Problem):
                self.failed.append(row)
            elif answer is None:
                self.rows.append(sample_to_row(row, base=base))
                self.counts["kept"] += 1
            elif answer.error is not None or not (answer.text or answer.box):
                self.failed.append(Problem(row.where, answer.error or f"{row.where}: the model gave no answer"))
            elif answer.confidence < least_confidence:
                wrong = f"confidence {answer.confidence:.3g} of {answer.text!r} is below {least_confidence:g}"
                self.unsure.append(Problem(row.where, f"{row.where}: {wrong}"))
            else:
                made = sample_to_row(_with_answer(row, answer), base=base)
                parse_row(made, where_file=row.where)  # a box may be empty
                self.rows.append(made)
                self.counts["answered"] += 1
        except InputError as error:
            assert isinstance(row, Sample)
            self.failed.append(Problem(row.where, str(error)))

    def head(self) -> dict[str, Any]:
        counts = self.counts | Counter(failed=len(self.failed), unsure=len(self.unsure))
        return {"counts": counts, **{kind: [asdict(p) for p in getattr(self, kind)] for kind in ("failed", "unsure")}}


def _is_answered(sample: Sample) -> bool:
    if sample.box is None:
        return bool(sample.targets)
    try:
        return bool(sample.targets) or pose(sample).writes == "box"
    except InputError:  # predict_many says what is wrong
        return False


def _with_answer(sample: Sample, answer: Prediction) -> Sample:
    meta = sample.meta | {"confidence": answer.confidence}
    if answer.box is not None:
        return replace(sample, box=answer.box, meta=meta)
    return replace(sample, targets=(answer.text,), meta=meta)


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(out.name + ending)


def _part(out: Path, block: Block) -> Path:
    return _beside(out, ".parts") / f"{block.number:06d}.jsonl"


def _hash_of(folder: Path) -> str:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise InputError.at(folder, "--model", "is no model", "give a model folder or the name of a bundled model")
    return sha256_of(weights)


def _begin(parts: Path, origin: dict[str, Any]) -> None:
    """Make the folder of parts. Raises InputError if it belongs to another call."""
    path = parts / ORIGIN
    if not path.exists():
        write_json(path, origin)
    elif (there := read_json(path, "what an earlier call was asked")) != origin:
        raise of_another(path, there, origin)


def _head(path: Path) -> Part:
    with open(path, encoding="utf-8") as file:
        head = json.loads(file.readline())
    failed, unsure = ([Problem(**problem) for problem in head[kind]] for kind in ("failed", "unsure"))
    return Part(counts=Counter(head["counts"]), failed=failed, unsure=unsure)


def _join(out: Path, blocks: list[Block]) -> Counter[str]:
    """One file of all parts, which are then removed."""
    counts = Counter[str]()
    left_out: list[Problem] = []
    with atomic_path(out) as draft, open(draft, "wb") as whole:
        for block in blocks:
            path = _part(out, block)
            head = _head(path)
            counts += head.counts
            left_out += [*head.failed, *head.unsure]
            with open(path, "rb") as part:
                part.readline()
                shutil.copyfileobj(part, whole)
        write_problems(_beside(out, ".problems.jsonl"), left_out)
    for block in blocks:
        _part(out, block).unlink(missing_ok=True)
    _part(out, blocks[0]).with_name(ORIGIN).unlink(missing_ok=True)
    with suppress(OSError):
        _beside(out, ".parts").rmdir()
    return counts
