"""Run stages in threads between bounded channels. Batches come out in the order in which they went in.

Decoding, inference and file reading release the interpreter lock, so threads keep all cores busy without copying a
pixel between processes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

from ..records import Batch
from ..retries import retried

In = TypeVar("In", bound=Batch)
Out = TypeVar("Out", bound=Batch)
Next = TypeVar("Next", bound=Batch)
T = TypeVar("T")


@dataclass(slots=True)
class StageClock:
    """The work that a stage has done, for the rates and the verdict.

    Attributes:
        name: name of the stage, a verb.
        workers: number of threads.
        busy_s: seconds of work, without waiting, summed over the workers.
        photos: number of photos that passed.
    """

    name: str
    workers: int
    busy_s: float = 0.0
    photos: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float, photos: int) -> None:
        """Record one piece of work."""
        with self._lock:
            self.busy_s += seconds
            self.photos += photos

    @contextmanager
    def work(self, photos: int) -> Iterator[None]:
        """Record the block as one piece of work."""
        start = time.perf_counter()
        yield
        self.add(time.perf_counter() - start, photos)


@dataclass(frozen=True, slots=True)
class Stage(Generic[In, Out]):
    """One step of a pipeline.

    Attributes:
        clock: name, number of threads and working time.
        work: turns a batch into the next. It is called from `clock.workers` threads at once; a single thread calls it
            in order.
        ahead: batches that may wait after this stage.
    """

    clock: StageClock
    work: Callable[[In], Out]
    ahead: int


@dataclass(frozen=True, slots=True)
class Chain(Generic[In, Out]):
    """Stages in order. Each takes the type of batch that the stage before it returns, which mypy checks.

    Attributes:
        stages: at least one.
    """

    stages: tuple[Stage[Any, Any], ...]

    @classmethod
    def of(cls, stage: Stage[In, Out]) -> Chain[In, Out]:
        """A chain of one stage."""
        return Chain((stage,))

    def then(self, stage: Stage[Out, Next]) -> Chain[In, Next]:
        """This chain, followed by a stage."""
        return Chain((*self.stages, stage))

    def join(self, chain: Chain[Out, Next]) -> Chain[In, Next]:
        """This chain, followed by another chain."""
        return Chain((*self.stages, *chain.stages))

    def __call__(self, batch: In) -> Out:
        """Run every stage on a batch, in the calling thread, without clocks."""
        result: Any = batch
        for stage in self.stages:
            result = stage.work(result)
        last: Out = result
        return last


class Pipeline(Generic[In, Out]):
    """Runs batches through a chain. Use it as a context manager, which waits for every thread, and iterate over it."""

    def __init__(
        self, batches: Iterable[In], chain: Chain[In, Out], pause: Callable[[float], None] = time.sleep
    ) -> None:
        """Make the threads.

        Args:
            batches: what goes in.
            chain: the stages. Work that a fault of the machine stopped is done again; see `retries.retried`.
            pause: waits before that; it raises if the job should stop.
        """
        self._pause = pause
        stages = chain.stages
        self._channels = [OrderedChannel[Any](max(2, s.ahead)) for s in stages]
        self._channels.insert(0, OrderedChannel[Any](max(2, stages[0].clock.workers)))
        self._failure: BaseException | None = None
        self._threads = [self._thread("feed", self._feed, batches)]
        for stage, before, after in zip(stages, self._channels, self._channels[1:], strict=False):
            left = itertools.count(stage.clock.workers - 1, -1)
            for _ in range(stage.clock.workers):
                self._threads.append(self._thread(stage.clock.name, self._run, stage, before, after, left))

    def __iter__(self) -> Iterator[Out]:
        """Yield the finished batches, in order.

        Raises:
            Exception: the error of a stage; the other stages are stopped.
        """
        return (batch for batch in self.ready() if batch is not None)

    def ready(self, every_s: float | None = None) -> Iterator[Out | None]:
        """Yield the finished batches, in order, and None after every `every_s` seconds without a batch.

        Raises:
            Exception: the error of a stage, after the batches that were finished before; the other stages are stopped.
        """
        while True:
            try:
                entry = self._channels[-1].get(every_s)
            except TimeoutError:
                yield None
                continue
            except ChannelFailed:
                yield from self._channels[-1].drain()  # they are finished, whatever failed after them
                assert self._failure is not None
                raise self._failure from None
            if entry is None:
                return
            yield entry[1]

    def __enter__(self) -> Pipeline[In, Out]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for channel in self._channels:
            channel.fail()
        for thread in self._threads:
            thread.join()

    def _thread(self, name: str, target: Callable[..., None], *args: object) -> threading.Thread:
        return threading.Thread(target=self._guard, args=(target, *args), name=f"facemill-{name}", daemon=True)

    def _guard(self, target: Callable[..., None], *args: object) -> None:
        """Forward an exception of a thread to the consumer."""
        try:
            target(*args)
        except ChannelFailed:
            pass
        except BaseException as err:
            self._failure = self._failure or err
            for channel in self._channels:
                channel.fail()

    def _feed(self, batches: Iterable[In]) -> None:
        sequence = -1
        for sequence, batch in enumerate(batches):
            self._channels[0].put(sequence, batch)
        self._channels[0].close(sequence + 1)

    def _run(
        self, stage: Stage[Any, Any], before: OrderedChannel[Any], after: OrderedChannel[Any], left: Iterator[int]
    ) -> None:
        def work(batch: Any) -> Any:
            with stage.clock.work(len(batch)):
                return stage.work(batch)

        while (entry := before.get()) is not None:
            sequence, batch = entry
            after.put(sequence, retried(partial(work, batch), self._pause))
        if next(left) == 0:  # the last worker of the stage that ends
            after.close(before.end)


class ChannelFailed(Exception):
    """Another stage failed; its exception is raised by the consumer."""


class OrderedChannel(Generic[T]):
    """Items go in by sequence number in any order and come out in order, at most `capacity` ahead.

    The next item is always admitted, so a full channel cannot block the item that it waits for. A failure wakes all
    waiting threads, so no thread waits for a dead producer.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: dict[int, T] = {}
        self._next = 0
        self._end: int | None = None
        self._failed = False
        self._changed = threading.Condition()

    def put(self, sequence: int, item: T) -> None:
        """Add the item with this number. Waits while the number is too far ahead.

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
        """Take the next item and its number; None at the end.

        Raises:
            ChannelFailed: the pipeline is stopping after a failure.
            TimeoutError: no item came within `timeout_s`.
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
        """Set the end: numbers stop before `end`."""
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

    def drain(self) -> list[T]:
        """Take the items that came in, in order, up to the first that is missing, whether the channel failed or not."""
        with self._changed:
            items = []
            while self._next in self._items:
                items.append(self._items.pop(self._next))
                self._next += 1
            return items

    def fail(self) -> None:
        """Wake all waiting threads with ChannelFailed."""
        with self._changed:
            self._failed = True
            self._changed.notify_all()
