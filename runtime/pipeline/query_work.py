"""Queries to vectors, made as the rows of a gallery were, by an engine and a detector that fit theirs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..engines.fresh import fresh_engine
from ..engines.open import open_runner
from ..engines.runner import Runner
from ..engines.sidecar import EngineInfo, read_sidecar, sidecar_path
from ..errors import ContractError, EngineError
from ..images.decode import Limits
from ..index.gallery import Gallery
from ..records import Batch, FacePlace, Outcome
from .comparable import comparable, differences
from .face_rules import FaceRules
from .face_work import DecodePhotos, FindFaces
from .request import Request, contract_of
from .work import Decode, Embed, Read, Slices

_BATCH_FILES = 64


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


def embed_queries(gallery: Gallery, queries: Sequence[str], engine: Path | None) -> EmbeddedQueries:
    """Embed photographs as the rows of a gallery were. Of several faces, the one that the photograph is of is taken.

    Args:
        gallery: an open embedding file.
        queries: paths of photographs.
        engine: None for the one that the gallery names.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError, MissingDependencyError: an engine is gone, or does not load.
    """
    engine = fresh_engine(find_engine(gallery, engine))
    detector = find_detector(gallery)
    check_engine(gallery, engine, detector)
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(engine, threads=len(os.sched_getaffinity(0))))
        finder = None if detector is None else stack.enter_context(open_runner(fresh_engine(detector)))
        return _embed(gallery, queries, runner, finder)


def find_detector(gallery: Gallery) -> Path | None:
    """The detector's engine that the gallery names; None where faces were not looked for.

    Raises:
        EngineError: it is not there.
    """
    if "detector" not in gallery.contract:
        return None
    found = Path(str(gallery.metadata.get("detector_engine", "")))
    if not found.is_file() or not sidecar_path(found).is_file():
        made = gallery.contract
        raise EngineError(
            f"the detector that made {gallery.path} is not there: {found}, with its sidecar {found.name}.json. "
            f"Build it again with: facemill build-engine --output {found.parent} --model {made['detector']} "
            f"--precision {made['detector_precision']}"
        )
    return found


def find_engine(gallery: Gallery, engine: Path | None) -> Path:
    """The engine given, or the one that the gallery names.

    Raises:
        EngineError: it is not there.
    """
    found = engine or Path(str(gallery.metadata.get("engine", "")))
    if not found.is_file() or not sidecar_path(found).is_file():
        whose = "given with --engine" if engine else f"that made {gallery.path}"
        raise EngineError(
            f"the engine {whose} is not there: {found}, with its sidecar {found.name}.json. Build it with: "
            f"python build_engine.py --model {gallery.metadata.get('model')} "
            f"--precision {gallery.metadata.get('precision')} and name it with --engine PATH"
        )
    return found


def check_engine(gallery: Gallery, engine: Path, detector: Path | None) -> None:
    """Refuse an engine whose embeddings cannot be compared with the rows of the gallery.

    Raises:
        ContractError: naming every difference with both values.
    """
    info = read_sidecar(engine)
    rules = FaceRules.of_query(gallery.contract)
    mine = comparable(contract_of(Request((), gallery.path, engine, faces=rules, detector=detector), info, ""))
    different = differences(gallery.contract, mine)
    if different:
        raise ContractError(
            f"the engine {engine} cannot answer for {gallery.path} ({'; '.join(different)}); wanted: the same values. "
            f"Build one with: python build_engine.py --model {gallery.metadata.get('model')} "
            f"--precision {gallery.metadata.get('precision')} and name it with --engine PATH"
        )


def _embed(gallery: Gallery, queries: Sequence[str], runner: Runner, detector: Runner | None) -> EmbeddedQueries:
    info = runner.info
    limits = query_limits(gallery)
    read = Read(os.getcwdb(), [os.fsencode(query) for query in queries], limits)
    decode = _crops_of(gallery, info, detector, limits)
    embed = Embed(runner, Slices(min(_BATCH_FILES, info.profile[2])))
    vectors = [np.empty((0, gallery.dimension), np.float32)]
    rows: list[int] = []
    outcomes: list[Outcome] = []
    counts: dict[int, int] = {}
    places: dict[int, FacePlace] = {}
    for start in range(0, len(queries), _BATCH_FILES):
        batch = embed(_first(decode(read(Batch(np.arange(start, min(start + _BATCH_FILES, len(queries))))))))
        assert batch.embeddings is not None
        vectors.append(batch.embeddings)
        rows += batch.rows.tolist()
        outcomes += batch.outcomes
        counts.update(batch.face_counts)
        if batch.faces is not None:
            for row, face in zip(batch.rows.tolist(), batch.faces, strict=True):
                places[row] = FacePlace(int(face["face_index"]), tuple(face["box"].tolist()))
    return EmbeddedQueries(np.concatenate(vectors), tuple(rows), tuple(outcomes), counts, places)


def _crops_of(gallery: Gallery, info: EngineInfo, detector: Runner | None, limits: Limits) -> Callable[[Batch], Batch]:
    """Files to crops, as they were made for the rows of the gallery."""
    if detector is None:
        return Decode(info.size, info.channel_order, limits)
    photos = DecodePhotos(info.channel_order, limits)
    faces = FindFaces(detector, FaceRules.of_query(gallery.contract), info.size, info.channel_order, limits)
    return lambda batch: faces(photos(batch))


def _first(batch: Batch) -> Batch:
    """Of each photograph the face that it is of: its first."""
    rows, first = np.unique(batch.rows, return_index=True)
    assert batch.images is not None
    faces = None if batch.faces is None else batch.faces[first]
    return replace(batch, rows=rows, images=batch.images[first], faces=faces)


def query_limits(gallery: Gallery) -> Limits:
    """Those that the photographs of the gallery were held to."""
    usual = Limits()
    contract = gallery.contract
    return Limits(contract.get("max_bytes", usual.max_bytes), contract.get("max_pixels", usual.max_pixels))
