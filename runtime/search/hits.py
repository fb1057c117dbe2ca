"""From ranked rows to the hits of a query: own photograph left out, one hit a folder, deeper where too few remain."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..index.memoryplan import MOST_HITS
from ..records import SearchHit
from ..storage.file import EmbeddingFile

DEEPEST = MOST_HITS  # rows looked at for one query, on any device: what a GPU can rank
HITS_TOGETHER = 1 << 18  # of all queries that are ranked at once: some 100 MB
_DEEPER = 4


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which hits are wanted for each query.

    Attributes:
        k: how many at most: photographs, or folders.
        threshold: hits with a lower score are left out.
        exclude_self: leave out rows of the very file that is asked about, by whatever name.
        by_folder: one hit a folder.
    """

    k: int = 10
    threshold: float | None = None
    exclude_self: bool = False
    by_folder: bool = False

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"{self.k} hits were asked for; wanted: 1 or more")

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
class Found:
    """The hits of one query.

    Attributes:
        hits: best first.
        cut: there may be more: no more than `DEEPEST` rows were looked at.
    """

    hits: tuple[SearchHit, ...]
    cut: bool = False


class Index(Protocol):
    """What ranks the rows; see `index.flat.FlatIndex`."""

    rows: int

    def search(self, queries: NDArray[np.float32], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(q, k) rows and scores, best first."""
        ...


@dataclass(slots=True)
class _Pick:
    """A row that becomes a hit, and the photographs of its folder."""

    row: int
    score: float
    photographs: set[bytes] = field(default_factory=set)


def find_hits(
    index: Index, gallery: EmbeddingFile, vectors: NDArray[np.float32], queries: Sequence[str], wanted: Wanted
) -> tuple[list[Found], float]:
    """The hits of some queries.

    Args:
        index: of the gallery.
        gallery: an open embedding file.
        vectors: (q, D) float32, unit rows.
        queries: q paths: what the vectors were made from.
        wanted: which hits.
    Returns:
        q answers, and the time that ranking took, milliseconds.
    Raises:
        As `FlatIndex.search`.
    """
    bound = min(index.rows, wanted.deepest)
    depth = min(bound, wanted.depth)
    picked: list[tuple[list[_Pick], bool]] = [([], False)] * len(queries)
    pending, ranking_ms = np.arange(len(queries)), 0.0
    while len(pending):
        deeper = []
        for some in np.array_split(pending, -(-len(pending) * depth // HITS_TOGETHER) or 1):
            start = time.perf_counter()
            rows, scores = index.search(vectors[some], max(1, depth))
            ranking_ms += 1000 * (time.perf_counter() - start)
            paths = _paths(gallery, rows) if wanted.exclude_self or wanted.by_folder else {}
            for query, mine, their in zip(some.tolist(), rows, scores, strict=True):
                own = _Own(queries[query]) if wanted.exclude_self else None
                ranking = zip(mine.tolist(), their.tolist(), strict=True)
                picks, enough = _pick(ranking, wanted, own, paths)
                picked[query] = picks, not enough and depth < index.rows
                if not enough and depth < bound:
                    deeper.append(query)
        pending, depth = np.array(deeper, np.int64), min(bound, _DEEPER * depth)
    return _hits(gallery, picked, wanted), ranking_ms


def _pick(
    ranking: Iterable[tuple[int, float]], wanted: Wanted, own: _Own | None, paths: Mapping[int, bytes]
) -> tuple[list[_Pick], bool]:
    """The hits among ranked rows, and whether rows further down would change nothing."""
    picks: list[_Pick] = []
    folders: dict[bytes, _Pick] = {}
    for row, score in ranking:
        if wanted.threshold is not None and score < wanted.threshold:
            return picks, True
        path = paths.get(row, b"")
        if own is not None and own.is_at(path):
            continue
        pick = folders.get(os.path.dirname(path)) if wanted.by_folder else None
        if pick is None:
            if len(picks) == wanted.k:
                return picks, True
            pick = _Pick(row, score)
            picks.append(pick)
            if wanted.by_folder:
                folders[os.path.dirname(path)] = pick
        pick.photographs.add(path)
    return picks, len(picks) == wanted.k and not wanted.by_folder


def _paths(gallery: EmbeddingFile, rows: NDArray[np.int64]) -> dict[int, bytes]:
    """The photographs of all rows, read together: a piece of the file holds many names, and is opened once."""
    some = np.unique(rows).tolist()
    return dict(zip(some, gallery.photo_paths(some), strict=True))


class _Own:
    """The file that is asked about. It is the same file by another path, a link or a hard link too; a copy is not."""

    def __init__(self, query: str) -> None:
        self._stat = _stat(os.fsencode(query))

    def is_at(self, path: bytes) -> bool:
        """Whether a path leads to it."""
        there = _stat(path)
        return self._stat is not None and there is not None and os.path.samestat(self._stat, there)


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):  # gone since, or a name that no file can have
        return None


def _hits(gallery: EmbeddingFile, picked: Sequence[tuple[list[_Pick], bool]], wanted: Wanted) -> list[Found]:
    """With their names, read together: queries share hits, and rows share the pieces that a file is read in."""
    rows = sorted({pick.row for picks, _ in picked for pick in picks})
    names = dict(zip(rows, gallery.names(rows), strict=True))
    places = dict(zip(rows, gallery.face_places(rows), strict=True))
    found = []
    for picks, cut in picked:
        hits = [SearchHit(i, p.score, p.row, names[p.row], places[p.row]) for i, p in enumerate(picks, 1)]
        if wanted.by_folder:
            hits = [
                replace(hit, folder=os.path.dirname(hit.path) or ".", photographs=len(pick.photographs))
                for hit, pick in zip(hits, picks, strict=True)
            ]
        found.append(Found(tuple(hits), cut))
    return found
