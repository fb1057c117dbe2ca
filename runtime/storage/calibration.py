"""The calibration of scores that an embedding file carries: how often a score is reached by different people."""

from __future__ import annotations

import logging

from ..errors import ConfigError
from ..metrics.falsematch import Calibration, calibration_from_json
from .contract import EmbeddingContract, Guard
from .file import EmbeddingFile

logger = logging.getLogger(__name__)

ATTRIBUTE = "score_calibration"  # of `/metadata`; `calibration` is what an INT8 engine was calibrated on


def find_calibration(file: EmbeddingFile) -> Calibration | None:
    """The calibration that a file carries. One that cannot be used is logged and left out, since hits need none."""
    if ATTRIBUTE not in file.metadata:
        return None
    try:
        calibration = calibration_from_json(str(file.metadata[ATTRIBUTE]))
    except ConfigError as err:
        logger.warning("%s: %s", file.path, err)
        return None
    different = _differences(file.contract, calibration)
    if different:
        logger.warning(
            "the calibration in %s is not of its embeddings (%s) and is not used. Make it again with: "
            "facemill evaluate FOLDER --calibrate %s",
            file.path,
            "; ".join(different),
            file.path,
        )
        return None
    return calibration


def fitting_calibration(file: EmbeddingFile, contract: EmbeddingContract) -> str | None:
    """The JSON of the calibration that a file carries, if it says something of embeddings of a contract."""
    text = file.metadata.get(ATTRIBUTE)
    if text is None:
        return None
    try:
        different = _differences(contract, calibration_from_json(str(text)))
    except ConfigError:
        return None
    return None if different else str(text)


def _differences(contract: EmbeddingContract, calibration: Calibration) -> list[str]:
    return contract.differences(EmbeddingContract.from_dict(calibration.contract), Guard.RUN)
