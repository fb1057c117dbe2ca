"""The bounded, ordered hand-over between two stages."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class ChannelFailed(Exception):
    """Another stage failed; its exception is raised by the consumer."""


class OrderedChannel(Generic[T]):
    """Items go in by sequence number in any order and come out in order, at most `capacity` ahead.

    The item that is due is always admitted, so that a full channel cannot block the one it waits for. A failure
    wakes everyone: nobody waits for a producer that died.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: dict[int, T] = {}
        self._next = 0
        self._end: int | None = None
        self._failed = False
        self._changed = threading.Condition()

    def put(self, sequence: int, item: T) -> None:
        """Add the item with this number; waits while it is too far ahead.

        Raises:
            ChannelFailed: the pipeline is stopping after a failure.
        """
        with self._changed:
            while sequence >= self._next + self._capacity and not self._failed:
                self._changed.wait()
            if self._failed:
                raise ChannelFailed
            self._items[sequence] = item
            self._changed.notify_all()

    def get(self, timeout_s: float | None = None) -> tuple[int, T] | None:
        """The next item and its number; None when all have been taken and there will be no more.

        Raises:
            ChannelFailed: the pipeline is stopping after a failure.
            TimeoutError: nothing came in `timeout_s`.
        """
        with self._changed:
            if not self._changed.wait_for(self._can_get, timeout_s):
                raise TimeoutError
            if self._failed:
                raise ChannelFailed
            if self._next == self._end:
                return None
            item = self._items.pop(self._next)
            self._next += 1
            self._changed.notify_all()
            return self._next - 1, item

    def _can_get(self) -> bool:
        return self._next in self._items or self._next == self._end or self._failed

    def close(self, end: int) -> None:
        """Say that the numbers stop before `end`."""
        with self._changed:
            self._end = end
            self._changed.notify_all()

    @property
    def end(self) -> int:
        """The number that `close` gave.

        Raises:
            ValueError: not closed yet.
        """
        if self._end is None:
            raise ValueError("the channel is not closed yet")
        return self._end

    def fail(self) -> None:
        """Wake everyone with ChannelFailed."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()
