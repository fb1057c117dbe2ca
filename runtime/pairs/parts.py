"""What a search for pairs keeps while it is unfinished: the pairs of its finished blocks, beside the file."""

from __future__ import annotations

import io
import json
import logging
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, StorageError
from ..files import durable_file, write_durable
from ..storage.runfolder import RunFolder
from .blocks import Found, joined

_PAIR = np.dtype([("first", "<i8"), ("second", "<i8"), ("score", "<f4")])
_PART = re.compile(r"part-(\d+)-(\d+)-(\d+)\.npy")  # first block, the one after the last, CRC-32 of the content
_AGAIN = "Remove that folder and run the same command again"

logger = logging.getLogger(__name__)


def plan_path(file: Path) -> Path:
    """Where the unfinished search in an embedding file says, as JSON, what it is of."""
    return file.with_name(file.name + ".pairs.parts") / "plan.json"


class Parts:
    """`<file>.pairs.parts`, locked for this process. Owned by `with`; a kill releases the lock.

    A part is durable under its name, whole or not at all, and parts follow each other without a gap.

    Attributes:
        done: blocks that are finished.
    """

    def __init__(self, file: Path) -> None:
        """Take the lock.

        Args:
            file: the embedding file.
        Raises:
            LockedError: another search for pairs in it is running.
            StorageError: the folder cannot be made.
        """
        self._folder = RunFolder(file.with_name(file.name + ".pairs"))
        self._plan = plan_path(file)
        self.done = 0

    def begin(self, wanted: Mapping[str, Any], *, force: bool) -> dict[str, Any] | None:
        """The plan of the unfinished search that this one goes on with; None if it begins.

        Args:
            wanted: what a plan must say to be gone on with.
            force: drop one that differs; one that does not is gone on with all the same.
        Raises:
            ConfigError: the one that is there is for other questions about the same file.
            StorageError: its plan is damaged.
        """
        path = self._plan
        try:
            plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            differs = [key for key in wanted if plan[key] != wanted[key]]
        except FileNotFoundError:
            self._folder.clear()
            return None
        except (OSError, KeyError, TypeError, ValueError) as err:
            raise StorageError(f"the plan of the unfinished search, {path}, cannot be read ({err}). {_AGAIN}") from err
        if not differs:
            return plan
        if not force and "source" not in differs:
            different = "; ".join(f"{key}: {plan[key]} there, {wanted[key]} now" for key in differs)
            raise ConfigError(
                f"an unfinished search for pairs is in {self._folder.path} and is another one ({different}). "
                f"Finish that first, with the same options as before, or drop it with --force"
            )
        logger.info("an unfinished search is dropped: %s", "as asked" if force else "the file has changed since")
        self._folder.clear()
        return None

    def plan(self, plan: Mapping[str, Any]) -> None:
        """Make durable what this search is; the rest comes after it."""
        write_durable(self._plan, json.dumps(plan, indent=2).encode(), "the plan")

    def load(self) -> list[Found]:
        """The pairs of all finished blocks; sets `done`.

        Raises:
            StorageError: a part is damaged or missing.
        """
        names = (_PART.fullmatch(path.name) for path in self._folder.path.iterdir())
        parts = sorted((int(name[1]), int(name[2]), int(name[3]), name[0]) for name in names if name)
        found = []
        for start, stop, crc, name in parts:
            path = self._folder.path / name
            data = path.read_bytes()
            if start != self.done or zlib.crc32(data) != crc:
                raise StorageError(f"{path} is damaged, or the part before it is missing. {_AGAIN}")
            pairs = np.load(io.BytesIO(data))
            found.append(Found(pairs["first"].copy(), pairs["second"].copy(), pairs["score"].copy()))
            self.done = stop
        return found

    def save(self, pieces: Sequence[Found]) -> None:
        """Make the pairs of the next blocks durable, one piece for each block."""
        found = joined(pieces)
        pairs = np.empty(len(found), _PAIR)
        pairs["first"], pairs["second"], pairs["score"] = found.first, found.second, found.scores
        buffer = io.BytesIO()
        np.save(buffer, pairs)
        data, stop = buffer.getvalue(), self.done + len(pieces)
        write_durable(self._folder.path / f"part-{self.done}-{stop}-{zlib.crc32(data)}.npy", data, "the pairs so far")
        self.done = stop

    def save_arrays(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Make arrays durable that all blocks stand on."""
        with durable_file(self._folder.path / "lists.npz", "the lists") as file:
            np.savez(file, allow_pickle=False, **arrays)

    def load_arrays(self) -> dict[str, NDArray[Any]]:
        """What `save_arrays` saved.

        Raises:
            StorageError: it is damaged.
        """
        path = self._folder.path / "lists.npz"
        try:
            with np.load(path) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zlib.error) as err:
            raise StorageError(f"{path} is damaged ({err}). {_AGAIN}") from err

    def remove(self) -> None:
        """The search is finished: its answer is where it belongs."""
        self._folder.remove()

    def __enter__(self) -> Parts:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._folder.__exit__(kind, error, trace)
