"""Embed a few photos, detect the faces in them, and compare two photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import defaults
from ..engines.build import rebuild_if_stale
from ..engines.choose import choose_detector, choose_engine, choose_landmarks
from ..engines.engine import Engine, read_engine
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..metrics.falsematch import Calibration
from ..search import compare as comparing
from ..search.compare import Comparison
from ..search.detector import Detection, PhotoDetector
from ..search.embedder import Embedding, PhotoEmbedder, PhotoInput, QueryRules, photo_list
from ..search.faces import PhotoFaces
from ..search.file_rules import rules_of
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .jobs import parse_attributes

PathLike = str | os.PathLike[str]


class FaceEmbedder:
    """Embeds and compares photos with engines that stay loaded. Use it for repeated calls, from any thread.

    Close it with `close()`, or own it by `with`. The engines are loaded by the first photo.

    Example:
        >>> import facemill
        >>> with facemill.FaceEmbedder(model="facemill-512", detector="facemill-det") as embedder:
        ...     (embedding,) = embedder.embed("photos/person0/0.jpg")
        >>> embedding.vector.shape, embedding.vector.dtype.name
        ((512,), 'float32')
    """

    def __init__(
        self,
        *,
        file: PathLike | None = None,
        engine: PathLike | Engine | None = None,
        model: str | None = None,
        backend: str = "auto",
        detector: PathLike | Engine | None = None,
        landmarks: PathLike | Engine | None = None,
        align: str = defaults.ALIGN,
        min_score: float = defaults.MIN_SCORE,
        limits: Limits | None = None,
        max_faces: int | None = None,
    ) -> None:
        """Choose the engines; build those that are missing or out of date.

        Args:
            file: use the engines, settings and calibration of this file. It can be combined only with `engine`.
            engine: an engine file; None to choose by model and backend.
            model: a registered name or a model file (`PATH.toml`); None for the default of this machine.
            backend: "cpu", "cuda", "tensorrt", or "auto" for the fastest on this machine.
            detector: a registered name, a model file or an engine file; None for the default of this machine.
            landmarks: the network that looks at each face once more: as for `detector`, or "none".
            align: "detect" aligns the faces of every photo, "none" takes photos whole as aligned crops, "auto" takes
                those of exactly the crop's size whole.
            min_score: minimum detection confidence, 0 to 1.
            limits: larger photos are refused before decoding; None for the defaults, or for those of the file.
            max_faces: `embed_faces` refuses photos with more faces; None for no limit.
        Raises:
            ConfigError: options exclude each other, or a value is out of range.
            StorageError, ContractError: the file cannot be read, or the engine does not fit it.
            EngineError, ModelError: an engine cannot be loaded or built, or a model is unknown or not to be had.
        """
        self._calibration: Calibration | None = None
        if file is None:
            rebuilt = rebuild_if_stale(choose_engine(engine, model=model, backend=backend))
            finding: dict[str, Any] = {"align": align, "backend": rebuilt.info.backend}
            rules = QueryRules(
                rebuilt,
                choose_detector(detector, **finding),
                FaceRules(align, threshold=min_score, min_iod=0.0, max_fit=1.0),
                landmarks=choose_landmarks(landmarks, **finding),
            )
        else:
            given = engine if engine is None or isinstance(engine, Engine) else read_engine(Path(engine))
            with EmbeddingFile(Path(file)) as gallery:
                rules, self._calibration = rules_of(gallery, given), find_calibration(gallery)
        self._photos = PhotoEmbedder(replace(rules, limits=limits or rules.limits, max_faces=max_faces))

    @property
    def limits(self) -> Limits:
        """Limits above which photos are refused before decoding."""
        return self._photos.rules.limits

    def embed(self, photos: PhotoInput | Sequence[PhotoInput]) -> list[Embedding]:
        """Embed the main face of each photo.

        Args:
            photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
        Returns:
            One embedding a photo, in the same order; a photo that cannot be embedded has one with its error.
        Raises:
            EngineError, MissingDependencyError: an engine cannot be loaded.
        """
        return self._photos.embed(photo_list(photos))

    def embed_faces(
        self,
        photos: PhotoInput | Sequence[PhotoInput],
        *,
        faces: str = "all",
        attributes: str | Sequence[str] = (),
    ) -> list[PhotoFaces]:
        """Embed the faces of each photo, with their places and measures.

        Args:
            photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
            faces: "all", or "largest" for the main face alone, whose vector is that of `embed`.
            attributes: what to read from each face: "age", "gender" or both, as "age,gender" or a list. Read
                docs/attributes.md before you use them.
        Returns:
            The faces of each photo, in the same order, the main face first, or an error.
        Raises:
            ConfigError: a word is unknown.
            EngineError, MissingDependencyError: an engine cannot be loaded.

        Example:
            >>> import facemill
            >>> with facemill.FaceEmbedder(model="facemill-512", detector="facemill-det") as embedder:
            ...     (photo,) = embedder.embed_faces("photos/person0/0.jpg")
            >>> len(photo.faces), photo.faces[0].vector.shape, len(photo.faces[0].face.landmarks)
            (1, (512,), 5)
        """
        every, names = every_face(faces), parse_attributes(attributes) if attributes else ()
        return self._photos.embed_faces(photo_list(photos), every=every, attributes=names)

    @property
    def photo_embedder(self) -> PhotoEmbedder:
        """The embedder behind this one, for code that decides which cores a call uses."""
        return self._photos

    def compare(self, a: PhotoInput, b: PhotoInput, *, threshold: float | None = None) -> Comparison:
        """Say whether two photos show the same person.

        Args:
            a, b: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
            threshold: lowest score of the same person, -1 to 1; None for that of the file or of the model.
        Raises:
            EngineError, MissingDependencyError: an engine cannot be loaded.
        """
        return comparing.compare(self._photos, a, b, threshold=threshold, calibration=self._calibration)

    def close(self) -> None:
        """Release the engines."""
        self._photos.close()

    def __enter__(self) -> FaceEmbedder:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def every_face(faces: str) -> bool:
    """Whether a caller asks for every face: "all", or "largest" for the main one.

    Raises:
        ConfigError: it is another word.
    """
    if faces not in ("all", "largest"):
        raise ConfigError(f"faces is {faces!r}; expected: all or largest")
    return faces == "all"


def embed(
    photos: PhotoInput | Sequence[PhotoInput],
    *,
    engine: PathLike | Engine | None = None,
    model: str | None = None,
    backend: str = "auto",
    detector: PathLike | Engine | None = None,
    landmarks: PathLike | Engine | None = None,
    align: str = defaults.ALIGN,
    min_score: float = defaults.MIN_SCORE,
) -> list[Embedding]:
    """Embed the main face of each photo. `FaceEmbedder` keeps the engines for repeated calls.

    Args:
        photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
        engine, model, backend, detector, landmarks, align, min_score: see `FaceEmbedder`.
    Returns:
        One embedding a photo, in the same order; a photo that cannot be embedded has one with its error.
    Raises:
        ConfigError, EngineError, ModelError, MissingDependencyError: see `FaceEmbedder`.

    Example:
        >>> import facemill
        >>> (embedding,) = facemill.embed("photos/person0/0.jpg", model="facemill-512", detector="facemill-det")
        >>> embedding.vector.shape, embedding.error
        ((512,), '')
    """
    finding: dict[str, Any] = {"detector": detector, "landmarks": landmarks, "align": align, "min_score": min_score}
    with FaceEmbedder(engine=engine, model=model, backend=backend, **finding) as embedder:
        return embedder.embed(photos)


def compare(
    a: PhotoInput,
    b: PhotoInput,
    *,
    file: PathLike | None = None,
    threshold: float | None = None,
    engine: PathLike | Engine | None = None,
    model: str | None = None,
    backend: str = "auto",
    detector: PathLike | Engine | None = None,
    landmarks: PathLike | Engine | None = None,
    align: str = defaults.ALIGN,
) -> Comparison:
    """Say whether two photos show the same person. `FaceEmbedder` keeps the engines for repeated calls.

    Args:
        a, b: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
        file: use the engines, settings and calibration of this file. It can be combined only with `engine`.
        threshold: lowest score of the same person, -1 to 1; None for that of the file or of the model.
        engine, model, backend, detector, landmarks, align: see `FaceEmbedder`.
    Raises:
        ConfigError, EngineError, ModelError, MissingDependencyError: see `FaceEmbedder`.

    Example:
        >>> import facemill
        >>> comparison = facemill.compare("photos/person0/0.jpg", "photos/person0/1.jpg", file="people.h5")
        >>> -1 <= comparison.score <= 1
        True
    """
    finding: dict[str, Any] = {"detector": detector, "landmarks": landmarks, "align": align}
    with FaceEmbedder(file=file, engine=engine, model=model, backend=backend, **finding) as embedder:
        return embedder.compare(a, b, threshold=threshold)


def detect(
    photos: PhotoInput | Sequence[PhotoInput],
    *,
    detector: PathLike | Engine | None = None,
    landmarks: PathLike | Engine | None = None,
    backend: str = "auto",
    min_score: float = defaults.MIN_SCORE,
) -> list[Detection]:
    """Detect the faces in each photo.

    Args:
        photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
        detector: a registered name, a model file or an engine file; None for the default of this machine.
        landmarks: the network that looks at each face once more: as for `detector`, or "none".
        backend: "cpu", "cuda", "tensorrt", or "auto" for the fastest on this machine.
        min_score: minimum detection confidence, 0 to 1.
    Returns:
        One detection a photo, in the same order: the main face first, no face, or an error.
    Raises:
        ConfigError: the score is out of range.
        EngineError, ModelError, MissingDependencyError: the detector cannot be loaded or built.

    Example:
        >>> import facemill
        >>> (detection,) = facemill.detect("photos/person0/0.jpg", detector="facemill-det")
        >>> len(detection.faces), len(detection.faces[0].landmarks)
        (1, 5)
    """
    engine = choose_detector(detector, align="detect", backend=backend)
    assert engine is not None
    look = choose_landmarks(landmarks, backend=backend)
    look = look and rebuild_if_stale(look)
    with PhotoDetector(rebuild_if_stale(engine), landmarks=look, min_score=min_score) as opened:
        return opened.detect(photo_list(photos))
