"""The work of one process of a run: its photos pass through the stages into its own segments."""

from __future__ import annotations

import logging
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
from ..interrupt import Control, pause, raise_if_stopping
from ..records import Batch, Embedded, Encoded, Status
from ..sources.source import Source
from ..sources.streaks import Streaks
from ..storage.segments import SegmentWriter
from .face_work import crop_stages
from .request import Request
from .settings import Settings, usable_cores
from .stages import Chain, Pipeline, Stage, StageClock
from .work import BatchLimit, Embed, Read, ReadAttributes, ReadEmbeddings, SkipDuplicates

if TYPE_CHECKING:
    from .gpu_embed import EmbedOnGpu

logger = logging.getLogger(__name__)

_MIN_BATCH_ROWS = 16  # small, so that little is in flight when a signal arrives

Clocks = dict[str, StageClock]  # by name of the stage, in their order


@dataclass(frozen=True, slots=True)
class Task:
    """The work of one process of a run. It is pickled and sent to that process.

    Attributes:
        request: the resolved request of the run.
        plan_id: the plan id of the run.
        folder: the folder of the segments.
        settings: batch size and numbers of threads.
        process: number of the process. It is part of the segment names, so that no two processes write one file.
    """

    request: Request
    plan_id: str
    folder: Path
    settings: Settings
    process: int = 0

    def clocks(self) -> Clocks:
        """Make a clock for each stage."""
        settings, on_gpu = self.settings, self.request.decoder == "dali"
        workers = {"read": settings.readers}
        if self.request.skip_duplicates:
            workers["deduplicate"] = 1
        # On the GPU a batch is decoded in the slot that embeds it.
        workers["decode"] = settings.streams if on_gpu else settings.decoders
        if self.request.detector:
            # Detection on the CPU may need every core: with fewer threads the engine would wait for it.
            workers["detect"] = settings.streams if on_gpu else usable_cores()
        if self.request.attributes:
            # From crops it needs every core, as detection does; on the GPU it is part of the stage that embeds.
            alone = on_gpu or self.request.attributes.engine is None
            workers["attributes"] = 1 if alone else usable_cores()
        workers |= {"infer": settings.streams, "write": 1}
        return {name: StageClock(name, count) for name, count in workers.items()}


@dataclass(frozen=True, slots=True)
class RunContext:
    """The objects that a task works with. They stay in their process.

    Attributes:
        source: the photos.
        control: pauses and stops the work.
        skip: the stage that drops duplicates; None if they are kept.
        clocks: the clocks of `Task.clocks`.
        advance: called with the number of photos that were finished, and the counts of their outcomes. It is also
            called with 0 after a second without any.
    """

    source: Source
    control: Control
    skip: SkipDuplicates | None = None
    clocks: Clocks = field(default_factory=dict)
    advance: Callable[[int, Mapping[str, int]], None] = lambda photos, counts: None


def embed_task(task: Task, rows: NDArray[np.int64], context: RunContext) -> tuple[float, int]:
    """Embed rows into segments. Finished rows are kept even after an error.

    Args:
        task: the work.
        rows: (n,) int64, ascending.
        context: the objects to work with.
    Returns:
        The time at which the work started after warm-up (time.perf_counter), and the number of finished rows.
    Raises:
        FacemillError: a stage failed, or a segment cannot be written.
        Interrupted: the run was stopped before the first photo, or while it waited for the machine.
    """
    with _embedding(task, context.clocks) as embedding:
        raise_if_stopping(context.control)
        reading = Chain.of(
            Stage(
                context.clocks["read"],
                Read(context.source, Streaks(context.source, task.request.run.max_unreadable)),
                4,
            )
        )
        if context.skip is not None:
            reading = reading.then(Stage(context.clocks["deduplicate"], context.skip, 2))
        start_s = time.perf_counter()
        batches = _batches(rows, task.settings.batch_size, context.control)
        pipeline = Pipeline(batches, reading.join(embedding), lambda pause_s: pause(pause_s, context.control))
        return start_s, _write(task, context, pipeline)


@contextmanager
def _embedding(task: Task, clocks: Clocks) -> Iterator[Chain[Encoded, Embedded]]:
    """Open and warm up the stages from encoded photos to vectors."""
    request, settings = task.request, task.settings
    if request.decoder == "dali":
        with open_embed_on_gpu(request, settings, clocks) as embed_on_gpu:
            embed_on_gpu.warm_up()
            embedding = Chain.of(Stage(StageClock("embed", settings.streams), embed_on_gpu, 2 * settings.streams))
            yield _with_head(embedding, request, clocks)
        return
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(request.engine, threads=settings.threads))
        finders = {name: stack.enter_context(open_runner(each, threads=1)) for name, each in request.finders.items()}
        embed = Embed(runner, BatchLimit(settings.batch_size))
        embed.warm_up()
        crops = crop_stages(
            runner.info,
            request.limits,
            request.faces,
            finders.get("detector"),
            finders.get("landmarks"),
            clocks=clocks,
            ahead=settings.streams + 2,
        )
        if request.attributes and request.attributes.engine:
            reader = stack.enter_context(open_runner(request.attributes.engine, threads=1))
            read = ReadAttributes(reader, request.attributes.names, runner.info.channel_order)
            crops = crops.then(Stage(clocks["attributes"], read, settings.streams + 2))
        yield _with_head(crops.then(Stage(clocks["infer"], embed, 2 * settings.streams)), request, clocks)


def _with_head(chain: Chain[Encoded, Embedded], request: Request, clocks: Clocks) -> Chain[Encoded, Embedded]:
    """Add the stage that reads attributes from embeddings, if the request has one."""
    if request.attributes is None or request.attributes.head is None:
        return chain
    read = ReadEmbeddings(request.attributes.head, request.attributes.names)
    return chain.then(Stage(clocks["attributes"], read, 2))


def open_embed_on_gpu(request: Request, settings: Settings, clocks: Clocks) -> AbstractContextManager[EmbedOnGpu]:
    """Open the single stage that decodes and embeds on the GPU.

    Args:
        request: a resolved request with the decoder "dali".
        settings: batch size and numbers of threads.
        clocks: with "decode", "infer" and, if faces are detected, "detect".
    Raises:
        FacemillError: DALI or an engine cannot be opened.
    """
    if request.detector is None:
        from .gpu_embed import open_embed_photos

        return open_embed_photos(request, settings, clocks)
    from .gpu_faces import open_embed_faces

    return open_embed_faces(request, request.detector, settings, clocks)


def _write(task: Task, context: RunContext, pipeline: Pipeline[Batch, Embedded]) -> int:
    """Write finished batches to segments. Returns the number of photos."""
    request, done, zeros, clock = task.request, 0, 0, context.clocks["write"]
    writer = SegmentWriter(
        task.folder,
        plan_id=task.plan_id,
        dimension=request.engine.info.dimension,
        dtype=request.dtype,
        digests=request.skip_duplicates,
        rules=request.run.segments,
        process=task.process,
        faces=request.detector is not None,
        pages=request.faces.pages == "all",
        attributes=request.attributes.names if request.attributes else (),
    )
    try:
        with pipeline:
            for batch in pipeline.ready(every_s=1.0):
                if batch is None:  # slow or paused: rows in memory must not wait for more
                    with _writing(writer):
                        writer.commit_when_due()
                    context.advance(0, {})
                    continue
                with clock.work(len(batch)), _writing(writer):
                    writer.append(batch)
                done += len(batch)
                zeros += int((~batch.embeddings.any(axis=1)).sum())
                counts = Counter(outcome.status.label for outcome in batch.outcomes)
                counts[Status.EMBEDDED.label] = len(batch) - len(batch.outcomes)  # a photo may have several rows
                context.advance(len(batch), counts)
    except BaseException:  # a stage died: what was finished before is kept
        _commit_after_failure(writer)
        raise
    with clock.work(0), _writing(writer):
        writer.commit()
    if zeros:
        logger.warning(
            "%d of the embeddings of this run are zeros, because the network answered zero: they match no photo. Check "
            "the model, and its precision: facemill build-engine --model %s --precision fp32",
            zeros,
            request.engine.info.model,
        )
    return done


@contextmanager
def _writing(writer: SegmentWriter) -> Iterator[None]:
    """Drop the open segment if a write fails: nothing can be added to it any more."""
    try:
        yield
    except StorageError:
        writer.discard()
        raise


def _commit_after_failure(writer: SegmentWriter) -> None:
    """Commit the open segment. An error here is logged, because the first error says why the run stopped."""
    try:
        with _writing(writer):
            writer.commit()
    except StorageError as err:
        logger.warning("the last segment cannot be kept, and its photos run again: %s", err)


def _batches(rows: NDArray[np.int64], batch_size: int, control: Control) -> Iterator[Batch]:
    """Yield the rows in whole engine batches until the run is stopped."""
    size = batch_size * math.ceil(_MIN_BATCH_ROWS / batch_size)
    for start in range(0, len(rows), size):
        if not control.wait():
            return
        yield Batch(rows[start : start + size])
