"""Know again the outputs that an interrupted job has written, so that the same command goes on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..files import write_durable
from ..regular import NOTE_BYTES, read_regular

Ready = Callable[[os.stat_result], None]


class Outputs:
    """The outputs of one job: a note in its folder, written before each of them appears.

    A file is noted with its inode, size and time right before it gets its name, which changes none of them; a folder
    that is filled in place with its inode. So a file that somebody else put there is never taken for ours.
    """

    def __init__(self, note: Path, job: Mapping[str, Any]) -> None:
        """Read the note of an earlier process.

        Args:
            note: the note, in the locked folder of the job.
            job: what decides the content of the outputs, as JSON. The note of another job counts for nothing.
        """
        self._note = note
        self._job = json.loads(json.dumps(job))
        self._places: dict[str, list[int]] = {}
        try:
            noted = json.loads(read_regular(note, NOTE_BYTES))
            if noted["job"] == self._job:
                self._places = {str(name): [int(value) for value in place] for name, place in noted["places"].items()}
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            pass  # no note, or a damaged one: existing outputs are then refused

    def owns(self, path: Path) -> bool:
        """Whether this job wrote what is there now; it may be replaced."""
        try:
            return self._places.get(os.path.abspath(path)) == _place(os.lstat(path))
        except OSError:
            return False

    def ready(self, path: Path) -> Ready:
        """A function that notes an output; its writer calls it before the output gets its name."""

        def note(status: os.stat_result) -> None:
            self._places[os.path.abspath(path)] = _place(status)
            text = json.dumps({"job": self._job, "places": self._places})
            write_durable(self._note, text.encode(), "the note of the outputs", like=self._note.parent)

        return note


def _place(status: os.stat_result) -> list[int]:
    place = [status.st_dev, status.st_ino]
    return place if stat.S_ISDIR(status.st_mode) else [*place, status.st_size, status.st_mtime_ns]
