"""What is known about the age and the gender of each crop: labels from a table, and the answers of two networks."""

from __future__ import annotations

import csv
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.extras import require

from .attributes import AGES
from .command import require_file

logger = logging.getLogger(__name__)

GENDERS = ("man", "woman")
_COLUMNS = {"crop", "age", "gender"}
_HELD_OUT = 5  # every fifth labelled crop, by the hash of its name
_BATCH = 32
# dlib's networks: the part of an aligned crop that they see, and their normalisation.
_TOP, _BOTTOM, _LEFT, _RIGHT = 23, 117, 10, 104
_MEAN, _STD = np.float32([122.782, 117.001, 104.298]), np.float32(256)
_TEACHERS = {"age": ("age-v1.onnx", 64, 81), "gender": ("gender-v1.onnx", 32, 2)}  # file, side, classes


@dataclass(frozen=True)
class AttributeLabels:
    """The labels of a set of crops.

    Attributes:
        ages: (N,) float32, years; NaN without a label.
        women: (N,) float32: 1 for a woman, 0 for a man, NaN without a label.
        held_out: (N,) bool: labelled crops that measure, and that no step learns from.
    """

    ages: NDArray[np.float32]
    women: NDArray[np.float32]
    held_out: NDArray[np.bool_]


def is_held_out(name: str) -> bool:
    """Whether a labelled crop of this name measures. The answer never changes, whatever else is in the tars."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % _HELD_OUT == 0


def read_labels(path: Path, names: Sequence[str]) -> AttributeLabels:
    """Read the labels of crops from a table.

    Args:
        path: CSV with the columns crop, age (years) and gender (man, woman); other columns are ignored. A crop without
            a line, or with empty fields, has no label.
        names: file names of the crops.
    Raises:
        ValueError: the file does not exist, a column is missing, or a value is neither an age nor a gender.
    """
    require_file(path, "labels", "a CSV with the columns crop, age and gender")
    known: dict[str, tuple[float, float]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        table = csv.DictReader(file)
        if not set(table.fieldnames or ()) >= _COLUMNS:
            raise ValueError(f"{path} has the columns {table.fieldnames}; expected: crop, age and gender")
        for number, row in enumerate(table, 2):
            if not row["age"] and not row["gender"]:
                continue
            try:
                known[row["crop"]] = float(row["age"]), float(GENDERS.index(row["gender"]))
            except (TypeError, ValueError) as err:
                raise ValueError(
                    f"line {number} of {path} has the age {row['age']!r} and the gender {row['gender']!r}; "
                    "expected: years, and man or woman"
                ) from err
    values = np.array([known.get(name, (np.nan, np.nan)) for name in names], np.float32).reshape(-1, 2)
    held_out = np.array([name in known and is_held_out(name) for name in names], np.bool_)
    logger.info("%d of %d crops have labels; %d measure", len(known.keys() & set(names)), len(names), held_out.sum())
    return AttributeLabels(values[:, 0], values[:, 1], held_out)


def age_weights(ages: NDArray[np.float32], learned: NDArray[np.bool_], power: float) -> NDArray[np.float32]:
    """(N,) weights that make rare ages count more: the number of crops within five years, to the power of -`power`.

    Their mean over the labelled crops that are learned from is 1. A crop without a label has the weight 1.
    """
    weights = np.ones(len(ages), np.float32)
    labelled = learned & ~np.isnan(ages)
    if labelled.any():
        years = ages[labelled]
        counts = np.array([(np.abs(years - year) <= 5).sum() for year in range(AGES + 1)])
        raw = np.maximum(counts, 1)[np.clip(years, 0, AGES).astype(int)] ** -power
        weights[labelled] = raw / raw.mean()
    return weights


def ask_teachers(
    crops: NDArray[np.uint8], key: str, folder: Path, cache: Path, aged: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ask dlib's age and gender networks about crops and their mirror images, once per cache folder.

    Args:
        crops: (N, 112, 112, 3) uint8 RGB, aligned to ArcFace's template.
        key: result of `crops_key`, which identifies the crops.
        folder: folder with age-v1.onnx and gender-v1.onnx.
        cache: folder that keeps the answers for the next run.
        aged: (N,) bool: crops whose age is asked for, which takes 20 times as long as the gender.
    Returns:
        (N, 101) distributions of ages, zeros for other crops; and (N,) probabilities of "woman"; float32.
    Raises:
        ValueError: a file is missing, or is not such a network.
    """
    files = {kind: require_file(folder / _TEACHERS[kind][0], "teachers", "dlib's networks") for kind in _TEACHERS}
    content = b"".join(file.read_bytes() for file in files.values())
    asked = hashlib.sha256(key.encode() + aged.tobytes() + content).hexdigest()
    path = cache / f"attributes-{asked[:16]}.npz"
    if not path.exists():
        logger.info("asking %s about %d crops, once for this run's folder", folder, len(crops))
        ages = np.zeros((len(crops), AGES), np.float32)
        rows = np.flatnonzero(aged)
        if len(rows):
            ages[rows, : _TEACHERS["age"][2]] = _ask(crops, rows, files["age"], *_TEACHERS["age"][1:])
        women = _ask(crops, np.arange(len(crops)), files["gender"], *_TEACHERS["gender"][1:])
        cache.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial.npz")
        np.savez(partial, ages=ages, women=women[:, 0])
        partial.rename(path)
    with np.load(path) as file:
        return file["ages"], file["women"]


def _ask(
    crops: NDArray[np.uint8], rows: NDArray[np.int64], weights: Path, side: int, classes: int
) -> NDArray[np.float32]:
    """(n, classes): the mean answers for n crops and for their mirror images."""
    ort = require("onnxruntime")
    import torch

    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = ort.InferenceSession(str(weights), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # its own exceptions derive from nothing else
        raise ValueError(f"{weights} cannot be read; expected: one of dlib's networks") from err
    given = session.get_inputs()[0]
    if [*given.shape[1:], session.get_outputs()[0].shape[-1]] != [3, side, side, classes]:
        raise ValueError(f"{weights} takes {given.shape}; expected: (N, 3, {side}, {side}), {classes} classes")
    answers = []
    for start in range(0, len(rows), _BATCH):
        seen = np.stack([_cut(crops[row], side) for row in rows[start : start + _BATCH]])  # (n, side, side, 3)
        pixels = np.ascontiguousarray(((seen - _MEAN) / _STD).transpose(0, 3, 1, 2))
        both = [session.run(None, {given.name: x})[0] for x in (pixels, np.ascontiguousarray(pixels[..., ::-1]))]
        answers.append((both[0] + both[1]) / 2)
    return np.concatenate(answers).astype(np.float32)


def _cut(crop: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    below = _BOTTOM - crop.shape[0]
    whole = cv2.copyMakeBorder(crop, 0, below, 0, 0, cv2.BORDER_REPLICATE)
    part = cv2.resize(whole[_TOP:_BOTTOM, _LEFT:_RIGHT], (side, side), interpolation=cv2.INTER_AREA)
    return np.asarray(part, np.float32)
