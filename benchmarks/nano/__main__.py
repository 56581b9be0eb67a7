"""make packs && python -m benchmarks.nano [--model nano] [--as NAME] [--packs packs] [--limit N] [--only STEM ...]"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path
from typing import Any

import torch

from benchmarks.nano.measure import Neighbours, measure, missing
from benchmarks.nano.page import number, write
from benchmarks.nano.sets import SETS, WHOLE
from monoglot import __version__
from monoglot.decode.predict import load
from monoglot.files import sha256_of, write_json
from monoglot.store import model_folder

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "nano"
LIMIT = 200
"""Rows of a set; with it the whole page takes about 12 minutes on two cores."""


def run(arguments: argparse.Namespace) -> None:
    """Measure what is not measured yet, set by set; a run that is stopped goes on where it was."""
    out = arguments.results / f"{arguments.name}.json"
    folder = model_folder(arguments.model)
    weights = sha256_of(folder / "model.safetensors")
    told = folder / "lineage.json"
    lineage = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {}
    kept: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    sets = kept.get("sets", {})
    predictor = nearest = None
    for asked in SETS:
        if arguments.only and asked.stem not in arguments.only:
            continue
        if why := missing(arguments.packs, asked):
            print(f"left out: {asked.label}: {why}")
            continue
        settings = {"weights": weights, "limit": arguments.limit}
        done = sets.get(asked.stem)
        if done and not arguments.again and all(done[key] == value for key, value in settings.items()):
            continue
        if predictor is None:
            predictor = load(arguments.model, precision="float32")
            plain = arguments.name in ("nano", WHOLE) and not arguments.no_baselines
            nearest = Neighbours(predictor) if plain else None
        record = measure(predictor, asked, arguments.packs, limit=arguments.limit, nearest=nearest)
        if record is None:
            print(f"left out: {asked.label}: the model does not read it")
            continue
        sets[asked.stem] = record | settings
        value = number(record["value"], record["metric"])
        print(f"{asked.stem}: {record['metric']} {value} (n = {record['rows']}, {record['seconds']} s)", flush=True)
        kept = {
            "command": command(arguments),
            "date": date.today().isoformat(),
            "monoglot": __version__,
            "torch": torch.__version__,
            "machine": platform.machine(),
            "threads": torch.get_num_threads(),
            "limit": arguments.limit,
            "weights": weights,
            "steps": lineage.get("run", {}).get("steps"),
            "stages": len(lineage.get("recipe", {}).get("stages", ())),
            "sets": sets,
        }
        write_json(out, kept)


def command(arguments: argparse.Namespace) -> str:
    """What to type to measure the same."""
    other = "" if arguments.name == "nano" else f" --model {arguments.model} --as {arguments.name}"
    return f"python -m benchmarks.nano --limit {arguments.limit or 0}{other}"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nano", description=__doc__)
    parser.add_argument("--model", default="nano", help="a model folder, or a bundled model")
    parser.add_argument("--as", dest="name", default="nano", help="its file in results/nano; nano is the page's own")
    parser.add_argument(
        "--against", metavar="FOLDER", help="after that, measure this model too and compare: the quick model"
    )
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--limit", type=lambda text: int(text) or None, default=LIMIT, help="rows of a set; 0 for all")
    parser.add_argument(
        "--only", nargs="*", help="sets to measure, for example emoji/names_en; others stay as they are"
    )
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--again", action="store_true", help="measure also what is measured already")
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--root", type=Path, default=ROOT, help="where docs/ and README.md are")
    arguments = parser.parse_args(argv)
    if not arguments.page:
        run(arguments)
        if arguments.against:
            run(argparse.Namespace(**vars(arguments) | {"model": arguments.against, "name": "quick"}))
    files = {path.stem: json.loads(path.read_text()) for path in sorted(arguments.results.glob("*.json"))}
    if "nano" not in files:
        sys.exit(f"{arguments.results / 'nano.json'} is not there: measure the bundled model first (no --as)")
    write(files.pop("nano"), files, arguments.packs, arguments.root)


if __name__ == "__main__":
    main()
