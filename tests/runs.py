"""Runs: what goes into a page, what is left behind."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from monoglot.train.checkpoint import last_checkpoint


def source(name: str, **settings) -> dict:
    """A data set in the mixture of a page."""
    return {"name": name, "data": f"{name}.jsonl", **settings}


def stored(run: Path) -> dict[str, Tensor]:
    """All tensors of a run's last checkpoint: `weights.*`, `average.*`, `adam.*`."""
    return load_file(next(last_checkpoint(run / "checkpoint").glob("*.safetensors")))


def weights(run: Path, kind: str = "weights.model.") -> dict[str, Tensor]:
    """The model's weights in a run's last checkpoint, or their average (`average.`)."""
    found = {name.removeprefix(kind): t for name, t in stored(run).items() if name.startswith(kind)}
    # What has no dimension is stored as one number.
    return {name: t.reshape(()) if name.endswith("num_batches_tracked") else t for name, t in found.items()}


def metrics(run: Path, key: str = "") -> list[dict]:
    """The lines of metrics.jsonl, or those that have a key."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if not key or key in line]
