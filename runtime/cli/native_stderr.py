"""Keep what native libraries print away from the terminal, as far as it is about photos.

The decoders of JPEG, PNG and TIFF print their warnings on descriptor 2, without the name of the photo and across the
live line. What they mean is decided from the bytes of each photo (images/jpeg_whole.py, images/tiff_header.py), and
the outcome says it. So these lines go to the log at the level DEBUG; all other lines pass.
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import threading

logger = logging.getLogger(__name__)

_DECODERS = re.compile(
    rb"^(Corrupt JPEG data|Premature end of JPEG|Invalid SOS|Inconsistent progression|Unsupported marker|Unknown Adobe|"
    rb"Warning: unknown JFIF|libpng (warning|error)|TIFF\w+:|\[ *(WARN|ERROR):\d+@[\d.]+\] global (grfmt_|loadsave))"
)
_LONGEST = 1 << 16  # bytes of a line
_ENDS_S = 1.0  # for the last lines


def divert_native_stderr() -> int:
    """Give native libraries a pipe as descriptor 2, and read it until the process ends.

    Returns:
        A descriptor of the stderr that the process began with.
    """
    screen = os.dup(2)
    reading, writing = os.pipe()
    os.dup2(writing, 2, inheritable=True)
    os.close(writing)
    thread = threading.Thread(target=_sort_lines, args=(reading, screen), name="facemill-stderr", daemon=True)
    thread.start()
    atexit.register(_give_back, screen, thread)
    return screen


def _give_back(screen: int, thread: threading.Thread) -> None:
    """Make descriptor 2 what it was, and wait for the last lines."""
    os.dup2(screen, 2, inheritable=True)
    thread.join(_ENDS_S)


def _sort_lines(reading: int, screen: int) -> None:
    """Send the lines of decoders to the log, and the others to the screen."""
    with open(reading, "rb", buffering=0) as pipe:
        rest = b""
        while content := pipe.read(1 << 16):
            *lines, rest = (rest + content).split(b"\n")
            for line in lines:
                _sort_line(line + b"\n", screen)
            if len(rest) > _LONGEST:
                _sort_line(rest, screen)
                rest = b""
        if rest:
            _sort_line(rest, screen)


def _sort_line(line: bytes, screen: int) -> None:
    if _DECODERS.match(line):
        logger.debug("a decoder: %s", line.decode("utf-8", "backslashreplace").strip())
        return
    try:
        os.write(screen, line)
    except OSError:
        return  # a display that was lost decides about nothing
