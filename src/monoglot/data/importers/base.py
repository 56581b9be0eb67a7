"""How published data become rows: a kind reads the files of its publisher, one entry at a time.

    settings -> make_kind -> Kind;  files -> Kind.items -> Item -> Kind.rows -> Work.add -> rows.jsonl

A kind is one class: its docstring says how its publisher lays the data out and where that is written down, its fields are its
settings. Each adds itself to `IMPORTERS`.
"""

from __future__ import annotations

import json
import os
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from monoglot.data.importers.work import Item, Report, Row, Work, as_number
from monoglot.errors import InputError
from monoglot.files import read_json
from monoglot.nouns import Box
from monoglot.registry import Registry, unknown_name

Words = Annotated[tuple[str, ...], BeforeValidator(lambda given: _parts(given))]
"""Several names, parted by commas on the command line."""
References = Literal["together", "apart"]
TOGETHER = (
    "'together': one row with all references, for evaluation; 'apart': a row for each, as published models are trained."
)
CLIP = 1.0
"""A pixel box may leave its picture by this much (data sets round) and is then cut."""


class Kind(BaseModel):
    """One kind of published data. The fields are its settings; `items` reads, `rows` makes rows."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    summary: ClassVar[str]
    """What it is, in one line."""
    example: ClassVar[str]
    """What stands behind `monoglot data import`, without `--out`."""
    files: tuple[Path, ...] = Field(min_length=1, description="The files, as published.")

    @abstractmethod
    def items(self, work: Work) -> Iterator[Item]:
        """The entries of the files, in order. What cannot even be read is told to `work.problem`."""

    @abstractmethod
    def rows(self, item: Item, work: Work) -> Iterator[Row]:
        """The rows of one entry. Raises InputError when it cannot become one."""


IMPORTERS: Registry[type[Kind]] = Registry("kind of data")


def import_rows(
    kind: Kind,
    out: Path,
    *,
    media: Path | None = None,
    check: bool = True,
    allow: float = 0.01,
    problems: Path | None = None,
    limit: int | None = None,
) -> Report:
    """Make a file of rows of published data.

    Args:
        kind: what is read, with its settings (see `make_kind`).
        out: the JSONL file, which appears whole or not at all.
        media: the folder that names of pictures, clips and sounds start from; None for that of the file that names them.
        check: whether these must be there.
        allow: the share of entries that may give no row.
        problems: where these are told, one a line; None for `<out>.problems.jsonl`.
        limit: stop after so many rows.

    Raises:
        InputError: a file that cannot be read at all, no row, or too many entries without one. Good rows are then in
            `<out>.partial`, and an earlier `out` stays as it was.
    """
    out = Path(out)
    for file in kind.files:
        if not file.exists():
            raise InputError.at(file, "", "no such file", "give the data as their publisher lays them out")
        if out.exists() and file.samefile(out):
            raise InputError.at(out, "--out", "is one of the files that are read", "choose another name")
    total = sum(file.stat().st_size for file in kind.files if file.is_file())
    with Work(out, media=media, check=check, problems=problems, total=total) as work:
        for item in kind.items(work):
            try:
                for row in kind.rows(item, work):
                    work.add(row, item)
            except InputError as problem:
                work.problem(problem)
            if limit is not None and work.report.rows >= limit:
                break
        work.judge(allow)
    return work.report


def make_kind(name: str, words: Sequence[str]) -> Kind:
    """The kind `name` with what the command line says: files, and `key=value` for its settings.

    Raises:
        InputError: an unknown kind or setting (with its nearest names), or a value that does not fit.
    """
    kind = IMPORTERS[name]
    settings: dict[str, Any] = {}
    files: list[str] = []
    known = [field for field in kind.model_fields if field != "files"]
    for word in words:
        key, sign, value = word.partition("=")
        if sign and key in settings:
            raise InputError.at("command line", key, "is given twice", "give it once")
        if sign and key in known:
            settings[key] = value
        elif not sign or os.path.exists(word):
            files.append(word)
        else:
            raise InputError.at("command line", key, unknown_name(f"setting of {name}", key, known))
    try:
        return kind.model_validate({"files": files, **settings})
    except ValidationError as error:
        first = error.errors()[0]
        field = str(first["loc"][0]) if first["loc"] else name
        fix = f"`monoglot data import list {name}` explains it"
        if field == "files":
            raise InputError.at("command line", name, "needs at least one file", fix) from None
        wrong = "is missing" if first["type"] == "missing" else first["msg"].removeprefix("Value error, ")
        raise InputError.at("command line", field, wrong, fix) from None


def explain(name: str) -> str:
    """What a kind reads, its settings with type and default, and an example, as text for the screen."""
    kind = IMPORTERS[name]
    lines = [f"{name}: {kind.summary}", "", cleandoc(kind.__doc__ or ""), "", "settings (key=value):"]
    for key, field in kind.model_fields.items():
        if key != "files":
            default = "needed" if field.is_required() else f"default {_shown(field.default)}"
            lines.append(f"  {key} ({default}): {field.description}")
    return "\n".join([*lines, "", f"monoglot data import {kind.example} --out rows.jsonl"])


# ------------------------------------------------------------------------------------------------- what kinds share


def read_lines(file: Path, work: Work) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line without its end) of every line that is not blank; memory: one line.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                work.advance(len(line))
                line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if number == 1 else line.rstrip(b"\r\n")
                if line.strip():
                    yield number, line
    except OSError as error:
        raise InputError.at(file, "", f"cannot be read ({error.strerror})", "check the file and its rights") from None


def read_objects(file: Path, work: Work) -> Iterator[Item]:
    """An item of every line of a JSONL file that holds an object; the others are told to `work`."""
    for number, line in read_lines(file, work):
        item = Item({}, file, number)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            work.problem(item.wrong("", f"broken JSON ({error})", "expected one object a line"))
            continue
        if isinstance(value, dict):
            yield Item(value, file, number)
        else:
            work.problem(item.wrong("", f"is a {type(value).__name__}", "expected one object a line"))


def read_document(file: Path, expected: str, *keys: str) -> Any:
    """A JSON file, parsed whole (its layout leaves no choice); an object with all of `keys`, if there are any."""
    document = read_json(file, expected)
    for key in keys:
        if not isinstance(document, dict) or not isinstance(document.get(key), list):
            raise InputError.at(file, key, "is missing or no list", f"expected {expected}")
    return document


def entries(listed: Any, file: Path, place: str, work: Work) -> Iterator[Item]:
    """An item of every object of a list that stood in a JSON file at `place`; what is no object is told to `work`."""
    if not isinstance(listed, list):
        raise InputError.at(file, place, "is no list", "give the file as published")
    size = file.stat().st_size / max(1, len(listed)) if "[" not in place else 0.0  # a list inside is counted already
    for index, value in enumerate(listed):
        work.advance(size)
        item = Item(value, file, place=f"{place}[{index}]")
        if isinstance(value, Mapping):
            yield item
        else:
            work.problem(item.wrong("", f"is a {type(value).__name__}", "expected an object"))


def named_texts(listed: Iterator[Item], name: str, text: str, work: Work) -> list[tuple[str, str]]:
    """(name, text) of each entry, by the keys they stand under; the wrong ones are told to `work`."""
    found = []
    for item in listed:
        try:
            found.append((item.name(name), item.text(text)))
        except InputError as problem:
            work.problem(problem)
    return found


def fill(template: str, item: Item, values: Mapping[str, Any] | None = None) -> list[str]:
    """The names that a template such as `{subset}/{image_id:012d}.jpg|{image_id}.jpg` gives for an entry, in order.

    Raises:
        InputError: every alternative has a name in braces that the entry lacks, or whose value does not fit its format.

    >>> fill("{a:03d}.jpg|{b}.jpg|{c}.jpg", Item({"a": "7", "b": "x"}, Path("rows.csv"), 2))
    ['007.jpg', 'x.jpg']
    """
    known = item.value if values is None else values

    def put(slot: re.Match[str]) -> str:
        key, form = slot[1], slot[2] or ""
        value = known.get(key)
        if value is None:
            raise item.wrong(key, f"is missing, and {template!r} needs it", f"there are: {', '.join(map(str, known))}")
        try:
            return format(int(value) if form.endswith("d") else value, form)
        except (ValueError, TypeError):
            raise item.wrong(key, f"{value!r} cannot be written as {form!r}", "change the template") from None

    names, wrong = [], []
    for alternative in template.split("|"):
        try:
            names.append(re.sub(r"\{([^{}:]+)(?::([^{}]*))?\}", put, alternative))
        except InputError as error:
            wrong.append(error)
    if not names:
        raise wrong[0]
    return names


def targets(texts: Sequence[str]) -> dict[str, Any]:
    """The keys of a row for its references, the first of which is trained on.

    >>> targets(["red", "dark red"]), targets(["red", "red"]), targets([])
    ({'target': 'red', 'targets': ['red', 'dark red']}, {'target': 'red', 'targets': ['red', 'red']}, {})
    """
    if not texts:
        return {}
    return {"target": texts[0], "targets": list(texts)} if len(texts) > 1 else {"target": texts[0]}


def fractions(item: Item, name: str, corners: Sequence[float], size: tuple[float, float]) -> Box:
    """A box in pixels as fractions of its picture, rounded to a millionth.

    Args:
        corners: x0 y0 x1 y1 in pixels; up to one pixel outside is cut.
        size: (height, width) of the picture.

    Raises:
        InputError: the box is empty, or lies outside of the picture.

    >>> fractions(Item({}, Path("a.json")), "bbox", (64, 0, 640.5, 240), (480, 640))
    (0.1, 0.0, 1.0, 0.5)
    """
    height, width = size
    if width <= 0 or height <= 0:
        raise item.wrong("size", f"is {width:g} x {height:g}", "expected the size of the picture in pixels")
    x0, y0, x1, y1 = corners
    if not (-CLIP <= x0 < x1 <= width + CLIP and -CLIP <= y0 < y1 <= height + CLIP):
        shown = " ".join(f"{corner:g}" for corner in corners)
        raise item.wrong(name, f"{shown} is no box in a picture {width:g} wide and {height:g} high", "correct the box")
    x0, y0, x1, y1 = (
        round(min(max(corner / side, 0.0), 1.0), 6) for corner, side in zip(corners, (width, height, width, height))
    )
    if x0 >= x1 or y0 >= y1:
        raise item.wrong(name, "has no area inside of the picture", "correct the box")
    return (x0, y0, x1, y1)


def corners_of(item: Item, name: str, values: Sequence[Any], *, sides: bool = False) -> tuple[float, ...]:
    """Four numbers x0 y0 x1 y1; with `sides` they are given as x y width height."""
    if len(values) != 4:
        raise item.wrong(name, f"has {len(values)} numbers", "expected four")
    a, b, c, d = (as_number(item, name, value) for value in values)
    return (a, b, a + c, b + d) if sides else (a, b, c, d)


def _parts(given: Any) -> Any:
    return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given


def _shown(value: Any) -> str:
    if value is None or value == ():
        return "none"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
