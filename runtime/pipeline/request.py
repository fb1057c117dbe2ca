"""What a caller asks of a run, and the contract that follows from it."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..engines.backends import backend_of
from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine, EngineInfo
from ..errors import ConfigError
from ..extras import available, pip_install
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..sources.source import Source
from ..storage.segments import SegmentRules

logger = logging.getLogger(__name__)

UNTRAINED_WARNING = "random weights: these embeddings identify nobody"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a run is carried out. Nothing of it changes the file.

    Attributes:
        batch_size: images in one call of the engine; None to tune.
        workers: threads that decode; None to tune.
        devices: one process each: "cpu", or the number of a GPU. Empty: this process does the work.
        segments: when a segment ends.
    Raises:
        ConfigError: a value is outside its range.
    """

    batch_size: int | None = None
    workers: int | None = None
    devices: tuple[str, ...] = ()
    segments: SegmentRules = field(default_factory=SegmentRules)

    def __post_init__(self) -> None:
        for device in self.devices:
            if device != "cpu" and not device.isdecimal():
                raise ConfigError(f"--device names {device!r}; wanted: cpu, or numbers of GPUs, such as 0,1")
        for name, value in (("--batch-size", self.batch_size), ("--workers", self.workers)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; wanted: auto, or 1 and more")


@dataclass(frozen=True, slots=True)
class Request:
    """One run of `process`.

    The defaults are those of the command. So faces are looked for, and an engine of a detector has to be named, unless
    `faces` is FaceRules(align="none"): then every photo is taken as an aligned crop.

    Attributes:
        inputs: folders, files and @lists to scan, or a source.
        output: the embedding file.
        engine: embeds the crops.
        detector: finds the faces; None if faces are not looked for.
        faces: how faces are looked for and which count.
        limits: photos that are refused before decoding.
        limit: only the first so many photos of the scan; None for all.
        decoder: "opencv", "dali" (on the GPU, for a TensorRT engine), or "auto": DALI where it can be used.
        dtype: "float32" or "float16", of `/embeddings`.
        skip_duplicates: leave out files that are the same as an earlier one, to the byte.
        retry: run failed photos again.
        force: start over and replace the output.
        like: files that the output will be joined with: the output and its run folder are not more readable than any
            of them.
        run: how the work is carried out.
    Raises:
        ConfigError: a value is outside its range, or two do not go together.
    """

    inputs: tuple[str, ...] | Source
    output: Path
    engine: Engine
    detector: Engine | None = None
    faces: FaceRules = field(default_factory=FaceRules)
    limits: Limits = field(default_factory=Limits)
    limit: int | None = None
    decoder: str = "auto"
    dtype: str = "float32"
    skip_duplicates: bool = False
    retry: bool = False
    force: bool = False
    like: tuple[Path, ...] = ()
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"--dtype is {self.dtype!r}; wanted: float32 or float16")
        if len(self.run.devices) > 1 and self.skip_duplicates:
            raise ConfigError("--skip-duplicates and several --device exclude each other; wanted: one of them")
        if self.decoder not in ("auto", "opencv", "dali"):
            raise ConfigError(f"--decoder is {self.decoder!r}; wanted: auto, opencv or dali")
        if self.faces.detects != (self.detector is not None):
            raise ConfigError(
                f"--align is {self.faces.align} and the detector is {self.detector}; wanted: an engine of a face "
                f"detector if faces are looked for, and none otherwise"
            )


def resolve_request(request: Request) -> Request:
    """A request that can be carried out: engines that this machine can run, its decoder chosen, its output's links
    resolved (one file has one name and one lock).

    Raises:
        ConfigError: the output is no file, the batch size is not in the engine's profile, an engine is of the wrong
            kind or for another device, or the decoder cannot feed the engine.
        EngineError: an engine is stale and cannot be built again.
        MissingDependencyError: DALI was asked for and is not installed.
    """
    detector = rebuild_if_stale(request.detector) if request.detector else None
    request = replace(request, engine=rebuild_if_stale(request.engine), detector=detector)
    info = request.engine.info
    if not request.output.name or request.output.is_dir():
        raise ConfigError(f"-o is {str(request.output)!r}, a folder; wanted: the name of a file, such as people.h5")
    low, _, high = info.profile
    if request.run.batch_size is not None and not low <= request.run.batch_size <= high:
        raise ConfigError(
            f"--batch-size is {request.run.batch_size}; wanted: {low} to {high}, what {request.engine} is built for. "
            f"For others, build one: facemill build-engine --model {info.model} --batch MIN,OPT,MAX"
        )
    if request.detector is not None and not request.detector.info.detects:
        raise ConfigError(
            f"{request.detector} is an engine of {request.detector.info.model}, which finds no faces; wanted: "
            f"one of a detector, such as facemill-det. Build it with: facemill build-engine --model facemill-det"
        )
    if info.detects:
        raise ConfigError(
            f"{request.engine} is an engine of {info.model}, which finds faces and embeds none; wanted: one that "
            f"embeds. Name that one with --engine, and this one with --detector"
        )
    for device in request.run.devices:
        if (device == "cpu") == backend_of(info.backend).on_gpu:
            named = "cpu" if device == "cpu" else "a GPU"  # its number is CUDA's by now, not the user's
            raise ConfigError(
                f"--device names {named}, and the engine {request.engine} is for the backend {info.backend}; "
                f"wanted: devices that it runs on. Give another --backend or --engine"
            )
    output = Path(os.path.realpath(request.output))
    return replace(request, output=output, decoder=_decoder(request, info))


def _decoder(request: Request, info: EngineInfo) -> str:
    """Which decoder it is to be; a named one never becomes another."""
    wanted, engines = request.decoder, [info, *([request.detector.info] if request.detector else [])]
    others = [engine.backend for engine in engines if not backend_of(engine.backend).keeps_photos]
    on_gpu = not others
    if wanted == "dali" and not on_gpu:
        raise ConfigError(
            f"--decoder dali was given with an engine for {others[0]}; wanted: engines for "
            f"tensorrt, the detector's too, since DALI's photographs stay on the GPU. Use --decoder opencv, or "
            f"--backend tensorrt"
        )
    if wanted == "auto" and on_gpu and not available("nvidia.dali"):
        logger.info("decoding on the CPU: DALI is not installed (%s)", pip_install("gpu"))
        return "opencv"
    if wanted == "auto":
        return "dali" if on_gpu else "opencv"
    return wanted
