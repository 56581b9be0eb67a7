"""Weights files that others wrote, read without running anything in them.

    file -> names that its pickle mentions -> all on the list? -> torch.load(weights_only=True, mmap=True) -> plain values and mapped tensors

What a pickle may name is on two lists: what tensors are made of, which torch itself rebuilds, and settings (argparse, omegaconf,
fairseq, NumPy), which become `Inert` dictionaries. Any other name is refused before the file is loaded, and again by torch.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError, safe_open
from torch.serialization import MAGIC_NUMBER, safe_globals

from monoglot.errors import InputError

_TENSORS = re.compile(
    r"collections\.OrderedDict|torch\._utils\._rebuild_(tensor|tensor_v2|parameter)|torch\.nn\.parameter\.Parameter"
    r"|torch\.(Size|device)|torch\.(\w+Storage|storage\.\w+Storage)|torch\.b?(float|int)\d+|torch\.(uint8|bool)"
    r"|_codecs\.encode"
)
_SETTINGS = re.compile(
    r"argparse\.Namespace|(omegaconf|hydra|fairseq|ofa_module|tasks|models|criterions|data|numpy|typing|pathlib)\.[\w.]+"
    r"|builtins\.(dict|list|tuple|str|int|float|bool|object)|copyreg\._reconstructor|_operator\.getitem"
)
_FIX = "nothing of it was run; give a checkpoint of UnIVAL, OFA or BART"
_NOT_ONE = "is not a file that torch.save or safetensors wrote"


class Inert(dict[str, Any]):
    """Stands for an object whose class is not loaded: its fields, by name. Nothing of the class runs.

    >>> settings = Inert("positional")
    >>> settings.__setstate__({"encoder_layers": 6})
    >>> settings["encoder_layers"], settings["arguments"]
    (6, ('positional',))
    """

    def __new__(cls, *arguments: Any) -> Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any):
        super().__init__({"arguments": arguments} if arguments else {})

    def __setstate__(self, state: Any) -> None:
        self.update(state if isinstance(state, dict) else {"state": state})

    __hash__ = object.__hash__  # type: ignore[assignment]  # a type may be a key


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dictionary in a file of torch.save (zip or the older format) or safetensors.

    Tensors of a zip or of safetensors are mapped: nothing is read before it is used. Those of the older format are in memory.

    Raises:
        InputError: absent, truncated, another kind of file, or one whose pickle names anything but tensors and settings.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(9)
        if start[8:] == b"{":
            return _read_safetensors(path)
        is_zip = start[:4] == b"PK\3\4"
        with safe_globals(
            [(Inert, name) for name in _settings(path, _zip_names(path) if is_zip else _old_names(path))]
        ):
            contents = torch.load(str(path), map_location="cpu", weights_only=True, mmap=is_zip)
    except InputError:
        raise
    except OSError as error:
        raise InputError.at(path, "", f"cannot be read ({error.strerror or error})") from None
    except Exception as error:  # parsers of foreign bytes raise almost anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError.at(path, "", f"is truncated or {_NOT_ONE} ({why})", _FIX) from None
    if not isinstance(contents, dict):
        raise InputError.at(path, "", f"holds a {type(contents).__name__}, not a dictionary of weights", _FIX)
    return contents


def plain(value: Any) -> Any:
    """Settings without their wrapping: an omegaconf node becomes its value, an `Inert` object its fields."""
    if isinstance(value, Inert):
        if "_content" in value:
            return plain(value["_content"])
        if "_val" in value:
            return plain(value["_val"])
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if not str(key).startswith("_parent")}
    return value


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is not a dict)
    except SafetensorError as error:
        raise InputError.at(path, "", f"is truncated or {_NOT_ONE} ({error})", _FIX) from None


def _settings(path: Path, names: Iterator[str]) -> list[str]:
    """Those of the names that stand for settings. InputError for the first that is on neither list."""
    settings = []
    for name in sorted(set(names)):
        if _SETTINGS.fullmatch(name):
            settings.append(name)
        elif not _TENSORS.fullmatch(name):
            raise InputError.at(path, name, "is not among what a file of weights may name", _FIX)
    return settings


def _zip_names(path: Path) -> Iterator[str]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if re.fullmatch(r"[^/]+/data\.pkl", name)]
        # A compressed member could not be mapped; torch.save never writes one.
        if len(pickles) != 1 or any(member.compress_type for member in archive.infolist()):
            raise InputError.at(path, "", _NOT_ONE, _FIX)
        with archive.open(pickles[0]) as file:
            yield from _globals(path, file)


def _old_names(path: Path) -> Iterator[str]:
    """The format before PyTorch 1.6: a magic number, a version, facts about the machine, the contents; a pickle each."""
    with path.open("rb") as file:
        if MAGIC_NUMBER not in [argument for _, argument, _ in pickletools.genops(file)]:
            raise InputError.at(path, "", _NOT_ONE, _FIX)
        for _ in range(3):
            yield from _globals(path, file)


def _globals(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Full names that one pickle would import, as Python 3 calls them. The pickle is only read, not run."""
    for operation, argument, _ in pickletools.genops(file):
        if operation.name in ("STACK_GLOBAL", "INST", "OBJ", "EXT1", "EXT2", "EXT4", "NEWOBJ_EX"):
            raise InputError.at(path, operation.name, "is not an operation that torch.save writes", _FIX)
        if operation.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            if (module, name) in NAME_MAPPING:
                module, name = NAME_MAPPING[module, name]
            yield f"{IMPORT_MAPPING.get(module, module)}.{name}"
