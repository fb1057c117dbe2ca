"""The standard streams of a command. A closed, full or vanished one never decides about the work.

stderr and a terminal are displays: when one of them cannot be written any more, the command goes on without it and the
log file says why. stdout to a file or a pipe is a result: a result that cannot be written ends the command.

The decoders of images print their warnings on descriptor 2, without the name of the photo and across the live line. The
outcome of the photo says what they mean, so these lines go to the log; all other lines pass.
"""

from __future__ import annotations

import atexit
import errno
import io
import logging
import os
import re
import select
import sys
import threading
from typing import Any

from ..errors import MachineError

logger = logging.getLogger(__name__)

_CLOSED = "it was closed before the command began"
_DECODERS = re.compile(
    rb"^(Corrupt JPEG data|Premature end of JPEG|Invalid SOS|Inconsistent progression|Unsupported marker|Unknown Adobe|"
    rb"Warning: unknown JFIF|libpng (warning|error)|TIFF\w+:|\[ *(WARN|ERROR):\d+@[\d.]+\] global (grfmt_|loadsave)|"
    rb"\s*$)"  # some of their lines end twice
)
_LONGEST = 1 << 16  # bytes of a line
_ENDS_S = 5.0  # for the last lines


class _Channel(io.RawIOBase):
    """A descriptor for writing. After its first error everything is dropped, so that no later flush fails again.

    Attributes:
        name: "stdout" or "stderr".
        lost: why nothing can be written any more; empty while it can.
    """

    def __init__(self, fd: int, name: str, lost: str) -> None:
        self.name, self.lost = name, lost
        self._fd, self._terminal = fd, not lost and os.isatty(fd)
        self._display = bool(lost) or self._terminal or name == "stderr"

    def write(self, data: Any) -> int:
        """Write all of it, or note why that failed.

        Raises:
            BrokenPipeError: the reader of a result went away.
            MachineError: a result cannot be written.
        """
        rest = memoryview(data).cast("B")
        while rest and not self.lost:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                if self._display:
                    break  # a slow display must not hold up the work
                select.select([], [self._fd], [])
            except OSError as err:
                self.lost = err.strerror or str(err)
                if self._display:
                    logger.warning("%s", self.complaint())
                    break
                if err.errno == errno.EPIPE:
                    raise
                raise MachineError(
                    f"stdout cannot be written: {self.lost}. Files that the command wrote are complete; print the "
                    f"result to another place"
                ) from err
        return len(data)

    def complaint(self) -> str:
        """What the log file says about a lost display."""
        return f"{self.name} cannot be written ({self.lost}): the command goes on without it"

    def writable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def fileno(self) -> int:
        """See `io.RawIOBase`."""
        return self._fd

    def isatty(self) -> bool:
        """See `io.RawIOBase`."""
        return self._terminal and not self.lost


class _Text(io.TextIOWrapper):
    """Text to a channel; what the encoding of the locale lacks is escaped as `\\u65e5`."""

    def __init__(self, channel: _Channel, buffer: Any, encoding: str, *, lines: bool) -> None:
        self.channel = channel
        direct = buffer is channel
        super().__init__(buffer, encoding, "backslashreplace", line_buffering=lines, write_through=direct)


def ensure_utf8_names() -> None:
    """Start the command again in Python's UTF-8 mode if the locale has another encoding.

    File names are bytes, and what facemill stores about them is UTF-8. In another encoding a file that was made under
    one locale would name other photos under the next. Output keeps the encoding of the locale.
    """
    if sys.getfilesystemencoding() == "utf-8" or not sys.executable:
        return
    output = _encoding(sys.__stdout__ or sys.__stderr__)
    environment = {"PYTHONIOENCODING": output, **os.environ}
    os.execve(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]], environment)


def open_streams() -> None:
    """Give the process standard streams that never fail as displays. Streams that somebody replaced stay.

    A descriptor from 0 to 2 that is closed becomes /dev/null: the next file would get its number, and what a library
    prints would go into that file.
    """
    closed = [fd for fd in range(3) if not _is_open(fd)]
    for fd in closed:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, fd, inheritable=True)
        if null != fd:
            os.close(null)
        os.set_inheritable(fd, True)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        channel = _Channel(1, "stdout", _CLOSED if 1 in closed else "")
        buffer = io.BufferedWriter(channel)
        sys.stdout = _Text(channel, buffer, _encoding(sys.__stdout__), lines=channel.isatty())
    if sys.stderr is sys.__stderr__:
        # Without a buffer: a signal handler may write in the middle of another write.
        fd = 2 if 2 in closed else _divert_native_stderr()
        channel = _Channel(fd, "stderr", _CLOSED if 2 in closed else "")
        sys.stderr = _Text(channel, channel, _encoding(sys.__stderr__), lines=True)


def complaints() -> list[str]:
    """What there is to say about displays that are lost already."""
    texts = (stream for stream in (sys.stdout, sys.stderr) if isinstance(stream, _Text))
    return [text.channel.complaint() for text in texts if text.channel.lost]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _encoding(stream: Any) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _divert_native_stderr() -> int:
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
