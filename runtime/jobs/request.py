"""The request of a job: what is embedded into which file, and how. It becomes a call of `process`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .. import defaults
from ..api.jobs import parse_attributes
from ..counts import LARGEST
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..modelspec import list_specs
from ..pipeline.request import RunOptions
from ..schema import Annotated, Rule, convert
from ..sources.kinds import Patterns
from ..storage.segments import SegmentRules

_ALIGN = Rule('"auto", "detect" or "none"', lambda value: value in ("auto", "detect", "none"))
_FACES = Rule('"largest", "all" or "one"', lambda value: value in ("largest", "all", "one"))
_PAGES = Rule('"main" or "all"', lambda value: value in ("main", "all"))
_DTYPE = Rule('"float32" or "float16"', lambda value: value in ("float32", "float16"))
_COUNT = Rule(f"a whole number from 1 to {LARGEST}", lambda value: 1 <= value <= LARGEST)


@dataclass(frozen=True, slots=True)
class JobOptions:
    """Options of a job, with the names and defaults of `facemill process`.

    Attributes:
        model: a registered model; None for that of the server.
        detector: a registered detector; None for that of the server.
        landmarks: a registered landmark network, or "none"; None for that of the server.
        align: "auto", "detect" or "none"; None for that of the server.
        faces: "largest", "all" or "one".
        min_score, min_iod, min_sharpness, min_brightness, min_contrast, min_frontal, max_fit: limits of a face, see
            `faces.rules.FaceRules`.
        pages: "main" or "all" pages of a TIFF file.
        attributes: "age", "gender" or both, "age,gender"; None for neither.
        dtype: "float32" or "float16", of the stored embeddings.
        skip_duplicates: embed files that are the same, byte for byte, only once.
        retry: process the failed photos of a finished file again.
        include, exclude: patterns of names to take, and to leave out.
        limit: process only the first N photos, in scan order.
        batch_size, workers: None to measure the best numbers.
    """

    model: str | None = None
    detector: str | None = None
    landmarks: str | None = None
    align: Annotated[str | None, _ALIGN] = None
    faces: Annotated[str, _FACES] = defaults.FACES
    min_score: float = defaults.MIN_SCORE
    min_iod: float = defaults.MIN_IOD_PX
    min_sharpness: float = defaults.MIN_SHARPNESS
    min_brightness: float = defaults.MIN_BRIGHTNESS
    min_contrast: float = defaults.MIN_CONTRAST
    min_frontal: float = defaults.MIN_FRONTAL
    max_fit: float | None = None
    pages: Annotated[str, _PAGES] = defaults.PAGES
    attributes: str | None = None
    dtype: Annotated[str, _DTYPE] = defaults.DTYPE
    skip_duplicates: bool = False
    retry: bool = False
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limit: Annotated[int | None, _COUNT] = None
    batch_size: Annotated[int | None, _COUNT] = None
    workers: Annotated[int | None, _COUNT] = None

    def check(self) -> None:
        """Check what needs no engine and no photo.

        Raises:
            ConfigError: a value is out of range, or a name is no registered model: a client must not name files.
        """
        self.face_rules(defaults.ALIGN)
        if self.attributes is not None:
            parse_attributes(self.attributes)
        if any("\0" in pattern or not pattern for pattern in (*self.include, *self.exclude)):
            raise ConfigError("a pattern is empty, or has a NUL; expected: patterns of names, such as *.jpg")
        RunOptions(self.batch_size, self.workers)
        models = {spec.name: spec.task for spec in list_specs()}
        for option, name, task in (
            ("model", self.model, "embed"),
            ("detector", self.detector, "detect"),
            ("landmarks", None if self.landmarks == "none" else self.landmarks, "landmarks"),
        ):
            if name is not None and models.get(name) != task:
                known = ", ".join(sorted(model for model, does in models.items() if does == task))
                raise ConfigError(f"{option} is {name!r:.100}; expected: one of {known}")

    def face_rules(self, align: str) -> FaceRules:
        """The rules for faces.

        Raises:
            ConfigError: a value is out of range.
        """
        quality = self.min_score, self.min_iod, self.min_sharpness, self.min_frontal
        exposure = self.min_brightness, self.min_contrast
        return FaceRules(self.align or align, self.faces, *quality, *exposure, self.pages, self.max_fit)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """One job, as it was accepted.

    Attributes:
        photos: absolute folders and files.
        output: absolute path of the embedding file.
        within: absolute folders that no link may lead out of.
        named: the photos as the client named them.
        options: how the photos are embedded.
        engines: engine, model, backend, detector, landmarks and align of the server, for what `options` leave open.
        max_bytes, max_pixels: larger photos are refused.
        segment_rows, segment_seconds: when a segment of the run is complete.
        client, key: who started the job, and the key of that request; empty for none.
        created_utc: ISO 8601.
    """

    photos: tuple[str, ...]
    output: str
    within: tuple[str, ...]
    named: tuple[str, ...]
    options: JobOptions = field(default_factory=JobOptions)
    engines: dict[str, str | None] = field(default_factory=dict)
    max_bytes: int = defaults.MAX_BYTES
    max_pixels: int = defaults.MAX_PIXELS
    segment_rows: int = defaults.SEGMENT_ROWS
    segment_seconds: float = defaults.SEGMENT_SECONDS
    client: str = ""
    key: str = ""
    created_utc: str = ""

    def encode(self) -> bytes:
        """The request as JSON. Names that are not UTF-8 keep their bytes, as escapes."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, data: bytes) -> JobRequest:
        """Read what `encode` wrote.

        Raises:
            ValueError: it is damaged.
        """
        return convert(json.loads(data), cls)  # not msgspec's parser: it refuses those escapes

    def engine_choice(self) -> dict[str, Any]:
        """The engines, as arguments of `facemill.process`: those of the options, else those of the server."""
        options, chosen = self.options, dict(self.engines)
        chosen.pop("align", None)
        if options.model is not None:
            chosen |= {"engine": None, "model": options.model}
        for name, value in (("detector", options.detector), ("landmarks", options.landmarks)):
            if value is not None:
                chosen[name] = value
        if self.align == "none":
            chosen |= {"detector": None, "landmarks": None}
        return chosen

    @property
    def align(self) -> str:
        """How faces are aligned."""
        return self.options.align or self.engines.get("align") or defaults.ALIGN

    def arguments(self) -> dict[str, Any]:
        """The arguments of `facemill.process`, without listener and control."""
        options = self.options
        return {
            **self.engine_choice(),
            "photos": list(self.photos),
            "output": self.output,
            "within": self.within,
            "faces": options.face_rules(self.align),
            "attributes": options.attributes,
            "batch_size": options.batch_size,
            "workers": options.workers,
            "skip_duplicates": options.skip_duplicates,
            "retry": options.retry,
            "patterns": Patterns(options.include, options.exclude),
            "limit": options.limit,
            "dtype": options.dtype,
            "limits": Limits(self.max_bytes, self.max_pixels),
            "segments": SegmentRules(self.segment_rows, self.segment_seconds),
        }


def engines_of(values: Mapping[str, Any]) -> dict[str, str | None]:
    """The engines of a server as text, with absolute paths, so that a job does not depend on the working folder."""
    from pathlib import Path

    engines: dict[str, str | None] = {}
    for name, value in values.items():
        text = None if value is None else str(value)
        is_file = text is not None and (isinstance(value, Path) or Path(text).is_file())
        engines[name] = str(Path(text).absolute()) if is_file and text is not None else text
    return engines
