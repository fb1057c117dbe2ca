"""One bounded queue in front of all engines.

Requests that wait share a call, as many as the engines allow without a change of a bit: on a CPU a few for each core,
on a GPU up to a full batch. A request that is alone gets all cores, and no request waits for others to come.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import BusyError

logger = logging.getLogger(__name__)

_MEAN_WEIGHT = 0.1  # of the latest call in the mean time of a call


class Task(Protocol):
    """What to do with photos. Tasks can be compared, and photos of equal tasks may share one call."""

    def together(self) -> int:
        """Most photos of several requests in one call; 1 if every request needs a call of its own, on one core."""
        ...

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[Any]:
        """Return one answer for each photo, in the same order.

        Args:
            photos: encoded photos.
            one_core: use one core, because other threads work at the same time.
        """
        ...


@dataclass(eq=False, slots=True)
class Work:
    """The photos of one request, on their way through the queue.

    Attributes:
        task: what to do with them.
        photos: encoded photos.
        answers: becomes the list of answers, one a photo.
        loop: the loop that waits for the answers.
    """

    task: Task
    photos: Sequence[bytes]
    answers: asyncio.Future[list[Any]]
    loop: asyncio.AbstractEventLoop


@dataclass(slots=True)
class RoomState:
    """Figures of the engine room, for `/metrics`.

    Attributes:
        waiting: requests in the queue.
        working: engine calls that run.
        calls: engine calls that have finished.
        photos: photos that have been answered.
        dropped: requests that left the queue because their client hung up or their time was over.
        call_s: running mean of the seconds of an engine call.
    """

    waiting: int = 0
    working: int = 0
    calls: int = 0
    photos: int = 0
    dropped: int = 0
    call_s: float = field(default=0.1)


class EngineRoom:
    """The threads that run the engines, and their queue. Close it with `close`, which finishes what was accepted.

    Attributes:
        state: its figures.
    """

    def __init__(self, *, threads: int, places: int) -> None:
        """Start the threads.

        Args:
            threads: engine calls at the same time.
            places: requests that may wait.
        """
        self.state = RoomState()
        self._places = places
        self._queue: deque[Work] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._run, name=f"engine-{number}", daemon=True) for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def is_full(self) -> bool:
        """Whether the next request is refused."""
        return len(self._queue) >= self._places

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which half of the queue has gone, at least 1."""
        return max(1, round(self._places * self.state.call_s / len(self._threads) / 2))

    def submit(self, task: Task, photos: Sequence[bytes]) -> Work:
        """Queue photos. Called in the thread of a running loop.

        Raises:
            BusyError: the queue is full, or the server is ending.
        """
        loop = asyncio.get_running_loop()
        work = Work(task, photos, loop.create_future(), loop)
        with self._changed:
            if self._closing:
                raise BusyError("the server is ending; expected: a server that runs. Send the request again")
            if self.is_full:
                raise BusyError(f"{self._places} requests are waiting already. Send the request again later")
            self._queue.append(work)
            self.state.waiting = len(self._queue)
            self._changed.notify()
        return work

    def drop(self, work: Work) -> None:
        """Forget a request that nobody waits for; a call that runs already goes on to its end."""
        with self._changed:
            if work in self._queue:
                self._queue.remove(work)
                self.state.dropped += 1
                self.state.waiting = len(self._queue)

    def close(self) -> None:
        """Refuse new requests, answer those that were accepted, and end the threads."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            works, one_core = self._take()
            if not works:
                return
            start_s = time.perf_counter()
            try:
                results = list(works[0].task([p for work in works for p in work.photos], one_core=one_core))
            except BaseException as err:  # every request gets an answer, and the thread stays
                for work in works:
                    _resolve(work, _fail(work, err))
            else:
                for work in works:
                    _resolve(work, _succeed(work, results[: len(work.photos)]))
                    del results[: len(work.photos)]
            self._finish(works, time.perf_counter() - start_s)

    def _take(self) -> tuple[list[Work], bool]:
        """Wait for work; return the requests of the next call, and whether it uses one core. None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                return [], True
            works = [self._queue.popleft()]
            task, photos = works[0].task, len(works[0].photos)
            together = task.together()
            # Requests are spread over the threads before they share calls.
            together = min(together, -(-(photos + len(self._queue)) // self._idle_threads()))
            while self._queue and self._queue[0].task == task:
                photos += len(self._queue[0].photos)
                if photos > together:
                    break
                works.append(self._queue.popleft())
            alone = not self.state.working and not self._queue and task.together() > 1
            self.state.working += 1
            self.state.waiting = len(self._queue)
            return works, not alone

    def _idle_threads(self) -> int:
        """Threads that take work now, this one included. The lock is held."""
        return len(self._threads) - self.state.working

    def _finish(self, works: Sequence[Work], seconds: float) -> None:
        with self._changed:
            self.state.working -= 1
            self.state.calls += 1
            self.state.photos += sum(len(work.photos) for work in works)
            self.state.call_s += _MEAN_WEIGHT * (seconds - self.state.call_s)


def _succeed(work: Work, answers: list[Any]) -> Callable[[], None]:
    return lambda: None if work.answers.done() else work.answers.set_result(answers)


def _fail(work: Work, err: BaseException) -> Callable[[], None]:
    return lambda: None if work.answers.done() else work.answers.set_exception(err)


def _resolve(work: Work, callback: Callable[[], None]) -> None:
    """Run a callback in the loop of a request, unless that loop has ended."""
    with suppress(RuntimeError):
        work.loop.call_soon_threadsafe(callback)
