"""What the decoder may write next: one of given answers (a trie), or one box (four location tokens).

A constraint is asked with the tokens a row has written so far (without bos) and answers with the ids that may follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from monoglot.text.vocabulary import EOS, Vocabulary


class Constraint(Protocol):
    longest: int
    """How many tokens the longest allowed answer has, eos included."""

    def allowed(self, written: Sequence[int]) -> np.ndarray:
        """int64 ids that may follow; never empty."""


class Trie:
    """The answer is one of a list.

    >>> trie = Trie([[10], [10, 11]])
    >>> trie.allowed([10]).tolist()
    [2, 11]
    """

    def __init__(self, answers: Iterable[Sequence[int]]):
        self._next: dict[tuple[int, ...], set[int]] = {}
        self.longest = 1
        for answer in answers:
            path = (*map(int, answer), EOS)
            self.longest = max(self.longest, len(path))
            for end in range(len(path)):
                self._next.setdefault(path[:end], set()).add(path[end])
        self._arrays = {path: np.array(sorted(ids), dtype=np.int64) for path, ids in self._next.items()}
        self._only_eos = np.array([EOS], dtype=np.int64)

    def allowed(self, written: Sequence[int]) -> np.ndarray:
        return self._arrays.get(tuple(written), self._only_eos)


class BoxGrammar:
    """The answer is four location tokens and nothing else."""

    longest = 5

    def __init__(self, vocabulary: Vocabulary):
        self._bins = np.array(vocabulary.bins, dtype=np.int64)
        self._only_eos = np.array([EOS], dtype=np.int64)

    def allowed(self, written: Sequence[int]) -> np.ndarray:
        return self._bins if len(written) < 4 else self._only_eos
