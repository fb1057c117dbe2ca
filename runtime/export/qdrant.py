"""Export an embedding file into a collection of Qdrant; the same command resumes. docs/export.md describes it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, ContractError, StorageError
from ..storage.contract import Guard
from ..storage.derived import record_elsewhere
from ..storage.file import EmbeddingFile
from .qdrant_server import connect, is_local, local_folder, with_retries
from .rows import Block, exact_bytes, path_text, read_blocks

logger = logging.getLogger(__name__)

# Never change: another value would give the same faces other ids.
_NAMESPACE = uuid.UUID("2f6f3a52-5f0b-5d0e-9a3c-6b1f4c7e8d90")
_BATCH_POINTS = 256  # per request: 3 MB of JSON at 512 dimensions
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")  # safe in a URL and as a folder name
_PAYLOAD_COLUMNS = {"face_index", "page", "box", "cluster"}
_MAX_LOCAL_POINTS = 20_000  # the local store of qdrant-client is slow beyond


@dataclass(frozen=True, slots=True)
class UploadCounts:
    """Counts of an export.

    Attributes:
        sent: points written now.
        kept: embeddings whose point existed already, or belongs to another row of the same face.
        points: points of the whole collection, from all sources.
        revision: in the payload of all points of this state of the file.
    """

    sent: int
    kept: int
    points: int
    revision: str


def point_id(photo: bytes, face_index: int) -> str:
    """Return the id of a face: a UUID (version 5) of its photo and index, so that it is stable when rows move.

    Args:
        photo: absolute path, to the byte.
        face_index: index of the face in the photo; 0 if no faces were detected.
    """
    name = _NAMESPACE.bytes + photo + b"\0%d" % face_index  # no path contains a NUL
    return str(uuid.UUID(bytes=hashlib.sha1(name, usedforsecurity=False).digest()[:16], version=5))


def export_qdrant(
    embeddings: EmbeddingFile, url: str, collection: str, *, recreate: bool = False, key: str = ""
) -> UploadCounts:
    """Write all embeddings as points, in batches. Points that exist already are not sent again.

    Args:
        embeddings: an open embedding file.
        url: http://HOST:PORT, https://HOST:PORT, or path:FOLDER for the local store of qdrant-client.
        collection: name of the collection; created if it does not exist.
        recreate: delete the collection and its content first.
        key: API key; empty for none.
    Raises:
        ConfigError: the URL or the name of the collection is not valid.
        ContractError: the collection holds points that are not comparable with this file.
        MissingDependencyError: qdrant-client is not installed.
        StorageError: the server does not answer or refuses, or the file is damaged.
    """
    if not _NAME.fullmatch(collection):
        raise ConfigError(
            f"{collection!r} is not a collection name; expected: letters, digits, '_', '-' and '.', at most 255. "
            f"Set one with --collection"
        )
    if is_local(url) and embeddings.rows > _MAX_LOCAL_POINTS:
        logger.warning("%s points in a local folder are slow; expected: a Qdrant server", embeddings.rows)
    where = f"folder {os.path.abspath(local_folder(url))}" if is_local(url) else url
    with connect(url, key) as client:
        record_elsewhere(embeddings.path, f"the collection {collection} of Qdrant, {where}")
        upload = _Upload(embeddings, client, collection)
        upload.prepare(recreate=recreate)
        sent = sum(upload.send(block) for block in read_blocks(embeddings, _BATCH_POINTS))
        upload.check_arrival()
        points = client.count(collection, exact=True).count
        return UploadCounts(sent, embeddings.rows - sent, points, upload.revision)


class _Upload:
    """The upload of one file into one collection.

    Attributes:
        revision: changes with the rows or the clusters of the file.
    """

    def __init__(self, embeddings: EmbeddingFile, client: Any, collection: str) -> None:
        self._embeddings, self._client, self._collection = embeddings, client, collection
        self._model = str(embeddings.metadata.get("model", "unknown"))
        self._contract = hashlib.sha256(
            json.dumps(embeddings.contract.select(Guard.VECTORS), sort_keys=True).encode()
        ).hexdigest()
        self.revision = _revision(embeddings)
        self._ids: list[NDArray[np.uint64]] = []  # half of each id, which is enough to count them
        self._has_points = False  # whether the collection held points before

    def prepare(self, *, recreate: bool) -> None:
        """Create the collection, or check that an existing one fits."""
        from qdrant_client import models

        exists = self._client.collection_exists(self._collection)
        if exists and not recreate:
            self._check()
            return
        if exists:
            self._client.delete_collection(self._collection)
        # Dot is the inner product, the score of `facemill search`; Qdrant's cosine would scale the rows.
        vectors = models.VectorParams(size=self._embeddings.dimension, distance=models.Distance.DOT)
        self._client.create_collection(self._collection, vectors, on_disk_payload=True)

    def _check(self) -> None:
        """Raise ContractError unless the points are comparable with the rows of the file."""
        vectors = self._client.get_collection(self._collection).config.params.vectors
        got = "several kinds of vectors, or none"
        if hasattr(vectors, "size"):
            got = f"{vectors.size} dimensions and the distance {vectors.distance.value}"
        expected = f"{self._embeddings.dimension} dimensions and the distance Dot"
        if got != expected:
            raise self._mismatch(got, expected)
        points, _ = self._client.scroll(self._collection, limit=1, with_payload=["contract", "model"])
        self._has_points = bool(points)
        for payload in (point.payload or {} for point in points):
            if payload.get("contract") != self._contract:  # the model's name may differ, the contract may not
                got = f"points of the model {payload.get('model')!r} with the contract {payload.get('contract')}"
                raise self._mismatch(got, f"the model {self._model!r} with the contract {self._contract}")

    def _mismatch(self, got: str, expected: str) -> ContractError:
        return ContractError(
            f"the collection {self._collection} has {got}; expected: {expected}. Name another one with --collection, "
            f"or delete its content with --recreate"
        )

    def send(self, block: Block) -> int:
        """Write the points of a block that do not exist yet, and return their number."""
        from qdrant_client import models

        photos = [os.path.join(self._embeddings.root, path) for path in block.paths]
        face_indexes = block.columns.get("face_index", [0] * len(photos))
        ids = map(point_id, photos, map(int, face_indexes))
        rows = {name: i for i, name in enumerate(ids)}  # a photo that is listed twice is one point
        self._ids.append(np.array([uuid.UUID(name).int >> 64 for name in rows], np.uint64))
        for name in self._current_ids(list(rows)) if self._has_points else ():
            del rows[name]
        if not rows:
            return 0
        indices = list(rows.values())
        payloads = [self._payload(block, i, photos[i]) for i in indices]
        vectors = block.vectors[indices].tolist()  # (n, D)
        batch = models.Batch(ids=list(rows), vectors=vectors, payloads=payloads)
        with_retries(lambda: self._client.upsert(self._collection, batch, wait=True))
        return len(rows)

    def check_arrival(self) -> None:
        """Compare the points of this revision in the collection with those that were sent or there before.

        Raises:
            StorageError: the numbers differ.
        """
        from qdrant_client import models

        expected = len(np.unique(np.concatenate([*self._ids, np.empty(0, np.uint64)])))
        ours = models.FieldCondition(key="revision", match=models.MatchValue(value=self.revision))
        count_filter = models.Filter(must=[ours])
        arrived = self._client.count(self._collection, count_filter=count_filter, exact=True).count
        if arrived != expected:
            raise StorageError(
                f"the collection {self._collection} holds {arrived:,} points of this file; expected: {expected:,}. "
                f"Look at the log of the server, and run the same command again"
            )

    def _current_ids(self, ids: list[str]) -> Iterator[str]:
        """Yield the ids whose points exist and have the revision of the file."""
        for point in with_retries(lambda: self._client.retrieve(self._collection, ids, with_payload=["revision"])):
            if (point.payload or {}).get("revision") == self.revision:
                yield str(point.id)

    def _payload(self, block: Block, i: int, photo: bytes) -> dict[str, Any]:
        exact = exact_bytes(photo)
        payload = {"path": path_text(photo), **({} if exact is None else {"path_hex": exact.hex()})}
        for name in _PAYLOAD_COLUMNS & block.columns.keys():
            payload[name] = block.columns[name][i].tolist()
        row = {"row": block.start + i, "revision": self.revision}
        return {**payload, **row, "model": self._model, "contract": self._contract}


def _revision(embeddings: EmbeddingFile) -> str:
    """Return a digest of `run_id`, which changes with the rows, and of the clusters, which may change without them."""
    digest = hashlib.sha256(str(embeddings.metadata["run_id"]).encode())
    if embeddings.has_column("cluster"):
        for start in range(0, embeddings.rows, 1 << 20):
            digest.update(embeddings.column("cluster", start, start + (1 << 20)).tobytes())
    return digest.hexdigest()[:32]
