"""How well and how cheaply does the bundled model take on a new task, against dedicated models trained on the same rows?

python benchmarks/adapt.py prepare               rows of each task, held out by kit, module, family, speaker, start of text
python benchmarks/adapt.py run drums [--seeds 3]  monoglot fewshot on one task; goes on where it was stopped
python benchmarks/adapt.py page                  tables and figures of docs/adapt.md from benchmarks/results/adapt

Needs the packs sounds, solar, sprites, speakers, packages (`monoglot data build ... --out packs`), the extra `fewshot`, and the pretrained
parts of the dedicated models. None of these rows was trained on by nano. The split of drums and of units is by a fixed list, not by chance.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch: a run has one thread, so two at a time do not disturb each other

from monoglot.adapt.fewshot import fewshot
from monoglot.data.rows import write_rows
from monoglot.files import write_json, write_text

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "adapt"
MEDIA = ("image", "audio", "video")
Rows = list[dict[str, Any]]


def read(packs: Path, file: str, keep: Callable[[dict[str, Any]], bool] = lambda row: True) -> Rows:
    """Rows of a pack with whole media paths, without the choices that the pack gives them: an adaptation finds them itself."""
    path = packs / file
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if keep(row):
            rows.append(
                {k: str((path.parent / v).resolve()) if k in MEDIA else v for k, v in row.items() if k != "choices"}
            )
    return rows


def drums(packs: Path) -> tuple[Rows, Rows]:
    """Kits under the GPL, which nano never trained on: every second one, in the order of their names, tests."""
    rows = read(packs, "sounds/drums.test.jsonl")
    kits = sorted({row["kit"] for row in rows})
    for row in rows:
        row["group"] = row["kit"]
    return [r for r in rows if r["kit"] in kits[::2]], [r for r in rows if r["kit"] in kits[1::2]]


def cells(packs: Path) -> tuple[Rows, Rows]:
    """Solar cells, by blocks of 60 neighbours."""
    return read(packs, "solar/defects.train.jsonl"), every(read(packs, "solar/defects.test.jsonl"), 200)


def units(packs: Path) -> tuple[Rows, Rows]:
    """What a figure does, by family of units."""
    train, test = (read(packs, f"sprites/sprites.{split}.jsonl") for split in ("train", "test"))
    return [row | {"task": "classify"} for row in train], [row | {"task": "classify"} for row in test]


def words(packs: Path) -> tuple[Rows, Rows]:
    """Spoken words in three languages that Whisper tiny.en was not made for: a person and six synthetic voices train, another person tests."""
    langs = ("es", "fr", "it")
    train = [
        row
        for lang in langs
        for part in ("", "_espeak")
        for row in read(packs, f"speakers/words_{lang}{part}.train.jsonl")
    ]
    return train, [row for lang in langs for row in read(packs, f"speakers/words_{lang}.test.jsonl")]


def sections(packs: Path) -> tuple[Rows, Rows]:
    """Which section a package is in, of twelve, from its description; packages whose texts begin alike are on one side."""
    chosen = ["libs", "perl", "python", "utils", "admin", "java", "net", "doc", "x11", "games", "sound", "graphics"]
    wanted = lambda row: row["target"] in chosen  # noqa: E731
    return read(packs, "packages/sections.train.jsonl", wanted), every(
        read(packs, "packages/sections.test.jsonl", wanted), 200
    )


def every(rows: Rows, most: int) -> Rows:
    """At most so many, evenly over the file."""
    return rows if len(rows) <= most else [rows[index * len(rows) // most] for index in range(most)]


TASKS: dict[str, tuple[str, Callable[[Path], tuple[Rows, Rows]], str]] = {
    "drums": ("which drum is heard (5 unseen kits)", drums, "1,5,20"),
    "cells": ("is a solar cell defective (10 unseen blocks)", cells, "1,5,20,50"),
    "units": ("what a figure does, in clips (unseen families)", units, "1,5,20"),
    "words": ("which word is spoken (another person)", words, "1,2"),
    "sections": ("section of a package, from its text", sections, "1,5,20"),
}
"""Name -> what it is, its rows, the shots that are tried."""


def prepare(packs: Path, work: Path) -> None:
    facts = {}
    for name, (_, rows_of, _) in TASKS.items():
        train, test = rows_of(packs)
        for split, rows in (("train", train), ("test", test)):
            write_rows(work / name / f"{split}.jsonl", rows)
        facts[name] = {"train": len(train), "test": len(test), "answers": len({row["target"] for row in train})}
        print(name, facts[name])
    write_json(RESULTS / "data.json", facts)


def run(name: str, work: Path, seeds: int, methods: str, rivals: str) -> None:
    folder = work / name
    fewshot(
        "nano",
        folder / "train.jsonl",
        folder / "out",
        test=folder / "test.jsonl",
        shots=TASKS[name][2],
        seeds=seeds,
        methods=methods,
        rivals=rivals,
        minutes=120.0,
        resume=(folder / "out" / "cells.jsonl").exists(),
    )
    result = json.loads((folder / "out" / "fewshot.json").read_text(encoding="utf-8"))
    write_json(
        RESULTS / f"{name}.json", result | {"command": f"python benchmarks/adapt.py run {name} --methods {methods}"}
    )
    shutil.copyfile(folder / "out" / "fewshot.png", ROOT / "docs" / f"adapt_{name}.png")


def page() -> None:
    """Put tables and figures into docs/adapt.md, between its marks."""
    found = {name: json.loads(path.read_text()) for name in TASKS if (path := RESULTS / f"{name}.json").is_file()}
    text = "\n".join(blocks(found))
    path = ROOT / "docs" / "adapt.md"
    marked = re.sub(
        r"<!-- adapt -->.*<!-- /adapt -->",
        lambda _: f"<!-- adapt -->\n{text}\n<!-- /adapt -->",
        path.read_text(),
        flags=re.DOTALL,
    )
    write_text(path, marked)


def blocks(found: dict[str, Any]) -> Iterable[str]:
    facts = json.loads((RESULTS / "data.json").read_text())
    yield "### Wins and losses\n"
    yield (
        "The better of nano's methods against the better dedicated model, trained on the same rows: points of accuracy, mean of the seeds "
        "and 95% t interval of the differences seed by seed. A win or a loss is an interval without 0.\n"
    )
    yield "| task | k | nano | best dedicated | difference | |"
    yield "|---|---|---|---|---|---|"
    for name, result in found.items():
        for duel in result["duels"]:
            rival = result["labels"].get(duel["rival"], duel["rival"])
            half = "" if duel["half"] is None else f" ± {100 * duel['half']:.1f}"
            yield f"| {name} | {duel['shots']} | {duel['method']} | {rival} | {100 * duel['difference']:+.1f}{half} | {duel['verdict']} |"
    for name, result in found.items():
        curves = {curve["name"]: curve for curve in result["curves"]}
        about, names = facts[name], list(curves)
        seeds = max(point["seeds"] for curve in curves.values() for point in curve["points"])
        yield f"\n### {name}\n"
        yield (
            f"{TASKS[name][0].capitalize()}; {about['answers']} answers, {about['test']} test rows, {seeds} seeds. Accuracy in %, seconds to "
            "train (one thread, beside other jobs); best of each line in bold.\n"
        )
        yield "| k | " + " | ".join(result["labels"].get(n, f"**nano, {n}**") for n in names) + " |"
        yield "|---|" + "---|" * len(names)
        points = {n: {point["shots"]: point for point in curves[n]["points"]} for n in names}
        for k in result["settings"]["shots"]:
            here = [points[n].get(k) for n in names]
            best = max((p["score"] for p in here if p), default=0.0)
            yield f"| {k} | " + " | ".join(cell(p, best) for p in here) + " |"
        last = [curves[n]["points"][-1] for n in names]
        yield "| MB to keep | " + " | ".join(f"{p['megabytes']:.2f}" for p in last) + " |"
        yield f"\n![{name}](adapt_{name}.png)\n"


def cell(point: dict[str, Any] | None, best: float) -> str:
    if point is None:
        return "–"
    said = f"{100 * point['score']:.1f}" + ("" if point["half"] is None else f" ± {100 * point['half']:.1f}")
    said = f"**{said}**" if point["score"] == best else said
    return f"{said}, {point['seconds']:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["prepare", "run", "page"])
    parser.add_argument("task", nargs="?", choices=list(TASKS))
    parser.add_argument("--packs", type=Path, default=Path("packs"))
    parser.add_argument("--work", type=Path, default=Path("out/adapt"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", default="head,lora")
    parser.add_argument("--rivals", default="auto")
    given = parser.parse_args()
    if given.what == "prepare":
        prepare(given.packs, given.work)
    elif given.what == "run":
        run(given.task, given.work, given.seeds, given.methods, given.rivals)
    else:
        page()


if __name__ == "__main__":
    main()
