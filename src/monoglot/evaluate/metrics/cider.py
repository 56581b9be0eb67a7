"""cider_d, cider: how like the references a caption is, counting the n-grams that few pictures share.

cider    cosine of the TF-IDF vectors of the n-grams, mean over n = 1 .. 4 and over references, times 10
cider_d  the same with counts clipped to the reference's and a Gaussian penalty on the difference of lengths; this is
         what the COCO caption tool reports as "CIDEr"

Document frequencies come from the references of the set that is scored, so a single item scores 0 and a small set is
not comparable with a large one. Plain CIDEr's stemming is left out.
"""

from __future__ import annotations

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


def cider(predictions: list[list[str]], references: list[list[list[str]]], *, clip: bool = True) -> np.ndarray:
    """CIDEr-D (CIDEr when not `clip`) of N token lists against their references: float64[N] in [0, 10].

    >>> said, other = "a red bus".split(), "two dogs in grass".split()
    >>> cider([said, other], [[said], [other]]).round(6).tolist()
    [7.5, 10.0]
    """
    flat = flatten(predictions, references)
    items, owner, total = flat.items, flat.owner, len(flat.texts)
    similarity = np.zeros(total)  # of each reference with the prediction of its item, summed over n
    for grams in count_ngrams(flat.texts, LONGEST):
        item, is_reference = owner[grams.text], grams.text >= items
        key = item * grams.size + grams.gram
        pictures = distinct(key[is_reference]) % max(grams.size, 1)
        shared_by = np.bincount(pictures, minlength=grams.size)  # how many pictures have each n-gram
        rarity = np.log(items) - np.log(np.maximum(shared_by, 1))
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
        length = np.maximum(flat.lengths - 1, 0)
        similarity *= np.exp(-((length - length[owner]) ** 2) / (2 * SIGMA**2))
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
