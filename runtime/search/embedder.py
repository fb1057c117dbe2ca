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
from ..engines.choose import choose_attributes
from ..engines.engine import Engine
from ..engines.fixed_batch import FixedBatch
from ..engines.runner import Runner
from ..engines.same_bits import same_bits
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..pipeline.face_work import DETECTOR_BATCH, LANDMARK_BATCH, crop_stages
from ..pipeline.request import check_attribute_engine
from ..pipeline.settings import usable_cores
from ..pipeline.work import BatchLimit, Embed, Read, ReadAttributes
from ..records import Batch, Crops, Embedded, Encoded, FacePlace
from ..retries import retried
from ..sources.source import PhotoList
from ..text import utf8
from .faces import EmbeddedFace, PhotoFaces, embedded_face

PhotoInput: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8]"
"""A photo: a path, an encoded file (JPEG, PNG, BMP, WebP, TIFF, JPEG 2000, AVIF) as bytes, or an (H, W, 3) uint8 array,
RGB, upright."""

MANY_PHOTOS = 128  # from here on each core embeds its own photos; below, all cores share one engine call
_PHOTOS_TOGETHER = 4  # of different callers on one core; more save little, and each waits for the others
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
        max_faces: photos with more faces are refused before their faces are cropped; None for no limit.
    """

    engine: Engine
    detector: Engine | None = None
    faces: FaceRules = field(default_factory=FaceRules)
    limits: Limits = field(default_factory=Limits)
    landmarks: Engine | None = None
    max_faces: int | None = None


@dataclass(frozen=True, slots=True)
class _Opened:
    """Loaded engines, for calls that use this number of threads."""

    embed: Runner
    detector: Runner | None
    landmarks: Runner | None
    threads: int


@dataclass(frozen=True, slots=True)
class _Work:
    """What a call does besides reading and decoding.

    Attributes:
        threads: 0 if one engine call uses all cores, 1 if it uses one.
        every: whether every face is embedded, or the main one.
        attributes: what is read from each face, keys of ATTRIBUTE_FIELDS.
    """

    threads: int
    every: bool = False
    attributes: tuple[str, ...] = ()


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
        self._opened: dict[int, _Opened] = {}
        self._together: int | None = None
        self._loaded: dict[_Work, Callable[[Encoded], Embedded]] = {}
        self._lock = threading.Lock()
        self._owned = ExitStack()

    def embed(
        self, photos: Sequence[PhotoInput], *, total: int = 0, first: int = 0, one_core: bool = False
    ) -> list[Embedding]:
        """Embed photos. A photo that cannot be embedded gets an error and does not stop the others.

        Args:
            photos: paths, encoded bytes or arrays; see `PhotoInput`.
            total: number of all photos, if these are a part of them.
            first: number of the first of these among all.
            one_core: use one core, because other threads embed at the same time.
        Returns:
            One embedding a photo, in the same order.
        Raises:
            EngineError, MissingDependencyError: an engine does not load.
            MachineError: a photo cannot be read because of the disk or the memory of the machine.
        """
        if not photos:
            return []
        names = [name_of(photo, number) for number, photo in enumerate(photos, first)]
        starts = range(0, len(photos), _BATCH_PHOTOS)
        many = max(total, len(photos)) >= MANY_PHOTOS and not one_core
        work = _Work(threads=1 if many or one_core else 0)

        def embed(start: int) -> list[Embedding]:
            numbers = np.arange(start, min(start + _BATCH_PHOTOS, len(photos)))
            return _embeddings(self._run(photos, numbers, work), names, numbers)

        return [embedding for batch in _each(embed, starts, usable_cores() if many else 1) for embedding in batch]

    def embed_faces(
        self,
        photos: Sequence[PhotoInput],
        *,
        every: bool = True,
        attributes: tuple[str, ...] = (),
        one_core: bool = False,
    ) -> list[PhotoFaces]:
        """Embed the faces of photos. A photo that cannot be read gets an error and does not stop the others.

        Args:
            photos: paths, encoded bytes or arrays; see `PhotoInput`.
            every: embed every face; else the main one, whose vector is that of `embed`.
            attributes: what to read from each face, keys of ATTRIBUTE_FIELDS.
            one_core: use one core, because other threads embed at the same time.
        Returns:
            The faces of each photo, in the same order.
        Raises:
            ConfigError: attributes are not read from crops of the model's size.
            EngineError, MissingDependencyError: an engine does not load.
            MachineError: a photo cannot be read because of the disk or the memory of the machine.
        """
        work = _Work(1 if one_core else 0, every and self.rules.faces.detects, attributes)
        answers: list[PhotoFaces] = []
        for start in range(0, len(photos), _BATCH_PHOTOS):
            numbers = np.arange(start, min(start + _BATCH_PHOTOS, len(photos)))
            answers += _photo_faces(self._run(photos, numbers, work), photos, numbers)
        return answers

    def load(self, *, threads: int = 0) -> None:
        """Load the engines now instead of with the first photo.

        Args:
            threads: 0 if one engine call uses all cores (few photos), 1 if it uses one core (many photos).
        Raises:
            EngineError, MissingDependencyError: an engine does not load.
        """
        self._stages(_Work(threads))

    def photos_together(self) -> int:
        """Photos of different callers that may share a call, whose answers have the bits that they have alone.

        1 if this machine computes other bits for several images, or with other numbers of threads: then every caller
        needs a call of its own, with `one_core`.

        Raises:
            EngineError, MissingDependencyError: an engine does not load.
        """
        if backend_of(self.info.backend).on_gpu:
            return _BATCH_PHOTOS  # every call has this size; see `steady`
        if self._together is not None:  # without the lock, which is held while engines are loaded
            return self._together
        with self._lock:
            if self._together is None:
                both = [self._runners(threads) for threads in (1, 0)]
                pairs = [
                    [runner for runner in pair if runner is not None]
                    for pair in zip(*((one.embed, one.detector, one.landmarks) for one in both), strict=True)
                ]
                alike = all(same_bits(pair) for pair in pairs if pair)
                self._together = _PHOTOS_TOGETHER if alike else 1
            return self._together

    def _run(self, photos: Sequence[PhotoInput], numbers: NDArray[np.int64], work: _Work) -> Embedded:
        """Read, decode, crop and embed some of the photos, in one batch."""
        read, stages = Read(PhotoList(photos, max_bytes=self.rules.limits.max_bytes)), self._stages(work)
        return retried(lambda: stages(read(Batch(numbers))))

    def _stages(self, work: _Work) -> Callable[[Encoded], Embedded]:
        """The function that embeds encoded photos; loads the engines if needed."""
        if backend_of(self.info.backend).on_gpu:
            work = replace(work, threads=0)
        with self._lock:
            if work not in self._loaded:
                self._loaded[work] = self._make_stages(work)
            return self._loaded[work]

    def _make_stages(self, work: _Work) -> Callable[[Encoded], Embedded]:
        opened = self._runners(work.threads)
        info, faces = opened.embed.info, self.rules.faces
        crops = crop_stages(
            info,
            replace(self.rules.limits, max_bytes=UNLIMITED_BYTES),
            replace(faces, policy="all") if work.every else faces,
            opened.detector,
            opened.landmarks,
            max_faces=self.rules.max_faces,
        )
        vectors = Embed(opened.embed, BatchLimit(_batch_of(opened.embed, _BATCH_PHOTOS)))
        read = self._attribute_reader(work.attributes, opened) if work.attributes else _unchanged
        choose = _unchanged if work.every else _first_faces
        return lambda batch: vectors(read(choose(crops(batch))))

    def _attribute_reader(self, names: tuple[str, ...], opened: _Opened) -> ReadAttributes:
        engine = choose_attributes(self.info.backend)
        check_attribute_engine(engine.info, self.info.size)
        runner = self._owned.enter_context(open_runner(engine, threads=opened.threads))
        return ReadAttributes(steady(runner, _BATCH_PHOTOS), names, opened.embed.info.channel_order)

    def _runners(self, threads: int) -> _Opened:
        """The engines for calls that use all cores (0) or one (1); loads them if needed. The lock is held."""
        if threads not in self._opened:
            self._opened[threads] = self._open(threads or usable_cores())
        return self._opened[threads]

    def _open(self, threads: int) -> _Opened:
        """Load the engines, for calls that use this number of threads."""
        batches = (_BATCH_PHOTOS, DETECTOR_BATCH, LANDMARK_BATCH)
        engines = (self.rules.engine, *map(_current, (self.rules.detector, self.rules.landmarks)))
        with ExitStack() as stack:
            runners = [
                steady(stack.enter_context(open_runner(engine, threads=threads)), batch) if engine else None
                for engine, batch in zip(engines, batches, strict=True)
            ]
            self._owned.push(stack.pop_all())
        embed, detector, landmarks = runners
        assert embed is not None
        return _Opened(embed, detector, landmarks, threads)

    def close(self) -> None:
        """Release the engines."""
        self._loaded.clear()
        self._opened.clear()
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


def _current(engine: Engine | None) -> Engine | None:
    """An engine of a detector or landmark network, built again if it is out of date."""
    return rebuild_if_stale(engine) if engine else None


def _batch_of(runner: Runner, usual: int) -> int:
    return min(usual, runner.info.profile[2])


def steady(runner: Runner, batch: int) -> Runner:
    """On a GPU, a runner whose answer for an image does not depend on the other images of its call.

    The kernels of a GPU are chosen by the size of the batch, so every call there has one size. On a CPU the callers
    decide what shares a call.
    """
    return FixedBatch(runner, _batch_of(runner, batch)) if backend_of(runner.info.backend).on_gpu else runner


def _unchanged(batch: Crops) -> Crops:
    return batch


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


def _photo_faces(batch: Embedded, photos: Sequence[PhotoInput], numbers: NDArray[np.int64]) -> Iterator[PhotoFaces]:
    """The faces or error of each photo of a batch, in order."""
    errors = {outcome.row: f"{outcome.status.label}: {outcome.detail}" for outcome in batch.outcomes}
    faces: dict[int, list[EmbeddedFace]] = {number: [] for number in numbers.tolist()}
    for i, row in enumerate(batch.rows.tolist()):
        faces[row].append(embedded_face(batch, i))
    for i in numbers.tolist():
        yield PhotoFaces(name_of(photos[i], i), tuple(faces[i]), errors.get(i, ""), batch.face_counts.get(i))


def _each(embed: Callable[[int], list[Embedding]], starts: range, workers: int) -> Iterator[list[Embedding]]:
    """Embed batches, in order; several at once if an engine call leaves cores free."""
    if len(starts) < 2 or workers < 2:
        yield from map(embed, starts)
        return
    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(embed, starts)
