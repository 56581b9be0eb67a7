"""Model folders, opened to be read tensor by tensor.

folder or bundled name -> Parent (config, tokenizer, tensors that are read when asked for) -> together: one ModelConfig or one clear line
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor

from monoglot.adapters import WEIGHTS, Adapter, is_adapter, read_adapter
from monoglot.errors import InputError
from monoglot.files import read_json, sha256_of
from monoglot.model.config import ModelConfig
from monoglot.model.lora import LORA
from monoglot.model.unified import UnifiedModel
from monoglot.store import FACTOR, FILES, UNREADABLE, SkipInit, base_folder, model_folder, read_config, unreadable

FREE = ("name", "dropout", "drop_path", "modalities")
"""Settings in which parents may differ; the others say what a number in the weights means."""


class Tensors(Protocol):
    """A model's tensors by name, float32 or integers; shared ones under each of their names."""

    shapes: dict[str, tuple[int, ...]]

    def read(self, name: str) -> Tensor: ...


class Stored:
    """The tensors of a weights file. Opening it reads the header alone; matrices of 8-bit integers come as float32.

    Raises InputError when the file is truncated or none.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self._file = safe_open(path, "pt")
            names = list(self._file.keys())
            self._stored_as = {name: name for name in names if not name.endswith(FACTOR)}
            self._factors = {name.removesuffix(FACTOR) for name in names if name.endswith(FACTOR)}
            self._stored_as |= json.loads((self._file.metadata() or {}).get("aliases", "{}"))
            self.shapes = {
                name: tuple(self._file.get_slice(stored).get_shape()) for name, stored in self._stored_as.items()
            }
        except UNREADABLE as error:
            raise unreadable(path, error) from None

    def read(self, name: str) -> Tensor:
        """One tensor; float32 that is stored so is mapped, not copied: it must not be written to."""
        stored = self._stored_as[name]
        try:
            tensor = self._file.get_tensor(stored)
            if stored in self._factors:
                return tensor.float().mul_(self._file.get_tensor(stored + FACTOR).float())
        except UNREADABLE as error:
            raise unreadable(self.path, error) from None
        return tensor.float() if tensor.is_floating_point() else tensor


class Adapted:
    """A base's tensors under an adapter: replaced ones, and low-rank changes added to their layers."""

    def __init__(self, base: Tensors, adapter: Adapter):
        self._base, self._changes, lora = base, adapter.changes, adapter.settings.lora
        self._factor = 0.0 if lora is None else lora.alpha / lora.rank
        self.shapes = base.shapes

    def read(self, name: str) -> Tensor:
        tensor = self._changes[name] if name in self._changes else self._base.read(name)
        layer = name.removesuffix(".weight")
        if f"{layer}.{LORA[0]}" not in self._changes:
            return tensor
        down, up = (self._changes[f"{layer}.{part}"] for part in LORA)
        return tensor + self._factor * (up @ down)


@dataclass(frozen=True)
class Parent:
    """A model that is merged."""

    given: str
    """As the user wrote it."""
    folder: Path
    config: ModelConfig
    tokenizer: Path
    sha256: str
    """Of its weights file."""
    tensors: Tensors


def open_parent(given: str | Path) -> Parent:
    """Open a model folder, a bundled model or an adapter. Raises InputError when it is missing, incomplete or truncated."""
    folder = model_folder(given)
    if not folder.is_dir():
        raise InputError.at(given, "model", "no such folder", "give a model folder or the name of a bundled model")
    if is_adapter(folder):
        adapter = read_adapter(folder)
        if adapter.heads():
            raise InputError.at(
                folder, "adapter", "answers by a head of its own, which cannot be merged", "leave it out"
            )
        base = open_parent(base_folder(adapter))
        tensors = Adapted(base.tensors, adapter)
        return replace(base, given=str(given), folder=folder, sha256=sha256_of(folder / WEIGHTS), tensors=tensors)
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        wrong = f"incomplete: {', '.join(missing)} missing"
        raise InputError.at(folder, "model", wrong, f"a model folder holds {', '.join(FILES)}")
    weights = folder / "model.safetensors"
    stored, config = Stored(weights), read_config(folder)
    return Parent(str(given), folder, config, folder / "tokenizer.json", sha256_of(weights), stored)


def common_config(parents: Sequence[Parent]) -> ModelConfig:
    """The settings of the merged model: the first parent's, with the modalities of all.

    Raises InputError, which names the setting or the part of the tokenizer, for parents of different architecture or vocabulary.
    """
    first = parents[0]
    for other in parents[1:]:
        ours, theirs = settings_of(first.config), settings_of(other.config)
        for field in ours:
            if ours[field] != theirs[field]:
                raise different(first, other, "config.json", field, ours[field], theirs[field])
        for name in first.config.modalities.keys() & other.config.modalities.keys():
            kinds = first.config.modalities[name].encoder, other.config.modalities[name].encoder
            if kinds[0] != kinds[1]:
                raise different(first, other, "config.json", f"modalities.{name}.encoder", *kinds)
        if (part := tokenizer_difference(first.tokenizer, other.tokenizer)) is not None:
            wrong = f"{part} is not that of {first.given}"
            raise InputError.at(other.tokenizer, "vocabulary", wrong, "a word's row must mean one word")
    modalities: dict[str, Any] = {}
    for parent in parents:
        modalities = {**parent.config.model_dump(mode="json")["modalities"], **modalities}
    order = [name for parent in parents for name in parent.config.modalities]
    page = first.config.model_dump(mode="json") | {
        "modalities": {name: modalities[name] for name in dict.fromkeys(order)}
    }
    return ModelConfig.model_validate(page)


def settings_of(config: ModelConfig) -> dict[str, Any]:
    """What parents must have in common, with dots for what is nested."""
    page = {name: value for name, value in config.model_dump(mode="json").items() if name not in FREE}
    vocabulary = page.pop("vocabulary")
    return {f"vocabulary.{name}": value for name, value in vocabulary.items()} | page


def different(first: Parent, other: Parent, file: str, field: str, ours: object, theirs: object) -> InputError:
    wrong = f"is {theirs!r}, but {ours!r} in {first.given}"
    return InputError.at(
        other.folder / file, field, wrong, "only models of one architecture and vocabulary can be merged"
    )


def tokenizer_difference(one: Path, other: Path) -> str | None:
    """Where two tokenizers first differ, with dots for what is nested; None when they are the same."""
    if one == other:
        return None
    a, b = (read_json(path, "a tokenizer") for path in (one, other))
    return _difference(a, b, "")


def _difference(a: Any, b: Any, path: str) -> str | None:
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys() and path.count(".") < 2:
        found = (_difference(a[key], b[key], f"{path}.{key}") for key in a)
        return next((place for place in found if place is not None), None)
    return None if a == b else path.removeprefix(".") or "the file"


@dataclass(frozen=True)
class Slot:
    """A tensor of the merged model."""

    names: tuple[str, ...]
    """The name that it is stored under; others that mean the same tensor follow."""
    shape: tuple[int, ...]
    dtype: torch.dtype
    is_parameter: bool
    """False for what is counted or measured, not learned: statistics of norms."""

    def found_in(self, tensors: Tensors) -> str | None:
        """The first of its names that is there; None if there is none."""
        return next((name for name in self.names if name in tensors.shapes), None)


def slots_of(config: ModelConfig) -> list[Slot]:
    """All tensors of a model; it is laid out, and no number of it is made."""
    with SkipInit():
        model = UnifiedModel(config)
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    names: dict[int, list[str]] = {}
    tensors = model.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        names.setdefault(id(tensor), []).append(name)
    return [
        Slot(tuple(same), tuple(tensors[same[0]].shape), tensors[same[0]].dtype, same[0] in parameters)
        for same in names.values()
    ]


def check_names(parents: Iterable[Parent], slots: Sequence[Slot]) -> None:
    """Raises InputError for a parent with a tensor that the merged model has no place for."""
    known = {name for slot in slots for name in slot.names}
    for parent in parents:
        unknown = [name for name in parent.tensors.shapes if name not in known]
        if unknown:
            path = parent.folder / "model.safetensors"
            raise InputError.at(path, "weights", f"do not fit config.json: {unknown[0]} is unknown")
