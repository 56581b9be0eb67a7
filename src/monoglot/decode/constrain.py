"""What the decoder may write next.

Constraint   belongs to a row, speaks before the softmax: which ids may follow. Probabilities are renormalised over them.
Rule         belongs to the search, speaks after it: strikes tokens out of everybody's log-probabilities (lengths, repeats, prefixes).

Letters: N beams of all rows, V vocabulary.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from monoglot.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNK, Vocabulary

Ids = np.ndarray | slice
"""int64 ids, or all ids of a range."""
ONLY_EOS = np.array([EOS], dtype=np.int64)
NEVER = float("-inf")

# --- constraints ------------------------------------------------------------------------------------------------------


class Constraint(Protocol):
    longest: int | None
    """How many tokens the longest allowed answer has, eos included; None when it may go on."""

    def allowed(self, written: Sequence[int]) -> Ids:
        """Ids that may follow what a row has written, which comes without its start and prefix; never empty."""


class Words:
    """The answer is free, but it is words: no location, no image code, no mask."""

    longest: int | None = None

    def __init__(self, vocabulary: Vocabulary):
        self._words = slice(0, vocabulary.mask)

    def allowed(self, written: Sequence[int]) -> Ids:
        return self._words


class Trie:
    """The answer is one of a list. What may follow is looked up when it is asked for, then known.

    >>> trie = Trie([[10], [10, 11]])
    >>> trie.allowed([10]).tolist()
    [2, 11]
    """

    def __init__(self, answers: Iterable[Sequence[int]]):
        self._paths = sorted({(*map(int, answer), EOS) for answer in answers})
        self._known: dict[tuple[int, ...], np.ndarray] = {}
        self.longest: int | None = max(map(len, self._paths), default=1)

    def allowed(self, written: Sequence[int]) -> np.ndarray:
        path = tuple(written)
        if path not in self._known:
            first, end = (bisect_left(self._paths, (*path, bound)) for bound in (-1, math.inf))
            ids = {answer[len(path)] for answer in self._paths[first:end]}
            self._known[path] = ONLY_EOS if ids <= {EOS} else np.array(sorted(ids), dtype=np.int64)
        return self._known[path]


class Count:
    """The answer is so many tokens of one range: four locations are a box, a grid of image codes is a picture."""

    def __init__(self, ids: range, count: int):
        self._ids, self._count = slice(ids.start, ids.stop), count
        self.longest: int | None = count + 1

    def allowed(self, written: Sequence[int]) -> Ids:
        return self._ids if len(written) < self._count else ONLY_EOS


class BoxGrammar(Count):
    """The answer is four location tokens and nothing else."""

    def __init__(self, vocabulary: Vocabulary):
        super().__init__(vocabulary.bins, 4)


class ObjectGrammar:
    """The answer is objects: four location tokens and at least one word each. It ends in time, never within a box."""

    def __init__(self, vocabulary: Vocabulary, longest: int):
        self.longest: int | None = longest
        words = np.arange(len(SPECIALS), vocabulary.mask)
        self._bins, self._words = vocabulary.bins, slice(len(SPECIALS), vocabulary.mask)
        self._words_or_end = np.append(words, EOS)
        self._anything = np.concatenate([words, [EOS], np.array(vocabulary.bins)])

    def allowed(self, written: Sequence[int]) -> Ids:
        assert self.longest is not None
        room = self.longest - 1 - len(written)
        box = next((place for place, token in enumerate(reversed(written)) if token not in self._bins), len(written))
        if not written or 0 < box < 4:
            return slice(self._bins.start, self._bins.stop)
        if box:
            return self._words
        if room <= 0:
            return ONLY_EOS
        return self._anything if room >= 5 else self._words_or_end


def keep(logits: Tensor, allowed: Sequence[Ids | None], columns: np.ndarray | None = None) -> None:
    """Strike out what may not follow: logits float[N, V] are changed in place; None allows everything.

    `columns`, where given, says whose logits these are: ids in rising order.
    """
    first = allowed[0]
    if columns is None and isinstance(first, slice) and all(isinstance(ids, slice) and ids == first for ids in allowed):
        logits[:, : first.start], logits[:, first.stop :] = NEVER, NEVER  # all alike, which is the rule: at once
        return
    hidden = np.ones(tuple(logits.shape), bool)
    for row, ids in zip(hidden, allowed):
        if ids is None:
            row[:] = False
        elif columns is None:
            row[ids] = False
        elif isinstance(ids, slice):
            row[slice(*np.searchsorted(columns, (ids.start, ids.stop)))] = False
        else:
            row[np.searchsorted(columns, ids)] = False
    logits.masked_fill_(torch.from_numpy(hidden).to(logits.device), NEVER)


def together(allowed: Sequence[Ids | None], size: int) -> np.ndarray | None:
    """All ids that anyone may write and the special ones, in rising order; so the special ones' columns are their ids.

    None where that is much of the vocabulary of `size`: then taking it out costs more than it saves.
    """
    distinct = {id(ids): ids for ids in allowed}.values()
    few = size // 8
    if any(ids is None or (ids.stop - ids.start if isinstance(ids, slice) else len(ids)) > few for ids in distinct):
        return None
    arrays = [np.arange(ids.start, ids.stop) if isinstance(ids, slice) else ids for ids in distinct if ids is not None]
    found = np.unique(np.concatenate([np.arange(len(SPECIALS)), *arrays]))
    return found if len(found) <= few else None


# --- rules ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Now:
    """Where the search is."""

    step: int
    rows: list[int]
    """The row of each of N beams."""
    written: list[list[int]]
    """What each has written after the start."""


Rule = Callable[[Tensor, Now], None]
"""Changes log-probabilities float[N, V] in place."""


def no_end_before(length: int) -> Rule:
    def rule(log_p: Tensor, now: Now) -> None:
        if now.step < length:
            log_p[:, EOS] = NEVER

    return rule


def begin_with(prefixes: Sequence[Sequence[int]], longest: int, *, strictly: bool) -> Rule:
    """Each row's answer begins with its prefix. Unless `strictly`, other tokens stay possible, a little less likely (so it was published)."""

    def rule(log_p: Tensor, now: Now) -> None:
        for row in dict.fromkeys(now.rows) if now.step < longest else ():
            if now.step < len(prefixes[row]):
                beams = slice(first := now.rows.index(row), first + now.rows.count(row))
                forced = log_p[beams, prefixes[row][now.step]].clone()
                log_p[beams] = NEVER if strictly else forced.min() - 1
                log_p[beams, prefixes[row][now.step]] = forced

    return rule


def never_padding(log_p: Tensor, now: Now) -> None:
    log_p.nan_to_num_(nan=NEVER, neginf=NEVER)
    log_p[:, PAD] = NEVER


def unknown_costs(penalty: float) -> Rule:
    def rule(log_p: Tensor, now: Now) -> None:
        log_p[:, UNK] -= penalty

    return rule


def end_at(length: int) -> Rule:
    def rule(log_p: Tensor, now: Now) -> None:
        if now.step >= length:
            ending = log_p[:, EOS].clone()
            log_p.fill_(NEVER)
            log_p[:, EOS] = ending

    return rule


def no_repeats(n: int) -> Rule:
    """No n tokens in a row come twice, the start counted as one."""

    def rule(log_p: Tensor, now: Now) -> None:
        if now.step + 1 < n:
            return
        for beam, written in enumerate(now.written):
            ids = [BOS, *written]
            tail = ids[len(ids) - n + 1 :]
            log_p[beam, [ids[at + n - 1] for at in range(len(ids) - n + 1) if ids[at : at + n - 1] == tail]] = NEVER

    return rule
