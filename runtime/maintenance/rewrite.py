"""A new file made from parts of finished files: which photo comes from which file, and the metadata of the file."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError
from ..records import Status
from ..sources.pathtable import PathTable, write_paths
from ..storage.ledger import Ledger, Part
from ..storage.runfolder import RunFolder, utc_now
from ..text import printable

_NAMED = 3  # paths that an error names


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A new file before it is written; hand both to `assemble`.

    Attributes:
        ledger: M rows.
        paths: M exact paths, on disk.
        doubles: photos of later parts that an earlier one has too, and which were left out.
    """

    ledger: Ledger
    paths: PathTable
    doubles: int


@contextmanager
def rewriting(folder: RunFolder, parts: Sequence[Part], *, prefer_first: bool = False) -> Iterator[Rewrite]:
    """The photos of all parts in scan order: by path, byte by byte. The parts are only read.

    Args:
        folder: of the new file, locked; the paths are kept in it meanwhile.
        parts: each in scan order.
        prefer_first: of a photo that several parts have, take that of the earliest; else that is an error.
    Raises:
        ConfigError: several have the same photo; the first ones are named.
        DiskFullError, StorageError: a part cannot be read, or the paths cannot be written.
    """
    order = _Order(parts)
    write_paths(folder.paths_file, order)
    if order.doubles and not prefer_first:
        examples = ", ".join(printable(path.decode("utf-8", "surrogateescape")) for path in order.named)
        more = f" and {order.doubles - len(order.named):,} more" if order.doubles > len(order.named) else ""
        raise ConfigError(
            f"{order.doubles:,} photos are in several of the files ({examples}{more}); expected: each in one file. "
            f"To take each from the file named first: --prefer first"
        )
    with PathTable(folder.paths_file) as paths, Ledger(len(paths)) as ledger:
        source = np.frombuffer(order.source, np.uint8)
        for number, part in enumerate(parts):
            rows = np.flatnonzero(source == number)
            ledger.add_part(part, rows, np.flatnonzero(part.keep)[np.frombuffer(order.taken[number], np.bool_)])
        yield Rewrite(ledger, paths, order.doubles)


class _Order:
    """Iterates over the paths of the new file, and notes where each is from.

    Attributes:
        source: number of the part of every row, a byte each.
        taken: of every part, for each photo to be kept, whether it became a row; a byte each.
        doubles: how many did not, since an earlier part has it.
        named: the first of those.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if len(parts) > 256:
            raise ConfigError(f"{len(parts)} files were named; expected: 256 at most. Join some of them first")
        self._parts = parts
        self.source = bytearray()
        self.taken = [bytearray() for _ in parts]
        self.doubles = 0
        self.named: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        last, of_last = b"", -1
        for path, number in heapq.merge(*map(_numbered, range(len(self._parts)), self._parts)):
            double = path == last and number > of_last >= 0
            self.taken[number].append(not double)
            if double:
                self.doubles += 1
                if len(self.named) < _NAMED:
                    self.named.append(path)
                continue
            last, of_last = path, number
            self.source.append(number)
            yield path


def _numbered(number: int, part: Part) -> Iterator[tuple[bytes, int]]:
    for path in compress(part.paths(), part.keep.tolist()):
        yield part.prefix + path, number


def metadata_after(metadata: Mapping[str, Any], ledger: Ledger, **changes: Any) -> dict[str, Any]:
    """The attributes of `/metadata` of a file made from another: those that count are counted again.

    Args:
        metadata: of the other one; what is not about rows is kept, calibrations among it.
        ledger: of the new one.
        changes: more of them.
    """
    counts = ledger.counts()
    attributes = {key: value for key, value in metadata.items() if key != "run_id" and not key.startswith("count_")}
    return {
        **attributes,
        "tool_version": __version__,
        "finished_utc": utc_now(),
        "scanned": len(ledger.status),
        **{f"count_{name.replace('-', '_')}": count for name, count in counts.items()},
        "embedded": counts.get(Status.EMBEDDED.label, 0),
        **changes,
    }
