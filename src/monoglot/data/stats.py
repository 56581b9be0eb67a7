"""What is in files of rows: counts, lengths, media, duplicates, contradictions, and what one file shares with another.

    files -> walk (every row, once) -> Columns -> examine (some or all media) -> Examined -> report -> tables

Of a row only numbers are kept, and hashes of 64 bits of what is compared: 60 bytes a row, 40 a media item and 110 a media
item that is examined. Texts that are shown are read again. docs/packing.md says what each number means.

Letters: N rows, M media items of all rows, U different media, E examined media, K files.
"""

from __future__ import annotations

import os
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from monoglot.data.duplicates import DISTANCE, PALETTE, count_ones, hash64, near_pairs, same_colours
from monoglot.data.facts import Facts, facts_of
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError
from monoglot.nouns import Media, Sample
from monoglot.plugins import BUILT_IN, media_kinds

T = TypeVar("T")
Track = Callable[[Iterable[T], str, int], Iterable[T]]
"""Passes things on while a progress bar runs: (things, what is done, how many)."""

SAMPLE = 20_000
"""Media that are read unless all are asked for."""
FREE_TASKS = ("caption", "region_caption", "summarize", "infill", "generate_image", "infill_image")
"""Tasks with many right answers to one question: different targets are no contradiction."""
BOX_ASKED = ("region_caption",)
"""Tasks whose box is part of the question; of all others it is the answer."""
LONG = 5
"""Words from which on a target that two files share is told: shorter ones are labels."""
EXAMPLES = 5
"""Shown of each kind."""
MAX_FILES = 60
"""A file is a bit of a number."""


def report(
    files: Sequence[Path],
    *,
    full: bool = False,
    distance: int = DISTANCE,
    tokens: Callable[[str], int] | None = None,
    track: Track = lambda things, what, count: things,
) -> dict[str, Any]:
    """Everything that `monoglot data stats` prints, ready for JSON.

    Args:
        files: JSONL files of rows, or packs. Rows that are no samples are counted and left out.
        full: read all media; else SAMPLE of them, the same at every call.
        distance: bits in which the hashes of near copies may differ.
        tokens: counts the tokens of a text, if they are wanted.

    Raises:
        InputError: a file cannot be opened, or stands there twice.
    """
    names = [os.fspath(path) for path in files]
    twice = [name for name, count in Counter(map(os.path.realpath, names)).items() if count > 1]
    if twice or len(files) > MAX_FILES:
        wrong = "stands there twice" if twice else f"{len(files)} files are too many"
        raise InputError.at(twice[0] if twice else "command line", "data", wrong, f"give up to {MAX_FILES}, each once")
    columns = walk(files, tokens=tokens, track=track)
    media = examine(columns, None if full else SAMPLE, track)
    near = NearCopies.find(columns, media, distance)
    keys = question_keys(columns, media)
    return {
        "files": [
            {
                "file": name,
                "rows": len(rows),
                "bad": bad,
                "tasks": {task: dict(kinds) for task, kinds in counts.items()},
            }
            for name, rows, bad, counts in zip(names, columns.files, columns.bad, columns.counts)
        ],
        "problems": columns.problems,
        "lengths": [
            {"task": task, "of": what, "unit": unit, **spread(lengths.keys(), lengths.values())}
            for (task, what, unit), lengths in columns.lengths.items()
        ],
        "targets": common_targets(columns),
        "media": {kind: about_media(columns, media, kind) for kind in media.kinds(columns)},
        "near_copies": near.about(columns),
        "same_rows": int(len(keys) - len(np.unique(_mixed(keys, columns["answer"])))),
        "contradictions": contradictions(columns, keys),
        "leakage": leakage(columns, media, near, keys, names),
    }


# --- every row --------------------------------------------------------------------------------------------------------


class Columns:
    """What is kept of every good row, of all files one after the other. `columns[name]` is one value a row, and of
    "modality" and "source" one a media item."""

    KINDS: ClassVar[dict[str, str]] = {
        **{"file": "B", "number": "Q", "task": "H", "media": "H", "words": "B"},
        **dict.fromkeys(("question", "answer", "target", "text", "group"), "Q"),
        **{"modality": "B", "source": "Q"},
    }
    """Type codes of `array`."""

    def __init__(self, files: list[RowFile]):
        self.files = files
        self.kinds = list(media_kinds())
        """Of media; `columns["modality"]` are places in it."""
        self.bad = [0] * len(files)
        """Rows of each file that are no samples."""
        self.problems: list[str] = []
        """The first of them."""
        self.tasks: dict[str, int] = {}
        """Name -> number, in the order in which they came."""
        self.counts: list[dict[str, Counter[str]]] = [{} for _ in files]
        """Of each file, task -> rows, and of these the ones with a picture, a clip, a sound, a text, a target."""
        self.lengths: defaultdict[tuple[str, str, str], Counter[int]] = defaultdict(Counter)
        """(task, "text" or "target", unit) -> length -> rows."""
        self._kept = {name: array(kind) for name, kind in self.KINDS.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        kept = self._kept[name]
        return np.frombuffer(kept, kept.typecode) if len(kept) else np.zeros(0, kept.typecode)

    def add(self, file: int, number: int, sample: Sample, units: Mapping[str, Callable[[str], int]]) -> None:
        text, target = sample.text.strip(), sample.targets[0].strip() if sample.targets else ""
        answered = bool(target or sample.box)
        kinds = {item.modality for item in sample.media}
        kinds |= {name for name, there in (("text", text), ("target", answered)) if there}
        self.counts[file].setdefault(sample.task, Counter()).update(("rows", *kinds))
        for what, words in (("text", text), ("target", target)):
            for unit, count in units.items() if words else ():
                self.lengths[sample.task, what, unit][count(words)] += 1
        asked, boxed = (sample.box, None) if sample.task in BOX_ASKED else (None, sample.box)
        details = (sorted(sample.choices), asked, [(item.start, item.end) for item in sample.media])
        group = sample.meta.get("group")
        row = {
            "file": file,
            "number": number,
            "task": self.tasks.setdefault(sample.task, len(self.tasks)),
            "media": len(sample.media),
            "words": min(len(target.split()), 255),
            "question": hash64(sample.task, text, sample.lang, repr(details)),
            "answer": hash64(target.casefold(), repr(boxed)) if answered else 0,
            "target": hash64(target) if target else 0,
            "text": hash64(text) if text else 0,
            "group": 0 if group is None else hash64(repr(group)),
        }
        for name, value in row.items():
            self._kept[name].append(value)
        for item in sample.media:
            self._kept["modality"].append(self.kinds.index(item.modality))
            self._kept["source"].append(hash64(item.modality, os.path.abspath(item.source)))

    @cached_property
    def first_item(self) -> np.ndarray:
        """int64[N]: the first media item of each row."""
        counts = self["media"].astype(np.int64)
        return np.cumsum(counts) - counts

    @cached_property
    def row_of_item(self) -> np.ndarray:
        """int64[M]"""
        return np.repeat(np.arange(len(self["media"])), self["media"])

    def sample(self, row: int) -> Sample:
        """Read a row again."""
        return self.files[self["file"][row]][int(self["number"][row])]

    def where(self, row: int) -> str:
        return self.files[self["file"][row]].where(int(self["number"][row]))

    def item(self, item: int) -> Media:
        """Read the row of a media item again, for the item."""
        row = int(self.row_of_item[item])
        return self.sample(row).media[item - int(self.first_item[row])]


def walk(files: Sequence[Path], *, tokens: Callable[[str], int] | None, track: Track) -> Columns:
    """Read every row of the files once."""
    units: dict[str, Callable[[str], int]] = {"words": lambda text: len(text.split()), "characters": len}
    if tokens is not None:
        units["tokens"] = tokens
    columns = Columns([RowFile(path) for path in files])
    every = ((file, number) for file, rows in enumerate(columns.files) for number in range(len(rows)))
    for file, number in track(every, "reading rows", sum(map(len, columns.files))):
        try:
            columns.add(file, number, columns.files[file][number], units)
        except InputError as error:
            columns.bad[file] += 1
            if len(columns.problems) < EXAMPLES:
                columns.problems.append(str(error))
    return columns


def spread(values: Iterable[float], counts: Iterable[int] | None = None) -> dict[str, float]:
    """Count, mean, and the values that 0, 50, 90, 99 and 100% of all are at most (nearest rank). `counts`: how often each value is there.

    >>> spread([7, 1, 2], [1, 2, 1])
    {'count': 4, 'mean': 2.75, 'min': 1, 'p50': 1, 'p90': 7, 'p99': 7, 'max': 7}
    """
    given = np.array(list(values))
    often = np.ones(len(given), np.int64) if counts is None else np.array(list(counts), np.int64)
    total = int(often.sum())
    if not total:
        return {"count": 0}
    order = np.argsort(given)
    given, below = given[order], np.cumsum(often[order])
    ranks = {"min": 1, "p50": 50, "p90": 90, "p99": 99, "max": 100}
    at = {name: given[np.searchsorted(below, max(1, -(-total * share // 100)))] for name, share in ranks.items()}
    at["min"] = given[0]
    mean = float((given * often[order]).sum() / total)
    return {"count": total, "mean": round(mean, 2), **{name: round(value.item(), 2) for name, value in at.items()}}


def common_targets(columns: Columns) -> list[dict[str, Any]]:
    """Of each task how many different targets there are, and the most common ones."""
    found = []
    for task, number in columns.tasks.items():
        rows = np.flatnonzero((columns["task"] == number) & (columns["target"] != 0))
        if len(rows):
            _, first, counts = np.unique(columns["target"][rows], return_index=True, return_counts=True)
            most = np.lexsort((first, -counts))[:EXAMPLES]
            common = [[columns.sample(rows[first[i]]).targets[0], int(counts[i])] for i in most]
            found.append({"task": task, "rows": len(rows), "different": len(counts), "most": common})
    return found


# --- media ------------------------------------------------------------------------------------------------------------


@dataclass
class Examined:
    """Media of all rows, each path once."""

    first: np.ndarray
    """int64[U]: a media item of each."""
    of_item: np.ndarray
    """int64[M]: which media each item is."""
    identity: np.ndarray
    """uint64[U]: the hash of the bytes where they were read, else of the path. Equal: the same."""
    chosen: np.ndarray
    """int64[E]: the media that could be read."""
    facts: dict[str, np.ndarray]
    """Fields of `Facts` and of its `look`, [E] each, "colours" [E, 48]; "plain": it has no bits."""
    unread: list[tuple[int, str]]
    """Media that cannot be read, and why."""

    @cached_property
    def identity_of_item(self) -> np.ndarray:
        """uint64[M]"""
        return self.identity[self.of_item]

    def kind(self, columns: Columns) -> np.ndarray:
        """uint8[U]: place of the modality among the columns' kinds."""
        return columns["modality"][self.first]

    def kinds(self, columns: Columns) -> list[str]:
        return [columns.kinds[number] for number in np.unique(self.kind(columns))]


def examine(columns: Columns, limit: int | None, track: Track) -> Examined:
    """Read media, each path once: all, or `limit` of them, drawn by a hash of their paths."""
    sources, first, of_item = np.unique(columns["source"], return_index=True, return_inverse=True)
    wanted = np.arange(len(sources))[:limit]  # sorted by hash, which is as good as drawing lots
    wanted = wanted[np.argsort(first[wanted])]  # read in the order of the rows

    def read(media: int) -> Facts | str:
        try:
            return facts_of(columns.item(int(first[media])))
        except InputError as error:
            return str(error)

    kept, unread = _KeptFacts(), list[tuple[int, str]]()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for media, found in track(_in_turn(pool, read, wanted), "reading media", len(wanted)):
            if isinstance(found, Facts):
                kept.add(media, found)
            else:
                unread.append((media, found))
    facts = kept.arrays()
    identity = sources.copy()
    identity[facts["media"]] = facts["content"]
    return Examined(first, of_item.reshape(-1), identity, facts.pop("media"), facts, unread)


class _KeptFacts:
    """Facts as columns."""

    def __init__(self) -> None:
        kinds = {"media": "q", "content": "Q", "size": "q", "height": "i", "width": "i", "seconds": "d"}
        kinds |= {"plain": "B", "bits": "Q", "colours": "B"}
        self._kept: dict[str, array[Any]] = {name: array(kind) for name, kind in kinds.items()}

    def add(self, media: int, facts: Facts) -> None:
        bits = None if facts.look is None else facts.look.bits
        row = {"media": media, "content": facts.content, "size": facts.size, "seconds": facts.seconds}
        row |= {"height": facts.height, "width": facts.width, "plain": bits is None, "bits": bits or 0}
        for name, value in row.items():
            self._kept[name].append(value)
        colours = bytes(3 * PALETTE**2) if facts.look is None else facts.look.colours.tobytes()
        self._kept["colours"].frombytes(colours)

    def arrays(self) -> dict[str, np.ndarray]:
        found = {name: np.array(kept, kept.typecode) for name, kept in self._kept.items()}
        found["plain"] = found["plain"].astype(bool)
        found["colours"] = found["colours"].reshape(-1, 3 * PALETTE**2)
        return found


def _in_turn(pool: ThreadPoolExecutor, read: Callable[[int], T], wanted: np.ndarray) -> Iterator[tuple[int, T]]:
    """Read by several threads, a few hundred at a time: what was submitted is held in memory."""
    for start in range(0, len(wanted), 256):
        some = wanted[start : start + 256].tolist()
        yield from zip(some, pool.map(read, some))


def about_media(columns: Columns, media: Examined, kind: str) -> dict[str, Any]:
    """Numbers of one modality."""
    number = columns.kinds.index(kind)
    of_kind = media.kind(columns) == number
    mine = of_kind[media.chosen]
    facts = {name: values[mine] for name, values in media.facts.items()}
    unread = [why for which, why in media.unread if of_kind[which]]
    contents, first, counts = np.unique(facts["content"], return_index=True, return_counts=True)
    often = np.argsort(-counts, kind="stable")[:EXAMPLES]
    paths = media.first[media.chosen[mine]]
    found: dict[str, Any] = {
        "items": int((columns["modality"] == number).sum()),
        "paths": int(of_kind.sum()),
        "examined": int(mine.sum()),
        "unreadable": len(unread),
        "why": unread[:EXAMPLES],
        "copies": int(mine.sum() - len(contents)),
        "most_copied": [[columns.item(paths[first[i]]).source, int(counts[i])] for i in often if counts[i] > 1],
        "kilobytes": spread(facts["size"] / 1000),
    }
    if kind == "image":
        found |= {
            "width": spread(facts["width"]),
            "height": spread(facts["height"]),
            "plain": int(facts["plain"].sum()),
        }
    elif kind in BUILT_IN:
        found["seconds"] = spread(facts["seconds"])
    return found


# --- near copies ------------------------------------------------------------------------------------------------------


@dataclass
class NearCopies:
    """Pictures that look the same and are not the same bytes."""

    contents: np.ndarray
    """uint64[C], rising: pictures that were compared, equal bytes once."""
    has: np.ndarray
    """bool[C]: a near copy is among the others."""
    files: np.ndarray
    """uint64[C]: a bit for each file that has a near copy of it."""
    pairs: int
    examples: list[tuple[int, int, int]]
    """(bits that differ, media item, media item), the closest first."""
    plain: int
    """Pictures that show too little to be compared, equal bytes once."""

    @classmethod
    def find(cls, columns: Columns, media: Examined, distance: int) -> NearCopies:
        pictures = media.kind(columns)[media.chosen] == columns.kinds.index("image")
        plain = len(np.unique(media.facts["content"][pictures & media.facts["plain"]]))
        compared = np.flatnonzero(pictures & ~media.facts["plain"])
        contents, first = np.unique(media.facts["content"][compared], return_index=True)
        compared = compared[first]
        bits, colours = media.facts["bits"][compared], media.facts["colours"][compared]
        there = shared(media.identity_of_item, columns["file"][columns.row_of_item])
        identities, place = np.unique(media.identity_of_item, return_index=True)
        own_files = there[place[np.searchsorted(identities, contents)]] if len(contents) else np.zeros(0, np.uint64)
        found = cls(contents, np.zeros(len(contents), bool), np.zeros(len(contents), np.uint64), 0, [], plain)
        items, examples = media.first[media.chosen[compared]], list[tuple[int, int, int]]()
        for pairs in near_pairs(bits, distance):
            pairs = pairs[same_colours(*(colours[side] for side in pairs.T))]
            if not len(pairs):
                continue
            found.pairs += len(pairs)
            a, b = pairs.T
            found.has[a] = found.has[b] = True
            np.bitwise_or.at(found.files, a, own_files[b])
            np.bitwise_or.at(found.files, b, own_files[a])
            apart = count_ones(bits[a] ^ bits[b]).astype(np.int64)
            closest = np.lexsort((b, a, apart))[:EXAMPLES]
            examples += zip(apart[closest].tolist(), items[a[closest]].tolist(), items[b[closest]].tolist())
            examples = sorted(examples)[:EXAMPLES]
        found.examples = examples
        return found

    def about(self, columns: Columns) -> dict[str, Any]:
        return {
            "compared": len(self.contents),
            "too_plain": self.plain,
            "with_a_near_copy": int(self.has.sum()),
            "pairs": self.pairs,
            "closest": [[apart, columns.item(a).source, columns.item(b).source] for apart, a, b in self.examples],
        }

    def files_of(self, identity: np.ndarray) -> np.ndarray:
        """uint64[n] -> uint64[n]: a bit for each file with a near copy of it."""
        if not len(self.contents):
            return np.zeros(len(identity), np.uint64)
        place = np.minimum(np.searchsorted(self.contents, identity), len(self.contents) - 1)
        return np.where(self.contents[place] == identity, self.files[place], np.uint64(0))


# --- what contradicts, what is shared ---------------------------------------------------------------------------------


def _mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """uint64[n] of two: another number for any other pair. Source: the finaliser of splitmix64 (S. Vigna, public domain)."""
    mixed = a ^ (b * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x632BE59BD9B4E019) + (a << np.uint64(6)))
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def question_keys(columns: Columns, media: Examined) -> np.ndarray:
    """uint64[N]: equal where task, text, choices, windows, language and media are."""
    keys = columns["question"].astype(np.uint64)
    counts = columns["media"]
    for place in range(int(counts.max(initial=0))):
        rows = np.flatnonzero(counts > place)
        keys[rows] = _mixed(keys[rows], media.identity_of_item[columns.first_item[rows] + place])
    return keys


def contradictions(columns: Columns, keys: np.ndarray) -> dict[str, Any]:
    """Rows of equal questions with different targets, in tasks that have one right answer."""
    free = [number for task, number in columns.tasks.items() if task in FREE_TASKS]
    rows = np.flatnonzero((columns["answer"] != 0) & ~np.isin(columns["task"], free))
    rows = rows[np.lexsort((rows, columns["answer"][rows], keys[rows]))]
    key, answer = keys[rows], columns["answer"][rows]
    begins = np.flatnonzero(np.diff(key, prepend=~key[:1]) != 0)  # of each question
    ends = np.append(begins[1:], len(rows))
    wrong = answer[begins] != answer[ends - 1] if len(rows) else np.zeros(0, bool)
    begins, ends = begins[wrong], ends[wrong]
    examples = []
    for begin, end in list(zip(begins, ends))[:EXAMPLES]:
        other = begin + int(np.argmax(answer[begin:end] != answer[begin]))
        said = [columns.sample(rows[place]) for place in (begin, other)]
        where = [columns.where(rows[place]) for place in (begin, other)]
        answers = [sample.targets[0] if sample.targets else str(sample.box) for sample in said]
        examples.append({"rows": where, "text": said[0].text, "targets": answers})
    tasks = Counter(columns["task"][rows[begins]].tolist())
    names = list(columns.tasks)
    return {
        "questions": len(begins),
        "rows": int((ends - begins).sum()),
        "tasks": {names[number]: count for number, count in sorted(tasks.items())},
        "examples": examples,
    }


def shared(values: np.ndarray, files: np.ndarray) -> np.ndarray:
    """uint64[n]: of each value a bit for every file in which it is."""
    unique, place = np.unique(values, return_inverse=True)
    bits = np.zeros(len(unique), np.uint64)
    np.bitwise_or.at(bits, place.reshape(-1), np.uint64(1) << files.astype(np.uint64))
    return bits[place.reshape(-1)]


def leakage(
    columns: Columns, media: Examined, near: NearCopies, keys: np.ndarray, names: list[str]
) -> list[dict[str, Any]]:
    """For each two files, how much of the second is in the first already."""
    if len(names) < 2:
        return []
    file, row_of_item = columns["file"], columns.row_of_item
    file_of_item = file[row_of_item]
    same_media = shared(media.identity_of_item, file_of_item)
    near_media = near.files_of(media.identity_of_item) & ~same_media
    long = columns["words"] >= LONG
    kinds = {  # values that count; of these the rows that may share them
        "texts": (columns["text"], (columns["media"] == 0) & (columns["text"] != 0)),
        "targets": (columns["target"], long),
        "questions": (keys, np.ones(len(keys), bool)),
        "groups": (columns["group"], columns["group"] != 0),
    }
    bits = {}
    for kind, (values, rows) in kinds.items():
        bits[kind] = np.zeros(len(file), np.uint64)
        bits[kind][rows] = shared(values[rows], file[rows])
    found = []
    for a, b in combinations(range(len(names)), 2):
        of_a, in_b = np.uint64(1 << a), file == b
        told: dict[str, Any] = {"from": names[a], "into": names[b], "rows": int(in_b.sum())}
        for kind, there in (("media", same_media), ("near_pictures", near_media)):
            items = np.flatnonzero((there & of_a != 0) & (file_of_item == b))
            different = len(np.unique(media.identity_of_item[items]))
            told[kind] = {"different": different, "rows": len(np.unique(row_of_item[items]))}
        for kind, (values, _) in kinds.items():
            rows = in_b & (bits[kind] & of_a != 0)
            told[kind] = {"different": len(np.unique(values[rows])), "rows": int(rows.sum())}
        found.append(told)
    return found
