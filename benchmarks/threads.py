"""Work for several threads at once, timed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")


def seconds_of(threads: int, work: Callable[[int, Item], object], items: Iterable[Item]) -> float:
    """Seconds that so many threads take for all items.

    Args:
        threads: how many.
        work: called with the number of the thread, from 0, and an item; the next item goes to whoever is free.
        items: taken one at a time.
    Raises:
        Whatever `work` raised first.
    """
    left, lock = iter(items), threading.Lock()
    failed: list[BaseException] = []

    def run(number: int) -> None:
        try:
            while True:
                with lock:
                    try:
                        item = next(left)
                    except StopIteration:
                        return
                work(number, item)
        except BaseException as err:
            failed.append(err)

    workers = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return time.perf_counter() - began
