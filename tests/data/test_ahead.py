"""Reading ahead: order, bound, errors in their turn, and nothing left running."""

from __future__ import annotations

import threading
import time
from itertools import count, islice

import pytest

from monoglot.data.ahead import ahead


@pytest.mark.parametrize("window", [1, 2, 5, 100])
@pytest.mark.parametrize("items", [0, 1, 7, 20])
def test_results_come_in_the_order_of_items(window, items):
    def slow_if_even(item: int) -> int:
        time.sleep(0.002 * (item % 2 == 0))
        return item * item

    assert list(ahead(slow_if_even, range(items), window)) == [item * item for item in range(items)]


def test_no_more_than_the_bound_is_taken_and_nothing_runs_on():
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    before = threading.active_count()
    results = ahead(lambda item: item, items(), 5)
    assert list(islice(results, 3)) == [0, 1, 2]
    assert len(taken) == 7  # three that were given, of which the last asked for none yet, and five ahead of the others
    results.close()
    assert threading.active_count() == before


def test_an_error_comes_in_its_turn():
    results = ahead(lambda item: 1 // item, [1, 1, 0, 1], 4)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_work_goes_on_while_nobody_asks():
    begun = threading.Semaphore(0)
    results = ahead(lambda item: begun.release(), range(10), 4)
    next(results)
    for _ in range(4):
        assert begun.acquire(timeout=10)
    results.close()
