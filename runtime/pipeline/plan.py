"""The plan of a run: everything that is decided before the first photo, and the attributes of the finished file."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import OutputExistsError, StorageError
from ..fetch import sha256_of
from ..records import Status
from ..sources.kinds import Patterns, passed_over_text
from ..sources.pathtable import PathTable, paths_digest, write_paths
from ..sources.scan import Inputs, digest_inputs, scan
from ..sources.source import FileSource, Source, check_names
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.format import count_outcomes
from ..storage.ledger import Ledger
from ..storage.opening import is_system_error
from ..storage.runfolder import RunFolder, StoredPlan, folder_of, read_plan, utc_now
from ..storage.segments import segment_files
from .contract import check_contract, contract_of
from .disk import check_disk
from .request import UNTRAINED_WARNING, Request, resolve_request
from .settings import Settings, limit_cores, override
from .tuning import preparation_key, recall_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """The output is complete; there is nothing to do.

    Attributes:
        request: the resolved request.
        counts: number of photos by outcome.
        rows: number of scanned photos.
        passed_over: see `FileSource.passed_over`.
    """

    request: Request
    counts: dict[str, int]
    rows: int
    passed_over: tuple[tuple[str, int], ...] = ()

    def passed(self) -> dict[str, int]:
        """What the scan left out, by kind."""
        return dict(self.passed_over)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run decided before its first photo. `run.run` follows it.

    Attributes:
        request: the resolved request, see `resolve_request`.
        stored: the part that a resumed run has to keep, stored in `plan.json`.
        folder: the run folder, locked.
        source: the photos, without their names, which may be millions and are stored in the folder.
        base: the finished file whose failed photos are retried; None for a new file.
        settings: batch size and numbers of threads; None to tune, or to use the defaults for a short run.
    """

    request: Request
    stored: StoredPlan
    folder: RunFolder
    source: Source
    base: Path | None
    settings: Settings | None

    def passed(self) -> dict[str, int]:
        """What the scan left out, by kind."""
        return dict(getattr(self.source, "passed_over", ()))

    def names(self) -> PathTable:
        """The names of the photos by row, as a context manager."""
        return PathTable(self.folder.paths_file)

    def ledger(self) -> Ledger:
        """The outcome of each row, as a context manager."""
        return Ledger(self.stored.rows, self.folder.path, self.stored.plan_id, self.base)

    def metadata(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """The attributes of `/metadata`, which docs/format.md lists.

        Args:
            counts: number of photos by outcome.
        """
        stored, request, info = self.stored, self.request, self.request.engine.info
        return {
            **stored.contract.attributes(),
            "trained": info.trained,
            **({} if info.trained else {"warning": UNTRAINED_WARNING}),
            "backend": info.backend,
            "backend_version": info.backend_version,
            "engine": os.path.abspath(request.engine.path),
            "engine_sha256": info.engine_sha256,
            **{f"{name}_engine": os.path.abspath(engine.path) for name, engine in request.finders.items()},
            **(request.attributes.metadata() if request.attributes else {}),
            "tool_version": __version__,
            "plan_id": stored.plan_id,
            "started_utc": stored.started_utc,
            "finished_utc": utc_now(),
            "scanned": stored.rows,
            **{f"count_{name.replace('-', '_')}": count for name, count in counts.items()},
            "embedded": counts.get(Status.EMBEDDED.label, 0),
        }


@contextmanager
def plan_run(request: Request) -> Iterator[Plan | Finished]:
    """Decide everything: engines, decoder, photos, the work that is left of an earlier run, settings.

    The run folder is locked until the `with` block ends.

    Raises:
        ContractError: an unfinished or finished run has different settings.
        ConfigError, EngineError, MissingDependencyError: the request cannot be resolved, see `resolve_request`.
        SourceError: the photos cannot be listed, or there are none.
        DiskFullError: the disk has no space for the segments and the file.
        LockedError: another run is writing the output.
        OutputExistsError, StorageError: the output or the run folder cannot be used.
    """
    request = resolve_request(request)
    with RunFolder(request.output, like=request.like) as folder:
        yield _plan(request, folder)


def _plan(request: Request, folder: RunFolder) -> Plan | Finished:
    """Resume the unfinished run, start a new one, or retry the failures of a finished file."""
    source = scan_inputs(request)
    stored = _stored_plan(request, source, folder)
    if isinstance(stored, Finished):
        return replace(stored, passed_over=getattr(source, "passed_over", ()))
    options = request.run
    if stored.settings:
        settings: Settings | None = Settings(**stored.settings)
    else:
        with limit_cores(options.devices):
            settings = recall_settings(request.engine.info, preparation_key(request))
        if settings is not None:
            stored = replace(stored, settings=asdict(settings))
            folder.write_plan(stored)
    return Plan(
        request,
        stored,
        folder,
        source.with_names(()),
        check_base(stored, request.output),
        None if settings is None else override(settings, options.batch_size, options.workers),
    )


def scan_inputs(request: Request) -> Source:
    """List the photos of a request."""
    if isinstance(request.inputs, tuple):
        logger.info("scanning for photos")
        source = scan(
            request.inputs,
            limit=request.limit,
            max_bytes=request.limits.max_bytes,
            patterns=request.patterns,
            within=request.within,
        )
        if source.passed_over:
            logger.info("%s", passed_over_text(source.passed_over))
        return source
    check_names(request.inputs)
    return request.inputs if request.limit is None else request.inputs.with_names(request.inputs.names[: request.limit])


def resumed_contract(
    output: Path, inputs: Inputs, patterns: Patterns | None = None, *, force: bool
) -> EmbeddingContract:
    """The contract of the unfinished or finished run that would be resumed; an empty contract for a new run.

    Damaged files count as no run here, because the run itself reports the damage.

    Args:
        output: the embedding file.
        inputs, patterns: the photos of the request.
        force: whether to start over. Then only a run is resumed that was started with force and the same photos.
    """
    try:
        plan = read_plan(folder_of(output))
        if plan is not None and (not force or (plan.forced and plan.inputs == digest_inputs(inputs, patterns))):
            return plan.contract
        if force or not output.exists():
            return EmbeddingContract()
        with EmbeddingFile(output) as file:
            return file.contract
    except (StorageError, ValueError):  # a ValueError: the output has no name
        return EmbeddingContract()


def _stored_plan(request: Request, source: Source, folder: RunFolder) -> StoredPlan | Finished:
    contract = contract_of(request, request.engine.info, os.fsdecode(source.root))
    try:
        stored = folder.read_plan()
    except StorageError:
        if not request.force:
            raise
        stored = None
    if stored is not None and _is_output_of(stored, request.output):
        folder.clear()  # the run was killed after it had finished the file
        request, stored = replace(request, force=request.force and not _same_forced_run(stored, request)), None
    if stored is not None and request.force and not (_same_forced_run(stored, request) and stored.contract == contract):
        stored = None
    resumes = stored is not None and bool(segment_files(folder.path) or stored.contract == contract)
    named = digest_inputs(request.inputs, request.patterns)
    if stored is not None and isinstance(source, FileSource) and (resumes or stored.inputs == named):
        source.check_same_disks([os.fsencode(disk) for disk in stored.disks])  # without one, the root may differ
    if stored is not None and resumes:
        check_contract(stored.contract, contract, folder.path)
        _check_list(stored, source, folder)
        with PathTable(folder.paths_file) as names:
            _warn_about_changes(source, names)
        return stored
    folder.clear()  # that plan produced nothing, so it need not be kept
    if request.output.exists() and not request.force:
        return _continue_finished(request, contract, source, folder)
    return _begin(request, contract, source, source.names, folder)


def _check_list(stored: StoredPlan, source: Source, folder: RunFolder) -> None:
    """Check the list of photos of an unfinished run: one wrong bit would give a vector to another person.

    A damaged list is written again if the photos are still the same.

    Raises:
        StorageError: the list is damaged, and the photos have changed since.
    """
    try:
        digest = sha256_of(folder.paths_file)
    except FileNotFoundError:
        digest = "missing"
    if stored.paths_sha256 in (digest, ""):
        return
    if paths_digest(source.names) != stored.paths_sha256:
        raise StorageError(
            f"the list of photos of the unfinished run, {folder.paths_file}, is damaged, and the photos have changed "
            f"since. Restore the list from a copy, or start over with --force"
        )
    logger.warning("the list of photos %s was damaged and is written again: the photos are the same", folder.paths_file)
    write_paths(folder.paths_file, source.names)


def _same_forced_run(stored: StoredPlan, request: Request) -> bool:
    """Whether --force began the stored run with the photos that are named now, so that it is to be resumed."""
    return stored.forced and stored.inputs == digest_inputs(request.inputs, request.patterns)


def _is_output_of(stored: StoredPlan, output: Path) -> bool:
    """Whether the output is the file that this plan produces."""
    try:
        with EmbeddingFile(output) as file:
            return bool(file.metadata.get("plan_id") == stored.plan_id)
    except StorageError:
        return False


def _begin(
    request: Request,
    contract: EmbeddingContract,
    source: Source,
    names: Sequence[bytes],
    folder: RunFolder,
    base: str = "",
) -> StoredPlan:
    check_disk(request.output, len(names), contract, max(map(len, names)))
    digest = write_paths(folder.paths_file, names)
    root = os.fsdecode(source.root)
    named = digest_inputs(request.inputs, request.patterns)
    stored = StoredPlan(
        contract,
        root,
        len(names),
        utc_now(),
        base_run_id=base,
        forced=request.force,
        paths_sha256=digest,
        inputs=named,
        disks=_disks_of(source),
    )
    folder.write_plan(stored)
    return stored


def _disks_of(source: Source) -> list[str]:
    """The folders of a source that are disks of their own."""
    disks = source.disks if isinstance(source, FileSource) else None
    return sorted(map(os.fsdecode, disks.folders)) if disks is not None else []


def _continue_finished(
    request: Request, contract: EmbeddingContract, source: Source, folder: RunFolder
) -> StoredPlan | Finished:
    """Return the finished state of an output, or a plan that retries its failures."""
    try:
        with EmbeddingFile(request.output) as file:
            check_contract(file.contract, contract, request.output, finished=True)
            status, names, run_id = file.status, list(file.scanned_paths()), str(file.metadata["run_id"])
    except StorageError as err:
        if is_system_error(err):
            raise  # the file may be intact
        raise StorageError(
            f"{err.message}. Name another file with -o. --force would replace this one, whatever it holds"
        ) from err
    _warn_about_changes(source, names)
    if request.retry and any(Status(int(s)).failed for s in np.unique(status)):
        return _begin(request, contract, source, names, folder, base=run_id)
    return Finished(request, count_outcomes(status), len(status))


def check_base(stored: StoredPlan, output: Path) -> Path | None:
    """The finished file that a retry builds on.

    Raises:
        OutputExistsError: the file was deleted or replaced after the retry started.
    """
    if not stored.base_run_id:
        return None
    run_id = "no file"
    if output.exists():
        with EmbeddingFile(output) as file:
            run_id = str(file.metadata["run_id"])
    if run_id != stored.base_run_id:
        raise OutputExistsError(
            f"{output} is not the file whose failures are being retried: its run is {run_id}; expected: "
            f"{stored.base_run_id}. Restore that file, or start over with --force"
        )
    return output


def _warn_about_changes(source: Source, first_scan: Sequence[bytes]) -> None:
    """Warn if the photos changed after the first scan, which decided the rows."""
    names = source.names
    if len(names) == len(first_scan) and all(map(bytes.__eq__, names, first_scan)):
        return
    before, now = set(first_scan), set(names)
    logger.warning(
        "the photos changed since the run started: %d new photos are not part of it, %d are missing. "
        "To include new photos, use `facemill add` on the finished file, or start over with --force",
        len(now - before),
        len(before - now),
    )
