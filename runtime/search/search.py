"""The other job: who is this? Photographs to the rows of an embedding file that are nearest to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from ..engines.engine import Engine
from ..index.measure import IndexFacts
from ..index.open import open_index
from ..metrics.falsematch import Calibration, Expectation
from ..records import FacePlace, SearchHit
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .embedder import EmbeddedQueries, QueryEmbedder, rules_of
from .hits import HITS_TOGETHER, Found, Wanted, find_hits
from .model_label import named, warning_of

logger = logging.getLogger(__name__)

_MANY = 128  # queries from which cores take photographs each, and do not share them
_TOGETHER = 2048  # queries at once: enough that reading the rows for them costs nothing


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one query.

    Attributes:
        query: the photograph, as it was named.
        hits: best first.
        error: why the query could not be embedded; empty when it could.
        faces: seen in the photograph; None where none were looked for.
        face: the one of them that was taken; None where none was.
        cut: fewer hits than were wanted, and there may be more: see `hits.DEEPEST`.
    """

    query: str
    hits: tuple[SearchHit, ...] = ()
    error: str = ""
    faces: int | None = None
    face: FacePlace | None = None
    cut: bool = False

    @property
    def choice(self) -> str:
        """That one of several faces was taken, in words; empty where there was nothing to choose."""
        several = self.face is not None and (self.faces or 0) > 1
        return f"1 of {self.faces} faces taken (the main one: large, near the middle)" if several else ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found for queries that were searched together.

    Attributes:
        answers: in the order of the queries.
        rows: embeddings searched.
        model, model_sha256: who made them, and its checksum, as the file names them.
        has_faces: whether hits tell which face of a photograph they are.
        search_ms: time of the index search, all queries together; embedding them is not in it.
        index: which index answered; of an approximate one, what it finds.
        warning: what a user must know of the weights; empty for trained ones.
        calibration: what the file says of its false matches; None when it says nothing.
        by_folder: hits are folders.
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
    by_folder: bool = False

    @property
    def query_ms(self) -> float:
        """Time of the index search for one query: its share of the batch."""
        asked = sum(not answer.error for answer in self.answers)
        return self.search_ms / max(1, asked)

    def made_by(self) -> str:
        """The model, for a person."""
        return named(self.model, self.model_sha256)

    def expected(self, score: float) -> Expectation | None:
        """False hits to expect at a score or above; None where the file carries no calibration."""
        return None if self.calibration is None else self.calibration.expected(score, self.rows)


def search(
    gallery: EmbeddingFile,
    queries: Sequence[str],
    *,
    k: int = 10,
    threshold: float | None = None,
    engine: Engine | None = None,
    device: str = "auto",
    exclude_self: bool = False,
    by_folder: bool = False,
    index: str = "auto",
    latency_ms: float = 100.0,
) -> Answers:
    """Embed photographs as the rows of the gallery were, and find the nearest rows.

    Args:
        gallery: an open embedding file.
        queries: paths of photographs; one that cannot be embedded gets an error, the others go on.
        k, threshold, exclude_self, by_folder: see `hits.Wanted`.
        engine: None for the one that the gallery names.
        device: where the rows are searched: "auto", "cpu", "gpu" or the number of a GPU. The answer is the same.
        index: "auto", "flat" (exact), "sq8" or "ivf"; see `index.open.open_index`.
        latency_ms: what "auto" wants of one query.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError, MissingDependencyError, StorageError, ConfigError: as their messages say.
    """
    wanted = Wanted(k, threshold, exclude_self, by_folder)
    with Search(
        gallery,
        wanted,
        queries=len(queries),
        engine=engine,
        device=device,
        index=index,
        latency_ms=latency_ms,
    ) as opened:
        return opened.answer(queries)


class Search:
    """Engines and index, ready for one batch of queries after the other. Owned by `with`."""

    def __init__(
        self,
        gallery: EmbeddingFile,
        wanted: Wanted,
        *,
        queries: int,
        engine: Engine | None = None,
        device: str = "auto",
        index: str = "auto",
        latency_ms: float = 100.0,
    ) -> None:
        """Load them.

        Args:
            gallery: an open embedding file.
            wanted: which hits.
            queries: there will be in all.
            engine, device, index, latency_ms: as for `search`.
        Raises:
            As `search`.
        """
        self._gallery, self._wanted = gallery, wanted
        self._calibration = find_calibration(gallery)
        self._warning = warning_of(gallery)
        self._together = max(1, min(_TOGETHER, HITS_TOGETHER // wanted.depth))
        with ExitStack() as stack:
            threads = 0 if queries < _MANY else 1
            self._embedder = stack.enter_context(QueryEmbedder(rules_of(gallery, engine), threads))
            together = min(queries, self._together)
            self._index = open_index(
                gallery, device, k=wanted.depth, queries=together, index=index, latency_ms=latency_ms
            )
            stack.enter_context(self._index)
            self._owned = stack.pop_all()

    def batches(self, queries: Sequence[str]) -> Iterator[Answers]:
        """Answers to any number of queries, in their order, some thousand at a time: memory does not grow with them."""
        for start in range(0, len(queries), self._together):
            yield self.answer(queries[start : start + self._together])
            if len(queries) > self._together:
                logger.info("%d of %d queries", min(start + self._together, len(queries)), len(queries))

    def answer(self, queries: Sequence[str]) -> Answers:
        """Answers to some queries, searched together."""
        embedded = self._embedder.embed(queries)
        asked = [queries[number] for number in embedded.queries]
        found, search_ms = find_hits(self._index, self._gallery, embedded.vectors, asked, self._wanted)
        metadata = self._gallery.metadata
        return Answers(
            answers=_answers(queries, embedded, dict(zip(embedded.queries, found, strict=True))),
            rows=self._gallery.rows,
            model=str(metadata.get("model", "unknown")),
            model_sha256=str(metadata.get("model_sha256", "unknown")),
            has_faces=self._gallery.has_faces,
            search_ms=search_ms,
            index=self._index.facts,
            warning=self._warning,
            calibration=self._calibration,
            by_folder=self._wanted.by_folder,
        )

    def __enter__(self) -> Search:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._owned.close()


def _answers(queries: Sequence[str], embedded: EmbeddedQueries, found: Mapping[int, Found]) -> tuple[Answer, ...]:
    """What became of each query of a batch."""
    errors, counts, places = embedded.errors(), embedded.face_counts, embedded.places
    none = Found(())
    return tuple(
        Answer(query, found.get(i, none).hits, errors.get(i, ""), counts.get(i), places.get(i), found.get(i, none).cut)
        for i, query in enumerate(queries)
    )
