"""What the training loop costs beside the bare step, how fast rows are read, how much is padded, what a second process brings.

    python benchmarks/training_loop.py [--recipe recipes/nano_1_names.yaml] [--steps 8] [--turns 5] [--out FILE.json]

Loop and bare step take turns on the same steps, in blocks; features of frozen encoders are kept before anything is timed, as they are in a run after
its first pass. The bare step has its rows in memory and does forward, loss, backward, clipping and update and nothing else. Processes have one thread each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monoglot.train.distributed import World
from monoglot.train.gradients import backward, counts, tokens_by_source
from monoglot.train.recipe import Recipe, read_recipe
from monoglot.train.run import Run, processor_name
from monoglot.train.steps import Step


def bare(run: Run, step: Step) -> None:
    """Forward, loss, backward, clipping, update."""
    stage = run.stage
    stage.module.train()
    stage.optimizer.zero_grad(set_to_none=True)
    if stage.words is not None:
        stage.words.draw(step.index)
    total = tokens_by_source(step.parts, len(stage.plan.names), stage.trainee.objective, step.index)
    backward(stage.module, step.parts, total, stage.balancer.weights(), World(), step.index)
    grown = [p for group in stage.optimizer.param_groups for p in group["params"] if p.grad is not None]
    nn.utils.clip_grad_norm_(grown, 1.0)
    stage.optimizer.step()
    if stage.words is not None:
        stage.words.write_to(stage.trainee.model.words.weight)


def summary(values: list[float], digits: int = 4) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), digits),
        "min": round(min(values), digits),
        "max": round(max(values), digits),
    }


def overhead(recipe: Recipe, steps: int, turns: int, folder: Path) -> dict[str, Any]:
    """Loop against bare step, reading against computing, padding."""
    loop_seconds, bare_seconds, read_seconds, rows_read = [], [], [], 0
    with Run(recipe, folder, World(), quiet=True) as run:
        first = run.stand.step
        for index in range(first, first + steps):  # features are kept from here on
            bare(run, run.stage.reader.step(index))
        for _ in range(turns):
            read = time.perf_counter()
            ready = [run.stage.reader.step(index) for index in range(first, first + steps)]
            read_seconds.append((time.perf_counter() - read) / steps)
            began = time.perf_counter()
            for step in ready:
                bare(run, step)
            bare_seconds.append((time.perf_counter() - began) / steps)
            began = time.perf_counter()
            for step in run.stage.reader.ahead(first, first + steps):
                run.do(step, 0.0)
                run.do_what_is_due()
            loop_seconds.append((time.perf_counter() - began) / steps)
        tokens = sum(counts(step.parts, len(run.stage.plan.names), World()).tokens for step in ready)
        rows_read = sum(step.rows for step in ready) / steps
    ratios = [loop / alone for loop, alone in zip(loop_seconds, bare_seconds)]
    return {
        "rows_a_step": rows_read,
        "bare_step_seconds": summary(bare_seconds),
        "loop_step_seconds": summary(loop_seconds),
        "loop_over_bare": summary(ratios),
        "reading_seconds_a_step": summary(read_seconds),
        "rows_read_a_second": round(rows_read / statistics.median(read_seconds), 1),
        "rows_eaten_a_second": round(rows_read / statistics.median(bare_seconds), 1),
        "reading_over_eating": round(statistics.median(bare_seconds) / statistics.median(read_seconds), 2),
        "padding": round(float(tokens[2] / tokens.sum()), 4),
    }


def scaling(recipe_file: Path, overrides: list[str], steps: int, turns: int) -> dict[str, Any]:
    """Rows a second of one and of two processes with a thread each, in turns."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(turns):
        for processes in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                command = [str(Path(sys.executable).with_name("torchrun")), "--nproc-per-node", str(processes)]
                command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
                command += [
                    "-m",
                    "monoglot",
                    "train",
                    str(recipe_file),
                    *overrides,
                    f"steps={steps}",
                    "--out",
                    f"{folder}/run",
                ]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                subprocess.run(command, check=True, env=environment, capture_output=True)
                lines = [json.loads(line) for line in Path(folder, "run", "metrics.jsonl").read_text().splitlines()]
            timed = [line for line in lines if "loss" in line and line["step"] > 0]
            begun = next(line for line in lines if line.get("step") == 0 and "loss" in line)
            rows = sum(sum(line["rows"].values()) for line in timed)
            rates[processes].append(rows / (timed[-1]["seconds"] - begun["seconds"]))
    return {
        "steps": steps,
        "rows_a_second": {str(processes): summary(values, 1) for processes, values in rates.items()},
        "two_over_one": summary([two / one for one, two in zip(rates[1], rates[2])], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=Path("recipes/nano_1_names.yaml"))
    parser.add_argument("--steps", type=int, default=8, help="steps in a block")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--scaling-steps", type=int, default=30, help="0 leaves the second process out")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the recipe")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    recipe = read_recipe(arguments.recipe, ["validate_every=0", "checkpoint_minutes=1000", *arguments.set])
    with tempfile.TemporaryDirectory() as folder:
        result: dict[str, Any] = {
            "command": " ".join(["python", "benchmarks/training_loop.py", *sys.argv[1:]]),
            "date": date.today().isoformat(),
            "machine": {"processor": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__},
            "load": round(os.getloadavg()[0], 2),
            "loop": overhead(recipe, arguments.steps, arguments.turns, Path(folder) / "run"),
        }
    if arguments.scaling_steps:
        changes = ["validate_every=0", "checkpoint_minutes=1000", *arguments.set]
        result["processes"] = scaling(arguments.recipe, changes, arguments.scaling_steps, max(1, arguments.turns // 2))
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
