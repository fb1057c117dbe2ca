"""Join finished files: check that their rows may be in one file, join its metadata, mark duplicate photos."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ContractError
from ..records import SAME_FILE, Status
from ..storage.calibration import ATTRIBUTE, fitting_calibration
from ..storage.contract import Guard, join_contracts
from ..storage.file import EmbeddingFile
from ..storage.format import display_text
from ..storage.ledger import Ledger

_BLOCK_ROWS = 65_536
_NEVER_READ = (Status.PENDING, Status.UNREADABLE)  # these photos have no digest


def check_joinable(files: Sequence[EmbeddingFile]) -> None:
    """Refuse files whose rows may not be in one file.

    Raises:
        ContractError: the contracts differ; the message lists each difference with both values.
    """
    first, *later_files = files
    for later in later_files:
        labels = "in the first", "in the other"
        different = first.contract.differences(later.contract, Guard.FILE, both=True, labels=labels)
        if different and all(line.startswith("attribute_") for line in different):
            raise ContractError(
                f"{first.path} and {later.path} cannot be joined: their age and gender differ "
                f"({'; '.join(different)}). Read them in both files by the same network from the same source, with: "
                f"facemill attributes FILE"
            )
        if different:
            option = first.contract.landmark_option
            how = f": facemill process PHOTOS -o {later.path} --force {option}" if option in different[0] else ""
            raise ContractError(
                f"{first.path} and {later.path} cannot be joined ({'; '.join(different)}); expected: the same values. "
                f"Create one of them again with the settings of the other{how}"
            )


def common_root(roots: Sequence[bytes]) -> bytes:
    """The lowest folder that contains all of the roots."""
    return os.path.commonpath(roots)


def prefix_below(root: bytes, folder: bytes) -> bytes:
    """The prefix that turns paths below `folder` into paths below `root`: empty, or ends in a slash."""
    below = os.path.relpath(folder, root)
    return b"" if below == b"." else below + b"/"


def joined_metadata(files: Sequence[EmbeddingFile], root: bytes) -> dict[str, Any]:
    """The attributes of `/metadata` of a joined file, except the counts.

    Args:
        files: joinable files; values that need not agree are those of the first.
        root: the folder that all paths are below.
    """
    contract = join_contracts([file.contract for file in files], root)
    metadata = {key: value for key, value in files[0].metadata.items() if key != ATTRIBUTE}
    calibration = next(filter(None, (fitting_calibration(file, contract) for file in files)), None)
    return {**metadata, **contract.attributes(), **({} if calibration is None else {ATTRIBUTE: calibration})}


def mark_duplicates(ledger: Ledger, paths: Sequence[bytes]) -> None:
    """Give photos of the second file the outcome DUPLICATE if the first has the same photo, byte for byte.

    Does nothing unless duplicates are skipped, so that the digests of all photos are known.

    Args:
        ledger: over two finished files; the second is added to the first.
        paths: the paths of its rows.
    """
    if not ledger.has_digests:
        return
    read = ~np.isin(ledger.status, _NEVER_READ)
    added: dict[bytes, list[int]] = {}
    for rows in _blocks(np.flatnonzero(read & (ledger.source > 0))):
        for row, digest in zip(rows.tolist(), ledger.digests(rows), strict=True):
            added.setdefault(digest.tobytes(), []).append(row)
    first8 = np.array([int.from_bytes(digest[:8], "little") for digest in added], np.uint64)
    originals: dict[bytes, int] = {}
    for rows in _blocks(np.flatnonzero(read & (ledger.source == 0) & (ledger.status != Status.DUPLICATE))):
        digests = ledger.digests(rows)
        likely = np.flatnonzero(np.isin(np.ascontiguousarray(digests[:, :8]).view("<u8")[:, 0], first8))
        originals |= {digests[i].tobytes(): int(rows[i]) for i in likely}
    for digest, original in originals.items():
        rows = np.array(added.get(digest, []), np.int64)
        same = SAME_FILE + display_text(paths[original])
        ledger.set_outcomes(rows, Status.DUPLICATE, [same] * len(rows))


def _blocks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(rows, range(_BLOCK_ROWS, len(rows), _BLOCK_ROWS)) if len(rows) else []
