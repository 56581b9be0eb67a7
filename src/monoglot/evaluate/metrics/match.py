"""exact_match, accuracy, vqa_accuracy: answers that are right or wrong."""

from __future__ import annotations

import re

import numpy as np

from monoglot.evaluate.intervals import averaged
from monoglot.evaluate.metrics.base import METRICS, Metric
from monoglot.evaluate.metrics.text import folded, normalised


def exact(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
    """1 for an answer that equals any of its references once both are `normalised`."""
    return averaged([normalised(said) in map(normalised, targets) for said, targets in zip(predictions, references)])


def vqa(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
    """The VQA score of each answer; any match counts fully unless ten people answered (see `VQA_ACCURACY`)."""
    scores = []
    for said, targets in zip(predictions, references):
        answer = vqa_normalised(said)
        matches = sum(answer == vqa_normalised(target) for target in targets)
        scores.append(min(1.0, 0.3 * matches) if len(targets) == 10 else float(matches > 0))
    return averaged(scores)


def vqa_normalised(text: str) -> str:
    """An answer as the official VQA evaluation compares it.

    Punctuation goes (it joins what it touches if a space or a digit group is near, else it parts it), articles go,
    number words up to ten become digits, contractions get their apostrophe back. An answer of nothing but articles
    keeps them (the official tool empties it), so that no answer is not the answer "A".

    >>> vqa_normalised("The two dogs, dont!"), vqa_normalised("black/white"), vqa_normalised("1,000")
    ("2 dogs don't", 'black white', '1000')
    """
    text = " ".join(folded(text).split())
    grouped = re.search(r"\d,\d", text) is not None
    bare = text
    for mark in _PUNCTUATION:
        if mark in text:
            bare = bare.replace(mark, "" if grouped or mark + " " in text or " " + mark in text else " ")
    bare = re.sub(r"\.(?!\d)", "", bare)
    words = [_NUMBERS.get(word, word) for word in bare.split()]
    kept = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_CONTRACTIONS.get(word, word) for word in kept)


def _missing_one_apostrophe(words: str) -> dict[str, str]:
    """Each contraction under every spelling that lacks one of its apostrophes."""
    return {word[:i] + word[i + 1 :]: word for word in words.split() for i, char in enumerate(word) if char == "'"}


_ARTICLES = frozenset({"a", "an", "the"})
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
# Which contractions are mended, and "she's" and the like not, is the official table's choice.
_CONTRACTIONS = _missing_one_apostrophe("""
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't
    not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll
    somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's
    won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""")

EXACT_MATCH = METRICS.add("exact_match", Metric("exact_match", exact))
ACCURACY = METRICS.add("accuracy", Metric("accuracy", exact, source="exact_match under the name that classes go by"))
VQA_ACCURACY = METRICS.add(
    "vqa_accuracy",
    Metric(
        "vqa_accuracy",
        vqa,
        source="VQA v2: min(1, matches / 3) averaged over the ten ways to leave one of ten people out, which is "
        "min(1, 0.3 matches): 0, 0.3, 0.6, 0.9, 1",
    ),
)
