"""Before the first photograph: scan, compare with what is on disk, decide what is still to do."""

from __future__ import annotations

import logging
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.engine import EngineInfo
from ..errors import DiskFullError, OutputExistsError, StorageError
from ..files import storage_error
from ..records import Status
from ..sources.pathtable import PathTable, write_paths
from ..sources.scan import Scan, scan
from ..storage.file import EmbeddingFile
from ..storage.format import count_outcomes
from ..storage.runfolder import Plan, RunFolder, folder_of, read_plan, utc_now
from ..storage.segment_reader import segment_files
from .disk_estimate import room_while_running, size
from .request import Request, check_contract, contract_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """There is nothing to do: the output is whole.

    Attributes:
        counts: photographs by outcome.
        rows: scanned paths.
    """

    counts: dict[str, int]
    rows: int


def look(request: Request) -> Scan:
    """Scan the inputs, and say so: it takes a while."""
    logger.info("looking for photographs")
    return scan(request.inputs, limit=request.limit)


def begun_with(output: Path, *, force: bool) -> dict[str, Any]:
    """The contract of the run that goes on, unfinished or finished; empty where one begins.

    Whatever is damaged counts as none here: the run itself says what is wrong with it.

    Args:
        output: the embedding file.
        force: whether to start over: then only a run that was itself begun so goes on.
    """
    try:
        plan = read_plan(folder_of(output))
        if plan is not None and (plan.forced or not force):
            return plan.contract
        if force or not output.exists():
            return {}
        with EmbeddingFile(output) as file:
            return file.contract
    except StorageError:
        return {}


def prepare(request: Request, info: EngineInfo, folder: RunFolder) -> Plan | Finished:
    """The plan to follow: the unfinished one, a new one, or one that retries the failures of a finished file.

    Raises:
        ContractError: an unfinished or finished run has other settings.
        StorageError, SourceError, DiskFullError: as their messages say.
    """
    found = request.listed or look(request)
    contract = contract_of(request, info, os.fsdecode(found.root))
    plan = folder.read_plan()
    if plan is not None and _made(request.output, plan):
        folder.clear()  # the run was killed after its last deed: the file is whole
        request, plan = replace(request, force=request.force and not plan.forced), None
    if plan is not None and request.force and not (plan.forced and plan.contract == contract):
        plan = None
    if plan is not None and (segment_files(folder.path) or plan.contract == contract):
        check_contract(plan.contract, contract, folder.path)
        with PathTable(folder.paths_file) as table:
            _tell_changes(found, table)
        return plan
    folder.clear()  # nothing was made by that plan, so it binds nobody
    if request.output.exists() and not request.force:
        return _continue_finished(request, contract, found, folder)
    return _begin(request, contract, found.paths, found.root, folder)


def _made(output: Path, plan: Plan) -> bool:
    """Whether the output is the file that this plan was to make."""
    try:
        with EmbeddingFile(output) as file:
            return bool(file.metadata.get("plan_id") == plan.plan_id)
    except StorageError:
        return False


def _begin(
    request: Request,
    contract: dict[str, Any],
    paths: list[bytes],
    root: bytes,
    folder: RunFolder,
    base: str = "",
) -> Plan:
    _check_room(request.output, len(paths), contract, max(map(len, paths)))
    try:
        write_paths(folder.paths_file, paths)
    except OSError as err:
        raise storage_error(err, "the list of photographs", folder.paths_file) from err
    plan = Plan(contract, os.fsdecode(root), len(paths), utc_now(), base_run_id=base, forced=request.force)
    folder.write_plan(plan)
    return plan


def _continue_finished(request: Request, contract: dict[str, Any], found: Scan, folder: RunFolder) -> Plan | Finished:
    """A finished output: nothing to do, or its failures to retry."""
    try:
        with EmbeddingFile(request.output) as file:
            check_contract(file.contract, contract, request.output)
            status, paths, run_id = file.status, list(file.scanned_paths()), str(file.metadata["run_id"])
    except StorageError as err:
        raise StorageError(f"{err.message}. Name another file with -o, or replace this one with --force") from err
    _tell_changes(found, paths)
    if request.retry and any(Status(int(s)).failed for s in np.unique(status)):
        return _begin(request, contract, paths, found.root, folder, base=run_id)
    return Finished(count_outcomes(status), len(status))


def check_base(plan: Plan, output: Path) -> Path | None:
    """The finished file that a retry builds on.

    Raises:
        OutputExistsError: it is gone or another one since the retry began.
    """
    if not plan.base_run_id:
        return None
    seen = "no file"
    if output.exists():
        with EmbeddingFile(output) as file:
            seen = str(file.metadata["run_id"])
    if seen != plan.base_run_id:
        raise OutputExistsError(
            f"{output} is not the file whose failures are being retried ({seen}; wanted: {plan.base_run_id}). "
            f"Bring that file back, or start over with --force"
        )
    return output


def _tell_changes(found: Scan, known: PathTable | list[bytes]) -> None:
    """The rows were decided by the first scan; say so when the photographs have changed since."""
    if len(found.paths) == len(known) and all(map(bytes.__eq__, found.paths, known)):
        return
    before, now = set(known), set(found.paths)
    logger.warning(
        "the photographs changed since the run began: %d new ones are not part of it, %d are gone. "
        "To take in new ones, use `facemill add` on the finished file, or start over with --force",
        len(now - before),
        len(before - now),
    )


def _check_room(output: Path, rows: int, contract: dict[str, Any], longest: int) -> None:
    """Refuse a run that the disk cannot hold: the segments, and the finished file made from them."""
    needed = room_while_running(
        rows,
        contract["dimension"],
        contract["dtype"],
        faces="detector" in contract,
        skip_duplicates=contract["skip_duplicates"],
        longest=longest,
    )
    free = shutil.disk_usage(output.parent).free
    logger.info("disk: %s needed while running, %s afterwards; %s free", size(needed), size(needed // 2), size(free))
    if needed > free:
        raise DiskFullError(
            f"{rows:,} photographs need about {size(needed)} beside {output} while the run lasts (half of it "
            f"afterwards); {size(free)} are free. Make room, name another place with -o, or halve it with "
            f"--dtype float16"
        )
