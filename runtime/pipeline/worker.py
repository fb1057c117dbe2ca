"""One process of a run: its photos through the stages, into segments of its own."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..engines.backends import open_runner
from ..errors import StorageError
from ..interrupt import Control, raise_if_stopping
from ..records import Batch, Embedded, Encoded, Status
from ..sources.source import Source
from ..storage.segments import SegmentWriter
from .face_work import crop_stages
from .request import Request
from .settings import Settings, usable_cores
from .stages import Chain, Pipeline, Stage, StageClock
from .work import BatchLimit, Embed, Read, SkipDuplicates

if TYPE_CHECKING:
    from .gpu_embed import EmbedOnGpu

_BATCH_ROWS = 16  # at least: few enough that a signal finds little in flight

Clocks = dict[str, StageClock]  # by stage, in the order of the journey


@dataclass(frozen=True, slots=True)
class Task:
    """The work of one process of a run, as it travels to that process.

    Attributes:
        request: of the run, resolved.
        plan_id: of the run.
        folder: where the segments go.
        settings: how the work is divided.
        process: number of the process; segments carry it, so that no two processes write one file.
    """

    request: Request
    plan_id: str
    folder: Path
    settings: Settings
    process: int = 0

    def clocks(self) -> Clocks:
        """A clock for each stage."""
        settings, on_gpu = self.settings, self.request.decoder == "dali"
        workers = {"read": settings.readers}
        if self.request.skip_duplicates:
            workers["deduplicate"] = 1
        # On the GPU a batch is decoded in the slot that embeds it.
        workers["decode"] = settings.streams if on_gpu else settings.decoders
        if self.request.detector:
            # On the CPU it may need every core: with fewer threads the engine would wait for it.
            workers["detect"] = settings.streams if on_gpu else usable_cores()
        workers |= {"infer": settings.streams, "write": 1}
        return {name: StageClock(name, count) for name, count in workers.items()}


@dataclass(frozen=True, slots=True)
class RunContext:
    """What a task works with. It stays in its process.

    Attributes:
        source: of the photos.
        control: pauses and stops the work.
        skip: drops duplicates; None if they are kept.
        clocks: of `Task.clocks`.
        advance: is told how many photos were finished, and their outcomes; 0 when none was for a second.
    """

    source: Source
    control: Control
    skip: SkipDuplicates | None = None
    clocks: Clocks = field(default_factory=dict)
    advance: Callable[[int, Mapping[str, int]], None] = lambda photos, counts: None


def embed_task(task: Task, rows: NDArray[np.int64], context: RunContext) -> tuple[float, int]:
    """Embed some rows into segments. What is complete is kept, however this ends.

    Args:
        task: what to do.
        rows: (n,) int64, ascending.
        context: what to do it with.
    Returns:
        When it began after warm-up (time.perf_counter), and how many rows were done.
    Raises:
        FacemillError: a stage failed, or a segment cannot be written.
        Interrupted: the run was stopped before the first photo.
    """
    with _embedding(task, context.clocks) as embedding:
        raise_if_stopping(context.control)
        reading = Chain.of(Stage(context.clocks["read"], Read(context.source), 4))
        if context.skip is not None:
            reading = reading.then(Stage(context.clocks["deduplicate"], context.skip, 2))
        began = time.perf_counter()
        batches = _batches(rows, task.settings.batch_size, context.control)
        return began, _write(task, context, Pipeline(batches, reading.join(embedding)))


@contextmanager
def _embedding(task: Task, clocks: Clocks) -> Iterator[Chain[Encoded, Embedded]]:
    """The stages from encoded photos to vectors, warmed up."""
    request, settings = task.request, task.settings
    if request.decoder == "dali":
        with open_embed_on_gpu(request, settings, clocks) as embed_on_gpu:
            embed_on_gpu.warm_up()
            yield Chain.of(Stage(StageClock("embed", settings.streams), embed_on_gpu, 2 * settings.streams))
        return
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(request.engine, threads=settings.threads))
        detector = stack.enter_context(open_runner(request.detector, threads=1)) if request.detector else None
        embed = Embed(runner, BatchLimit(settings.batch_size))
        embed.warm_up()
        crops = crop_stages(
            runner.info, request.limits, request.faces, detector, clocks=clocks, ahead=settings.streams + 2
        )
        yield crops.then(Stage(clocks["infer"], embed, 2 * settings.streams))


def open_embed_on_gpu(request: Request, settings: Settings, clocks: Clocks) -> AbstractContextManager[EmbedOnGpu]:
    """The one stage of a request whose photos stay on the GPU.

    Args:
        request: its decoder is DALI.
        settings: how the work is divided.
        clocks: of decoding, inference and, if faces are looked for, detection.
    Raises:
        FacemillError: see gpu_embed and gpu_faces.
    """
    if request.detector is None:
        from .gpu_embed import open_embed_photos

        return open_embed_photos(request, settings, clocks)
    from .gpu_faces import open_embed_faces

    return open_embed_faces(request, request.detector, settings, clocks)


def _write(task: Task, context: RunContext, pipeline: Pipeline[Batch, Embedded]) -> int:
    """Finished batches into segments; returns the photos done."""
    request, done, clock = task.request, 0, context.clocks["write"]
    writer = SegmentWriter(
        task.folder,
        plan_id=task.plan_id,
        dimension=request.engine.info.dimension,
        dtype=request.dtype,
        digests=request.skip_duplicates,
        rules=request.run.segments,
        process=task.process,
        faces=request.detector is not None,
    )
    try:
        with pipeline:
            for batch in pipeline.ready(every_s=1.0):
                if batch is None:  # slow, or paused: what is here must not wait for more
                    writer.commit_when_due()
                    context.advance(0, {})
                    continue
                with clock.work(len(batch)):
                    writer.append(batch)
                done += len(batch)
                counts = Counter(outcome.status.label for outcome in batch.outcomes)
                counts[Status.EMBEDDED.label] = len(batch) - len(batch.outcomes)  # a photo may have several rows
                context.advance(len(batch), counts)
    except StorageError:
        writer.discard()
        raise
    except BaseException:
        writer.commit()
        raise
    with clock.work(0):
        writer.commit()
    return done


def _batches(rows: NDArray[np.int64], batch_size: int, control: Control) -> Iterator[Batch]:
    """Rows in runs of whole engine batches, until the run is to stop."""
    size = batch_size * math.ceil(_BATCH_ROWS / batch_size)
    for start in range(0, len(rows), size):
        if not control.wait():
            return
        yield Batch(rows[start : start + size])
