"""Answers of the server: each request becomes a task for the engine room, and its answer is the library's result."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from ..api.photos import FaceEmbedder
from ..attributes.selection import AttributeFilter
from ..engines.backends import backend_of
from ..engines.build import rebuild_if_stale
from ..engines.choose import choose_detector, choose_landmarks
from ..errors import BusyError, ContractError, FacemillError, RequestError
from ..index.flat import check_queries
from ..pipeline.settings import usable_cores
from ..search.answers import Answer
from ..search.compare import Comparison, compare_embeddings
from ..search.detector import Detection, PhotoDetector
from ..search.embedder import Embedding, PhotoEmbedder
from ..search.faces import PhotoFaces
from ..search.hits import FindOptions
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .bodies import BodyReader, Reading
from .engine_room import EngineRoom, Task
from .file_changes import FileChanges
from .jobs.desk import ServerJobs
from .open_files import Opened, OpenFile, SharedEmbedders
from .problems import HungUp, Refusal, refuse_unreadable
from .settings import ServerSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedTask:
    """Embed the main face of photos."""

    embedder: PhotoEmbedder

    def together(self) -> int:
        """See `Task`."""
        return self.embedder.photos_together()

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[Embedding]:
        return self.embedder.embed(photos, one_core=one_core)


@dataclass(frozen=True, slots=True)
class EmbedFacesTask:
    """Embed the faces of photos; see `PhotoEmbedder.embed_faces`."""

    embedder: PhotoEmbedder
    every: bool
    attributes: tuple[str, ...]

    def together(self) -> int:
        """See `Task`. The network for attributes is not compared, so its photos get calls of their own."""
        return 1 if self.attributes else self.embedder.photos_together()

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[PhotoFaces]:
        return self.embedder.embed_faces(photos, every=self.every, attributes=self.attributes, one_core=one_core)


@dataclass(frozen=True, slots=True)
class DetectTask:
    """Detect the faces of photos, by the engines of an embedder."""

    detector: PhotoDetector
    embedder: PhotoEmbedder

    def together(self) -> int:
        """See `Task`."""
        return self.embedder.photos_together() if self.embedder.rules.detector else 1

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[Detection]:
        return self.detector.detect(photos, one_core=one_core)


@dataclass(frozen=True, slots=True)
class FindTask:
    """Search a file for the main face of photos."""

    file: OpenFile
    options: FindOptions
    chosen: AttributeFilter

    def together(self) -> int:
        """See `Task`."""
        return self.file.embedder.photos_together()

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[Answer]:
        return self.file.embed_and_find(
            lambda embedder: embedder.embed(photos, one_core=one_core),
            lambda opened, queries: opened.find(queries, self.options, self.chosen),
        )


@dataclass(frozen=True, slots=True)
class FindFacesTask:
    """Embed the faces of photos, and search a file for each."""

    file: OpenFile
    options: FindOptions
    attributes: tuple[str, ...]

    def together(self) -> int:
        """See `Task`."""
        return 1 if self.attributes else self.file.embedder.photos_together()

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[tuple[PhotoFaces, list[Answer]]]:
        return self.file.embed_and_find(
            lambda embedder: embedder.embed_faces(photos, attributes=self.attributes, one_core=one_core),
            self._find_each,
        )

    def _find_each(self, opened: Opened, photos: Sequence[PhotoFaces]) -> list[tuple[PhotoFaces, list[Answer]]]:
        return [(photo, opened.find(_queries(photo), self.options, AttributeFilter())) for photo in photos]


@dataclass(frozen=True, slots=True, eq=False)
class FindVectorTask:
    """Search a file for a vector that its model made. It takes no photo, and answers one call."""

    file: OpenFile
    vector: NDArray[np.float32]
    model_sha256: str
    options: FindOptions
    chosen: AttributeFilter

    def together(self) -> int:
        """See `Task`."""
        return 1

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[tuple[str, Answer]]:
        with self.file.use() as opened:
            if str(opened.search.file.metadata.get("model_sha256", "unknown")) != self.model_sha256:
                raise ContractError(f"{self.file.name} has embeddings of another model now. Load the page again")
            check_queries(self.vector[None], self.options.k, opened.search.file.dimension)
            (answer,) = opened.find([Embedding("<vector 0>", self.vector)], self.options, self.chosen)
            return [(opened.state, answer)]


def _queries(photo: PhotoFaces) -> list[Embedding]:
    return [Embedding(f"<face {i}>", face.vector) for i, face in enumerate(photo.faces)]


class Service:
    """The engines and files of a server. Owned by `with`; opening it finds every fault of engines and files.

    Attributes:
        settings: the settings of the server.
        room: runs the engines.
        bodies: reads the bodies of requests.
        changes: adds and removes photos.
        files: the embedding files by name; a finished job adds its own.
        jobs: starts jobs and looks after them.
    """

    def __init__(self, settings: ServerSettings) -> None:
        """Open files and engines.

        Raises:
            ConfigError, EngineError, ModelError, StorageError: an engine or a file cannot be used.
        """
        self.settings = settings
        limits = settings.limits
        self.bodies = BodyReader(max_photo=limits.max_bytes, max_body=settings.max_body, seconds=settings.seconds)
        self.changes = FileChanges(settings.roots)
        self.is_draining = False
        self._stops: list[Callable[[], None]] = []
        with ExitStack() as stack:
            own = stack.enter_context
            engines: dict[str, Any] = {**settings.engines, "limits": limits, "max_faces": settings.max_faces}
            self._embedder = own(FaceEmbedder(**engines)).photo_embedder
            self._detector = own(_open_detector(settings, self._embedder))
            self._embedders = own(SharedEmbedders(limits, settings.max_faces))
            self.files = {path.stem: own(self._file(path)) for path in settings.files}
            self._made = own(ExitStack())  # files of jobs, closed after the engine room
            on_gpu = backend_of(self._embedder.info.backend).on_gpu
            self._embedder.photos_together()  # loads the engines
            self.room = EngineRoom(threads=1 if on_gpu else usable_cores(), places=settings.places)
            stack.callback(self.room.close)
            self.jobs = own(ServerJobs(settings, self.open_file))
            self._owned = stack.pop_all()

    def open_file(self, path: Path) -> None:
        """Answer for one more file, unless it cannot be used. The thread of the jobs alone calls this."""
        if path.stem in self.files:
            return  # the same file, changed by a job: the next request opens it again
        try:
            file = self._made.enter_context(self._file(path))
        except (FacemillError, OSError) as err:
            logger.warning("%s is not answered for: %s", path, err)
            return
        self.files = {**self.files, path.stem: file}

    def _file(self, path: Path) -> OpenFile:
        return OpenFile(path, self._embedders, latency_ms=self.settings.latency_ms)

    async def recognise(
        self, request: Request, photo: bytes, *, every: bool, attributes: tuple[str, ...], file: str | None
    ) -> PhotoFaces:
        """Embed the faces of a photo, by the engines of the server or of a file."""
        embedder, _ = self._embedder_of(file)
        faces: PhotoFaces
        (faces,) = await self._run(request, EmbedFacesTask(embedder, every, attributes), [photo])
        refuse_unreadable(faces.error)
        return replace(faces, photo="<photo 0>")

    async def detect(self, request: Request, photo: bytes) -> Detection:
        """Detect the faces of a photo."""
        detection: Detection
        (detection,) = await self._run(request, DetectTask(self._detector, self._embedder), [photo])
        refuse_unreadable(detection.error)
        return replace(detection, photo="<photo 0>")

    async def compare(
        self, request: Request, photos: Sequence[bytes], *, threshold: float | None, file: str | None
    ) -> Comparison:
        """Say whether two photos show the same person."""
        embedder, path = self._embedder_of(file)
        answers = await self._run(request, EmbedTask(embedder), photos)
        first, second = (replace(answer, photo=f"<photo {i}>") for i, answer in enumerate(answers))
        for embedding in (first, second):
            refuse_unreadable(embedding.error)
        calibration = None
        if path is not None:
            with EmbeddingFile(path) as opened:
                calibration = find_calibration(opened)
        return compare_embeddings(first, second, embedder.info, threshold=threshold, calibration=calibration)

    async def search(
        self, request: Request, photo: bytes, *, file: str | None, options: FindOptions, chosen: AttributeFilter
    ) -> Answer:
        """Find the rows of a file most similar to a photo."""
        answer: Answer
        (answer,) = await self._run(request, FindTask(self.file(file), options, chosen), [photo])
        refuse_unreadable(answer.error)
        return replace(answer, query="<photo 0>")

    async def find_vector(
        self,
        request: Request,
        vector: NDArray[np.float32],
        model_sha256: str,
        *,
        file: OpenFile,
        options: FindOptions,
        chosen: AttributeFilter,
    ) -> tuple[str, Answer]:
        """Find the rows of a file most similar to a vector. Returns the state of the file that was searched, too.

        Args:
            request: the request.
            vector: (D,) float32, length 1.
            model_sha256: the checksum of the model that made it.
            file, options, chosen: see `search`.
        """
        task = FindVectorTask(file, vector, model_sha256, options, chosen)
        found: tuple[str, Answer]
        (found,) = await self._run(request, task, [b""])
        return found

    async def recognise_in(
        self, request: Request, photo: bytes, file: OpenFile, options: FindOptions, attributes: tuple[str, ...]
    ) -> tuple[PhotoFaces, list[Answer]]:
        """Embed the faces of a photo, and find the rows of a file most similar to each."""
        (answer,) = await self._run(request, FindFacesTask(file, options, attributes), [photo])
        embedded, answers = answer
        refuse_unreadable(embedded.error)
        return embedded, answers

    def file(self, name: str | None) -> OpenFile:
        """The file of a name; without a name the only one.

        Raises:
            Refusal: there is no such file, or none of several is named.
        """
        names = ", ".join(self.files) or "none; start the server with an embedding file"
        if name is None:
            if len(self.files) == 1:
                return next(iter(self.files.values()))
            raise Refusal(422, RequestError(f"no file is named; expected: file=NAME, one of: {names}"))
        if name not in self.files:
            raise Refusal(404, RequestError(f"no file is named {name!r:.100}; expected one of: {names}"))
        return self.files[name]

    @contextmanager
    def reading(self, *names: str) -> Iterator[Reading]:
        """A block for the photos of a request, refused before its body is read if its photos would find no place.

        Args:
            names: the names of the photos in its body.
        Raises:
            Refusal: the queue is full.
        """
        self.refuse_if_full()
        with self.bodies.photos(names) as reading:
            yield reading

    def refuse_if_full(self) -> None:
        """Refuse a request before its body is read, if its photos would find the queue full.

        Raises:
            Refusal: the queue is full.
        """
        if self.room.is_full:
            reason = f"{self.settings.places} requests are waiting already. Send the request again later"
            raise Refusal(429, BusyError(reason), {"Retry-After": str(self.room.retry_after_s)})

    def drain(self) -> None:
        """Stop long work, because the server is ending; what is durable stays, and the same request goes on later."""
        self.is_draining = True
        self.changes.stop()
        self.jobs.stop()
        for stop in self._stops:
            stop()

    def at_end(self, stop: Callable[[], None], close: Callable[[], None]) -> None:
        """Call `stop` when the server begins to end, so that long work stops, and `close` when it has ended."""
        self._stops.append(stop)
        self._owned.callback(close)

    def close(self) -> None:
        """Answer what was accepted, then release engines and files."""
        self._owned.close()

    def __enter__(self) -> Service:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _embedder_of(self, name: str | None) -> tuple[PhotoEmbedder, Path | None]:
        if name is None:
            return self._embedder, None
        with self.file(name).use() as opened:
            return opened.embedder, opened.search.file.path

    async def _run(self, request: Request, task: Task, photos: Sequence[bytes]) -> list[Any]:
        """Run a task in the engine room, unless the client hangs up or the time is over.

        Raises:
            Refusal: the queue is full, or the time is over.
            HungUp: the client hung up.
        """
        self.refuse_if_full()
        work = self.room.submit(task, photos)
        hang_up = asyncio.ensure_future(_wait_for_hang_up(request))
        try:
            waiting: set[asyncio.Future[Any]] = {work.answers, hang_up}
            await asyncio.wait(waiting, timeout=self.settings.seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            hung_up = hang_up.done()
            hang_up.cancel()
            self.room.drop(work)
        if work.answers.done():
            return work.answers.result()
        work.answers.cancel()
        if hung_up:
            raise HungUp
        reason = f"there is no answer after {self.settings.seconds:g} s. Send the request again later"
        raise Refusal(503, BusyError(reason), {"Retry-After": str(self.room.retry_after_s)})


def _open_detector(settings: ServerSettings, embedder: PhotoEmbedder) -> PhotoDetector:
    """The detector of `/detect`: that of the engines, or the default one if these take photos as aligned crops."""
    given: Mapping[str, Any] = settings.engines
    backend = embedder.info.backend
    detector = embedder.rules.detector or choose_detector(given.get("detector"), align="detect", backend=backend)
    landmarks = embedder.rules.landmarks
    if embedder.rules.detector is None:
        landmarks = choose_landmarks(given.get("landmarks"), align="detect", backend=backend)
    assert detector is not None
    return PhotoDetector(
        rebuild_if_stale(detector),
        landmarks=landmarks and rebuild_if_stale(landmarks),
        min_score=embedder.rules.faces.threshold,
        limits=settings.limits,
        max_faces=settings.max_faces,
    )


async def _wait_for_hang_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
