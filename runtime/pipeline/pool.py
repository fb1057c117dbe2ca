"""Things that belong to one thread at a time, and that threads take in turns."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Whoever takes one waits until one is free; the one that was given back first is taken first."""

    def __init__(self, things: Sequence[T]) -> None:
        self._free: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._count = len(things)
        for thing in things:
            self._free.put(thing)

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def take(self) -> Iterator[T]:
        """One of them, given back at the end of the `with`."""
        thing = self._free.get()
        try:
            yield thing
        finally:
            self._free.put(thing)
