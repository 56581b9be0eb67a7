"""How fast published data become rows: a CSV of clips' names, a TSV of pictures in base64, and how much memory each takes.

python benchmarks/import_rows.py [--lines 20000] [--pixels 256] [--out benchmarks/results/FILE.json]
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from monoglot.data.importers import import_rows, make_kind


def write_csv(folder: Path, lines: int) -> list[str]:
    """WebVid's columns; every clip is there, in folders of a thousand."""
    rows = ["videoid,contentUrl,duration,page_dir,name"]
    for number in range(lines):
        page = f"{number // 1000:06d}"
        (folder / page).mkdir(exist_ok=True)
        (folder / page / f"{number}.mp4").write_bytes(b"film")
        rows.append(
            f'{number},https://example.org/{number}.mp4,PT00H00M10S,{page},"A clip, number {number}, of a forest"'
        )
    (folder / "clips.csv").write_text("\n".join(rows))
    return ["webvid", str(folder / "clips.csv")]


def write_tsv(folder: Path, lines: int, pixels: int) -> list[str]:
    """OFA's columns of captions; every picture is another one."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (lines, 8, 8, 3), dtype=np.uint8)
    with open(folder / "captions.tsv", "w") as file:
        for number, colours in enumerate(coarse):
            picture = io.BytesIO()
            Image.fromarray(colours).resize((pixels, pixels), Image.Resampling.BICUBIC).save(
                picture, "JPEG", quality=90
            )
            text = base64.b64encode(picture.getvalue()).decode()
            file.write(f"{number}\t{number}\ta picture, number {number}\tthing\t{text}\n")
    return ["ofa", str(folder / "captions.tsv"), "layout=caption"]


def measure(words: list[str], out: Path) -> dict[str, float]:
    """One import in a process of its own: rows, seconds, megabytes at the highest point."""
    code = f"import sys; sys.argv = {[__file__, '--run', json.dumps(words), str(out)]!r}; import runpy; "
    code += "runpy.run_path(sys.argv[0], run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def run(words: list[str], out: Path) -> None:
    began, worked = time.perf_counter(), time.process_time()
    report = import_rows(make_kind(words[0], words[1:]), out)
    seconds, busy = time.perf_counter() - began, time.process_time() - worked
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": report.rows, "seconds": seconds, "processor_seconds": busy, "megabytes": megabytes}))


def main() -> None:
    if sys.argv[1:2] == ["--run"]:
        run(json.loads(sys.argv[2]), Path(sys.argv[3]))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--pixels", type=int, default=256, help="height and width of the pictures in the TSV")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/import_rows.py", *sys.argv[1:]]),
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "busy": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for name, lines in (("few", arguments.lines // 10), ("all", arguments.lines)):
            (folder / name).mkdir()
            for kind, words in (
                ("csv", write_csv(folder / name, lines)),
                ("tsv", write_tsv(folder / name, lines, arguments.pixels)),
            ):
                runs = [measure(words, folder / name / f"{kind}{run}.jsonl") for run in range(arguments.repeat)]
                best = min(runs, key=lambda one: one["processor_seconds"])
                read = Path(words[1]).stat().st_size / 1e6
                results[f"{kind}, {lines} lines"] = {
                    "file_megabytes": round(read, 1),
                    "rows_per_second": round(best["rows"] / best["seconds"]),
                    "rows_per_processor_second": round(best["rows"] / best["processor_seconds"]),
                    "highest_memory_megabytes": round(best["megabytes"], 1),
                }
    text = json.dumps(results, indent=1)
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
