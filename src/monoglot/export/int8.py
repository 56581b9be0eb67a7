"""The same graphs with 8-bit weights: a quarter of the size, equally fast, and no longer quite the same.

    graphs -> weights as bytes, a factor for every block of them; a graph makes float32 of them again -> graphs -> (parity: a bound in place of equality)

Only the file is smaller: ONNX Runtime makes float32 of weights once, when it loads a graph, and of the rows of a table when they are looked up. Operators are
ONNX's own. What weights are multiplied with stays float32; docs/export.md says what it costs to round that, too.

Letters: N rows, K their length, b the length of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from monoglot.evaluate.run import score
from monoglot.export.graphs import SMALLEST_SHARED, write_graphs
from monoglot.nouns import Prediction, Sample

if TYPE_CHECKING:
    import onnx

BLOCKS = (128, 64, 32, 16)
"""Weights that share a factor: the first of these that divides a row, else the whole row."""
ZERO = 128
"""The byte that stands for 0: bytes are 1 to 255."""
WEIGHTS_OF = {"Gather": 0, "MatMul": 1, "Gemm": 1, "Conv": 1}
"""Which input of an operator is a weight."""
MOST_LOST = 0.01
"""Most that a main metric may fall: one point."""
LEAST_EQUAL = 0.95
"""Least share of equal answers where there is no metric."""


def write_int8(folder: Path, out: Path, names: Iterable[str], on_graph: Callable[[str], None]) -> None:
    """Write 8-bit graphs of those in `folder` to `out`, with a weights.bin of their own."""
    import onnx

    def made(name: str) -> onnx.ModelProto:
        on_graph(name)
        return shrunk(onnx.load(folder / name))

    write_graphs(out, [(name, partial(made, name)) for name in names])


def to_bytes(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float[N, K] -> uint8[N, K / b, b], and float32[N, K / b, 1]: what a step from one byte to the next is worth.

    >>> steps, worth = to_bytes(np.array([[-1.0, 0.0, 0.5, 1.0]]))
    >>> steps.tolist(), (np.round((steps - 128.0) * worth, 2)).tolist()
    ([[[1, 128, 192, 255]]], [[[-1.0, 0.0, 0.5, 1.0]]])
    """
    count, length = rows.shape
    size = next((size for size in BLOCKS if length % size == 0), length)
    parts = rows.reshape(count, -1, size)
    worth = (np.abs(parts).max(axis=2, keepdims=True) / (ZERO - 1)).astype(np.float32)
    worth[worth == 0] = 1
    return (np.rint(parts / worth) + ZERO).astype(np.uint8), worth


def shrunk(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The graph (changed in place) with bytes for the weights of `WEIGHTS_OF` operators, those of at least `SMALLEST_SHARED` bytes."""
    return _Shrinking(graph).run()


class _Shrinking:
    """One graph, written anew: nodes in their order, and before the first that reads a weight those that make it."""

    def __init__(self, model: onnx.ModelProto):
        self.model, self.graph = model, model.graph
        self.given = {tensor.name: tensor for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.floats: dict[tuple[str, bool], str] = {}

    def run(self) -> onnx.ModelProto:
        of_norm = {node.output[0]: node for node in self.graph.node if node.op_type == "Mul"}
        folded = {  # a convolution's weight that comes times the factor of its norm
            of_norm[node.input[1]].output[0]
            for node in self.graph.node
            if node.op_type == "Conv" and node.input[1] in of_norm
        }
        for node in list(self.graph.node):
            place = 0 if node.output[0] in folded else WEIGHTS_OF.get(node.op_type, -1)
            if place < 0 or not self._is_weight(node.input[place]):
                self.nodes.append(node)
            elif node.op_type == "Gather":
                self._look_up(node)
            else:
                node.input[place] = self._as_floats(node.input[place], by_column=node.op_type == "MatMul")
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.given.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.added.values()])
        return self.model

    def _is_weight(self, name: str) -> bool:
        import onnx

        tensor = self.given.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) < 2:
            return False  # no weight, or one of few numbers
        return 4 * int(np.prod(tensor.dims)) >= SMALLEST_SHARED

    def _look_up(self, node: onnx.NodeProto) -> None:
        """Rows of a table: their bytes and factors are looked up, then multiplied."""
        table, ids = node.input
        steps, worth = self._bytes(table, by_column=False)
        length = self.given[table].dims[1]
        shape = self._add("Concat", self._add("Shape", ids), self._put("row", np.array([length])), axis=0)
        rows = self._times(self._add("Gather", steps, ids), self._add("Gather", worth, ids))
        self._add("Reshape", rows, shape, output=node.output[0])

    def _as_floats(self, weight: str, *, by_column: bool) -> str:
        """The weight as it was, but for rounding: constants, which ONNX Runtime computes once."""
        key = weight, by_column
        if key not in self.floats:
            dims = list(self.given[weight].dims)
            steps, worth = self._bytes(weight, by_column=by_column)
            shape = self._put("shape", np.array(dims[::-1] if by_column else dims))
            made = self._add("Reshape", self._times(steps, worth), shape)
            self.floats[key] = self._add("Transpose", made) if by_column else made
        return self.floats[key]

    def _bytes(self, weight: str, *, by_column: bool) -> tuple[str, str]:
        """Names of a weight's bytes and of their factors; `by_column`: a row of them is a column of the weight."""
        from onnx import numpy_helper

        turned = f"{weight}.columns" if by_column else weight
        if f"{turned}.steps" not in self.added:
            array = numpy_helper.to_array(self.given[weight])
            steps, worth = to_bytes(array.T if by_column else array.reshape(len(array), -1))
            self._put(f"{turned}.steps", steps)
            self._put(f"{turned}.worth", worth)
        return f"{turned}.steps", f"{turned}.worth"

    def _times(self, steps: str, worth: str) -> str:
        zero = self._put("zero", np.array(ZERO, np.float32))
        return self._add("Mul", self._add("Sub", self._add("Cast", steps, to=1), zero), worth)  # 1: float32

    def _put(self, name: str, array: np.ndarray) -> str:
        """A constant; small ones are told apart by what they hold."""
        from onnx import numpy_helper

        if array.size <= 8 and "." not in name:
            name = "_".join(["int8", name, *map(str, array.flatten())])
        self.added.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _add(self, operator: str, *inputs: str, output: str = "", **options: Any) -> str:
        from onnx import helper

        output = output or f"int8_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **options))
        return output


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


def beyond(report: dict[str, Any]) -> str | None:
    """What an 8-bit export loses beyond the bound; states the bound in the report: points of each task's metric, or, without one, equal answers."""
    if metrics := report.get("metrics"):
        report["bound"] = {"points": 100 * MOST_LOST}
        worst = max(metrics, key=lambda page: page["lost"])
        if worst["lost"] <= MOST_LOST + 1e-9:  # one row of a hundred is 0.01, and a bit more in floats
            return None
        return f"{worst['metric']} of {worst['task']} falls from {worst['model']:.4g} to {worst['int8']:.4g} with 8 bits"
    report["bound"] = {"equal": LEAST_EQUAL}
    if report["equal"] >= LEAST_EQUAL * report["rows"]:
        return None
    return f"{report['equal']} of {report['rows']} answers are equal with 8 bits, fewer than {LEAST_EQUAL:.0%}"
