"""The files that hold the rows of a ledger, read in pieces, few of them open at a time."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, StorageError
from .part import Part
from .salvage import DAMAGE, read_stored, refuse_system_error
from .segment_reader import set_aside

_OPEN_FILES = 16
_SPAN_ROWS = 65_536  # read in one piece at most, however few of them are wanted


class Holders:
    """Segments and finished files, known by number. Whoever made it calls `close`.

    Attributes:
        parts: of the finished files that others hold open, by number.
    """

    def __init__(self, base: Path | None) -> None:
        self.parts: dict[int, Part] = {}
        self._base = base
        self._paths: list[Path] = []
        self._open: OrderedDict[int, Any] = OrderedDict()

    def add(self, path: Path, part: Part | None = None) -> int:
        """One file more; returns its number."""
        number = len(self._paths)
        self._paths.append(path)
        if part is not None:
            self.parts[number] = part
        return number

    def gather(
        self,
        dataset: str,
        source: NDArray[np.int32],
        index: NDArray[np.int64],
        missing: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Items of a dataset that lie in several files.

        Args:
            dataset: its name.
            source: (n,) numbers of files.
            index: (n,) places in them; -1 for an item that is in none.
            missing: (1, ...) zeros, what such an item is.
        Raises:
            DamagedError: a segment is damaged and has been set aside.
            StorageError: a finished file is.
        """
        pieces = [
            (here, piece)
            for number in np.unique(source[index >= 0])
            for here, piece in self._pieces(
                int(number), dataset, np.flatnonzero((source == number) & (index >= 0)), index
            )
        ]
        if len(pieces) == 1 and len(pieces[0][0]) == len(index):
            return np.asarray(pieces[0][1])
        like = [piece for _, piece in pieces] + ([] if missing is None else [missing])
        out = np.zeros((len(index), *like[0].shape[1:]), np.result_type(*(piece.dtype for piece in like)))
        for here, piece in pieces:
            out[here] = piece
        return out

    def _pieces(
        self, number: int, dataset: str, here: NDArray[np.int64], index: NDArray[np.int64]
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """What is wanted of one file, in contiguous pieces; a chunk that holds nothing of it is not touched."""
        here = here[np.argsort(index[here], kind="stable")]
        wanted = index[here]
        with self._damage_told(number):
            data = self._file(number)[dataset]
            chunk = data.chunks[0] if data.chunks else _SPAN_ROWS
        apart = (np.diff(wanted) > chunk) | (np.diff((wanted - wanted[0]) // _SPAN_ROWS) > 0)
        for some in np.split(here, np.flatnonzero(apart) + 1):
            low, high = int(index[some[0]]), int(index[some[-1]]) + 1
            with self._damage_told(number):
                piece = read_stored(data, low, high)
            yield some, piece if len(piece) == len(some) else piece[index[some] - low]

    @contextmanager
    def _damage_told(self, number: int) -> Iterator[None]:
        """A block that reads from one file; a segment that is damaged there is set aside."""
        try:
            yield
        except DAMAGE as err:
            path = self._paths[number]
            refuse_system_error(err, path)
            mend = f"Save what is whole with: facemill repair {path}"
            if number in self.parts:
                raise StorageError(f"{path} is damaged ({err}), and nothing was changed. {mend}") from err
            if path == self._base:
                raise StorageError(
                    f"{path}, whose failures are being retried, is damaged ({err}). Start over with --force. {mend}"
                ) from err
            set_aside(path, str(err))
            raise DamagedError(
                f"the segment {path} was damaged and has been set aside; run the same command again"
            ) from err

    def _file(self, number: int) -> Any:
        """An open file; of segments, the one used longest ago is closed to make room."""
        import h5py

        if number in self.parts:
            return self.parts[number].file
        if number not in self._open:
            if len(self._open) == _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            self._open[number] = h5py.File(self._paths[number], "r")
        self._open.move_to_end(number)
        return self._open[number]

    def close(self) -> None:
        """Close what it has opened itself."""
        for file in self._open.values():
            file.close()
        self._open.clear()
