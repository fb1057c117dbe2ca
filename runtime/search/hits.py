"""Turn ranked rows into hits: leave out the query's own photo, group by folder, rank more rows if too few remain."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..counts import check_count
from ..index.check import first_wrong_score
from ..index.memoryplan import MAX_GPU_HITS
from ..metrics.falsematch import Calibration
from ..metrics.verification import check_threshold
from ..storage.file import EmbeddingFile
from .answers import Hit

MAX_RANKED_ROWS = MAX_GPU_HITS  # for one query, on any device: as many as a GPU can rank
MAX_ROWS_AT_ONCE = 1 << 18  # rows ranked at once for all queries: some 100 MB
_DEPTH_GROWTH = 4


@dataclass(frozen=True, slots=True)
class FindOptions:
    """Options that select the hits of a query.

    Attributes:
        k: maximum number of hits: photos, or folders.
        threshold: lowest score of a hit, -1 to 1; None for no threshold.
        exclude_self: leave out rows of the query's own file, under any name.
        by_folder: return one hit for each folder.
    Raises:
        ConfigError: k is below 1, or the threshold is no cosine.
    """

    k: int = 10
    threshold: float | None = None
    exclude_self: bool = False
    by_folder: bool = False

    def __post_init__(self) -> None:
        check_count("k", self.k)
        check_threshold(self.threshold)

    @property
    def depth(self) -> int:
        """Rows to rank first; mostly they are enough."""
        rows = (4 * self.k + 12 if self.by_folder else self.k) + 4 * self.exclude_self
        return min(rows, self.deepest)

    @property
    def deepest(self) -> int:
        """Maximum number of rows to rank."""
        return max(MAX_RANKED_ROWS, self.k)


@dataclass(frozen=True, slots=True)
class QueryHits:
    """The hits of one query.

    Attributes:
        hits: best first.
        cut: whether more hits may exist, because only `MAX_RANKED_ROWS` rows were ranked.
    """

    hits: tuple[Hit, ...] = ()
    cut: bool = False


class Index(Protocol):
    """Ranks the rows, as `index.flat.FlatIndex` does."""

    rows: int

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return (q, k) rows and scores, best first."""
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
    """Find the hits of queries.

    Args:
        index: the index of the gallery.
        gallery: an open embedding file.
        vectors: (q, D) float32, unit rows.
        own_paths: the file of each query; None for bytes, arrays and vectors.
        options: options that select hits.
        calibration: estimates the false hits of each score; None for no estimate.
    Returns:
        q entries, and the time of the ranking in milliseconds.
    Raises:
        ConfigError: k is above the limit of a GPU.
        StorageError: FAISS failed, or the gallery is damaged.
        EngineError, OutOfMemoryError: FAISS failed on the GPU.
    """
    bound = min(index.rows, options.deepest)
    depth = min(bound, options.depth)
    picked: list[tuple[list[_Pick], bool]] = [([], False)] * len(vectors)
    pending, ranking_ms = np.arange(len(vectors)), 0.0
    while len(pending):
        deeper = []
        for numbers in np.array_split(pending, -(-len(pending) * depth // MAX_ROWS_AT_ONCE) or 1):
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
        pending, depth = np.array(deeper, np.int64), min(bound, _DEPTH_GROWTH * depth)
    return _hits(gallery, index.rows, picked, options, calibration), ranking_ms


def wrong_hit(gallery: EmbeddingFile, vectors: NDArray[np.float32], found: Sequence[QueryHits]) -> str:
    """Score hits again from the rows of the file, which have checksums; an index has none.

    Args:
        gallery: an open embedding file.
        vectors: (q, D) float32.
        found: the hits of the q queries.
    Returns:
        A sentence about the first hit with another score; empty if all are right.
    Raises:
        StorageError: the file is damaged.
    """
    hits = [(query, hit.row, hit.score) for query, each in enumerate(found) for hit in each.hits]
    numbers, rows = (np.array([hit[i] for hit in hits], np.int64) for i in (0, 1))
    return first_wrong_score(gallery, vectors, numbers, rows, np.array([hit[2] for hit in hits], np.float32))


def _pick(
    ranking: Iterable[tuple[int, float]], options: FindOptions, own: _OwnFile | None, paths: Mapping[int, bytes]
) -> tuple[list[_Pick], bool]:
    """Select the hits among ranked rows, and tell whether they are final: lower rows would change nothing."""
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
    """The photo paths of all rows, read together, because a chunk of the file holds many names."""
    unique = np.unique(rows).tolist()
    return dict(zip(unique, gallery.photo_paths(unique), strict=True))


class _OwnFile:
    """The file of a query. A different path, a link or a hard link names the same file; a copy is a different file."""

    def __init__(self, query: str) -> None:
        self._stat = _stat(os.fsencode(query))

    def is_at(self, path: bytes) -> bool:
        """Whether a path names this file."""
        stat = _stat(path)
        return self._stat is not None and stat is not None and os.path.samestat(self._stat, stat)


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # deleted since, or an impossible file name
        return None


def _hits(
    gallery: EmbeddingFile,
    searched: int,
    picked: Sequence[tuple[list[_Pick], bool]],
    options: FindOptions,
    calibration: Calibration | None,
) -> list[QueryHits]:
    """Make hits from picks. All names are read together: queries share hits, and rows share chunks of the file."""
    rows = sorted({pick.row for picks, _ in picked for pick in picks})
    names = dict(zip(rows, gallery.names(rows), strict=True))
    faces_by_row = dict(zip(rows, gallery.face_places(rows), strict=True))

    def hit(rank: int, pick: _Pick) -> Hit:
        name = names[pick.row]
        expected = None if calibration is None else calibration.expected(pick.score, searched)
        folder = (os.path.dirname(name) or ".") if options.by_folder else None
        photos = len(pick.photographs) if options.by_folder else 0
        return Hit(rank, pick.score, pick.row, name, faces_by_row[pick.row], expected, folder, photos)

    return [QueryHits(tuple(hit(rank, pick) for rank, pick in enumerate(picks, 1)), cut) for picks, cut in picked]
