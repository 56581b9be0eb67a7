"""meteor: words of a caption that some reference has too (as they are, by stem, by synonym, by paraphrase), in few pieces.

    tokens -> possible matches of words and phrases -> the best alignment (beam search) -> weighed precision and recall
    -> mean, weighed towards recall, less a penalty for the number of pieces; of the reference that scores highest

METEOR 1.5 for English with its parameters for ranking, as the COCO caption tool runs it. The lists of function words,
synonyms (WordNet 3) and paraphrases are not ours to ship: they are read from the jar in the package pycocoevalcap, as
data; no Java runs. Without that package the metric says what to install.

Source: Denkowski and Lavie, "Meteor Universal", WMT 2014; equal to its program, the order of ties included.
"""

from __future__ import annotations

import gzip
import importlib.util
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from monoglot.errors import InputError
from monoglot.evaluate.metrics.base import METRICS, Metric
from monoglot.evaluate.metrics.stem import stem
from monoglot.evaluate.metrics.text import caption_tokens

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.20, 0.60, 0.75
"""Recall's share in the mean; exponent and height of the penalty; weight of content words against function words."""
EXACT, STEM, SYNONYM, PARAPHRASE = range(4)
CREDIT = (1.0, 0.6, 0.8, 0.6)
"""What a word matched in each way counts in precision and recall."""
CREDIT_IN_SEARCH = (1.0, 0.5, 0.5, 0.5)
BEAM = 40
LONGEST_PHRASE = 7
"""Words of the longest paraphrase in the list."""

Phrases = dict[str, list[str]]
"""Phrase -> its paraphrases, in the list's order."""


# --- data -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Lists:
    """METEOR's own lists for English, from its jar and the file beside it."""

    jar: Path

    def lines(self, member: str) -> list[str]:
        with zipfile.ZipFile(self.jar) as archive:
            return archive.read(member).decode("utf-8").splitlines()

    @cached_property
    def function_words(self) -> frozenset[str]:
        return frozenset(self.lines("function/english.words"))

    @cached_property
    def shortened(self) -> dict[str, bool]:
        """Words that keep their point ("etc."); True for those that do so only before a number ("no. 5")."""
        entries = [line.split() for line in self.lines("nonbreaking/english.prefixes")]
        return {entry[0]: "#NUMERIC_ONLY#" in entry[1:2] for entry in entries if entry and entry[0][0] != "#"}

    @cached_property
    def synsets(self) -> dict[str, str]:
        """Word -> the numbers of its WordNet synsets, as written."""
        lines = self.lines("synonym/english.synsets")
        return dict(zip(lines[::2], lines[1::2]))

    @cached_property
    def irregular(self) -> dict[str, list[str]]:
        """Form -> its base forms ("mice": mouse)."""
        bases: dict[str, list[str]] = defaultdict(list)
        lines = self.lines("synonym/english.exceptions")
        for base, forms in zip(lines[::2], lines[1::2]):
            for form in forms.split():
                bases[form].append(base)
        return dict(bases)

    def paraphrases(self, first: Iterable[str], second: Iterable[str]) -> Phrases:
        """The part of the list that says a phrase of one set for a phrase of the other.

        The list has five million pairs, so it is read through (some seconds) and only what can match is kept.
        """
        a, b = ({phrase.encode() for phrase in phrases} for phrases in (first, second))
        either = a | b
        found: Phrases = defaultdict(list)
        for block in self._paraphrase_blocks():  # probability, phrase, paraphrase, and so on
            phrases = block[1::3]
            for phrase, other in compress(zip(phrases, block[2::3]), map(either.__contains__, phrases)):
                if (phrase in a and other in b) or (phrase in b and other in a):
                    found[phrase.decode()].append(other.decode())
        return dict(found)

    def _paraphrase_blocks(self) -> Iterator[list[bytes]]:
        """The lines of the list, some hundred thousand at a time, a multiple of three."""
        rest = b""
        with gzip.open(self.jar.parent / "data" / "paraphrase-en.gz") as file:
            while block := file.read(1 << 23):
                lines = (rest + block).split(b"\n")
                whole = (len(lines) - 1) // 3 * 3
                yield lines[:whole]
                rest = b"\n".join(lines[whole:])
        if rest:
            yield rest.split(b"\n")


@lru_cache(maxsize=1)
def lists() -> Lists:
    """Raises InputError if the package that carries METEOR's lists is not installed."""
    spec = importlib.util.find_spec("pycocoevalcap")  # looks for it, imports nothing
    for folder in (spec.submodule_search_locations or []) if spec else []:
        jar = Path(folder) / "meteor" / "meteor-1.5.jar"
        if jar.is_file():
            return Lists(jar)
    raise InputError("meteor: its word lists are not here; pip install pycocoevalcap==1.2 (read as data, no Java runs)")


# --- words ------------------------------------------------------------------------------------------------------------

_LETTER = "A-Za-zŠŽšžŸÀ-ÖØ-öø-žЀ-ӿԀ-ԧꙀ-ꙮ꙾-ꚗᴀ-ᵿ"
_SIGN = re.compile(f"([^0-9{_LETTER}\\s.'`,\\-‘’])")
_COMMA = re.compile(r"(?<!\d),|,(?!\d)")
_DASH = re.compile(f"([0-9{_LETTER}.])-([0-9{_LETTER}])")
_APOSTROPHES = [
    (re.compile(f"([^{_LETTER}])'([^{_LETTER}])"), r"\1 ' \2"),
    (re.compile(f"([^0-9{_LETTER}])'([{_LETTER}])"), r"\1 ' \2"),
    (re.compile(f"([{_LETTER}])'([^{_LETTER}])"), r"\1 ' \2"),
    (re.compile(f"([{_LETTER}])'([{_LETTER}])"), r"\1 '\2"),
    (re.compile(r"(\d)'(s)"), r"\1 '\2"),
]


def meteor_words(tokens: list[str]) -> list[str]:
    """Caption tokens as METEOR's own normaliser splits them again: hyphens part, "p.m." is "pm".

    Tokens are lower case and hold no quotation marks, and no more than one point in a row.
    """
    text = _SIGN.sub(r" \1 ", f" {' '.join(tokens)} ")
    text = _DASH.sub(r"\1 \2", _COMMA.sub(" , ", text))
    for pattern, parted in _APOSTROPHES:
        text = pattern.sub(parted, text)
    words: list[str] = []
    split = text.split()
    for word, following in zip(split, [*split[1:], ""]):
        words += _without_point(word, following) if len(word) > 1 and word.endswith(".") else [word]
    return words


def _without_point(word: str, following: str) -> list[str]:
    bare = word[:-1]
    if "." in bare and re.search(f"[{_LETTER}]", bare):
        return [word.replace(".", "")]
    numeric_only = lists().shortened.get(bare)
    kept = numeric_only is False or re.match("[a-z]", following) or (numeric_only and re.match("[0-9]", following))
    return [word] if kept else [bare, "."]


@lru_cache(maxsize=100_000)
def synsets(word: str) -> frozenset[str]:
    """Numbers of the WordNet synsets of a word and of its base form."""
    known, bases = lists().synsets, lists().irregular.get(word)
    if bases is None:
        bases = [_base(word)]
    return frozenset(number for form in [word, *bases] for number in known.get(form, "").split())


_ENDINGS = {
    "s": [""], "ses": ["s"], "xes": ["x"], "zes": ["z"], "ches": ["ch"], "shes": ["sh"], "men": ["man"], "ies": ["y"],
    "es": ["e", ""], "ed": ["e", ""], "ing": ["e", ""], "er": ["", "e"], "est": ["", "e"],
}  # fmt: skip
"""Endings of nouns, verbs and adjectives -> what may stand there instead."""


def _base(word: str) -> str:
    """WordNet's rule: the first change of ending that leaves a word it knows."""
    if word.endswith("ss") or len(word) <= 2:
        return word
    fitting = ((end, others) for end, others in _ENDINGS.items() if word.endswith(end))
    forms = (word.removesuffix(end) + other for end, others in fitting for other in others)
    return next((form for form in forms if form in lists().synsets), "")


# --- alignment --------------------------------------------------------------------------------------------------------


class Match(NamedTuple):
    """Words of the reference and words of the answer that may stand for each other."""

    start: int
    length: int
    said_start: int
    said_length: int
    module: int
    words: int
    """Bits of the reference's words."""
    said_words: int
    weight: int
    """What it adds in the search: whole numbers only, so that a single word that is not the same adds nothing."""


def match(start: int, length: int, said_start: int, said_length: int, module: int) -> Match:
    credit = CREDIT_IN_SEARCH[module]
    words, said_words = ((1 << length) - 1) << start, ((1 << said_length) - 1) << said_start
    weight = int(length * credit) + int(said_length * credit)
    return Match(start, length, said_start, said_length, module, words, said_words, weight)


def possible_matches(said: list[str], target: list[str], phrases: Phrases) -> list[list[Match]]:
    """For each word of the reference, the matches that begin there: same words, stems, synonyms, then paraphrases."""
    found: list[list[Match]] = [[] for _ in target]
    for j, word in enumerate(target):
        found[j] += [match(j, 1, i, 1, EXACT) for i, other in enumerate(said) if other == word]
    if said == target:
        return found
    stems, sets = [stem(word) for word in said], [synsets(word) for word in said]
    for j, word in enumerate(target):
        others = [i for i, other in enumerate(said) if other != word]
        root, meanings = stem(word), synsets(word)
        found[j] += [match(j, 1, i, 1, STEM) for i in others if stems[i] == root]
        found[j] += [match(j, 1, i, 1, SYNONYM) for i in others if not meanings.isdisjoint(sets[i])]
    said_places, target_places = places(said), places(target)
    for j, length, i, said_length in paraphrased(target, said_places, phrases):
        found[j].append(match(j, length, i, said_length, PARAPHRASE))
    for i, said_length, j, length in paraphrased(said, target_places, phrases):
        found[j].append(match(j, length, i, said_length, PARAPHRASE))
    return found


def spans(words: list[str]) -> Iterator[tuple[int, int, str]]:
    """(start, length, text) of each run of words that may be a phrase."""
    for start in range(len(words)):
        for length in range(1, min(LONGEST_PHRASE, len(words) - start) + 1):
            yield start, length, " ".join(words[start : start + length])


def places(words: list[str]) -> dict[str, list[tuple[int, int]]]:
    """Phrase -> where it stands: (start, length)."""
    found: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for start, length, phrase in spans(words):
        found[phrase].append((start, length))
    return found


def paraphrased(
    words: list[str], others: dict[str, list[tuple[int, int]]], phrases: Phrases
) -> Iterator[tuple[int, int, int, int]]:
    """(start, length) of a phrase and (start, length) of its paraphrase in the other text."""
    for start, length, phrase in spans(words):
        for other in phrases.get(phrase, ()):
            for place in others.get(other, ()):
                yield start, length, *place


def definite(candidates: list[list[Match]], said_length: int) -> dict[int, Match]:
    """Matches of words that nothing else competes for."""
    times, said_times = [0] * len(candidates), [0] * said_length
    for one in (one for matches in candidates for one in matches):
        for j in range(one.start, one.start + one.length):
            times[j] += 1
        for i in range(one.said_start, one.said_start + one.said_length):
            said_times[i] += 1

    def alone(one: Match) -> bool:
        taken = times[one.start : one.start + one.length]
        return {*taken, *said_times[one.said_start : one.said_start + one.said_length]} == {1}

    return {j: matches[0] for j, matches in enumerate(candidates) if len(matches) == 1 and alone(matches[0])}


class Partial(NamedTuple):
    """An alignment of the reference's first words."""

    chosen: tuple[Match, ...]
    used: int
    """Bits of the reference's words that are taken."""
    said_used: int
    weight: int = 0
    chunks: int = 0
    """Pieces that are closed."""
    end: int = -1
    """Where the open piece ends in the answer; -1 when none is open."""
    resume: int = 0
    """The first word of the reference that is not decided."""
    distance: int = 0

    def rank(self) -> tuple[int, int, int]:
        """Most words, then fewest pieces, then least displaced."""
        return -self.weight, self.chunks, self.distance

    def take(self, one: Match, distance: int) -> Partial:
        return Partial(
            (*self.chosen, one),
            self.used | one.words,
            self.said_used | one.said_words,
            self.weight + one.weight,
            self.chunks + (self.end not in (-1, one.said_start)),
            one.said_start + one.said_length,
            one.start + one.length,
            distance,
        )

    def skip(self, distance: int) -> Partial:
        chunks = self.chunks + (self.end != -1)
        return self._replace(chunks=chunks, end=-1, resume=self.resume + 1, distance=distance)


def align(candidates: list[list[Match]], said_length: int) -> Partial:
    """The best alignment that a beam of `BEAM` finds, from the reference's first word to its last."""
    certain = definite(candidates, said_length)
    used = sum(one.words for one in certain.values())
    paths = [Partial((), used, sum(one.said_words for one in certain.values()))]
    for current, matches in enumerate(candidates):
        following: list[Partial] = []
        for path in sorted(paths, key=Partial.rank)[:BEAM]:
            if path.used >> current & 1:
                if current < path.resume:  # inside a phrase
                    following.append(path)
                else:
                    one = certain[current]
                    following.append(path.take(one, path.distance + abs(one.start - one.said_start)))
                continue
            # The program adds a match's distance to the path it leaves, not to the one it makes; ties depend on it.
            distance = path.distance
            for one in matches:
                if not (one.words & path.used or one.said_words & path.said_used):
                    following.append(path.take(one, distance))
                    distance += abs(one.start - one.said_start)
            following.append(path.skip(distance))
        paths = following
    closed = [path._replace(chunks=path.chunks + (path.end != -1)) for path in sorted(paths, key=Partial.rank)[:BEAM]]
    return min(closed, key=Partial.rank)


# --- score ------------------------------------------------------------------------------------------------------------


def counts(said: list[str], target: list[str], phrases: Phrases) -> np.ndarray:
    """Terms float64[6] of an answer and one reference.

    Weighed matches and weighed length of the answer, the same of the reference; pieces (none if the two are the same
    in one piece); words matched, mean of both sides.
    """
    best = align(possible_matches(said, target, phrases), len(said))
    function = lists().function_words

    def weigh(words: list[str]) -> list[float]:
        return [1.0 - DELTA if word in function else DELTA for word in words]

    said_weights, weights = weigh(said), weigh(target)
    said_words = sum(one.said_length for one in best.chosen)
    words = sum(one.length for one in best.chosen)
    whole = best.chunks == 1 and said_words == len(said) and words == len(target)
    return np.array(
        [
            sum(CREDIT[m.module] * sum(said_weights[m.said_start : m.said_start + m.said_length]) for m in best.chosen),
            sum(said_weights),
            sum(CREDIT[m.module] * sum(weights[m.start : m.start + m.length]) for m in best.chosen),
            sum(weights),
            0 if whole else best.chunks,
            (said_words + words) / 2,
        ]
    )


def meteor(totals: np.ndarray) -> np.ndarray:
    """Terms float64[..., 6] -> scores; 0 where nothing matches."""
    said, said_length, found, length, pieces, words = np.moveaxis(totals, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = 1.0 / ((1.0 - ALPHA) * said_length / said + ALPHA * length / found)
        score = mean * (1.0 - GAMMA * (pieces / words) ** BETA)
    return np.maximum(np.nan_to_num(score, nan=0.0), 0.0)


def best_counts(predictions: list[str], references: list[tuple[str, ...]], langs: list[str]) -> np.ndarray:
    """Terms float64[N, 6]: of each item's best reference."""
    for index, lang in enumerate(langs):
        if re.split("[-_]", lang.lower())[0] != "en":
            raise InputError(f"meteor: item {index} is in {lang!r}; its stems, synonyms and paraphrases are English")
    said = [meteor_words(caption_tokens(text)) for text in predictions]
    targets = [[meteor_words(caption_tokens(text)) for text in texts] for texts in references]
    phrases = lists().paraphrases(
        {phrase for words in said for _, _, phrase in spans(words)},
        {phrase for texts in targets for words in texts for _, _, phrase in spans(words)},
    )
    rows = []
    for words, texts in zip(said, targets):
        options = np.stack([counts(words, target, phrases) for target in texts])
        rows.append(options[meteor(options).argmax()])
    return np.stack(rows)


METEOR = METRICS.add(
    "meteor",
    Metric(
        "meteor",
        best_counts,
        meteor,
        source="METEOR 1.5, English, parameters for ranking, with its own lists from the package pycocoevalcap",
    ),
)
