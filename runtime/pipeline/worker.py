"""What one process does of a run: its photographs through the stages, into segments of its own."""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import EngineInfo
from ..engines.open import open_runner
from ..errors import StorageError
from ..records import Batch, Embedded, Encoded, Status
from ..sources.pathtable import PathTable
from ..storage.runfolder import Plan
from ..storage.segments import SegmentWriter
from .face_work import DecodePhotos, FindFaces
from .request import Request
from .settings import Settings, usable_cores
from .stages import Chain, Pipeline, Stage, StageClock
from .work import Decode, Embed, Read, SkipDuplicates, Slices

if TYPE_CHECKING:
    from .gpu_embed import OnDevice

_BATCH_ROWS = 16  # at least: few enough that a signal finds little in flight


class Control(Protocol):
    """Who says whether to go on: signals in the main process, the main process in the others."""

    def wait_while_paused(self) -> bool:
        """Wait for the run to go on; False when it is to stop."""
        ...

    def stop_if_asked(self) -> None:
        """Raise Interrupted if it is to stop."""
        ...


class Audience(Protocol):
    """Counts finished photos: a `progress.Reporter`, or the sender of another process."""

    def advance(self, units: int = 0, counts: Mapping[str, int] | None = None) -> None:
        """Count finished photos, also by outcome; 0 photos: nothing was finished for a second."""
        ...


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a run, as it travels to the process that does it.

    Attributes:
        request: of the run.
        info: of the engine.
        plan: of the run.
        folder: where its segments go.
        settings: how it divides its work.
        number: of the process; segments carry it, so that no two processes write one file.
    """

    request: Request
    info: EngineInfo
    plan: Plan
    folder: Path
    settings: Settings
    number: int = 0

    def clocks(self) -> list[StageClock]:
        """One a stage, in the order of the journey."""
        found, on_gpu = self.settings, self.request.decoder == "dali"
        clocks = [StageClock("read", found.readers)]
        if self.request.skip_duplicates:
            clocks.append(StageClock("deduplicate", 1))
        return [
            *clocks,
            # On the GPU a batch is decoded in the slot that embeds it.
            StageClock("decode", found.streams if on_gpu else found.decoders),
            # On the CPU it may need every core: with fewer threads the engine would wait for it.
            *([StageClock("detect", found.streams if on_gpu else usable_cores())] if self.request.detector else []),
            StageClock("infer", found.streams),
            StageClock("write", 1),
        ]


def embed_share(
    share: Share,
    rows: NDArray[np.int64],
    paths: PathTable,
    control: Control,
    audience: Audience,
    clocks: list[StageClock],
    skip: SkipDuplicates | None = None,
) -> tuple[float, int]:
    """Embed some rows into segments. What is complete is kept, however this ends.

    Args:
        share: what to do.
        rows: (n,) int64, ascending.
        paths: of the whole run.
        control: stops and pauses it.
        audience: told of finished photographs.
        clocks: of `share.clocks()`.
        skip: the duplicates stage, if duplicates are skipped.
    Returns:
        When it began after warm-up (time.perf_counter), and how many rows were done.
    Raises:
        FacemillError: as its message says.
    """
    found, limits = share.settings, share.request.limits
    clock = {one.name: one for one in clocks}
    one_thread_opencv()
    with _embedding(share, clock) as embedding:
        control.stop_if_asked()
        reading = Chain.of(Stage(clock["read"], Read(os.fsencode(share.plan.root), paths, limits), 4))
        if skip is not None:
            reading = reading.then(Stage(clock["deduplicate"], skip, 2))
        chain = reading.join(embedding)
        began = time.perf_counter()
        return began, _stream(share, _batches(rows, found.batch_size, control), chain, audience, clock["write"])


@contextmanager
def _embedding(share: Share, clock: dict[str, StageClock]) -> Iterator[Chain[Encoded, Embedded]]:
    """The stages from files to vectors, warmed up: two where the CPU decodes, one where the GPU does both."""
    request, info, found = share.request, share.info, share.settings
    if request.decoder == "dali":
        with open_on_device(request, info, found, clock) as embed_files:
            embed_files.warm_up()
            yield Chain.of(Stage(StageClock("embed", found.streams), embed_files, 2 * found.streams))
        return
    with ExitStack() as stack:
        embed = Embed(stack.enter_context(open_runner(request.engine, threads=found.threads)), Slices(found.batch_size))
        embed.warm_up()
        infer = Stage(clock["infer"], embed, 2 * found.streams)
        if request.detector is None:
            decode = Decode(info.size, info.channel_order, request.limits)
            yield Chain.of(Stage(clock["decode"], decode, found.streams + 2)).then(infer)
            return
        finder = stack.enter_context(open_runner(request.detector, threads=1))
        faces = FindFaces(finder, request.faces, info.size, info.channel_order, request.limits)
        photos = DecodePhotos(info.channel_order, request.limits)
        decoding = Chain.of(Stage(clock["decode"], photos, found.streams + 2))
        yield decoding.then(Stage(clock["detect"], faces, found.streams + 2)).then(infer)


def open_on_device(
    request: Request, info: EngineInfo, found: Settings, clock: Mapping[str, StageClock]
) -> AbstractContextManager[OnDevice]:
    """The one stage of a request whose photographs stay on the GPU.

    Args:
        request: its decoder is DALI.
        info: of the engine.
        found: how it divides its work.
        clock: of decoding, inference and, if faces are looked for, detection, by name.
    Raises:
        FacemillError: see device_work and device_faces.
    """
    if request.detector is None:
        from .gpu_embed import open_embed_files

        return open_embed_files(request.engine, found, request.limits, (clock["decode"], clock["infer"]))
    from .gpu_faces import open_embed_faces

    clocks = clock["decode"], clock["detect"], clock["infer"]
    return open_embed_faces(request.engine, request.detector, found, request.faces, request.limits, clocks)


def _stream(
    share: Share, batches: Iterator[Batch], chain: Chain[Batch, Embedded], audience: Audience, clock: StageClock
) -> int:
    """Batches through the stages into segments; returns the photographs done."""
    request, done = share.request, 0
    writer = SegmentWriter(
        share.folder,
        plan_id=share.plan.plan_id,
        dimension=share.info.dimension,
        dtype=request.dtype,
        digests=request.skip_duplicates,
        rules=request.rules,
        process=share.number,
        faces=request.detector is not None,
    )
    try:
        with Pipeline(batches, chain) as pipeline:
            for batch in pipeline.ready(every_s=1.0):
                if batch is None:  # slow, or paused: what is here must not wait for more
                    writer.commit_when_due()
                    audience.advance()
                    continue
                with clock.work(len(batch)):
                    writer.append(batch)
                done += len(batch)
                counts = Counter(outcome.status.label for outcome in batch.outcomes)
                counts[Status.EMBEDDED.label] = len(batch) - len(batch.outcomes)  # a photograph may have several rows
                audience.advance(counts.total(), counts)
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
    """Rows in runs of whole engine batches, until it is to stop."""
    size = batch_size * math.ceil(_BATCH_ROWS / batch_size)
    for start in range(0, len(rows), size):
        if not control.wait_while_paused():
            return
        yield Batch(rows[start : start + size])


def one_thread_opencv() -> None:
    """The stages are the parallelism: OpenCV's own threads would fight them for the same cores."""
    import cv2

    cv2.setNumThreads(1)
