"""The request of a run: what to embed, and how."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from .. import defaults
from ..attributes.answers import VALUES
from ..attributes.head import Head
from ..contents import HDF5
from ..counts import MOST_WORKERS, check_count
from ..engines.backends import backend_of
from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine, EngineInfo, sidecar_path
from ..errors import ConfigError
from ..extras import available, pip_install
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..outputs import refuse_inputs, refuse_other_kind, refuse_special
from ..sources.kinds import Patterns
from ..sources.source import Source
from ..storage.segments import SegmentRules

logger = logging.getLogger(__name__)

FROM_EMBEDDINGS = "embeddings"  # the source of attributes that no photo was read for
UNTRAINED_WARNING = "random weights: these embeddings identify nobody"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How the work of a run is carried out. None of it changes the file.

    Attributes:
        batch_size: images in one call of the engine; None to tune.
        workers: threads that decode; None to tune.
        devices: "cpu" or the number of a GPU, for one process each. Empty: this process does the work.
        segments: when a segment is complete.
        max_unreadable: photos in a row that may be unreadable before the run stops; 0 for no limit.
    Raises:
        ConfigError: a value is outside its range.
    """

    batch_size: int | None = None
    workers: int | None = None
    devices: tuple[str, ...] = ()
    segments: SegmentRules = field(default_factory=SegmentRules)
    max_unreadable: int = defaults.MAX_UNREADABLE

    def __post_init__(self) -> None:
        for device in self.devices:
            if device != "cpu" and not device.isdecimal():
                raise ConfigError(f"--device names {device!r}; expected: cpu, or numbers of GPUs like 0,1")
        if self.batch_size is not None:
            check_count("--batch-size", self.batch_size)
        if self.workers is not None:
            check_count("--workers", self.workers, largest=MOST_WORKERS)
        check_count("--max-unreadable", self.max_unreadable, 0)


@dataclass(frozen=True, slots=True)
class AttributeReader:
    """What reads age and gender: an engine from the crops, or a head from the embeddings.

    Attributes:
        names: what is read, keys of ATTRIBUTE_FIELDS.
        engine: the engine for crops; None with a head.
        head: the head for embeddings; None with an engine.
    """

    names: tuple[str, ...]
    engine: Engine | None = None
    head: Head | None = None

    def contract_fields(self) -> dict[str, str]:
        """The fields of a contract that name it."""
        names = {"attribute_names": ",".join(self.names)}
        if self.engine is not None:
            info = self.engine.info
            return {**names, "attribute_model": info.model, "attribute_sha256": info.model_sha256}
        assert self.head is not None
        head = {"attribute_model": self.head.name, "attribute_sha256": self.head.sha256}
        return {**names, **head, "attribute_source": FROM_EMBEDDINGS}

    def metadata(self) -> dict[str, str]:
        """The attributes of `/metadata` that are no part of the contract."""
        return {} if self.engine is None else {"attribute_engine": os.path.abspath(self.engine.path)}


@dataclass(frozen=True, slots=True)
class Request:
    """One run of `process`.

    The defaults are those of the command: faces are detected, so `detector` is required. With
    `faces=FaceRules(align="none")` every photo is taken as an aligned crop, and `detector` has to be None.

    Attributes:
        inputs: folders, files and @lists to scan, or a source.
        output: the embedding file.
        engine: the engine that embeds the crops.
        detector: the engine that detects faces; None if no faces are detected.
        landmarks: the engine that looks at each face once more; None to crop by the landmarks of the detector.
        attributes: what reads age and gender; None to read neither.
        faces: how faces are detected and which are embedded.
        limits: size limits; larger photos are rejected before decoding.
        patterns: names of files and folders to take and to leave out.
        within: folders that no photo and no link may lead out of; none for no such limit.
        limit: number of photos to take, from the start of the scan; None for all.
        decoder: "opencv", "dali" (on the GPU, for a TensorRT engine), or "auto": DALI if it can be used.
        dtype: dtype of `/embeddings`, "float32" or "float16".
        skip_duplicates: leave out files whose bytes equal those of an earlier file.
        retry: run failed photos again.
        force: start over and replace the output.
        like: files that the output will be joined with. The output and its run folder get no wider read permissions
            than any of them.
        mode: permission bits of the output, 0 to 0o666; None for private, or those of the file that is replaced.
        run: how the work is carried out.
    Raises:
        ConfigError: a value is outside its range, or two values contradict each other.
    """

    inputs: tuple[str, ...] | Source
    output: Path
    engine: Engine
    detector: Engine | None = None
    faces: FaceRules = field(default_factory=FaceRules)
    limits: Limits = field(default_factory=Limits)
    patterns: Patterns = field(default_factory=Patterns)
    limit: int | None = None
    decoder: str = "auto"
    dtype: str = "float32"
    skip_duplicates: bool = False
    retry: bool = False
    force: bool = False
    like: tuple[Path, ...] = ()
    mode: int | None = None
    run: RunOptions = field(default_factory=RunOptions)
    landmarks: Engine | None = None
    attributes: AttributeReader | None = None
    within: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.limit is not None:
            check_count("--limit", self.limit)
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"--dtype is {self.dtype!r}; expected: float32 or float16")
        if self.mode is not None and self.mode & ~0o666:
            raise ConfigError(f"--mode is {self.mode:o}; expected: permission bits of a file, such as 600 or 640")
        if len(self.run.devices) > 1 and self.skip_duplicates:
            raise ConfigError("--skip-duplicates and several --device cannot be combined; expected: one of them")
        if self.decoder not in ("auto", "opencv", "dali"):
            raise ConfigError(f"--decoder is {self.decoder!r}; expected: auto, opencv or dali")
        if self.decoder == "dali" and self.faces.pages == "all":
            raise ConfigError(
                "--decoder dali was given with --pages all; expected: --decoder opencv or auto, because DALI reads one "
                "page of a file"
            )
        if self.decoder == "dali" and self.attributes is not None and self.detector is None:
            raise ConfigError(
                "--decoder dali, --align none and --attributes were given together; expected: --decoder opencv or auto"
            )
        if self.faces.detects != (self.detector is not None):
            raise ConfigError(
                f"--align is {self.faces.align} and the detector is {self.detector}; expected: a detector engine "
                f"if faces are detected, and none otherwise"
            )
        if self.landmarks is not None and not self.faces.detects:
            raise ConfigError(
                f"--align is none and the landmark network is {self.landmarks}; expected: no landmark network, because "
                f"no faces are detected. Use --landmarks none, or --align detect"
            )

    @property
    def finders(self) -> dict[str, Engine]:
        """The engines that find faces and landmarks, by the name of their field; none for aligned crops."""
        engines = {"detector": self.detector, "landmarks": self.landmarks}
        return {name: engine for name, engine in engines.items() if engine is not None}

    def named_files(self) -> Iterator[Path]:
        """The files that the run reads and that somebody named: lists, photos, engines; and folders of photos."""
        if isinstance(self.inputs, tuple):
            yield from (Path(name.removeprefix("@")) for name in self.inputs)
        reader = None if self.attributes is None else self.attributes.engine
        for engine in (self.engine, *self.finders.values(), *([] if reader is None else [reader])):
            yield from (engine.path, sidecar_path(engine.path))


def resolve_request(request: Request) -> Request:
    """Resolve a request: rebuild stale engines, choose the decoder, follow the links of the output.

    Links are followed so that each file has one name and one lock.

    Raises:
        ConfigError: the output is a folder, the batch size is outside the engine's profile, an engine has the wrong
            task or backend, or the decoder cannot feed the engine.
        EngineError: an engine is stale and cannot be rebuilt.
        MissingDependencyError: an engine's backend is not installed.
    """
    finders = {name: rebuild_if_stale(engine) for name, engine in request.finders.items()}
    request = replace(request, engine=rebuild_if_stale(request.engine), **finders)  # type: ignore[arg-type]
    if request.attributes is not None and request.attributes.engine is not None:
        engine = rebuild_if_stale(request.attributes.engine)
        request = replace(request, attributes=replace(request.attributes, engine=engine))
        check_attribute_engine(engine.info, request.engine.info.size)
    info = request.engine.info
    if not request.output.name or request.output.is_dir():
        raise ConfigError(f"-o is {str(request.output)!r}, a folder; expected: a file name like people.h5")
    refuse_special(request.output)
    refuse_inputs(request.output, request.named_files())
    refuse_other_kind(request.output, HDF5)
    low, _, high = info.profile
    if request.run.batch_size is not None and not low <= request.run.batch_size <= high:
        raise ConfigError(
            f"--batch-size is {request.run.batch_size}; expected: {low} to {high}, the range of {request.engine}. "
            f"Build an engine for other batch sizes: facemill build-engine --model {info.model} --batch MIN,OPT,MAX"
        )
    if request.detector is not None and not request.detector.info.detects:
        raise ConfigError(
            f"{request.detector} is an engine of {request.detector.info.model}, which does not detect faces; expected: "
            f"an engine of a detector like facemill-det. Build it with: facemill build-engine --model facemill-det"
        )
    if request.landmarks is not None and request.landmarks.info.task != "landmarks":
        raise ConfigError(
            f"{request.landmarks} is an engine of {request.landmarks.info.model}, which is no landmark network; "
            f"expected: an engine of one like facemill-landmarks, or --landmarks none"
        )
    if info.task != "embed":
        does, other = {
            "detect": ("detects faces", ", and pass this one to --detector"),
            "landmarks": ("finds the landmarks of faces", ", and pass this one to --landmarks"),
        }.get(info.task, ("reads age and gender", ""))
        raise ConfigError(
            f"{request.engine} is an engine of {info.model}, which {does} and does not embed faces; expected: an "
            f"engine that embeds. Name it with --engine{other}"
        )
    for device in request.run.devices:
        if (device == "cpu") == backend_of(info.backend).on_gpu:
            label = "cpu" if device == "cpu" else "a GPU"  # its number is CUDA's by now, not the user's
            raise ConfigError(
                f"--device names {label}, but the engine {request.engine} is for the backend {info.backend}; "
                f"expected: a device of that backend. Change --device, --backend or --engine"
            )
    output = Path(os.path.realpath(request.output))
    return replace(request, output=output, decoder=_decoder(request, info))


def check_attribute_engine(info: EngineInfo, size: int) -> None:
    """Check that an engine reads attributes from crops of this side.

    Raises:
        ConfigError: it does not.
    """
    if info.task != "attributes" or info.dimension != VALUES or info.size != size:
        raise ConfigError(
            f"the engine of {info.model} is for {info.task}, and takes {info.size}x{info.size} crops; expected: an "
            f"engine for attributes that takes {size}x{size}, the crops of the model that embeds"
        )


def _decoder(request: Request, info: EngineInfo) -> str:
    """Choose the decoder. A decoder that the user named is never replaced."""
    engines = [info, *(engine.info for engine in request.finders.values())]
    decoder = request.decoder
    host_backends = [engine.backend for engine in engines if not backend_of(engine.backend).keeps_photos]
    on_gpu = not host_backends
    if decoder == "dali" and not on_gpu:
        raise ConfigError(
            f"--decoder dali was given with an engine for {host_backends[0]}; expected: engines for "
            f"tensorrt, including the detector and the landmark network, because DALI's photos stay on the GPU. Use "
            f"--decoder opencv, or --backend tensorrt"
        )
    # Aligned crops that DALI decodes never come to the host, where attributes are read.
    reads_crops = request.attributes is not None and request.detector is None
    if decoder == "auto" and (request.faces.pages == "all" or reads_crops):
        return "opencv"
    if decoder == "auto" and on_gpu and not available("nvidia.dali"):
        logger.info("decoding on the CPU: DALI is not installed (%s)", pip_install("gpu"))
        return "opencv"
    if decoder == "auto":
        return "dali" if on_gpu else "opencv"
    return decoder
