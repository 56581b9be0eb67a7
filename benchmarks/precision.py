"""What a precision costs in quality: the same held-out rows answered in each, by one model.

python benchmarks/precision.py [--model nano] [--packs packs] [--limit 150] [--limit-slow 20] [--precisions float32,int8,bfloat16]
                               [--out benchmarks/results/FILE.json]

For each set and precision: the task's main metric with its 95% interval, the share of answers that are the same as in
float32, and the difference of the metric on the same rows. A precision that this machine has no instructions for answers
`--limit-slow` rows, and is compared with float32 on those.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from datetime import date
from pathlib import Path

import torch

import monoglot
from monoglot.data.rows import read_rows
from monoglot.decode.predict import load
from monoglot.evaluate.report import some_of
from monoglot.evaluate.run import score
from monoglot.files import write_text
from monoglot.model.linears import pick
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS
from monoglot.train.run import processor_name

SETS = {
    "names_en": "emoji/names_en.test.jsonl",
    "kinds": "emoji/kinds.test.jsonl",
    "drums": "sounds/drums.test.jsonl",
    "transcribe": "prompts/transcribe.test.jsonl",
    "direction": "clips/direction.test.jsonl",
}


def compared(samples: list[Sample], plain: list[Prediction], answers: list[Prediction]) -> dict[str, object]:
    """The main metric of both on the same rows, and how many answers are the same."""
    before, after = score(samples, plain, {})[0], score(samples, answers, {})[0]
    same = sum(a.text == b.text and a.box == b.box for a, b in zip(plain, answers))
    return {
        "metric": after.metric,
        "rows": len(samples),
        "value": round(after.value, 4),
        "interval": [after.low, after.high],
        "minus float32": round(after.value - before.value, 4),
        "same answers": round(same / len(samples), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=150)
    parser.add_argument("--limit-slow", type=int, default=20)
    parser.add_argument("--precisions", default="float32,int8,bfloat16")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    sets: dict[str, dict[str, object]] = {}
    for name in arguments.sets.split(","):
        rows = read_rows(arguments.packs / SETS[name], known_tasks=TASKS)
        samples = some_of(list(rows), arguments.limit)
        few = some_of(samples, arguments.limit_slow)
        plain: dict[str, Prediction] = {}
        sets[name] = {}
        for precision in dict.fromkeys(("float32", *arguments.precisions.split(","))):
            asked = few if "slow" in pick(precision)[1] else samples
            predictor = load(arguments.model, precision=precision)
            started = time.process_time()
            answers = list(predictor.predict_many(asked))
            seconds = time.process_time() - started
            plain = plain or {answer.id: answer for answer in answers}
            found = compared(asked, [plain[sample.id] for sample in asked], answers)
            sets[name][precision] = found | {"processor_seconds_a_row": round(seconds / len(asked), 4)}
            print(
                f"{name:12} {precision:9} {found['metric']} {found['value']} on {found['rows']} rows, "
                f"{found['minus float32']:+} against float32, {found['same answers']:.1%} the same",
                flush=True,
            )
    results = {
        "command": " ".join(["python", "benchmarks/precision.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "model": arguments.model,
        "machine": {
            "cores": os.cpu_count(),
            "processor": processor_name(),
            "instructions": torch.backends.cpu.get_cpu_capability(),
        },
        "versions": {"torch": torch.__version__, "python": platform.python_version(), "monoglot": monoglot.__version__},
        "threads": torch.get_num_threads(),
        "sets": sets,
    }
    if arguments.out:
        write_text(arguments.out, json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
