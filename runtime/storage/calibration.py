"""The calibration of an embedding file: how often photos of different people reach a score."""

from __future__ import annotations

import logging

from ..errors import ConfigError
from ..metrics.falsematch import Calibration, calibration_from_json
from .contract import EmbeddingContract, Guard
from .file import EmbeddingFile

logger = logging.getLogger(__name__)

ATTRIBUTE = "score_calibration"  # of `/metadata`; its `calibration` names the crops that calibrated an INT8 engine


def find_calibration(file: EmbeddingFile) -> Calibration | None:
    """The calibration of a file. An unusable one is logged and ignored, because hits need none."""
    if ATTRIBUTE not in file.metadata:
        return None
    try:
        calibration = calibration_from_json(str(file.metadata[ATTRIBUTE]))
        different = _differences(file.contract, calibration)
    except ConfigError as err:
        logger.warning("%s: %s", file.path, err)
        return None
    if different:
        logger.warning(
            "the calibration in %s does not match its embeddings (%s) and is ignored. Create it again with: "
            "facemill evaluate FOLDER --calibrate %s",
            file.path,
            "; ".join(different),
            file.path,
        )
        return None
    return calibration


def fitting_calibration(file: EmbeddingFile, contract: EmbeddingContract) -> str | None:
    """The JSON of the calibration of a file, if it is valid for embeddings of a contract."""
    text = file.metadata.get(ATTRIBUTE)
    if text is None:
        return None
    try:
        different = _differences(contract, calibration_from_json(str(text)))
    except ConfigError:
        return None
    return None if different else str(text)


def _differences(contract: EmbeddingContract, calibration: Calibration) -> list[str]:
    try:
        calibrated = EmbeddingContract.from_dict(calibration.contract)
    except ValueError as err:
        raise ConfigError(f"the calibration cannot be used ({err})") from err
    return contract.differences(calibrated, Guard.RUN)
