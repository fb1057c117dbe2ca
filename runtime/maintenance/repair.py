"""Repair a damaged embedding file: save intact rows, and mark photos with lost rows as failed."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StorageError
from ..files import sync_folder
from ..records import FORMAT_VERSIONS, LATER_DATASETS, Status, attribute_datasets
from ..storage.child import run_in_child
from ..storage.contract import EmbeddingContract
from ..storage.dataset import assemble
from ..storage.derived import record_elsewhere
from ..storage.format import OUR_DATASETS, stored_text
from ..storage.layout import check_item
from ..storage.ledger import Part
from ..storage.opening import DAMAGE, open_steadily, read_attributes, refuse_failed_reads, refuse_system_error
from ..storage.runfolder import RunFolder, check_new_file, sweep_leftovers
from ..storage.salvage import find_readable, open_item
from ..storage.verify import verify_file
from .copies import copying
from .rewrite import metadata_after, rewriting
from .survey import Survey, survey

LOST = "its row was damaged and is lost; to embed it again: --retry"  # stored in repaired files
_UNEXPLAINED = "the reason was in a damaged part of the file and is lost"
_MAX_EXAMPLES = 10  # lost photos that a report names


logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repaired:
    """The result of a repair.

    Attributes:
        findings: the damage, one sentence each; empty for an intact file, for which nothing is written.
        photographs, embeddings: numbers in the repaired file.
        lost: number of photos to embed again.
        named: the first of them, as text.
        nameless: number of photos whose names are lost too.
        notes: uncertain or omitted data, one sentence each.
        kept: the new name of the damaged file; empty if it keeps its name.
    """

    findings: tuple[str, ...]
    photographs: int = 0
    embeddings: int = 0
    lost: int = 0
    named: tuple[str, ...] = ()
    nameless: int = 0
    notes: tuple[str, ...] = ()
    kept: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return {"whole": not self.findings, **asdict(self)}


def repair(file: Path, output: Path | None = None, *, force: bool = False) -> Repaired:
    """Write an intact file from the readable parts of a damaged one.

    Args:
        file: the damaged file; a link is followed.
        output: the repaired file. None to replace the damaged one, which is renamed to `<file>.damaged-1`, or the
            next free number.
        force: replace an existing output.
    Raises:
        ConfigError: the output is the damaged file.
        OutputExistsError: the output exists.
        LockedError: a run is writing the file.
        DiskFullError, StorageError: the file cannot be opened, or nothing can be saved; it is unchanged.
    """
    path = Path(os.path.realpath(file))
    target = path if output is None else Path(os.path.realpath(output))
    if output is not None:
        check_new_file(target, force=force, inputs=[path])
    findings = verify_file(path).findings
    if not findings:
        sweep_leftovers(path)
        return Repaired(())
    _read_in_child(path)
    copies = [] if output is None else [path]
    with copying(copies, target), RunFolder(target, like=path) as folder, open_steadily(path) as damaged:
        folder.refuse_unfinished()
        metadata, contract, notes = _metadata(path, damaged)
        logger.info("reading the intact parts of %s", path)
        survey_of_file = survey(damaged, pages=contract.all_pages)
        if not (survey_of_file.photos.status[~survey_of_file.lost] == Status.EMBEDDED).any():
            raise StorageError(f"no row of {path} can be saved; expected: at least one. Restore the file from a copy")
        attributes = attribute_datasets(contract.attributes_read).values()
        part = _part(path, damaged, survey_of_file, [*LATER_DATASETS.values(), *attributes])
        refuse_failed_reads(damaged)
        if contract.skip_duplicates and not part.has_digests:
            notes.append("the digests of the photos are lost: later runs on the file cannot skip duplicates")
            contract = replace(contract, skip_duplicates=False)
        notes += [f"/{name} is lost; to read it again: facemill attributes" for name in attributes if name in part.lost]
        notes += [f"/{name} is left out, because rows have changed" for name in sorted(set(damaged) - OUR_DATASETS)]
        with rewriting(folder, [part]) as new:
            lost = np.flatnonzero(survey_of_file.lost)
            new.ledger.set_outcomes(lost, Status.UNREADABLE, [LOST] * len(lost))
            unexplained = np.flatnonzero(survey_of_file.unexplained)
            reasons = [
                "" if survey_of_file.photos.status[row] == Status.EMBEDDED else _UNEXPLAINED for row in unexplained
            ]
            new.ledger.set_details(unexplained, reasons)
            kept = "" if output is not None else str(_back_up(path))
            if output is not None:
                record_elsewhere(path, str(target))
            metadata = metadata_after({**metadata, **contract.attributes()}, new.ledger)
            assemble(target, new.ledger, new.paths, metadata, contract.dtype, like=path)
            return Repaired(
                findings,
                len(new.paths),
                int(new.ledger.vector_counts.sum()),
                len(lost),
                tuple(stored_text(survey_of_file.paths[row]).decode() for row in lost[:_MAX_EXAMPLES]),
                survey_of_file.nameless,
                tuple(notes),
                kept,
            )


def _read_in_child(path: Path) -> None:
    """Read everything in a child process first: HDF5 can crash or never end on damaged bytes.

    Raises:
        StorageError: it does.
    """
    try:
        run_in_child("read", path)
    except ValueError as err:
        raise StorageError(
            f"{path} cannot be repaired: {err}. Restore the file from a copy, or create it again"
        ) from err


def _part(path: Path, damaged: Any, survey_of_file: Survey, dispensable: Sequence[str]) -> Part:
    outcomes = open_item(damaged, "outcomes")
    return Part(
        path=path,
        hdf5=damaged,
        paths=lambda: iter(survey_of_file.paths),
        photos=survey_of_file.photos,
        keep=np.ones(len(survey_of_file.paths), bool),
        has_digests=bool(find_readable(open_item(outcomes, "digest"), len(survey_of_file.paths)).all()),
        has_faces=open_item(damaged, "face_index") is not None,
        lost=frozenset(
            dataset
            for dataset in dispensable
            if not find_readable(open_item(damaged, dataset), len(damaged["embeddings"])).all()
        ),
    )


def _back_up(path: Path) -> Path:
    """Give the damaged file a second name, durably, before the repaired file takes its first one."""
    number = 1
    while True:
        backup = path.with_name(f"{path.name}.damaged-{number}")
        if not os.path.lexists(backup):
            break
        if os.path.samefile(backup, path):  # left by a repair that was killed
            return backup
        number += 1
    try:
        os.link(path, backup)
    except OSError:  # a file system without hard links
        shutil.copy2(path, backup)
    sync_folder(path.parent)
    return backup


def _metadata(path: Path, damaged: Any) -> tuple[dict[str, Any], EmbeddingContract, list[str]]:
    """The attributes of the damaged file, the contract of the new one, and notes about uncertain values.

    Raises:
        StorageError: the metadata are too damaged to describe the rows.
    """
    try:
        notes: list[str] = []
        attributes = read_attributes(damaged, notes)
        vectors = check_item(damaged, "embeddings", salvage=True)
        if attributes.get("format_version") not in FORMAT_VERSIONS:
            raise ValueError(f"its format version is {attributes.get('format_version')}")
        contract = EmbeddingContract()
        with suppress(*DAMAGE):
            contract = EmbeddingContract.from_json(attributes["contract"])
        if not contract.to_dict():
            contract = EmbeddingContract.from_attributes(attributes)
            notes.append("the contract could not be read and was restored from the other attributes")
        elif lost := contract.lost_fields(attributes):
            others = EmbeddingContract.from_attributes(attributes).to_dict()
            contract = EmbeddingContract.from_dict({**others, **contract.to_dict()})
            notes.append(f"the contract had lost {', '.join(lost)}: restored from the other attributes")
        for key, value in contract.to_dict().items():
            if key != "root" and attributes.get(key) != value:
                notes.append(
                    f"{key} was {attributes.get(key)!r} in the attributes and {value!r} in the contract, which is kept"
                )
        if vectors.shape[1:] != (contract.dimension,) or str(vectors.dtype) != contract.dtype:
            raise ValueError(f"/embeddings is {vectors.shape} {vectors.dtype}, which contradicts the contract")
        contract.require_root()
        return attributes, contract, notes
    except DAMAGE as err:
        refuse_system_error(err, path)
        raise StorageError(
            f"the metadata of {path} are damaged ({err}), so its rows cannot be saved. Restore the file from a "
            f"copy, or create it again"
        ) from err
