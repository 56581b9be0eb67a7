"""The same graphs with 8-bit weights: smaller, sometimes faster, and no longer the same.

    graphs -> ONNX Runtime's dynamic quantization of matrices, a factor for each column -> graphs -> (parity: a score in place of equality)

Weights of matrix products become int8, what they are multiplied with is rounded to 8 bits as it comes; convolutions and all else stay float32.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monoglot.evaluate.run import score
from monoglot.export.graphs import write_graphs
from monoglot.nouns import Prediction, Sample

if TYPE_CHECKING:
    import onnx

QUANTIZED = ["MatMul", "Gather"]
"""Operators whose weights become int8: matrix products, and tables that are looked up."""
MOST_LOST = 0.01
"""Most that a main metric may fall: one point."""


def write_int8(folder: Path, out: Path, names: Iterable[str], on_graph: Callable[[str], None]) -> None:
    """Write 8-bit graphs of those in `folder` to `out`, with a weights.bin of their own."""

    def quantized(name: str) -> onnx.ModelProto:
        on_graph(name)
        return _quantized(folder / name)

    write_graphs(out, [(name, partial(quantized, name)) for name in names])


def _quantized(path: Path) -> onnx.ModelProto:
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends preprocessing, which would only name shapes
    try:
        with tempfile.TemporaryDirectory() as scratch:
            made = Path(scratch) / path.name
            quantize_dynamic(path, made, op_types_to_quantize=QUANTIZED, per_channel=True, weight_type=QuantType.QInt8)
            return onnx.load(made)
    finally:
        root.setLevel(level)


def main_scores(
    samples: Sequence[Sample], model: Sequence[Prediction], int8: Sequence[Prediction]
) -> list[dict[str, Any]]:
    """Each task's main metric for both, and what was lost; below zero where 8 bits did better."""
    found = []
    for task in dict.fromkeys(sample.task for sample in samples):
        chosen = [index for index, sample in enumerate(samples) if sample.task == task]
        of_task = [samples[index] for index in chosen]
        before, after = (score(of_task, [given[index] for index in chosen], {})[0] for given in (model, int8))
        lost = (before.value - after.value) * (1 if before.higher_is_better else -1)
        found.append(
            {
                "task": task,
                "metric": before.metric,
                "rows": len(of_task),
                "model": before.value,
                "int8": after.value,
                "lost": lost,
            }
        )
    return found
