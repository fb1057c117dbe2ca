"""Keep the attributes that were read so far beside their file, so that an interrupted job can resume."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import write_durable
from ..records import ATTRIBUTES
from ..regular import NOTE_BYTES, read_regular
from ..sources.pathtable import PathTable, write_paths
from ..storage.opening import refuse_system_error
from ..storage.runfolder import RunFolder, decode_plan, encode_plan

_PART = re.compile(r"part-(\d+)-(\d+)-(\d+)\.npy")  # first face, last face + 1, CRC-32 of the content

logger = logging.getLogger(__name__)


class AttributeParts:
    """`<file>.attributes.parts`, locked for this process. Owned by `with`; a kill releases the lock.

    Parts are written atomically, and follow each other without a gap.

    Attributes:
        done: number of faces whose attributes are kept.
        disks: the disks of the photos when the interrupted job began; empty for a new job. See `sources.disks`.
    """

    def __init__(self, file: Path) -> None:
        """Take the lock.

        Args:
            file: the embedding file, its real path.
        Raises:
            LockedError: another process reads the attributes of this file.
            StorageError: the folder cannot be used.
        """
        busy = f"another command is reading the attributes of {file}"
        self._folder = RunFolder(Path(f"{file}.attributes"), like=file, busy=busy)
        self._plan = self._folder.path / "plan.json"
        self._question: dict[str, Any] = {}
        self.done = 0
        self.disks: list[bytes] = []

    def resume(self, question: Mapping[str, Any]) -> None:
        """Go on with the interrupted job, or drop its parts if it was another one.

        Args:
            question: what a job must have in common with the interrupted one; JSON.
        Raises:
            StorageError: the folder cannot be used.
        """
        self._question = json.loads(json.dumps(question))
        disks = self._stored_disks()
        self.disks = [os.fsencode(disk) for disk in disks or ()]
        if disks is None:
            self._folder.clear()

    def _stored_disks(self) -> list[str] | None:
        """The disks in the plan of an interrupted job; None without one, or if it was another job or is damaged."""
        try:
            plan = decode_plan(read_regular(self._plan, NOTE_BYTES))
        except (OSError, ValueError) as err:
            if not isinstance(err, FileNotFoundError):
                refuse_system_error(err, self._plan)
            return None
        disks: list[str] | None = plan.pop("disks", None)
        return disks if plan == self._question else None

    @contextmanager
    def photos(self, names: Iterable[bytes]) -> Iterator[PathTable]:
        """The paths of the photos to read, on disk.

        Raises:
            DiskFullError, StorageError: they cannot be written.
        """
        write_paths(self._folder.paths_file, names)
        with PathTable(self._folder.paths_file) as table:
            yield table

    def begin(self, disks: Iterable[bytes]) -> None:
        """Write the plan, before any part.

        Args:
            disks: absolute folders of the photos that are disks of their own.
        Raises:
            DiskFullError, StorageError: it cannot be written.
        """
        self.disks = sorted({*self.disks, *disks})
        data = encode_plan({**self._question, "disks": [os.fsdecode(disk) for disk in self.disks]})
        write_durable(self._plan, data, "the plan", like=self._folder.path)

    def load(self) -> Iterator[tuple[int, int, NDArray[np.void]]]:
        """Yield (start, stop, (stop - start,) ATTRIBUTES) of the parts, and set `done`.

        What follows a damaged part is read again.
        """
        names = (_PART.fullmatch(name) for name in os.listdir(self._folder.path))
        for start, stop, crc, name in sorted((int(m[1]), int(m[2]), int(m[3]), m[0]) for m in names if m):
            path = self._folder.path / name
            try:
                data = read_regular(path, sys.maxsize)
                values = np.load(io.BytesIO(data), allow_pickle=False) if zlib.crc32(data) == crc else None
            except (OSError, ValueError) as err:
                refuse_system_error(err, path)
                values = None
            if start != self.done or values is None or values.dtype != ATTRIBUTES or len(values) != stop - start:
                logger.warning("%s is damaged: its faces are read again", path)
                path.unlink()
                continue
            self.done = stop
            yield start, stop, values

    def save(self, attributes: NDArray[np.void]) -> None:
        """Keep the attributes of all faces so far, (stop,) ATTRIBUTES: those from `done` on become a part.

        Raises:
            DiskFullError, StorageError: they cannot be written; earlier parts stay.
        """
        stop = len(attributes)
        if stop == self.done:
            return
        buffer = io.BytesIO()
        np.save(buffer, np.ascontiguousarray(attributes[self.done :]), allow_pickle=False)
        data = buffer.getvalue()
        path = self._folder.path / f"part-{self.done}-{stop}-{zlib.crc32(data)}.npy"
        write_durable(path, data, "the attributes so far", like=self._folder.path)
        self.done = stop

    def remove(self) -> None:
        """Remove the parts: the file has the attributes, or nothing of them is worth keeping."""
        self._folder.remove()

    def __enter__(self) -> AttributeParts:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.__exit__(*exc)
