"""An engine is guilty until proven equal: its embeddings against those of the model's own FP32 graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError, ParityError
from ..extras import require
from ..faces.detectors import decoder_of
from ..graphs.detector import picture_size, reference_faces
from ..modelspec import ModelSpec
from .engine import Parity as Parity
from .quantise import Reading
from .runner import Runner

CROPS, SYNTHETIC_GROUPS = 64, 4


@dataclass(frozen=True, slots=True)
class Bar:
    """What the cosines of an engine's embeddings to the reference have to reach.

    Attributes:
        minimum, mean: over all crops.
    """

    minimum: float
    mean: float


BARS = {
    "fp32": Bar(0.99999, 0.99999),
    "fp16": Bar(0.999, 0.999),
    # Measured on LFW with MobileFaceNet: a mean of 0.9975 (minimum 0.99) moves the score of a pair by 0.0085, where
    # strangers' scores spread by 0.10 and one person's lie at 0.64. At 0.995 it would be 0.012: as far as this may go.
    # A single odd crop may be further off, but its two embeddings have to stay far closer than two photographs are.
    "int8": Bar(0.97, 0.995),
}


def measure_parity(runner: Runner, spec: ModelSpec, weights: Path, crops: NDArray[np.uint8] | None = None) -> Parity:
    """Compare an engine with `reference_embeddings`.

    Args:
        runner: the engine.
        spec, weights: the model that it was built from.
        crops: (N, S, S, 3) uint8 in the model's channel order, for a detector N of at least 16 views of which four are
            as long as the picture that its file is for: beside synthetic ones, which None takes alone.
    Raises:
        ModelError: the reference graph cannot be run.
        ConfigError, EngineError: the engine cannot.
    """
    if spec.detects:
        # The synthetic ones always: on photographs without faces, whatever finds none would pass.
        size, weigh = picture_size(weights), decoder_of(spec.decode).score_at
        crops = np.concatenate([synthetic_groups(size=size), *([] if crops is None else [grouped(crops, size)])])
        expected = weighted(reference_faces(weights, spec, crops), weigh)
        found = weighted(np.concatenate([_alone(runner, one) for one in crops]).astype(np.float64), weigh)
    else:
        crops = synthetic_crops(spec.size) if crops is None else crops
        expected = reference_embeddings(spec, weights, crops)
        found = _embed(runner, crops).astype(np.float64)
    if found.shape != expected.shape or not np.isfinite(found).all():
        return Parity(len(crops), -1.0, -1.0)
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)  # (N,)
    dots = np.einsum("nd,nd->n", found, expected)
    equal = np.where(lengths > 0, dots / np.maximum(lengths, 1e-300), (found == expected).all(axis=1))
    real = equal[SYNTHETIC_GROUPS:] if spec.detects and len(equal) > SYNTHETIC_GROUPS else equal
    return Parity(len(crops), float(equal.min()), float(real.mean()))


def check_parity(parity: Parity, precision: str, what: str) -> None:
    """Refuse an engine below the bar.

    Raises:
        ParityError: the smallest cosine or their mean is below `BARS[precision]`.
    """
    bar = BARS[precision]
    if not (parity.minimum >= bar.minimum and parity.mean >= bar.mean):
        raise ParityError(
            f"{what} does not answer like the FP32 ONNX graph: over {parity.images} crops the smallest cosine is "
            f"{parity.minimum:.6f} (mean {parity.mean:.6f}), expected at least {bar.minimum} (mean {bar.mean}) for "
            f"{precision}. Nothing was kept." + (" Build it with --precision fp32" if precision != "fp32" else "")
        )


def reference_embeddings(spec: ModelSpec, weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The model's own file, untouched, on ONNX Runtime: NumPy normalises before it and L2 after it.

    Args:
        spec, weights: the model.
        crops: (N, S, S, 3) uint8 in the model's channel order.
    Returns:
        (N, D) float64, unit rows (zero where the network answers zero).
    Raises:
        ModelError: ONNX Runtime refuses the file, or its answer is not of the stated length.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    mean, std = np.asarray(spec.mean, np.float32), np.asarray(spec.std, np.float32)
    pixels = ((crops.astype(np.float32) - mean) / std).transpose(0, 3, 1, 2)  # (N, 3, S, S)
    try:
        session = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
        source = session.get_inputs()[0]
        target = spec.output_name or session.get_outputs()[0].name
        step = source.shape[0] if isinstance(source.shape[0], int) else len(crops)
        rows = np.concatenate([
            session.run([target], {source.name: np.ascontiguousarray(np.resize(part, (step, *part.shape[1:])))})[0]
            .reshape(step, -1)[: len(part)]
            for part in (pixels[start : start + step] for start in range(0, len(pixels), step))
        ]).astype(np.float64)  # (N, D)  # fmt: skip
    except Exception as err:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run the ONNX file {weights}: {err}") from err
    if rows.shape[1] != spec.dimension:
        raise ModelError(
            f"the ONNX file {weights} answers with {rows.shape[1]} numbers an image; expected by the model file "
            f"{spec.name}: {spec.dimension}"
        )
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), np.float64)


def synthetic_crops(size: int, count: int = CROPS, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth face-like pictures: an oval with eyes and a mouth under uneven light, before a background.

    Networks are far more sensitive on noise, and far less on flat grey, than on photographs.

    Args:
        size: side S, pixels.
        count: pictures.
        seed: the same seed gives the same pictures.
    Returns:
        (count, S, S, 3) uint8.
    """
    random = np.random.RandomState(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]

    def blob(cx: float, cy: float, rx: float, ry: float) -> NDArray[np.float64]:
        """(S, S, 1), 1 inside an ellipse, falling smoothly to 0."""
        inside = 1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2
        return np.asarray(1 / (1 + np.exp(-12 * np.clip(inside, -5, 5))))[..., None]

    pictures = np.empty((count, size, size, 3), np.uint8)
    for picture in pictures:
        shift, wide, eye, mouth = random.uniform((-0.1, 0.5, 0.25, 0.15), (0.1, 0.7, 0.4, 0.35))
        skin, dark, back, lips = random.uniform((110, 10, 20, 60), (235, 80, 230, 140), (3, 4)).T
        light = 1 + 0.3 * (random.uniform(-1, 1) * x + random.uniform(-1, 1) * y)[..., None]
        level: NDArray[np.float64] = np.broadcast_to(back, (size, size, 3))
        for colour, mask in (
            (skin, blob(shift, 0.05, wide, 0.85)),
            (dark, blob(shift, -0.9, wide, random.uniform(0.3, 0.5))),
            (dark, blob(shift - eye, -0.2, 0.12, 0.07) + blob(shift + eye, -0.2, 0.12, 0.07)),
            (lips, blob(shift, 0.5, mouth, 0.07)),
        ):
            level = level + (colour - level) * mask
        picture[:] = np.clip(level * light + random.normal(0, 2, level.shape), 0, 255)
    return pictures


def grouped(views: NDArray[np.uint8], size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """(N // n, H, W, 3): n views (N, S, S, 3) beside each other in each, as many as fit; those left over are left out.

    Args:
        views: the views.
        size: height and width of a picture, at least those of a view, pixels.
    """
    side = views.shape[1]
    rows, columns = size[0] // side, size[1] // side
    count = len(views) // (rows * columns)
    groups = views[: rows * columns * count].reshape(count, rows, columns, side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    pictures = np.zeros((count, *size, 3), np.uint8)
    pictures[:, : rows * side, : columns * side] = groups.reshape(count, rows * side, columns * side, 3)
    return pictures


def synthetic_groups(count: int = SYNTHETIC_GROUPS, size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """(count, H, W, 3) uint8: face-like pictures side by side, sixteen in 640 x 640, which detectors take for faces."""
    fit = (size[0] // 160) * (size[1] // 160)
    return grouped(np.pad(synthetic_crops(112, fit * count), ((0, 0), (24, 24), (24, 24), (0, 0))), size)


def weighted(raw: NDArray[np.float64], score_at: int = 0) -> NDArray[np.float64]:
    """(N, P * V): a detector's answers, each anchor counting as much as its score: what is no face has no place."""
    scores = raw[..., score_at : score_at + 1]
    others = np.delete(raw, score_at, axis=2)
    return np.concatenate([scores, scores * others], axis=2).reshape(len(raw), -1)


def reading_of(spec: ModelSpec) -> Reading | None:
    """What counts of a model's answers when INT8 is chosen by them; None: all of it."""
    if not spec.detects:
        return None
    score_at = decoder_of(spec.decode).score_at
    return lambda raw: weighted(raw, score_at)


def _alone(runner: Runner, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, P, V) of one picture, in a batch as small as the profile allows."""
    return runner.infer(np.repeat(picture[None], runner.info.profile[0], axis=0))[:1]


def _embed(runner: Runner, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, D) in batches that the profile allows; a last one that is too small is filled up."""
    low, _, high = runner.info.profile
    rows = []
    for start in range(0, len(crops), high):
        part = crops[start : start + high]
        filled = part if len(part) >= low else np.resize(part, (low, *part.shape[1:]))
        rows.append(runner.infer(np.ascontiguousarray(filled))[: len(part)])
    return np.concatenate(rows)
