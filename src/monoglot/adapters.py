"""An adapter is a small folder that changes a model it names: adapter.json, adapter.safetensors, README.md, lineage.json.

    what was trained -> save_adapter -> folder -> read_adapter -> Adapter -> apply_adapter(base) -> the adapted model, which shares all else with its base

A tensor stands for the base's tensor of that name; those of low-rank changes (`lora_down`, `lora_up`) are added beside a
layer. `answers` limit what is answered to the questions that were trained, and may have a head of their own (`head.0.*`).
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from monoglot import __version__
from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json, sha256_of, write_json, write_text
from monoglot.model.head import Head
from monoglot.model.lora import LORA, Lora, add_lora
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Sample

FORMAT = 1
SETTINGS, WEIGHTS, ANSWERS = "adapter.json", "adapter.safetensors", "answers.json"
_HEAD = "head."
ALIGNMENT = 64
"""Bytes; where torch puts a tensor on a CPU, its address is a multiple of it."""


class _Page(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Base(_Page):
    """The model that an adapter changes."""

    name: str = Field(description="How it is called; a bundled model is found by it.")
    path: str | None = Field(None, description="Its folder, relative to the adapter's; None for a bundled model.")
    sha256: str = Field(description="Of its model.safetensors: an adapter fits no other.")


class Answers(_Page):
    """What a question may be answered with."""

    task: str
    text: str = Field(
        "",
        description="The question, its white space as single spaces; '' for every text of the task that has none of its own.",
    )
    lang: str = "en"
    choices: tuple[str, ...] = Field(min_length=1)
    head: dict[str, Any] | None = Field(
        None, description="Settings of the head that picks among them; None: the decoder writes."
    )


class Limits:
    """Which `Answers` hold for a sample.

    >>> limits = Limits([Answers(task="vqa", text="what kind?", choices=("red", "green"))])
    >>> limits.fill(Sample("1", "vqa", text="what  kind?")).choices, limits.fill(Sample("2", "vqa", text="how many?")).choices
    (('red', 'green'), ())
    """

    def __init__(self, answers: Iterable[Answers]):
        self._known = {(given.task, given.text, given.lang): (index, given) for index, given in enumerate(answers)}

    def of(self, sample: Sample) -> tuple[int, Answers] | None:
        """The answers of a sample's question, with their place; None if nothing is known of it."""
        texts = (" ".join(sample.text.split()), "")
        found = (self._known.get((sample.task, text, sample.lang)) for text in texts)
        return next(filter(None, found), None)

    def fill(self, sample: Sample) -> Sample:
        """The sample with the choices of its question, unless it brings its own."""
        found = None if sample.choices else self.of(sample)
        return sample if found is None else replace(sample, choices=found[1].choices)


class AdapterSettings(_Page):
    """adapter.json, but for `format` and the version that wrote it."""

    base: Base
    method: str = Field(description="How it was made: lora, connector, head.")
    lora: Lora | None = None
    answers: tuple[Answers, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """An adapter as it was read."""

    folder: Path
    settings: AdapterSettings
    tensors: dict[str, Tensor]

    @property
    def changes(self) -> dict[str, Tensor]:
        """Tensors of the model, without those of heads."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith(_HEAD)}

    def heads(self) -> dict[int, dict[str, Tensor]]:
        """Tensors of heads, by the place of their `Answers`."""
        found: dict[int, dict[str, Tensor]] = {}
        for name, tensor in self.tensors.items():
            if name.startswith(_HEAD):
                index, _, own = name.removeprefix(_HEAD).partition(".")
                found.setdefault(int(index), {})[own] = tensor
        return found


def is_adapter(folder: Path) -> bool:
    return (Path(folder) / SETTINGS).is_file()


def save_adapter(
    folder: Path,
    settings: AdapterSettings,
    tensors: Mapping[str, Tensor],
    *,
    heads: Mapping[int, Mapping[str, Tensor]] | None = None,
    card: str = "",
    lineage: dict[str, Any] | None = None,
) -> None:
    """Write an adapter's folder; each file appears whole or not at all. Floating point tensors are stored as float16.

    Args:
        tensors: what differs from the base, by the model's names.
        heads: tensors of each head, by the place of its `Answers`; stored as they are.
    """
    folder = Path(folder)
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if lost := [name for name, tensor in half.items() if not bool(tensor.isfinite().all())]:
        raise InputError.at(folder, "adapter", f"{lost[0]} is not finite as float16", "train with a lower rate")
    for index, head in (heads or {}).items():
        half |= {f"{_HEAD}{index}.{name}": tensor for name, tensor in head.items()}  # minus infinity: never answered
    page = {"format": FORMAT, "monoglot": __version__} | settings.model_dump(mode="json", exclude_none=True)
    with atomic_path(folder / WEIGHTS) as temporary:
        try:
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in half.items()}, temporary)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        os.chmod(temporary, 0o666 & ~_umask())  # safetensors lets nobody but the owner read
    write_text(folder / "README.md", card or f"# {folder.name}\n\nA monoglot adapter of {settings.base.name}.\n")
    write_json(folder / "lineage.json", lineage or {})
    write_json(folder / SETTINGS, page)  # last: it makes the folder an adapter


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's folder, in float32. InputError when it is incomplete, damaged or of another version."""
    folder = Path(folder)
    path = folder / SETTINGS
    page = read_json(path, "the settings of an adapter")
    if not isinstance(page, dict) or page.get("format") != FORMAT:
        found = page.get("format") if isinstance(page, dict) else None
        raise InputError.at(
            path, "format", f"version {found!r} is not known here", f"this monoglot reads version {FORMAT}"
        )
    try:
        settings = AdapterSettings.model_validate({k: v for k, v in page.items() if k not in ("format", "monoglot")})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError.at(
            path, ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        ) from None
    try:
        stored = load_file(folder / WEIGHTS)
    except (SafetensorError, OSError, ValueError) as error:
        wrong = f"cannot be read ({' '.join(str(error).split())})"
        raise InputError.at(
            folder / WEIGHTS, "weights", wrong, "the file is truncated or missing; get it again"
        ) from None
    tensors = {
        name: aligned(tensor.float() if tensor.is_floating_point() and not name.startswith(_HEAD) else tensor)
        for name, tensor in stored.items()
    }
    adapter = Adapter(folder, settings, tensors)
    if problem := _misfit(adapter):
        wrong = f"do not fit {SETTINGS}: {problem}"
        raise InputError.at(folder / WEIGHTS, "weights", wrong, "the two are of different adapters")
    return adapter


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it does not begin at an address that torch would give it.

    Tensors mapped from a file begin anywhere, and products of a single row round differently then.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def _misfit(adapter: Adapter) -> str:
    """What is wrong between the heads that are named and the tensors of heads; '' if nothing."""
    named = {f"{_HEAD}{place}": given.head for place, given in enumerate(adapter.settings.answers) if given.head}
    stored = {_HEAD + name.split(".")[1] for name in adapter.tensors if name.startswith(_HEAD)}
    for name in sorted(named.keys() ^ stored):
        return f"{name} is {'missing' if name in named else 'unknown'}"
    try:
        for place, tensors in adapter.heads().items():
            Head.from_state(tensors, named[f"{_HEAD}{place}"] or {})
    except ValueError as error:
        return str(error)
    return ""


def read_answers(folder: Path) -> tuple[Answers, ...]:
    """What a model folder or an adapter limits its answers to; empty for most."""
    folder = Path(folder)
    if is_adapter(folder):
        return read_adapter(folder).settings.answers
    path = folder / ANSWERS
    if not path.is_file():
        return ()
    try:
        answers = tuple(Answers.model_validate(page) for page in read_json(path, "the answers of a model"))
        if any(given.head is not None for given in answers):
            raise TypeError("a model folder has no heads")
        return answers
    except (ValidationError, TypeError) as error:
        wrong = " ".join(str(error).split())[:200]
        raise InputError.at(path, "answers", f"cannot be read ({wrong})", "delete the file to answer freely") from None


def write_answers(folder: Path, answers: Sequence[Answers]) -> None:
    """Limit a model folder's answers."""
    write_json(folder / ANSWERS, [page.model_dump(mode="json", exclude_none=True) for page in answers])


def apply_adapter(model: UnifiedModel, adapter: Adapter) -> UnifiedModel:
    """The adapted model. The base is left as it was; both share every tensor that the adapter does not change.

    Raises InputError when the adapter does not fit the model.
    """
    changed = shared_copy(model)
    if adapter.settings.lora is not None:
        try:
            add_lora(changed, adapter.settings.lora)
        except ValueError as error:
            raise InputError.at(
                adapter.folder / SETTINGS, "lora", str(error), "this adapter is of another model"
            ) from None
    shapes = {name: parameter.shape for name, parameter in changed.named_parameters()}
    needed = [name for name in shapes if name.rpartition(".")[2] in LORA]
    changes = adapter.changes
    problems = [f"{name} is missing" for name in needed if name not in changes]
    problems += [f"{name} is unknown" for name in changes if name not in shapes]
    problems += [
        f"{name} is {list(tensor.shape)}, expected {list(shapes[name])}"
        for name, tensor in changes.items()
        if name in shapes and tensor.shape != shapes[name]
    ]
    if problems:
        wrong = f"do not fit the base: {'; '.join(problems[:3])}"
        raise InputError.at(adapter.folder / WEIGHTS, "weights", wrong, "this adapter is of another model")
    device = model.words.weight.device
    names: dict[int, list[str]] = {}  # of a parameter: encoders may share parts
    for name, parameter in changed.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    together = {same[0]: same for same in names.values()}
    for name, tensor in changes.items():
        own = nn.Parameter(tensor.to(device))
        for same in together[name]:
            parent, _, last = same.rpartition(".")
            setattr(changed.get_submodule(parent), last, own)
    return changed.eval()


def shared_copy(model: UnifiedModel) -> UnifiedModel:
    """Modules of its own, the same tensors: what is replaced in the one stays in the other."""
    tensors: Iterable[Tensor] = (*model.parameters(), *model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})


def weights_sha256(folder: Path) -> str:
    """The sha256 of a model folder's weights."""
    return sha256_of(Path(folder) / "model.safetensors")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What requires a gradient, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def megabytes(folder: Path) -> float:
    """What a folder's files take, without those of folders in it."""
    return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file()) / 1e6
