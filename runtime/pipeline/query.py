"""The other job: who is this? Photographs to the rows of an embedding file that are nearest to them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..index.facts import IndexFacts
from ..index.gallery import Gallery
from ..index.open import open_index
from ..metrics.falsematch import Calibration, Expectation
from ..records import FacePlace, SearchHit
from .comparable import find_calibration
from .query_work import embed_queries
from .request import UNTRAINED_WARNING


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one query.

    Attributes:
        query: the photograph, as it was named.
        hits: best first.
        error: why the query could not be embedded; empty when it could.
        faces: seen in the photograph; None where none were looked for.
        face: the one of them that was taken; None where none was.
    """

    query: str
    hits: tuple[SearchHit, ...] = ()
    error: str = ""
    faces: int | None = None
    face: FacePlace | None = None

    @property
    def choice(self) -> str:
        """That one of several faces was taken, in words; empty where there was nothing to choose."""
        several = self.face is not None and (self.faces or 0) > 1
        return f"1 of {self.faces} faces taken (the main one: large, near the middle)" if several else ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found for all queries of one search.

    Attributes:
        answers: in the order of the queries.
        rows: embeddings searched.
        model, model_sha256: who made them, and its checksum, as the file names them.
        has_faces: whether hits tell which face of a photograph they are.
        search_ms: time of the index search, all queries together; embedding them is not in it.
        index: which index answered; of an approximate one, what it finds.
        warning: what a user must know of the weights; empty for trained ones.
        calibration: what the file says of its false matches; None when it says nothing.
    """

    answers: tuple[Answer, ...]
    rows: int
    model: str
    model_sha256: str
    has_faces: bool
    search_ms: float
    index: IndexFacts
    warning: str = ""
    calibration: Calibration | None = None

    @property
    def query_ms(self) -> float:
        """Time of the index search for one query: its share of the batch."""
        asked = sum(not answer.error for answer in self.answers)
        return self.search_ms / max(1, asked)

    def made_by(self) -> str:
        """The model, for a person: enough of its checksum to tell two apart."""
        return f"{self.model} (sha256 {self.model_sha256[:12]})"

    def expected(self, score: float) -> Expectation | None:
        """False hits to expect at a score or above; None where the file carries no calibration."""
        return None if self.calibration is None else self.calibration.expected(score, self.rows)


def search(
    gallery: Gallery,
    queries: Sequence[str],
    *,
    k: int = 10,
    threshold: float | None = None,
    engine: Path | None = None,
    device: str = "auto",
    index: str = "auto",
    latency_ms: float = 100.0,
) -> Answers:
    """Embed photographs as the rows of the gallery were, and find the nearest rows.

    Args:
        gallery: an open embedding file.
        queries: paths of photographs; one that cannot be embedded gets an error, the others go on.
        k: hits for each at most.
        threshold: hits with a lower score are left out.
        engine: None for the one that the gallery names.
        device: where the rows are searched: "auto", "cpu", "gpu" or the number of a GPU. The answer is the same.
        index: "auto", "flat" (exact), "sq8", "ivf" or "hnsw"; see `index.open.open_index`.
        latency_ms: what "auto" wants of one query.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError, MissingDependencyError, StorageError, ConfigError: as their messages say.
    """
    embedded = embed_queries(gallery, queries, engine)
    warning = "" if gallery.metadata.get("trained", True) else UNTRAINED_WARNING
    asked = len(embedded.queries)
    with open_index(gallery, device, k=k, queries=asked, index=index, latency_ms=latency_ms) as opened:
        start = time.perf_counter()
        rows, scores = opened.search(embedded.vectors, k)
        search_ms = 1000 * (time.perf_counter() - start)
    found = zip(embedded.queries, rows, scores, strict=True)
    hits = {query: _hits(gallery, mine, their, threshold) for query, mine, their in found}
    errors = {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in embedded.outcomes}
    answers = tuple(
        Answer(query, hits.get(i, ()), errors.get(i, ""), embedded.face_counts.get(i), embedded.places.get(i))
        for i, query in enumerate(queries)
    )
    return Answers(
        answers=answers,
        rows=gallery.rows,
        model=str(gallery.metadata.get("model", "unknown")),
        model_sha256=str(gallery.metadata.get("model_sha256", "unknown")),
        has_faces=gallery.has_faces,
        search_ms=search_ms,
        index=opened.facts,
        warning=warning,
        calibration=find_calibration(gallery),
    )


def _hits(
    gallery: Gallery, rows: NDArray[np.int64], scores: NDArray[np.float32], threshold: float | None
) -> tuple[SearchHit, ...]:
    kept = len(rows) if threshold is None else int((scores >= threshold).sum())  # scores descend
    best = rows[:kept].tolist()
    found = zip(scores[:kept].tolist(), best, gallery.names(best), gallery.places(best), strict=True)
    return tuple(SearchHit(rank, *hit) for rank, hit in enumerate(found, 1))
