"""The main job: photos in, an embedding file out."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError, Interrupted
from ..interrupt import Control, RunControl, raise_if_stopping
from ..progress import Listener, Reporter
from ..records import FACE_DATASETS, Status
from ..sources.source import Source
from ..storage.dataset import assemble
from ..storage.file import EmbeddingFile
from ..storage.format import count_outcomes
from ..storage.ledger import Ledger
from ..storage.runfolder import drop_attribute_parts
from .plan import Finished, Plan, plan_run
from .processes import embed_on_devices
from .request import UNTRAINED_WARNING, Request
from .settings import Settings, default_settings, limit_cores, override
from .summary import Summary, bottleneck, summarise
from .tuning import TUNE_FROM_ROWS, tune
from .work import DigestTable, SkipDuplicates
from .worker import RunContext, Task, embed_task

logger = logging.getLogger(__name__)

_LOAD_ROWS = 65_536  # digests or scores that are loaded at once
_SCORES = FACE_DATASETS["score"]


def process(request: Request, *, listener: Listener | None = None, control: Control | None = None) -> Summary:
    """Embed every photo of a request, or resume where a run of the same request stopped.

    Args:
        request: what to embed, and how.
        listener: receives the progress; None logs a line every five seconds.
        control: pauses and stops the run, from another thread or by signals; None to run to the end.
    Raises:
        FacemillError: the run failed; finished segments stay on disk, and the same call resumes.
        Interrupted: the control stopped the run; all finished photos are on disk.
    """
    start_s = time.perf_counter()
    with plan_run(request) as plan:
        if isinstance(plan, Finished):
            summary = Summary(plan.rows, plan.counts.get(Status.EMBEDDED.label, 0), plan.counts)
        else:
            summary = run(plan, listener, control or RunControl())
        warning = "" if plan.request.engine.info.trained else UNTRAINED_WARNING
        passed_over, crops = plan.passed(), _count_crops(plan.request.output)
    return replace(
        summary,
        elapsed_s=time.perf_counter() - start_s,
        warning=warning,
        crops=crops,
        passed_over=passed_over,
    )


def _count_crops(output: Path) -> int:
    """Number of rows that were taken as aligned crops: their faces have no score, because none was detected."""
    with EmbeddingFile(output) as file:
        if not file.has_column(_SCORES):
            return 0
        starts = range(0, file.rows, _LOAD_ROWS)
        return sum(int(np.isnan(file.column(_SCORES, start, start + _LOAD_ROWS)).sum()) for start in starts)


def run(plan: Plan, listener: Listener | None, control: Control) -> Summary:
    """Follow a plan: embed the pending photos and write the file."""
    with control.in_flight():
        with plan.names() as names:
            summary = _complete(plan, plan.source.with_names(names), listener, control)
        plan.folder.remove()
        drop_attribute_parts(plan.request.output)
        return summary


def _complete(plan: Plan, source: Source, listener: Listener | None, control: Control) -> Summary:
    """Embed and write until the file is complete. The photos of a damaged segment are embedded again."""
    settings = plan.settings
    while True:
        try:
            with ExitStack() as stack:
                with plan.ledger() as ledger:
                    pending = ledger.pending(retry=plan.request.retry)
                    finished = count_outcomes(np.delete(ledger.status, pending))
                    skip = stack.enter_context(_skip_duplicates(plan, ledger, source))
                summary = Summary(plan.stored.rows, 0, {})
                if len(pending):
                    settings = settings or _find_settings(plan, source, pending, control)
                    summary = _embed(plan, settings, pending, finished, RunContext(source, control, skip), listener)
            counts = _write_file(plan, source)
            return replace(summary, embedded=counts.get(Status.EMBEDDED.label, 0), outcomes=counts)
        except DamagedError:
            raise_if_stopping(control)


@contextmanager
def _skip_duplicates(plan: Plan, ledger: Ledger, source: Source) -> Iterator[SkipDuplicates | None]:
    """Open the stage that drops duplicates, with the digests of all earlier rows; None if duplicates are kept."""
    if not plan.request.skip_duplicates:
        yield None
        return
    with DigestTable(plan.folder.path) as table:
        read_rows = np.flatnonzero(np.isin(ledger.status, [s for s in Status if s not in (0, Status.UNREADABLE)]))
        for start in range(0, len(read_rows), _LOAD_ROWS):
            rows = read_rows[start : start + _LOAD_ROWS]
            table.load((digest.tobytes(), int(row)) for digest, row in zip(ledger.digests(rows), rows, strict=True))
        yield SkipDuplicates(table, source)


def _find_settings(plan: Plan, source: Source, pending: NDArray[np.int64], control: Control) -> Settings:
    """Tune, or take the defaults for a short run. Values from the user override both."""
    options, settings = plan.request.run, None
    with limit_cores(options.devices):
        if len(pending) >= TUNE_FROM_ROWS:
            settings = tune(plan.request, source, pending, control)
            raise_if_stopping(control)
        settings = settings or default_settings(plan.request.engine.info)
    plan.folder.write_plan(replace(plan.stored, settings=asdict(settings)))
    return override(settings, options.batch_size, options.workers)


def _embed(
    plan: Plan,
    settings: Settings,
    pending: NDArray[np.int64],
    finished: dict[str, int],
    context: RunContext,
    listener: Listener | None,
) -> Summary:
    """Embed the pending photos into segments; `finished` counts the outcomes of the others."""
    rows, control = plan.stored.rows, context.control
    logger.info("%d of %d photos to process", len(pending), rows)
    # Without the inputs: their names may be millions, and the task is sent to other processes.
    task = Task(replace(plan.request, inputs=()), plan.stored.plan_id, plan.folder.path, settings)
    clocks = task.clocks()
    with Reporter(
        "process",
        rows,
        done=rows - len(pending),
        counts=finished,
        unit="images",
        listener=listener,
        bottleneck=lambda: bottleneck(clocks.values(), 1.0),
    ) as reporter:
        embed = embed_on_devices if plan.request.run.devices else embed_task
        start_s, done = embed(task, pending, replace(context, clocks=clocks, advance=reporter.advance))
    elapsed_s = time.perf_counter() - start_s
    if control.stopping and done < len(pending):
        raise Interrupted(
            f"stopped after {rows - len(pending) + done:,} of {rows:,} photos; all of them are on disk. "
            f"Run the same command again to resume",
            control.signum,
        )
    return summarise(rows, done, elapsed_s, clocks.values())


def _write_file(plan: Plan, source: Source) -> dict[str, int]:
    """Write the finished file from all segments. Returns the number of photos by outcome."""
    output = plan.request.output
    logger.info("writing %s", output)
    with plan.ledger() as ledger:
        counts = ledger.counts()
        request = plan.request
        metadata = plan.metadata(counts)
        assemble(output, ledger, source.names, metadata, request.dtype, like=request.like, mode=request.mode)
        return counts
