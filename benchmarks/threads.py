"""Time work that several threads share."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def time_threads(threads: int, work: Callable[[int, Item], object], items: Iterable[Item]) -> float:
    """Run `work` on all items in several threads; returns the seconds.

    Args:
        threads: number of threads.
        work: called with the thread's number, from 0, and the next item.
        items: the items, in order.
    Raises:
        The first exception that `work` raised.
    """
    remaining, lock = iter(items), threading.Lock()
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            while True:
                with lock:
                    try:
                        item = next(remaining)
                    except StopIteration:
                        return
                work(number, item)
        except BaseException as err:
            errors.append(err)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - began
