"""The parity check: compare the outputs of an engine with those of the model's own FP32 graph."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import Interrupted, ModelError, ParityError
from ..extras import require
from ..faces.detectors import decoder_of
from ..graphs.detector import image_size, reference_faces
from ..modelspec import ModelSpec
from .engine import Parity as Parity
from .quantise import Reading
from .runner import Runner

CROPS, SYNTHETIC_GROUPS = 64, 4


@dataclass(frozen=True, slots=True)
class Bar:
    """The required cosines between an engine and the reference.

    Attributes:
        minimum, mean: over all crops.
    """

    minimum: float
    mean: float


BARS = {
    "fp32": Bar(0.99999, 0.99999),
    "fp16": Bar(0.999, 0.999),
    # Measured on LFW with MobileFaceNet: a mean of 0.9975 (minimum 0.99) shifts the score of a pair by 0.0085, while
    # scores of different people spread by 0.10 and those of one person are about 0.64. A mean of 0.995 would shift it
    # by 0.012, which is the limit. A single crop may differ more, but much less than two photos of a person do.
    "int8": Bar(0.97, 0.995),
}


def measure_parity(runner: Runner, spec: ModelSpec, weights: Path, crops: NDArray[np.uint8] | None = None) -> Parity:
    """Compare an engine with the unchanged ONNX file.

    Args:
        runner: the engine.
        spec, weights: the model that it was built from.
        crops: (N, S, S, 3) uint8 in the model's channel order. For a detector at least 16 views, of which four side by
            side fill its image; they are added to synthetic ones. None: synthetic images only.
    Raises:
        ModelError: the reference graph cannot run, or answers zeros only.
        ConfigError, EngineError: the engine cannot run.
    """
    if spec.detects:
        # Always with synthetic images: on photos without faces, an engine that detects nothing would pass.
        size, score_at = image_size(weights), decoder_of(spec.decode).score_at
        crops = np.concatenate([synthetic_groups(size=size), *([] if crops is None else [tile_views(crops, size)])])
        expected = weigh_by_score(reference_faces(weights, spec, crops), score_at)
        outputs = np.concatenate([_infer_one(runner, crop) for crop in crops]).astype(np.float64)
        got = weigh_by_score(outputs, score_at)
    else:
        crops = synthetic_crops(spec.size) if crops is None else crops
        read = reading_of(spec) or _all_of
        expected = read(reference_rows(spec, weights, crops))
        if not expected.any():
            raise ModelError(
                f"the network of {spec.name} answers zeros to each of {len(crops)} pictures; expected: numbers that "
                f"tell faces apart. Its weights were lost: export {weights} again"
            )
        got = read(_embed(runner, crops).astype(np.float64))
    if got.shape != expected.shape or not np.isfinite(got).all():
        return Parity(len(crops), -1.0, -1.0)
    lengths = np.linalg.norm(got, axis=1) * np.linalg.norm(expected, axis=1)  # (N,)
    dots = np.einsum("nd,nd->n", got, expected)
    cosines = np.where(lengths > 0, dots / np.maximum(lengths, 1e-300), (got == expected).all(axis=1))
    real = cosines[SYNTHETIC_GROUPS:] if spec.detects and len(cosines) > SYNTHETIC_GROUPS else cosines
    return Parity(len(crops), float(cosines.min()), float(real.mean()))


def check_parity(parity: Parity, precision: str, label: str) -> None:
    """Check that an engine reaches the bar of its precision.

    Raises:
        ParityError: the smallest cosine or their mean is below `BARS[precision]`.
    """
    bar = BARS[precision]
    if not (parity.minimum >= bar.minimum and parity.mean >= bar.mean):
        raise ParityError(
            f"{label} differs from the FP32 ONNX graph: over {parity.images} crops the smallest cosine is "
            f"{parity.minimum:.6f} (mean {parity.mean:.6f}), expected at least {bar.minimum} (mean {bar.mean}) for "
            f"{precision}. Nothing was stored." + (" Build it with --precision fp32" if precision != "fp32" else "")
        )


def reference_embeddings(spec: ModelSpec, weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """The rows of `reference_rows` with length 1: (N, D) float64; zeros if the network returns zeros."""
    rows = reference_rows(spec, weights, crops)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0), np.float64)


def reference_rows(spec: ModelSpec, weights: Path, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Run the unchanged ONNX file on ONNX Runtime, with the normalisation before it in NumPy.

    Args:
        spec, weights: the model, which is no detector.
        crops: (N, S, S, 3) uint8 in the model's channel order.
    Returns:
        (N, D) float64, as the network returns them.
    Raises:
        ModelError: ONNX Runtime cannot run the file, or the output has the wrong length.
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
    except Interrupted:  # raised by a signal, wherever the program is
        raise
    except Exception as err:  # ONNX Runtime's errors share no base class
        raise ModelError(f"ONNX Runtime {ort.__version__} cannot run the ONNX file {weights}: {err}") from err
    if rows.shape[1] != spec.dimension:
        raise ModelError(
            f"the ONNX file {weights} returns {rows.shape[1]} numbers per image; expected by the model file "
            f"{spec.name}: {spec.dimension}"
        )
    return np.asarray(rows, np.float64)


def synthetic_crops(size: int, count: int = CROPS, seed: int = 0) -> NDArray[np.uint8]:
    """Draw smooth face-like images: an oval with eyes and a mouth under uneven light, on a background.

    Networks are far more sensitive to noise, and far less to flat grey, than to photos.

    Args:
        size: side S, pixels.
        count: number of images.
        seed: random seed; the same seed gives the same images.
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


def tile_views(views: NDArray[np.uint8], size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """Tile views (N, S, S, 3) into (N // n, H, W, 3): n views per image, as many as fit. The rest is dropped.

    Args:
        views: the views.
        size: height and width of an image, at least those of a view, pixels.
    """
    side = views.shape[1]
    rows, columns = size[0] // side, size[1] // side
    count = len(views) // (rows * columns)
    groups = views[: rows * columns * count].reshape(count, rows, columns, side, side, 3).transpose(0, 1, 3, 2, 4, 5)
    pictures = np.zeros((count, *size, 3), np.uint8)
    pictures[:, : rows * side, : columns * side] = groups.reshape(count, rows * side, columns * side, 3)
    return pictures


def synthetic_groups(count: int = SYNTHETIC_GROUPS, size: tuple[int, int] = (640, 640)) -> NDArray[np.uint8]:
    """(count, H, W, 3) uint8: tiled synthetic crops, sixteen in 640 x 640, which detectors take for faces."""
    per_image = (size[0] // 160) * (size[1] // 160)
    return tile_views(np.pad(synthetic_crops(112, per_image * count), ((0, 0), (24, 24), (24, 24), (0, 0))), size)


def weigh_by_score(raw: NDArray[np.float64], score_at: int = 0) -> NDArray[np.float64]:
    """(N, P * V): the outputs of a detector, with each anchor multiplied by its score, so that only faces matter."""
    scores = raw[..., score_at : score_at + 1]
    geometry = np.delete(raw, score_at, axis=2)
    return np.concatenate([scores, scores * geometry], axis=2).reshape(len(raw), -1)


def reading_of(spec: ModelSpec) -> Reading | None:
    """The part of a model's outputs that is compared for INT8; None: all of it."""
    if spec.detects:
        score_at = decoder_of(spec.decode).score_at
        return lambda raw: weigh_by_score(raw, score_at)
    # Of landmarks their places around the middle: measured from a corner, two far different answers would look alike.
    return (lambda raw: raw[:, :10] - spec.size / 2) if spec.task == "landmarks" else None


def _all_of(raw: NDArray[np.float64]) -> NDArray[np.float64]:
    return raw


def _infer_one(runner: Runner, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(1, P, V): the output for one image, in the smallest batch of the profile."""
    return runner.infer(np.repeat(picture[None], runner.info.profile[0], axis=0))[:1]


def _embed(runner: Runner, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(N, D): embed in batches of the profile. A last batch that is too small is filled up."""
    low, _, high = runner.info.profile
    rows = []
    for start in range(0, len(crops), high):
        part = crops[start : start + high]
        filled = part if len(part) >= low else np.resize(part, (low, *part.shape[1:]))
        rows.append(runner.infer(np.ascontiguousarray(filled))[: len(part)])
    return np.concatenate(rows)
