"""Name the photos that take very long to decode, while they do.

A decoder cannot be stopped inside a thread. `images/header.py` refuses what is known to take long, and this names the
rest.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

logger = logging.getLogger(__name__)

SLOW_S = 10.0


class SlowPhotos:
    """Watches the photos of one batch, one after another. Use it as a context manager.

    Args:
        slow_s: seconds after which a photo is named in the log.
    """

    def __init__(self, slow_s: float = SLOW_S) -> None:
        self._slow_s = slow_s
        self._name, self._start_s = b"", time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="facemill-slow", daemon=True)

    def begin(self, name: bytes) -> None:
        """Begin with a photo.

        Args:
            name: its name, for the log; empty if unknown.
        """
        self._name, self._start_s = name, time.monotonic()

    def note(self) -> str:
        """What the outcome of the photo says if it took long; empty otherwise."""
        seconds = time.monotonic() - self._start_s
        return f"decoding took {seconds:.0f} s" if seconds > self._slow_s else ""

    def _watch(self) -> None:
        named = 0.0
        while not self._ended.wait(max(0.01, self._slow_s - (time.monotonic() - self._start_s))):
            name, start_s = self._name, self._start_s
            if time.monotonic() - start_s >= self._slow_s and start_s != named:
                named = start_s
                photo = name.decode("utf-8", "backslashreplace") or "a photo"
                logger.warning("decoding %s takes more than %g seconds", photo, self._slow_s)
            if start_s == named:
                self._ended.wait(min(0.5, self._slow_s))

    def __enter__(self) -> SlowPhotos:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
