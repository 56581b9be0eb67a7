"""The same graphs with 8-bit weights: less than a third of the size, equally fast, and no longer quite the same.

    graphs -> (matrices: bytes, a factor for each output; convolutions: float16) -> graphs -> (parity: a bound in place of equality)

Only the files are smaller: ONNX Runtime makes float32 of weights once, when it loads a graph, and of the rows of a table when they are looked up.
Operators are ONNX's own. What weights are multiplied with stays float32; docs/export.md says what it costs to round that, too.

Letters: N outputs (rows of a table), K their length.
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
    """float[N, K] -> uint8[N, K], and float32[N, 1]: what a step from one byte to the next is worth.

    Rounded as `store` rounds what a model folder holds as int8, so that this is rounded only once.

    >>> steps, worth = to_bytes(np.array([[-1.0, 0.0, 0.5, 1.0]]))
    >>> steps.tolist(), ((steps - 128.0) * worth).round(2).tolist()
    ([[1, 128, 192, 255]], [[-1.0, 0.0, 0.5, 1.0]])
    """
    worth = (np.abs(rows).max(axis=1, keepdims=True) / (ZERO - 1)).astype(np.float32)
    worth[worth == 0] = 1
    return (np.rint(rows / worth) + ZERO).astype(np.uint8), worth


def shrunk(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph (changed in place), its `WEIGHTS_OF` operators with smaller weights where those have at least `SMALLEST_SHARED` bytes."""
    return _Shrinking(model).run()


class _Shrinking:
    """One graph, written anew: its nodes in their order, and before the first that reads a weight those that make it."""

    def __init__(self, model: onnx.ModelProto):
        self.model, self.graph = model, model.graph
        self.given = {tensor.name: tensor for tensor in self.graph.initializer}
        self.nodes: list[onnx.NodeProto] = []
        self.added: dict[str, onnx.TensorProto] = {}
        self.made: dict[str, str] = {}

    def run(self) -> onnx.ModelProto:
        products = {node.output[0] for node in self.graph.node if node.op_type == "Mul"}
        kernels = {node.input[1] for node in self.graph.node if node.op_type == "Conv"}
        for node in list(self.graph.node):
            with_norm = node.output[0] in products & kernels  # a kernel that comes times the factor of its norm
            place = 0 if with_norm else WEIGHTS_OF.get(node.op_type)
            as_kernel = with_norm or node.op_type == "Conv"
            if place is None or not self._is_weight(node.input[place], as_kernel):
                self.nodes.append(node)
            elif node.op_type == "Gather":  # of rows: no other of a weight is traced
                self._look_up(node)
            else:
                make = self._kernel if as_kernel else self._columns if node.op_type == "MatMul" else self._rows
                node.input[place] = make(node.input[place])
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [tensor for name, tensor in self.given.items() if name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend([*kept, *self.added.values()])
        return self.model

    def _is_weight(self, name: str, as_kernel: bool) -> bool:
        import onnx

        tensor = self.given.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or not (as_kernel or len(tensor.dims) == 2):
            return False
        return 4 * int(np.prod(tensor.dims)) >= SMALLEST_SHARED

    def _look_up(self, node: onnx.NodeProto) -> None:
        """Rows of a table: their bytes and factors are looked up, then multiplied."""
        table, ids = node.input
        steps, worth = self._bytes(table, self._array(table))
        self._times(self._add("Gather", steps, ids), self._add("Gather", worth, ids), output=node.output[0])

    def _rows(self, weight: str) -> str:
        """float32[N, K]"""
        if weight not in self.made:
            self.made[weight] = self._times(*self._bytes(weight, self._array(weight)))
        return self.made[weight]

    def _columns(self, weight: str) -> str:
        """float32[K, N]"""
        turned = f"{weight}.turned"
        if turned not in self.made:
            self.made[turned] = self._add("Transpose", self._times(*self._bytes(turned, self._array(weight).T)))
        return self.made[turned]

    def _kernel(self, weight: str) -> str:
        """float32[N, ...]"""
        if weight not in self.made:
            half = self._put(f"{weight}.half", self._array(weight).astype(np.float16))
            self.made[weight] = self._add("Cast", half, to=1)
        return self.made[weight]

    def _bytes(self, name: str, rows: np.ndarray) -> tuple[str, str]:
        """Names of a matrix's bytes and of their factors."""
        if f"{name}.steps" not in self.added:
            steps, worth = to_bytes(rows)
            self._put(f"{name}.steps", steps)
            self._put(f"{name}.worth", worth)
        return f"{name}.steps", f"{name}.worth"

    def _times(self, steps: str, worth: str, *, output: str = "") -> str:
        zero = self._put("zero", np.array(ZERO, np.float32))
        return self._add("Mul", self._add("Sub", self._add("Cast", steps, to=1), zero), worth, output=output)

    def _array(self, name: str) -> np.ndarray:
        from onnx import numpy_helper

        return numpy_helper.to_array(self.given[name])

    def _put(self, name: str, array: np.ndarray) -> str:
        from onnx import numpy_helper

        self.added[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def _add(self, operator: str, *inputs: str, output: str = "", **options: Any) -> str:
        """A node before the one that is looked at; `to=1` is float32."""
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
        return (
            f"{worst['metric']} of {worst['task']} falls from {worst['model']:.4g} to {worst['int8']:.4g} with 8 bits"
        )
    report["bound"] = {"equal": LEAST_EQUAL}
    if report["equal"] >= LEAST_EQUAL * report["rows"]:
        return None
    return f"{report['equal']} of {report['rows']} answers are equal with 8 bits, fewer than {LEAST_EQUAL:.0%}"
