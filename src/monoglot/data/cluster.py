"""One piece of work on many blocks of rows: in this process, in several of this machine, or on the machines of a Ray cluster.

    rows -> blocks -> (worker: block -> files, and the rows that it leaves out) -> told and counted one by one
    rows -> blocks -> (worker: block -> answers) -> in the order of rows            (see decode/rows.py)
    prepare: rows -> blocks -> shards of each -> one pack

A worker is made once in each process. What it writes for a block has a name of its own, appears whole or not at all, and is
the same wherever it is made; a block that is there already is passed over. So whoever is killed is started again. Ray
hands out blocks and starts again those of a machine that died; it knows nothing of what is in them.

On several machines, rows, media and output lie under the same paths everywhere, and the same version of monoglot is
installed. docs/scale.md has the commands.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import uuid4
from warnings import catch_warnings, simplefilter

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from monoglot.data.ahead import ahead
from monoglot.data.pack import PROBLEMS, LeftOut, Problem, begin, finish, finished_shards, numbered, write_shards
from monoglot.data.rowfile import RowFile
from monoglot.errors import InputError

if TYPE_CHECKING:
    from monoglot.data.shrink import Shrink

BLOCK_ROWS = 4096
"""Rows of a block unless said otherwise: with pictures of 60 kB a shard of 250 MB."""
TRIES = 3
"""So often a block is begun again when the process that works on it dies; then it is the block's fault."""
OBJECT_STORE = 200 * 2**20
"""Bytes that Ray may hold between processes where we start it. Blocks are three numbers; rows and media never pass through."""
ANSWERS_WITHIN_S = 5.0
AHEAD = 2
"""Blocks for each process that may be worked on or wait for their turn, when they are wanted in order."""


@dataclass(frozen=True)
class Block:
    """Rows `start .. stop` of a file."""

    number: int
    start: int
    stop: int


Found = TypeVar("Found")
"""What a worker makes of a block. One that writes files returns the rows that it left out, also when the block was done before."""


@dataclass(frozen=True)
class Workers:
    """Who does the work."""

    count: int | None = None
    """Processes, at most; None: this one alone, or as many as the cluster has processors (or GPUs)."""
    cluster: str = ""
    """Where Ray is: HOST:PORT, 'auto' on a machine of the cluster, or 'local' to start it here. Empty: without Ray."""
    gpus: float = 0
    """GPUs that a worker has to itself, on a cluster."""


ALONE = Workers()


def blocks_of(rows: int, block_rows: int) -> list[Block]:
    """
    >>> [(block.start, block.stop) for block in blocks_of(10, 4)]
    [(0, 4), (4, 8), (8, 10)]
    """
    starts = range(0, rows, block_rows)
    return [Block(number, start, min(start + block_rows, rows)) for number, start in enumerate(starts)]


def prepare(
    source: Path,
    out: Path,
    *,
    shard_mb: float = 256,
    share: float = 0.01,
    shrink: Shrink | None = None,
    block_rows: int = BLOCK_ROWS,
    workers: Workers = ALONE,
) -> dict[str, Any]:
    """`pack` by several workers: each writes shards of its own blocks, which become one pack with the rows in their order.

    Args:
        source, out, shard_mb, share, shrink: as in `pack`.
        block_rows: rows that a worker takes at a time. A block ends its last shard, so that a shard holds no more.

    Returns:
        What pack.json says: the same whoever worked.

    Raises:
        InputError: as `pack`; or there is no Ray at the address.
    """
    source, out = source.resolve(), out.resolve()  # workers may be in other folders
    rows = RowFile(source)
    origin, finished = begin(rows, out, shard_mb=shard_mb, shrink=shrink, block_rows=block_rows)
    if finished:
        return finished
    with LeftOut(out / PROBLEMS, len(rows), share) as left_out:
        make = partial(PackBlock, source, out, origin, round(shard_mb * 1e6), shrink)
        for problems in work_through(make, blocks_of(len(rows), block_rows), workers, "packing"):
            for problem in problems:
                left_out(problem)
    return finish(out, left_out)


@dataclass
class PackBlock:
    """Block -> its shards, which begin with `block-<number>`."""

    source: Path
    out: Path
    origin: dict[str, Any]
    shard_bytes: int
    shrink: Shrink | None
    rows: RowFile = field(init=False)

    def __post_init__(self) -> None:
        self.rows = RowFile(self.source)

    def __call__(self, block: Block) -> list[Problem]:
        prefix = f"block-{block.number:06d}"
        parts = finished_shards(self.out, self.origin, prefix)
        start = parts[-1].stop if parts else block.start
        rows = numbered(self.rows, start, block.stop, self.shrink)
        parts += write_shards(
            rows, self.out, shard_bytes=self.shard_bytes, prefix=prefix, shard=len(parts), origin=self.origin
        )
        return [problem for part in parts for problem in part.problems]


# --- who works --------------------------------------------------------------------------------------------------------


def work_through(
    make: Callable[[], Callable[[Block], list[Problem]]], blocks: Sequence[Block], workers: Workers, doing: str
) -> Iterator[list[Problem]]:
    """Have every block worked on, as `found_by` does; yields what each leaves out, in any order. `doing` is what the progress bar says."""
    done = found_by(make, blocks, workers)
    screen = Console(stderr=True)
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as progress:
        bar = progress.add_task("", total=blocks[-1].stop)
        for block, problems in done:
            progress.advance(bar, block.stop - block.start)
            yield problems


def found_by(
    make: Callable[[], Callable[[Block], Found]], blocks: Sequence[Block], workers: Workers, *, in_order: bool = False
) -> Iterator[tuple[Block, Found]]:
    """What workers make of the blocks, in any order unless `in_order`; then they are at most a few blocks ahead of whoever asks.

    Args:
        make: makes a worker; it is called in the process that the worker lives in, and has to be picklable.

    Raises:
        InputError: a worker raised it, or there is no Ray at the address.
        RuntimeError: the process of a worker died again and again.
    """
    if workers.cluster:
        return _on_ray(make, blocks, workers, in_order)
    if workers.count and workers.count > 1:
        return _in_processes(make, blocks, workers.count, in_order)
    worker = make()
    return ((block, worker(block)) for block in blocks)


def _in_processes(
    make: Callable[[], Callable[[Block], Found]], blocks: Sequence[Block], count: int, in_order: bool
) -> Iterator[tuple[Block, Found]]:
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_stop_quietly)
    work = partial(_work, uuid4().hex, make)
    try:
        if in_order:
            yield from zip(blocks, ahead(work, blocks, AHEAD * count, pool=pool))
            return
        waiting = {pool.submit(work, block): block for block in blocks}
        for ready in as_completed(waiting):
            yield waiting[ready], ready.result()
    except BrokenProcessPool:
        raise RuntimeError(_DIED) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _stop_quietly() -> None:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))  # Ctrl-C is told once, by the process that waits


_kept: tuple[str, Callable[[Block], Any]] | None = None


def _work(name: str, make: Callable[[], Callable[[Block], Found]], block: Block) -> Found:
    """A block, by the worker that this process keeps for the work of this name."""
    global _kept
    if _kept is None or _kept[0] != name:
        _kept = name, make()
    return cast(Found, _kept[1](block))


_DIED = (
    "the process of a worker died (too little memory, or a file that its decoder cannot bear); "
    "finished blocks are kept: start it again with fewer workers"
)


# --- Ray --------------------------------------------------------------------------------------------------------------


def _on_ray(
    make: Callable[[], Callable[[Block], Found]], blocks: Sequence[Block], workers: Workers, in_order: bool
) -> Iterator[tuple[Block, Found]]:
    with _ray(workers) as ray:
        ray.data.DataContext.get_current().execution_options.preserve_order = in_order
        if workers.gpus > (there := ray.cluster_resources().get("GPU", 0)):
            wrong = f"{workers.gpus:g} wanted by each worker, the cluster has {there:g}"
            raise InputError.at("command line", "--gpus", wrong, "leave it out to work on processors")
        given = ray.data.from_items([asdict(block) for block in blocks], override_num_blocks=len(blocks))
        with catch_warnings():
            simplefilter("ignore")  # that Ray 2.64 will have another name for max_retries
            # Tasks, not actors: those of a machine that died are at once begun on the others.
            done = given.map(
                _ray_row,
                fn_args=(uuid4().hex, make),
                compute=ray.data.TaskPoolStrategy(workers.count),
                num_cpus=1,
                num_gpus=workers.gpus or None,
                max_calls=0,  # processes stay, and with them their workers
                max_retries=TRIES,
            )
        try:
            for row in done.iter_rows():
                if row["refused"]:
                    raise InputError(row["refused"])
                block = Block(row["number"], row["start"], row["stop"])
                yield block, pickle.loads(row["found"])
        except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
            raise RuntimeError(_DIED) from None


def _ray_row(row: dict[str, Any], name: str, make: Callable[[], Callable[[Block], Any]]) -> dict[str, Any]:
    """`_work` as Ray Data wants it: a row in, a row out."""
    try:
        found = _work(name, make, Block(**row))
    except InputError as error:  # its one line would be lost in Ray's own error
        return row | {"found": b"", "refused": str(error)}
    return row | {"found": pickle.dumps(found), "refused": ""}


@contextmanager
def _ray(workers: Workers) -> Iterator[Any]:
    """Ray, connected: as this process is already, or as `workers` says. What is started here is stopped at the end."""
    local = workers.cluster == "local"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if local:  # Ray's switch for machines that are no cluster: its servers then listen to this machine alone
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ImportError:
        fix = 'run: pip install "monoglot[cluster]"'
        raise InputError.at("command line", "--cluster", "Ray is not installed", fix) from None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    with ExitStack() as stack:
        if not ray.is_initialized():
            if local:  # in a short folder: names of sockets have 107 letters at most
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True))
            stack.callback(ray.shutdown)
            if local:
                quiet |= {"object_store_memory": OBJECT_STORE, "_temp_dir": folder, "include_dashboard": False}
                ray.init("local", num_cpus=workers.count, **quiet)
            else:
                _connect(ray, workers.cluster, quiet)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        yield ray


def _connect(ray: Any, address: str, settings: dict[str, Any]) -> None:
    """Raises InputError: no Ray there."""
    host, _, port = address.rpartition(":")
    try:
        if address != "auto":  # Ray itself would try for two minutes
            socket.create_connection((host, int(port)), ANSWERS_WITHIN_S).close()
        ray.init(address, **settings)
    except (OSError, ValueError, OverflowError, RuntimeError, SystemExit) as error:  # SystemExit: not Ray that answers
        wrong = f"no Ray answers at {address!r} ({' '.join(str(error).split())[:120]})"
        fix = "start it with `ray start --head`, give HOST:PORT or auto on one of its machines, or local"
        raise InputError.at("command line", "--cluster", wrong, fix) from None
