"""The main job: photographs in, an embedding file out. The one place that knows the order of the stages."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..engines.engine import EngineInfo
from ..engines.open import open_runner
from ..engines.stale import rebuild_if_stale
from ..errors import DamagedError, Interrupted
from ..interrupt import Control
from ..progress import Listener, Reporter
from ..records import Batch, Encoded, Status
from ..sources.pathtable import PathTable
from ..storage.dataset import assemble
from ..storage.diskfile import readable_as
from ..storage.ledger import Ledger
from ..storage.runfolder import Plan, RunFolder
from . import settings as tuning
from .duplicates import DigestTable
from .metadata import metadata_of
from .plan import Finished, check_base, prepare
from .processes import cores_of_one, embed_on_devices
from .request import UNTRAINED_WARNING, Request, check_request
from .settings import Settings
from .stages import StageClock
from .summary import Summary, bottleneck, summarise
from .work import Decode, Read, SkipDuplicates
from .worker import Share, embed_share, one_thread_opencv, open_on_device

logger = logging.getLogger(__name__)

_TUNE_FROM_ROWS = 1024
_TUNE_ROWS = 256
_TUNE_AT_LEAST = 64


def process(request: Request, listener: Listener | None = None) -> Summary:
    """Embed every photograph of a request, or go on where a run of the same request stopped.

    Args:
        request: what is to be embedded, and how.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        FacemillError: see errors.py; what is complete stays on disk.
        Interrupted: a signal stopped the run in good order.
    """
    began = time.perf_counter()
    detector = rebuild_if_stale(request.detector) if request.detector else None
    request = replace(request, engine=rebuild_if_stale(request.engine), detector=detector)
    info = request.engine.info
    request = check_request(request, info)
    warning = "" if info.trained else UNTRAINED_WARNING
    replaced = [request.output] if request.output.exists() else []
    with readable_as(*replaced), Control() as control, RunFolder(request.output) as folder:
        plan = prepare(request, info, folder)
        if isinstance(plan, Finished):
            embedded = plan.counts.get(Status.EMBEDDED.label, 0)
            return Summary(plan.rows, embedded, plan.counts, elapsed_s=time.perf_counter() - began, warning=warning)
        control.deferring = True
        with PathTable(folder.paths_file) as paths:
            summary, outcomes = _Run(request, info, folder, plan, paths, control, listener).complete()
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
        listener: Listener | None,
    ) -> None:
        self.request = request
        self.info = info
        self.folder = folder
        self.plan = plan
        self.paths = paths
        self.control = control
        self.listener = listener
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
            with cores_of_one(self.request.devices):
                found = self._settings(pending)
            logger.info("%d of %d photographs to do", len(pending), self.plan.rows)
            share = Share(self.request, self.info, self.plan, self.folder.path, found)
            clocks = share.clocks()
            with Reporter(
                "process",
                self.plan.rows,
                done=self.plan.rows - len(pending),
                unit="images",
                listener=self.listener,
                bottleneck=lambda: bottleneck(clocks, 1.0),
            ) as reporter:
                if self.request.devices:
                    began, done = embed_on_devices(share, pending, self.paths, self.control, reporter, clocks)
                else:
                    began, done = embed_share(share, pending, self.paths, self.control, reporter, clocks, skip)
            elapsed_s = time.perf_counter() - began
        if self.control.signum and done < len(pending):
            raise Interrupted(
                f"stopped after {self.plan.rows - len(pending) + done:,} of {self.plan.rows:,} photographs; all of "
                f"them are on disk. The same command goes on from there",
                self.control.signum,
            )
        return summarise(self.plan.rows, done, elapsed_s, clocks)

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
        found = Settings(**self.plan.settings) if self.plan.settings else None
        found = found or tuning.recall_settings(self.info, self._before())
        if found is None and len(pending) >= _TUNE_FROM_ROWS:
            found = self._tune(pending)
            self.control.stop_if_asked()
        found = found or tuning.default_settings(self.info)
        if not self.plan.settings:
            self.plan = replace(self.plan, settings={name: getattr(found, name) for name in Settings.__slots__})
            self.folder.write_plan(self.plan)
        return tuning.with_given(found, self.request.batch_size, self.request.workers)

    def _before(self) -> str:
        """What works before the engine: settings are remembered for both."""
        request = self.request
        detector = None if request.detector is None else request.detector.info
        return tuning.works_before(request.decoder, detector, request.faces.policy)

    def _tune(self, pending: NDArray[np.int64]) -> Settings | None:
        """Settings from the first photographs that can be decoded; None when there are too few."""
        one_thread_opencv()
        logger.info("tuning on the first %d photographs", _TUNE_ROWS)
        batch = self.read(Batch(pending[:_TUNE_ROWS]))
        found = self._tune_device(batch) if self.request.decoder == "dali" else self._tune_runner(batch)
        if found is not None and self.request.batch_size is None:
            tuning.remember_settings(self.info, self._before(), found)
        return found

    def _tune_runner(self, batch: Encoded) -> Settings | None:
        images = self.decode(batch).images
        if len(images) < _TUNE_AT_LEAST:
            return None
        some = replace(batch, files=batch.files[:8], rows=batch.rows[:8])
        return tuning.tune(
            self.info,
            lambda threads: open_runner(self.request.engine, threads=threads),
            images,
            lambda: self.decode(some),
            per_decode=len(some.files),
            batch_size=self.request.batch_size,
        )

    def _tune_device(self, batch: Encoded) -> Settings | None:
        from .gpu_tuning import tune_device

        if len(batch.files) < _TUNE_AT_LEAST:
            return None
        clock = {name: StageClock(name, 1) for name in ("decode", "detect", "infer")}
        return tune_device(
            self.info,
            lambda found: open_on_device(self.request, self.info, found, clock),
            batch.files,
            batch_size=self.request.batch_size,
        )

    def finish(self) -> dict[str, int]:
        """Make the file that the user opens; returns the outcomes by kind."""
        logger.info("writing %s", self.request.output)
        with self._ledger() as ledger:
            counts = ledger.counts()
            metadata = metadata_of(self.plan, self.request, self.info, counts)
            assemble(self.request.output, ledger, self.paths, metadata, self.request.dtype)
            return counts
