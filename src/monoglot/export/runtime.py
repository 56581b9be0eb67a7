"""An exported folder answers rows: the same Predictor, over ONNX sessions in place of torch modules.

    folder -> OnnxModel -> Predictor -> rows in, predictions out

Letters as in networks.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from monoglot.adapters import Answers, Limits
from monoglot.data.collate import Batch, MediaBatch
from monoglot.decode.predict import Predictor
from monoglot.decode.search import SearchSettings
from monoglot.errors import InputError
from monoglot.export import require
from monoglot.export.graphs import SOURCE, STEP, head_file
from monoglot.files import read_json
from monoglot.modalities.base import Encoder, Grid, run_by_shape
from monoglot.model.config import ModelConfig
from monoglot.model.head import Head
from monoglot.model.layers import Cache, LayerCache
from monoglot.model.positions import grid_cells
from monoglot.model.unified import Memory, UnifiedModel
from monoglot.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import onnxruntime

SPEC = "preprocess.json"
FORMAT = 1


def load_export(folder: str | Path, *, search: SearchSettings | None = None) -> Predictor:
    """A Predictor of an exported folder; `search` as in `Predictor`.

    Raises InputError when it is no such folder, or ONNX Runtime is missing.

    >>> load_export("out/nano-onnx").predict(task="name", image="cat.png").text  # doctest: +SKIP
    'cat'
    """
    require("onnxruntime")
    folder = Path(folder)
    spec = read_json(folder / SPEC, "what `monoglot export` writes")
    if not isinstance(spec, dict) or spec.get("format") != FORMAT:
        raise InputError.at(folder / SPEC, "format", "is not known here", f"this monoglot reads version {FORMAT}")
    config = ModelConfig.model_validate(spec["model"])
    answers = [Answers.model_validate(page) for page in spec["answers"]]
    tokenizer = Tokenizer.load(folder / "tokenizer.json", config.vocabulary)
    predictor = Predictor(OnnxModel(folder, config), tokenizer, search=search)
    predictor.limits = Limits(answers)
    predictor._heads = {
        index: cast(Head, OnnxHead(folder / head_file(index), given.head))
        for index, given in enumerate(answers)
        if given.head is not None
    }
    return predictor


def session(path: Path) -> onnxruntime.InferenceSession:
    """A graph, ready to run on as many threads as torch has. InputError when it cannot be read."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # each of its errors has a class of its own
        wrong = f"cannot be read ({' '.join(str(error).split())[:200]})"
        raise InputError.at(path, "graph", wrong, "the folder is incomplete; export again") from None


class OnnxEncoder(Encoder):
    """A modality's encoder as a graph."""

    def __init__(self, path: Path):
        super().__init__()
        self.session = session(path)

    def forward(self, items: list[Tensor]) -> list[Tensor]:
        return run_by_shape(lambda stack: _run(self.session, {"items": stack})[0], items)


class OnnxHead:
    """What `Predictor` wants of a Head, as a graph."""

    def __init__(self, path: Path, settings: Mapping[str, Any]):
        self.session, self.classes, self.blocks = session(path), tuple(settings["classes"]), dict(settings["blocks"])

    def probabilities(self, pooled: Tensor) -> Tensor:
        return _run(self.session, {"pooled": pooled})[0]


@dataclass
class OnnxMemory(Memory):
    """A memory with what decoder layers read of it."""

    keys: Tensor
    """float[B, K, H, S, d]"""
    values: Tensor
    """float[B, K, H, S, d]"""

    def select(self, rows: Tensor) -> OnnxMemory:
        return replace(self, **{name: value[rows] for name, value in vars(self).items() if value is not None})


class OnnxModel(UnifiedModel):
    """A UnifiedModel whose parts are graphs: `encode_media`, `encode`, then `decode` step by step."""

    def __init__(self, folder: Path, config: ModelConfig):
        nn.Module.__init__(self)  # UnifiedModel would make weights
        self.config, self.untied = config, config.positions == "untied"
        self.encoders = nn.ModuleDict({name: OnnxEncoder(folder / f"{name}.onnx") for name in config.modalities})
        self.words = nn.Embedding(1, 1)  # only says on which device the model is
        self._source, self._step = session(folder / SOURCE), session(folder / STEP)
        self._wanted = [given.name for given in self._source.get_inputs()]

    def encode(self, batch: Batch, features: dict[str, list[Tensor]]) -> OnnxMemory:
        columns = batch.source_ids.shape[1]
        item = torch.zeros_like(batch.source_ids)
        count = 0
        for media in batch.media.values():
            for row, start, grid in zip(media.rows, media.starts, media.grids):
                count += 1
                item[row, start : start + grid.length] = count
        given = {"ids": batch.source_ids, "valid": batch.source_valid, "item": item}
        for name in self.config.modalities:
            given |= self._placed(name, batch.media.get(name), features.get(name, []), columns)
        found = _run(self._source, {name: given[name] for name in self._wanted})
        states, keys, values, *positions = found
        return OnnxMemory(states, batch.source_valid, positions[0] if positions else None, keys, values)

    def _placed(self, name: str, media: MediaBatch | None, features: list[Tensor], columns: int) -> dict[str, Tensor]:
        """A modality's inputs; none of its tokens when nothing of it occurs."""
        if media is None:
            shape = next(given.shape for given in self._source.get_inputs() if given.name == f"{name}_features")
            none = torch.zeros(0, dtype=torch.long)
            return {
                f"{name}_features": torch.zeros(0, shape[1]),
                **{f"{name}_{part}": none for part in ("places", "pooled", "cells", "frames")},
            }
        return {
            f"{name}_features": torch.cat(features),
            f"{name}_places": media.flat_places(columns),
            f"{name}_pooled": torch.zeros(sum(map(len, features)), dtype=torch.long).index_fill(
                0, media.pooled_places(), 1
            ),
            f"{name}_cells": torch.cat([self._cells(name, grid) for grid in media.grids]),
            f"{name}_frames": torch.cat(
                [g.pick(torch.arange(g.frames).repeat_interleave(g.rows * g.cols)) for g in media.grids]
            ),
        }

    def _cells(self, name: str, grid: Grid) -> Tensor:
        positions = self.config.modalities[name].positions
        if positions == "none":
            return torch.zeros(grid.length, dtype=torch.long)
        return grid_cells(grid, self.config.grid_side, square=positions == "square")

    def decode(
        self, ids: Tensor, memory: Memory, *, code_rows: Tensor | None = None, cache: Cache | None = None
    ) -> Tensor:
        """Logits float[B, 1, V] of the token that follows; `logits` gives them as they are."""
        assert isinstance(memory, OnnxMemory)
        cache = Cache() if cache is None else cache
        past = cache.layers[0].past if cache.layers else None
        if past is None:
            nothing = memory.keys[:, :, :, :0]
            past = nothing, nothing
        given: dict[str, Any] = {"tokens": ids, "past_keys": past[0], "past_values": past[1]}
        given |= {"memory_keys": memory.keys, "memory_values": memory.values, "memory_valid": memory.valid}
        given |= {"memory_positions": memory.positions, "code_rows": code_rows}
        if code_rows is None:
            given["code_rows"] = torch.zeros(len(ids), dtype=torch.bool)
        logits, *kept = _run(self._step, {one.name: given[one.name] for one in self._step.get_inputs()})
        cache.layers = [LayerCache(past=(kept[0], kept[1]))]
        cache.length += ids.shape[1]
        return logits[:, None]

    def logits(self, states: Tensor, ids: Tensor | slice | None = None) -> Tensor:
        return states if ids is None else states[..., ids]


def _run(graph: onnxruntime.InferenceSession, given: Mapping[str, Tensor]) -> list[Tensor]:
    arrays = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in given.items()}
    return [torch.from_numpy(array) for array in graph.run(None, arrays)]
