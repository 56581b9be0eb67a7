"""English words without their endings: "running", "runs" -> "run". What METEOR's second module compares.

Source: M. F. Porter, "The English (Porter2) stemming algorithm", snowballstem.org, in its form of 2015. Step names are his.
Regions are suffixes of a word: R1 begins after the first consonant that follows a vowel, R2 so within R1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_WHOLE = {
    "skis": "ski", "skies": "sky", "dying": "die", "lying": "lie", "tying": "tie", "idly": "idl", "gently": "gentl",
    "ugly": "ugli", "early": "earli", "only": "onli", "singly": "singl",
    **{word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")},
}  # fmt: skip
_FINISHED = frozenset({"inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed"})
"""Words that stay as they are once their plural is gone."""

_FIRST_REGION = re.compile(r"(?:gener|commun|arsen)|.*?[aeiouy][^aeiouy]")
_REGION = re.compile(r".*?[aeiouy][^aeiouy]")
_SHORT_END = re.compile(r"(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])$")
_VOWEL = re.compile(r"[aeiouy]")
_DOUBLE = re.compile(r"(?:bb|dd|ff|gg|mm|nn|pp|rr|tt)$")

_STEP_2 = {
    "tional": "tion", "enci": "ence", "anci": "ance", "abli": "able", "entli": "ent", "izer": "ize", "ization": "ize",
    "ational": "ate", "ation": "ate", "ator": "ate", "alism": "al", "aliti": "al", "alli": "al", "fulness": "ful",
    "ousli": "ous", "ousness": "ous", "iveness": "ive", "iviti": "ive", "biliti": "ble", "bli": "ble", "ogi": "og",
    "fulli": "ful", "lessli": "less", "li": "",
}  # fmt: skip
_STEP_3 = {
    "tional": "tion", "ational": "ate", "alize": "al", "icate": "ic", "iciti": "ic", "ical": "ic", "ful": "", "ness": "",
    "ative": "",
}  # fmt: skip
_STEP_4 = (
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ism", "ate", "iti", "ous", "ive",
    "ize", "ion",
)  # fmt: skip


def _ending(endings: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of the endings that a word has."""
    return re.compile("(?:" + "|".join(sorted(endings, key=len, reverse=True)) + ")$")


_ENDING_2, _ENDING_3, _ENDING_4 = _ending(_STEP_2), _ending(_STEP_3), _ending(_STEP_4)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The stem of a lower-case English word; it need not be a word itself.

    >>> [stem(word) for word in ("running", "runs", "ponies", "relational", "happily", "sky")]
    ['run', 'run', 'poni', 'relat', 'happili', 'sky']
    """
    if word in _WHOLE:
        return _WHOLE[word]
    if len(word) <= 2:
        return word
    word = _mark_consonant_y(word.removeprefix("'"))
    match = _FIRST_REGION.match(word)
    r1 = match.end() if match else len(word)
    match = _REGION.match(word, r1)
    r2 = match.end() if match else len(word)

    word = _plural(re.sub(r"'(?:s'?)?$", "", word))
    if word not in _FINISHED:
        word = _past_and_ing(word, r1)
        if len(word) > 2 and word[-1] in "yY" and word[-2] not in "aeiouy":
            word = word[:-1] + "i"
        word = _suffixes(word, r1, r2)
    return word.replace("Y", "y")


def _mark_consonant_y(word: str) -> str:
    """Y for each y that is a consonant: at the start, or after a vowel."""
    word = re.sub(r"^y", "Y", word)
    return re.sub(r"(?<=[aeiouy])y", "Y", word)


def _plural(word: str) -> str:
    """Step 1a."""
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _VOWEL.search(word[:-2]):
        return word[:-1]
    return word


def _past_and_ing(word: str, r1: int) -> str:
    """Step 1b."""
    if match := re.search(r"eed(?:ly)?$", word):
        return word[: match.start()] + "ee" if match.start() >= r1 else word
    match = re.search(r"(?:ed|ing)(?:ly)?$", word)
    if not match or not _VOWEL.search(word[: match.start()]):
        return word
    word = word[: match.start()]
    if word.endswith(("at", "bl", "iz")):
        return word + "e"
    if _DOUBLE.search(word):
        return word[:-1]
    return word + "e" if len(word) == r1 and _SHORT_END.search(word) else word


def _suffixes(word: str, r1: int, r2: int) -> str:
    """Steps 2 to 5."""
    if (match := _ENDING_2.search(word)) and match.start() >= r1:
        end, before = match[0], word[: match.start()]
        allowed = {"ogi": before.endswith("l"), "li": before.endswith(tuple("cdeghkmnrt"))}.get(end, True)
        word = before + _STEP_2[end] if allowed else word
    if (match := _ENDING_3.search(word)) and match.start() >= (r2 if match[0] == "ative" else r1):
        word = word[: match.start()] + _STEP_3[match[0]]
    if (match := _ENDING_4.search(word)) and match.start() >= r2:
        before = word[: match.start()]
        word = before if match[0] != "ion" or before.endswith(("s", "t")) else word
    last = len(word) - 1
    if word.endswith("e") and (last >= r2 or (last >= r1 and not _SHORT_END.search(word[:-1]))):
        return word[:-1]
    return word[:-1] if word.endswith("ll") and last >= r2 else word
