"""The library: from photos to embeddings, files and answers. `import facemill` gives all of it.

Commands, notebooks and servers call these functions. Names of models, detectors and backends become engines here, and
all defaults are those of the command line (`defaults.py`).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from . import defaults
from .engines.choose import choose_detector, choose_engine
from .engines.engine import Engine, read_engine
from .engines.stale import rebuild_if_stale
from .faces.rules import FaceRules
from .images.decode import Limits
from .metrics.falsematch import Calibration
from .search import compare as comparing
from .search.compare import Comparison
from .search.embedder import Embedding, PhotoEmbedder, PhotoInput, QueryRules, photo_list
from .search.file_rules import rules_of
from .storage.comparable import find_calibration
from .storage.gallery import Gallery

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
        align: str = defaults.ALIGN,
        min_score: float = defaults.MIN_SCORE,
    ) -> None:
        """Choose the engines; build them if there are none up to date.

        Args:
            file: embed as the rows of this file were, and compare with its calibration. Only `engine` goes with it.
            engine: an engine file; None to choose by model and backend.
            model: a registered name or a model file (`PATH.toml`); None for the default of this machine.
            backend: "cpu", "cuda", "tensorrt", or "auto" for the fastest on this machine.
            detector: a registered name, a model file or an engine file; None for the default of this machine.
            align: "detect" aligns the faces of every photo, "none" takes photos whole as aligned crops, "auto" takes
                those of exactly the crop's size whole.
            min_score: minimum detection confidence, 0 to 1.
        Raises:
            ConfigError: options exclude each other, or a value is out of range.
            StorageError, ContractError: the file cannot be read, or the engine does not fit it.
            EngineError, ModelError: an engine cannot be loaded or built, or a model is unknown or not to be had.
        """
        self._calibration: Calibration | None = None
        if file is None:
            rebuilt = rebuild_if_stale(choose_engine(engine, model=model, backend=backend))
            faces = FaceRules(align, threshold=min_score, min_iod=0.0)
            rules = QueryRules(rebuilt, choose_detector(detector, align=align, backend=rebuilt.info.backend), faces)
        else:
            given = engine if engine is None or isinstance(engine, Engine) else read_engine(Path(engine))
            with Gallery(Path(file)) as gallery:
                rules, self._calibration = rules_of(gallery, given), find_calibration(gallery)
        self._photos = PhotoEmbedder(rules)

    @property
    def limits(self) -> Limits:
        """The photos that are refused before decoding."""
        return self._photos.rules.limits

    def embed(self, photos: PhotoInput | Sequence[PhotoInput]) -> list[Embedding]:
        """Embed the main face of each photo.

        Args:
            photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
        Returns:
            One embedding a photo, in the same order; a photo that cannot be embedded has one with its error.
        Raises:
            ConfigError: a photo is no photo.
            EngineError, MissingDependencyError: an engine cannot be loaded.
        """
        return self._photos.embed(photo_list(photos))

    def compare(self, a: PhotoInput, b: PhotoInput, *, threshold: float | None = None) -> Comparison:
        """Say whether two photos show the same person.

        Args:
            a, b: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
            threshold: the score from which they do, -1 to 1; None for that of the file or of the model.
        Raises:
            ConfigError: a photo is no photo.
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
