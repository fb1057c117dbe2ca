"""From ranked rows to the hits of a query: without its own photo, one hit a folder, deeper if too few remain."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..index.memoryplan import MOST_HITS
from ..metrics.falsematch import Calibration
from ..storage.file import EmbeddingFile
from .answers import Hit

DEEPEST = MOST_HITS  # rows that are looked at for one query, on any device: as many as a GPU can rank
HITS_TOGETHER = 1 << 18  # rows of all queries that are ranked at once: some 100 MB
_DEEPER = 4


@dataclass(frozen=True, slots=True)
class FindOptions:
    """Which hits a query gets.

    Attributes:
        k: hits at most: photos, or folders.
        threshold: lowest score of a hit, -1 to 1; None for no threshold.
        exclude_self: leave out rows of the query's own file, by whatever name.
        by_folder: one hit a folder.
    Raises:
        ConfigError: k is below 1.
    """

    k: int = 10
    threshold: float | None = None
    exclude_self: bool = False
    by_folder: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"k is {self.k}; expected: 1 hit or more")

    @property
    def depth(self) -> int:
        """Rows to look at first; mostly they are enough."""
        rows = (4 * self.k + 12 if self.by_folder else self.k) + 4 * self.exclude_self
        return min(rows, self.deepest)

    @property
    def deepest(self) -> int:
        """Rows to look at, at most."""
        return max(DEEPEST, self.k)


@dataclass(frozen=True, slots=True)
class QueryHits:
    """The hits of one query.

    Attributes:
        hits: best first.
        cut: whether there may be more: no more than `DEEPEST` rows were looked at.
    """

    hits: tuple[Hit, ...] = ()
    cut: bool = False


class Index(Protocol):
    """What ranks the rows; see `index.flat.FlatIndex`."""

    rows: int

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(q, k) rows and scores, best first."""
        ...


@dataclass(slots=True)
class _Pick:
    """A row that becomes a hit, and the photos of its folder."""

    row: int
    score: float
    photographs: set[bytes] = field(default_factory=set)


def find_hits(
    index: Index,
    gallery: EmbeddingFile,
    vectors: NDArray[np.float32],
    own_paths: Sequence[str | None],
    options: FindOptions,
    calibration: Calibration | None = None,
) -> tuple[list[QueryHits], float]:
    """The hits of some queries.

    Args:
        index: of the gallery.
        gallery: an open embedding file.
        vectors: (q, D) float32, unit rows.
        own_paths: the file of each query; None if it is none.
        options: which hits.
        calibration: for the false hits to expect; None for no such figure.
    Returns:
        q entries, and the time that ranking took, milliseconds.
    Raises:
        ConfigError, StorageError, EngineError, OutOfMemoryError: see `FlatIndex.search`.
    """
    bound = min(index.rows, options.deepest)
    depth = min(bound, options.depth)
    picked: list[tuple[list[_Pick], bool]] = [([], False)] * len(vectors)
    pending, ranking_ms = np.arange(len(vectors)), 0.0
    while len(pending):
        deeper = []
        for numbers in np.array_split(pending, -(-len(pending) * depth // HITS_TOGETHER) or 1):
            start = time.perf_counter()
            rows, scores = index.search(vectors[numbers], max(1, depth))
            ranking_ms += 1000 * (time.perf_counter() - start)
            paths = _paths(gallery, rows) if options.exclude_self or options.by_folder else {}
            for query, query_rows, query_scores in zip(numbers.tolist(), rows, scores, strict=True):
                own_path = own_paths[query] if options.exclude_self else None
                own = None if own_path is None else _OwnFile(own_path)
                ranking = zip(query_rows.tolist(), query_scores.tolist(), strict=True)
                picks, enough = _pick(ranking, options, own, paths)
                picked[query] = picks, not enough and depth < index.rows
                if not enough and depth < bound:
                    deeper.append(query)
        pending, depth = np.array(deeper, np.int64), min(bound, _DEEPER * depth)
    return _hits(gallery, picked, options, calibration), ranking_ms


def _pick(
    ranking: Iterable[tuple[int, float]], options: FindOptions, own: _OwnFile | None, paths: Mapping[int, bytes]
) -> tuple[list[_Pick], bool]:
    """The hits among ranked rows, and whether rows further down would change nothing."""
    picks: list[_Pick] = []
    folders: dict[bytes, _Pick] = {}
    for row, score in ranking:
        if options.threshold is not None and score < options.threshold:
            return picks, True
        path = paths.get(row, b"")
        if own is not None and own.is_at(path):
            continue
        pick = folders.get(os.path.dirname(path)) if options.by_folder else None
        if pick is None:
            if len(picks) == options.k:
                return picks, True
            pick = _Pick(row, score)
            picks.append(pick)
            if options.by_folder:
                folders[os.path.dirname(path)] = pick
        pick.photographs.add(path)
    return picks, len(picks) == options.k and not options.by_folder


def _paths(gallery: EmbeddingFile, rows: NDArray[np.int64]) -> dict[int, bytes]:
    """The photos of all rows, read together: a piece of the file holds many names, and is opened once."""
    unique = np.unique(rows).tolist()
    return dict(zip(unique, gallery.photo_paths(unique), strict=True))


class _OwnFile:
    """The file of a query. Another path, a link or a hard link leads to the same file; a copy is another one."""

    def __init__(self, query: str) -> None:
        self._stat = _stat(os.fsencode(query))

    def is_at(self, path: bytes) -> bool:
        """Whether a path leads to it."""
        stat = _stat(path)
        return self._stat is not None and stat is not None and os.path.samestat(self._stat, stat)


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # gone since, or a name that no file can have
        return None


def _hits(
    gallery: EmbeddingFile,
    picked: Sequence[tuple[list[_Pick], bool]],
    options: FindOptions,
    calibration: Calibration | None,
) -> list[QueryHits]:
    """With names, read together: queries share hits, and rows share the pieces that a file is read in."""
    rows = sorted({pick.row for picks, _ in picked for pick in picks})
    names = dict(zip(rows, gallery.names(rows), strict=True))
    faces_by_row = dict(zip(rows, gallery.face_places(rows), strict=True))

    def hit(rank: int, pick: _Pick) -> Hit:
        name = names[pick.row]
        expected = None if calibration is None else calibration.expected(pick.score, gallery.rows)
        folder = (os.path.dirname(name) or ".") if options.by_folder else None
        photos = len(pick.photographs) if options.by_folder else 0
        return Hit(rank, pick.score, pick.row, name, faces_by_row[pick.row], expected, folder, photos)

    return [QueryHits(tuple(hit(rank, pick) for rank, pick in enumerate(picks, 1)), cut) for picks, cut in picked]
