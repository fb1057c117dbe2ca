"""Engine files on disk: one builder at a time, and each file whole or not there."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import EngineError
from .sidecar import EngineInfo, write_sidecar

logger = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, created if need be, for this process alone; a second one waits.

    The lock is on the folder itself: no file is left behind, and the kernel lets go when a process dies.

    Raises:
        EngineError: the folder cannot be created or locked.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as err:
        raise EngineError(
            f"the folder {folder} cannot be used: {err.strerror}; wanted: a folder that can be written to"
        ) from err
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another build in %s", folder)
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def keep(path: Path, engine: bytes, info: EngineInfo) -> None:
    """Write an engine and its sidecar, durably; a reader meets the old pair, the new one, or two that do not match.

    Args:
        path: the engine file; replaced if it exists.
        engine: its content.
        info: for the sidecar.
    Raises:
        EngineError: they cannot be written; what was there stays.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(engine)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        write_sidecar(path, info)
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)  # the renames survive a power cut only after this
        finally:
            os.close(fd)
    except OSError as err:
        partial.unlink(missing_ok=True)
        raise EngineError(f"the engine {path} cannot be written: {err.strerror or err}") from err
