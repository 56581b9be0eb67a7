"""Reading ahead: items are worked on by threads while whoever wants them is busy with earlier ones.

    items -> (threads, or another pool: work, at most `count` items ahead) -> results, in the order of items

For media threads and not processes: decoders of pictures, clips and sounds let others run meanwhile, and nothing is copied
between processes (benchmarks/batch_predict.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

READERS = 2
"""Threads. Preparing nano's pictures takes a twentieth of the time of answering; for photos of a camera it is as much."""


def ahead(
    work: Callable[[Item], Result], items: Iterable[Item], count: int, *, pool: Executor | None = None
) -> Iterator[Result]:
    """`work(item)` of each item, in order, by `pool` (READERS threads unless given), which is shut down in the end.

    What `work` raises is raised when it is that item's turn. Then, and when nobody wants more, no other item is begun.

    >>> list(ahead(str.upper, "abc", 2))
    ['A', 'B', 'C']
    """
    rest = iter(items)
    pool = pool or ThreadPoolExecutor(READERS, thread_name_prefix="reader")
    try:
        waiting = deque(pool.submit(work, item) for item in islice(rest, count))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(rest, 1))
    finally:
        pool.shutdown(cancel_futures=True)
