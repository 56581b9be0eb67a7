"""What a step is made of: rows that are drawn, read, posed and collated a little ahead of the loop.

    Mixture -> draws -> (worker) DataSet[row] -> Sample -> Example -> parts of similar length -> Step

Letters: B rows, R answers, N target tokens of a part, V vocabulary.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from monoglot.data.collate import Batch
from monoglot.data.features import CachingPreparer, FeatureCache
from monoglot.data.mixture import Draw, Mixture
from monoglot.data.prepare import Example
from monoglot.data.rowfile import RowFile
from monoglot.decode.constrain import Trie
from monoglot.errors import InputError
from monoglot.files import appending
from monoglot.nouns import Sample
from monoglot.rng import stream
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import PAD, SPECIALS
from monoglot.train.distributed import World
from monoglot.train.recipe import Recipe, Source

AHEAD = 32
"""Steps that may be read before the one that is computed; quotas only change beyond them, so that the rows of a step never depend on how it is read."""
_READY = 3  # steps that the thread keeps ready
_PROBED = 8  # rows of each data set among which a good one is looked for


class Shapes(NamedTuple):
    """By what the rows of a step are cut into parts; as measured with nano (docs/log.md)."""

    part: int
    """What a part costs beside its tokens, in tokens: reading the weights, adding up their gradients."""
    rows: int
    """A part has a multiple of so many rows, or costs `part` once more."""
    tokens: int
    """Rows are padded to a multiple of so many tokens."""


IN_FLOAT32 = Shapes(100, 1, 1)
IN_BFLOAT16 = Shapes(500, 8, 4)
"""A processor compiles a product in bfloat16 for each shape that it meets, which takes longer than to compute it: the same shapes are to come again."""


@dataclass
class Part:
    """Some rows of a step that are computed together."""

    batch: Batch
    sources: Tensor
    """int64[R]: which data set each answer is of."""
    samples: list[Sample]
    """The rows, B of them."""
    allowed: Tensor | None = None
    """bool[N, V]: what may be written in the place of each target token; None for everything."""
    copies: Tensor | None = None
    """int64[R]: the row that each answer is to; None when there is one answer to each row."""
    scores: Tensor | None = None
    """float[R]: what each answer is worth, when the model wrote them; for the curves."""
    rewards: Tensor | None = None
    """float[R]: how much better than its row's other answers each is; None when they are to be learned as they are."""

    @property
    def weights(self) -> Tensor:
        """float[R]"""
        return self.batch.weights if self.rewards is None else self.batch.weights * self.rewards

    def to(self, device: torch.device) -> Part:
        """The same rows there."""
        moved: dict[str, Any] = {k: value.to(device) for k, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, batch=self.batch.to(device), **moved)

    def silent(self) -> Part:
        """The same rows, counting nothing."""
        return replace(self, batch=replace(self.batch, weights=torch.zeros_like(self.batch.weights)))

    def each_token(self, values: Tensor) -> Tensor:
        """[R] -> [N]: for each target token the value of its answer."""
        valid = self.batch.target_valid
        return values[:, None].expand_as(valid)[valid]


@dataclass
class Step:
    """The rows of one step, in parts of similar length."""

    index: int
    parts: list[Part]
    rows: int = 0
    """How many were drawn, good and bad."""
    bad: list[tuple[str, str]] = field(default_factory=list)
    """(`file:line`, what is wrong) of each row that cannot be read."""
    spare: Part | None = None
    """Any row, for a process that has none of its own in this step to compute while it waits for others."""


class DataSet:
    """The rows of one source as they are trained on: with the source's choices, and no longer than the recipe has them."""

    def __init__(self, recipe: Recipe, source: Source, file: RowFile | None = None):
        folder = Path(recipe.data_folder)
        self.source, self._recipe = source, recipe
        self.file = RowFile(folder / source.data, limit=source.limit) if file is None else file
        if not len(self.file):
            fix = f"data set {source.name!r} needs at least one"
            raise InputError.at(self.file.path, "data", "has no rows", fix)
        self._choices = () if source.choices is None else read_choices(folder / source.choices)

    def under(self, source: Source) -> DataSet:
        """The same file as another stage has it."""
        return DataSet(self._recipe, source, self.file if source.limit == self.source.limit else None)

    def __len__(self) -> int:
        return len(self.file)

    def spread(self, most: int) -> list[int]:
        """Numbers of no more than so many rows, spread evenly over the file."""
        return [int(row) for row in np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round())]

    def where(self, row: int) -> str:
        """`file:line`, for messages."""
        return self.file.where(row)

    def __getitem__(self, row: int) -> Sample:
        """Raises InputError when the line is not a row."""
        sample = self.file[row]
        if self._choices and not sample.choices:
            sample = replace(sample, choices=self._choices)
        if self._recipe.source_words:
            sample = replace(sample, text=first_words(sample.text, self._recipe.source_words))
        if self._recipe.target_words:
            short = tuple(first_words(target, self._recipe.target_words) for target in sample.targets)
            sample = replace(sample, targets=short)
        return sample


def read_choices(path: Path) -> tuple[str, ...]:
    """A file of answers, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        wrong = f"cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})"
        raise InputError.at(path, "choices", wrong, "give a text file with one answer a line") from None
    choices = tuple(line.strip() for line in lines if line.strip())
    if not choices:
        raise InputError.at(path, "choices", "has no answers", "give one a line")
    return choices


def first_words(text: str, count: int) -> str:
    """The first words, parted by single spaces; a text that is short enough stays as it is.

    >>> first_words("a red  cup on a table", 3)
    'a red cup'
    """
    words = text.split()
    return text if len(words) <= count else " ".join(words[:count])


class Quarantine:
    """Rows that cannot be read: each is listed once, drawn ones are counted; the end of the run when surely too many are bad.

    Args:
        writes: False in a process beside the one that writes the list.
    """

    def __init__(self, path: Path, share: float, *, writes: bool = True):
        self.path, self.share, self.writes = path, share, writes
        self.seen, self.bad = 0, 0
        self._listed: set[str] = set()

    def add(self, seen: int, bad: int, found: list[tuple[str, str]]) -> None:
        """Take note of a step: so many rows were drawn, so many are bad, namely those `found`, of all processes."""
        self.seen, self.bad = self.seen + seen, self.bad + bad
        fresh = {row: error for row, error in found if row not in self._listed}
        self._listed.update(fresh)
        if fresh and self.writes:
            lines = [json.dumps({"row": row, "error": error}, ensure_ascii=False) for row, error in fresh.items()]
            with appending(self.path) as file:
                file.write("\n".join(lines) + "\n")
        if bad and self.bad > most_bad(self.seen, self.share):
            raise InputError.at(
                self.path,
                "data",
                f"{self.bad} of {self.seen} rows cannot be read",
                f"mend them or raise quarantine_share ({self.share:g})",
            )

    def state(self) -> dict[str, int]:
        """Counts, and how much of the list belongs to them; for JSON."""
        return {"seen": self.seen, "bad": self.bad, "bytes": self.path.stat().st_size if self.path.exists() else 0}

    def load_state(self, state: Mapping[str, int]) -> None:
        """Go on from there; what was listed by steps that will be done again is taken away."""
        self.seen, self.bad = state["seen"], state["bad"]
        if self.path.exists():
            if self.writes:
                os.truncate(self.path, min(state["bytes"], self.path.stat().st_size))
            kept = self.path.read_bytes()[: state["bytes"]].decode()
            self._listed = {json.loads(line)["row"] for line in kept.splitlines()}


def most_bad(seen: int, share: float) -> float:
    """More bad rows than this are no accident when `share` of all may be bad: four standard deviations above, and more than ten.

    >>> [most_bad(seen, 0.01) for seen in (5, 10_000)], most_bad(10_000, 0)
    ([10, 140.0], 0)
    """
    expected = share * seen
    return max(10, expected + 4 * math.sqrt(expected)) if share else 0


class Reader:
    """Reads any step of a stage.

    Args:
        data: its data sets, in the order of the mixture.
        world: which share of each step is read here.
        shapes: by what a step is cut into parts.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: list[DataSet],
        mixture: Mixture,
        preparer: CachingPreparer,
        world: World,
        shapes: Shapes = IN_FLOAT32,
    ):
        self.recipe, self.data, self.mixture, self.preparer, self.world = recipe, data, mixture, preparer, world
        self.shapes = shapes

    def ahead(self, first: int, end: int | None) -> Iterator[Step]:
        """Steps from `first` on in order, read a little ahead of the loop: by a thread, or by the recipe's `workers` processes."""
        if self.recipe.workers:
            # Draws are made here, so that workers need not know how quotas change.
            loader = DataLoader(
                _Drawn(self),
                sampler=_Draws(self.mixture, self.world.slots, first, end),
                batch_size=None,
                num_workers=self.recipe.workers,
                prefetch_factor=max(1, AHEAD // (2 * self.recipe.workers)),
            )
            yield from loader
            return
        ready: queue.Queue[Step | BaseException] = queue.Queue(_READY)
        stop = threading.Event()

        def work() -> None:
            try:
                for index in itertools.count(first) if end is None else range(first, end):
                    step = self.step(index)
                    while not stop.is_set():
                        try:
                            ready.put(step, timeout=0.5)
                            break
                        except queue.Full:
                            continue
                    if stop.is_set():
                        return
            except BaseException as error:  # handed to the loop, which raises it
                ready.put(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            for _ in itertools.count(first) if end is None else range(first, end):
                step = ready.get()
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            stop.set()
            while thread.is_alive():  # it may wait for room; what it reads belongs to nobody now
                with suppress(queue.Empty):
                    ready.get_nowait()
                thread.join(timeout=0.05)

    def step(self, index: int, draws: Sequence[Draw] | None = None) -> Step:
        """The rows of one step that are this process's; those that cannot be read are told."""
        if isinstance(self.preparer.cache, FeatureCache):
            self.preparer.cache.refresh()
        mine = self.mixture.step(index, self.world.slots) if draws is None else draws
        examples: list[Example] = []
        sources: list[int] = []
        bad: list[tuple[str, str]] = []
        for draw in mine:
            try:
                examples.append(self._checked(draw))
                sources.append(draw.source)
            except InputError as error:
                bad.append((self.data[draw.source].where(draw.row), str(error)))
        groups = self.together(examples)
        parts = [self._part([examples[i] for i in some], [sources[i] for i in some]) for some in groups]
        return Step(index, parts, len(mine), bad, None if parts else self._spare())

    def together(self, examples: list[Example], most_rows: int | None = None) -> list[list[int]]:
        """Which examples are computed together: no more than `most_rows` unless the recipe says how many."""
        most = self.recipe.rows_at_once or most_rows, self.recipe.tokens_at_once
        return together([lengths(example) for example in examples], *most, self.shapes)

    def _spare(self) -> Part | None:
        """The first good row of all; None if there is none, or only this process."""
        if self.world.size == 1:
            return None
        for source, rows in enumerate(self.data):
            for row in rows.spread(_PROBED):
                with suppress(InputError):
                    return self._part([self._checked(Draw(source, row, 0))], [source])
        return None

    def _part(self, examples: list[Example], sources: list[int]) -> Part:
        """Examples, collated; each twice if two passes are to agree."""
        twice = 2 if self.recipe.loss.r_drop else 1
        return self.part(examples * twice, sources * twice)

    def _checked(self, draw: Draw) -> Example:
        """One drawn row that can be trained on. Raises InputError."""
        example = self.example(draw)
        self._check(example, self.data[draw.source].where(draw.row))
        return example

    def example(self, draw: Draw) -> Example:
        """One drawn row, laid out. Raises InputError."""
        rows = self.data[draw.source]
        copies = rows.source.augment
        variant = (draw.epoch % (abs(copies) + 1)) * (1 if copies > 0 else -1)
        sample = rows[draw.row]
        if rate := rows.source.modality_dropout:
            rng = stream(self.recipe.seed, "modality", rows.source.name, draw.epoch, draw.row)
            sample = without_a_modality(sample, rate, rng)
        return self.preparer.example(sample, variant=variant)

    def _check(self, example: Example, where: str) -> None:
        """InputError for a row that the recipe's loss cannot be taken of."""
        loss = self.recipe.loss
        if not len(example.sequence.target_ids):
            raise InputError.at(where, "target", "is missing", "training needs the answer")
        if loss.kind == "self_critical" and not example.sample.targets:
            raise InputError.at(where, "targets", "are missing", "the loss 'self_critical' compares texts with them")
        self.check_choices(example, where)

    def check_choices(self, example: Example, where: str) -> None:
        """InputError for a row whose target cannot be written under its choices, if the recipe's loss keeps to them."""
        loss = self.recipe.loss
        if loss.constrain and example.sample.choices and not example.posed.choices:
            raise InputError.at(where, "choices", f"mean nothing to the task {example.sample.task!r}", "leave them out")
        if loss.constrain and not is_choice(example, self.preparer.tokenizer):
            raise InputError.at(
                where, "target", "is none of the choices", "loss.constrain lets nothing else be written"
            )

    def part(self, examples: list[Example], sources: list[int]) -> Part:
        """Examples, collated."""
        allowed = allowed_words(examples, self.preparer.tokenizer) if self.recipe.loss.constrain else None
        samples = [example.sample for example in examples]
        batch = even(self.preparer.collate(examples), self.shapes.tokens, self.preparer.settings.target_positions)
        return Part(batch, torch.tensor(sources), samples, allowed)


class _Drawn(Dataset[Step]):
    """(index, draws) -> Step, in a worker."""

    def __init__(self, reader: Reader):
        self.reader = reader

    def __getitem__(self, drawn: tuple[int, list[Draw]]) -> Step:
        torch.set_num_threads(1)
        return self.reader.step(*drawn)


class _Draws(Sampler[tuple[int, list[Draw]]]):
    """(index, draws) of each step."""

    def __init__(self, mixture: Mixture, slots: slice, first: int, end: int | None):
        self.mixture, self.slots, self.first, self.end = mixture, slots, first, end

    def __iter__(self) -> Iterator[tuple[int, list[Draw]]]:
        for index in itertools.count(self.first) if self.end is None else range(self.first, self.end):
            yield index, self.mixture.step(index, self.slots)


def without_a_modality(sample: Sample, rate: float, rng: np.random.Generator) -> Sample:
    """The sample, or at `rate` one that lacks a modality of its media, drawn at random. Media of one modality always stay.

    >>> from monoglot.nouns import Media
    >>> both = Sample("1", "vqa", (Media("image", "a.png"), Media("audio", "a.wav")), "what is it?")
    >>> [len(without_a_modality(both, rate, np.random.default_rng(0)).media) for rate in (0.0, 1.0)]
    [2, 1]
    """
    modalities = sorted({media.modality for media in sample.media})
    if len(modalities) < 2 or rng.random() >= rate:
        return sample
    gone = modalities[int(rng.integers(len(modalities)))]
    return replace(sample, media=tuple(media for media in sample.media if media.modality != gone))


def lengths(example: Example) -> tuple[int, int]:
    """Tokens of the source and of the target."""
    return len(example.sequence.source_ids), len(example.sequence.target_ids)


def together(
    sizes: list[tuple[int, int]],
    most_rows: int | None = None,
    most_tokens: int | None = None,
    shapes: Shapes = IN_FLOAT32,
) -> list[list[int]]:
    """Which rows are computed together: of similar length, and no more than the recipe allows.

    Args:
        sizes: (source, target) tokens of each row.
        most_tokens: of a part, padding included; a row that is longer is alone.

    >>> together([(10, 2), (200, 2), (11, 2), (190, 2)])
    [[0, 2], [3, 1]]
    >>> together([(10, 2), (10, 2), (10, 2)], most_tokens=24)
    [[0, 1], [2]]
    """
    groups = similar_lengths(sizes, shapes)
    parts: list[list[int]] = []
    for group in groups:
        parts.append([])
        for index in group:
            longer = [*parts[-1], index]
            padded = len(longer) * sum(max(sizes[i][side] for i in longer) for side in (0, 1))
            full = most_rows is not None and len(longer) > most_rows
            if parts[-1] and (full or (most_tokens is not None and padded > most_tokens)):
                parts.append([])
            parts[-1].append(index)
    return parts


def similar_lengths(sizes: list[tuple[int, int]], shapes: Shapes = IN_FLOAT32) -> list[list[int]]:
    """Indices in groups of similar (source, target) lengths that are the cheapest to compute, padding included.

    >>> similar_lengths([(10, 2), (200, 2), (11, 2), (190, 2)])
    [[0, 2], [3, 1]]
    """
    order = sorted(range(len(sizes)), key=lambda i: (sum(sizes[i]), sizes[i]))
    in_rows = set(range(shapes.rows, len(order), shapes.rows)) if shapes.rows > 1 else set()
    in_rows |= {n for n in range(1, len(order)) if sizes[order[n]] != sizes[order[n - 1]]}
    cuts = [0, *sorted(in_rows), len(order)] if order else [0]
    # best[n]: (cost, where the last group begins, as a cut) of the rows before cut n.
    best: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(cuts)):
        source = target = 0
        choices = []
        for first in reversed(range(end)):
            for i in order[cuts[first] : cuts[first + 1]]:
                source, target = max(source, sizes[i][0]), max(target, sizes[i][1])
            count = cuts[end] - cuts[first]
            padded = count * (_multiple(source, shapes.tokens) + _multiple(target, shapes.tokens))
            beside = shapes.part * (1 + (count % shapes.rows > 0))
            choices.append((best[first][0] + beside + padded, first))
        best.append(min(choices))
    groups: list[list[int]] = []
    end = len(cuts) - 1
    while end:
        first = best[end][1]
        groups.append(order[cuts[first] : cuts[end]])
        end = first
    return groups[::-1]


def even(batch: Batch, tokens: int, longest_target: int) -> Batch:
    """The same rows, source and target padded to a multiple of so many tokens."""
    source = _multiple(batch.source_ids.shape[1], tokens) - batch.source_ids.shape[1]
    written = batch.target_in.shape[1]
    target = max(0, min(_multiple(written, tokens), longest_target) - written)
    more = {
        "source_ids": source,
        "source_valid": source,
        "target_in": target,
        "target_out": target,
        "target_valid": target,
    }
    padded: dict[str, Any] = {}
    for name, count in more.items():
        tensor = getattr(batch, name)
        padded[name] = F.pad(tensor, (0, count), value=False if tensor.dtype == torch.bool else PAD)
    return replace(batch, **padded)


def _multiple(count: int, of: int) -> int:
    return -(-count // of) * of


@lru_cache(maxsize=64)
def _trie(choices: tuple[str, ...], tokenizer: Tokenizer) -> Trie:
    return Trie(tokenizer.encode(f" {choice}").tolist() for choice in choices)


def is_choice(example: Example, tokenizer: Tokenizer) -> bool:
    """True if the target can be written under the row's choices, or if it has none."""
    if not example.posed.choices:
        return True
    trie, target = _trie(example.posed.choices, tokenizer), example.sequence.target_ids.tolist()
    return all(token in trie.allowed(target[:place]) for place, token in enumerate(target))


def allowed_words(examples: list[Example], tokenizer: Tokenizer) -> Tensor:
    """bool[N, V]: what may be written in the place of each target token.

    What a row's choices allow; for a picture in image codes these and the special tokens; for all else everything.
    """
    vocabulary = tokenizer.vocabulary
    codes = range(vocabulary.mask + 1, vocabulary.mask + 1 + vocabulary.num_codes)
    tokens = sum(len(example.sequence.target_ids) for example in examples)
    allowed = torch.ones(tokens, vocabulary.size, dtype=torch.bool)
    at = 0
    for example in examples:
        target = example.sequence.target_ids.tolist()
        rows = allowed[at : at + len(target)]
        if example.posed.choices:
            trie = _trie(example.posed.choices, tokenizer)
            rows[:] = False
            for place in range(len(target)):
                rows[place, torch.from_numpy(trie.allowed(target[:place]))] = True
        elif target and target[0] in codes:
            rows[:] = False
            rows[:, : len(SPECIALS)] = rows[:, codes.start : codes.stop] = True
        at += len(target)
    return allowed
