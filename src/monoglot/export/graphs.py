"""Networks become ONNX files that share one file of weights.

    UnifiedModel, heads -> networks -> torch.export -> ONNX graph -> (tensors moved to weights.bin, equal ones once) -> image.onnx, ..., source.onnx, step.onnx

Axes that may have any length carry names: batch, samples, frames, source, tokens, past.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from monoglot.errors import InputError
from monoglot.export.networks import HeadNetwork, MediaNetwork, SourceNetwork, StepNetwork
from monoglot.files import atomic_path
from monoglot.modalities.base import Encoder
from monoglot.model.head import Head
from monoglot.model.unified import UnifiedModel
from monoglot.text.vocabulary import BOS

if TYPE_CHECKING:
    import onnx

OPSET = 18
SOURCE, STEP, WEIGHTS = "source.onnx", "step.onnx", "weights.bin"
SMALLEST_SHARED = 1024
"""Bytes: smaller tensors stay in their graph."""
ALIGNED = 64
"""Bytes: tensors in weights.bin begin at multiples of this."""
LENGTHS = {("audio", "whisper"): {1: "samples"}, ("video", "lite0"): {1: "frames"}}
"""Axes of items, the batch counted as the first, that an encoder takes at any length; other items have the sizes of the configuration."""

Axes = dict[int, str]


@dataclass(frozen=True)
class Graph:
    """A network and what it is traced with."""

    file: str
    network: nn.Module
    inputs: Mapping[str, tuple[Tensor, Axes]]
    """Of each input an example and the names of axes that may have any length."""
    outputs: Mapping[str, Axes]


def graphs_of(model: UnifiedModel, items: Mapping[str, Tensor], heads: Mapping[int, Head]) -> list[Graph]:
    """What a model is exported as.

    Args:
        items: of each modality one prepared item.
        heads: by the place of their answers.

    Raises InputError for an encoder that no graph can be made of.
    """
    found = [_media_graph(model, name, items[name]) for name in model.config.modalities]
    found += [_source_graph(model), _step_graph(model)]
    for index, head in heads.items():
        pooled = {"pooled": (torch.ones(2, sum(head.blocks.values())), {0: "batch"})}
        found.append(Graph(head_file(index), HeadNetwork(head), pooled, {"probabilities": {0: "batch"}}))
    return found


def head_file(index: int) -> str:
    return f"head_{index}.onnx"


def _media_graph(model: UnifiedModel, name: str, item: Tensor) -> Graph:
    encoder, settings = model.encoders[name], model.config.modalities[name]
    if settings.encoder == "cnn14" and settings.pad_seconds < settings.max_seconds:
        lengths = f"are filled to multiples of {settings.pad_seconds:g} s, up to {settings.max_seconds:g} s"
        fix = "set pad_seconds to max_seconds in config.json, and see what that changes"
        raise InputError.at("model", name, f"sounds {lengths}; the encoder 'cnn14' is exported for one length", fix)
    axes = {0: "batch"} | LENGTHS.get((name, settings.encoder), {})
    inputs = {"items": (torch.stack([item, item]), axes)}
    return Graph(f"{name}.onnx", MediaNetwork(name, encoder), inputs, {"features": {0: "batch", 1: "tokens"}})


def _source_graph(model: UnifiedModel) -> Graph:
    """Traced with two rows of two media tokens each of every modality, then four words."""
    network, rows = SourceNetwork(model), 2
    names = list(model.encoders)
    length = 2 * len(names) + 4
    item = torch.zeros(rows, length, dtype=torch.long)
    media: dict[str, tuple[Tensor, Axes]] = {}
    for number, name in enumerate(names):
        item[:, 2 * number : 2 * number + 2] = torch.arange(rows)[:, None] * len(names) + number + 1
        columns = torch.arange(2 * number, 2 * number + 2)
        places = (torch.arange(rows)[:, None] * length + columns).flatten()
        axes = {0: f"{name}_tokens"}
        values = {
            "features": torch.zeros(len(places), cast(Encoder, model.encoders[name]).channels),
            "places": places,
            "pooled": torch.zeros_like(places),
            "cells": torch.ones_like(places),
            "frames": torch.zeros_like(places),
        }
        media |= {part: (values[part.rpartition("_")[2]], axes) for part in network.inputs_of(name)}
    both: Axes = {0: "batch", 1: "source"}
    inputs = {
        "ids": (torch.full((rows, length), BOS), both),
        "valid": (torch.ones(rows, length, dtype=torch.bool), both),
        "item": (item, both),
        **media,
    }
    read: Axes = {0: "batch", 3: "source"}
    outputs = {"states": both, "keys": read, "values": read} | ({"positions": both} if model.untied else {})
    return Graph(SOURCE, network, inputs, outputs)


def _step_graph(model: UnifiedModel) -> Graph:
    """Traced with two rows that have written three tokens, two new ones and a source of four."""
    c, network = model.config, StepNetwork(model)
    past = torch.zeros(2, c.decoder_layers, c.heads, 3, c.head_width)
    memory = torch.zeros(2, c.decoder_layers, c.heads, 4, c.head_width)
    past_axes: Axes = {0: "batch", 3: "past"}
    memory_axes: Axes = {0: "batch", 3: "source"}
    inputs: dict[str, tuple[Tensor, Axes]] = {
        "tokens": (torch.full((2, 2), BOS), {0: "batch", 1: "tokens"}),
        "past_keys": (past, past_axes),
        "past_values": (past.clone(), past_axes),
        "memory_keys": (memory, memory_axes),
        "memory_values": (memory.clone(), memory_axes),
        "memory_valid": (torch.ones(2, 4, dtype=torch.bool), {0: "batch", 1: "source"}),
    }
    if model.untied:
        inputs["memory_positions"] = (torch.zeros(2, 4, c.width), {0: "batch", 1: "source"})
    if network.writes_codes:
        inputs["code_rows"] = (torch.tensor([False, True]), {0: "batch"})
    kept: Axes = {0: "batch", 3: "past_and_tokens"}
    return Graph(STEP, network, inputs, {"logits": {0: "batch"}, "keys": kept, "values": kept})


def traced(graph: Graph) -> onnx.ModelProto:
    """The graph in ONNX, with its tensors inside."""
    examples = [example for example, _ in graph.inputs.values()]
    axes = [dict(named) for _, named in graph.inputs.values()]
    arguments: tuple[Any, ...] = tuple(examples)
    shapes: tuple[Any, ...] = tuple(axes)
    if graph.file == SOURCE:  # what modalities bring is one list
        arguments, shapes = (*examples[:3], examples[3:]), (*axes[:3], axes[3:])
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            graph.network.eval(),
            arguments,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            opset_version=OPSET,
            verbose=False,
        )
    made = program.model_proto
    for output in made.graph.output:
        for axis, name in graph.outputs[output.name].items():
            output.type.tensor_type.shape.dim[axis].dim_param = name
    return made


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of other libraries."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def write_graphs(folder: Path, models: Sequence[tuple[str, Callable[[], onnx.ModelProto]]]) -> None:
    """Write graphs and the weights that they share; each is made when its turn comes.

    Raises InputError when the folder cannot be written.
    """
    import onnx

    known: dict[bytes, tuple[int, int]] = {}  # digest -> where in the file
    with atomic_path(folder / WEIGHTS) as weights, weights.open("wb") as file:
        for name, make in models:
            made = make()
            for tensor in made.graph.initializer:
                if len(tensor.raw_data) < SMALLEST_SHARED:
                    continue
                digest = hashlib.sha256(tensor.raw_data).digest()
                if digest not in known:
                    file.write(bytes(-file.tell() % ALIGNED))
                    known[digest] = (file.tell(), len(tensor.raw_data))
                    file.write(tensor.raw_data)
                _move_out(tensor, *known[digest])
            with atomic_path(folder / name) as temporary:
                onnx.save_model(made, temporary)


def _move_out(tensor: onnx.TensorProto, offset: int, length: int) -> None:
    import onnx

    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
