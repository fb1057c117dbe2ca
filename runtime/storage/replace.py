"""A finished embedding file changed in one part: a copy, its chunks as they are, that takes the file's place whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StorageError
from .file import check_exists
from .h5write import durable_h5
from .runfolder import RunFolder


@contextmanager
def replacing(file: Path) -> Iterator[Any]:
    """A copy of a file, open for writing; it takes the file's place when the block ends well.

    A power cut leaves the old file or the new one. So as much room again is needed while it lasts. The `run_id` stays:
    it is for a change that leaves the rows as they are.

    Args:
        file: a finished file; a link is followed.
    Raises:
        LockedError: a run is writing the file.
        DiskFullError, StorageError: the file is as it was.
    """
    import h5py

    path = Path(os.path.realpath(file))
    check_exists(path)
    # A run that retries its failures would replace the file too: hence its lock.
    with RunFolder(path), durable_h5(path, "the embedding file") as target:
        try:
            with h5py.File(path, "r") as source:
                target.file.attrs.update(source.attrs)
                for name in source:
                    source.copy(name, target.file)
        except (OSError, RuntimeError) as err:
            target.check()  # where it is the disk that failed, HDF5's error is no guide
            raise StorageError(
                f"{path} is damaged and cannot be changed ({err}). Restore it from a copy, or make it again with "
                f"--force"
            ) from err
        yield target.file
