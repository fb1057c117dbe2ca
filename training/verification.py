"""Measure a network during training: LFW's protocol, and retrieval, on crops in memory."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from runtime.metrics.retrieval import retrieve

from .backbones import normalise
from .command import require_file

_MAX_SHOWN = 400  # crops in the projector; their thumbnails form one image
_FIGURES = ("recall_at_1", "r_precision", "map_at_r")


@dataclass(frozen=True)
class Pairs:
    """Aligned crops and the pairs to verify.

    Attributes:
        crops: (N, 112, 112, 3) uint8 RGB.
        left, right: (P,) rows of the crops.
        same: (P,) whether a pair shows one person.
        fold: (P,) number of the fold.
    """

    crops: NDArray[np.uint8]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    same: NDArray[np.bool_]
    fold: NDArray[np.int64]


def load_pairs(path: Path) -> Pairs:
    """Load the pairs that training/lfw.py wrote.

    Raises:
        ValueError: the file does not exist, or was not written by training/lfw.py.
    """
    require_file(path, "lfw", "the output of python -m training.lfw, or lfw=null")
    try:
        with np.load(path, allow_pickle=False) as file:
            return Pairs(**{name: file[name] for name in ("crops", "left", "right", "same", "fold")})
    except (AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as err:
        raise ValueError(f"{path} cannot be read as pairs; expected: the output of python -m training.lfw") from err


@torch.no_grad()
def embed(model: nn.Module, crops: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
    """Embed crops: (N, D) float32 unit rows."""
    model.eval()
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(crops), batch):
        x = normalise(torch.from_numpy(crops[start : start + batch]).to(device).permute(0, 3, 1, 2))
        parts.append(torch.nn.functional.normalize(model(x.contiguous(memory_format=torch.channels_last))))
    vectors: NDArray[np.float32] = torch.cat(parts).cpu().numpy()
    return vectors


def measure_accuracy(model: nn.Module, pairs: Pairs) -> float:
    """Measure ten-fold accuracy; each fold uses the best threshold of the other nine."""
    vectors = embed(model, pairs.crops)
    scores = (vectors[pairs.left] * vectors[pairs.right]).sum(axis=1)
    return ten_fold_accuracy(scores, pairs.same, pairs.fold)


def ten_fold_accuracy(scores: NDArray[np.float32], same: NDArray[np.bool_], fold: NDArray[np.int64]) -> float:
    """Compute the mean accuracy over the folds.

    Source: Huang et al. 2007, Labeled Faces in the Wild, restricted protocol.
    """
    accuracies = []
    for number in np.unique(fold):
        learn, test = fold != number, fold == number
        order = np.sort(scores[learn])
        candidates = (order[1:] + order[:-1]) / 2
        positive = np.sort(scores[learn & same])
        negative = np.sort(scores[learn & ~same])
        right = len(positive) - np.searchsorted(positive, candidates) + np.searchsorted(negative, candidates)
        threshold = candidates[int(np.argmax(right))]
        accuracies.append(float(((scores[test] >= threshold) == same[test]).mean()))
    return float(np.mean(accuracies))


def measure_retrieval(model: nn.Module, crops: NDArray[np.uint8], persons: NDArray[np.int64]) -> dict[str, float]:
    """Measure how well each crop finds the other crops of its person: recall@1, R-Precision, MAP@R.

    Args:
        model: the network.
        crops: (N, 112, 112, 3) uint8 RGB.
        persons: (N,) int64.
    Returns:
        The three figures, 0..1; empty if no person has two crops.
    """
    result = retrieve(embed(model, crops), persons) if len(crops) else None
    return {} if result is None else dict(zip(_FIGURES, map(float, result.means), strict=True))


def show_embeddings(
    board: Any, model: nn.Module, crops: NDArray[np.uint8], persons: NDArray[np.int64] | None, samples: int
) -> None:
    """Show the embeddings of the first crops in TensorBoard's projector, with thumbnails.

    Args:
        board: TensorBoard's writer.
        model: the network.
        crops: (N, 112, 112, 3) uint8 RGB.
        persons: (N,) int64, shown as labels; None: no labels.
        samples: samples learned so far.
    """
    shown = crops[:_MAX_SHOWN]
    thumbnails = torch.from_numpy(np.ascontiguousarray(shown)).permute(0, 3, 1, 2).float() / 255
    thumbnails = torch.nn.functional.interpolate(thumbnails, size=(40, 40), mode="area")
    labels = None if persons is None else [str(person) for person in persons[:_MAX_SHOWN]]
    board.add_embedding(
        embed(model, shown), metadata=labels, label_img=thumbnails, global_step=samples, tag="embeddings"
    )
