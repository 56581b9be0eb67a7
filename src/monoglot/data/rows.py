"""Rows: JSONL in, checked `Sample`s out; the only place that knows how a row is written (see docs/rows.md).

    file -> (read_rows: line by line) -> dict -> (parse_row) -> Sample        check_rows: every problem of a file
    dicts -> (write_rows: atomic) -> file                                     sample_to_row: the way back

Plain code on purpose: a row costs some twenty-five microseconds. No media file is opened here, except the header of a
picture whose box is given in pixels.
"""

from __future__ import annotations

import difflib
import json
import math
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from monoglot.errors import InputError, MediaError
from monoglot.files import atomic_path
from monoglot.nouns import Box, Media, Sample
from monoglot.plugins import BUILT_IN, HOW, media_kinds
from monoglot.registry import unknown_name

MEDIA_KEYS = tuple(BUILT_IN)
"""Media that need no plugin; `media_kinds` has all that a row may name."""
KNOWN_KEYS = (
    *("id", "task", *MEDIA_KEYS, "start", "end", "text", "target", "targets"),
    *("box", "box_unit", "choices", "lang", "weight"),
)
_KNOWN = frozenset(KNOWN_KEYS)
_NOTES = 'inside of an object, such as {"notes": {...}}'
_FILE_NAME = re.compile(r"[^\n]*[^\n.]\.\w{1,5}")
TAR = "tar://"
BOX_SLACK = 1e-6
"""A fraction may leave [0, 1] by this much (the rounding of a division) and is then clipped."""
NEAR_MISS = 0.81
"""`difflib` ratio from which an unknown key counts as misspelt: 'txt', 'imagee' do; 'image_id', 'mask' don't."""


# ---------------------------------------------------------------------------------------------------------------- read


def read_rows(
    path: str | os.PathLike[str],
    *,
    strict: bool = True,
    on_error: Callable[[InputError], None] | None = None,
    known_tasks: Collection[str] | None = None,
) -> Iterator[Sample]:
    """Stream the samples of a JSONL file, in order. Memory: one row, and a hash and a line number for each id.

    Args:
        path: a UTF-8 file with one JSON object a line; blank lines, CRLF and a byte-order mark are fine.
        strict: raise at the first bad row. If False, leave bad rows out and tell each one to `on_error`.
        on_error: called once for each bad row with its first problem; needed when `strict` is False.
        known_tasks: names that `task` may have; None accepts any.

    Raises:
        InputError: at once for a file that cannot be opened; while iterating (strict) for a bad row.
    """
    if not strict and on_error is None:
        raise ValueError("strict=False needs on_error: no row is left out in silence")
    _must_be_file(path)
    return _samples(path, None if strict else on_error, known_tasks)


@dataclass(frozen=True)
class BadRow:
    """A line that is no sample."""

    id: str
    """The row's own, or the number of its line when it has none that can be read."""
    task: str
    error: InputError
    """Its first problem."""


def read_all(
    path: str | os.PathLike[str],
    *,
    known_tasks: Collection[str] | None = None,
    offset: int = 0,
    line: int = 1,
    firsts: Mapping[str, int] | None = None,
) -> Iterator[Sample | BadRow]:
    """Stream every row of a JSONL file, in order, the wrong ones too. Raises InputError for a file that cannot be opened.

    Args:
        offset, line: where to begin: the byte where a line begins, and its number.
        firsts: the first line of each id that several rows have (see `repeated_ids`): who begins further down has not seen it.
    """
    _must_be_file(path)
    walk = _walk(path, known_tasks, stop_at_first=False, offset=offset, line=line, firsts=firsts)
    return (_sample_or_bad(*row) for row in walk)


def repeated_ids(path: str | os.PathLike[str]) -> dict[str, int]:
    """The first line of each id that several rows of a JSONL file have. Memory: a hash and a line number for each row."""
    seen, repeated = dict[int, int](), dict[str, int]()
    for sample, tell in _walk(path, None, stop_at_first=False, firsts={}):
        if sample is not None and isinstance(sample.id, str):
            first = seen.setdefault(hash(sample.id), tell.line or 0)
            if first != tell.line:
                repeated[sample.id] = first
    return repeated


def _sample_or_bad(sample: Sample | None, tell: _Problems) -> Sample | BadRow:
    if sample is not None and not tell.found:
        return sample
    name, task = ("", "") if sample is None else (sample.id, sample.task)
    readable = isinstance(name, str) and name.strip()
    return BadRow(name if readable else str(tell.line), task if isinstance(task, str) else "", tell.found[0])


def _samples(path: Any, on_error: Callable[[InputError], None] | None, known_tasks: Any) -> Iterator[Sample]:
    for sample, tell in _walk(path, known_tasks, stop_at_first=on_error is None):
        if not tell.found:
            yield sample  # type: ignore[misc]
        elif on_error is not None:
            on_error(tell.found[0])


def _walk(
    path: Any,
    known_tasks: Any,
    *,
    stop_at_first: bool,
    offset: int = 0,
    line: int = 1,
    firsts: Mapping[str, int] | None = None,
) -> Iterator[tuple[Sample | None, _Problems]]:
    """Each row that is not blank, with its problems: a sample is whole if there are none, and None if it is no object.

    With `stop_at_first` the first problem is raised instead. `offset`, `line` and `firsts` as in `read_all`.
    """
    base, seen = os.path.dirname(os.fspath(path)), dict[int, int]()
    with open(path, "rb") as file:
        file.seek(offset)
        for number, raw in enumerate(file, start=line):
            if number == 1 and raw.startswith(b"\xef\xbb\xbf"):
                raw = raw[3:]
            if not raw.strip():
                continue
            tell = _Problems(path, number, stop_at_first)
            obj = _decode(raw, tell)
            sample = _parse(obj, tell, base, known_tasks, number) if obj is not None else None
            if sample is not None and isinstance(sample.id, str):
                first = seen.setdefault(hash(sample.id), number) if firsts is None else firsts.get(sample.id, number)
                if first != number:
                    tell("id", f"{sample.id!r} is also the id of line {first}", "expected unique ids")
            yield sample, tell


class _Problems:
    """Called with (field, what is wrong, what was expected): raises it, or keeps it."""

    __slots__ = ("file", "found", "line", "stop")

    def __init__(self, file: object, line: int | None, stop: bool):
        self.file, self.line, self.stop, self.found = file, line, stop, list[InputError]()

    def __call__(self, name: str, wrong: str, fix: str = "") -> None:
        error = InputError.at(self.file, name, wrong, fix, line=self.line)
        if self.stop:
            raise error
        self.found.append(error)


def _must_be_file(path: str | os.PathLike[str]) -> None:
    if not os.path.isfile(path):
        wrong = "is a folder" if os.path.isdir(path) else "no such file"
        raise InputError.at(os.fspath(path), "", wrong, "expected a JSONL file of rows")


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} stands there twice")
    return row


_JSON = json.JSONDecoder(parse_constant=_reject_constant, object_pairs_hook=_no_key_twice)


def _decode(raw: bytes, tell: _Problems) -> Any:
    """The JSON value of one line, or None after telling why there is none."""
    expected = "expected one JSON object a line"
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        looks = " (it looks like UTF-16)" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        tell("", f"byte {error.start + 1} is not UTF-8{looks}", "save the file as UTF-8")
        return None
    try:
        value = _JSON.decode(text)
        if b"\\ud" in raw.lower():  # an escaped half character would only fail later, in the tokenizer
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        tell("", f"broken JSON at character {error.pos + 1}: {error.msg}", expected)
    except UnicodeEncodeError:
        tell("", "a \\u escape is half of a surrogate pair", "write the character itself")
    except RecursionError:
        tell("", "nested too deeply", expected)
    except ValueError as error:
        tell("", str(error), expected)
    else:
        if isinstance(value, dict):
            return value
        tell("", f"is {_kind(value)}", expected)
    return None


# --------------------------------------------------------------------------------------------------------------- parse


def parse_row(
    obj: Mapping[str, Any],
    *,
    where_file: str | os.PathLike[str] = "row",
    line: int | None = None,
    base: str | os.PathLike[str] = "",
    known_tasks: Collection[str] | None = None,
) -> Sample:
    """Check one decoded row and turn it into a `Sample`.

    Args:
        obj: the row. `null` counts as an absent key; keys outside the format go to `Sample.meta`.
        where_file: what messages call the file; `line` its line, which is also the id of a row without one.
        base: the folder that relative media paths start from.
        known_tasks: names that `task` may have; None accepts any.

    Raises:
        InputError: the first problem, as `file:line: field: what is wrong; what was expected`.

    >>> parse_row({"task": "vqa", "image": "cup.png", "text": "colour?", "target": "red"}, line=3, base="data").media
    (Media(modality='image', source='data/cup.png', start=None, end=None),)
    >>> parse_row({"id": "17", "task": "vqa", "traget": "red"}, where_file="rows.jsonl", line=17)
    Traceback (most recent call last):
    monoglot.errors.InputError: rows.jsonl:17: traget: unknown key; did you mean 'target'?
    """
    tell = _Problems(os.fspath(where_file), line, stop=True)
    if not isinstance(obj, Mapping):
        tell("", f"is {_kind(obj)}", "expected one JSON object a line")
    return _parse(obj, tell, os.fspath(base), known_tasks, line)


def _parse(row: Mapping[str, Any], tell: _Problems, base: str, known_tasks: Any, line: int | None) -> Sample:
    """Field by field. When `tell` does not raise, the sample that comes back may only be used if nothing was told."""
    kinds = media_kinds()
    meta = {key: value for key, value in row.items() if key not in _KNOWN and key not in kinds}
    for key in meta:
        meant = _near_miss(key, tuple(kinds))
        if meant:
            tell(key, "unknown key", f"did you mean {meant!r}?")

    name = row.get("id")
    if name is None:
        name = "" if line is None else str(line)
    elif isinstance(name, int) and not isinstance(name, bool):
        name = str(name)
    elif not isinstance(name, str) or not name.strip():
        tell("id", f"is {_kind(name)}", "expected a string that is not empty, or a whole number")

    task = row.get("task")
    if task is None:
        tell("task", "missing", "every row names its task, such as 'caption' or 'vqa'")
    elif not isinstance(task, str) or not task:
        tell("task", f"is {_kind(task)}", "expected the name of a task")
    elif known_tasks is not None and task not in known_tasks:
        tell("task", unknown_name("task", task, known_tasks))

    empty = not any(row.get(key) for key in (*kinds, "text"))
    unknown = [key for key, value in meta.items() if _is_file(value, base, if_there=not empty)]
    for key in unknown:
        tell(key, f"names a file, but there is {unknown_name('modality', key, kinds)}", f"{HOW}; a note goes {_NOTES}")
    start, end = _window(row, tell, kinds | dict.fromkeys(unknown, True))
    media = _media(row, tell, base, kinds, start, end)
    text = row.get("text")
    if text is None:
        text = ""
    elif not isinstance(text, str):
        tell("text", f"is {_kind(text)}", "expected a string")
    if empty and not unknown:
        tell("text", "nothing to read", f"give at least one of text, {', '.join(kinds)}")

    targets = _targets(row, tell)
    choices = _choices(row, tell)
    if choices and targets and targets[0] not in choices:
        tell("target", f"{targets[0]!r} is not among the choices", f"expected one of {_listed(choices)}")

    box = None
    if row.get("box") is not None:
        box = _box(row, tell, media)
    elif row.get("box_unit") is not None:
        tell("box_unit", "there is no box", "leave it out, or give a box")

    lang = row.get("lang")
    if lang is None:
        lang = "en"
    elif not isinstance(lang, str) or not lang.strip():
        tell("lang", f"is {_kind(lang)}", "expected a language code such as 'en' or 'ja'")
    weight = 1.0
    if row.get("weight") is not None:
        weight = _number(row["weight"]) or 0.0
        if weight <= 0:
            tell("weight", f"is {_kind(row['weight'])}", "expected a number above 0")

    where = f"{tell.file}:{line}" if line is not None else str(tell.file)
    return Sample(name, task, media, text, targets, box, choices, lang, weight, meta, where)  # type: ignore[arg-type]


def _window(row: Mapping[str, Any], tell: _Problems, kinds: Mapping[str, bool]) -> tuple[float | None, float | None]:
    """(start, end) in seconds."""
    if row.get("start") is None and row.get("end") is None:
        return None, None
    window: list[float | None] = []
    for key in ("start", "end"):
        value = row.get(key)
        seconds = None if value is None else _number(value)
        if value is not None and (seconds is None or seconds < 0):
            tell(key, f"is {_kind(value)}", "expected seconds, 0 or more")
            seconds = None
        elif value is not None and not any(timed and row.get(kind) for kind, timed in kinds.items()):
            which = " or ".join(kind for kind, timed in kinds.items() if timed)
            tell(key, f"there is no {which} in this row", "leave it out: a picture has no time")
        window.append(seconds)
    start, end = window
    if end is not None and end <= (start or 0.0):
        tell("end", f"{end:g} does not come after start {start or 0.0:g}", "expected start < end, in seconds")
    return start, end


def _media(
    row: Mapping[str, Any],
    tell: _Problems,
    base: str,
    kinds: Mapping[str, bool],
    start: float | None,
    end: float | None,
) -> tuple[Media, ...]:
    """Every picture, clip, sound and whatever else there is, in the order of the row's keys."""
    found: list[Media] = []
    for key in row:
        if key not in kinds or row[key] is None:
            continue
        paths = row[key] if isinstance(row[key], list) else [row[key]]
        if not paths:
            tell(key, "is an empty list", "leave the key out, or give a path")
        for path in paths:
            if not isinstance(path, str) or not path.strip() or "\0" in path:
                tell(key, f"is {_kind(path)}", "expected a path or a list of paths")
                continue
            source = _place(path, base)
            if source is None:
                tell(key, f"{path!r} cannot be read", "expected a local file or tar://shard.tar#member")
            else:
                found.append(Media(key, source, start, end) if kinds[key] else Media(key, source))
    return tuple(found)


def _is_file(value: Any, base: str, *, if_there: bool) -> bool:
    """True if what stands beside the format, or the first of a list, is called like a file; `if_there`: which is there."""
    name = value[0] if isinstance(value, list) and value else value
    if not isinstance(name, str) or len(name) > 4096 or not (name.startswith(TAR) or _FILE_NAME.fullmatch(name)):
        return False
    return not if_there or name.startswith(TAR) or os.path.isfile(os.path.join(base, name))


def _place(path: str, base: str) -> str | None:
    """The path as seen from the working directory; None for a URL or a shard without a member."""
    if "://" not in path:
        return os.path.join(base, path)
    shard, _, member = path[len(TAR) :].partition("#")
    return f"{TAR}{os.path.join(base, shard)}#{member}" if path.startswith(TAR) and shard and member else None


def _targets(row: Mapping[str, Any], tell: _Problems) -> tuple[str, ...]:
    """`target` first, then the other references. Repeats in `targets` stay: of ten people's answers each counts."""
    first, others = (_strings(row, key, tell) for key in ("target", "targets"))
    for text in first:
        if text in others:
            others.remove(text)
    return (*first, *others)


def _strings(row: Mapping[str, Any], key: str, tell: _Problems) -> list[str]:
    """A string or a list of strings, as a list."""
    value = row.get(key)
    if value is None or isinstance(value, str):
        return [] if value is None else [value]
    if not isinstance(value, list) or not value:
        tell(key, f"is {_kind(value)}", "expected a string or a list of strings")
        return []
    for item in value:
        if not isinstance(item, str):
            tell(key, f"holds {_kind(item)}", "expected a string or a list of strings")
    return [item for item in value if isinstance(item, str)]


def _choices(row: Mapping[str, Any], tell: _Problems) -> tuple[str, ...]:
    value = row.get("choices")
    if value is None:
        return ()
    fix = "expected a list of at least two different strings"
    if not isinstance(value, list):
        tell("choices", f"is {_kind(value)}", fix)
        return ()
    wrong = [item for item in value if not isinstance(item, str) or not item.strip()]
    if wrong:
        tell("choices", f"holds {_kind(wrong[0])}", fix)
        return ()
    if len(set(value)) != len(value):
        tell("choices", f"{Counter(value).most_common(1)[0][0]!r} stands there twice", fix)
    elif len(value) < 2:
        tell("choices", f"has {len(value)} item{'' if value else 's'}", fix)
    return tuple(value)


def _box(row: Mapping[str, Any], tell: _Problems, media: tuple[Media, ...]) -> Box | None:
    """The box as fractions of the row's first picture, or None after telling why not."""
    given, unit = row["box"], row.get("box_unit")
    numbers = [_number(value) for value in given] if isinstance(given, list) else []
    if len(numbers) != 4 or None in numbers:
        tell("box", f"is {_kind(given)}", "expected four numbers x0 y0 x1 y1")
        return None
    x0, y0, x1, y1 = (value for value in numbers if value is not None)
    if unit not in (None, "fraction", "pixel"):
        tell("box_unit", f"is {_kind(unit)}", "expected 'fraction' (what is meant without it) or 'pixel'")
        return None
    limits, fix = "[0, 1]", 'pixel boxes are the usual cause: give fractions, or add "box_unit": "pixel"'
    if unit == "pixel":
        picture = next((item for item in media if item.modality == "image"), None)
        if picture is None:
            tell("box_unit", "there is no picture to measure pixels on", "give an image, or the box as fractions")
            return None
        try:
            height, width = picture_size(picture.source)
        except InputError as error:
            tell("image", f"its size is needed for a pixel box: {error}")
            return None
        x0, y0, x1, y1 = x0 / width, y0 / height, x1 / width, y1 / height
        limits, fix = f"the picture ({width} wide, {height} high)", "expected x0 y0 x1 y1 in pixels"
    if min(x0, y0, x1, y1) < -BOX_SLACK or max(x0, y0, x1, y1) > 1 + BOX_SLACK:
        tell("box", f"{given} lies outside {limits}", fix)
        return None
    x0, y0, x1, y1 = (min(max(value, 0.0), 1.0) for value in (x0, y0, x1, y1))
    if x1 <= x0 or y1 <= y0:
        axis = "x" if x1 <= x0 else "y"
        tell("box", f"{given} has {axis}1 <= {axis}0", "expected the corners x0 y0 x1 y1, not x y width height")
        return None
    return (x0, y0, x1, y1)


def picture_size(source: str) -> tuple[int, int]:
    """(height, width) of a picture as it is shown (turned as its EXIF says), from its header alone.

    Raises:
        MediaError: the file is missing or is no picture.
    """
    from PIL import Image

    try:
        if source.startswith(TAR):
            shard, _, member = source[len(TAR) :].partition("#")
            with tarfile.open(shard) as tar, Image.open(tar.extractfile(member)) as picture:  # type: ignore[arg-type]
                return _shown_size(picture)
        with Image.open(source) as picture:
            return _shown_size(picture)
    except FileNotFoundError:
        raise MediaError.at(source, "", "no such file") from None
    except Exception:  # PIL and tarfile raise many kinds for a broken file
        raise MediaError.at(source, "", "not a picture that can be read") from None


def _shown_size(picture: Any) -> tuple[int, int]:
    width, height = picture.size
    return (width, height) if picture.getexif().get(0x0112) in (5, 6, 7, 8) else (height, width)  # 0x0112: Orientation


def _number(value: Any) -> float | None:
    """A finite float, or None for anything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def _kind(value: Any) -> str:
    """A wrong value in words, short enough for a message.

    >>> _kind([1, 2]), _kind(""), _kind(-3), _kind(" "), _kind({})
    ('a list: [1, 2]', 'an empty string', '-3', "the string ' '", 'an object')
    """
    if isinstance(value, str):
        return f"the string {_short(repr(value))}" if value else "an empty string"
    if isinstance(value, list):
        return f"a list: {_short(json.dumps(value, ensure_ascii=False))}" if value else "an empty list"
    if isinstance(value, Mapping):
        return "an object"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _short(str(value))


def _short(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _listed(names: tuple[str, ...], limit: int = 8) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(map(repr, names[:limit])) + more


@lru_cache(maxsize=4096)
def _near_miss(key: str, kinds: tuple[str, ...] = ()) -> str:
    """The key of the format, or the kind of media, that `key` was surely meant to be, or ''.

    >>> [_near_miss(key) for key in ("traget", "Image", "boxes", "txt", "speaker", "image_id", "mask", "idx")]
    ['target', 'image', 'box', 'text', '', '', '', '']
    """
    plain = key.strip().lower().replace("-", "_")
    keys = dict.fromkeys((*KNOWN_KEYS, *kinds))
    for known in keys:
        if plain in (known, known + "s", known + "es") or (len(known) > 3 and sorted(plain) == sorted(known)):
            return known
    near = difflib.get_close_matches(plain, [known for known in keys if len(known) > 3], n=1, cutoff=NEAR_MISS)
    return near[0] if near else ""


# --------------------------------------------------------------------------------------------------------------- check


@dataclass
class RowsReport:
    """What `check_rows` found."""

    path: str
    rows: int = 0
    """Lines that are not blank, good and bad."""
    good: int = 0
    problems: list[str] = field(default_factory=list)
    """`file:line: field: what is wrong; what was expected`, in file order; a row may have several."""
    tasks: Counter[str] = field(default_factory=Counter)
    """Good rows by task."""
    modalities: Counter[str] = field(default_factory=Counter)
    """Good rows that hold a picture, a video, an audio, a text ...: a row counts once in each that it holds."""
    without_target: int = 0
    """Good rows that can be answered but neither trained on nor scored: no target and no box."""
    extra_keys: Counter[str] = field(default_factory=Counter)
    """Keys outside the format: kept in `Sample.meta`, never read by the model."""

    @property
    def ok(self) -> bool:
        return not self.problems


def check_rows(
    path: str | os.PathLike[str],
    *,
    known_tasks: Collection[str] | None = None,
    check: Callable[[Sample], object] | None = None,
) -> RowsReport:
    """Read the whole file and tell every problem of every row, missing media files included.

    Args:
        known_tasks: names that `task` may have; None accepts any.
        check: called with each row that is well formed; an InputError that it raises is one more problem of the row.

    Raises:
        InputError: the file itself cannot be opened. Bad rows are reported, not raised.
    """
    _must_be_file(path)
    report = RowsReport(os.fspath(path))
    shards: dict[str, frozenset[str] | None] = {}
    fine: set[str] = set()  # a picture that many rows ask about is looked up once
    for sample, tell in _walk(path, known_tasks, stop_at_first=False):
        report.rows += 1
        found = [str(problem) for problem in tell.found]
        if check is not None and sample is not None and not found:
            try:
                check(sample)
            except InputError as problem:
                found.append(str(problem))
        for item in sample.media if sample is not None else ():
            wrong = "" if item.source in fine else _missing(item.source, shards)
            if wrong:
                found.append(str(MediaError.at(sample.where, item.modality, wrong)))  # type: ignore[union-attr]
            else:
                fine.add(item.source)
        report.problems += found
        if sample is None or found:
            continue
        report.good += 1
        report.tasks[sample.task] += 1
        report.modalities.update({item.modality for item in sample.media} | ({"text"} if sample.text else set()))
        report.without_target += not sample.targets and sample.box is None
        report.extra_keys.update(sample.meta.keys())  # of a mapping it would add up the values
    return report


def _missing(source: str, shards: dict[str, frozenset[str] | None]) -> str:
    """Why the file or shard member is not there, or ''."""
    if source.startswith(TAR):
        shard, _, member = source[len(TAR) :].partition("#")
        if shard not in shards:
            try:
                with tarfile.open(shard) as tar:
                    shards[shard] = frozenset(tar.getnames())
            except (OSError, tarfile.TarError):
                shards[shard] = None
        members = shards[shard]
        if members is None:
            return f"no such shard, or not a tar file: {shard}; paths start from the folder of the row's file"
        return "" if member in members else f"no member {member!r} in {shard}"
    if not os.path.isfile(source):
        return f"no such file: {source}; paths start from the folder of the row's file"
    return "" if os.path.getsize(source) else f"the file is empty: {source}"


# --------------------------------------------------------------------------------------------------------------- write


def write_rows(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSONL and return how many. The file appears whole or not at all.

    Raises:
        InputError: a row that JSON cannot hold (NaN, an object in memory), a full disk; an older file stays as it was.
    """
    count = 0
    with atomic_path(Path(path)) as draft, open(draft, "w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            count += 1
            try:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
            except (TypeError, ValueError) as error:
                raise InputError.at(path, "", f"cannot be written as JSON: {error}", line=count) from None
    return count


def sample_to_row(sample: Sample, *, base: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """The row that `parse_row` reads back as this sample (boxes as fractions, defaults left out).

    Args:
        base: the folder of the file the row goes to: media below it are written relative to it, all others absolute.
            None keeps every path as it is.

    Raises:
        InputError: what a row cannot say: media in memory, one modality in two places of the order, two windows.
    """
    where = sample.where or sample.id
    row: dict[str, Any] = {"id": sample.id, "task": sample.task}
    last = ""
    for item in sample.media:
        if not isinstance(item.source, (str, os.PathLike)):
            raise InputError.at(where, item.modality, "is an object in memory", "save it to a file first")
        if item.modality in row and item.modality != last:
            raise InputError.at(where, item.modality, "stands in two places", "a row keeps one modality together")
        last = item.modality
        row.setdefault(item.modality, []).append(_unplace(os.fspath(item.source), base))
    kinds = media_kinds()
    for key in {item.modality for item in sample.media}:
        if len(row[key]) == 1:
            row[key] = row[key][0]
    windows = {(item.start, item.end) for item in sample.media if kinds.get(item.modality)}
    if len(windows) > 1:
        raise InputError.at(where, "start", "the media have different windows", "a row has one start and one end")
    for start, end in windows:
        row |= {key: value for key, value in (("start", start), ("end", end)) if value is not None}
    if sample.text:
        row["text"] = sample.text
    if sample.targets:
        row |= {"target": sample.targets[0]} if len(sample.targets) == 1 else {"targets": list(sample.targets)}
    if sample.box is not None:
        row["box"] = list(sample.box)
    if sample.choices:
        row["choices"] = list(sample.choices)
    if sample.lang != "en":
        row["lang"] = sample.lang
    if sample.weight != 1.0:
        row["weight"] = sample.weight
    return row | sample.meta


def _unplace(path: str, base: str | os.PathLike[str] | None) -> str:
    if base is None:
        return path
    if path.startswith(TAR):
        shard, _, member = path[len(TAR) :].partition("#")
        return f"{TAR}{_unplace(shard, base)}#{member}"
    absolute, folder = os.path.abspath(path), os.path.abspath(base)
    return os.path.relpath(absolute, folder) if absolute.startswith(folder + os.sep) else absolute
