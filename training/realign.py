"""Align training crops anew by the second look, as facemill aligns faces of photos."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.extras import require
from runtime.faces.align import TEMPLATE, align_crops
from runtime.faces.detectors import Faces
from runtime.faces.second_look import SecondLook
from runtime.modelspec import ModelSpec, load_spec
from runtime.modelstore import resolve_weights

logger = logging.getLogger(__name__)

_SURROUND = 28  # pixels; a face that moves in its crop shows what was outside, which is its reflection here
_BATCH = 64


def realign(crops: NDArray[np.uint8], model_file: Path, path: Path) -> NDArray[np.uint8]:
    """Look once more at the face of each crop, and warp it to ArcFace's template by the new landmarks.

    Args:
        crops: (N, 112, 112, 3) uint8 RGB, aligned by the landmarks of some detector.
        model_file: facemill's model file of a landmark network, such as models/facemill-landmarks.toml.
        path: `.npy` file that keeps the crops; it is read if it exists.
    Returns:
        (N, 112, 112, 3) uint8 RGB, memory-mapped. A crop stays as it is where the network is unsure.
    Raises:
        ModelError: the model file or its weights cannot be read.
    """
    if not path.exists():
        logger.info("aligning %d crops anew by %s, once for this run's folder", len(crops), model_file.stem)
        look = second_look(model_file)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npy")
        aligned = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=crops.shape)
        for start in range(0, len(crops), _BATCH):
            aligned[start : start + _BATCH] = _realign(crops[start : start + _BATCH], look)
        aligned.flush()
        partial.rename(path)
    result: NDArray[np.uint8] = np.load(path, mmap_mode="c")  # copy on write, because PyTorch expects writable memory
    return result


def realigned_path(cache: Path, key: str, model_file: Path) -> Path:
    """Where `realign` keeps the crops of this key, see `crops_key`, in the folder of a run."""
    weights = load_spec(str(model_file)).sha256 or model_file.read_text()
    return cache / f"realigned-{key}-{hashlib.sha256(weights.encode()).hexdigest()[:8]}.npy"


def second_look(model_file: Path) -> SecondLook:
    """The second look at faces of RGB photos, by the landmark network of a model file.

    Raises:
        ModelError: the model file or its weights cannot be read.
    """
    spec = load_spec(str(model_file))
    return SecondLook(_landmark_network(spec), side=spec.size, batch=_BATCH)


def given_faces(landmarks: NDArray[np.floating]) -> Faces:
    """The faces of a photo whose landmarks (F, 5, 2) are known, as a detector would answer."""
    corners = np.concatenate([landmarks.min(axis=1), landmarks.max(axis=1)], axis=1).astype(np.float32)
    return Faces(
        scores=np.ones(len(landmarks), np.float32),
        boxes=corners,
        landmarks=landmarks.astype(np.float32),
        seen_px=(corners[:, 2:] - corners[:, :2]).max(axis=1),
    )


def _realign(crops: NDArray[np.uint8], look: SecondLook) -> NDArray[np.uint8]:
    photos = [cv2.copyMakeBorder(crop, *[_SURROUND] * 4, cv2.BORDER_REFLECT) for crop in crops]
    before = given_faces(TEMPLATE[None] + _SURROUND)
    landmarks = np.concatenate([faces.landmarks for faces in look.improve(photos, [before] * len(photos))])
    aligned = align_crops(photos, landmarks)
    same = (landmarks == before.landmarks).all(axis=(1, 2))
    aligned[same] = crops[same]
    return aligned


def _landmark_network(spec: ModelSpec) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """The network as `SecondLook` calls it: (n, S, S, 3) uint8 RGB -> (n, 15) float32."""
    ort = require("onnxruntime")

    session = ort.InferenceSession(str(resolve_weights(spec)), providers=["CPUExecutionProvider"])
    mean, std = np.array(spec.mean, np.float32), np.array(spec.std, np.float32)

    def infer(squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        ordered = squares if spec.channel_order == "rgb" else squares[..., ::-1]
        x = np.ascontiguousarray(((ordered - mean) / std).transpose(0, 3, 1, 2))
        return np.asarray(session.run([spec.output_name], {spec.input_name: x})[0], np.float32)

    return infer
