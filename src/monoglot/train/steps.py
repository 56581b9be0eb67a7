"""What a step is made of: rows that are drawn, read, posed and collated a little ahead of the loop.

    Mixture -> DataSet[row] -> Sample -> Example -> parts of similar length -> Step

Letters: B rows, R answers, N target tokens of a part, V vocabulary.
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from monoglot.data.collate import Batch
from monoglot.data.mixture import Mixture
from monoglot.data.prepare import Example, Preparer
from monoglot.data.rowfile import RowFile
from monoglot.decode.constrain import Trie
from monoglot.errors import InputError
from monoglot.nouns import Sample
from monoglot.text.tokenizer import Tokenizer
from monoglot.text.vocabulary import SPECIALS
from monoglot.train.recipe import Recipe, Source

_AHEAD = 3  # batches that are read while one is computed


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

    def each_token(self, values: Tensor) -> Tensor:
        """[R] -> [N]: for each target token the value of its answer."""
        valid = self.batch.target_valid
        return values[:, None].expand_as(valid)[valid]


@dataclass
class Step:
    """The rows of one step, in parts of similar length so that little is padded."""

    index: int
    parts: list[Part]


class DataSet:
    """The rows of one source as they are trained on: with the source's choices, and no longer than the recipe has them."""

    def __init__(self, recipe: Recipe, source: Source):
        folder = Path(recipe.data_folder)
        self.source, self._recipe = source, recipe
        self._file = RowFile(folder / source.data, limit=source.limit)
        if not len(self._file):
            fix = f"data set {source.name!r} needs at least one"
            raise InputError.at(self._file.path, "data", "has no rows", fix)
        self._choices = () if source.choices is None else read_choices(folder / source.choices)

    def __len__(self) -> int:
        return len(self._file)

    def where(self, row: int) -> str:
        """`file:line`, for messages."""
        return self._file.where(row)

    def __getitem__(self, row: int) -> Sample:
        """Raises InputError when the line is not a row."""
        sample = self._file[row]
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
    """Rows that cannot be read: counted, listed, and the end of the run when they are too many."""

    def __init__(self, path: Path, share: float):
        self.path, self.share = path, share
        self.seen, self.bad = 0, 0

    def add(self, sample_where: str, error: InputError) -> None:
        self.bad += 1
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"row": sample_where, "error": str(error)}, ensure_ascii=False) + "\n")
        if self.bad > (max(10, self.share * self.seen) if self.share else 0):
            raise InputError.at(
                self.path,
                "data",
                f"{self.bad} of {self.seen} rows cannot be read",
                f"mend them or raise quarantine_share ({self.share})",
            )


class Reader:
    """Reads any step of a run."""

    def __init__(self, recipe: Recipe, data: list[DataSet], preparer: Preparer, quarantine: Quarantine):
        self.recipe, self.data, self.preparer, self.quarantine = recipe, data, preparer, quarantine
        self.mixture = Mixture([len(rows) for rows in data], [rows.source.quota for rows in data], recipe.seed)

    def ahead(self, first: int, end: int) -> Iterator[Step]:
        """Steps `first` to `end` in order, read by a thread a little ahead of the loop."""
        ready: queue.Queue[Step | BaseException] = queue.Queue(_AHEAD)
        stop = threading.Event()

        def work() -> None:
            try:
                for index in range(first, end):
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

        threading.Thread(target=work, daemon=True).start()
        try:
            for _ in range(first, end):
                step = ready.get()
                if isinstance(step, BaseException):
                    raise step
                yield step
        finally:
            stop.set()

    def step(self, index: int) -> Step:
        """The rows of one step; those that cannot be read are put into quarantine."""
        examples: list[Example] = []
        sources: list[int] = []
        for draw in self.mixture.step(index):
            self.quarantine.seen += 1
            rows = self.data[draw.source]
            copies = rows.source.augment
            variant = (draw.epoch % (abs(copies) + 1)) * (1 if copies > 0 else -1)
            where = rows.where(draw.row)
            try:
                example = self.preparer.example(rows[draw.row], variant=variant)
                self._check(example, where)
            except InputError as error:
                self.quarantine.add(where, error)
                continue
            examples.append(example)
            sources.append(draw.source)
        groups = similar_lengths([len(example.sequence.source_ids) for example in examples])
        most = self.recipe.rows_at_once or max(map(len, groups), default=1)
        twice = 2 if self.recipe.loss.r_drop else 1
        return Step(
            index,
            [
                self.part([examples[i] for i in some] * twice, [sources[i] for i in some] * twice)
                for group in groups
                for some in (group[at : at + most] for at in range(0, len(group), most))
            ],
        )

    def _check(self, example: Example, where: str) -> None:
        """InputError for a row that the recipe's loss cannot be taken of."""
        loss = self.recipe.loss
        if not len(example.sequence.target_ids):
            raise InputError.at(where, "target", "is missing", "training needs the answer")
        if loss.kind == "self_critical" and not example.sample.targets:
            raise InputError.at(where, "targets", "are missing", "the loss 'self_critical' compares texts with them")
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
        return Part(self.preparer.collate(examples), torch.tensor(sources), samples, allowed)


def similar_lengths(lengths: list[int], waste: float = 0.25) -> list[list[int]]:
    """Indices in groups of similar length: padding a group to its longest adds at most that share to its tokens.

    >>> similar_lengths([10, 200, 11, 190])
    [[0, 2], [3, 1]]
    """
    groups: list[list[int]] = []
    tokens = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        padded = lengths[index] * (len(groups[-1]) + 1) if groups else 0
        if not groups or padded > (1 + waste) * (tokens + lengths[index]):
            groups.append([])
            tokens = 0
        groups[-1].append(index)
        tokens += lengths[index]
    return groups


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
