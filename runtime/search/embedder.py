"""Photographs that are asked about to vectors, made as the rows of a gallery were, or by a model alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.backends import open_runner
from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine, read_engine
from ..errors import ContractError, EngineError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..pipeline.contract import contract_of, limits_of, query_face_rules_of
from ..pipeline.face_work import crop_stages
from ..pipeline.request import Request
from ..pipeline.settings import usable_cores
from ..pipeline.work import BatchLimit, Embed, Read
from ..records import Batch, Crops, Embedded, FacePlace, Outcome
from ..sources.source import FileSource, Source
from ..storage.contract import Guard
from ..storage.file import EmbeddingFile

_BATCH_FILES = 16  # of one thread: their decoded photographs and views are in memory


@dataclass(frozen=True, slots=True)
class EmbeddedQueries:
    """What became of some queries, known by their numbers.

    Attributes:
        vectors: (q, D) float32, unit rows.
        queries: q numbers: whose vectors they are.
        outcomes: of the other queries.
        face_counts: faces seen in a query's photograph; empty if faces are not looked for.
        places: which of them was taken.
    """

    vectors: NDArray[np.float32]
    queries: tuple[int, ...]
    outcomes: tuple[Outcome, ...]
    face_counts: Mapping[int, int]
    places: Mapping[int, FacePlace]

    def errors(self) -> dict[int, str]:
        """Why the others have no vector, in words, by number."""
        return {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in self.outcomes}


@dataclass(frozen=True, slots=True)
class QueryRules:
    """How photographs become vectors that may be compared.

    Attributes:
        engine: the engine that embeds.
        detector: the engine that finds faces; None where photographs are taken whole.
        faces: how faces are looked for.
        limits: files refused before decoding.
    """

    engine: Engine
    detector: Engine | None = None
    faces: FaceRules = field(default_factory=FaceRules)
    limits: Limits = field(default_factory=Limits)


def rules_of(gallery: EmbeddingFile, engine: Engine | None = None) -> QueryRules:
    """How the rows of a gallery were made, for queries. Of several faces, the one that the photograph is of is taken.

    Args:
        gallery: an open embedding file.
        engine: None for the one that the gallery names.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError: an engine is gone.
    """
    engine = rebuild_if_stale(find_engine(gallery, engine))
    detector = find_detector(gallery)
    check_engine(gallery, engine, detector)
    return QueryRules(engine, detector, query_face_rules_of(gallery.contract), limits_of(gallery.contract))


class QueryEmbedder:
    """Photographs to vectors, some at a time. Owned by `with`.

    Attributes:
        info: of the engine.
    """

    def __init__(self, rules: QueryRules, threads: int = 0) -> None:
        """Load the engines.

        Args:
            rules: which ones.
            threads: in one call of an engine; 0 for all cores: a few photographs are done sooner, many later.
        Raises:
            EngineError, MissingDependencyError: one does not load.
        """
        with ExitStack() as stack:
            threads = threads or usable_cores()
            self._workers = max(1, usable_cores() // threads)
            runner = stack.enter_context(open_runner(rules.engine, threads=threads))
            finder = None
            if rules.detector is not None:
                finder = stack.enter_context(open_runner(rebuild_if_stale(rules.detector), threads=threads))
            self.info = runner.info
            self._limits = rules.limits
            self._crops = crop_stages(runner.info, rules.limits, rules.faces, finder)
            self._vectors = Embed(runner, BatchLimit(min(_BATCH_FILES, runner.info.profile[2])))
            self._engines = stack.pop_all()

    def embed(self, queries: Sequence[str]) -> EmbeddedQueries:
        """What becomes of some photographs; one that cannot be embedded does not stop the others.

        Args:
            queries: their paths.
        """
        names = [os.fsencode(query) for query in queries]
        return self.embed_source(FileSource(os.getcwdb(), names, self._limits.max_bytes))

    def embed_source(self, source: Source) -> EmbeddedQueries:
        """Embed all photos of a source, in files or in memory. One that cannot be embedded does not stop the others.

        Args:
            source: of the photos; queries are known by its rows.
        """
        read, count = Read(source), len(source.names)

        def embed(start: int) -> Embedded:
            encoded = read(Batch(np.arange(start, min(start + _BATCH_FILES, count))))
            return self._vectors(_first(self._crops(encoded)))

        vectors = [np.empty((0, self.info.dimension), np.float32)]
        rows: list[int] = []
        outcomes: list[Outcome] = []
        counts: dict[int, int] = {}
        places: dict[int, FacePlace] = {}
        for batch in self._each(embed, range(0, count, _BATCH_FILES)):
            vectors.append(batch.embeddings)
            rows += batch.rows.tolist()
            outcomes += batch.outcomes
            counts.update(batch.face_counts)
            if batch.faces is not None:
                for row, face in zip(batch.rows.tolist(), batch.faces, strict=True):
                    places[row] = FacePlace(int(face["face_index"]), tuple(face["box"].tolist()))
        return EmbeddedQueries(np.concatenate(vectors), tuple(rows), tuple(outcomes), counts, places)

    def _each(self, embed: Callable[[int], Embedded], starts: Sequence[int]) -> Iterator[Embedded]:
        """Batches in order; several at once where an engine's call leaves cores free."""
        if len(starts) < 2 or self._workers < 2:
            yield from map(embed, starts)
            return
        with ThreadPoolExecutor(self._workers) as pool:
            yield from pool.map(embed, starts)

    def __enter__(self) -> QueryEmbedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self._engines.close()


def find_detector(gallery: EmbeddingFile) -> Engine | None:
    """The detector's engine that the gallery names; None where faces were not looked for.

    Raises:
        EngineError: it is not there.
    """
    if not gallery.contract.detects_faces:
        return None
    path = Path(str(gallery.metadata.get("detector_engine", "")))
    try:
        return read_engine(path)
    except EngineError as err:
        made = gallery.contract
        raise EngineError(
            f"the detector that made {gallery.path} cannot be read: {err.message}. Build it again with: "
            f"facemill build-engine --output {path.parent} --model {made.detector} "
            f"--precision {made.detector_precision}"
        ) from err


def find_engine(gallery: EmbeddingFile, engine: Engine | None) -> Engine:
    """The engine given, or the one that the gallery names.

    Raises:
        EngineError: it is not there.
    """
    if engine is not None:
        return engine
    try:
        return read_engine(Path(str(gallery.metadata.get("engine", ""))))
    except EngineError as err:
        raise EngineError(
            f"the engine that made {gallery.path} cannot be read: {err.message}. {_build_command(gallery)}"
        ) from err


def _build_command(gallery: EmbeddingFile) -> str:
    """The sentence that tells how to get an engine for an embedding file."""
    made = gallery.metadata
    return (
        f"Build one for this file with: facemill build-engine --model {made.get('model')} "
        f"--precision {made.get('precision')} and name it with --engine PATH"
    )


def check_engine(gallery: EmbeddingFile, engine: Engine, detector: Engine | None) -> None:
    """Refuse an engine whose embeddings cannot be compared with the rows of the gallery.

    Raises:
        ContractError: naming every difference with both values.
    """
    rules = query_face_rules_of(gallery.contract)
    query = contract_of(Request((), gallery.path, engine, faces=rules, detector=detector), engine.info, "")
    different = gallery.contract.differences(query, Guard.VECTORS)
    if different:
        raise ContractError(
            f"the engine {engine} cannot answer for {gallery.path} ({'; '.join(different)}); wanted: the same values. "
            f"{_build_command(gallery)}"
        )


def _first(batch: Crops) -> Crops:
    """Of each photograph the face that it is of: its first."""
    rows, first = np.unique(batch.rows, return_index=True)
    faces = None if batch.faces is None else batch.faces[first]
    return replace(batch, rows=rows, images=batch.images[first], faces=faces)
