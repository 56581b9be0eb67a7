"""cider_d, cider: how like the references a caption is, counting the n-grams that few pictures share.

cider    cosine of the TF-IDF vectors of the n-grams, mean over n = 1 .. 4 and over references, times 10
cider_d  the same with counts clipped to the reference's and a Gaussian penalty on the difference of lengths; this is
         what the COCO caption tool reports as "CIDEr"

Document frequencies come from the references of the set that is scored, so a single item scores 0 and a small set is
not comparable with a large one; a `Corpus` brings those of another set. Plain CIDEr's stemming is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from monoglot.evaluate.intervals import averaged
from monoglot.evaluate.metrics.base import METRICS, Metric, Terms
from monoglot.evaluate.metrics.ngrams import count_ngrams, distinct, find, flatten
from monoglot.evaluate.metrics.text import caption_tokens

LONGEST = 4
SIGMA = 6.0
"""Standard deviation of the length penalty, in tokens."""


def consensus(clip: bool) -> Terms:
    """Terms of the mean over items of CIDEr-D (`clip`) or CIDEr."""

    def terms(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
        said = [caption_tokens(text, lang) for text, lang in zip(predictions, langs)]
        expected = [[caption_tokens(text, lang) for text in texts] for texts, lang in zip(references, langs)]
        return averaged(cider(said, expected, clip=clip))

    return terms


class Corpus:
    """In how many items' references each n-gram occurs: what CIDEr needs to know of a set that it does not score."""

    def __init__(self, references: Iterable[list[list[str]]]):
        self.items, self._shared_by = 0, Counter[tuple[str, ...]]()
        for texts in references:
            self.items += 1
            self._shared_by.update(
                {
                    tuple(text[at : at + n])
                    for text in texts
                    for n in range(1, LONGEST + 1)
                    for at in range(len(text) - n + 1)
                }
            )

    def shared_by(self, tokens: list[str], starts: np.ndarray, length: int) -> np.ndarray:
        """int64[G]: items that know the n-gram of `length` tokens that begins at each of `starts`."""
        return np.array([self._shared_by[tuple(tokens[at : at + length])] for at in starts.tolist()], dtype=np.int64)


def cider(
    predictions: list[list[str]], references: list[list[list[str]]], *, clip: bool = True, corpus: Corpus | None = None
) -> np.ndarray:
    """CIDEr-D (CIDEr when not `clip`) of N token lists against their references: float64[N] in [0, 10].

    How rare an n-gram is, the `corpus` says, or else the references themselves.

    >>> said, other = "a red bus".split(), "two dogs in grass".split()
    >>> cider([said, other], [[said], [other]]).round(6).tolist()
    [7.5, 10.0]
    """
    flat = flatten(predictions, references)
    items, owner, total = flat.items, flat.owner, len(flat.texts)
    similarity = np.zeros(total)  # of each reference with the prediction of its item, summed over n
    tokens = [token for text in flat.texts for token in text]
    for length, grams in enumerate(count_ngrams(flat.texts, LONGEST), start=1):
        item, is_reference = owner[grams.text], grams.text >= items
        key = item * grams.size + grams.gram
        if corpus is None:  # in pictures
            shared_by = np.bincount(distinct(key[is_reference]) % max(grams.size, 1), minlength=grams.size)
        else:
            shared_by = corpus.shared_by(tokens, grams.first, length)
        rarity = np.log(items if corpus is None else corpus.items) - np.log(np.maximum(shared_by, 1))
        weight = grams.count * rarity[grams.gram]
        norm = np.sqrt(np.bincount(grams.text, weight**2, minlength=total))

        found, place = find(key[~is_reference], key[is_reference])
        theirs, own = weight[is_reference][found], weight[~is_reference][place]
        product = (np.minimum(own, theirs) if clip else own) * theirs
        dot = np.bincount(grams.text[is_reference][found], product, minlength=total)
        norms = norm * norm[owner]  # owner < N is also the place of the item's prediction
        similarity += np.divide(dot, norms, out=np.zeros(total), where=norms > 0)

    if clip:
        # The tool measures length in bigrams: one less than the tokens, but 0 for an empty text too.
        bigrams = np.maximum(flat.lengths - 1, 0)
        similarity *= np.exp(-((bigrams - bigrams[owner]) ** 2) / (2 * SIGMA**2))
    of_items = np.bincount(owner[items:], similarity[items:], minlength=items) / np.bincount(
        owner[items:], minlength=items
    )
    return 10.0 * of_items / LONGEST


CIDER_D = METRICS.add(
    "cider_d",
    Metric("cider_d", consensus(clip=True), unit="0 to 10", source="Vedantam et al. 2015 (arXiv 1411.5726), CIDEr-D"),
)
CIDER = METRICS.add(
    "cider",
    Metric("cider", consensus(clip=False), unit="0 to 10", source="Vedantam et al. 2015 (arXiv 1411.5726), unstemmed"),
)
