"""The arithmetic of a large run, from counted operations and stated rates; and what of it can be tried on one machine.

    python benchmarks/scale_plan.py [--samples 100000000] [--gpus 64] [--out FILE.json]

Counted: weights and floating point operations of the published base model on a picture (torch's flop counter, forward and backward). Stated: the rates
of the machines below; put your own. Tried: drawing the rows of a step among 64 processes from 100 million rows, and its memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from monoglot.data.mixture import Mixture
from monoglot.data.prepare import Preparer
from monoglot.model.config import unival_base
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Sample
from monoglot.store import BUNDLED
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.distributed import World
from monoglot.train.losses import token_losses


@dataclass(frozen=True)
class Machines:
    """What the plan assumes; none of it was measured here."""

    gpus: int = 64
    gpus_a_node: int = 8
    peak_flops: float = 312e12
    """Dense bfloat16 of an A100 (NVIDIA's data sheet)."""
    utilisation: float = 0.35
    """Share of the peak that a convolutional encoder with a small transformer reaches; to be measured first on one GPU."""
    network_bytes: float = 25e9
    """Bytes a second in and out of a GPU between nodes (200 Gbit/s)."""
    decode_pictures: float = 195.0
    """JPEGs of 640 x 480 to 384 px a second and core, as measured on one of our machines with Pillow."""
    price_gpu_hour: float = 2.0
    """A number to be replaced by yours."""


def count(pixels: int = 384, target_words: str = " a red cup on a wooden table in a room") -> dict[str, float]:
    """Weights, tokens and operations of one picture with its caption, forward and backward."""
    config = unival_base("image").model_copy(update={"dropout": 0.0, "drop_path": 0.0})
    config.modalities["image"] = config.modalities["image"].model_copy(update={"size": pixels})
    torch.manual_seed(0)
    model = UnifiedModel(config)
    words = Tokenizer.load(BUNDLED / "nano" / "tokenizer.json", config.vocabulary)
    preparer = Preparer(words, config)
    picture = Media("image", np.zeros((pixels, pixels, 3), np.uint8))
    batch = preparer.collate([preparer.example(Sample("1", "caption", (picture,), targets=(target_words.strip(),)))])
    with FlopCounterMode(display=False) as counter:
        logits = model(batch)[batch.target_valid]
        token_losses(logits, batch.target_out[batch.target_valid]).mean().backward()
    return {
        "weights": sum(parameter.numel() for parameter in model.parameters()),
        "tokens": int(batch.source_valid.sum() + batch.target_valid.sum()),
        "flops": float(counter.get_total_flops()),
    }


def plan(
    counted: dict[str, float], m: Machines, samples: int, rows_a_gpu: int, kilobytes: float, shard_mb: int
) -> dict[str, Any]:
    """Time, data, network, memory, money of one pass."""
    rate = m.peak_flops * m.utilisation
    compute = rows_a_gpu * counted["flops"] / rate
    gradient = 4 * counted["weights"]
    reduce = 2 * (m.gpus - 1) / m.gpus * gradient / m.network_bytes
    steps = samples / (rows_a_gpu * m.gpus)
    seconds = {"hidden": steps * max(compute, reduce), "not hidden": steps * (compute + reduce)}
    a_second = samples / seconds["hidden"]
    nodes = m.gpus / m.gpus_a_node
    bytes_in_all = samples * kilobytes * 1e3
    return {
        "global batch, rows": rows_a_gpu * m.gpus,
        "steps a pass": round(steps),
        "compute a step, ms": round(1e3 * compute, 1),
        "all-reduce of gradients a step, ms": round(1e3 * reduce, 1),
        "hours a pass, all-reduce hidden behind backward": round(seconds["hidden"] / 3600, 2),
        "hours a pass, nothing hidden": round(seconds["not hidden"] / 3600, 2),
        "samples a second": round(a_second),
        "terabytes of data": round(bytes_in_all / 1e12, 2),
        "shards": round(bytes_in_all / (shard_mb * 1e6)),
        "megabytes a second and node": round(a_second * kilobytes / 1e3 / nodes, 1),
        "cores for decoding a node": round(a_second / m.decode_pictures / nodes, 1),
        "weights, gradients, moments a GPU in GB (ddp)": round(16 * counted["weights"] / 1e9, 2),
        "the same (fsdp)": round(16 * counted["weights"] / 1e9 / m.gpus, 3),
        "checkpoint in GB": round(12 * counted["weights"] / 1e9, 2),
        "GPU hours": round(seconds["hidden"] / 3600 * m.gpus, 1),
        "price": round(seconds["hidden"] / 3600 * m.gpus * m.price_gpu_hour),
    }


def draws(samples: int, processes: int, rows: int, steps: int = 20) -> dict[str, Any]:
    """Rows of a step among many processes: nothing is lost or seen twice, it costs the same everywhere in the run."""
    sizes = [samples // 2, samples // 4, samples // 5, samples - samples // 2 - samples // 4 - samples // 5]
    mixture = Mixture(
        ["captions", "questions", "boxes", "clips"], sizes, [rows * share for share in (0.4, 0.3, 0.2, 0.1)], seed=0
    )
    taken = []
    for step in np.linspace(0, 10 * samples // rows, steps).astype(int):
        drawn = mixture.step(int(step))
        began = time.perf_counter()
        shares = [mixture.step(int(step), World(rank, processes).slots) for rank in range(processes)]
        taken.append((time.perf_counter() - began) / processes)
        assert sorted(map(repr, drawn)) == sorted(repr(draw) for share in shares for draw in share)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        assert len({(draw.source, draw.row) for draw in drawn}) == len(drawn)
    return {
        "rows in all": samples,
        "processes": processes,
        "rows a step": rows,
        "milliseconds in which a process draws its share, first": round(1e3 * taken[0], 2),
        "milliseconds in which a process draws its share, last": round(1e3 * taken[-1], 2),
        "peak megabytes of this process": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000_000)
    parser.add_argument("--gpus", type=int, default=64)
    parser.add_argument("--rows", type=int, default=32, help="rows a GPU and step")
    parser.add_argument("--kilobytes", type=float, default=60.0, help="of one sample as it is stored")
    parser.add_argument("--shard-mb", type=int, default=256)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    machines = Machines(gpus=arguments.gpus)
    tried = draws(arguments.samples, arguments.gpus, arguments.rows * arguments.gpus)
    counted = count()
    result = {
        "command": " ".join(["python", "benchmarks/scale_plan.py", *sys.argv[1:]]),
        "assumed": asdict(machines),
        "counted for one picture of 384 px and its caption": counted,
        "planned": plan(counted, machines, arguments.samples, arguments.rows, arguments.kilobytes, arguments.shard_mb),
        "tried": tried,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
