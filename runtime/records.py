"""The frozen records that travel between rooms."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FORMAT_VERSION = 1  # of the embedding file: what writes it and what reads it agree on this number


class Status(enum.IntEnum):
    """What became of a photograph. The numbers are stored; never renumber."""

    PENDING = 0
    EMBEDDED = 1
    CORRUPT = 2
    UNSUPPORTED = 3
    UNREADABLE = 4
    DUPLICATE = 5
    NO_FACE = 6
    LOW_QUALITY = 7

    @property
    def label(self) -> str:
        """The name in files and reports: `no-face` for NO_FACE."""
        return self.name.lower().replace("_", "-")

    @property
    def failed(self) -> bool:
        """Whether `--retry` runs the photograph again."""
        return self not in (Status.PENDING, Status.EMBEDDED, Status.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one photograph's journey.

    Attributes:
        row: its row in the scan.
        status: what became of it.
        detail: why, in words for a person; empty when embedded.
    """

    row: int
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of scan rows on its way through the stages; each stage makes the next one from it.

    Attributes:
        rows: (n,) int64, ascending: the photographs still on the way.
        outcomes: those that left the journey early.
        files: n encoded files; empty before reading and after decoding.
        images: (n, S, S, 3) uint8, NHWC, the model's channel order; None before decoding and after inference.
        embeddings: (n, D) float32, unit rows; None before inference.
        digests: file digest (BLAKE2b, 16 bytes) by scan row; empty unless duplicates are skipped.
    """

    rows: NDArray[np.int64]
    outcomes: tuple[Outcome, ...] = ()
    files: tuple[bytes, ...] = ()
    images: NDArray[np.uint8] | None = None
    embeddings: NDArray[np.float32] | None = None
    digests: Mapping[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """Photographs of this batch, whatever became of them."""
        return len(self.rows) + len(self.outcomes)


@dataclass(frozen=True, slots=True)
class SearchHit:
    """One answer to a query.

    Attributes:
        rank: 1 for the best.
        score: inner product of unit vectors, -1 to 1.
        row: row in `/embeddings`.
        path: the photograph, as in `/image_paths`.
    """

    rank: int
    score: float
    row: int
    path: str
