"""docs/speed.md says what the results beside it say."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_made_of_the_results():
    made = runpy.run_path(str(ROOT / "benchmarks" / "speed.py"))
    files = sorted((ROOT / "benchmarks" / "results").glob("bench_*.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    (found,) = made["BLOCK"].findall(page)
    assert found == made["block"](results), "run: python benchmarks/speed.py"
