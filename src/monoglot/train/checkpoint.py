"""Where a run stands, on disk: weights, their average, the optimizer's moments as safetensors, everything else as JSON. Nothing is pickled.

    run's folder/checkpoint/step-00000400/  shard files, one a process + run.json

A checkpoint is a folder that gets its name when it is complete, so a process that is killed while it writes leaves the one before. Shards say which
part of a tensor they hold: a run may go on with another number of processes.
"""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from monoglot.errors import InputError
from monoglot.files import atomic_path, read_json
from monoglot.train.distributed import World

# What torch says when a run has one process, each time.
warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)

FORMAT = 1
BEST = "best.safetensors"
KEPT = 2
"""Checkpoints that stay: the last, and the one before it."""
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # what torch.optim.AdamW keeps for a parameter


def tensors_of(
    model: nn.Module, optimizer: torch.optim.Optimizer | None, average: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Everything that a step changes, by name: `weights.*`, `average.*`, `adam.*`. Shared tensors stand there once.

    Loading copies into these tensors.
    """
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            found[f"weights.{name}"] = tensor.detach()
    found |= {f"average.{name}": tensor for name, tensor in (average or {}).items()}
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    for parameter, state in optimizer.state.items() if optimizer is not None else ():
        found |= {f"adam.{names[parameter]}.{key}": state[key] for key in _MOMENTS if key in state}
    return found


def save(folder: Path, step: int, tensors: dict[str, Tensor], run: dict[str, Any], world: World) -> None:
    """Write the checkpoint of a step and drop those before the last two.

    Args:
        folder: the run's folder of checkpoints.
        run: everything that is no tensor, for JSON.

    Raises:
        InputError: it cannot be written; the last good one is where it was.
    """
    final, draft = folder / _name(step), folder / f".{_name(step)}.tmp"
    try:
        if world.is_first:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(parents=True)
        world.wait()
        # Tensors without dimensions cannot be sharded: they travel as one number.
        flat = {name: tensor.reshape(1) if tensor.dim() == 0 else tensor for name, tensor in tensors.items()}
        dcp.save(
            flat, storage_writer=HuggingFaceStorageWriter(str(draft), save_distributed=True), no_dist=world.size == 1
        )
        if world.is_first:
            (draft / "run.json").write_text(json.dumps({"format": FORMAT, "step": step} | run), encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            os.replace(draft, final)
            for old in _complete(folder)[:-KEPT]:
                shutil.rmtree(old, ignore_errors=True)
        world.wait()
    except (OSError, CheckpointException, RuntimeError) as error:
        with suppress(OSError):
            shutil.rmtree(draft, ignore_errors=True)
        last = last_checkpoint(folder)
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        raise InputError.at(
            final,
            "checkpoint",
            f"cannot be written ({_reason(error)})",
            f"free some space or choose another place; {kept}",
        ) from error


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None."""
    found = _complete(folder)
    return found[-1] if found else None


def write_best(folder: Path, stage: int, loss: float, tensors: Mapping[str, Tensor]) -> None:
    """Keep a stage's best weights in the run's folder, over those that were its best before."""
    with atomic_path(folder / BEST) as temporary:
        try:
            state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
            save_file(state, temporary, metadata={"stage": str(stage), "loss": repr(loss)})
        except SafetensorError as error:
            raise OSError(str(error)) from error


def read_best(folder: Path, stage: int) -> tuple[float, dict[str, Tensor]] | None:
    """(loss, weights) of a stage's best look so far, or None. InputError if the file is damaged."""
    path = folder / BEST
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            if about["stage"] != str(stage):
                return None
            return float(about["loss"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        wrong = f"cannot be read ({_reason(error)})"
        raise InputError.at(path, "best", wrong, "delete it: the best look from now on is kept") from None


def read_run(checkpoint: Path) -> dict[str, Any]:
    """What `save` got as `run`, with its step. InputError if it cannot be read."""
    run = read_json(checkpoint / "run.json", "where the run stands")
    if not isinstance(run, dict) or run.get("format") != FORMAT:
        found = run.get("format") if isinstance(run, dict) else None
        raise InputError.at(
            checkpoint, "checkpoint", f"version {found!r} is not known here", "start the run again in a new folder"
        )
    return run


def load(
    checkpoint: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None,
    world: World,
) -> None:
    """Copy a checkpoint's tensors into a model, its average and its optimizer, which has then the moments of that time.

    Raises InputError if they are damaged or do not fit.
    """
    try:
        reader = HuggingFaceStorageReader(str(checkpoint))
        stored = set(reader.read_metadata().state_dict_metadata)
        _make_moments(model, optimizer, stored)
        tensors = tensors_of(model, optimizer, average)
        if missing := sorted(set(tensors) - stored):
            raise ValueError(f"{missing[0]} is missing")
        flat = {name: tensor.reshape(1) if tensor.dim() == 0 else tensor for name, tensor in tensors.items()}
        dcp.load(flat, storage_reader=reader, no_dist=world.size == 1)
        for name, tensor in tensors.items():
            if tensor.dim() == 0:
                tensor.copy_(flat[name][0])
    except Exception as error:  # torch, safetensors and the disk raise many kinds for a damaged file
        fix = "delete this folder to go on from the checkpoint before it, or start the run again in a new folder"
        raise InputError.at(checkpoint, "checkpoint", f"cannot be read ({_reason(error)})", fix) from error


def _make_moments(model: nn.Module, optimizer: torch.optim.Optimizer, stored: set[str]) -> None:
    """Room for the moments of each parameter that had any, and of no other."""
    optimizer.state.clear()
    for name, parameter in model.named_parameters():
        if f"adam.{name}.exp_avg" in stored:
            state = optimizer.state[parameter]
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if (path / "run.json").is_file())


def _reason(error: BaseException) -> str:
    """The innermost cause in one line; torch wraps what the disk says."""
    if isinstance(error, CheckpointException) and error.failures:
        error = next(iter(error.failures.values()))[0]
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
