"""Preparing rows with Ray against without: rows a second, processor time a row, what starting costs, what a block costs.

    python benchmarks/cluster_prepare.py [--rows 1536] [--turns 3] [--out benchmarks/results/FILE.json]

Needs the extra `cluster`. The rows are JPEGs of 640 x 480 made here (about 100 kB each), made smaller to 384 px; who works takes turns. Ray is started once,
with two processors of this machine. A rate by the clock is from the first block that is done to the last, so that starting is not in it; work of others on
the machine is. Processor time is that of the workers alone, which others slow less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from monoglot.data import cluster
from monoglot.data.cluster import ALONE, Block, PackBlock, Workers, blocks_of, work_through
from monoglot.data.pack import Problem, begin
from monoglot.data.rowfile import RowFile
from monoglot.data.shrink import Shrink

WHO = {
    "this process": ALONE,
    "2 processes": Workers(2),
    "ray, 1 worker": Workers(1, "auto"),
    "ray, 2 workers": Workers(2, "auto"),
}
BLOCK_ROWS = 64


def write_rows(folder: Path, count: int) -> Path:
    """Pictures of smooth random colours with some grain, each another."""
    rng = np.random.default_rng(0)
    path = folder / "rows.jsonl"
    with open(path, "w", encoding="utf-8") as file:
        for row in range(count):
            coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).resize(
                (640, 480), Image.Resampling.BICUBIC
            )
            grain = rng.normal(0, 6, (480, 640, 1))
            Image.fromarray(np.clip(np.asarray(coarse) + grain, 0, 255).astype(np.uint8)).save(
                folder / f"{row}.jpg", quality=85
            )
            line = {"id": str(row), "task": "caption", "image": f"{row}.jpg", "target": f"picture {row}"}
            file.write(json.dumps(line) + "\n")
    return path


@dataclass
class Timed:
    """Packs a block; says in place of problems how much processor time it took."""

    rows: Path
    out: Path
    origin: dict[str, Any]
    shrink: Shrink

    def __post_init__(self) -> None:
        self.work = PackBlock(self.rows, self.out, self.origin, 256_000_000, self.shrink)

    def __call__(self, block: Block) -> list[Problem]:
        began = time.process_time()
        problems = self.work(block)
        assert not problems
        return [Problem(str(time.process_time() - began), "")]


def nothing(block: Block) -> list[Problem]:
    return []


def measure(rows: Path, count: int, workers: Workers, folder: Path) -> dict[str, float]:
    shrink = Shrink(image_side=384)
    origin, _ = begin(RowFile(rows), folder, shard_mb=256, shrink=shrink)
    began = time.perf_counter()
    done, used = [], []
    for told in work_through(
        partial(Timed, rows, folder, origin, shrink), blocks_of(count, BLOCK_ROWS), workers, "packing"
    ):
        done.append(time.perf_counter())
        used.append(float(told[0].row))
    return {
        "rows a second": (count - BLOCK_ROWS) / (done[-1] - done[0]),
        "seconds to the first block": done[0] - began,
        "processor milliseconds a row": 1e3 * sum(used) / count,
    }


def block_cost(workers: Workers, blocks: int = 300) -> float:
    """Milliseconds that a block takes in which nothing is done, from the first to the last."""
    done = [
        time.perf_counter() for _ in work_through(partial(_same, nothing), blocks_of(blocks, 1), workers, "nothing")
    ]
    return 1e3 * (done[-1] - done[0]) / (blocks - 1)


def _same(worker: Any) -> Any:
    return worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1536)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in WHO}
    with tempfile.TemporaryDirectory() as given:
        folder = Path(given)
        rows = write_rows(folder, arguments.rows)
        size = sum(path.stat().st_size for path in folder.glob("*.jpg")) / arguments.rows
        began = time.perf_counter()
        with cluster._ray(Workers(2, "local")) as ray:
            started = time.perf_counter() - began
            for turn in range(arguments.turns):
                for name, workers in WHO.items():
                    made = measure(rows, arguments.rows, workers, folder / f"{turn} {name}")
                    made["load of the machine"] = os.getloadavg()[0]
                    found[name].append(made)
                    print(
                        turn, name, json.dumps({key: round(value, 2) for key, value in made.items()}), file=sys.stderr
                    )
            empty = {name: round(block_cost(workers), 2) for name, workers in WHO.items()}
            version = ray.__version__
        shards = {name: [path.read_bytes() for path in sorted((folder / f"0 {name}").glob("*.tar"))] for name in WHO}
        assert all(one == shards["this process"] for one in shards.values())
        smaller = sum(map(len, shards["this process"])) / arguments.rows
    result = {
        "command": " ".join(["python", "benchmarks/cluster_prepare.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count(), "ray": version},
        "rows": arguments.rows,
        "rows a block": BLOCK_ROWS,
        "bytes of a picture": round(size),
        "bytes a row in the shards": round(smaller),
        "shards of all are the same": True,
        "seconds to start Ray": round(started, 1),
        "milliseconds of a block in which nothing is done": empty,
        "median": {
            name: {key: round(statistics.median(one[key] for one in turns), 2) for key in turns[0]}
            for name, turns in found.items()
        },
        "turns": {
            name: [{key: round(value, 2) for key, value in one.items()} for one in turns]
            for name, turns in found.items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
