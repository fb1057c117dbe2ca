"""The old name of `files` and `h5write`, until every caller has changed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import durable_file, storage_error, sync_folder, write_durable
from .h5write import DiskFile, DurableH5, durable_h5

__all__ = ["DiskFile", "DurableH5", "durable_file", "durable_h5", "storage_error", "sync_folder", "write_durable"]


@contextmanager
def readable_as(*files: Path) -> Iterator[None]:
    """A block whose new files can be read by nobody who may not read all of some files, from which they are made.

    It is the process's umask that changes meanwhile.
    """
    allowed = 0o777
    for file in files:
        allowed &= file.stat().st_mode
    enter = (allowed & 0o444) >> 2  # into a folder, for those who may read
    before = os.umask(0o077 & ~(allowed | enter))
    os.umask(before | (0o077 & ~(allowed | enter)))
    try:
        yield
    finally:
        os.umask(before)
