"""Whether finished files can become one, and what the one says of itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..errors import ContractError
from ..storage.calibration import ATTRIBUTE, fitting_calibration
from ..storage.contract import Guard, join_contracts
from ..storage.file import EmbeddingFile


def check_joinable(files: Sequence[EmbeddingFile]) -> None:
    """Refuse files whose rows may not stand in one.

    Raises:
        ContractError: naming every difference with both values.
    """
    first, *others = files
    for other in others:
        labels = "in the first", "in the other"
        different = first.contract.differences(other.contract, Guard.FILE, both=True, labels=labels)
        if different:
            raise ContractError(
                f"{first.path} and {other.path} cannot be one file ({'; '.join(different)}); wanted: the same values. "
                f"Make one of them again as the other was made"
            )


def common_root(roots: Sequence[bytes]) -> bytes:
    """The folder that several are below, or one of them."""
    return os.path.commonpath(roots)


def prefix_below(root: bytes, folder: bytes) -> bytes:
    """What stands before a path below `folder` to make it one below `root`: empty, or ends in a slash."""
    below = os.path.relpath(folder, root)
    return b"" if below == b"." else below + b"/"


def joined_metadata(files: Sequence[EmbeddingFile], root: bytes) -> dict[str, Any]:
    """The attributes of `/metadata` of a file joined from several; those that count are counted later.

    Args:
        files: joinable; the first says what need not agree.
        root: the folder that all paths are below.
    """
    contract = join_contracts([file.contract for file in files], root)
    metadata = {key: value for key, value in files[0].metadata.items() if key != ATTRIBUTE}
    calibration = next(filter(None, (fitting_calibration(file, contract) for file in files)), None)
    return {**metadata, **contract.attributes(), **({} if calibration is None else {ATTRIBUTE: calibration})}
