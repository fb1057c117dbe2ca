"""End a command that a signal cannot stop, because its main thread never returns from native code.

Python runs a signal handler in the main thread between two instructions. A library that never comes back, such as a
runtime that computes an endless network, would keep Ctrl-C waiting for ever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

_PATIENCE_S = 5.0
_STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PROBE = signal.SIGURG  # nothing of ours uses it, and by default it does nothing


def end_when_stuck() -> None:
    """Watch the signals of this process, whose main thread must call this.

    Five seconds after a signal that stops commands, a main thread that still runs no handlers is stuck, and the process
    ends as a kill would end it. Handlers that run stop the command in their own way and time.
    """
    receive, send = os.pipe()
    os.set_blocking(send, False)
    signal.set_wakeup_fd(send, warn_on_full_buffer=False)
    reached = threading.Event()
    signal.signal(_PROBE, lambda signum, frame: reached.set())
    threading.Thread(target=_watch, args=(receive, reached), name="facemill-signals", daemon=True).start()


def _watch(receive: int, reached: threading.Event) -> None:
    """Read the numbers of signals, and after each stopping one probe whether the main thread runs handlers."""
    main = threading.main_thread().ident
    assert main is not None
    while True:
        for signum in os.read(receive, 64):
            if signum not in _STOPPING:
                continue
            reached.clear()
            signal.pthread_kill(main, _PROBE)
            if not reached.wait(_PATIENCE_S):
                show_cursor = "\x1b[?25h" if sys.stderr.isatty() else ""
                print(f"{show_cursor}stopped by {signal.Signals(signum).name} within a library", file=sys.stderr)
                os._exit(128 + signum)
