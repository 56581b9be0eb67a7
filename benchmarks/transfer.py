"""Which task helps which, and what is forgotten: the block between `<!-- transfer -->` marks of docs/transfer.md and docs/transfer.png.

    make packs && python benchmarks/transfer.py [--packs packs] [--out runs/transfer] [--tasks TASK ...] [--seeds 3] [--shots 5] [--steps 40] [--threads 1]
    python benchmarks/transfer.py --show benchmarks/results/transfer_nano_MACHINE_DATE.json

Up to five tasks of rows that the bundled model never saw: valid and test rows of the packs, of other kits, texts and drawing styles than it was trained
on. Each is parted into rows to learn from and rows to score, whole groups (a drum, a prompt's text, an emoji); tasks of the same media are parted
alike. Goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch
import yaml

from monoglot.adapt.rows import row_of
from monoglot.adapt.transfer import content, show, transfer
from monoglot.data.rows import read_rows, write_rows
from monoglot.files import atomic_path, read_json, write_json, write_text
from monoglot.nouns import Sample
from monoglot.report.page import Table
from monoglot.report.transfer import Transfer, from_json, png, sentence, tables
from monoglot.rng import stream

ROOT = Path(__file__).parent.parent
SAMPLED = ("ColomboAcousticDrumkit", "ForzeeStereo", "Millo-Drums_v.1", "Millo_MultiLayered2", "Millo_MultiLayered3")
SAMPLED += ("The Black Pearl 1.0",)
"""Kits of acoustic drums; the pack's other held-out kits are electronic drums, hand drums and loops cut up."""
GROUPS = 8
"""Kinds of emoji that are asked for: the commonest."""

Chosen = Callable[[Sample], bool]


def kinds(samples: list[Sample]) -> Chosen:
    """Rows that ask for a kind, and whose kind is among the commonest."""
    targets = [sample.targets[0] for sample in samples]
    common = sorted(set(targets), key=lambda kind: (-targets.count(kind), kind))[:GROUPS]
    return lambda sample: sample.targets[0] in common


TASKS: dict[str, tuple[str, str, Callable[[list[Sample]], Chosen]]] = {
    "acoustic drums": ("sounds/drums", "group", lambda _: lambda s: s.meta["kit"] in SAMPLED),
    "other drums": ("sounds/drums", "group", lambda _: lambda s: s.meta["kit"] not in SAMPLED),
    "emoji groups": ("emoji/kinds", "concept", kinds),
    "kinds of prompt": ("prompts/category", "group", lambda _: lambda s: True),
    "clip direction": ("clips/direction", "concept", lambda _: lambda s: True),
}
"""Name -> rows of the packs, what holds together, which of them."""
OLD = {"emoji_names": ("emoji/names_en", "concept"), "transcripts": ("prompts/transcribe", "group")}
"""What nano could do before. They share pictures and sounds with tasks: only groups that are scored."""


def learned(group: str) -> bool:
    """Which half a group falls into, by its name alone."""
    return bool(stream(0, "transfer", group).integers(2))


def held_out(packs: Path, stem: str) -> Iterator[Sample]:
    """Rows of a pack that nano was not trained on."""
    for part in ("valid", "test"):
        yield from read_rows(packs / f"{stem}.{part}.jsonl")


def write_tasks(packs: Path, folder: Path, names: Sequence[str]) -> Path:
    """Rows of all tasks and the page that lists them. A picture that is trained on under another name too is not scored."""
    halves: dict[str, dict[bool, list[Sample]]] = {}
    for name in names:
        stem, key, choose = TASKS[name]
        samples = list(held_out(packs, stem))
        chosen = choose(samples)
        halves[name] = {
            half: [s for s in samples if chosen(s) and learned(s.meta[key]) == half] for half in (True, False)
        }
    for name, (stem, key) in OLD.items():
        halves[name] = {False: [s for s in held_out(packs, stem) if not learned(s.meta[key])]}
    hashes: dict[str, str] = {}
    trained = {content(sample, hashes) for half in halves.values() for sample in half.get(True, ())}
    for name, half in halves.items():
        scored = [sample for sample in half[False] if content(sample, hashes) not in trained]
        write_rows(folder / file_of(name, "test"), rows(scored))
        if True in half:
            write_rows(folder / file_of(name, "train"), rows(half[True]))
    tasks = [{"name": name, **{part: file_of(name, part) for part in ("train", "test")}} for name in names]
    page = {"tasks": tasks, "old": [file_of(name, "test") for name in OLD]}
    write_text(folder / "tasks.yaml", yaml.safe_dump(page, sort_keys=False, allow_unicode=True))
    return folder / "tasks.yaml"


def file_of(name: str, part: str) -> str:
    return f"{name.replace(' ', '_')}.jsonl" if name in OLD else f"{name.replace(' ', '_')}.{part}.jsonl"


def rows(samples: list[Sample]) -> Iterator[dict]:
    """With paths that hold anywhere, and ids that are there once (valid and test rows may share them)."""
    for number, sample in enumerate(samples):
        yield row_of(sample) | {"id": f"{number}/{sample.id}"}


def block(found: Transfer, command: str, when: str) -> str:
    """What stands between the marks."""
    parts = [sentence(found)]
    parts += [f"{table.caption}.\n\n{markdown(table)}" for table in tables(found)]
    minutes = f"{found.adaptations} adaptations, {found.seconds / 60:.0f} min on {when}"
    parts.append("![gains by source and target, changes of tasks and old abilities](transfer.png)")
    parts.append(f"Measured with `{command}` ({minutes}).")
    return "\n\n".join(parts)


def markdown(table: Table) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(cell.replace("*", "\\*") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines)


def fill(result: Path) -> None:
    """docs/transfer.md and docs/transfer.png from a result."""
    held = read_json(result, "a result of this benchmark")
    found, page = from_json(held), ROOT / "docs" / "transfer.md"
    text = block(found, held["benchmark"], f"{held['machine']}, {held['date']}")
    marked = re.sub(
        r"(<!-- transfer -->\n).*?(\n?<!-- /transfer -->)",
        lambda marks: f"{marks[1]}{text}{marks[2] if marks[2].startswith(chr(10)) else chr(10) + marks[2]}",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    write_text(page, marked)
    with atomic_path(page.with_suffix(".png")) as temporary:
        temporary.write_bytes(png(found).data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--packs", type=Path, default=ROOT / "packs")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "transfer")
    parser.add_argument(
        "--tasks", nargs="+", choices=list(TASKS), default=list(TASKS), metavar="TASK", help="fewer take less time"
    )
    parser.add_argument("--seeds", type=int, default=3, help="fewer may be asked for later: what is there is kept")
    parser.add_argument("--shots", type=int, default=5, help="rows of each answer of a target")
    parser.add_argument("--source-shots", type=int, default=20, help="rows of each answer of a source")
    parser.add_argument("--steps", type=int, default=40, help="of each adaptation")
    parser.add_argument("--limit", type=int, default=60, help="rows that are scored of each file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--show", type=Path, help="only fill the page from this result")
    given = parser.parse_args()
    if given.show:
        fill(given.show)
        return
    torch.set_num_threads(given.threads)
    page = write_tasks(given.packs, given.out / "rows", given.tasks)
    settings = {name: getattr(given, name) for name in ("seeds", "shots", "source_shots", "steps", "limit")}
    found = transfer(page, "nano", given.out, method="lora", resume=True, **settings)
    show(found, given.out)
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in settings.items())
    if given.tasks != list(TASKS):
        options += f" --tasks {shlex.join(given.tasks)}"
    command = f"python benchmarks/transfer.py {options} --threads {given.threads}"
    machine, today = f"{platform.machine()}, {given.threads} of {os.cpu_count()} cores", str(date.today())
    held = json.loads((given.out / "transfer.json").read_text())
    held |= {"benchmark": command, "machine": machine, "date": today, "torch": torch.__version__}
    held.pop("command")  # its paths are this machine's
    result = ROOT / "benchmarks" / "results" / f"transfer_nano_{os.cpu_count()}cores_{today}.json"
    write_json(result, held)
    fill(result)


if __name__ == "__main__":
    main()
