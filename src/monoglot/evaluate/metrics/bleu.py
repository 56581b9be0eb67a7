"""bleu_1 .. bleu_4: which share of a caption's n-grams (lengths 1 .. n) some reference has, over the whole set.

Terms of an item, the same for all four: 4 counts of matched n-grams, 4 counts of n-grams, own length, length of the closest
reference.
Counts are added over the set before anything is divided, as in the COCO caption tool; nothing is smoothed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from monoglot.evaluate.intervals import Statistic
from monoglot.evaluate.metrics.base import METRICS, Metric
from monoglot.evaluate.metrics.ngrams import count_ngrams, find, flatten
from monoglot.evaluate.metrics.text import caption_tokens

TINY, SMALL = 1e-15, 1e-9
"""Added above and below each fraction so that 0 / 0 is defined; the COCO tool's constants."""


LONGEST = 4


def matched(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
    """Terms float64[N, 10] of BLEU of every order; see `ngram_matches`."""
    return _matched(tuple(predictions), tuple(references), tuple(langs))


@lru_cache(maxsize=2)  # the four orders are asked one after the other
def _matched(
    predictions: tuple[str, ...], references: tuple[tuple[str, ...], ...], langs: tuple[str, ...]
) -> np.ndarray:
    return ngram_matches(
        [caption_tokens(said, lang) for said, lang in zip(predictions, langs)],
        [[caption_tokens(target, lang) for target in targets] for targets, lang in zip(references, langs)],
        LONGEST,
    )


def ngram_matches(predictions: list[list[str]], references: list[list[list[str]]], order: int) -> np.ndarray:
    """The terms from token lists: [matches of length 1 .. order, n-grams of length 1 .. order, length, closest]."""
    flat = flatten(predictions, references)
    matches = np.zeros((flat.items, order))
    for length, grams in enumerate(count_ngrams(flat.texts, order)):
        key = flat.owner[grams.text] * grams.size + grams.gram
        own = grams.text < flat.items
        found, place = find(key[own], key[~own])
        best = np.zeros(own.sum(), dtype=np.int64)  # for each own n-gram, the most that one reference has of it
        np.maximum.at(best, place, grams.count[~own][found])
        np.add.at(matches[:, length], grams.text[own], np.minimum(grams.count[own], best))

    said, expected = flat.lengths[: flat.items], flat.lengths[flat.items :]
    possible = np.maximum(said[:, None] - np.arange(order), 0)
    off = np.abs(expected - said[flat.owner[flat.items :]])
    nearest = np.lexsort((expected, off, flat.owner[flat.items :]))  # by item; the shorter of two that are as near
    first = np.cumsum([0] + [len(texts) for texts in references[:-1]])
    closest = expected[nearest[first]]
    return np.column_stack([matches, possible, said, closest])


def bleu(order: int) -> Statistic:
    """Geometric mean of the n-gram precisions, times exp(1 - reference length / length) when too short."""

    def value(totals: np.ndarray) -> np.ndarray:
        precisions = (totals[..., :order] + TINY) / (totals[..., LONGEST : LONGEST + order] + SMALL)
        relative = (totals[..., 2 * LONGEST] + TINY) / (totals[..., 2 * LONGEST + 1] + SMALL)
        return np.prod(precisions, axis=-1) ** (1.0 / order) * np.exp(np.minimum(0.0, 1.0 - 1.0 / relative))

    return value


for _order in (1, 2, 3, 4):
    METRICS.add(
        f"bleu_{_order}",
        Metric(
            f"bleu_{_order}",
            matched,
            bleu(_order),
            source="Papineni et al. 2002, with the COCO caption tool's closest reference length (the shorter on a tie)",
        ),
    )
