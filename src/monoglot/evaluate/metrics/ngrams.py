"""All n-grams of many token lists, counted at once in numpy: what BLEU and CIDEr stand on.

Letters: T texts, E entries (a text and an n-gram that it holds), G distinct n-grams.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np


@dataclass(frozen=True)
class Grams:
    """The n-grams of one length. Entry e says that text `text[e]` holds n-gram `gram[e]` `count[e]` times."""

    text: np.ndarray
    """int64[E], ascending"""
    gram: np.ndarray
    """int64[E] in 0 .. size; ascending within a text"""
    count: np.ndarray
    """int64[E]"""
    first: np.ndarray
    """int64[G]: one place, among the tokens of all texts, where each n-gram begins"""

    @property
    def size(self) -> int:
        """G"""
        return len(self.first)


def count_ngrams(texts: Sequence[Sequence[str]], longest: int) -> Iterator[Grams]:
    """Count the n-grams of length 1, 2, ... `longest` of T token lists. Equal n-grams share a number across texts.

    >>> [grams.count.tolist() for grams in count_ngrams([["a", "b", "a"]], 2)]
    [[2, 1], [1, 1]]
    """
    written = list(chain.from_iterable(texts))
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__  # a token that is new gets the next number
    tokens = np.fromiter(map(numbers.__getitem__, written), dtype=np.int64, count=len(written))
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    text_of = np.repeat(np.arange(len(texts)), lengths)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(tokens))  # tokens from here to the end of its text
    gram = tokens  # gram[i]: number of the n-gram that starts at token i, where left[i] >= n
    _, first = np.unique(tokens, return_index=True)
    for length in range(1, longest + 1):
        starts = np.flatnonzero(left >= length)
        if length > 1:
            pairs = gram[starts] * len(numbers) + tokens[starts + length - 1]
            _, places, inverse = np.unique(pairs, return_index=True, return_inverse=True)
            first, gram = starts[places], np.zeros_like(tokens)
            gram[starts] = inverse
        size = max(len(first), 1)
        keys, count = np.unique(text_of[starts] * size + gram[starts], return_counts=True)
        yield Grams(keys // size, keys % size, count, first)


@dataclass(frozen=True)
class Flat:
    """Predictions and references in one list of token lists, so that n-grams are numbered together."""

    texts: list[list[str]]
    """N predictions, then all references"""
    owner: np.ndarray
    """int64[T]: which item each text belongs to"""
    items: int
    """N"""

    @property
    def lengths(self) -> np.ndarray:
        """int64[T]: tokens of each text."""
        return np.fromiter(map(len, self.texts), dtype=np.int64, count=len(self.texts))


def flatten(predictions: list[list[str]], references: list[list[list[str]]]) -> Flat:
    """N token lists and N lists of token lists -> `Flat`."""
    items = len(predictions)
    owner = np.concatenate([np.arange(items), np.repeat(np.arange(items), [len(texts) for texts in references])])
    return Flat(predictions + [text for texts in references for text in texts], owner, items)


def find(sorted_keys: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each of `keys` stands in ascending unique `sorted_keys`: (bool[E] found, int64[found] places)."""
    places = np.searchsorted(sorted_keys, keys)
    found = places < len(sorted_keys)
    found[found] = sorted_keys[places[found]] == keys[found]
    return found, places[found]


def distinct(keys: np.ndarray) -> np.ndarray:
    """The different ones of int64[E], ascending; by sorting, which is faster here than numpy's table of hashes."""
    ordered = np.sort(keys)
    return ordered[np.diff(ordered, prepend=-1) > 0]
