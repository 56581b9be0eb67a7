"""What nano learns of a kind of media that it has never seen, when nothing but the new encoder, its connector and positions is trained.

    monoglot data build sensor
    python benchmarks/new_modality.py --packs packs [--seeds 3] [--steps 160] [--runs runs/new_modality] [--out FILE.json]

The pack `sensor`: motion of a watch, four seconds a row, three people of ten held out. Asked: which of seven exercises (accuracy), and a
sentence that names exercise and arm (exact match). Beside nano, on the same rows: the most common answer; the nearest training row and
ridge regression, both on mean, spread and spectrum of each axis; and a network of its own with the same encoder, trained whole. For them a
sentence is one of the fourteen that there are. Old abilities: what nano says of the bundled samples, and its logits, are compared bit by bit.
A run whose model is there already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor, load
from monoglot.decode.search import SearchSettings
from monoglot.modalities import MODALITIES
from monoglot.nouns import Sample
from monoglot.plugins import give_plugins
from monoglot.rng import stream
from monoglot.store import BUNDLED
from monoglot.train.loop import train
from monoglot.train.recipe import read_recipe
from monoglot.train.run import processor_name

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "sensor.yaml"
GREEDY = SearchSettings(beam=1)
COPIES = 8
"""Augmented copies that the rivals' network sees, as the recipe has it."""
RIDGE = 10.0
"""Weight of the squared coefficients; not tuned."""


def rows(packs: Path, subset: str, split: str) -> list[Sample]:
    return list(read_rows(packs / "sensor" / f"{subset}.{split}.jsonl"))


# --- nano -------------------------------------------------------------------------------------------------------------


def train_nano(packs: Path, folder: Path, seed: int, steps: int) -> Path:
    """The model folder of one run of the recipe."""
    if not (folder / "model" / "config.json").is_file():
        changes = [f"data_folder={packs}", f"seed={seed}", f"steps={steps}", "validate_every=0", "validation=[]"]
        train(read_recipe(RECIPE, changes), folder, resume=(folder / "checkpoint").is_dir())
    return folder / "model"


def answers(predictor: Predictor, asked: Sequence[Sample]) -> list[str]:
    return [prediction.text for prediction in predictor.predict_many(asked)]


def share(said: Sequence[str], asked: Sequence[Sample]) -> float:
    """How many answers are the row's, to the letter."""
    return sum(text == sample.targets[0] for text, sample in zip(said, asked, strict=True)) / len(asked)


def differences(base: Predictor, grown: Predictor) -> dict[str, int]:
    """Of the bundled samples: how many answers differ in anything but the time taken, and how many logits differ in any bit."""
    old = list(read_rows(BUNDLED / "samples" / "rows.jsonl"))
    pairs = zip(base.predict_many(old), grown.predict_many(old), strict=True)
    other = sum({**a.to_json(), "seconds": 0} != {**b.to_json(), "seconds": 0} for a, b in pairs)
    logits = 0
    with torch.no_grad():
        for sample in old:
            first, second = (p.model(p.preparer.collate([p.preparer.example(sample)])) for p in (base, grown))
            logits += int((first != second).sum())
    return {"rows": len(old), "answers": other, "logits": logits}


# --- rivals -----------------------------------------------------------------------------------------------------------


def statistics_of(sample: Sample) -> np.ndarray:
    """float64[F]: of each axis mean, spread, and the logarithm of its twelve slowest waves (1/4 to 3 Hz)."""
    sensor = MODALITIES["sensor"]
    series = sensor.prepare(sample.media[0], sensor.config(channels=6), 0).astype(np.float64)
    waves = np.abs(np.fft.rfft(series - series.mean(1, keepdims=True), axis=1))[:, 1:13]
    return np.concatenate([series.mean(1), series.std(1), np.log1p(waves).ravel()])


def on_statistics(known: Sequence[Sample], asked: Sequence[Sample]) -> dict[str, list[str]]:
    """Answers of the nearest training row, and of ridge regression on one number a possible answer."""
    x, y = (np.stack([statistics_of(sample) for sample in samples]) for samples in (known, asked))
    mean, spread = x.mean(0), x.std(0)
    x, y = (x - mean) / spread, (y - mean) / spread
    said = [sample.targets[0] for sample in known]
    nearest = ((y[:, None] - x[None]) ** 2).sum(-1).argmin(1)
    names = sorted(set(said))
    wanted = np.array([[one == name for name in names] for one in said], float)
    x, y = (np.concatenate([part, np.ones((len(part), 1))], axis=1) for part in (x, y))
    solved = np.linalg.solve(x.T @ x + RIDGE * np.eye(x.shape[1]), x.T @ wanted)
    return {
        "nearest neighbour": [said[index] for index in nearest],
        "ridge regression": [names[index] for index in (y @ solved).argmax(1)],
    }


class Own(nn.Module):
    """The recipe's encoder, its first token and the mean and maximum of the others, one layer."""

    def __init__(self, classes: int):
        super().__init__()
        sensor = MODALITIES["sensor"]
        self.encoder = sensor.encoders["conv"](sensor.config(channels=6))
        width = 3 * self.encoder.channels
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Dropout(0.3), nn.Linear(width, classes))

    def forward(self, items: list[Tensor]) -> Tensor:
        tokens = self.encoder(items)
        return self.head(torch.stack([torch.cat([t[0], t[1:].mean(0), t[1:].amax(0)]) for t in tokens]))


def own_network(known: Sequence[Sample], asked: Sequence[Sample], seed: int, steps: int) -> list[str]:
    """Answers of a network that is trained on this alone: steps of 32 rows, where nano's have 8 of each question."""
    sensor, rng = MODALITIES["sensor"], stream(seed, "own network")
    settings = sensor.config(channels=6)
    copies = [[sensor.prepare(s.media[0], settings, copy) for copy in range(COPIES + 1)] for s in known]
    names = sorted({sample.targets[0] for sample in known})
    right = torch.tensor([names.index(sample.targets[0]) for sample in known])
    torch.manual_seed(seed)
    network = Own(len(names))
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 2e-3 * (1 - step / steps)
        drawn = rng.integers(0, len(known), 32)
        items = [torch.from_numpy(copies[index][rng.integers(COPIES + 1)]) for index in drawn]
        loss = F.cross_entropy(network(items), right[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    with torch.no_grad():
        found = network([torch.from_numpy(sensor.prepare(s.media[0], settings, 0)) for s in asked]).argmax(1)
    return [names[index] for index in found.tolist()]


# --- all of it --------------------------------------------------------------------------------------------------------


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Mean, and each seed's."""
    return {"mean": round(statistics.mean(values), 4), "seeds": [round(value, 4) for value in values]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--runs", type=Path, default=Path("runs/new_modality"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    give_plugins([str(ROOT / "examples" / "sensor.py")])
    data = {
        name: {split: rows(arguments.packs, name, split) for split in ("train", "test")}
        for name in ("exercise", "sentence")
    }
    scores: dict[str, dict[str, Any]] = {}

    def note(rival: str, subset: str, values: Sequence[float]) -> None:
        scores.setdefault(rival, {})[subset] = summary(values)
        print(f"{rival}: {subset} {scores[rival][subset]}", file=sys.stderr)

    base = load("nano", search=GREEDY)
    found: dict[str, list[float]] = {subset: [] for subset in data}
    differ, seconds = [], []
    for seed in range(arguments.seeds):
        started, there = time.process_time(), (arguments.runs / f"seed{seed}" / "model" / "config.json").is_file()
        folder = train_nano(arguments.packs, arguments.runs / f"seed{seed}", seed, arguments.steps)
        seconds += [] if there else [time.process_time() - started]
        grown = load(folder, search=GREEDY)
        for subset, splits in data.items():
            found[subset].append(share(answers(grown, splits["test"]), splits["test"]))
        differ.append(differences(base, grown))
        print(f"seed {seed}: {found} {differ[-1]}", file=sys.stderr)
    for subset, values in found.items():
        note("nano, new parts trained", subset, values)
    for subset, splits in data.items():
        common = Counter(sample.targets[0] for sample in splits["train"]).most_common(1)[0][0]
        note("most common answer", subset, [share([common] * len(splits["test"]), splits["test"])])
        for rival, said in on_statistics(splits["train"], splits["test"]).items():
            note(rival, subset, [share(said, splits["test"])])
        own = [own_network(splits["train"], splits["test"], seed, arguments.steps) for seed in range(arguments.seeds)]
        note("network of its own, same encoder", subset, [share(said, splits["test"]) for said in own])
    new = [p.numel() for name, p in grown.model.named_parameters() if "sensor" in name.split(".")]
    result = {
        "command": " ".join(["python", "benchmarks/new_modality.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"processor": processor_name(), "threads": torch.get_num_threads(), "torch": torch.__version__},
        "load": round(os.getloadavg()[0], 2),
        "rows": {subset: {split: len(samples) for split, samples in splits.items()} for subset, splits in data.items()},
        "steps": arguments.steps,
        "trained_parameters": sum(new),
        "all_parameters": sum(p.numel() for p in grown.model.parameters()),
        "processor_seconds": [round(value) for value in seconds],
        "scores": scores,
        "old_abilities_that_differ": differ,
    }
    text = json.dumps(result, indent=1)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
