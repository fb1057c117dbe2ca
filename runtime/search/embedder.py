"""Embed photos (paths, encoded bytes or arrays) by the rules of a file, or with a model alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..engines.backends import backend_of, open_runner
from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..pipeline.face_work import crop_stages
from ..pipeline.settings import usable_cores
from ..pipeline.work import BatchLimit, Embed, Read
from ..records import Batch, Crops, Embedded, Encoded, FacePlace
from ..retries import retried
from ..sources.source import PhotoList
from ..text import utf8

PhotoInput: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8]"
"""A photo: a path, an encoded file (JPEG, PNG, BMP, WebP, TIFF, JPEG 2000, AVIF) as bytes, or an (H, W, 3) uint8 array,
RGB, upright."""

MANY_PHOTOS = 128  # from here on each core embeds its own photos; below, all cores share one engine call
_BATCH_PHOTOS = 16  # per thread: their decoded photos and views are in memory
UNLIMITED_BYTES = 1 << 62  # the limit of a file's size is checked when it is read; arrays of pixels have none


@dataclass(frozen=True, slots=True, eq=False)
class Embedding:
    """The embedding of one photo, or the reason why it has none.

    Attributes:
        photo: its path; for bytes and arrays `<photo N>`, N counted from 0 in the call.
        vector: (D,) float32, length 1; None if the photo could not be embedded.
        error: an outcome such as `no-face`, a colon and the detail; empty if the photo was embedded.
        faces: number of faces in the photo; None if faces were not detected.
        face: the face that was embedded; None if faces were not detected or the photo has none.
    """

    photo: str
    vector: NDArray[np.float32] | None = field(default=None, repr=False)
    error: str = ""
    faces: int | None = None
    face: FacePlace | None = None

    @property
    def choice(self) -> str:
        """A note for people if the photo shows several faces; empty otherwise."""
        return describe_choice(self.faces, self.face)

    def to_dict(self, *, vector: bool = True) -> dict[str, Any]:
        """The embedding for JSON.

        Args:
            vector: include the numbers.
        """
        values: dict[str, Any] = {"path": utf8(self.photo)}
        if self.error:
            values["error"] = utf8(self.error)
        if self.faces is not None:
            values |= {"faces": self.faces, **(self.face.to_dict() if self.face else {})}
        if vector:
            values["vector"] = None if self.vector is None else self.vector.tolist()
        return values


def describe_choice(faces: int | None, face: FacePlace | None) -> str:
    """`1 of 3 faces taken ...` if a photo shows several faces; empty otherwise."""
    if face is None or (faces or 0) < 2:
        return ""
    return f"1 of {faces} faces taken (the main one: large, near the middle)"


@dataclass(frozen=True, slots=True)
class QueryRules:
    """Rules for embedding photos so that their vectors are comparable.

    Attributes:
        engine: the engine that embeds.
        detector: the engine of a face detector; None if photos are aligned crops.
        landmarks: the engine of a landmark network; None to crop by the landmarks of the detector.
        faces: rules for detecting and selecting faces.
        limits: larger photos are refused before decoding.
    """

    engine: Engine
    detector: Engine | None = None
    faces: FaceRules = field(default_factory=FaceRules)
    limits: Limits = field(default_factory=Limits)
    landmarks: Engine | None = None


class PhotoEmbedder:
    """Embeds photos, any number at a time, from any number of threads. Owned by `with`.

    The first photo loads the engines; they stay loaded until `close`. On the CPU, embedding both few and many photos
    loads two copies: one uses all cores for a call, the other one core.

    Attributes:
        rules: rules for embedding photos.
        info: the facts of the engine.
    """

    def __init__(self, rules: QueryRules) -> None:
        self.rules, self.info = rules, rules.engine.info
        self._loaded: dict[int, Callable[[Encoded], Embedded]] = {}
        self._lock = threading.Lock()
        self._owned = ExitStack()

    def embed(self, photos: Sequence[PhotoInput], *, total: int = 0, first: int = 0) -> list[Embedding]:
        """Embed photos. A photo that cannot be embedded gets an error and does not stop the others.

        Args:
            photos: paths, encoded bytes or arrays; see `PhotoInput`.
            total: number of all photos, if these are a part of them.
            first: number of the first of these among all.
        Returns:
            One embedding a photo, in the same order.
        Raises:
            EngineError, MissingDependencyError: an engine does not load.
            MachineError: a photo cannot be read because of the disk or the memory of the machine.
        """
        names = [name_of(photo, number) for number, photo in enumerate(photos, first)]
        starts = range(0, len(photos), _BATCH_PHOTOS)
        many = max(total, len(photos)) >= MANY_PHOTOS
        if not photos:
            return []
        read, stages = (
            Read(PhotoList(photos, max_bytes=self.rules.limits.max_bytes)),
            self._stages(threads=1 if many else 0),
        )

        def embed(start: int) -> list[Embedding]:
            numbers = np.arange(start, min(start + _BATCH_PHOTOS, len(photos)))
            return _embeddings(retried(lambda: stages(read(Batch(numbers)))), names, numbers)

        return [embedding for batch in _each(embed, starts, usable_cores() if many else 1) for embedding in batch]

    def load(self, *, threads: int = 0) -> None:
        """Load the engines now instead of with the first photo.

        Args:
            threads: 0 if one engine call uses all cores (few photos), 1 if it uses one core (many photos).
        Raises:
            EngineError, MissingDependencyError: an engine does not load.
        """
        self._stages(threads=threads)

    def _stages(self, *, threads: int) -> Callable[[Encoded], Embedded]:
        """The function that embeds encoded photos; loads the engines if needed."""
        key = 0 if backend_of(self.info.backend).on_gpu else threads
        with self._lock:
            if key not in self._loaded:
                self._loaded[key] = self._load(key)
            return self._loaded[key]

    def _load(self, threads: int) -> Callable[[Encoded], Embedded]:
        threads = threads or usable_cores()
        with ExitStack() as stack:
            runner = stack.enter_context(open_runner(self.rules.engine, threads=threads))
            finders = [
                stack.enter_context(open_runner(rebuild_if_stale(engine), threads=threads)) if engine else None
                for engine in (self.rules.detector, self.rules.landmarks)
            ]
            limits = replace(self.rules.limits, max_bytes=UNLIMITED_BYTES)
            crops = crop_stages(runner.info, limits, self.rules.faces, *finders)
            vectors = Embed(runner, BatchLimit(min(_BATCH_PHOTOS, runner.info.profile[2])))
            self._owned.push(stack.pop_all())
        return lambda batch: vectors(_first_faces(crops(batch)))

    def close(self) -> None:
        """Release the engines."""
        self._loaded.clear()
        self._owned.close()

    def __enter__(self) -> PhotoEmbedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def name_of(photo: PhotoInput, number: int) -> str:
    """The path of a photo, or `<photo N>` for bytes and arrays."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else f"<photo {number}>"


def photo_list(photos: PhotoInput | Sequence[PhotoInput]) -> Sequence[PhotoInput]:
    """Make a list of photos; a single photo becomes a list of one. A grey array is one photo, and gets an error later.

    Raises:
        ConfigError: it is neither a photo nor several.
    """
    if isinstance(photos, (str, os.PathLike, bytes)) or (isinstance(photos, np.ndarray) and photos.ndim <= 3):
        return [photos]
    if not isinstance(photos, Iterable):
        raise ConfigError(
            f"the photos are a {type(photos).__name__}; expected: one or several paths, bytes or arrays (H, W, 3) uint8"
        )
    return list(photos)


def _first_faces(batch: Crops) -> Crops:
    """Keep the first face of each photo: the main one."""
    rows, first = np.unique(batch.rows, return_index=True)
    faces = None if batch.faces is None else batch.faces[first]
    return replace(batch, rows=rows, images=batch.images[first], faces=faces)


def _embeddings(batch: Embedded, names: Sequence[str], numbers: NDArray[np.int64]) -> list[Embedding]:
    """The embedding or error of each photo of a batch, in order."""
    vectors = dict(zip(batch.rows.tolist(), batch.embeddings, strict=True))
    errors = {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in batch.outcomes}
    faces_by_row: dict[int, FacePlace] = {}
    if batch.faces is not None:
        for row, face in zip(batch.rows.tolist(), batch.faces, strict=True):
            faces_by_row[row] = FacePlace(int(face["face_index"]), tuple(face["box"].tolist()))
    return [
        Embedding(names[i], vectors.get(i), errors.get(i, ""), batch.face_counts.get(i), faces_by_row.get(i))
        for i in numbers.tolist()
    ]


def _each(embed: Callable[[int], list[Embedding]], starts: range, workers: int) -> Iterator[list[Embedding]]:
    """Embed batches, in order; several at once if an engine call leaves cores free."""
    if len(starts) < 2 or workers < 2:
        yield from map(embed, starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(embed, starts)
