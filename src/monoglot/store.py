"""A model is a folder: config.json, model.safetensors, tokenizer.json, README.md (model card), lineage.json.

    UnifiedModel + Tokenizer -> save_model -> folder -> load_model -> UnifiedModel + Tokenizer

Weights are safetensors, so loading runs no code. Tensors that are shared are stored once. Chosen matrices may be stored as 8-bit integers
with one factor a row; they come back as float32.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from monoglot import __version__
from monoglot.adapters import SETTINGS, Adapter, Base, aligned, apply_adapter, is_adapter, read_adapter, weights_sha256
from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json, write_json, write_text
from monoglot.model.config import ModelConfig
from monoglot.model.unified import UnifiedModel
from monoglot.plugins import MODALITIES, VARIABLE, plugin_of
from monoglot.text.tokenizer import Tokenizer

FORMAT = 1
BUNDLED = Path(__file__).parent / "assets"
"""Models that come with the package: a folder each."""
FACTOR = ".row_factor"
"""Ends the name under which the factors of a matrix of 8-bit integers are stored, float32[rows, 1]."""
FILES = ("config.json", "model.safetensors", "tokenizer.json")


def model_folder(model: str | Path) -> Path:
    """A model folder, or that of a bundled model by its name.

    >>> model_folder("nano").name
    'nano'
    """
    folder = Path(model)
    bundled = BUNDLED / str(model)
    return bundled if not folder.exists() and (bundled / "config.json").is_file() else folder


def save_model(
    folder: Path,
    model: UnifiedModel,
    tokenizer: Tokenizer,
    *,
    dtype: torch.dtype = torch.float32,
    int8: Sequence[str] = (),
    unchanged: Collection[str] = (),
    card: str = "",
    lineage: dict[str, Any] | None = None,
) -> None:
    """Write a model folder; each file appears whole or not at all.

    Args:
        dtype: how floating point weights are stored.
        int8: patterns (re.search) of names of matrices to store as 8-bit integers.
        unchanged: names of tensors that come back bit by bit: in `dtype` or as 8-bit integers where nothing is lost by it, else as they are.
    """
    folder = Path(folder)
    tensors, aliases = stored(model.state_dict(), dtype, int8, unchanged)
    config = {"format": FORMAT, "monoglot": __version__, "model": model.config.model_dump(mode="json")}
    if plugins := {name: plugin for name in model.config.modalities if (plugin := plugin_of(name))}:
        config["plugins"] = plugins  # to be told where they are missing; never loaded from here
    write_json(folder / "config.json", config)
    with atomic_path(folder / "tokenizer.json") as temporary:
        tokenizer.save(temporary)
    write_text(folder / "README.md", card or f"# {model.config.name}\n\nA monoglot model.\n")
    write_json(folder / "lineage.json", lineage or {})
    with atomic_path(folder / "model.safetensors") as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": str(FORMAT), "aliases": json.dumps(aliases)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        shutil.copymode(folder / "config.json", temporary)  # safetensors lets nobody but the owner read


def load_model(folder: Path) -> tuple[UnifiedModel, Tokenizer]:
    """Read a model folder, or an adapter on its base, in eval mode and float32.

    Raises InputError when it is incomplete, truncated or of another version.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError.at(folder, "model", "no such folder", "give a model folder or the name of a bundled model")
    if is_adapter(folder):
        adapter = read_adapter(folder)
        model, tokenizer = load_model(base_folder(adapter))
        return apply_adapter(model, adapter), tokenizer
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise InputError.at(
            folder, "model", f"incomplete: {', '.join(missing)} missing", f"a model folder holds {', '.join(FILES)}"
        )
    config = read_config(folder)
    with SkipInit():
        model = UnifiedModel(config)
    state = read_weights(folder / "model.safetensors")
    wanted = model.state_dict()
    problems = [f"{name} is missing" for name in wanted if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in wanted]
    problems += [
        f"{name} is {list(state[name].shape)}, expected {list(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise InputError.at(
            folder / "model.safetensors", "weights", f"do not fit config.json: {'; '.join(problems[:3])}{more}"
        )
    model.load_state_dict(state, assign=True)  # aligned float32 stays where it is: mapped, read when it is used
    return model.eval(), Tokenizer.load(folder / "tokenizer.json", config.vocabulary)


def base_folder(adapter: Adapter) -> Path:
    """Where the base of an adapter is. InputError when it is gone, or another model is there now."""
    base, where = adapter.settings.base, adapter.folder / SETTINGS
    folder = BUNDLED / base.name if base.path is None else adapter.folder / base.path
    if not (folder / "model.safetensors").is_file():
        wrong = f"the base {base.name!r} is missing: no model in {Path(os.path.normpath(folder))}"
        raise InputError.at(where, "base", wrong, "bring it back, or correct base.path")
    if weights_sha256(folder) != base.sha256:
        wrong = f"{Path(os.path.normpath(folder))} is not the base {base.name!r} that this adapter was made for"
        raise InputError.at(
            where, "base", wrong, "its weights have another sha256; bring back the old ones, or adapt again"
        )
    return folder


def base_of(folder: Path, known: Base | None, adapter: Path) -> Base:
    """How an adapter in the folder `adapter` names its base in `folder`; `known` if another adapter has named it already."""
    folder, adapter = Path(folder).resolve(), Path(adapter).resolve()
    bundled = folder.parent == BUNDLED.resolve()
    name = folder.name if bundled else read_config(folder).name
    sha256 = known.sha256 if known is not None else weights_sha256(folder)
    return Base(name=name, path=None if bundled else os.path.relpath(folder, adapter), sha256=sha256)


def read_config(folder: Path) -> ModelConfig:
    """The ModelConfig in a folder's config.json."""
    path = Path(folder) / "config.json"
    config = read_json(path, "the settings of a model")
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        found = config.get("format") if isinstance(config, dict) else None
        raise InputError.at(
            path, "format", f"version {found!r} is not known here", f"this monoglot reads version {FORMAT}"
        )
    _check_plugins(path, config)
    try:
        return ModelConfig.model_validate(config.get("model"))
    except ValidationError as error:
        first = error.errors()[0]
        wrong = first["msg"].removeprefix("Value error, ")
        raise InputError.at(path, ".".join(map(str, ("model", *first["loc"]))), wrong) from None


def _check_plugins(path: Path, config: dict[str, Any]) -> None:
    """InputError if the model reads media that a plugin brought where it was saved, and that nothing registers here."""
    brought = config.get("plugins")
    for name, plugin in brought.items() if isinstance(brought, dict) else ():
        if name not in MODALITIES:
            wrong = f"this model reads {name!r} by the plugin {plugin}, which is not loaded"
            fix = f"give it: `monoglot --plugin path/to/{plugin} VERB ...`, or {VARIABLE}=path/to/{plugin}"
            if not str(plugin).endswith(".py"):
                fix = "install the package that brings it"
            raise InputError.at(path, f"model.modalities.{name}", wrong, f"{fix}; a model folder brings no code")


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a weights file as float32 (integers stay), shared ones under each of their names."""
    try:
        with safe_open(path, "pt") as file:
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is not a dict)
            aliases = json.loads((file.metadata() or {}).get("aliases", "{}"))
        return restored(stored, aliases)
    except UNREADABLE as error:
        raise unreadable(path, error) from None


UNREADABLE = (SafetensorError, OSError, ValueError, LookupError, AttributeError, RuntimeError)
"""What reading a weights file may raise."""


def unreadable(path: Path, error: Exception) -> InputError:
    """What to tell about a weights file that cannot be read."""
    wrong = f"cannot be read ({' '.join(str(error).split())})"
    return InputError.at(path, "weights", wrong, "the file is truncated or not a model's; get it again")


def restored(stored: dict[str, Tensor], aliases: dict[str, str]) -> dict[str, Tensor]:
    """The way back from `stored`, in float32."""
    state = {}
    for name, tensor in stored.items():
        if name.endswith(FACTOR):
            continue
        if name + FACTOR in stored:
            tensor = tensor.float() * stored[name + FACTOR].float()
        state[name] = aligned(tensor.float() if tensor.is_floating_point() else tensor)
    return state | {name: state[same] for name, same in aliases.items()}


def stored(
    state: dict[str, Tensor], dtype: torch.dtype, int8: Sequence[str], unchanged: Collection[str] = ()
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors as they go to disk, and the names that mean a tensor stored under another name."""
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_name: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, tensor in state.items():
        key = (tensor.data_ptr(), tuple(tensor.shape))
        if tensor.numel() and key in first_name:
            aliases[name] = first_name[key]
            continue
        first_name[key] = name
        tensor = tensor.detach().cpu()
        as_int8 = tensor.dim() == 2 and any(re.search(pattern, name) for pattern in int8)
        if name in unchanged and tensor.is_floating_point() and not torch.equal(tensor.to(dtype).to(tensor), tensor):
            whole = _whole_int8(tensor) if tensor.dim() == 2 else None
            if whole is not None:
                tensors[name], tensors[name + FACTOR] = whole
                continue
            if not as_int8:
                tensors[name] = tensor.contiguous()
                continue
        if as_int8:
            factor = (tensor.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
            tensors[name] = (tensor.float() / factor).round().to(torch.int8)
            tensors[name + FACTOR] = factor
        else:
            tensors[name] = tensor.to(dtype).contiguous() if tensor.is_floating_point() else tensor.contiguous()
    return tensors, aliases


def _whole_int8(matrix: Tensor) -> tuple[Tensor, Tensor] | None:
    """A matrix that was stored as 8-bit integers once, as such again: integers and factors that give each value back; None if there are none."""
    factor = (matrix.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
    whole = (matrix.float() / factor).round()
    found = torch.zeros_like(factor, dtype=torch.bool)
    for near in (factor, *(factor.nextafter(torch.full_like(factor, end)) for end in (0.0, torch.inf))):
        fits = (whole * near == matrix).all(dim=1, keepdim=True) & ~found
        factor, found = torch.where(fits, near, factor), found | fits
    return (whole.to(torch.int8), factor) if bool(found.all()) else None


class SkipInit(TorchFunctionMode):
    """Inside of this, fresh parameters are left as they are: their values are about to be loaded."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
