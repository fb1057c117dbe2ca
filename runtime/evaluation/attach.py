"""Write a calibration into an embedding file."""

from __future__ import annotations

from pathlib import Path

from .. import __version__
from ..errors import ContractError
from ..index.samerows import same_rows
from ..metrics.falsematch import Calibration, calibrate
from ..pipeline.contract import contract_of
from ..pipeline.request import Request
from ..storage.calibration import ATTRIBUTE
from ..storage.contract import EmbeddingContract, Guard
from ..storage.dataset import edit_file
from ..storage.file import EmbeddingFile
from .evaluate import Evaluation


def check_file(file: Path, request: Request) -> None:
    """Check, before any photo is embedded, that the scores will be valid for a file.

    Raises:
        ContractError: the embeddings would not be comparable; the message names every difference.
        EngineError, StorageError: the engine or the file cannot be read.
    """
    contract = contract_of(request, request.engine.info, "")
    with EmbeddingFile(file) as embeddings:
        _check_comparable(embeddings, contract)


def _check_comparable(embeddings: EmbeddingFile, contract: EmbeddingContract) -> None:
    differences = embeddings.contract.differences(contract, Guard.SCORES)
    if differences:
        raise ContractError(
            f"the evaluated embeddings are not comparable with {embeddings.path} ({'; '.join(differences)}); expected: "
            f"the same values. Evaluate as the file was made: facemill evaluate FOLDER --engine "
            f"{embeddings.metadata.get('engine')}{_face_options(embeddings)}"
        )


def _face_options(embeddings: EmbeddingFile) -> str:
    """Return the options that detect faces as they were detected for a file."""
    contract = embeddings.contract
    if not contract.detects_faces:
        return " --align none"
    detector = embeddings.metadata.get("detector_engine")
    pages = f" --pages {contract.pages}" if contract.pages else ""
    landmarks = embeddings.metadata.get("landmarks_engine", "none")
    return f" --align {contract.align} --detector {detector} --landmarks {landmarks} --faces {contract.faces}{pages}"


def calibration_of(evaluation: Evaluation, folder: Path, made_utc: str) -> Calibration:
    """Calibrate from the scores of all photos of two people against each other.

    Args:
        evaluation: the evaluation.
        folder: the folder of photos; the calibration keeps only its name.
        made_utc: ISO 8601.
    Raises:
        ConfigError: the folder does not hold two people.
    """
    return calibrate(
        evaluation.curve,
        contract=evaluation.embedded.contract.select(Guard.SCORES),
        folder=folder.resolve().name,
        photographs=int((evaluation.embedded.person[evaluation.embedded.has_vector] >= 0).sum()),
        people=evaluation.people,
        made_utc=made_utc,
        tool_version=__version__,
    )


def attach_calibration(file: Path, calibration: Calibration, *cards: Path) -> None:
    """Write a calibration into `/metadata` of an embedding file, replacing an earlier one.

    The file is replaced atomically, see `edit_file`. Indexes beside it stay valid.

    Args:
        file: a finished file; a link is followed.
        calibration: made from comparable embeddings.
        cards: see `same_rows`.
    Raises:
        ContractError: the calibration is for other embeddings; the message names every difference.
        LockedError: a run is writing the file.
        DiskFullError, StorageError: writing failed; the file is unchanged.
    """
    with EmbeddingFile(file) as embeddings:
        _check_comparable(embeddings, EmbeddingContract.from_dict(calibration.contract))
    with same_rows(file, *cards), edit_file(file) as target:
        target["metadata"].attrs[ATTRIBUTE] = calibration.to_json()
