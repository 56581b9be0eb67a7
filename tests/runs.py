"""Runs: what goes into a page, what is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from small import tiny_model, tiny_tokenizer
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader

from monoglot.store import save_model
from monoglot.train.checkpoint import last_checkpoint


def write_texts(folder: Path) -> None:
    """Rows of text alone, a (12), b (7), c (5) and held-out ones; `start`, a model that reads nothing else; `still`, one without dropout."""
    for name, dropout in (("start", 0.1), ("still", 0.0)):
        model = tiny_model(modalities={}, encoder_layers=1, decoder_layers=1, dropout=dropout, drop_path=0.0)
        with torch.no_grad():
            model.words.weight.mul_(0.2)  # so that the first loss is about that of a guess
        save_model(folder / name, model, tiny_tokenizer())
    colours = ["red", "blue", "the red", "what blue"]
    for name, count in (("a", 12), ("b", 7), ("c", 5), ("held_out", 4)):
        rows = [
            {
                "id": f"{name}{n}",
                "task": "summarize",
                "text": f"{name} {n} is {colours[n % 4]}",
                "target": colours[n % 4],
            }
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def texts_page(folder: Path, **changes) -> dict:
    """A page on what `write_texts` has written."""
    return {
        "name": "texts",
        "seed": 5,
        "start": str(folder / "start"),
        "freeze": [],
        "data_folder": str(folder),
        "mixture": [source("a", quota=3), source("b", quota=2)],
        "precision": "float32",
        "optimizer": {"lr": 0.01, "warmup": 0.1},
        "samples": 0,
    } | changes


def source(name: str, **settings) -> dict:
    """A data set in the mixture of a page."""
    return {"name": name, "data": f"{name}.jsonl", **settings}


def stored(run: Path) -> dict[str, Tensor]:
    """All tensors of a run's last checkpoint: `weights.*`, `average.*`, `adam.*`; put together, if processes held shares."""
    reader = HuggingFaceStorageReader(str(last_checkpoint(run / "checkpoint")))
    found = reader.read_metadata().state_dict_metadata
    tensors = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in found.items()}
    dcp.load(tensors, storage_reader=reader, no_dist=True)
    return tensors


def weights(run: Path, kind: str = "weights.model.") -> dict[str, Tensor]:
    """The model's weights in a run's last checkpoint, or their average (`average.`)."""
    found = {name.removeprefix(kind): t for name, t in stored(run).items() if name.startswith(kind)}
    # What has no dimension is stored as one number.
    return {name: t.reshape(()) if name.endswith("num_batches_tracked") else t for name, t in found.items()}


def metrics(run: Path, key: str = "") -> list[dict]:
    """The lines of metrics.jsonl, or those that have a key."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if not key or key in line]
