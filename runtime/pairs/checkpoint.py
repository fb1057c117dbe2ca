"""Save the pairs of finished blocks beside the file, so that an interrupted search can resume."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StorageError
from ..files import durable_file, write_durable
from ..regular import NOTE_BYTES, open_regular, read_regular
from ..storage.opening import refuse_system_error
from ..storage.runfolder import RunFolder
from .all_pairs import ScoredPairs, join_pairs
from .outputs import Outputs

_PAIR = np.dtype([("first", "<i8"), ("second", "<i8"), ("score", "<f4")])
_PART = re.compile(r"part-(\d+)-(\d+)-(\d+)\.npy")  # first block, last block + 1, CRC-32 of the content
_REMEDY = "Remove that folder and run the same command again"

logger = logging.getLogger(__name__)


def checkpoint_plan_path(file: Path) -> Path:
    """Return the path of the JSON file that describes an unfinished search of an embedding file."""
    return file.with_name(file.name + ".pairs.parts") / "plan.json"


class Checkpoint:
    """`<file>.pairs.parts`, or that of another job, locked for this process. Owned by `with`; a kill releases the lock.

    Parts are written atomically, and follow each other without a gap.

    Attributes:
        done: number of finished blocks.
    """

    def __init__(self, file: Path, job: str = "pairs") -> None:
        """Take the lock.

        Args:
            file: the embedding file.
            job: "pairs", or "clusters" for a job without pairs.
        Raises:
            LockedError: another search for pairs of this file is running.
            StorageError: the folder cannot be created.
        """
        self._folder = RunFolder(Path(os.path.realpath(file) + f".{job}"), like=file)
        self._plan = self._folder.path / "plan.json"
        self.done = 0

    def outputs(self, job: Mapping[str, Any]) -> Outputs:
        """The outputs that an interrupted process of the same job has written; see `Outputs`."""
        return Outputs(self._folder.path / "outputs.json", job)

    def begin(self, question: Mapping[str, Any], *, force: bool) -> dict[str, Any] | None:
        """Return the plan of an unfinished search to resume; None to start a new search.

        Args:
            question: values that a plan must have to be resumed.
            force: drop an unfinished search that differs; one that does not differ is still resumed.
        Raises:
            ConfigError: the unfinished search has other values, and is of the same file.
            StorageError: the plan is damaged.
        """
        path = self._plan
        try:
            plan: dict[str, Any] = json.loads(read_regular(path, NOTE_BYTES))
            differs = [key for key in question if plan.get(key) != question[key]]
        except FileNotFoundError:
            self._folder.clear()
            return None
        except (OSError, AttributeError, ValueError) as err:
            refuse_system_error(err, path)
            raise StorageError(f"the plan of the unfinished search, {path}, cannot be read ({err}). {_REMEDY}") from err
        same_rows = plan.get("rewriting") and plan["source"]["run_id"] == question["source"]["run_id"]
        if not differs or (differs == ["source"] and same_rows):
            return plan
        if not force and "source" not in differs:
            differences = "; ".join(f"{key}: expected {plan.get(key)}, got {question[key]}" for key in differs)
            raise ConfigError(
                f"{self._folder.path} holds an unfinished search for pairs with other options ({differences}). "
                f"Finish it with the same options as before, or drop it with --force"
            )
        logger.info("dropping an unfinished search: %s", "--force" if force else "the file has changed since")
        self._folder.clear()
        return None

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Save the plan, before any part."""
        write_durable(self._plan, json.dumps(plan, indent=2).encode(), "the plan", like=self._folder.path)

    def keep(self, question: Mapping[str, Any]) -> None:
        """Keep the folder until `remove`, for a job without pairs, which starts again with its outputs noted."""
        if self.begin(question, force=True) is None:
            self.plan(question)

    def before_rewriting(self) -> None:
        """Note that this job replaces the file by one with the same rows: a kill right after that loses nothing."""
        self.plan({**json.loads(read_regular(self._plan, NOTE_BYTES)), "rewriting": True})

    def load(self) -> list[ScoredPairs]:
        """Read the pairs of all finished blocks, and set `done`.

        Raises:
            StorageError: a part is damaged or missing.
        """
        names = (_PART.fullmatch(path.name) for path in self._folder.path.iterdir())
        parts = sorted((int(name[1]), int(name[2]), int(name[3]), name[0]) for name in names if name)
        pieces = []
        for start, stop, crc, name in parts:
            path = self._folder.path / name
            data = read_regular(path, sys.maxsize)
            if start != self.done or zlib.crc32(data) != crc:
                raise StorageError(f"{path} is damaged, or the part before it is missing. {_REMEDY}")
            pairs = np.load(io.BytesIO(data))
            pieces.append(ScoredPairs(pairs["first"].copy(), pairs["second"].copy(), pairs["score"].copy()))
            self.done = stop
        return pieces

    def save(self, pieces: Sequence[ScoredPairs]) -> None:
        """Save the pairs of the next blocks, one piece per block."""
        pairs = join_pairs(pieces)
        records = np.empty(len(pairs), _PAIR)
        records["first"], records["second"], records["score"] = pairs.first, pairs.second, pairs.scores
        buffer = io.BytesIO()
        np.save(buffer, records)
        data, stop = buffer.getvalue(), self.done + len(pieces)
        path = self._folder.path / f"part-{self.done}-{stop}-{zlib.crc32(data)}.npy"
        write_durable(path, data, "the finished pairs", like=self._folder.path)
        self.done = stop

    def save_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Save arrays that all blocks need."""
        with durable_file(self._folder.path / "lists.npz", "the lists", like=self._folder.path) as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load_arrays(self) -> dict[str, NDArray[Any]]:
        """Read what `save_arrays` saved.

        Raises:
            StorageError: the file is damaged.
        """
        path = self._folder.path / "lists.npz"
        try:
            with open(open_regular(path), "rb") as file, np.load(file) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zlib.error, zipfile.BadZipFile) as err:
            if not isinstance(err, FileNotFoundError):
                refuse_system_error(err, path)
            raise StorageError(f"{path} is damaged ({err}). {_REMEDY}") from err

    def remove(self) -> None:
        """Remove the checkpoint: the search is finished and its pairs are written."""
        self._folder.remove()

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.__exit__(*exc)
