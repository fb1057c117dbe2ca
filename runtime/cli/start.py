"""The entry point of `facemill`. From its first moment Ctrl-C ends it in silence, also during the imports."""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # as in `typing`: nothing is imported before the signal is handled that can be spared
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any


def main(**options: Any) -> Any:
    """Run the command of `sys.argv`; see `click.Command.main` for the options."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored: `nohup`, `&` in a script
        signal.signal(signal.SIGINT, _end)
    from .app import main as run

    return run(**options)


def let_commands_be_interrupted() -> None:
    """Raise KeyboardInterrupt for Ctrl-C from now on: a command has begun, and may have something to put in order."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(signum: int, frame: FrameType | None) -> None:
    os._exit(128 + signum)  # nothing has been written yet
