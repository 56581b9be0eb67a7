"""What 8 bits cost and win in an export: points, equal answers, size, time, on held-out rows.

python benchmarks/export_int8.py [--packs packs] [--model nano] [--rows 120] [--keep FOLDER] [--out benchmarks/results/FILE.json]

float32         the export itself, equal to the model
int8            what `--int8` writes: matrices as bytes, convolutions as float16, float32 arithmetic
dynamic         ONNX Runtime's quantize_dynamic, unsigned weights: what comes into a matrix product is rounded to 8 bits, too
dynamic_signed  the same with signed weights, whose products saturate on processors that have AVX2 and no VNNI

One thread; milliseconds are processor time from row to answer, medians, the variants taking turns at each row. Exports in --keep stay and are used again.
"""

from __future__ import annotations

import argparse
import logging
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic

import monoglot
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor
from monoglot.export.graphs import write_graphs
from monoglot.export.int8 import main_scores, write_int8
from monoglot.export.parity import GREEDY
from monoglot.export.run import export
from monoglot.export.runtime import SPEC, load_export
from monoglot.export.spec import read_files
from monoglot.files import write_json
from monoglot.nouns import Prediction, Sample
from monoglot.tasks import TASKS

SETS = ("emoji/names_en", "emoji/kinds", "sounds/drums", "clips/direction", "prompts/transcribe")
VARIANTS = ("float32", "int8", "dynamic", "dynamic_signed")


def folders(model: str, variants: Sequence[str], kept: Path) -> dict[str, Path]:
    """Exports of the model, made where they are not there yet."""
    made = {name: kept / name for name in ("float32", *variants)}
    if not made["float32"].exists():
        export(model, made["float32"], quiet=True)
    names = [path.name for path in sorted(made["float32"].glob("*.onnx"))]
    for name, folder in made.items():
        if folder.exists():
            continue
        with tempfile.TemporaryDirectory(dir=kept) as scratch:
            work = Path(scratch) / name
            work.mkdir()
            if name == "int8":
                write_int8(made["float32"], work, names, lambda graph: None)
            else:
                weights = QuantType.QInt8 if name == "dynamic_signed" else QuantType.QUInt8
                write_graphs(work, [(graph, partial(dynamic, made["float32"] / graph, weights)) for graph in names])
            for file in ("tokenizer.json", SPEC):
                shutil.copy(made["float32"] / file, work)
            work.rename(folder)
    return {name: made[name] for name in dict.fromkeys(("float32", *variants))}


def dynamic(path: Path, weights: QuantType) -> onnx.ModelProto:
    logging.getLogger().setLevel(logging.ERROR)  # it recommends preprocessing, which would only name shapes
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / path.name
        quantize_dynamic(path, made, op_types_to_quantize=["MatMul", "Gather"], per_channel=True, weight_type=weights)
        return onnx.load(made)


def some(path: Path, most: int) -> list[Sample]:
    """Rows of a set, spread over all of it."""
    rows = list(read_rows(path, known_tasks=TASKS))
    return [rows[index * len(rows) // most] for index in range(most)] if len(rows) > most else rows


def measure(predictors: dict[str, Predictor], rows: Sequence[Sample]) -> dict[str, Any]:
    """Of each variant its score, answers equal to float32, and milliseconds."""
    answers: dict[str, list[Prediction]] = {name: [] for name in predictors}
    taken: dict[str, list[float]] = {name: [] for name in predictors}
    for number, row in enumerate([rows[0], *rows]):  # the first once before it counts
        for name, predictor in predictors.items():
            started = time.process_time()
            said = next(predictor.predict_many([row]))
            if number:
                taken[name].append(1000 * (time.process_time() - started))
                answers[name].append(said)
            assert said.error is None, said.error
    found = {}
    for name, given in answers.items():
        page = main_scores(rows, answers["float32"], given)[0]
        equal = [mine.text == plain.text for mine, plain in zip(given, answers["float32"])]
        found[name] = {
            "score": round(page["int8"], 4),
            "points_lost": round(100 * page["lost"], 2),
            "equal": round(sum(equal) / len(rows), 4),
            "ms": round(statistics.median(taken[name]), 2),
        }
    return {"metric": page["metric"], "rows": len(rows), "variants": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--model", default="nano")
    parser.add_argument("--rows", type=int, default=120, help="of each set, at most")
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--variants", nargs="+", default=VARIANTS, choices=VARIANTS)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        kept = arguments.keep or Path(scratch)
        kept.mkdir(parents=True, exist_ok=True)
        made = folders(arguments.model, arguments.variants, kept)
        report: dict[str, Any] = {
            "command": " ".join(["python", *sys.argv]),
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}, 1 thread, processor time",
            "versions": {"python": platform.python_version(), "monoglot": monoglot.__version__}
            | {name: version(name) for name in ("torch", "onnx", "onnxruntime")},
            "megabytes": {name: round(sum(read_files(folder).values()) / 1e6, 1) for name, folder in made.items()},
            "sets": {},
        }
        print(report["megabytes"], flush=True)
        predictors = {name: load_export(folder, search=GREEDY) for name, folder in made.items()}
        for name in arguments.sets:
            page = measure(predictors, some(arguments.packs / f"{name}.test.jsonl", arguments.rows))
            report["sets"][name] = page
            print(f"{name}: {page['rows']} rows, {page['metric']}", flush=True)
            for variant, told in page["variants"].items():
                faster = page["variants"]["float32"]["ms"] / told["ms"]
                print(f"  {variant:15}{told}, {faster:.2f}x as fast", flush=True)
            if arguments.out:
                write_json(arguments.out, report)


if __name__ == "__main__":
    main()
