"""The main job: photographs in, an embedding file out. The one place that knows the order of the stages."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..engines.open import open_runner
from ..engines.sidecar import EngineInfo, read_sidecar
from ..errors import DamagedError, Interrupted, StorageError
from ..records import Batch, Status
from ..sources.pathtable import PathTable
from ..storage.dataset import assemble
from ..storage.ledger import Ledger
from ..storage.runfolder import Plan, RunFolder
from ..storage.segments import SegmentWriter
from . import settings as tuning
from .control import Control
from .duplicates import DigestTable
from .metadata import metadata_of
from .prepare import Finished, check_base, prepare
from .progress import Progress
from .request import UNTRAINED_WARNING, Request, check_request
from .settings import Settings
from .stages import Pipeline, Stage, StageClock
from .summary import Summary, summarise
from .work import Decode, Embed, Read, SkipDuplicates

logger = logging.getLogger(__name__)

_BATCH_ROWS = 16  # at least: few enough that a signal finds little in flight
_TUNE_FROM_ROWS = 1024
_TUNE_ROWS = 256
_TUNE_AT_LEAST = 64


def process(request: Request) -> Summary:
    """Embed every photograph of a request, or go on where a run of the same request stopped.

    Raises:
        FacemillError: see errors.py; what is complete stays on disk.
        Interrupted: a signal stopped the run in good order.
    """
    began = time.perf_counter()
    info = read_sidecar(request.engine)
    request = check_request(request, info)
    warning = "" if info.trained else UNTRAINED_WARNING
    with Control() as control, RunFolder(request.output) as folder:
        plan = prepare(request, info, folder)
        if isinstance(plan, Finished):
            embedded = plan.counts.get(Status.EMBEDDED.label, 0)
            return Summary(plan.rows, embedded, plan.counts, elapsed_s=time.perf_counter() - began, warning=warning)
        control.deferring = True
        with PathTable(folder.paths_file) as paths:
            summary, outcomes = _Run(request, info, folder, plan, paths, control).complete()
        folder.remove()
    return replace(
        summary,
        embedded=outcomes.get(Status.EMBEDDED.label, 0),
        outcomes=outcomes,
        elapsed_s=time.perf_counter() - began,
        warning=warning,
    )


class _Run:
    """One plan being followed."""

    def __init__(
        self,
        request: Request,
        info: EngineInfo,
        folder: RunFolder,
        plan: Plan,
        paths: PathTable,
        control: Control,
    ) -> None:
        self.request = request
        self.info = info
        self.folder = folder
        self.plan = plan
        self.paths = paths
        self.control = control
        self.base = check_base(plan, request.output)
        self.read = Read(os.fsencode(plan.root), paths, request.limits)
        self.decode = Decode(info.size, info.channel_order, request.limits)

    def _ledger(self) -> Ledger:
        return Ledger(self.plan.rows, self.folder.path, self.plan.plan_id, self.base)

    def complete(self) -> tuple[Summary, dict[str, int]]:
        """Embed what is pending and make the finished file; a segment that proves damaged is run again."""
        while True:
            try:
                return self.embed(), self.finish()
            except DamagedError:
                self.control.stop_if_asked()

    def embed(self) -> Summary:
        """Run what is pending into segments."""
        with ExitStack() as stack:
            with self._ledger() as ledger:
                pending = ledger.pending(retry=self.request.retry)
                skip = self._digests(stack, ledger)
            if not len(pending):
                return Summary(self.plan.rows, 0, {})
            found = self._settings(pending)
            _one_thread_opencv()
            runner = stack.enter_context(open_runner(self.request.engine, threads=found.threads))
            embed = Embed(runner, found.batch_size)
            size, crop = found.batch_size, (self.info.size, self.info.size, 3)
            embed(Batch(np.arange(size), images=np.zeros((size, *crop), np.uint8)))  # warm-up; may halve the batch
            self.control.stop_if_asked()
            return self._stream(pending, found, embed, skip)

    def _digests(self, stack: ExitStack, ledger: Ledger) -> SkipDuplicates | None:
        """The duplicates stage, knowing all digests of earlier runs."""
        if not self.request.skip_duplicates:
            return None
        table = stack.enter_context(DigestTable(self.folder.path))
        known = np.flatnonzero(np.isin(ledger.status, [s for s in Status if s not in (0, Status.UNREADABLE)]))
        for start in range(0, len(known), 65_536):
            rows = known[start : start + 65_536]
            table.load((digest.tobytes(), int(row)) for digest, row in zip(ledger.digests(rows), rows, strict=True))
        return SkipDuplicates(table, self.paths)

    def _settings(self, pending: NDArray[np.int64]) -> Settings:
        """Those of the plan, remembered ones, tuned ones, or the defaults for a short run; what the user gives wins."""
        found = Settings(**self.plan.settings) if self.plan.settings else tuning.recall_settings(self.info)
        if found is None and len(pending) >= _TUNE_FROM_ROWS:
            found = self._tune(pending)
            self.control.stop_if_asked()
        found = found or tuning.default_settings(self.info)
        if not self.plan.settings:
            self.plan = replace(self.plan, settings={name: getattr(found, name) for name in Settings.__slots__})
            self.folder.write_plan(self.plan)
        return tuning.with_given(found, self.request.batch_size, self.request.workers)

    def _tune(self, pending: NDArray[np.int64]) -> Settings | None:
        """Settings from the first photographs that can be decoded; None when there are too few."""
        _one_thread_opencv()
        logger.info("tuning on the first %d photographs", _TUNE_ROWS)
        batch = self.read(Batch(pending[:_TUNE_ROWS]))
        images = self.decode(batch).images
        if images is None or len(images) < _TUNE_AT_LEAST:
            return None
        some = replace(batch, files=batch.files[:8], rows=batch.rows[:8])
        found = tuning.tune(
            self.info,
            lambda threads: open_runner(self.request.engine, threads=threads),
            images,
            lambda: self.decode(some),
            per_decode=len(some.files),
            batch_size=self.request.batch_size,
        )
        if self.request.batch_size is None:
            tuning.remember_settings(self.info, found)
        return found

    def _stages(
        self, found: Settings, embed: Embed, skip: SkipDuplicates | None
    ) -> tuple[list[Stage], list[StageClock]]:
        """The order of the journey."""
        stages = [Stage(StageClock("read", found.readers), self.read, 4)]
        if skip is not None:
            stages.append(Stage(StageClock("deduplicate", 1), skip, 2))
        stages.append(Stage(StageClock("decode", found.decoders), self.decode, found.streams + 2))
        stages.append(Stage(StageClock("infer", found.streams), embed, 2 * found.streams))
        return stages, [stage.clock for stage in stages] + [StageClock("write", 1)]

    def _stream(
        self, pending: NDArray[np.int64], found: Settings, embed: Embed, skip: SkipDuplicates | None
    ) -> Summary:
        """Batches through the stages into segments. What is complete is kept, however this ends."""
        stages, clocks = self._stages(found, embed, skip)
        writer = SegmentWriter(
            self.folder.path,
            plan_id=self.plan.plan_id,
            dimension=self.info.dimension,
            dtype=self.request.dtype,
            digests=self.request.skip_duplicates,
            rules=self.request.rules,
        )
        logger.info("%d of %d photographs to do", len(pending), self.plan.rows)
        began, done = time.perf_counter(), 0
        try:
            progress = Progress(self.plan.rows, self.plan.rows - len(pending), clocks)
            with progress, Pipeline(self._batches(pending, found.batch_size), stages) as pipeline:
                for batch in pipeline.ready(every_s=1.0):
                    if batch is None:  # slow, or paused: what is here must not wait for more
                        writer.commit_when_due()
                        progress.tick()
                        continue
                    with clocks[-1].work(len(batch)):
                        assert batch.embeddings is not None
                        writer.append(batch.rows, batch.embeddings, batch.outcomes, dict(batch.digests))
                    done += len(batch)
                    progress.add(batch)
        except StorageError:
            writer.discard()
            raise
        except BaseException:
            writer.commit()
            raise
        with clocks[-1].work(0):
            writer.commit()
        if self.control.signum and done < len(pending):
            raise Interrupted(
                f"stopped after {self.plan.rows - len(pending) + done:,} of {self.plan.rows:,} photographs; all of "
                f"them are on disk. The same command goes on from there",
                self.control.signum,
            )
        return summarise(self.plan.rows, done, time.perf_counter() - began, clocks)

    def _batches(self, pending: NDArray[np.int64], batch_size: int) -> Iterator[Batch]:
        """Pending rows in runs of whole engine batches, until a signal asks to stop."""
        size = batch_size * math.ceil(_BATCH_ROWS / batch_size)
        for start in range(0, len(pending), size):
            if not self.control.wait_while_paused():
                return
            yield Batch(pending[start : start + size])

    def finish(self) -> dict[str, int]:
        """Make the file that the user opens; returns the outcomes by kind."""
        logger.info("writing %s", self.request.output)
        with self._ledger() as ledger:
            counts = ledger.counts()
            metadata = metadata_of(self.plan, self.request, self.info, counts)
            assemble(self.request.output, ledger, self.paths, metadata, self.request.dtype)
            return counts


def _one_thread_opencv() -> None:
    """The stages are the parallelism: OpenCV's own threads would fight them for the same cores."""
    import cv2

    cv2.setNumThreads(1)
