"""Which way of multiplying a few rows with a weight is quickest: processor time of one thread, all ways in turns.

python benchmarks/linears.py [--rows 1,3,5,8,16,40] [--shapes 384x384,50257x384] [--rounds 5] [--out benchmarks/results/FILE.json]

Shapes are those of nano (width 384) and the published base model (768), as outputs x inputs. `error` is that of 5 rows
against float64, as a share of the answers' norm.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import monoglot
from monoglot.files import write_text
from monoglot.model.linears import Bfloat16Linear, HalfLinear, Int8Linear, OneDNNLinear, has_bfloat16, works
from monoglot.train.run import processor_name

SHAPES = "384x384,768x384,1536x384,384x1536,51262x384,768x768,3072x768,768x3072,59457x768"
SECONDS = 0.008
"""Of each way in each round."""
Way = Callable[[Tensor], Tensor]


def ways_of(layer: nn.Linear) -> dict[str, Way]:
    """Each way that this machine has, by name."""
    weight, bias = layer.weight.detach(), layer.bias.detach()
    ways: dict[str, Way] = {
        "F.linear": lambda x: F.linear(x, weight, bias),
        "addmm, transposed": lambda x: torch.addmm(bias[:, None], weight, x.t()).t().contiguous(),
    }
    if works(OneDNNLinear):
        ways["oneDNN float32"] = OneDNNLinear(layer)
    if works(HalfLinear):
        ways["FBGEMM float16 weights"] = HalfLinear(layer)
    if has_bfloat16():
        ways["F.linear bfloat16"] = Bfloat16Linear(layer)
        if works(OneDNNLinear, torch.bfloat16):
            ways["oneDNN bfloat16"] = OneDNNLinear(layer, torch.bfloat16)
    if works(Int8Linear):
        ways["FBGEMM int8"] = Int8Linear(layer)
        ways["FBGEMM int8, a range a row"] = range_a_row(layer)
        ways["oneDNN int8"] = onednn_int8(layer)
    if weight.numel() <= 1 << 22:  # slow on any processor without instructions of its own
        factor = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12)
        whole = (weight / factor[:, None]).round().to(torch.int8)
        ways["_weight_int8pack_mm"] = lambda x: torch._weight_int8pack_mm(x, whole, factor) + bias
    return ways


def range_a_row(layer: nn.Linear) -> Way:
    """int8 whose rows do not depend on each other: each is brought to 0..1 first, and back behind the product."""
    plain = nn.Linear(1, 1, bias=False)
    plain.weight = layer.weight
    packed, sums, bias = Int8Linear(plain), layer.weight.detach().sum(dim=1), layer.bias.detach()

    def run(x: Tensor) -> Tensor:
        low, high = x.aminmax(dim=-1, keepdim=True)
        return packed((x - low) / (high - low)).mul_(high - low).addcmul_(low, sums).add_(bias)

    return run


def onednn_int8(layer: nn.Linear) -> Way:
    weight = layer.weight.detach()
    engine, torch.backends.quantized.engine = torch.backends.quantized.engine, "onednn"
    factor = (weight.abs().amax(dim=1) / 127).clamp(min=1e-12).double()
    zero = torch.zeros(len(factor), dtype=torch.long)
    whole = torch.quantize_per_channel(weight, factor, zero, 0, torch.qint8)
    packed = torch.ops.quantized.linear_prepack(whole, layer.bias.detach())
    torch.backends.quantized.engine = engine
    return lambda x: torch.ops.quantized.linear_dynamic(x, packed, True)


def microseconds(ways: dict[str, Way], x: Tensor, rounds: int) -> dict[str, float]:
    """Least processor time of one product over the rounds."""
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(rounds):
        for name, way in ways.items():
            way(x)
            count, started = 0, time.process_time_ns()
            while (taken := time.process_time_ns() - started) < SECONDS * 1e9:
                way(x)
                count += 1
            best[name] = min(best[name], taken / count / 1000)
    return {name: round(value, 1) for name, value in best.items()}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="1,3,5,8,16,40")
    parser.add_argument("--shapes", default=SHAPES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # that tensors of integers with factors will go some day

    shapes = {}
    for shape in arguments.shapes.split(","):
        outputs, inputs = map(int, shape.split("x"))
        torch.manual_seed(0)
        layer = nn.Linear(inputs, outputs)
        layer.weight.copy_(torch.randn(outputs, inputs).mul(0.03).bfloat16())
        ways = ways_of(layer)
        x = torch.randn(5, inputs)
        exact = F.linear(x.double(), layer.weight.double(), layer.bias.double())
        found: dict[str, object] = {
            "error": {
                name: float(f"{((way(x) - exact).norm() / exact.norm()).item():.1e}") for name, way in ways.items()
            }
        }
        print(f"{shape:>11}  {'rows':>4}  " + "  ".join(ways))
        for rows in map(int, arguments.rows.split(",")):
            times = microseconds(ways, torch.randn(rows, inputs), arguments.rounds)
            found[f"{rows} rows"] = times
            print(f"{'':11}  {rows:4}  " + "  ".join(f"{value:{len(name)}.0f}" for name, value in times.items()))
        shapes[shape] = found
    results = {
        "command": " ".join(["python", "benchmarks/linears.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": processor_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "bfloat16": has_bfloat16(),
            "load": os.getloadavg()[0],
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "monoglot": monoglot.__version__},
        "threads": 1,
        "unit": "microseconds of processor time",
        "shapes": shapes,
    }
    if arguments.out:
        write_text(arguments.out, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
