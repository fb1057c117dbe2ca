"""Whether finished files can become one, and what the one says of itself."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ConfigError, ContractError
from ..metrics.falsematch import calibration_from_json
from ..storage.comparable import ATTRIBUTE, all_differences, comparable, differences
from ..storage.file import EmbeddingFile

# Beyond what makes embeddings comparable, these must agree, since one file says them of all its rows.
_OF_ALL_ROWS = ("dtype", "align", "faces", "detector_views", "min_score", "min_iod", "min_sharpness", "min_frontal")


def of_all_rows(contract: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a contract in which all rows of one file agree."""
    return {**comparable(contract), **{key: contract[key] for key in _OF_ALL_ROWS if key in contract}}


def check_joinable(files: Sequence[EmbeddingFile]) -> None:
    """Refuse files whose rows may not stand in one.

    Raises:
        ContractError: naming every difference with both values.
    """
    first, *others = files
    for other in others:
        contracts = of_all_rows(first.contract), of_all_rows(other.contract)
        different = all_differences(*contracts, ("in the first", "in the other"))
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

    What a contract says of the whole run holds for the joined file only where all agree in it: the root is the common
    one, no limit holds for it, and duplicates were skipped only if all skipped them.

    Args:
        files: joinable; the first says what need not agree.
        root: of all.
    """
    first = files[0]
    contract = {**first.contract, "root": os.fsdecode(root)}
    if len(files) > 1:
        contract["limit"] = 0
        contract["skip_duplicates"] = all(file.contract["skip_duplicates"] for file in files)
        for key in ("max_bytes", "max_pixels"):
            contract[key] = max(file.contract[key] for file in files)
    metadata = {key: value for key, value in first.metadata.items() if key != ATTRIBUTE}
    calibration = next(filter(None, (_calibration(file, contract) for file in files)), None)
    return {
        **metadata,
        **contract,
        "root": root.decode("utf-8", "backslashreplace"),
        "contract": json.dumps(contract),
        **({} if calibration is None else {ATTRIBUTE: calibration}),
    }


def _calibration(file: EmbeddingFile, contract: Mapping[str, Any]) -> str | None:
    """The calibration that a file carries, if it says something of embeddings of this contract."""
    found = file.metadata.get(ATTRIBUTE)
    if found is None:
        return None
    try:
        fits = not differences(contract, calibration_from_json(str(found)).contract)
    except ConfigError:
        return None
    return str(found) if fits else None
