"""A run's folder as training leaves it, made up: losses that fall, three stages, resumes, skipped steps, bad rows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import yaml

from monoglot.data.rows import read_rows
from monoglot.demo import SAMPLES

EVERY = 10
"""Steps between two lines."""
LOOK = 50
"""Steps between two looks at held-out rows."""
STAGES = ("pictures", "clips", "everything")
MACHINE = {"processor": "AMD EPYC 7B13", "threads": 2, "processes": 1, "torch": "2.13.0"}


def write_run(
    folder: Path,
    *,
    sets: int = 4,
    steps: int = 600,
    stages: tuple[str, ...] = STAGES,
    validation: bool = True,
    samples: bool = True,
    end: bool = True,
    resumes: tuple[int, ...] = (),
    seed: int = 0,
) -> Path:
    """recipe.yaml, metrics.jsonl and quarantine.jsonl of a run that has `sets` data sets."""
    rng = np.random.default_rng(seed)
    names = [f"set_{index:02d}" for index in range(sets)]
    rows = list(read_rows(SAMPLES / "rows.jsonl"))
    folder.mkdir(parents=True, exist_ok=True)
    write_recipe(folder, names, steps, stages)
    start = {"event": "begin", "step": 0, "time": "2026-11-26T10:00:00", "machine": MACHINE, "precision": "bfloat16"}
    lines: list[dict] = [start]
    base = rng.uniform(0.2, 3.0, sets)
    lowest = dict.fromkeys(names, math.inf)
    seconds, length, logged = 0.0, steps // len(stages), -1
    for step in range(steps):  # the number of the step, from 0; looks and events say how many are done
        index = min(step // length, len(stages) - 1)
        active = names[: max(1, sets * (index + 1) // len(stages))]
        quotas = {name: 2.0 + (number % 5) for number, name in enumerate(active)}
        over = step + 1 == (steps if index + 1 == len(stages) else (index + 1) * length)
        seconds += rng.uniform(1.4, 1.8)
        if step % length == 0 and step < length * len(stages):
            told = {n: {"task": "name", "rows": 7662, "quota": q} for n, q in quotas.items()}
            lines.append({"event": "stage", "step": step, "stage": stages[index], "index": index, "sources": told})
        if step in resumes:
            lines.append({**start, "step": step, "time": "2026-11-26T12:00:00"})
        falls = {name: base[n] + 6 * math.exp(-step / 80) for n, name in enumerate(active)}
        if step % EVERY == 0 or over:
            since, logged = step - logged, step
            noise, share = rng.normal(1, 0.08, sets), rng.uniform(0.5, 2, len(active))
            lines.append(
                {
                    "step": step,
                    "seconds": round(seconds, 2),
                    "loss": {name: round(loss * noise[n], 4) for n, (name, loss) in enumerate(falls.items())},
                    "stage": stages[index],
                    "weights": dict(zip(active, (share / share.sum()).round(4).tolist())),
                    "quotas": quotas,
                    "norm": round(float(rng.lognormal(0.2, 0.5)), 3),
                    "lr": 1e-3 * min(1, step / 30) * (1 - step / (steps + 1)),
                    "memory_mb": 900 + 60 * index + int(rng.uniform(0, 20)),
                    "rows": {name: int(quota * since) for name, quota in quotas.items()},
                    "tokens": {
                        "source": 2000 * since,
                        "target": 300 * since,
                        "padding": int(rng.uniform(90, 260)) * since,
                    },
                    "wait": round(float(rng.uniform(0, 0.04)) * since, 3),
                }
            )
        if step % 100 == 0 and len(active) > 1:
            lines.append({"step": step, "conflicts": {"names": active, "cosine": cosines(rng, len(active))}})
        done = step + 1
        if done % LOOK == 0 and validation:
            losses = {n: round(falls[n] * 1.1 + 0.2 * max(0, done - 300) / 300, 4) for n in active}
            lowest |= {name: min(lowest[name], loss) for name, loss in losses.items()}
            regret = {name: round(loss - lowest[name], 4) for name, loss in losses.items()}
            lines.append({"step": done, "seconds": round(seconds, 2), "held_out": losses, "regret": regret})
            if samples:
                said = [asked(row, names[i % sets], done >= 200 + 20 * i) for i, row in enumerate(rows)]
                lines.append({"step": done, "samples": said})
    why = "gradient norm 812.0 is 10 times its usual 3.1"
    lines.append({"step": min(412, steps), "event": "skipped", "why": why, "norm": 812.0})
    lines.append({"step": min(420, steps), "event": "back", "to": 400, "why": "8 steps in a row were left out"})
    if end:
        lines.append({"event": "end", "step": steps, "seconds": round(seconds, 2)})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    bad = [
        {"row": f"packs/a.jsonl:{n}", "error": f"media/{n}.png: image: the file is empty (0 bytes); copy it again"}
        for n in range(12)
    ]
    (folder / "quarantine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in bad), encoding="utf-8")
    return folder


def write_recipe(folder: Path, names: list[str], steps: int, stages: tuple[str, ...]) -> None:
    mixture = [{"name": name, "data": f"emoji/{name}.train.jsonl", "quota": 2} for name in names]
    page = {"name": "made_up", "mixture": mixture}
    page["stages"] = [{"name": stage, "steps": steps // len(stages)} for stage in stages]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(page, sort_keys=False), encoding="utf-8")


def asked(row, name: str, knows: bool) -> dict:
    """A held-out row as a line of samples has it."""
    boxed = row.task == "grounding"
    target = " ".join(f"{corner:.3f}" for corner in row.box) if boxed else row.targets[0]
    wrong = "0.000 0.000 0.090 0.090" if boxed else "something else"
    return {
        "set": name,
        "id": row.id,
        "task": row.task,
        "media": [[media.modality, str(media.source)] for media in row.media],
        "text": row.text,
        "target": target,
        "answer": target if knows else wrong,
        "confidence": 0.9 if knows else 0.2,
        **({"box": list(row.box)} if row.box else {}),
    }


def cosines(rng: np.random.Generator, count: int) -> list[list[float]]:
    vectors = rng.normal(size=(count, 8)) + 0.4
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T).round(3).tolist()
