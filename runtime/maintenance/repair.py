"""What is whole of a damaged embedding file, saved: what is lost becomes a failed photograph, to be embedded again."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ConfigError, OutputExistsError, StorageError
from ..files import sync_folder
from ..records import FORMAT_VERSIONS, Status
from ..storage.dataset import assemble
from ..storage.derived import record_elsewhere
from ..storage.diskfile import readable_as
from ..storage.format import OUR_DATASETS, read_attributes, stored_text
from ..storage.part import Part
from ..storage.runfolder import RunFolder
from ..storage.salvage import DAMAGE, check_size, opened, refuse_system_error
from ..storage.verify import verify_file
from .rewrite import metadata_after, rewriting
from .survey import Survey, survey

LOST = "its row was damaged and is lost; to embed it again: --retry"
_UNEXPLAINED = "the reason was in a damaged part of the file and is lost"
_NAMED = 10  # lost photographs that a report names
# Attributes of `/metadata` that the contract holds too, from which one that is damaged is made again.
_OF_CONTRACT = (
    *("root", "limit", "model", "model_sha256", "recipe", "dimension", "crop", "alignment", "channel_order", "exif"),
    *("decode", "decoder", "precision", "calibration", "dtype", "skip_duplicates", "max_bytes", "max_pixels"),
    *("detector", "detector_sha256", "detector_precision", "detector_views", "align", "faces"),
    *("min_score", "min_iod", "min_sharpness", "min_frontal"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a repair.

    Attributes:
        findings: what was wrong; empty for a file that is whole, of which nothing was written.
        photographs, embeddings: of the repaired file.
        lost: photographs that are to be embedded again.
        named: the first of them, as text.
        nameless: photographs of which nothing is left, not even the name.
        notes: what else could not be told for certain.
        kept: where the damaged file is now; empty where it was left in its place.
    """

    findings: tuple[str, ...]
    photographs: int = 0
    embeddings: int = 0
    lost: int = 0
    named: tuple[str, ...] = ()
    nameless: int = 0
    notes: tuple[str, ...] = ()
    kept: str = ""


def repair(file: Path, output: Path | None = None, *, force: bool = False) -> Repaired:
    """Write a whole file from what can be read of a damaged one.

    Args:
        file: the damaged file; a link is followed.
        output: the repaired one. None to put it in the place of the damaged one, which is then called
            `<file>.damaged-1`, or the next free number.
        force: replace an existing output.
    Raises:
        ConfigError, OutputExistsError: as their messages say.
        LockedError: a run is writing the file.
        DiskFullError, StorageError: it cannot be opened, or nothing can be saved; it is as it was.
    """
    path = Path(os.path.realpath(file))
    target = path if output is None else Path(os.path.realpath(output))
    if output is not None and target == path:
        raise ConfigError(f"-o names {output}, the damaged file; wanted: another one, or no -o to repair it in place")
    if output is not None and target.exists() and not force:
        raise OutputExistsError(f"{output} exists. Name another file with -o, or replace it with --force")
    findings = verify_file(path).findings
    if not findings:
        return Repaired(())
    with RunFolder(target) as folder, readable_as(path), _open(path) as damaged:
        folder.refuse_unfinished()
        metadata, notes = _metadata(path, damaged)
        logger.info("reading what can be read of %s", path)
        found = survey(damaged)
        if not (found.status[~found.lost] == Status.EMBEDDED).any():
            raise StorageError(f"no row of {path} can be saved; wanted: one at least. Restore it from a copy")
        part = _part(path, damaged, found)
        if metadata["skip_duplicates"] and not part.has_digests:
            notes.append("the digests of the files are gone: duplicates are not skipped in it any more")
            metadata = _with_contract(metadata, {**json.loads(metadata["contract"]), "skip_duplicates": False})
        notes += [f"/{name} is left out, since rows have changed" for name in sorted(set(damaged) - OUR_DATASETS)]
        with rewriting(folder, [part]) as new:
            lost = np.flatnonzero(found.lost)
            new.ledger.settle(lost, Status.UNREADABLE, [LOST] * len(lost))
            unexplained = np.flatnonzero(found.unexplained)
            reasons = ["" if found.status[row] == Status.EMBEDDED else _UNEXPLAINED for row in unexplained]
            new.ledger.explain(unexplained, reasons)
            kept = "" if output is not None else str(_keep(path))
            if output is not None:
                record_elsewhere(path, str(target))
            assemble(target, new.ledger, new.paths, metadata_after(metadata, new.ledger), metadata["dtype"])
            return Repaired(
                findings,
                len(new.paths),
                int(new.ledger.vector_counts.sum()),
                len(lost),
                tuple(stored_text(found.paths[row]).decode() for row in lost[:_NAMED]),
                found.nameless,
                tuple(notes),
                kept,
            )


def _open(path: Path) -> Any:
    import h5py

    return h5py.File(path, "r")  # verify_file has opened it before


def _part(path: Path, damaged: Any, found: Survey) -> Part:
    outcomes = opened(damaged, "outcomes")
    return Part(
        path,
        damaged,
        lambda: iter(found.paths),
        found.status,
        found.position,
        found.vector,
        found.vector_counts,
        outcomes is not None and opened(outcomes, "digest") is not None,
        opened(damaged, "face_index") is not None,
        np.ones(len(found.paths), bool),
    )


def _keep(path: Path) -> Path:
    """A second name for the damaged file, durable before its first one becomes that of the repaired file."""
    number = 1
    while True:
        kept = path.with_name(f"{path.name}.damaged-{number}")
        if not os.path.lexists(kept):
            break
        if os.path.samefile(kept, path):  # of a repair that was killed
            return kept
        number += 1
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        shutil.copy2(path, kept)
    sync_folder(path.parent)
    return kept


def _metadata(path: Path, damaged: Any) -> tuple[dict[str, Any], list[str]]:
    """The attributes of the new file, and what about them could not be told for certain.

    Raises:
        StorageError: nobody can tell what the rows are.
    """
    try:
        found = read_attributes(damaged)
        vectors = damaged["embeddings"]
        check_size(vectors)
        if found.get("format_version") not in FORMAT_VERSIONS:
            raise ValueError(f"its format version is {found.get('format_version')}")
        notes = []
        contract: Mapping[str, Any] = {}
        with suppress(*DAMAGE):
            contract = json.loads(found["contract"])
        if not contract:
            contract = {key: found[key] for key in _OF_CONTRACT if key in found}
            notes.append("its contract could not be read and was made again from the other attributes")
        for key, value in contract.items():
            if key != "root" and found.get(key) != value:
                notes.append(
                    f"{key} was {found.get(key)!r} in one place and {value!r} in the contract, which was taken"
                )
        if vectors.shape[1:] != (contract["dimension"],) or str(vectors.dtype) != contract["dtype"]:
            raise ValueError(f"/embeddings is {vectors.shape} {vectors.dtype}, and the contract says otherwise")
        return _with_contract(found, contract), notes
    except DAMAGE as err:
        refuse_system_error(err, path)
        raise StorageError(
            f"{path} is damaged where it says what its rows are ({err}); nothing can be saved. Restore it from a copy, "
            f"or make it again"
        ) from err


def _with_contract(metadata: Mapping[str, Any], contract: Mapping[str, Any]) -> dict[str, Any]:
    root = os.fsencode(str(contract["root"])).decode("utf-8", "backslashreplace")
    return {**metadata, **contract, "root": root, "contract": json.dumps(contract)}
