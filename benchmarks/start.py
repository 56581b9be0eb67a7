"""Warm against cold start at equal budget: the same recipe, the same rows in the same order, `start=warm` and `start=cold` in turn.

    python benchmarks/start.py [--steps 60] [--recipe recipes/nano_quick.yaml] [--out benchmarks/results/start.json]

Prints mean loss a token of each data set over the last quarter of the steps, and held-out losses one step before the end.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from monoglot.train.loop import train
from monoglot.train.recipe import read_recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/nano_quick.yaml"))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/start.py", *sys.argv[1:]]),
        "cores": os.cpu_count(),
    }
    for start in ("warm", "cold"):
        recipe = read_recipe(
            arguments.recipe,
            [
                f"start={start}",
                f"steps={arguments.steps}",
                f"validate_every={arguments.steps - 1}",
                "optimizer.warmup=0.2",
            ],
        )
        with tempfile.TemporaryDirectory() as folder:
            began = time.monotonic()
            train(recipe, Path(folder) / "run", quiet=True)
            lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
        late = [line["loss"] for line in lines if "loss" in line and line["step"] >= arguments.steps * 3 / 4]
        names = sorted({name for losses in late for name in losses})
        held_out = next(line["held_out"] for line in lines if "held_out" in line)
        results[start] = {
            "seconds": round(time.monotonic() - began, 1),
            "loss": {
                name: round(float(np.mean([losses[name] for losses in late if name in losses])), 3) for name in names
            },
            "held_out": {name: round(loss, 3) for name, loss in held_out.items()},
        }
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
