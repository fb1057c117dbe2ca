"""Plan a new file from parts of finished files: the origin of each photo, and the metadata."""

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
from ..storage.contract import EmbeddingContract
from ..storage.ledger import Ledger, Part
from ..storage.runfolder import RunFolder, utc_now
from ..text import printable

_MAX_EXAMPLES = 3  # paths that an error names


@dataclass(frozen=True, slots=True)
class Rewrite:
    """A new file before it is written; hand both to `assemble`.

    Attributes:
        ledger: M rows.
        paths: M exact paths, on disk.
        doubles: photos of later parts that were left out because an earlier part has them.
    """

    ledger: Ledger
    paths: PathTable
    doubles: int


@contextmanager
def rewriting(folder: RunFolder, parts: Sequence[Part], *, prefer_first: bool = False) -> Iterator[Rewrite]:
    """Combine the photos of all parts in scan order: by path, byte by byte. The parts are only read.

    Args:
        folder: the run folder of the new file, locked; it holds the paths during the block.
        parts: each in scan order.
        prefer_first: take a photo that several parts have from the earliest of them; else it is an error.
    Raises:
        ConfigError: several parts have the same photo; the message names examples.
        DiskFullError, StorageError: a part cannot be read, or the paths cannot be written.
    """
    order = _Order(parts)
    write_paths(folder.paths_file, order)
    if order.doubles and not prefer_first:
        examples = ", ".join(printable(path.decode("utf-8", "surrogateescape")) for path in order.examples)
        more = f" and {order.doubles - len(order.examples):,} more" if order.doubles > len(order.examples) else ""
        raise ConfigError(
            f"{order.doubles:,} photos are in several of the files ({examples}{more}); expected: each in one file. "
            f"To take each from the first of its files: --prefer first"
        )
    with PathTable(folder.paths_file) as paths, Ledger(len(paths)) as ledger:
        source = np.frombuffer(order.source, np.uint8)
        for number, part in enumerate(parts):
            rows = np.flatnonzero(source == number)
            ledger.add_part(part, rows, np.flatnonzero(part.keep)[np.frombuffer(order.taken[number], np.bool_)])
        yield Rewrite(ledger, paths, order.doubles)


class _Order:
    """Iterates over the paths of the new file, and records the part of each.

    Attributes:
        source: number of the part of every row, a byte each.
        taken: for every part, whether each of its photos to keep became a row; a byte each.
        doubles: number of photos that did not, because an earlier part has them.
        examples: the first of their paths.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        if len(parts) > 256:
            raise ConfigError(f"got {len(parts)} files; expected: 256 at most. Join some of them first")
        self._parts = parts
        self.source = bytearray()
        self.taken = [bytearray() for _ in parts]
        self.doubles = 0
        self.examples: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        last, of_last = b"", -1
        for path, number in heapq.merge(*map(_numbered, range(len(self._parts)), self._parts)):
            double = path == last and number > of_last >= 0
            self.taken[number].append(not double)
            if double:
                self.doubles += 1
                if len(self.examples) < _MAX_EXAMPLES:
                    self.examples.append(path)
                continue
            last, of_last = path, number
            self.source.append(number)
            yield path


def _numbered(number: int, part: Part) -> Iterator[tuple[bytes, int]]:
    for path in compress(part.paths(), part.keep.tolist()):
        yield part.prefix + path, number


def metadata_after(metadata: Mapping[str, Any], ledger: Ledger, **changes: Any) -> dict[str, Any]:
    """The attributes of `/metadata` of a file that is made from another, with new counts.

    Args:
        metadata: attributes of the source file; those that do not describe rows, such as calibrations, are kept.
        ledger: the ledger of the new file.
        changes: further attributes to set.
    """
    counts = ledger.counts()
    attributes = {key: value for key, value in metadata.items() if key != "run_id" and not key.startswith("count_")}
    return {
        **attributes,
        **EmbeddingContract.from_json(metadata["contract"]).attributes(),  # the contract of the source is what counts
        "tool_version": __version__,
        "finished_utc": utc_now(),
        "scanned": len(ledger.status),
        **{f"count_{name.replace('-', '_')}": count for name, count in counts.items()},
        "embedded": counts.get(Status.EMBEDDED.label, 0),
        **changes,
    }
