"""A calibration into the embedding file that it is for."""

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
    """Say before the photographs are embedded that their scores would say nothing of a file.

    Raises:
        ContractError: the embeddings could not be compared; every difference is named.
        EngineError, StorageError: the engine or the file cannot be read.
    """
    contract = contract_of(request, request.engine.info, "")
    with EmbeddingFile(file) as gallery:
        _check_comparable(gallery, contract)


def _check_comparable(gallery: EmbeddingFile, contract: EmbeddingContract) -> None:
    different = gallery.contract.differences(contract, Guard.SCORES)
    if different:
        raise ContractError(
            f"the evaluated embeddings say nothing of {gallery.path} ({'; '.join(different)}); wanted: the same "
            f"values. Evaluate as the file was made: --engine {gallery.metadata.get('engine')}{_faces_of(gallery)}"
        )


def _faces_of(gallery: EmbeddingFile) -> str:
    """The options by which faces were looked for in the photographs of a file."""
    made = gallery.contract
    if not made.detects_faces:
        return " --align none"
    return f" --align {made.align} --detector {gallery.metadata.get('detector_engine')} --faces {made.faces}"


def calibration_of(one: Evaluation, folder: Path, made_utc: str) -> Calibration:
    """The calibration that all photographs of two people give, against each other.

    Args:
        one: the evaluation.
        folder: its photographs'; the calibration keeps the name alone.
        made_utc: ISO 8601.
    Raises:
        ConfigError: there are no two people.
    """
    return calibrate(
        one.curve,
        contract=one.embedded.contract.select(Guard.SCORES),
        folder=folder.resolve().name,
        photographs=int((one.embedded.person[one.embedded.here] >= 0).sum()),
        people=one.people,
        made_utc=made_utc,
        tool_version=__version__,
    )


def attach_calibration(file: Path, calibration: Calibration, *cards: Path) -> None:
    """Write a calibration into `/metadata` of an embedding file, in place of an earlier one.

    The file is replaced whole, see `edit_file`; indexes beside it are its indexes still.

    Args:
        file: a finished file; a link is followed.
        calibration: of comparable embeddings.
        cards: as for `same_rows`.
    Raises:
        ContractError: it is of others; every difference is named.
        LockedError: a run is writing the file.
        DiskFullError, StorageError: the file is as it was.
    """
    with EmbeddingFile(file) as gallery:
        _check_comparable(gallery, EmbeddingContract.from_dict(calibration.contract))
    with same_rows(file, *cards), edit_file(file) as target:
        target["metadata"].attrs[ATTRIBUTE] = calibration.to_json()
