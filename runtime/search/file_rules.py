"""The engines and rules that made an embedding file, for embedding query photos in the same way."""

from __future__ import annotations

from pathlib import Path

from ..attributes.head import find_head
from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine, read_engine
from ..errors import ContractError, EngineError
from ..pipeline.contract import contract_of, limits_of, query_face_rules_of
from ..pipeline.request import FROM_EMBEDDINGS, AttributeReader, Request
from ..storage.contract import Guard
from ..storage.file import EmbeddingFile
from .embedder import QueryRules


def rules_of(gallery: EmbeddingFile, engine: Engine | None = None) -> QueryRules:
    """The rules that made the rows of a file, for queries: if a photo has several faces, the main one is used.

    Args:
        gallery: an open embedding file.
        engine: None for the engine that the file names.
    Raises:
        ContractError: the engine's embeddings cannot be compared with the rows.
        EngineError: an engine is missing.
    """
    engine = rebuild_if_stale(find_engine(gallery, engine))
    detector, landmarks = find_detector(gallery), find_landmarks(gallery)
    check_engine(gallery, engine, detector, landmarks)
    rules = query_face_rules_of(gallery.contract), limits_of(gallery.contract)
    return QueryRules(engine, detector, *rules, landmarks)


def find_detector(gallery: EmbeddingFile) -> Engine | None:
    """Read the detector engine that the file names; None if its photos are aligned crops.

    Raises:
        EngineError: the engine is missing.
    """
    if not gallery.contract.detects_faces:
        return None
    return _finder(gallery, "detector", "the detector")


def find_landmarks(gallery: EmbeddingFile) -> Engine | None:
    """Read the engine of the landmark network that the file names; None if no face was looked at once more.

    Raises:
        EngineError: the engine is missing.
    """
    if gallery.contract.landmarks_sha256 is None:
        return None
    return _finder(gallery, "landmarks", "the landmark network")


def _finder(gallery: EmbeddingFile, name: str, title: str) -> Engine:
    """Read the engine that found the faces or the landmarks of a file; `name` is its key in the contract."""
    contract = gallery.contract
    path = Path(str(gallery.metadata.get(f"{name}_engine", "")))
    try:
        return read_engine(path)
    except EngineError as err:
        raise EngineError(
            f"{title} that made {gallery.path} cannot be read: {err.message}. Build it again with: "
            f"facemill build-engine --output {path.parent} --model {getattr(contract, name)} "
            f"--precision {getattr(contract, f'{name}_precision')}"
        ) from err


def find_attributes(gallery: EmbeddingFile) -> AttributeReader | None:
    """What read the ages and genders of a file; None if it has neither.

    Raises:
        EngineError, ModelError: the engine or the head is missing.
    """
    contract = gallery.contract
    names = contract.attributes_read
    if not names:
        return None
    if contract.attribute_source == FROM_EMBEDDINGS:
        head = find_head(contract.model, contract.model_sha256)
        if head.sha256 != contract.attribute_sha256:
            raise EngineError(
                f"{gallery.path} has ages and genders by another head than {head.name} of this version. Read them "
                f"again with: facemill attributes {gallery.path} --from embeddings"
            )
        return AttributeReader(names, head=head)
    path = Path(str(gallery.metadata.get("attribute_engine", "")))
    try:
        return AttributeReader(names, read_engine(path))
    except EngineError as err:
        raise EngineError(
            f"the engine that read the ages and genders of {gallery.path} cannot be read: {err.message}. Build it "
            f"again with: facemill build-engine --output {path.parent} --model {contract.attribute_model}"
        ) from err


def find_engine(gallery: EmbeddingFile, engine: Engine | None) -> Engine:
    """Return the given engine, or read the engine that the file names.

    Raises:
        EngineError: the engine is missing.
    """
    if engine is not None:
        return engine
    try:
        return read_engine(Path(str(gallery.metadata.get("engine", ""))))
    except EngineError as err:
        raise EngineError(
            f"the engine that made {gallery.path} cannot be read: {err.message}. {_build_again(gallery)}"
        ) from err


def check_engine(gallery: EmbeddingFile, engine: Engine, detector: Engine | None, landmarks: Engine | None) -> None:
    """Refuse an engine whose embeddings cannot be compared with the rows of the file.

    Raises:
        ContractError: the engines or their settings differ; the message lists each difference with both values.
    """
    rules = query_face_rules_of(gallery.contract)
    request = Request((), gallery.path, engine, faces=rules, detector=detector, landmarks=landmarks)
    query = contract_of(request, engine.info, "")
    different = gallery.contract.differences(query, Guard.VECTORS)
    if different:
        raise ContractError(
            f"the engine {engine} cannot answer for {gallery.path} ({'; '.join(different)}); expected: the same "
            f"values. {_build_again(gallery)}"
        )


def _build_again(gallery: EmbeddingFile) -> str:
    """The next command, for an error."""
    model, precision = gallery.metadata.get("model"), gallery.metadata.get("precision")
    return (
        f"Build one for this file with: facemill build-engine --model {model} --precision {precision} and name it with "
        f"--engine PATH"
    )
