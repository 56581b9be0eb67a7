"""Names to things, in plain sight: a wrong name gets its nearest neighbours, a duplicate is loud."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TypeVar

from monoglot.errors import InputError

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A dictionary that is only added to.

    >>> colours = Registry[int]("colour")
    >>> colours.add("red", 1)
    1
    >>> colours["rad"]
    Traceback (most recent call last):
    monoglot.errors.InputError: no colour named 'rad'; closest: 'red'; known: red
    """

    def __init__(self, kind: str):
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str, entry: T) -> T:
        """Register `entry` and return it. Raises ValueError if the name is taken."""
        if name in self._entries:
            raise ValueError(f"{self.kind} {name!r} is registered twice")
        self._entries[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name in self._entries:
            return self._entries[name]
        raise InputError(unknown_name(self.kind, name, self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def unknown_name(kind: str, name: str, known: object) -> str:
    """The sentence that answers a misspelt name.

    >>> unknown_name("task", "captoin", ["caption", "vqa"])
    "no task named 'captoin'; closest: 'caption'; known: caption, vqa"
    """
    names = sorted(str(item) for item in known)  # type: ignore[attr-defined]
    near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
    closest = f"; closest: {', '.join(map(repr, near))}" if near else ""
    return f"no {kind} named {name!r}{closest}; known: {', '.join(names)}"
