"""What an import works with: where media lie, and where rows, pictures and problems go.

    Item (one entry of the published data, with its place) -> row -> Work.add: unique id, checked as `data validate` does -> rows.jsonl

Beside `rows.jsonl` there may be
    rows.jsonl.problems.jsonl   every entry that gave no row: {"problem": "file:line: field: what is wrong; the fix", "missing": bool}
    rows.shards/                tar files with the pictures that stood inside of the data
    rows.jsonl.partial          the good rows of an import that was stopped or had too many problems
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import Progress

from monoglot.data.importers.shards import Shards, picture_header
from monoglot.data.rows import TAR, parse_row, picture_size
from monoglot.errors import InputError, MediaError
from monoglot.files import atomic_path
from monoglot.tasks import TASKS, pose

Row = dict[str, Any]
HOPELESS = 1000
"""An import whose first so many entries all fail is stopped."""
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
FIRST_NAMES = 3
"""So many missing files are named in the summary."""


@dataclass(frozen=True)
class Item:
    """One entry of the published data, and where it stands."""

    value: Any
    file: Path
    line: int | None = None
    place: str = ""
    """Where in a file that has no lines: `images[17]`."""

    @property
    def where(self) -> str:
        """`file:line`, or `file: place`."""
        return f"{self.file}:{self.line}" if self.line is not None else f"{self.file}: {self.place}".removesuffix(": ")

    def wrong(self, name: str, wrong: str, fix: str = "") -> InputError:
        """The error to raise when the entry's field `name` is wrong.

        >>> str(Item({}, Path("a.json"), place="images[3]").wrong("split", "is missing", "expected a string"))
        'a.json: images[3]: split: is missing; expected a string'
        """
        return InputError.at(self.where, name, wrong, fix)

    def get(self, key: str) -> Any:
        """The field `key`. Raises InputError when it is missing or null."""
        value = self.value.get(key) if isinstance(self.value, Mapping) else None
        if value is None:
            known = ", ".join(map(str, list(self.value)[:12])) if isinstance(self.value, Mapping) else "none"
            raise self.wrong(key, "is missing", f"fields that are there: {known}")
        return value

    def text(self, key: str) -> str:
        """The field `key` as one line of text. Raises InputError when it is missing, no string or empty."""
        value = self.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"is {_short(value)}", "expected a text that is not empty")
        return " ".join(value.split())

    def name(self, key: str) -> str:
        """The field `key`, a string or a whole number, as a string. Raises InputError for anything else."""
        value = self.get(key)
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
            raise self.wrong(key, f"is {_short(value)}", "expected a name or a whole number")
        return str(value).strip()

    def list(self, key: str) -> list[Any]:
        """The field `key`, a list. Raises InputError for anything else."""
        value = self.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, f"is {_short(value)}", "expected a list")
        return value

    def number(self, key: str) -> float:
        """The field `key`, a number or a string that reads as one. Raises InputError for anything else."""
        return as_number(self, key, self.get(key))


def as_number(item: Item, name: str, value: Any) -> float:
    """A value of the entry as a number.

    >>> as_number(Item({}, Path("a.csv"), 2), "start", " 1.5 ")
    1.5
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise item.wrong(name, f"is {_short(value)}", "expected a number") from None


@dataclass
class Report:
    """What an import made of the data."""

    out: Path
    problems_file: Path
    rows: int = 0
    problems: int = 0
    """Entries that gave no row, missing files included."""
    missing: int = 0
    """Entries whose picture, clip or sound is not there."""
    missing_names: list[str] = field(default_factory=list)
    """The first of these files."""
    first: str = ""
    """The first problem."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Entries that the settings leave out, by reason; no problems."""
    tasks: Counter[str] = field(default_factory=Counter)
    renamed: int = 0
    """Rows whose id had stood in the data before and got its line number added."""
    old_shards: list[str] = field(default_factory=list)
    """Folders of pictures that earlier imports to this file made; other rows may name them, so they stay."""

    def summary(self) -> str:
        """One line for the screen."""
        parts = [f"{self.rows} rows ({', '.join(f'{task} {count}' for task, count in sorted(self.tasks.items()))})"]
        if self.left_out:
            parts.append("left out: " + ", ".join(f"{count} {why}" for why, count in sorted(self.left_out.items())))
        if self.renamed:
            parts.append(f"{self.renamed} ids came again and have their place added")
        if self.problems:
            missing = (
                f", {self.missing} of them missing files ({', '.join(self.missing_names)})" if self.missing else ""
            )
            parts.append(f"{self.problems} problems{missing}, each told in {self.problems_file}")
        if self.old_shards:
            parts.append(
                f"{', '.join(self.old_shards)} of an earlier import stay; remove them if no other rows name them"
            )
        return f"{self.out}: {'; '.join(parts)}"


class Ids:
    """Makes ids unique in 16 MB, however many there are.

    What was seen is kept in a Bloom filter: it knows every id again, and seldom takes a new one for known (about 1 of 500 at
    10 million ids), which then also gets its place added.

    >>> ids = Ids()
    >>> ids.unique("a", 1), ids.unique("a", 2), ids.unique("a", 2)
    ('a', 'a-2', 'a-2-2')
    """

    BITS = 1 << 27

    def __init__(self) -> None:
        self._bits = bytearray(self.BITS // 8)

    def unique(self, name: str, place: int) -> str:
        """`name`, with `place` added if it may have been there already."""
        while self._seen(name):
            name = f"{name}-{place}"
        return name

    def _seen(self, name: str) -> bool:
        """Look for and set seven bits, chosen by the name."""
        bits, seen = self._bits, True
        digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=28).digest()
        for number in _SEVEN.unpack(digest):
            byte, bit = (number & (self.BITS - 1)) >> 3, 1 << (number & 7)
            if not bits[byte] & bit:
                seen = False
                bits[byte] |= bit
        return seen


_SEVEN = struct.Struct("<7I")


class Work:
    """One import. Use as a context manager: leaving it normally puts `out` in place, leaving it by an exception the partial file.

    Args:
        out: the JSONL file of rows.
        media: the folder that names of pictures, clips and sounds start from; None for the folder of the file that names them.
        check: whether a file that is named must be there.
        problems: where problems are written; None for `<out>.problems.jsonl`.
        total: bytes to be read, for the progress bar; 0 if that is not known.
    """

    def __init__(
        self, out: Path, *, media: Path | None = None, check: bool = True, problems: Path | None = None, total: int = 0
    ):
        self.out = Path(out)
        if "#" in self.out.name or not self.out.name.endswith(".jsonl"):
            raise InputError.at(self.out, "--out", "is no name for a file of rows", "give one such as data/rows.jsonl")
        if media is not None and not Path(media).is_dir():
            raise InputError.at(media, "--media", "no such folder", "say where the pictures, clips or sounds lie")
        self.check = check
        self.report = Report(self.out, problems or self.out.with_name(self.out.name + ".problems.jsonl"))
        self.partial = self.out.with_name(self.out.name + ".partial")
        self.at_end: list[Callable[[], object]] = []
        """Called when the import has succeeded: files that go with the rows."""
        self._folder = os.path.abspath(self.out.parent)
        self._media = os.path.abspath(media) if media is not None else None
        self._ids = Ids()
        self._shards = Shards(self._free_shards())
        self._stored: tuple[str, tuple[int, int], int] = ("", (0, 0), 1)
        """Path, size as shown and orientation of the picture that was stored last."""
        self._total, self._done, self._told = total, 0.0, 0.0
        self._rows: IO[bytes] | None = None
        self._problems: IO[str] | None = None

    # what a kind calls ---------------------------------------------------------------------------------------------

    def media(self, item: Item, name: str, *files: str) -> str:
        """The path that a row gives to the first of `files` that is there: relative to `out`'s folder when below it.

        Raises:
            MissingMedia: none of them is there (when files are checked).
            InputError: what is no path, such as an address.
        """
        for file in files:
            if not file.strip() or "\0" in file or ("://" in file and not file.startswith(TAR)):
                raise item.wrong(name, f"{_short(file)} is not a path", "download the files first, and name them")
        base = self._media if self._media is not None else _folder_of(item.file)
        if not self.check:
            return self._for_row(base, files[0])
        for file in files:
            if _is_there(os.path.join(base, file) if not file.startswith(TAR) else _shard(base, file)):
                return self._for_row(base, file)
        path = os.path.join(base, files[0])
        more = f" (nor {', '.join(files[1:])})" if len(files) > 1 else ""
        fix = "say where they lie with --media, or leave the check out with --no-check"
        raise MissingMedia(str(item.wrong(name, f"no such file, or an empty one: {path}{more}", fix)), path)

    def store(self, item: Item, name: str, data: bytes, *, suffix: str = "") -> str:
        """Put a file's bytes into the shards; returns the path for a row.

        Args:
            suffix: of a sound or clip, such as ".wav"; without it the bytes must be a picture.
        """
        if suffix:
            return self._shards.add(data, suffix)
        try:
            suffix, size, turn = picture_header(data)
        except ValueError as error:
            raise item.wrong(name, str(error), "export it again") from None
        path = self._shards.add(data, suffix)
        self._stored = (path, size if turn < 5 else (size[1], size[0]), turn)
        return path

    def size(self, item: Item, image: str, *, unturned: bool = False) -> tuple[int, int]:
        """(height, width) of a picture, by the path that a row gives to it, as it is shown.

        Args:
            unturned: refuse a picture that is shown turned as its EXIF says, since boxes were drawn on it as it lies.
        """
        path, size, turn = self._stored
        if path != image:
            try:
                size, turn = picture_size(os.path.join(self._folder, image)), 1
            except InputError as error:
                raise item.wrong("image", f"its size is needed for a box in pixels: {error}") from None
        if unturned and turn != 1:
            raise item.wrong("image", "is shown turned, by its EXIF, and its box is not", "turn both, or leave it out")
        return size

    def left_out(self, why: str) -> None:
        """Count an entry that the settings leave out."""
        self.report.left_out[why] += 1

    def problem(self, error: InputError) -> None:
        """Tell and count an entry that gives no row."""
        report = self.report
        report.problems += 1
        report.first = report.first or str(error)
        if isinstance(error, MissingMedia):
            report.missing += 1
            if len(report.missing_names) < FIRST_NAMES:
                report.missing_names.append(error.path)
        if self._problems is None:
            report.problems_file.parent.mkdir(parents=True, exist_ok=True)
            self._problems = open(_draft(report.problems_file), "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        told = {"problem": str(error), "missing": isinstance(error, MissingMedia)}
        self._problems.write(json.dumps(told, ensure_ascii=False) + "\n")
        if not report.rows and report.problems >= HOPELESS:
            raise TooMany(f"none of the first {HOPELESS} entries gave a row")

    def advance(self, read: float) -> None:
        """So many more bytes have been read."""
        self._done += read
        if self._done - self._told > self._total / 500:
            self._bar.update(self._task, completed=self._done)
            self._told = self._done

    # what the import calls -----------------------------------------------------------------------------------------

    def add(self, row: Row, item: Item) -> None:
        """Give the row a unique id, check it, write it. Raises InputError when it is no good row."""
        row = {key: value for key, value in row.items() if value is not None}
        sample = parse_row(row, where_file=item.where, base=self._folder, known_tasks=TASKS)
        pose(sample)
        number = self.report.rows + 1
        wanted = sample.id or str(number)
        name = self._ids.unique(wanted, item.line or number)
        self.report.renamed += name != wanted
        try:
            line = _ENCODE({**row, "id": name}).encode() + b"\n"
        except UnicodeEncodeError:
            raise item.wrong("", "is not UTF-8, or holds half of a surrogate pair", "save it as UTF-8") from None
        except (TypeError, ValueError) as error:
            raise item.wrong("", f"cannot be written as JSON: {error}", "leave that column out") from None
        assert self._rows is not None
        self._rows.write(line)
        self.report.rows += 1
        self.report.tasks[sample.task] += 1

    def judge(self, allow: float) -> None:
        """Raise InputError when there is no row, or when more than the share `allow` of the entries gave none."""
        report = self.report
        if not report.rows:
            why = f"the first problem is: {report.first}" if report.first else "the data hold no such entry"
            raise TooMany(f"no row came out; {why}")
        share = report.problems / (report.rows + report.problems)
        if share > allow:
            raise TooMany(f"{report.problems} entries ({share:.1%}) gave no row, more than --allow {allow:g}")

    def __enter__(self) -> Work:
        with ExitStack() as stack:  # a folder that cannot be written becomes one clear line
            self._draft = stack.enter_context(atomic_path(self.out))
            self._rows = stack.enter_context(open(self._draft, "wb"))
            bar = Progress(console=Console(stderr=True), transient=True, disable=not self._total)
            self._bar = stack.enter_context(bar)
            self._task = bar.add_task(self.out.name, total=self._total or None)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        assert self._rows is not None
        try:
            self._rows.close()
            self._shards.close()
            if self._problems is not None:
                self._problems.close()
                os.replace(self._problems.name, self.report.problems_file)
            if error is not None:
                self._keep_partial()
        except OSError as full:
            kind, error = OSError, error or full
        self._stack.__exit__(kind, error, trace)
        if isinstance(error, TooMany):
            raise InputError.at(self.out, "", *self._verdict(error)) from None
        if error is None:
            self._replaced()
            for write in self.at_end:
                write()

    # inside ---------------------------------------------------------------------------------------------------------

    def _verdict(self, error: TooMany) -> tuple[str, str]:
        report = self.report
        told = f"; all are told in {report.problems_file}" if report.problems else ""
        kept = f"; the {report.rows} good rows are in {self.partial}" if report.rows else ""
        left = ", ".join(f"{count} {why}" for why, count in sorted(report.left_out.items()))
        fix = "correct the data, or allow more" if report.rows else "check the files, the settings and --media"
        return f"{error}{told}{kept}" + (f"; left out: {left}" if left else ""), fix

    def _keep_partial(self) -> None:
        if self.report.rows:
            os.replace(self._draft, self.partial)
        else:
            shutil.rmtree(self._shards.folder, ignore_errors=True)

    def _replaced(self) -> None:
        """What told of an earlier import goes; its pictures stay, since other rows may name them."""
        self.partial.unlink(missing_ok=True)
        if self._problems is None:
            self.report.problems_file.unlink(missing_ok=True)
        self.report.old_shards = [folder.name for folder in self._shard_folders() if folder != self._shards.folder]

    def _shard_folders(self) -> list[Path]:
        stem = re.escape(self.out.name.removesuffix(".jsonl"))
        parent = self.out.parent
        found = sorted(parent.iterdir()) if parent.is_dir() else []
        return [path for path in found if re.fullmatch(rf"{stem}\.shards(-\d+)?", path.name) and path.is_dir()]

    def _free_shards(self) -> Path:
        """A folder that no earlier file of rows refers to, so that an import that fails leaves the earlier one whole."""
        name = self.out.name.removesuffix(".jsonl") + ".shards"
        taken = {folder.name for folder in self._shard_folders()}
        names = [name, *(f"{name}-{number}" for number in range(2, len(taken) + 2))]
        return self.out.with_name(next(free for free in names if free not in taken))

    def _for_row(self, base: str, file: str) -> str:
        if file.startswith(TAR):
            shard, _, member = file[len(TAR) :].partition("#")
            return f"{TAR}{self._for_row(base, shard)}#{member}"
        path = os.path.abspath(os.path.join(base, file))
        return path[len(self._folder) + 1 :] if path.startswith(self._folder + os.sep) else path


class MissingMedia(MediaError):
    """A picture, clip or sound that an entry names is not there."""

    def __init__(self, message: str, path: str):
        super().__init__(message)
        self.path = path


class TooMany(Exception):
    """The import cannot stand; the message says why."""


@lru_cache(maxsize=64)
def _folder_of(file: Path) -> str:
    return os.path.abspath(file.parent)


def _is_there(path: str) -> bool:
    """Whether a file with something in it lies there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _shard(base: str, file: str) -> str:
    return os.path.join(base, file[len(TAR) :].partition("#")[0])


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _short(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
