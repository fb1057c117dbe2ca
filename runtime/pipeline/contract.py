"""The embedding contract of a run, and the face rules and limits that a contract contains."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import defaults
from ..engines.engine import EngineInfo
from ..errors import ContractError
from ..faces.align import ALIGN_RULE
from ..faces.rules import FaceRules
from ..images.decode import DECODE_RULE, Limits
from ..storage.contract import EmbeddingContract, Guard
from .request import Request


def contract_of(request: Request, info: EngineInfo, root: str) -> EmbeddingContract:
    """The contract of a run: everything that must agree for two runs to write rows of one file.

    Args:
        request: the run.
        info: facts of its engine.
        root: absolute folder of its paths, as text (surrogateescape).
    """
    contract = EmbeddingContract(
        root=root,
        limit=request.limit or 0,
        model=info.model,
        model_sha256=info.model_sha256,
        recipe=info.recipe,
        dimension=info.dimension,
        crop=f"{info.size}x{info.size}",
        alignment=ALIGN_RULE if request.detector else "none",
        channel_order=info.channel_order,
        exif="applied",
        decode=DECODE_RULE,
        decoder=request.decoder,
        precision=info.precision,
        calibration=info.int8.calibration,
        dtype=request.dtype,
        skip_duplicates=request.skip_duplicates,
        max_bytes=request.limits.max_bytes,
        max_pixels=request.limits.max_pixels,
    )
    if request.attributes is not None:
        named: dict[str, Any] = request.attributes.contract_fields()
        contract = replace(contract, **named)
    if request.detector is None:
        return contract
    detector, rules = request.detector.info, request.faces
    look = None if request.landmarks is None else request.landmarks.info
    # What accepts everything, or is not done, is not stated: see `EmbeddingContract`.
    optional: dict[str, Any] = {
        "landmarks": look and look.model,
        "landmarks_sha256": look and look.model_sha256,
        "landmarks_precision": look and look.precision,
        "min_brightness": rules.min_brightness or None,
        "min_contrast": rules.min_contrast or None,
        "max_fit": rules.fit_limit if rules.fit_limit < 1 else None,
        "pages": rules.pages if rules.pages != defaults.PAGES else None,
    }
    return replace(
        contract,
        detector=detector.model,
        detector_sha256=detector.model_sha256,
        detector_precision=detector.precision,
        detector_views=str(rules.find.with_second_look() if look else rules.find),
        align=rules.align,
        faces=rules.policy,
        min_score=rules.threshold,
        min_iod=rules.min_iod,
        min_sharpness=rules.min_sharpness,
        min_frontal=rules.min_frontal,
        **optional,
    )


def check_contract(
    stored: EmbeddingContract, expected: EmbeddingContract, path: Path, *, finished: bool = False
) -> None:
    """Refuse to resume a run with different settings, because its rows would not be comparable.

    Args:
        stored: the contract of the run or the file.
        expected: the contract of the request.
        path: the run folder or the file.
        finished: it is a finished file.
    Raises:
        ContractError: the contracts differ; the message has both values of each field.
    """
    different = stored.differences(expected, Guard.RUN, labels=("stored", "requested"))
    if different:
        if different[0].startswith("attribute_") and finished:
            raise ContractError(
                f"{path} is finished, with other attributes ({'; '.join(different)}), and its photos are not embedded "
                f"again for them. Add them with: facemill attributes {path}"
            )
        if different[0].startswith("attribute_"):
            raise ContractError(
                f"{path} was created without these attributes ({'; '.join(different)}). Finish it with the same "
                f"settings, and then add them with: facemill attributes FILE"
            )
        same = f" ({stored.landmark_option})" if stored.landmark_option in different[0] else ""
        raise ContractError(
            f"{path} was created with different settings ({'; '.join(different)}). Use the same settings{same}, name "
            f"another file with -o, or start over with --force"
        )


def face_rules_of(contract: EmbeddingContract) -> FaceRules:
    """The face rules of the rows of a file."""
    if not contract.detects_faces:
        return FaceRules("none")
    quality = contract.min_score, contract.min_iod, contract.min_sharpness, contract.min_frontal
    exposure = contract.min_brightness or 0.0, contract.min_contrast or 0.0
    pages = contract.pages or defaults.PAGES
    return FaceRules(contract.align, contract.faces, *quality, *exposure, pages, fit_limit_of(contract))


def landmarks_of(contract: EmbeddingContract) -> str | None:
    """The landmark network of a run that is resumed, "none" for a run without one; None for no run."""
    return (contract.landmarks or "none") if contract.detects_faces else None


def fit_limit_of(contract: EmbeddingContract) -> float:
    """The `FaceRules.max_fit` of the rows of a file; files of older versions accept all faces."""
    return 1.0 if contract.max_fit is None else contract.max_fit


def query_face_rules_of(contract: EmbeddingContract) -> FaceRules:
    """The face rules for a query in a file: those of its rows, without lower limits of quality."""
    if not contract.detects_faces:
        return FaceRules("none")
    policy = "largest" if contract.faces == "largest" else "all"
    return FaceRules(contract.align, policy, contract.min_score, 0.0, 0.0, 0.0, 0.0, 0.0, max_fit=1.0)


def limits_of(contract: EmbeddingContract) -> Limits:
    """The size limits of the photos of a file."""
    default = Limits()
    return Limits(contract.max_bytes or default.max_bytes, contract.max_pixels or default.max_pixels)
