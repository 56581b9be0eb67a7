"""Kinds of media: which there are, and where those come from that monoglot does not bring.

    monoglot --plugin FILE, MONOGLOT_PLUGINS, entry points `monoglot.modalities` -> MODALITIES -> media_kinds (what a row may name)

A plugin is a Python file, or an installed module, that adds to MODALITIES when it is imported. Plugins are loaded when somebody first asks
which modalities there are, each once. They are code that the user names; a model folder never brings any.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from typing import Any

from monoglot.errors import InputError
from monoglot.registry import Registry, unknown_name

VARIABLE = "MONOGLOT_PLUGINS"
"""Environment variable: Python files, parted as in PATH."""
GROUP = "monoglot.modalities"
"""Entry points of installed packages."""
BUILT_IN = {"image": False, "video": True, "audio": True}
"""Media that monoglot reads itself, and whether `start` and `end` cut a window out of them: rows are read without loading the networks."""
HOW = f"others come from a plugin: `monoglot --plugin FILE.py VERB ...`, or {VARIABLE}=FILE.py"


class Modalities(Registry[Any]):
    """A registry that loads the plugins before it is asked."""

    def __getitem__(self, name: str) -> Any:
        load_plugins()
        if name not in self._entries:
            raise InputError(f"{unknown_name(self.kind, name, self._entries)}; {HOW}")
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        load_plugins()
        return super().__contains__(name)

    def __iter__(self) -> Iterator[str]:
        load_plugins()
        return super().__iter__()

    def __len__(self) -> int:
        load_plugins()
        return super().__len__()


MODALITIES = Modalities("modality")

_lock = threading.RLock()
_loading = False
_finished: str | None = None
"""What the variable said when all plugins had been loaded."""
_loaded: dict[str, tuple[str, ...]] = {}
"""Files and entry points that have been loaded, and the modalities that came with each."""


def media_kinds() -> dict[str, bool]:
    """Every key of a row that names media, and whether `start` and `end` cut a window out of such media.

    Raises InputError when a plugin cannot be loaded.

    >>> media_kinds()["image"], media_kinds()["audio"]
    (False, True)
    """
    load_plugins()
    return BUILT_IN | {name: modality.timed for name, modality in MODALITIES._entries.items()}


def plugin_of(modality: str) -> str:
    """The file or package that brought a modality; empty if it is monoglot's own or was registered by hand.

    >>> plugin_of("image")
    ''
    """
    return next((os.path.basename(name) for name, names in _loaded.items() if modality in names), "")


def give_plugins(files: list[str]) -> None:
    """Add files to those that are loaded, in this process and those that it starts. Nothing is loaded yet."""
    given = [os.path.abspath(file) for file in files] + os.environ.get(VARIABLE, "").split(os.pathsep)
    os.environ[VARIABLE] = os.pathsep.join(dict.fromkeys(filter(None, given)))


def load_plugins() -> None:
    """Load what the variable and the installed packages name, each once.

    Raises:
        InputError: a plugin is missing, fails, or registers no modality or one that there is already.
    """
    global _finished, _loading
    wanted = os.environ.get(VARIABLE, "")
    if wanted == _finished:
        return
    with _lock:
        if _loading or wanted == _finished:  # a plugin itself asks what there is
            return
        _loading = True
        try:
            for point in entry_points(group=GROUP):
                with _noted(f"{point.value} ({GROUP}: {point.name})") as new:
                    if new:
                        point.load()
            for file in filter(None, wanted.split(os.pathsep)):
                load_file(file)
            _finished = wanted
        finally:
            _loading = False


def load_file(file: str | os.PathLike[str]) -> None:
    """Run one plugin, unless that has been done. Raises InputError as `load_plugins` does."""
    path = os.path.realpath(file)
    with _noted(path, str(file)) as new:
        if not new:
            return
        if not os.path.isfile(path):
            raise InputError.at(file, "plugin", "no such file", f"correct the path in --plugin or {VARIABLE}")
        name = f"monoglot_plugin_{os.path.splitext(os.path.basename(path))[0]}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise InputError.at(file, "plugin", "is not a Python file", "its name ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)


@contextmanager
def _noted(name: str, shown: str = "") -> Iterator[bool]:
    """Inside, a plugin may be loaded if it is new: its modalities are noted, and forgotten again when it fails."""
    with _lock:
        before = set(MODALITIES._entries)
        known = name in _loaded and before.issuperset(_loaded[name])
        try:
            yield not known
        except Exception as error:
            for half in set(MODALITIES._entries) - before:
                del MODALITIES._entries[half]
            if isinstance(error, InputError):
                raise
            wrong = f"cannot be loaded ({type(error).__name__}: {' '.join(str(error).split())})"
            raise InputError.at(shown or name, "plugin", wrong, "mend it, or leave it out") from error
        if not known:
            added = tuple(entry for entry in MODALITIES._entries if entry not in before)
            if not added:
                raise InputError.at(shown or name, "plugin", "registers no modality", "it calls MODALITIES.add")
            _loaded[name] = added
