"""Many rows: pictures a second of `monoglot predict --data` from JPEG files; ten questions about one picture; start-up; peak memory.

    python benchmarks/batch_predict.py [--model nano] [--pictures 1000] [--repeat 3] [--pack packs/emoji/captions.test.jsonl]
        [--out benchmarks/results/FILE.json]

- pictures: the command itself on JPEG files of 640 x 480 (made of a pack's pictures in a temporary folder), with one process
  and with `--workers 2`, in turns. Rows a second are the command's own (without start-up), peak memory the system's.
- reading: the same files prepared and nothing else, by one thread, two threads, two processes, in turns.
- questions: seconds of the processor, one thread, of ten questions in one call over those of one, on media not seen before.
- start: the command line from start to one answer, beside a process that imports torch.

On a machine that does other work too, clocks say little: ratios and seconds of the processor are then what to read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from PIL import Image

import monoglot
from monoglot.data.ahead import ahead
from monoglot.data.features import RecentFeatures
from monoglot.data.rows import read_rows
from monoglot.decode.predict import Predictor, load
from monoglot.demo import SAMPLES
from monoglot.modalities.image import ImageConfig, prepare

WAYS = {"one process": [], "--workers 2": ["--workers", "2"]}
JOBS = {"name, beam 3": ("name", []), "name, greedy": ("name", ["--beam", "1"]), "caption, beam 3": ("caption", [])}


def pictures(pack: Path, folder: Path, count: int) -> None:
    """So many JPEG files of 640 x 480 pixels, and rows for each job."""
    given = [row.media[0].source for row in read_rows(pack)]
    for number in range(count):
        with Image.open(given[number % len(given)]) as picture:
            shown = picture.convert("RGB").resize((640, 480))
        if number >= len(given):
            shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        shown.save(folder / f"{number}.jpg", quality=90 - number // (2 * len(given)))
    for task, _ in JOBS.values():
        rows = ({"id": str(number), "task": task, "image": f"{number}.jpg"} for number in range(count))
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def run(arguments: list[str]) -> tuple[str, dict[str, float]]:
    """What a process says on stderr; its seconds (clock, processor with its children) and peak memory (of the largest)."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    said = process.stderr.read().decode() if process.stderr else ""
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, said
    seconds = {"clock_s": time.perf_counter() - began, "processor_s": used.ru_utime + used.ru_stime}
    return said, {**seconds, "peak_mb": used.ru_maxrss * 1024 / 1e6}


def throughput(model: str, folder: Path, repeat: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for turn in range(repeat):
        for job, (task, options) in JOBS.items():
            for way, workers in WAYS.items():
                out = folder / f"{turn}-{task}-{way}-{len(options)}.jsonl"
                arguments = ["--model", model, "--data", str(folder / f"{task}.jsonl"), "--out", str(out)]
                said, used = run(["-m", "monoglot", "predict", *arguments, *options, *workers])
                told = re.search(r"([\d.,]+) rows/s", said)
                assert "could not" not in said, said
                used["rows_per_second"] = float(told[1].replace(",", "")) if told else 0.0
                found.setdefault(job, {}).setdefault(way, []).append(used)
    return {job: {way: medians(runs) for way, runs in ways.items()} for job, ways in found.items()}


def reading(folder: Path, count: int, repeat: int) -> dict[str, Any]:
    """Pictures a second, prepared by `ahead`."""
    media = [row.media[0] for row in read_rows(folder / "name.jsonl")][:count]
    work = partial(prepare, config=ImageConfig())
    pools: dict[str, Callable[[], Any]] = {
        "one thread": lambda: ThreadPoolExecutor(1),
        "two threads": lambda: ThreadPoolExecutor(2),
        "two processes": lambda: ProcessPoolExecutor(2, get_context("spawn")),
    }
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeat):
        for name, pool in pools.items():
            results = ahead(work, [media[0], *media], 256, pool=pool())
            next(results)  # processes are there
            began, used = time.perf_counter(), time.process_time()
            for _item in results:
                pass
            clock, own = time.perf_counter() - began, time.process_time() - used
            found.setdefault(name, []).append(
                {"pictures_per_second": count / clock, "own_processor_ms": 1000 * own / count}
            )
    return {name: medians(runs) for name, runs in found.items()}


def asked(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """A kind of media and a row without a question."""
    rows = list(read_rows(SAMPLES / "rows.jsonl"))
    for kind in ("image", "video", "audio"):
        media = next(row.media[0] for row in rows if len(row.media) == 1 and row.media[0].modality == kind)
        yield kind, {"task": "vqa", kind: media.source}
    yield "image, 640 x 480 JPEG", {"task": "vqa", "image": str(folder / "0.jpg")}


def questions(predictor: Predictor, folder: Path, repeat: int) -> dict[str, Any]:
    """Processor seconds of ten questions about one item over those of one: in one call, one after the other, and with nothing kept."""
    places = ("here", "there", "above", "below", "left", "right", "first", "last", "near", "far")
    texts = [f"what is to be seen {place}?" for place in places]
    found: dict[str, Any] = {}
    for kind, row in asked(folder):
        rows = [row | {"id": str(number), "text": text} for number, text in enumerate(texts)]
        one_by_one = partial(_one_by_one, predictor, row)
        ways: dict[str, Callable[[], object]] = {
            "one": partial(one_by_one, texts[:1]),
            "ten": partial(_together, predictor, rows),
            "ten, one after the other": partial(one_by_one, texts),
            "ten, nothing kept": partial(one_by_one, texts, keep=False),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(repeat + 1):
            for name, work in ways.items():
                predictor.keep_features(RecentFeatures())
                began = time.process_time()
                work()
                if turn:  # the first time warms up
                    times[name].append(time.process_time() - began)
        one, *others = ((name, statistics.median(values)) for name, values in times.items())
        ratios = {f"{name}, over one": round(value / one[1], 2) for name, value in others}
        found[kind] = {"one_ms": round(1000 * one[1], 1), **ratios}
    return found


def _together(predictor: Predictor, rows: list[dict[str, Any]]) -> None:
    for answer in predictor.predict_many(rows):
        assert answer.error is None, answer.error


def _one_by_one(predictor: Predictor, row: dict[str, Any], texts: list[str], *, keep: bool = True) -> None:
    if not keep:
        predictor.keep_features(None)
    for text in texts:
        predictor.predict(**row, text=text)


def start(model: str, folder: Path, repeat: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}
    one = ["-m", "monoglot", "predict", "--model", model, "--task", "name", "--image", str(folder / "0.jpg")]
    for _ in range(repeat):
        for name, arguments in {"one answer": one, "import torch": ["-c", "import torch"]}.items():
            found.setdefault(name, []).append(run(arguments)[1])
    return {name: medians(runs) for name, runs in found.items()}


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in runs), 2) for name in runs[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--pack", type=Path, default=Path("packs/emoji/captions.test.jsonl"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {
        "command": " ".join(["python", "benchmarks/batch_predict.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "monoglot": monoglot.__version__},
    }
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pictures(arguments.pack, folder, arguments.pictures)
        results["start"] = start(arguments.model, folder, arguments.repeat)
        results["questions"] = questions(load(arguments.model), folder, arguments.repeat)
        results["reading"] = reading(folder, min(arguments.pictures, 500), arguments.repeat)
        results["pictures"] = throughput(arguments.model, folder, arguments.repeat)
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
