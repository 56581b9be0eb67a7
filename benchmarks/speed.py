"""The tables and the figure of docs/speed.md, from what `monoglot bench --out` wrote: the block between `<!-- speed -->` marks, and docs/speed.png.

python benchmarks/speed.py [benchmarks/results/bench_*.json]
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monoglot.bench.figure import draw
from monoglot.bench.show import facts, grids, markdown
from monoglot.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "speed.md"
BLOCK = re.compile(r"<!-- speed -->.*?<!-- /speed -->", re.S)


def block(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of all parts of all models, each with its command."""
    shown = ["", "![bars of one caption, and of one question of each kind](speed.png)"] if results else []
    lines = ["<!-- speed -->", *shown]
    for found in results:
        lines += ["", f"### {found['model']['name']}", "", f"{facts(found)}."]
        for name, part in found["parts"].items():
            told = f"`{part['command']}`, {part['date']}, load {part['load_before']} when it began"
            for grid in grids({name: part}):
                lines += ["", markdown(grid)]
            lines += ["", f"({told})"]
    return "\n".join([*lines, "", "<!-- /speed -->"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", nargs="*", type=Path, help="all of benchmarks/results/bench_*.json unless given")
    arguments = parser.parse_args()
    files = arguments.results or sorted(RESULTS.glob("bench_*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    page = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, BLOCK.sub(lambda _: block(results), page))
    draw(results, PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
