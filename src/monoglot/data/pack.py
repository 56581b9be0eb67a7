"""Rows and their media -> tar shards in WebDataset's layout, with an index beside them.

    RowFile -> numbered -> write_shards -> shards, and for each a part -> merge -> index.npy, media.npy, pack.json

A part is what is known of one finished shard: pack.parts/<shard>.json, written last, and its two arrays. Whoever is killed goes
on behind the last part. Several processes may each call `write_shards` into one folder, each with rows and a prefix of its
own; `merge` then makes one pack of all. docs/packing.md says what the files hold.

Source of the layout: WebDataset (github.com/webdataset/webdataset): the members of a sample follow each other and share
their name up to its first dot. pack.json is also a shard list of its `wids`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monoglot import __version__
from monoglot.data.rowfile import INDEX, MANIFEST, MEDIA, MEMBER, PACK_VERSION, ROW, RowFile
from monoglot.data.rows import sample_to_row
from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json, sha256_of, write_json, write_text
from monoglot.modalities.source import PLACED, open_source
from monoglot.nouns import Media, Sample

if TYPE_CHECKING:
    from monoglot.data.shrink import Shrink

PARTS, PROBLEMS = "pack.parts", "problems.jsonl"
FEW = 10
"""So many bad rows are no reason to stop, however few rows there are; as in training."""
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)  # two empty blocks end a tar
_USTAR_BYTES = 8 * 2**30  # from here on a size has no room in a ustar header
_JSON = json.JSONEncoder(ensure_ascii=False, allow_nan=False)
_MAGIC = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"GIF8": ".gif", b"fLaC": ".flac"}
_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")


@dataclass(frozen=True)
class Problem:
    """A row that is left out."""

    row: str
    """Where it is: `file:line`."""
    error: str


@dataclass
class Part:
    """What is known of one finished shard."""

    shard: str
    """Name of the tar."""
    origin: dict[str, Any]
    """What the rows come from and how they are packed; the parts of one pack share it."""
    first: int
    """Number of the first row that was looked at for it; `stop` the number behind the last, where the next shard goes on."""
    stop: int
    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    tasks: dict[str, int] = field(default_factory=dict)
    """Rows by task."""
    media: dict[str, int] = field(default_factory=dict)
    """Pictures, clips, sounds."""
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True)
class Packed:
    """A row as it goes into a shard."""

    number: int
    sample: Sample
    members: list[tuple[str, bytes]]
    """Names and bytes: the row's JSON, then its media in order."""

    @property
    def room(self) -> int:
        """Bytes that it takes in a tar."""
        return sum(_BLOCK + len(data) + -len(data) % _BLOCK for _, data in self.members)


def pack(
    source: Path, out: Path, *, shard_mb: float = 256, share: float = 0.01, shrink: Shrink | None = None
) -> dict[str, Any]:
    """Pack the rows of a file with their media into a folder; go on where an earlier call was stopped.

    Args:
        source: a JSONL file of rows, or a pack.
        out: the folder of the pack; it may not hold another one.
        shard_mb: most megabytes (of 10^6 bytes) of a shard; a larger row gets a shard of its own.
        share: of rows that may be bad, FEW at least; they are left out and listed in problems.jsonl. 0 stops at the first.
        shrink: makes media smaller on their way; None copies them.

    Returns:
        What pack.json says.

    Raises:
        InputError: the source has no rows or too many bad ones, `out` holds another pack, or the disk is full. Finished
            shards stay.
    """
    rows = RowFile(source)
    origin, finished = begin(rows, out, shard_mb=shard_mb, shrink=shrink)
    if finished:
        return finished
    parts = finished_shards(out, origin)
    start = parts[-1].stop if parts else 0
    screen = Console(stderr=True)
    columns = (TextColumn("packing"), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    left_out = LeftOut(out / PROBLEMS, len(rows), share, [problem for part in parts for problem in part.problems])
    with left_out, Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=len(rows), completed=start)
        for _ in write_shards(
            _counted(numbered(rows, start, shrink=shrink), lambda count: progress.advance(bar, count)),
            out,
            shard_bytes=round(shard_mb * 1e6),
            shard=len(parts),
            origin=origin,
            tell=left_out,
        ):
            pass
    return finish(out, left_out)


class LeftOut:
    """The rows that are left out: called with each, listed in a file when its block ends, and no more than may be.

    Raises InputError when there are more.
    """

    def __init__(
        self, file: Path, rows: int, share: float, problems: Iterable[Problem] = (), *, cannot: str = "cannot be packed"
    ):
        self.file, self.rows, self.share, self.problems, self.cannot = file, rows, share, list(problems), cannot

    def __call__(self, problem: Problem) -> None:
        self.problems.append(problem)
        if len(self.problems) > (max(FEW, self.share * self.rows) if self.share else 0):
            wrong = f"{len(self.problems)} of {self.rows} rows {self.cannot}"
            raise InputError.at(self.file, "data", wrong, f"mend them or raise --quarantine-share ({self.share:g})")

    def __enter__(self) -> LeftOut:
        return self

    def __exit__(self, *_: object) -> None:
        write_problems(self.file, self.problems)


def begin(
    rows: RowFile, out: Path, *, shard_mb: float, shrink: Shrink | None, **settings: Any
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the parts of these rows have in common, and pack.json if the folder has it already.

    Raises:
        InputError: there are no rows, or the folder holds something else.
    """
    if not len(rows):
        raise InputError.at(rows.path, "data", "has no rows", "a pack needs at least one")
    origin = {"file": rows.path.name, "fingerprint": rows.fingerprint(), "rows": len(rows), "shard_mb": shard_mb}
    origin |= settings | ({"shrink": asdict(shrink)} if shrink else {})
    if (out / MANIFEST).exists():
        return origin, _finished(out, origin)
    _claim(out)
    for path in islice((out / PARTS).glob("*.json"), 1):
        if (found := _load(path).origin) != origin:
            raise of_another(path, found, origin)
    return origin, None


def finish(out: Path, left_out: LeftOut) -> dict[str, Any]:
    """`merge`, if any row was packed; InputError if not."""
    if len(left_out.problems) == left_out.rows:
        raise InputError.at(left_out.file, "data", f"none of {left_out.rows} rows can be packed", "mend them")
    return merge(out)


def numbered(
    rows: RowFile, start: int = 0, stop: int | None = None, shrink: Shrink | None = None
) -> Iterator[tuple[int, Sample | Problem]]:
    """The rows from `start` up to `stop` with their numbers, made smaller; in place of one that cannot be read, why."""
    for number in range(start, len(rows) if stop is None else stop):
        try:
            yield number, shrink(rows[number]) if shrink else rows[number]
        except InputError as error:
            yield number, Problem(rows.where(number), str(error))


def _counted(rows: Iterable[Any], advance: Callable[[int], None], step: int = 100) -> Iterator[Any]:
    """Pass rows on; the bar moves a hundred at a time."""
    for count, row in enumerate(rows, start=1):
        yield row
        if count % step == 0:
            advance(step)


def _finished(out: Path, origin: dict[str, Any]) -> dict[str, Any]:
    """pack.json of a folder that has one; InputError if it is of other rows."""
    manifest = read_json(out / MANIFEST, "what `monoglot data pack` wrote")
    if not isinstance(manifest, dict) or manifest.get("origin") != origin:
        raise of_another(out / MANIFEST, manifest.get("origin") if isinstance(manifest, dict) else None, origin)
    _tidy(out)
    return manifest


def _claim(out: Path) -> None:
    """Make the folder a pack's. Raises InputError if it holds anything but a pack that was begun."""
    try:
        if not (out / PARTS).is_dir() and out.exists() and any(out.iterdir()):
            raise InputError.at(out, "data", "holds other files", "choose a new folder for the pack")
        (out / PARTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError.at(out, "data", f"cannot be written ({error.strerror})", "choose another place") from None


def finished_shards(out: Path, origin: dict[str, Any], prefix: str = "shard") -> list[Part]:
    """The finished shards of an earlier call, in order, up to the first that is missing or has another size."""
    parts: list[Part] = []
    while (path := out / PARTS / f"{_shard_name(prefix, len(parts))}.json").exists():
        part = _load(path)
        if part.origin != origin:
            raise of_another(path, part.origin, origin)
        shard = out / part.shard
        if not shard.is_file() or shard.stat().st_size != part.bytes:
            break
        parts.append(part)
    return parts


def of_another(path: Path, there: Any, wanted: dict[str, Any]) -> InputError:
    there = there if isinstance(there, dict) else {}
    differing = [key for key in wanted | there if there.get(key) != wanted.get(key)]
    wrong = f"belongs to other rows or settings ({', '.join(differing)} differ)"
    return InputError.at(path, "data", wrong, "choose another folder, or remove this one")


# --- shards -----------------------------------------------------------------------------------------------------------


def write_shards(
    rows: Iterable[tuple[int, Sample | Problem]],
    folder: Path,
    *,
    shard_bytes: int,
    prefix: str = "shard",
    shard: int = 0,
    origin: dict[str, Any] | None = None,
    tell: Callable[[Problem], None] = lambda problem: None,
) -> Iterator[Part]:
    """Write rows into <prefix>-000000.tar, <prefix>-000001.tar ...; yield the part of each when shard and part are on disk.

    Memory: one row with its media, and the index of one shard.

    Args:
        rows: with rising numbers, which name the members; no two rows of a pack may share one.
        shard_bytes: a shard ends before the row that would make it larger, unless that is its only one.
        shard: number of the first shard.
        origin: what the rows come from, kept in each part; `merge` refuses parts of several.
        tell: called with each row that cannot be packed, before the next one is read; it may raise.
    """
    items = ((number, _packed(number, row) if isinstance(row, Sample) else row) for number, row in rows)
    for name, of_shard in groupby(items, key=_Assign(prefix, shard, shard_bytes)):
        with atomic_path(folder / name) as draft:
            part, index, media = _write_tar(name, of_shard, draft, origin or {}, tell)
        save_part(folder, part, index, media)
        yield part


class _Assign:
    """Called with each (number, row) in turn: the name of the shard that it goes to."""

    def __init__(self, prefix: str, shard: int, most: int):
        self.prefix, self.shard, self.most, self.at = prefix, shard, most, len(_END)

    def __call__(self, item: tuple[int, Packed | Problem]) -> str:
        row = item[1]
        if isinstance(row, Packed):
            if self.at > len(_END) and self.at + row.room > self.most:
                self.shard, self.at = self.shard + 1, len(_END)
            self.at += row.room
        return _shard_name(self.prefix, self.shard)


def _shard_name(prefix: str, shard: int) -> str:
    return f"{prefix}-{shard:06d}.tar"


def _packed(number: int, sample: Sample) -> Packed | Problem:
    """The members of a row, its media read into memory."""
    members: list[tuple[str, bytes]] = []
    media: list[Media] = []
    taken = {f"{number:09d}.json"}
    try:
        for item in sample.media:
            name = _free_name(number, item, [other.modality for other in media].count(item.modality), taken)
            file, _ = open_source(item)
            with file:
                members.append((name, file.read()))
            media.append(replace(item, source=name))
        text = _JSON.encode(sample_to_row(replace(sample, media=tuple(media)))).encode()
    except (InputError, OSError, ValueError) as error:  # ValueError: NaN, half a character
        told = (
            error if isinstance(error, InputError) else InputError.at(sample.where, "", f"cannot be packed ({error})")
        )
        return Problem(sample.where, str(told))
    return Packed(number, sample, [(f"{number:09d}.json", text), *members])


def _free_name(number: int, media: Media, count: int, taken: set[str]) -> str:
    """000000017.jpg for the first picture of row 17, 000000017.1.jpg for its second; the name is then taken."""
    if isinstance(media.source, bytes):
        suffix = suffix_of(media.source)
    else:
        placed = PLACED.fullmatch(media.source)
        suffix = os.path.splitext(placed["member"] if placed else media.source)[1].lower()
    suffix = suffix if _SUFFIX.fullmatch(suffix) else f".{media.modality}"
    while (name := f"{number:09d}{f'.{count}' if count else ''}{suffix}") in taken:
        count += 1
    taken.add(name)
    return name


def suffix_of(data: bytes) -> str:
    """How files that begin so mostly end; '' if it is none of ours.

    >>> suffix_of(b"fLaC...")
    '.flac'
    """
    if data[:4] == b"RIFF":
        return {b"WEBP": ".webp", b"WAVE": ".wav"}.get(data[8:12], "")
    if data[4:8] == b"ftyp":
        return ".mp4"
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), "")


def _write_tar(
    name: str,
    items: Iterable[tuple[int, Packed | Problem]],
    path: Path,
    origin: dict[str, Any],
    tell: Callable[[Problem], None],
) -> tuple[Part, np.ndarray, np.ndarray]:
    """Write one shard; returns its part, ROW[rows] and MEMBER[media items] with places in this shard."""
    part: Part | None = None
    index, media = list[tuple[int, ...]](), list[tuple[int, int]]()
    tasks, modalities = Counter[str](), Counter[str]()
    with open(path, "wb", buffering=1 << 20) as file:
        tar = _Tar(file)
        for number, row in items:
            part = part or Part(name, origin, number, number)
            part.stop = number + 1
            if isinstance(row, Problem):
                part.problems.append(row)
                tell(row)
                continue
            places = [(tar.add(member, data), len(data)) for member, data in row.members]
            index.append((0, places[0][1], places[0][0], number, len(media)))
            media += places[1:]
            tasks[row.sample.task] += 1
            modalities.update(item.modality for item in row.sample.media)
        assert part is not None
        tar.write(_END)
    part.rows, part.bytes, part.sha256 = len(index), tar.at, tar.digest.hexdigest()
    part.tasks, part.media = dict(tasks), dict(modalities)
    return part, np.array(index, ROW), np.array(media, MEMBER)


class _Tar:
    """An uncompressed tar that is written in one go: ustar headers, pax before a member of 8 GiB or more."""

    def __init__(self, file: BinaryIO):
        self.file, self.at, self.digest = file, 0, hashlib.sha256()

    def add(self, name: str, data: bytes) -> int:
        """Returns where the bytes begin: at a multiple of 512. Time and owner are left out, so that equal rows make equal shards."""
        header = tarfile.TarInfo(name)
        header.size = len(data)
        self.write(header.tobuf(tarfile.USTAR_FORMAT if len(data) < _USTAR_BYTES else tarfile.PAX_FORMAT))
        offset = self.at
        self.write(data)
        self.write(bytes(-len(data) % _BLOCK))
        return offset

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.at += len(data)


# --- parts and the whole ----------------------------------------------------------------------------------------------


def save_part(folder: Path, part: Part, index: np.ndarray, media: np.ndarray) -> None:
    """Say that a shard is finished: `index` ROW[rows] and `media` MEMBER[items], with places in this shard."""
    for name, array in ((INDEX, index), (MEDIA, media)):
        with atomic_path(folder / PARTS / f"{part.shard}.{name}") as draft, open(draft, "wb") as file:
            np.save(file, array)
    write_json(folder / PARTS / f"{part.shard}.json", asdict(part))


def _load(path: Path) -> Part:
    found = read_json(path, "a part of a pack")
    try:
        problems = [Problem(**problem) for problem in found.pop("problems")]
        return Part(**found, problems=problems)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError.at(path, "data", f"is no part of a pack ({error!r})", "remove it") from None


def merge(folder: Path) -> dict[str, Any]:
    """Make one pack of the finished shards in a folder, in the order of their first rows; the parts are then removed.

    Memory: the index of one shard, and what is known of each.

    Returns:
        What pack.json says.

    Raises:
        InputError: there are no parts, they are of several origins, or two shards hold rows of the same numbers.
    """
    parts = sorted((_load(path) for path in (folder / PARTS).glob("*.json")), key=lambda part: (part.first, part.shard))
    if not parts:
        raise InputError.at(folder, "data", "holds no finished shards", "pack rows into it first")
    for before, part in pairwise(parts):
        if part.origin != before.origin:
            raise of_another(folder / PARTS / f"{part.shard}.json", part.origin, before.origin)
        if part.first < before.stop:
            wrong = f"begins with row {part.first}, but {before.shard} goes up to {before.stop - 1}"
            raise InputError.at(folder / part.shard, "data", wrong, "number the rows through")
    shards = [part for part in parts if part.rows]
    media = [sum(part.media.values()) for part in shards]
    _join(folder, INDEX, ROW, [part.rows for part in shards], shards, before=np.cumsum([0, *media]))
    _join(folder, MEDIA, MEMBER, media, shards)
    problems = [problem for part in parts for problem in part.problems]
    write_problems(folder / PROBLEMS, problems)
    manifest = {
        "pack_version": PACK_VERSION,
        "wids_version": 1,
        "monoglot": __version__,
        "origin": parts[0].origin,
        "rows": sum(part.rows for part in shards),
        "left_out": len(problems),
        "bytes": sum(part.bytes for part in shards),
        "tasks": _summed(part.tasks for part in shards),
        "media": _summed(part.media for part in shards),
        "index": {
            name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_of(folder / name)}
            for name in (INDEX, MEDIA)
        },
        "shardlist": [
            {"url": part.shard, "nsamples": part.rows, "filesize": part.bytes, "sha256": part.sha256} for part in shards
        ],
    }
    write_json(folder / MANIFEST, manifest)
    for part in parts:
        if not part.rows:  # all of its rows were bad
            (folder / part.shard).unlink(missing_ok=True)
    _tidy(folder)
    return manifest


def _summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total = Counter[str]()
    for some in counts:
        total.update(some)
    return dict(sorted(total.items()))


def _join(
    folder: Path, name: str, kind: np.dtype, lengths: list[int], shards: list[Part], before: np.ndarray | None = None
) -> None:
    """One array of those of all shards. `before`: media items in the shards before each; the arrays are then rows."""
    with atomic_path(folder / name) as draft, open(draft, "wb") as file:
        shape = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (sum(lengths),)}
        np.lib.format.write_array_header_1_0(file, shape)
        for number, part in enumerate(shards):
            array = np.load(folder / PARTS / f"{part.shard}.{name}", allow_pickle=False)
            if before is not None:
                array["shard"] = number
                array["media"] += before[number].astype(np.uint64)
            file.write(array.tobytes())


def write_problems(path: Path, problems: list[Problem]) -> None:
    """No problems, no file."""
    if problems:
        lines = (json.dumps(asdict(problem), ensure_ascii=False) + "\n" for problem in problems)
        write_text(path, "".join(lines))
    else:
        path.unlink(missing_ok=True)


def _tidy(folder: Path) -> None:
    """Remove what a finished pack needs no more, also what killed processes left."""
    for part in (*(folder / PARTS).glob("*.tar.*"), *folder.glob(".*.tar.*.tmp"), *(folder / PARTS).glob(".*.tmp")):
        part.unlink(missing_ok=True)
    with suppress(OSError):
        (folder / PARTS).rmdir()
