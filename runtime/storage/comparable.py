"""Which embeddings may be compared, and what a file says of scores between them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError
from ..metrics.falsematch import Calibration, calibration_from_json
from .file import EmbeddingFile

logger = logging.getLogger(__name__)

ATTRIBUTE = "score_calibration"  # of `/metadata`; `calibration` is what an INT8 engine was calibrated on
# What need not agree: the rest of a contract decides what an embedding is. Which faces count is of the run. Who found
# them is not, since it decides where a crop lies: the digests of model and detector must agree, names need not. The
# decoder moves a crop by less than a pixel. The views move it by some, but follow from the file where a query is made.
_OF_THE_RUN = frozenset(
    {"root", "limit", "model", "dtype", "decoder", "skip_duplicates", "max_bytes", "max_pixels"}
    | {"align", "detector", "detector_views", "faces", "min_score", "min_iod", "min_sharpness", "min_frontal"}
)


def comparable(contract: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a contract that decides what an embedding is: those that agree in it may be compared."""
    return {key: value for key, value in contract.items() if key not in _OF_THE_RUN}


def comparable_scores(contract: Mapping[str, Any]) -> dict[str, Any]:
    """The part that must agree where scores of some photographs are to say something of others.

    That is more than `comparable`: `--faces largest` looks at other views than `all` and `one`, and the crops of one
    face lie some pixels apart (cosine mostly 0.95 to 0.98).
    """
    views = {key: contract[key] for key in ("detector_views",) if key in contract}
    return {**comparable(contract), **views}


def differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], where: tuple[str, str] = ("in the file", "now")
) -> list[str]:
    """What is wanted and not what a file holds, in words with both values.

    Args:
        stored: the contract of a file.
        wanted: the comparable part of another one.
        where: the words for both.
    """
    return [
        f"{key}: {stored.get(key)!r} {where[0]}, {value!r} {where[1]}"
        for key, value in wanted.items()
        if stored.get(key) != value
    ]


def all_differences(
    stored: Mapping[str, Any], wanted: Mapping[str, Any], where: tuple[str, str] = ("in the file", "now")
) -> list[str]:
    """`differences`, with what only the file holds."""
    keys = {**stored, **wanted}
    return differences(stored, {key: wanted.get(key) for key in keys}, where)


def find_calibration(file: EmbeddingFile) -> Calibration | None:
    """The calibration that a file carries; one that cannot be used is told and left out, since hits need none."""
    if ATTRIBUTE not in file.metadata:
        return None
    try:
        found = calibration_from_json(str(file.metadata[ATTRIBUTE]))
    except ConfigError as err:
        logger.warning("%s: %s", file.path, err)
        return None
    different = differences(file.contract, found.contract)
    if different:
        logger.warning(
            "the calibration in %s is not of its embeddings (%s) and is not used. Make it again with: "
            "facemill evaluate FOLDER --calibrate %s",
            file.path,
            "; ".join(different),
            file.path,
        )
        return None
    return found
