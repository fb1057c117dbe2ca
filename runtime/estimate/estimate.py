"""Estimate what embedding, searching and comparing N photos takes on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import defaults
from ..counts import LARGEST, LARGEST_DIMENSION, check_count
from ..engines.engine import Engine
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..modelspec import load_spec
from ..modelstore import SHIPPED_LANDMARKS, default_detector, default_model
from ..search.embedder import QueryRules
from ..sources.kinds import Patterns
from ..sources.scan import scan
from ..sources.source import FileSource
from .machine import find_engine, guess_rate, measure_engine_rate, measure_photo_rate, probe_gpu, probe_machine
from .plan import Item, Job, Machine, Rate, items_to_dict, plan_job


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimate of a job.

    Attributes:
        job: number and kind of the photos and their embeddings.
        model: name of the model.
        machine: measured figures of this machine.
        items: time, disk and memory, in the order of the job.
        passed_over: number of files and folders that the scan left out, by ending or pattern.
    """

    job: Job
    model: str
    machine: Machine
    items: tuple[Item, ...]
    passed_over: dict[str, int] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """Names of the items that do not fit, or take long."""
        return [f"{item.section} ({item.name})" for item in self.items if item.problem]

    def to_dict(self) -> dict[str, Any]:
        """Return the estimate as JSON-ready data."""
        machine = {key: value for key, value in asdict(self.machine).items() if key != "rate"}
        facts = {"model": self.model, "fits": not self.problems, "machine": machine}
        facts |= {"passed_over": self.passed_over}
        return {**asdict(self.job), **facts, **items_to_dict(list(self.items))}


def estimate(
    photos: Sequence[str] = (),
    *,
    count: int | None = None,
    patterns: Patterns | None = None,
    within: Sequence[str] = (),
    limit: int | None = None,
    engine: Engine | None = None,
    model: str | None = None,
    align: str = defaults.ALIGN,
    dimension: int | None = None,
    dtype: str = defaults.DTYPE,
    output: Path = Path(defaults.OUTPUT),
    gpu_bytes: int | None = None,
) -> Estimate:
    """Estimate a job in some ten seconds. Nothing is written.

    Args:
        photos: folders, files and @lists; empty if the photos are not on this machine.
        count: number of photos, if they are not on this machine.
        patterns: names of files and folders to take and to leave out; None for the usual ones.
        within, limit: see `facemill.process`.
        engine: engine for embedding; None for an engine of the model.
        model: a registered name or a model file; None for the default of this machine.
        align: "none" for photos that are aligned crops, without face detection.
        dimension: numbers per embedding; None for the model's.
        dtype: "float32" or "float16", of the stored embeddings.
        output: path of the future embedding file; its disk must have the space.
        gpu_bytes: free memory of the target GPU; None for the GPU of this machine.
    Raises:
        ConfigError: the folder of the output does not exist, or a number is out of range.
        SourceError: the inputs hold no photos.
        AccessError: a photo or a link leads out of `within`.
        EngineError, ModelError: an engine does not run here, or a model is unknown.
    """
    for label, value, largest in (
        ("count", count, LARGEST),
        ("dimension", dimension, LARGEST_DIMENSION),
        ("limit", limit, LARGEST),
    ):
        if value is not None:
            check_count(label, value, largest=largest)
    folder = output.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"the folder of {output} does not exist. Create it, or name another file with -o")
    scanned = scan(photos, patterns=patterns, within=within, limit=limit) if photos else FileSource(b"/", [])
    name, model_dimension, rate = _embedding(engine, model, align, scanned)
    gpu_free, gpu = (gpu_bytes, "as given") if gpu_bytes else probe_gpu()
    job = Job(
        photographs=count or len(scanned.names),
        dimension=dimension or model_dimension,
        dtype=dtype,
        faces=align != "none",
        longest=max(map(len, scanned.names), default=64),
    )
    machine = probe_machine(folder, job.dimension, rate, gpu_free, gpu)
    return Estimate(job, name, machine, tuple(plan_job(job, machine)), dict(scanned.passed_over))


def _embedding(
    engine: Engine | None, model: str | None, align: str, scanned: FileSource
) -> tuple[str, int, Callable[[float], Rate]]:
    """Return the model's name and dimension, and a function from the machine's FLOP/s to the rate of embedding."""
    if engine is None:
        spec = load_spec(model or default_model())
        engine = find_engine(spec)
        if engine is None:
            return spec.name, spec.dimension, lambda flops: guess_rate(flops, spec.name)
    built, info = engine, engine.info
    finders: list[Engine] = []  # the detector and the landmark network
    for name in (default_detector(), SHIPPED_LANDMARKS) if align != "none" else ():
        finder_spec = load_spec(name)
        finder = find_engine(finder_spec)
        if finder is None:
            return info.model, info.dimension, lambda flops, spec=finder_spec: guess_rate(flops, spec.name)
        finders.append(finder)
    if not scanned.names:
        return info.model, info.dimension, lambda _: measure_engine_rate(built, finders)
    detector, landmarks = finders or (None, None)
    rules = QueryRules(built, detector, FaceRules(align), landmarks=landmarks)
    paths = [os.path.join(scanned.root, path) for path in scanned.names]
    return info.model, info.dimension, lambda _: measure_photo_rate(rules, paths)
