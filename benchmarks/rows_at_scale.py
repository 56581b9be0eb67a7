"""Opening a file of many rows and drawing some of them at random: seconds and peak memory, as JSONL and packed.

    python benchmarks/rows_at_scale.py [--rows 10000000] [--draws 100000] [--folder DIR] [--out benchmarks/results/FILE.json]

The rows are texts and are made in a temporary folder (10 million: 2 GB as JSONL). To be done in minutes, the pack is one
shard of PACKED rows under many names, with the index of so many shards. Each number is of a process of its own, which
imports the reader and nothing else; peak memory is the VmHWM of Linux, pages mapped from the index among it. A tenth of the
rows is measured too: what does not grow is flat. Files were just written, so that they come from memory; --folder says on
which disk they lie. Rates are given by the clock, and by the time of the processor, which other work on the machine slows
less.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import monoglot
from monoglot.data.lines import scan
from monoglot.data.pack import Part, merge, save_part
from monoglot.data.rowfile import INDEX, MANIFEST, MEDIA

PACKED = 100_000
"""Rows that are packed; a shard."""
PEAK = """
import json, random, sys, time
from pathlib import Path
def peak():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)
"""
DRAW = """
from monoglot.data.rowfile import RowFile
path, draws, packed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
imported = peak()
began, began_used = time.perf_counter(), time.process_time()
rows = RowFile(path)
opened, generator, used = time.perf_counter(), random.Random(0), time.process_time()
opening = {"clock": round(opened - began, 4), "processor": round(used - began_used, 4)}
for _ in range(draws):
    row = generator.randrange(len(rows))
    assert rows[row].id == str(row % packed if packed else row)
drawn, used = time.perf_counter(), time.process_time() - used
rows.fingerprint()
print(json.dumps({
    "open_seconds": opening,
    "microseconds_a_draw": {"clock": round((drawn - opened) / draws * 1e6, 1), "processor": round(used / draws * 1e6, 1)},
    "fingerprint_seconds": round(time.perf_counter() - drawn, 4),
    "peak_mb": {"after imports": imported, "in all": peak()},
}))
"""
PACK = """
from monoglot.data.pack import pack
began, used = time.perf_counter(), time.process_time()
made = pack(Path(sys.argv[1]), Path(sys.argv[2]))
print(json.dumps({
    "mb": round(made["bytes"] / 1e6),
    "seconds": {"clock": round(time.perf_counter() - began, 1), "processor": round(time.process_time() - used, 1)},
    "peak_mb": peak(),
}))
"""


def write_rows(path: Path, count: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        for start in range(0, count, 100_000):
            file.write("".join(map(line, range(start, min(start + 100_000, count)))))


def line(row: int) -> str:
    text = (
        f"row {row} of a long file says much the same as the one before it, only with another number at its beginning"
    )
    return f'{{"id": "{row}", "task": "summarize", "text": "{text}", "target": "this was row {row}"}}\n'


def measure(script: str, *arguments: object, cache: Path) -> dict[str, Any]:
    command = [sys.executable, "-c", PEAK + script, *map(str, arguments)]
    environment = os.environ | {"MONOGLOT_CACHE": str(cache)}
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment).stdout)


def scan_rate(path: Path) -> dict[str, float]:
    """GB/s of the pass over a file that finds its rows, in this process; the best of three."""
    size = path.stat().st_size
    best = {"clock": 0.0, "processor": 0.0}
    for _ in range(3):
        with open(path, "rb", buffering=0) as file:
            clock, processor = time.perf_counter(), time.process_time()
            assert sum(len(starts) for starts, _ in scan(file, size))
            took = {"clock": time.perf_counter() - clock, "processor": time.process_time() - processor}
        best = {kind: max(best[kind], round(size / took[kind] / 1e9, 2)) for kind in best}
    return best


def pack(folder: Path, rows: int, cache: Path) -> tuple[Path, dict[str, Any]]:
    """A pack of so many rows, and what packing the first PACKED of them took."""
    source, first, out = folder / "packed.jsonl", folder / "first", folder / "shards"
    write_rows(source, PACKED)
    took = measure(PACK, source, first, cache=cache)
    shard = json.loads((first / MANIFEST).read_text())["shardlist"][0]
    index, media = np.load(first / INDEX), np.load(first / MEDIA)
    out.mkdir()
    for copy in range(rows // PACKED):
        name = f"shard-{copy:06d}.tar"
        os.link(first / shard["url"], out / name)
        start = copy * PACKED
        index["number"] = np.arange(start, start + PACKED)
        part = Part(name, {}, start, start + PACKED, PACKED, shard["filesize"], shard["sha256"], {"summarize": PACKED})
        save_part(out, part, index, media)
    merge(out)
    return out, {"rows": PACKED, **took}


def both_forms(folder: Path, rows: int, draws: int) -> dict[str, Any]:
    path, cache = folder / "rows.jsonl", folder / "cache"
    write_rows(path, rows)
    found: dict[str, Any] = {
        "jsonl_mb": round(path.stat().st_size / 1e6),
        "scan_gb_per_second": scan_rate(path),
        "jsonl, first start": measure(DRAW, path, draws, 0, cache=cache),
        "jsonl, later start": measure(DRAW, path, draws, 0, cache=cache),
    }
    shards, found["packing"] = pack(folder, rows, cache)
    found["packed"] = measure(DRAW, shards, draws, PACKED, cache=cache)
    found["packed"]["index_mb"] = round((shards / INDEX).stat().st_size / 1e6)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--draws", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, help="Where the temporary folder is made.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/rows_at_scale.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor() or platform.machine(),
            "load": os.getloadavg()[0],
        },
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "monoglot": monoglot.__version__,
        },
        "draws": arguments.draws,
    }
    for rows in (arguments.rows // 10, arguments.rows):
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results[f"{rows} rows"] = both_forms(Path(folder), rows, arguments.draws)
    results["load_at_the_end"] = os.getloadavg()[0]
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
