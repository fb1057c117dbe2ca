"""An embedding file into a collection of Qdrant; the same command goes on where it stopped. See docs/export.md."""

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

from ..errors import ConfigError, ContractError
from ..storage.contract import Guard
from ..storage.derived import record_elsewhere
from ..storage.file import EmbeddingFile
from .qdrant_server import connect, is_local, local_folder, tried
from .rows import Block, exact_bytes, path_text, read_blocks

logger = logging.getLogger(__name__)

# For ever: another value would give the same faces other ids.
_NAMESPACE = uuid.UUID("2f6f3a52-5f0b-5d0e-9a3c-6b1f4c7e8d90")
_BATCH = 256  # points of a request: 3 MB of JSON at 512 dimensions
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}")  # safe in an address and as a folder
_KNOWN = {"face_index", "box", "cluster"}  # columns that a point has
_MANY = 20_000  # beyond which qdrant-client's own store is slow


@dataclass(frozen=True, slots=True)
class Uploaded:
    """What an export did.

    Attributes:
        sent: points written now.
        kept: embeddings whose point was there already, or is that of another row of the same face.
        points: of the whole collection, whoever put them there.
        revision: in the payload of all points of this state of the file.
    """

    sent: int
    kept: int
    points: int
    revision: str


def point_id(photograph: bytes, face_index: int) -> str:
    """The id of a face: a UUID (version 5) of where it is, so that it stays when rows move.

    Args:
        photograph: the absolute path, to the byte.
        face_index: which face in it; 0 where no faces were looked for.
    """
    name = _NAMESPACE.bytes + photograph + b"\0%d" % face_index  # no path holds a NUL
    return str(uuid.UUID(bytes=hashlib.sha1(name, usedforsecurity=False).digest()[:16], version=5))


def export_qdrant(
    gallery: EmbeddingFile, url: str, collection: str, *, recreate: bool = False, key: str = ""
) -> Uploaded:
    """Write all embeddings as points, in batches; what is there already is not sent again.

    Args:
        gallery: an open embedding file.
        url: http://HOST:PORT, https://HOST:PORT, or path:FOLDER for qdrant-client's own store.
        collection: its name; it is made where there is none.
        recreate: delete it first, whatever it holds.
        key: the API key; empty for none.
    Raises:
        ConfigError: the address or the name of the collection is of another form.
        ContractError: the collection holds what cannot be compared with this file.
        MissingDependencyError: qdrant-client is not installed.
        StorageError: the server does not answer or refuses, or the file is damaged.
    """
    if not _NAME.fullmatch(collection):
        raise ConfigError(
            f"{collection!r} is no name for a collection; wanted: letters, digits, '_', '-' and '.', at most 255. "
            f"Give one with --collection"
        )
    if is_local(url) and gallery.rows > _MANY:
        logger.warning("%s points in a folder without a server are slow; wanted: a server of Qdrant", gallery.rows)
    where = f"folder {os.path.abspath(local_folder(url))}" if is_local(url) else url
    with connect(url, key) as client:
        record_elsewhere(gallery.path, f"the collection {collection} of Qdrant, {where}")
        upload = _Upload(gallery, client, collection)
        upload.prepare(recreate=recreate)
        sent = sum(upload.send(block) for block in read_blocks(gallery, _BATCH))
        points = client.count(collection, exact=True).count
        return Uploaded(sent, gallery.rows - sent, points, upload.revision)


class _Upload:
    """One file on its way into one collection.

    Attributes:
        revision: of the file: another set of rows, or other clusters, has another one.
    """

    def __init__(self, gallery: EmbeddingFile, client: Any, collection: str) -> None:
        self._gallery, self._client, self._collection = gallery, client, collection
        self._model = str(gallery.metadata.get("model", "unknown"))
        self._contract = hashlib.sha256(
            json.dumps(gallery.contract.select(Guard.VECTORS), sort_keys=True).encode()
        ).hexdigest()
        self.revision = _revision(gallery)
        self._begun = False  # whether the collection held points before

    def prepare(self, *, recreate: bool) -> None:
        """Make the collection, or see that the one that is there fits."""
        from qdrant_client import models

        there = self._client.collection_exists(self._collection)
        if there and not recreate:
            self._check()
            return
        if there:
            self._client.delete_collection(self._collection)
        # The inner product of the rows as they are, the score of `facemill search`; Qdrant's cosine would scale them.
        vectors = models.VectorParams(size=self._gallery.dimension, distance=models.Distance.DOT)
        self._client.create_collection(self._collection, vectors, on_disk_payload=True)

    def _check(self) -> None:
        """Raise unless its points can be compared with the rows of the file."""
        vectors = self._client.get_collection(self._collection).config.params.vectors
        found = "several kinds of vectors, or none"
        if hasattr(vectors, "size"):
            found = f"{vectors.size} dimensions and the distance {vectors.distance.value}"
        wanted = f"{self._gallery.dimension} dimensions and the distance Dot"
        if found != wanted:
            raise self._other(found, wanted)
        points, _ = self._client.scroll(self._collection, limit=1, with_payload=["contract", "model"])
        self._begun = bool(points)
        for payload in (point.payload or {} for point in points):
            if payload.get("contract") != self._contract:  # not the model's name: others may call it otherwise
                found = f"points of the model {payload.get('model')!r} with the contract {payload.get('contract')}"
                raise self._other(found, f"the model {self._model!r} with the contract {self._contract}")

    def _other(self, found: str, wanted: str) -> ContractError:
        return ContractError(
            f"the collection {self._collection} has {found}; wanted: {wanted}. Name another one with --collection, or "
            f"delete all that it holds with --recreate"
        )

    def send(self, block: Block) -> int:
        """Write the points of some rows that are not there yet; returns how many."""
        from qdrant_client import models

        photographs = [os.path.join(self._gallery.root, path) for path in block.paths]
        ranks = block.columns.get("face_index", [0] * len(photographs))
        ids = map(point_id, photographs, map(int, ranks))
        at = {name: i for i, name in enumerate(ids)}  # a photograph that was named twice is one point
        for name in self._present(list(at)) if self._begun else ():
            del at[name]
        if not at:
            return 0
        places = list(at.values())
        payloads = [self._payload(block, i, photographs[i]) for i in places]
        vectors = block.vectors[places].tolist()  # (n, D)
        batch = models.Batch(ids=list(at), vectors=vectors, payloads=payloads)
        tried(lambda: self._client.upsert(self._collection, batch, wait=True))
        return len(at)

    def _present(self, ids: list[str]) -> Iterator[str]:
        """Those that the collection holds as this state of the file has them."""
        for point in tried(lambda: self._client.retrieve(self._collection, ids, with_payload=["revision"])):
            if (point.payload or {}).get("revision") == self.revision:
                yield str(point.id)

    def _payload(self, block: Block, i: int, photograph: bytes) -> dict[str, Any]:
        exact = exact_bytes(photograph)
        known = {"path": path_text(photograph), **({} if exact is None else {"path_hex": exact.hex()})}
        for name in _KNOWN & block.columns.keys():
            known[name] = block.columns[name][i].tolist()
        row = {"row": block.start + i, "revision": self.revision}
        return {**known, **row, "model": self._model, "contract": self._contract}


def _revision(gallery: EmbeddingFile) -> str:
    """Of the rows, by `run_id`, and of their clusters, which may change while the rows stay."""
    digest = hashlib.sha256(str(gallery.metadata["run_id"]).encode())
    if gallery.has_column("cluster"):
        for start in range(0, gallery.rows, 1 << 20):
            digest.update(gallery.column("cluster", start, start + (1 << 20)).tobytes())
    return digest.hexdigest()[:32]
