"""How long one training step of the published base model takes: forward and backward, by stage, in both precisions.

    python benchmarks/train_step.py [--rows 2] [--size 384] [--repeat 9] [--out FILE.json]

The base model with its ResNet-101, pictures of 384 px, targets of 10 tokens, the loss of the published recipes (label smoothing 0.1).
Precisions take turns in one process; the word embedding is trained and not trained, since it is 46 M of the 198 M weights. Nothing is
measured of the optimizer or of reading rows.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from monoglot.data.collate import Batch
from monoglot.data.prepare import Preparer
from monoglot.model.config import ModelConfig, unival_base
from monoglot.model.unified import UnifiedModel
from monoglot.nouns import Media, Sample
from monoglot.store import BUNDLED
from monoglot.text.tokenizer import Tokenizer
from monoglot.train.losses import Objective
from monoglot.train.recipe import Loss
from monoglot.train.run import processor_name

STAGES = ("picture encoder", "transformer", "logits and loss", "backward", "all")


def set_up(rows: int, size: int) -> tuple[UnifiedModel, Batch]:
    """The base model with random weights, and a batch of random pictures with answers of 10 tokens."""
    settings = unival_base("image").model_dump(mode="json")
    settings["modalities"]["image"]["size"] = size
    torch.manual_seed(0)
    model = UnifiedModel(ModelConfig.model_validate(settings)).train()
    tokenizer = Tokenizer.load(BUNDLED / "nano" / "tokenizer.json", model.config.vocabulary)
    preparer, rng = Preparer(tokenizer, model.config), np.random.default_rng(0)
    pictures = [Media("image", rng.integers(0, 255, (400, 500, 3), dtype=np.uint8)) for _ in range(rows)]
    answer = "a red cup and a blue plate on a"
    samples = [Sample("1", "vqa", (picture,), "what does the image describe?", (answer,)) for picture in pictures]
    batch = preparer.collate([preparer.example(sample) for sample in samples])
    assert batch.target_valid.sum() == 10 * rows, "targets of 10 tokens"
    return model, batch


def step(model: UnifiedModel, batch: Batch, objective: Objective, *, bfloat16: bool) -> list[float]:
    """Seconds of each stage, and of all."""
    times = [time.perf_counter()]
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        features = model.encode_media(batch.media)
        times.append(time.perf_counter())
        states = model.decode(batch.target_in, model.encode(batch, features))[batch.target_valid]
        times.append(time.perf_counter())
        logits = model.logits(states)
    target = batch.target_out[batch.target_valid]
    groups, weights = torch.zeros_like(target), torch.ones(len(target))
    loss = objective(logits, target, groups, weights, None, step=0).mean()
    times.append(time.perf_counter())
    loss.backward()
    times.append(time.perf_counter())
    model.zero_grad(set_to_none=True)
    return [*(after - before for before, after in pairwise(times)), times[-1] - times[0]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2)
    parser.add_argument("--size", type=int, default=384, help="pixels a side")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    model, batch = set_up(arguments.rows, arguments.size)
    objective = Objective(Loss(), smoothing=0.1)
    taken: dict[str, list[list[float]]] = {}
    for _ in range(arguments.repeat + 1):
        for words in ("words trained", "words frozen"):
            model.words.weight.requires_grad_(words == "words trained")
            for precision in ("bfloat16", "float32"):
                seconds = step(model, batch, objective, bfloat16=precision == "bfloat16")
                taken.setdefault(f"{precision}, {words}", []).append(seconds)
    result: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/train_step.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"processor": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "load": round(os.getloadavg()[0], 2),
        "rows": arguments.rows,
        "source": list(batch.source_ids.shape),
        "seconds": {
            name: {
                stage: {"median": round(statistics.median(v), 4), "min": round(min(v), 4), "max": round(max(v), 4)}
                for stage, v in zip(STAGES, zip(*runs[1:]))  # the first one warms up
            }
            for name, runs in taken.items()
        },
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
