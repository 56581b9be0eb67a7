"""Many rows, killed at random moments and begun again with --resume: is every row there once, and does memory stay flat?

    python benchmarks/batch_kill.py [--rows 100000] [--kills 10] [--seed 0] [--model FOLDER] [--out benchmarks/results/FILE.json]

Rows are texts. Without --model they are answered by their first word, so that all the time goes into what is measured: reading,
reading ahead, writing, counting what is there (`predict_file` itself). With --model the command `monoglot predict --data` runs.
A process is killed (SIGKILL, with all that it started) when its output has grown by a random share of what is left, or at
once after a random part of a second. Peak memory is the VmHWM of Linux, of a run from the beginning to the end, for a
hundredth of the rows and for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import monoglot
from monoglot.data.ahead import ahead
from monoglot.data.rows import BadRow
from monoglot.decode.rows import predict_file
from monoglot.nouns import Candidate, Prediction, Sample

LIMIT_MB = 50
"""By so much memory may grow from a hundredth of the rows to all of them."""


class FirstWord:
    """In a predictor's place."""

    def predict_many(self, rows: Iterable[Sample | BadRow], *, batch_size: int = 16) -> Iterator[Prediction]:
        yield from ahead(self._answer, rows, 16 * batch_size)

    def _answer(self, row: Sample | BadRow) -> Prediction:
        if isinstance(row, BadRow):
            return Prediction(row.id, row.task, "", error=str(row.error))
        word = row.text.split()[0]
        return Prediction(row.id, row.task, word, None, 0.5, (Candidate(word, 0.5), Candidate("no", 0.25)), 0.001)


def peak_mb() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def answer(data: Path, out: Path) -> None:
    """What runs in the process that is killed."""
    answered = predict_file(FirstWord(), data, out, resume=True)  # type: ignore[arg-type]
    print(json.dumps({"rows": answered.rows, "seconds": round(answered.seconds, 1), "peak_mb": peak_mb()}))


def make(path: Path, rows: int) -> Path:
    with open(path, "w", encoding="utf-8") as file:
        for number in range(rows):
            text = f"word{number % 977} and some more words about it, so that a row is as long as rows are"
            file.write(json.dumps({"id": f"row-{number}", "task": "summarize", "text": text}) + "\n")
    return path


def command(model: str, data: Path, out: Path) -> list[str]:
    if not model:
        return [sys.executable, __file__, "--answer", str(data), str(out)]
    arguments = ["--model", model, "--data", str(data), "--out", str(out), "--resume", "--threads", "1"]
    return [sys.executable, "-m", "monoglot", "predict", *arguments]


def whole(model: str, data: Path, out: Path) -> dict[str, Any]:
    """A run that nobody stops."""
    began = time.perf_counter()
    process = subprocess.Popen(command(model, data, out), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    said = process.stdout.read() if process.stdout else b""
    _, status, used = os.wait4(process.pid, 0)
    assert status == 0, "a run failed"
    found = {
        "seconds": round(time.perf_counter() - began, 1),
        "processor_seconds": round(used.ru_utime + used.ru_stime, 1),
    }
    return found | {"peak_mb": json.loads(said)["peak_mb"] if said else round(used.ru_maxrss * 1024 / 1e6, 1)}


def killed(model: str, data: Path, out: Path, size: int, kills: int, rng: random.Random) -> list[int]:
    """Kill a run so many times; returns how many whole lines were there each time."""
    found = []
    for left in range(kills, 0, -1):
        here = out.stat().st_size if out.exists() else 0
        soon = rng.random() < 0.2
        wanted = here + rng.random() * 1.8 * (size - here) / (left + 1)
        process = subprocess.Popen(
            command(model, data, out), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if soon:
            time.sleep(rng.random())
        while not soon and process.poll() is None and (not out.exists() or out.stat().st_size < wanted):
            time.sleep(0.001)
        assert process.poll() is None, "it ended before it was killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        found.append(out.read_bytes().count(b"\n") if out.exists() else 0)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--answer", type=Path, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.answer:
        answer(*arguments.answer)
        return
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few, many = (make(folder / f"{rows}.jsonl", rows) for rows in (arguments.rows // 100, arguments.rows))
        memory = {
            f"{rows} rows": whole(arguments.model, data, folder / f"{rows}.out.jsonl")
            for rows, data in ((arguments.rows // 100, few), (arguments.rows, many))
        }
        size = (folder / f"{arguments.rows}.out.jsonl").stat().st_size
        out = folder / "killed.jsonl"
        moments = killed(arguments.model, many, out, size, arguments.kills, rng)
        last = whole(arguments.model, many, out)
        ids = [json.loads(line)["id"] for line in out.read_text(encoding="utf-8").splitlines()]
    peaks = [run["peak_mb"] for run in memory.values()]
    results = {
        "command": " ".join(["python", "benchmarks/batch_kill.py", *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
        "versions": {"python": platform.python_version(), "monoglot": monoglot.__version__},
        "model": arguments.model or "none: each row is answered by its first word",
        "from beginning to end": memory,
        "memory grew by MB": round(peaks[1] - peaks[0], 1),
        "lines at each kill": moments,
        "last run": last,
        "every id exactly once, in order": ids == [f"row-{number}" for number in range(arguments.rows)],
        "memory is flat": peaks[1] - peaks[0] <= LIMIT_MB,
    }
    text = json.dumps(results, indent=2)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")
    if not (results["every id exactly once, in order"] and results["memory is flat"]):
        sys.exit(1)


if __name__ == "__main__":
    main()
