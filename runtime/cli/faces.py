"""The options about faces, which several commands share, and the detector's engine behind them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .engines import engine_for

if TYPE_CHECKING:
    from ..engines.engine import Engine
    from ..faces.rules import FaceRules

_ENGINES = (".onnx", ".plan")
_WHO = (
    click.option(
        "--align",
        type=click.Choice(["auto", "detect", "none"]),
        default="auto",
        show_default=True,
        help="auto: a photograph of exactly the crop's size is taken as aligned. none: all are taken whole.",
    ),
    click.option(
        "--detector",
        help="Who looks for faces: a registered detector, PATH.toml, or an engine file from build-engine. "
        "[yunet if its file is on this machine, else facemill-det, which is shipped; a file that goes on keeps its "
        "own]",
    ),
)
_WHICH = (
    click.option(
        "--faces",
        type=click.Choice(["largest", "all", "one"]),
        default="largest",
        show_default=True,
        help="Of several: the large one near the middle, each in a row of its own, or refuse the photograph.",
    ),
    click.option("--min-score", type=float, default=0.6, show_default=True, help="Of the detector, for a face."),
    click.option("--min-iod", type=float, default=10.0, show_default=True, help="Pixels between the eyes, at least."),
    click.option("--min-sharpness", type=float, default=0.0, show_default=True, help="See docs/faces.md."),
    click.option("--min-frontal", type=float, default=0.0, show_default=True, help="1 frontal, 0 profile."),
)


def detector_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--align`, and `--detector`, None where it is not given, to a command."""
    for option in reversed(_WHO):
        command = option(command)
    return command


def face_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add all of them to a command, which takes those beyond `detector_options` as `**faces`."""
    for option in reversed(_WHICH):
        command = option(command)
    return detector_options(command)


def face_rules(
    align: str, faces: str, min_score: float, min_iod: float, min_sharpness: float, min_frontal: float
) -> FaceRules:
    """The rules that the options ask for."""
    from ..faces.rules import FaceRules

    return FaceRules(align, faces, min_score, min_iod, min_sharpness, min_frontal)


def detector_for(detector: str | None, align: str, backend: str, *, begun: str = "") -> Engine | None:
    """The detector's engine: the file that is named, or one built from the model; None when nothing is looked for.

    Args:
        detector: registered name, PATH.toml, or an engine file; None for the default one.
        align: as the option says.
        backend: for a model.
        begun: the detector that the file in question was begun with; empty where there is none.
    Raises:
        ModelUnavailableError: the detector's file is neither here nor to be fetched.
    """
    if align == "none":
        return None
    from ..engines.engine import read_engine, sidecar_path
    from ..errors import ModelUnavailableError
    from ..modelstore import SHIPPED_DETECTOR, default_detector

    detector = detector or default_detector(begun)
    path = Path(detector)
    if path.suffix in _ENGINES and sidecar_path(path).exists():
        return read_engine(path)
    try:
        return engine_for(detector, backend, detects=True)
    except ModelUnavailableError as err:
        raise ModelUnavailableError(
            f"{err.message}\nThis model is the face detector. Another detector is on this machine, for new files: "
            f"--detector {SHIPPED_DETECTOR}. Photographs that are aligned crops already need none: --align none"
        ) from err


def is_path(detector: str) -> bool:
    """Whether it is named by a file, and not as a registered one."""
    return Path(detector).suffix in (".toml", *_ENGINES)


def licence_of(detector: str) -> str:
    """The licence that the model file of a detector states; empty for an engine whose model is not registered.

    Args:
        detector: as `detector_for` takes it.
    """
    from ..engines.engine import read_engine
    from ..modelspec import list_specs, load_spec

    path = Path(detector)
    if path.suffix not in _ENGINES:
        return load_spec(detector).licence
    sha256 = read_engine(path).info.model_sha256
    return next((spec.licence for spec in list_specs() if spec.sha256 == sha256), "")
