"""How long one answer takes: each bundled kind of sample at batch 1, batching against one by one, start-up, memory.

python benchmarks/latency.py [--model nano] [--repeat 15] [--out benchmarks/results/FILE.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import monoglot
from monoglot.demo import SAMPLES

ROOT = Path(__file__).parent


def clip(frames: int = 24) -> np.ndarray:
    """uint8[T, H, W, 3]: a bright square that slides to the right."""
    film = np.full((frames, 128, 128, 3), 200, np.uint8)
    for index in range(frames):
        film[index, 48:80, 4 * index : 4 * index + 32] = (200, 30, 30)
    return film


def jobs() -> dict[str, dict]:
    rng = np.random.default_rng(0)
    drawing = Image.open(SAMPLES / "media" / "names-en-noto-1f9c0.png").convert("RGBA").resize((640, 480))
    picture = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing).convert("RGB")
    speech = (rng.normal(size=5 * 16000) * 0.05).astype(np.float32)
    return {
        "picture, name": {"task": "name", "image": picture},
        "picture, box": {"task": "grounding", "image": picture, "text": "the red cup"},
        "8-frame clip, question": {
            "task": "vqa",
            "video": clip(),
            "text": "which way does it move?",
            "choices": ["left", "right", "up", "down"],
        },
        "5 s of sound, transcript": {"task": "transcribe", "audio": (speech, 16000)},
        "text, summary": {"task": "summarize", "text": "a tool that finds files by their names. " * 10},
    }


def seconds(run, repeat: int) -> list[float]:
    run()
    taken = []
    for _ in range(repeat):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return taken


def milliseconds(values: list[float]) -> dict[str, float]:
    return {
        "median_ms": round(1000 * statistics.median(values), 1),
        "min_ms": round(1000 * min(values), 1),
        "max_ms": round(1000 * max(values), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    results: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/latency.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "monoglot": monoglot.__version__},
        "threads": torch.get_num_threads(),
    }
    started = time.perf_counter()
    predictor = monoglot.load(arguments.model)
    results["load_seconds"] = round(time.perf_counter() - started, 2)
    predictor.keep_features(None)  # each answer from the beginning
    for name, job in jobs().items():
        results[name] = milliseconds(seconds(lambda job=job: predictor.predict(**job), arguments.repeat))

    rng = np.random.default_rng(1)
    rows = [{"id": str(i), "task": "name"} for i in range(32)]
    samples = []
    for row in rows:
        media = monoglot.nouns.Media("image", rng.integers(0, 255, (192, 192, 3), dtype=np.uint8))
        samples.append(monoglot.Sample(row["id"], "name", (media,)))
    for count in (8, 16, 32):
        results[f"{count} pictures, one by one"] = milliseconds(
            seconds(lambda n=count: list(predictor.predict_many(samples[:n], batch_size=1)), 3)
        )
        results[f"{count} pictures, batches of 16"] = milliseconds(
            seconds(lambda n=count: list(predictor.predict_many(samples[:n], batch_size=16)), 3)
        )

    for name, command in {
        "import monoglot": [sys.executable, "-c", "import monoglot"],
        "monoglot --help": [sys.executable, "-m", "monoglot", "--help"],
        "python alone": [sys.executable, "-c", "pass"],
    }.items():
        results[name] = milliseconds(seconds(lambda c=command: subprocess.run(c, check=True, capture_output=True), 5))
    results["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
