"""Stages run in threads between bounded channels; the batches come out in the order that they went in.

Decoding, inference and file reading leave the interpreter lock, so threads keep all cores busy without copying a
pixel between processes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..records import Batch
from .channel import ChannelFailed, OrderedChannel


@dataclass(slots=True)
class StageClock:
    """What a stage has done, for the rates and the verdict.

    Attributes:
        name: the verb.
        workers: threads.
        busy_s: seconds of work, summed over the workers; waiting is not work.
        photographs: that passed.
    """

    name: str
    workers: int
    busy_s: float = 0.0
    photographs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, seconds: float, photographs: int) -> None:
        """Record one piece of work."""
        with self._lock:
            self.busy_s += seconds
            self.photographs += photographs

    @contextmanager
    def work(self, photographs: int) -> Iterator[None]:
        """Record the block as one piece of work."""
        start = time.perf_counter()
        yield
        self.add(time.perf_counter() - start, photographs)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step of the journey.

    Attributes:
        clock: name, number of threads and the time kept.
        work: a batch to the next; called from `clock.workers` threads at once, in order when there is one.
        ahead: batches that may wait behind this stage.
    """

    clock: StageClock
    work: Callable[[Batch], Batch]
    ahead: int


class Pipeline:
    """Runs batches through stages. Iterate over it; leave by `with`, which waits for every thread."""

    def __init__(self, batches: Iterable[Batch], stages: list[Stage]) -> None:
        self._channels = [OrderedChannel[Batch](max(2, s.ahead)) for s in stages]
        self._channels.insert(0, OrderedChannel[Batch](max(2, stages[0].clock.workers)))
        self._failure: BaseException | None = None
        self._threads = [self._thread("feed", self._feed, batches)]
        for stage, before, after in zip(stages, self._channels, self._channels[1:], strict=False):
            left = itertools.count(stage.clock.workers - 1, -1)
            for _ in range(stage.clock.workers):
                self._threads.append(self._thread(stage.clock.name, self._run, stage, before, after, left))

    def __iter__(self) -> Iterator[Batch]:
        """The finished batches, in order.

        Raises:
            Whatever a stage raised; the other stages are stopped.
        """
        return (batch for batch in self.ready() if batch is not None)

    def ready(self, every_s: float | None = None) -> Iterator[Batch | None]:
        """The finished batches, in order, and None whenever none has come for `every_s`.

        Raises:
            Whatever a stage raised; the other stages are stopped.
        """
        while True:
            try:
                entry = self._channels[-1].get(every_s)
            except TimeoutError:
                yield None
                continue
            except ChannelFailed:
                assert self._failure is not None
                raise self._failure from None
            if entry is None:
                return
            yield entry[1]

    def __enter__(self) -> Pipeline:
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
        """Forward what a thread raises to the consumer."""
        try:
            target(*args)
        except ChannelFailed:
            pass
        except BaseException as err:
            self._failure = self._failure or err
            for channel in self._channels:
                channel.fail()

    def _feed(self, batches: Iterable[Batch]) -> None:
        sequence = -1
        for sequence, batch in enumerate(batches):
            self._channels[0].put(sequence, batch)
        self._channels[0].close(sequence + 1)

    @staticmethod
    def _run(stage: Stage, before: OrderedChannel[Batch], after: OrderedChannel[Batch], left: Iterator[int]) -> None:
        while (entry := before.get()) is not None:
            sequence, batch = entry
            with stage.clock.work(len(batch)):
                result = stage.work(batch)
            after.put(sequence, result)
        if next(left) == 0:  # the last worker of the stage to leave
            after.close(before.end)
