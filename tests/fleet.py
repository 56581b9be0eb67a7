"""Command lines in processes of their own, which may be killed: forked from one process that has imported everything, so that each starts at once.

    Fleet.start("train", page, "--out", run, processes=2) -> Job -> Job.wait() -> exit code of each process

As torchrun does, each of several processes is told its rank by its environment.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SECONDS = 240  # no run of a test takes longer; what does is killed


@dataclass
class Job:
    """Processes that run one command line."""

    fleet: Fleet
    pids: list[int]
    log: Path
    """Standard output, then standard error, of each process: log.out.0, log.err.0, ..."""

    def wait(self, *, until: Callable[[], bool] = lambda: False) -> list[int] | None:
        """Exit codes, negative for a signal; None if `until` came true before."""
        began = time.monotonic()
        while time.monotonic() - began < SECONDS:
            if (codes := self.fleet.ask({"done": self.pids}, seconds=0.002)) is not None:
                return codes
            if until():
                return None
        self.signal(signal.SIGKILL)
        raise AssertionError(f"still running after {SECONDS} s: {self.said('err')}")

    def signal(self, number: int) -> None:
        for pid in self.pids:
            os.kill(pid, number)

    def kill(self) -> list[int]:
        self.signal(signal.SIGKILL)
        codes = self.wait()
        assert codes is not None
        return codes

    def said(self, stream: str, rank: int = 0) -> str:
        """What a process has written to `out` or `err`."""
        return Path(f"{self.log}.{stream}.{rank}").read_text()


class Fleet:
    """The process that others are forked from."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, env=environment
        )
        self.count = 0

    def start(self, *arguments: object, folder: Path, processes: int = 1, log_every: int = 1) -> Job:
        """Run a command line in so many processes. Lines of metrics.jsonl come every `log_every` steps."""
        self.count += 1
        log = folder / f"job{self.count}"
        words = [str(argument) for argument in arguments]
        asked = {"run": words, "processes": processes, "log": str(log), "log_every": log_every}
        pids = self.ask(asked)
        assert pids is not None
        return Job(self, pids, log)

    def run(self, *arguments: object, folder: Path, processes: int = 1) -> Job:
        """The same, to its end, which has to be a good one."""
        job = self.start(*arguments, folder=folder, processes=processes)
        codes = job.wait()
        assert codes == [0] * processes, (codes, [job.said("err", rank)[-2000:] for rank in range(processes)])
        return job

    def ask(self, question: dict, seconds: float = 0.0) -> list[int] | None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question | {"seconds": seconds}) + "\n")
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)


def serve() -> None:
    """Answer questions until there are no more."""
    import monoglot.train.loop  # noqa: F401 (all that a run needs, once)

    ended: dict[int, int] = {}
    answers, silence = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    for line in sys.stdin:
        question = json.loads(line)
        if "run" in question:
            answer: list[int] | None = [_fork(question, rank) for rank in range(question["processes"])]
            _PORTS.clear()
        else:
            select.select([], [], [], question["seconds"])
            for pid in question["done"]:
                if pid not in ended and (found := os.waitpid(pid, os.WNOHANG))[0]:
                    ended[pid] = os.waitstatus_to_exitcode(found[1])
            answer = [ended[pid] for pid in question["done"]] if set(question["done"]) <= set(ended) else None
        os.write(answers, (json.dumps(answer) + "\n").encode())


_PORTS: list[int] = []


def _fork(question: dict, rank: int) -> int:
    if not _PORTS:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            _PORTS.append(free.getsockname()[1])
    pid = os.fork()
    if pid:
        return pid
    if question["processes"] > 1:
        found = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": question["processes"], "MASTER_PORT": _PORTS[0]}
        os.environ.update({key: str(value) for key, value in found.items()}, MASTER_ADDR="127.0.0.1")
    for number, stream in ((1, "out"), (2, "err")):
        file = os.open(f"{question['log']}.{stream}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, number)
    import faulthandler

    faulthandler.enable()
    import monoglot.train.run

    monoglot.train.run.LOG_EVERY = question["log_every"]
    # Its pictures take longer than the runs of tests.
    monoglot.train.run.write_run_report = lambda folder: folder / "report.html"
    code = 1
    try:
        from monoglot.cli import main

        main(question["run"])
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve()
