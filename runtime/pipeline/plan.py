"""Before the first photo: everything that a run decides, and what the finished file says of it."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import DiskFullError, OutputExistsError, StorageError
from ..records import FACE, Status
from ..sources.pathtable import PathTable, write_paths
from ..sources.scan import scan
from ..sources.source import Source
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.format import count_outcomes
from ..storage.ledger import Ledger
from ..storage.runfolder import RunFolder, StoredPlan, folder_of, read_plan, utc_now
from ..storage.segments import segment_files
from ..text import size
from .contract import check_contract, contract_of
from .request import UNTRAINED_WARNING, Request, resolve_request
from .settings import Settings, cores_of_one, with_given
from .tuning import recall_settings, works_before

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Finished:
    """There is nothing to do: the output is whole.

    Attributes:
        request: as it was resolved.
        counts: photos by outcome.
        rows: scanned photos.
    """

    request: Request
    counts: dict[str, int]
    rows: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a run decided before its first photo. `run.run` follows it.

    Attributes:
        request: with engines that this machine can run, its decoder chosen, its output's links resolved.
        stored: what a resumed run has to keep to, as `plan.json` holds it.
        folder: of the run, locked.
        source: of the photos, without their names: those are in the folder, for they may be millions.
        base: the finished file whose failed photos are run again; None for a new file.
        settings: how the work is divided; None to tune, or to take the defaults for a short run.
    """

    request: Request
    stored: StoredPlan
    folder: RunFolder
    source: Source
    base: Path | None
    settings: Settings | None

    def names(self) -> PathTable:
        """The names of the photos, by row. Use it as a context manager."""
        return PathTable(self.folder.paths_file)

    def ledger(self) -> Ledger:
        """What has become of each row. Use it as a context manager."""
        return Ledger(self.stored.rows, self.folder.path, self.stored.plan_id, self.base)

    def metadata(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """The attributes of `/metadata`, which docs/format.md lists.

        Args:
            counts: photos by outcome.
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
            **({"detector_engine": os.path.abspath(request.detector.path)} if request.detector else {}),
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
    """Decide everything: engines, decoder, photos, what an unfinished or finished run has left to do, settings.

    The run's folder is locked until the `with` block ends.

    Raises:
        ContractError: an unfinished or finished run has other settings.
        ConfigError, EngineError, MissingDependencyError: see `resolve_request`.
        SourceError: the photos cannot be listed, or there are none.
        DiskFullError: there is no room for the segments and the file.
        LockedError: another run writes the output.
        OutputExistsError, StorageError: the output, or what an unfinished run left, cannot be used.
    """
    request = resolve_request(request)
    with RunFolder(request.output, like=request.like) as folder:
        yield _plan(request, folder)


def _plan(request: Request, folder: RunFolder) -> Plan | Finished:
    """The plan to follow: the unfinished one, a new one, or one that retries the failures of a finished file."""
    source = scan_inputs(request)
    stored = _stored_plan(request, source, folder)
    if isinstance(stored, Finished):
        return stored
    options = request.run
    if stored.settings:
        settings: Settings | None = Settings(**stored.settings)
    else:
        with cores_of_one(options.devices):
            settings = recall_settings(request.engine.info, works_before(request))
        if settings is not None:
            stored = replace(stored, settings=asdict(settings))
            folder.write_plan(stored)
    return Plan(
        request,
        stored,
        folder,
        source.with_names(()),
        check_base(stored, request.output),
        None if settings is None else with_given(settings, options.batch_size, options.workers),
    )


def scan_inputs(request: Request) -> Source:
    """The photos of a request, listed."""
    if isinstance(request.inputs, tuple):
        logger.info("looking for photographs")
        return scan(request.inputs, limit=request.limit, max_bytes=request.limits.max_bytes)
    return request.inputs if request.limit is None else request.inputs.with_names(request.inputs.names[: request.limit])


def begun_with(output: Path, *, force: bool) -> EmbeddingContract:
    """The contract of the run that is resumed, unfinished or finished; an empty one where a run begins.

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
            return EmbeddingContract()
        with EmbeddingFile(output) as file:
            return file.contract
    except (StorageError, ValueError):  # a ValueError: the output has no name
        return EmbeddingContract()


def _stored_plan(request: Request, source: Source, folder: RunFolder) -> StoredPlan | Finished:
    contract = contract_of(request, request.engine.info, os.fsdecode(source.root))
    stored = folder.read_plan()
    if stored is not None and _made(request.output, stored):
        folder.clear()  # the run was killed after its last deed: the file is whole
        request, stored = replace(request, force=request.force and not stored.forced), None
    if stored is not None and request.force and not (stored.forced and stored.contract == contract):
        stored = None
    if stored is not None and (segment_files(folder.path) or stored.contract == contract):
        check_contract(stored.contract, contract, folder.path)
        with PathTable(folder.paths_file) as names:
            _tell_changes(source.names, names)
        return stored
    folder.clear()  # nothing was made by that plan, so it binds nobody
    if request.output.exists() and not request.force:
        return _continue_finished(request, contract, source, folder)
    return _begin(request, contract, source, source.names, folder)


def _made(output: Path, stored: StoredPlan) -> bool:
    """Whether the output is the file that this plan was to make."""
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
    write_paths(folder.paths_file, names)
    root = os.fsdecode(source.root)
    stored = StoredPlan(contract, root, len(names), utc_now(), base_run_id=base, forced=request.force)
    folder.write_plan(stored)
    return stored


def _continue_finished(
    request: Request, contract: EmbeddingContract, source: Source, folder: RunFolder
) -> StoredPlan | Finished:
    """A finished output: nothing to do, or its failures to retry."""
    try:
        with EmbeddingFile(request.output) as file:
            check_contract(file.contract, contract, request.output)
            status, names, run_id = file.status, list(file.scanned_paths()), str(file.metadata["run_id"])
    except StorageError as err:
        raise StorageError(f"{err.message}. Name another file with -o, or replace this one with --force") from err
    _tell_changes(source.names, names)
    if request.retry and any(Status(int(s)).failed for s in np.unique(status)):
        return _begin(request, contract, source, names, folder, base=run_id)
    return Finished(request, count_outcomes(status), len(status))


def check_base(stored: StoredPlan, output: Path) -> Path | None:
    """The finished file that a retry builds on.

    Raises:
        OutputExistsError: it is gone or another one since the retry began.
    """
    if not stored.base_run_id:
        return None
    seen = "no file"
    if output.exists():
        with EmbeddingFile(output) as file:
            seen = str(file.metadata["run_id"])
    if seen != stored.base_run_id:
        raise OutputExistsError(
            f"{output} is not the file whose failures are being retried ({seen}; wanted: {stored.base_run_id}). "
            f"Bring that file back, or start over with --force"
        )
    return output


def _tell_changes(names: Sequence[bytes], known: Sequence[bytes]) -> None:
    """The rows were decided by the first scan; say so when the photos have changed since."""
    if len(names) == len(known) and all(map(bytes.__eq__, names, known)):
        return
    before, now = set(known), set(names)
    logger.warning(
        "the photographs changed since the run began: %d new ones are not part of it, %d are gone. "
        "To take in new ones, use `facemill add` on the finished file, or start over with --force",
        len(now - before),
        len(before - now),
    )


def check_disk(output: Path, rows: int, contract: EmbeddingContract, longest: int) -> None:
    """Refuse a run that the disk cannot hold: its segments, and the finished file made from them.

    Args:
        output: the embedding file.
        rows: photos.
        contract: of the run.
        longest: bytes of the longest name.
    Raises:
        DiskFullError: naming both amounts.
    """
    needed = room_while_running(
        rows,
        contract.dimension,
        contract.dtype,
        faces=contract.detects_faces,
        skip_duplicates=contract.skip_duplicates,
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


def room_while_running(
    rows: int, dimension: int, dtype: str, *, faces: bool, skip_duplicates: bool = False, longest: int = 64
) -> int:
    """Bytes beside the output while a run lasts: its segments, and the finished file made from them.

    Half of it is the finished file, and stays.

    Args:
        rows: photographs.
        dimension: D.
        dtype: "float32" or "float16", of the finished file.
        faces: whether they are looked for.
        skip_duplicates: whether digests are kept.
        longest: bytes of the longest path; compressed, more than 64 count for little.
    """
    vectors = rows * dimension * np.dtype(dtype).itemsize
    described = 2 * FACE.itemsize * rows if faces else 0
    return int(2.02 * vectors) + described + 3 * rows * min(longest, 64) + 64 * rows * skip_duplicates + (1 << 20)
