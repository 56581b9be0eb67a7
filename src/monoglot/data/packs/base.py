"""What a pack is, how one is written, and `build`, the one way to make one.

A pack is a folder:

    packs/<pack>/<subset>.<split>.jsonl   rows as in docs/rows.md; media paths relative to the file
    packs/<pack>/media/...                pictures, clips, sounds
    packs/<pack>/NOTICE.md                every source with its licence and attribution
    packs/<pack>/sources.json             packages with version and sha256; written last, so it marks a finished pack
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from rich.console import Console
from rich.progress import track

from monoglot.data.packs.fetch import MissingSource, Package
from monoglot.errors import InputError
from monoglot.plugins import media_kinds
from monoglot.registry import Registry

T = TypeVar("T")

SPLITS = ("train", "valid", "test")

console = Console(stderr=True, highlight=False, soft_wrap=True)


class PackWriter:
    """Writes one pack. Files appear under their names only when they are complete.

    Use as a context manager: leaving it normally renames the row files into place and writes NOTICE.md and, last,
    sources.json; leaving it by an exception throws the row files away and keeps the media for the next attempt.

    >>> with tempfile.TemporaryDirectory() as out:
    ...     with PackWriter("toy", Path(out), seed=0) as writer:
    ...         path = writer.media("a.txt", b"not really a picture")
    ...         writer.add("names", "train", {"id": "a", "task": "name", "image": path, "target": "a letter"})
    ...     sorted(p.name for p in Path(out, "toy").iterdir())
    ['NOTICE.md', 'media', 'names.train.jsonl', 'sources.json']
    """

    def __init__(self, name: str, out: Path, *, seed: int = 0, limit: int | None = None):
        self.name = name
        self.out = Path(out)
        """The folder that holds all packs."""
        self.folder = self.out / name
        self.seed = seed
        self.limit = limit
        """At most this many rows in a file (None: all). `add` drops the rest; a builder may look, to do less work."""
        self._files: dict[tuple[str, str], IO[str]] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._ids: set[str] = set()
        self._media: set[str] = set()
        self._packages: list[Package] = []
        self._notices: list[tuple[str, str, str]] = []
        self._skipped: list[str] = []

    def add(self, subset: str, split: str, row: dict[str, Any]) -> None:
        """Append a row to `<subset>.<split>.jsonl`.

        Raises:
            ValueError: an unknown split, a missing key, an id used before in this pack, or media that are not there.
        """
        where = f"pack {self.name}, {subset}.{split}, row {row.get('id')!r}"
        if split not in SPLITS:
            raise ValueError(f"{where}: split is {split!r}, expected one of {', '.join(SPLITS)}")
        missing = [key for key in ("id", "task") if not row.get(key)]
        if missing or not (row.get("target") or row.get("targets") or row.get("box")):
            raise ValueError(f"{where}: missing {', '.join(missing) or 'one of target, targets, box'}")
        if row["id"] in self._ids:
            raise ValueError(f"{where}: this id was used before")
        for key in media_kinds():
            for path in [row[key]] if isinstance(row.get(key), str) else row.get(key) or []:
                if path not in self._media and not (self.folder / path).is_file():
                    raise ValueError(f"{where}: {key} {path!r} is not a file; write it with `media` first")
                self._media.add(path)
        if self.full(subset, split):
            return
        self._ids.add(row["id"])
        self._rows[subset, split] = self._rows.get((subset, split), 0) + 1
        self._file(subset, split).write(json.dumps(row, ensure_ascii=False) + "\n")

    def full(self, subset: str, split: str) -> bool:
        """Whether `limit` rows have been written there, so that a builder can stop early."""
        return self.limit is not None and self._rows.get((subset, split), 0) >= self.limit

    def media(self, relative: str, data: bytes) -> str:
        """Write `media/<relative>` unless it already holds these bytes; return the path to put into a row."""
        path = self.folder / "media" / relative
        if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
            write_atomic(path, data)
        self._media.add(f"media/{relative}")
        return f"media/{relative}"

    def source(self, package: Package) -> None:
        """Note a package that this pack was made from."""
        if package not in self._packages:
            self._packages.append(package)

    def notice(self, title: str, licence: str, text: str) -> None:
        """Note whose work this is, under which licence, and the attribution that the licence asks for."""
        self._notices.append((title, licence, text.strip()))

    def skip(self, what: str, why: object) -> None:
        """Say that a source is left out, on the screen and in sources.json."""
        self._skipped.append(f"{what}: {why}")
        console.print(f"skipped: {what}: {why}", markup=False)

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Pass `items` on while a progress bar runs."""
        yield from track(items, f"{self.name}: {what}", total=total, console=console, transient=True)

    def counts(self) -> dict[str, int]:
        """Rows written so far, `{"<subset>.<split>": n}`."""
        return {f"{subset}.{split}": rows for (subset, split), rows in sorted(self._rows.items())}

    def __enter__(self) -> PackWriter:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sources.json").unlink(missing_ok=True)  # from here on the pack is unfinished
        for scratch in self.folder.glob(".*.tmp"):  # a killed build's; one that still runs has written within the hour
            if time.time() - scratch.stat().st_mtime > 3600:
                scratch.unlink()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        for (subset, split), file in self._files.items():
            file.close()
            if failure is None:
                os.replace(file.name, self.folder / f"{subset}.{split}.jsonl")
            else:
                os.unlink(file.name)
        if failure is None:
            for old in self.folder.glob("*.jsonl"):  # subsets of an earlier build that this one did not write
                if tuple(old.name.rsplit(".", 2)[:2]) not in self._files:
                    old.unlink()
            for old in (self.folder / "media").rglob("*"):  # and media that neither it nor its rows know
                if old.is_file() and old.relative_to(self.folder).as_posix() not in self._media:
                    old.unlink()
            write_atomic(self.folder / "NOTICE.md", self._notice_text().encode())
            write_atomic(
                self.folder / "sources.json", json.dumps(self._sources(), indent=1, ensure_ascii=False).encode()
            )

    def _file(self, subset: str, split: str) -> IO[str]:
        if (subset, split) not in self._files:
            name = self.folder / f".{subset}.{split}.{os.getpid()}.tmp"
            self._files[subset, split] = open(name, "w", encoding="utf-8")  # noqa: SIM115 (closed in __exit__)
        return self._files[subset, split]

    def _notice_text(self) -> str:
        parts = [f"# Sources of the pack `{self.name}`\n"]
        parts += [f"## {title}\n\nLicence: {licence}\n\n{text}\n" for title, licence, text in self._notices]
        return "\n".join(parts)

    def _sources(self) -> dict[str, Any]:
        packages = [
            {"kind": p.kind, "name": p.name, "version": p.version, "sha256": p.sha256}
            for p in sorted(self._packages, key=lambda p: (p.kind, p.name))
        ]
        settings = {"pack": self.name, "seed": self.seed, "limit": self.limit}
        return {**settings, "packages": packages, "skipped": self._skipped, "rows": self.counts()}


@dataclass(frozen=True)
class Pack:
    """A pack that can be built: what it holds in one line, how, and which packs it reads."""

    name: str
    summary: str
    build: Callable[[PackWriter], None]
    needs: tuple[str, ...] = ()
    terms: str = ""
    """What its licence asks of whoever builds it; told before anything is downloaded."""


PACKS: Registry[Pack] = Registry("pack")


def build(name: str, out: Path, *, seed: int = 0, limit: int | None = None, force: bool = False) -> Path:
    """Build the pack `name` into `out/name`, after the packs that it needs; a finished pack is left as it is.

    Args:
        limit: at most this many rows in each file, for a quick look.
        force: build this pack again even if it is finished (its needs are not built again).

    Returns:
        The pack's folder.

    Raises:
        InputError: no such pack, or a source that it cannot do without is missing.
    """
    pack = PACKS[name]
    out = Path(out)
    folder = out / name
    if (folder / "sources.json").is_file() and not force:
        console.print(f"{name}: already built in {folder}", markup=False)
        return folder
    if pack.terms:
        console.print(f"{name}: {pack.terms}", markup=False)
    for need in pack.needs:
        build(need, out, seed=seed, limit=limit)
    try:
        with PackWriter(name, out, seed=seed, limit=limit) as writer:
            pack.build(writer)
            rows = sum(writer.counts().values())
    except MissingSource as missing:
        raise InputError.at(f"pack {name}", "source", str(missing)) from missing
    console.print(f"{name}: {rows} rows in {folder}", markup=False)
    return folder


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that its name never shows half of it; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(scratch, 0o644)  # mkstemp makes it private
        os.replace(scratch, path)
    except BaseException:
        Path(scratch).unlink(missing_ok=True)
        raise
