"""A head on frozen features: which features, which classifier, how long.

python benchmarks/head_features.py [--packs packs] [--model nano] [--keep FOLDER] [--out benchmarks/results/FILE.json]

Tasks that the model was not trained on, or with data it was not trained on; training and test rows share no group:
drums     test kits of the pack `sounds`, half of the kits to learn from (rows of a kit are left out together)
voices    which eSpeak voice reads a prompt
digits    scikit-learn's handwritten digits, 8 x 8, as pictures
kinds     pictures of the test style of the pack `emoji` -> group of the thing
hands     pictures of the pack `emoji` -> who drew it
words     names of things in the pack `emoji`, as text -> group of the thing

scikit-learn's logistic regression, on features of mean 0 and spread 1, is the outside reference.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

import monoglot
from monoglot.data.packs.emoji_concepts import picture_path, read_concepts
from monoglot.data.rows import read_rows
from monoglot.model.head import METHODS, POOLS, blocks_of, features, fit_head
from monoglot.nouns import Media, Sample
from monoglot.rng import stream

SHOTS = (1, 5, 20)
SEEDS = (0, 1, 2)
MOST = 60
"""Rows a class."""
HANDS = ("twemoji", "fluent-flat", "fluent-3d", "emojione", "fxemoji", "noto")
CHOICES = (
    ("mean",),
    ("mean", "std"),
    ("mean", "max"),
    ("memory.mean",),
    ("mean", "memory.mean"),
    ("mean", "std", "memory.mean"),
)
"""Pools of the encoder of the task's media, and of the unified encoder."""
CLASSIFIERS = ("chosen", *METHODS, "logistic regression")


@dataclass
class Rows:
    samples: list[Sample]
    labels: list[str]
    groups: list[str]
    """Training and test rows share none."""
    together: bool = False
    """Rows of a group are left out together."""


def drums(packs: Path) -> Rows:
    names = ("drums.test", "drums.valid", "sonicpi_drums.test")
    samples = [row for name in names for row in read_rows(packs / "sounds" / f"{name}.jsonl")]
    return Rows(samples, [row.targets[0] for row in samples], [row.meta["kit"] for row in samples], together=True)


def voices(packs: Path) -> Rows:
    samples = [
        row for part in ("test", "train") for row in read_rows(packs / "prompts" / f"transcribe_espeak.{part}.jsonl")
    ]
    return Rows(samples, [row.meta["voice"] for row in samples], [row.meta["group"] for row in samples])


def digits(packs: Path) -> Rows:
    data = load_digits()
    pictures = np.repeat(np.repeat((data.images * 15.9).astype(np.uint8), 12, axis=1), 12, axis=2)
    samples = [
        Sample(
            str(i), "classify", (Media("image", np.stack([picture] * 3, axis=-1)),), "which digit?", choices=("0", "1")
        )
        for i, picture in enumerate(pictures)
    ]
    return Rows(samples, [str(label) for label in data.target], [sample.id for sample in samples])


def kinds(packs: Path) -> Rows:
    concepts = [c for c in read_concepts(packs / "emoji") if "noto" in c.styles and c.group != "flags"]
    samples = [_drawing(packs, "noto", c.hexcode, "what kind of thing is this?") for c in concepts]
    return Rows(samples, [c.group for c in concepts], [c.hexcode for c in concepts])


def hands(packs: Path) -> Rows:
    pairs = [(c.hexcode, style) for c in read_concepts(packs / "emoji") for style in HANDS if style in c.styles]
    samples = [_drawing(packs, style, code, "who drew this?") for code, style in pairs]
    return Rows(samples, [style for _, style in pairs], [code for code, _ in pairs])


def words(packs: Path) -> Rows:
    concepts = [c for c in read_concepts(packs / "emoji") if c.group != "flags"]
    samples = [Sample(c.hexcode, "classify", (), c.name, choices=("a", "b")) for c in concepts]
    return Rows(samples, [c.group for c in concepts], [c.hexcode for c in concepts])


TASKS = {task.__name__: task for task in (drums, voices, digits, kinds, hands, words)}


def _drawing(packs: Path, style: str, code: str, question: str) -> Sample:
    path = packs / "emoji" / "media" / picture_path(style, code)
    return Sample(f"{style} {code}", "classify", (Media("image", str(path)),), question, choices=("a", "b"))


def at_most(rows: Rows, most: int) -> Rows:
    """Of each class, a draw."""
    order, kept, count = stream(0, "rows").permutation(len(rows.labels)), [], dict[str, int]()
    for index in order:
        label = rows.labels[index]
        if count.setdefault(label, 0) < most:
            count[label] += 1
            kept.append(int(index))
    return Rows(*([part[i] for i in kept] for part in (rows.samples, rows.labels, rows.groups)), rows.together)


def split(rows: Rows, shots: int, seed: int) -> tuple[list[int], list[int]]:
    """`shots` rows a class from half of the groups, or as many as there are; all rows of the other half whose class can be learned."""
    names = sorted(set(rows.groups))
    learn = {names[i] for i in stream(seed, "groups").permutation(len(names))[: (len(names) + 1) // 2]}
    count, train = dict[str, int](), []
    for index in stream(seed, "shots").permutation(len(rows.labels)):
        label = rows.labels[index]
        if rows.groups[index] in learn and count.setdefault(label, 0) < shots:
            count[label] += 1
            train.append(int(index))
    return train, [i for i, label in enumerate(rows.labels) if rows.groups[i] not in learn and label in count]


def answers(
    name: str, x: Tensor, labels: Sequence[str], groups: Sequence[str] | None, blocks: dict[str, int], test: Tensor
):
    """Classes, and their probabilities for the test rows: float[N, C]."""
    if name == "logistic regression":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        model.fit(x.numpy(), labels)
        return tuple(model.classes_), model.predict_proba(test.numpy())
    methods = METHODS if name == "chosen" else (name,)
    head = fit_head(x, labels, groups=groups, blocks=blocks, methods=methods)
    return head.classes, head.probabilities(test).numpy()


def columns(blocks: dict[str, int], choice: Sequence[str]) -> tuple[dict[str, int], Tensor]:
    """The blocks of a choice, and where they lie among all features."""
    wanted = []
    for name in blocks:
        source, _, pool = name.partition(".")
        if name in choice or (source != "memory" and pool in choice):
            wanted.append(name)
    starts = dict(zip(blocks, np.cumsum([0, *blocks.values()])))
    places = [torch.arange(starts[name], starts[name] + blocks[name]) for name in wanted]
    return {name: blocks[name] for name in wanted}, torch.cat(places)


def measure(rows: Rows, x: Tensor, blocks: dict[str, int]) -> dict[str, dict[str, dict[str, float]]]:
    found: dict[str, dict[str, dict[str, float]]] = {}
    for choice in CHOICES:
        if "mean" in choice and all(name.startswith("memory") for name in blocks):
            continue  # no media here
        mine, places = columns(blocks, choice)
        for shots in SHOTS:
            for name in CLASSIFIERS:
                right, surprise, seconds = [], [], []
                for seed in SEEDS:
                    train, test = split(rows, shots, seed)
                    groups = [rows.groups[i] for i in train] if rows.together else None
                    started = time.perf_counter()
                    labels = [rows.labels[i] for i in train]
                    classes, p = answers(name, x[train][:, places], labels, groups, mine, x[test][:, places])
                    seconds.append(time.perf_counter() - started)
                    truth = np.array([classes.index(rows.labels[i]) for i in test])
                    right.append(float((p.argmax(1) == truth).mean()))
                    surprise.append(float(-np.log(p[np.arange(len(truth)), truth].clip(1e-9)).mean()))
                entry = {
                    "accuracy": round(100 * float(np.mean(right)), 1),
                    "spread": round(100 * float(np.std(right, ddof=1)), 1),
                    "nats": round(float(np.mean(surprise)), 3),
                    "seconds": round(float(np.mean(seconds)), 3),
                }
                found.setdefault(" + ".join(choice), {}).setdefault(name, {})[str(shots)] = entry
    return found


def whole(rows: Rows, predictor) -> dict[str, float]:
    """Seconds from 180 rows on disk to a head, the features being those of `blocks_of`, and answers for 16 rows more."""
    some = Rows(rows.samples[:180], rows.labels[:180], rows.groups[:180])
    blocks = blocks_of(predictor.model, some.samples)
    clock, processor = time.perf_counter(), time.process_time()
    x, read = features(predictor.model, predictor.preparer, some.samples, blocks=blocks)
    seen = time.perf_counter()
    head = fit_head(x, [some.labels[i] for i in read], blocks=blocks)
    learned = time.perf_counter()
    used = time.process_time() - processor
    head.probabilities(features(predictor.model, predictor.preparer, rows.samples[180:196], blocks=blocks)[0])
    return {
        "rows": len(read),
        "features_seconds": round(seen - clock, 2),
        "fit_seconds": round(learned - seen, 2),
        "processor_seconds": round(used, 2),
        "16_answers_seconds": round(time.perf_counter() - learned, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--model", default="nano")
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--keep", type=Path, help="Folder of features, so that they are computed once.")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    predictor = monoglot.load(arguments.model)
    results = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "date": date.today().isoformat(),
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "monoglot": monoglot.__version__},
        "threads": torch.get_num_threads(),
        "seeds": list(SEEDS),
        "tasks": {},
    }
    for name in arguments.tasks.split(","):
        rows = at_most(TASKS[name](arguments.packs), MOST)
        blocks = blocks_of(predictor.model, rows.samples, tuple(POOLS))
        blocks["memory.mean"] = predictor.model.config.width
        kept = arguments.keep and arguments.keep / f"{name}.pt"
        if kept and kept.is_file():
            x, read, seconds = torch.load(kept, weights_only=True)
        else:
            started = time.perf_counter()
            x, read = features(predictor.model, predictor.preparer, rows.samples, blocks=blocks)
            seconds = time.perf_counter() - started
            if kept:
                torch.save((x, read, seconds), kept)
        rows = Rows(*([part[i] for i in read] for part in (rows.samples, rows.labels, rows.groups)), rows.together)
        results["tasks"][name] = {
            "rows": len(read),
            "classes": len(set(rows.labels)),
            "seconds_for_features": round(seconds, 1),
            "features": measure(rows, x, blocks),
        }
        print(name, json.dumps({k: v for k, v in results["tasks"][name].items() if k != "features"}), flush=True)
        for choice, by_name in results["tasks"][name]["features"].items():
            for classifier, by_shots in by_name.items():
                line = "  ".join(
                    f"{e['accuracy']:5.1f} +-{e['spread']:4.1f} {e['nats']:5.2f}" for e in by_shots.values()
                )
                print(f"  {choice:45} {classifier:20} {line}  {by_shots[str(SHOTS[-1])]['seconds']} s", flush=True)
        if name in ("drums", "kinds"):
            results["tasks"][name]["from_files_to_head"] = whole(rows, predictor)
            print("  from files to a head:", results["tasks"][name]["from_files_to_head"], flush=True)
        if arguments.out:  # after each task
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
