"""The other job: who is this? Photographs to the rows of an embedding file that are nearest to them."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.fresh import fresh_engine
from ..engines.open import open_runner
from ..engines.runner import Runner
from ..engines.sidecar import EngineInfo, read_sidecar
from ..engines.sidecar import sidecar_path as engine_sidecar
from ..errors import ContractError, EngineError
from ..images.decode import Limits
from ..index.flat import open_index
from ..index.gallery import Gallery
from ..metrics.falsematch import Calibration, Expectation
from ..records import Batch, Outcome, SearchHit
from .comparable import comparable, differences, find_calibration
from .request import UNTRAINED_WARNING, Request, contract_of
from .work import Decode, Embed, Read, Slices

_BATCH_FILES = 64


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found for one query.

    Attributes:
        query: the photograph, as it was named.
        hits: best first.
        error: why the query could not be embedded; empty when it could.
    """

    query: str
    hits: tuple[SearchHit, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Answers:
    """What was found for all queries of one search.

    Attributes:
        answers: in the order of the queries.
        rows: embeddings searched.
        search_ms: time of the index search, all queries together; embedding them is not in it.
        warning: what a user must know of the weights; empty for trained ones.
        calibration: what the file says of its false matches; None when it says nothing.
    """

    answers: tuple[Answer, ...]
    rows: int
    search_ms: float
    warning: str = ""
    calibration: Calibration | None = None

    @property
    def query_ms(self) -> float:
        """Time of the index search for one query: its share of the batch."""
        asked = sum(not answer.error for answer in self.answers)
        return self.search_ms / max(1, asked)

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
) -> Answers:
    """Embed photographs as the rows of the gallery were, and find the nearest rows.

    Args:
        gallery: an open embedding file.
        queries: paths of photographs; one that cannot be embedded gets an error, the others go on.
        k: hits for each at most.
        threshold: hits with a lower score are left out.
        engine: None for the one that the gallery names.
        device: where the rows are searched: "auto", "cpu", "gpu" or the number of a GPU. The answer is the same.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError, MissingDependencyError, StorageError, ConfigError: as their messages say.
    """
    engine = fresh_engine(find_engine(gallery, engine))
    check_engine(gallery, engine, read_sidecar(engine))
    warning = "" if gallery.metadata.get("trained", True) else UNTRAINED_WARNING
    with open_index(gallery, device, k=k, queries=len(queries)) as index:
        with open_runner(engine, threads=len(os.sched_getaffinity(0))) as runner:
            vectors, embedded, outcomes = _embed(gallery, queries, runner)
        start = time.perf_counter()
        rows, scores = index.search(vectors, k)
        search_ms = 1000 * (time.perf_counter() - start)
    hits = {
        query: _hits(gallery, mine, their, threshold) for query, mine, their in zip(embedded, rows, scores, strict=True)
    }
    errors = {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in outcomes}
    answers = tuple(Answer(query, hits.get(i, ()), errors.get(i, "")) for i, query in enumerate(queries))
    return Answers(answers, gallery.rows, search_ms, warning, find_calibration(gallery))


def find_engine(gallery: Gallery, engine: Path | None) -> Path:
    """The engine given, or the one that the gallery names.

    Raises:
        EngineError: it is not there.
    """
    found = engine or Path(str(gallery.metadata.get("engine", "")))
    if not found.is_file() or not engine_sidecar(found).is_file():
        whose = "given with --engine" if engine else f"that made {gallery.path}"
        raise EngineError(
            f"the engine {whose} is not there: {found}, with its sidecar {engine_sidecar(found).name}. Build it with: "
            f"python build_engine.py --model {gallery.metadata.get('model')} "
            f"--precision {gallery.metadata.get('precision')} and name it with --engine PATH"
        )
    return found


def check_engine(gallery: Gallery, engine: Path, info: EngineInfo) -> None:
    """Refuse an engine whose embeddings cannot be compared with the rows of the gallery.

    Raises:
        ContractError: naming every difference with both values.
    """
    mine = comparable(contract_of(Request((), gallery.path, engine), info, ""))
    different = differences(gallery.contract, mine)
    if different:
        raise ContractError(
            f"the engine {engine} cannot answer for {gallery.path} ({'; '.join(different)}); wanted: the same values. "
            f"Build one with: python build_engine.py --model {gallery.metadata.get('model')} "
            f"--precision {gallery.metadata.get('precision')} and name it with --engine PATH"
        )


def _embed(
    gallery: Gallery, queries: Sequence[str], runner: Runner
) -> tuple[NDArray[np.float32], list[int], list[Outcome]]:
    """(q, D) vectors, the numbers of the queries that they belong to, and what became of the other queries."""
    info = runner.info
    limits = query_limits(gallery)
    read = Read(os.getcwdb(), [os.fsencode(query) for query in queries], limits)
    decode = Decode(info.size, info.channel_order, limits)
    embed = Embed(runner, Slices(min(_BATCH_FILES, info.profile[2])))
    vectors = [np.empty((0, gallery.dimension), np.float32)]
    rows: list[int] = []
    outcomes: list[Outcome] = []
    for start in range(0, len(queries), _BATCH_FILES):
        batch = embed(decode(read(Batch(np.arange(start, min(start + _BATCH_FILES, len(queries)))))))
        assert batch.embeddings is not None
        vectors.append(batch.embeddings)
        rows += batch.rows.tolist()
        outcomes += batch.outcomes
    return np.concatenate(vectors), rows, outcomes


def query_limits(gallery: Gallery) -> Limits:
    """Those that the photographs of the gallery were held to."""
    usual = Limits()
    contract = gallery.contract
    return Limits(contract.get("max_bytes", usual.max_bytes), contract.get("max_pixels", usual.max_pixels))


def _hits(
    gallery: Gallery, rows: NDArray[np.int64], scores: NDArray[np.float32], threshold: float | None
) -> tuple[SearchHit, ...]:
    kept = len(rows) if threshold is None else int((scores >= threshold).sum())  # scores descend
    best = rows[:kept].tolist()
    found = zip(best, scores[:kept].tolist(), gallery.names(best), strict=True)
    return tuple(SearchHit(rank, score, row, path) for rank, (row, score, path) in enumerate(found, 1))
