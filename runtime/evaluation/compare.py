"""Compare two engines on the same photos: the drift of their embeddings, and the change in the figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .embedded import EmbeddedFolder
from .evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class Drift:
    """Cosines between the two embeddings of each photo.

    Attributes:
        photographs: number of photos that both engines embedded.
        minimum, mean, percentile_1: cosines over these photos.
    """

    photographs: int
    minimum: float
    mean: float
    percentile_1: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Labelled pairs that two engines judge differently.

    Attributes:
        accuracy: accuracy of the second engine minus that of the first.
        gained: pairs wrong in the first, right in the second.
        lost: pairs right in the first, wrong in the second.
    """

    accuracy: float
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class EngineComparison:
    """The second of two engines against the first.

    Attributes:
        drift: None if cosines between the two engines mean nothing.
        verdicts: None without pairs.
        retrieval: recall@1, R-Precision and MAP@R of the second minus those of the first; None if no person has two
            photos.
    """

    drift: Drift | None
    verdicts: Verdicts | None
    retrieval: tuple[float, ...] | None


def compare_evaluations(first: Evaluation, second: Evaluation) -> EngineComparison:
    """Compare two evaluations of one folder, with the same pairs."""
    change = None
    if first.retrieval is not None and second.retrieval is not None:
        change = tuple((second.retrieval.means - first.retrieval.means).tolist())
    return EngineComparison(drift(first.embedded, second.embedded), verdicts(first, second), change)


def drift(first: EmbeddedFolder, second: EmbeddedFolder) -> Drift | None:
    """Measure how far apart the embeddings of two engines are.

    Args:
        first, second: the same folder, embedded by each engine.
    Returns:
        None if cosines mean nothing: the engines are of two models, or embedded no photo in common.
    """
    if first.contract.model_sha256 != second.contract.model_sha256:
        return None
    row_of = {path: i for i, path in enumerate(_embedded_paths(second))}
    shared = [(i, row_of[path]) for i, path in enumerate(_embedded_paths(first)) if path in row_of]
    if not shared:
        return None
    rows_a, rows_b = np.array(shared).T
    a, b = first.vectors[rows_a].astype(np.float64), second.vectors[rows_b].astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # a network may return a zero vector
    cosines = np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-300)
    percentile_1 = float(np.percentile(cosines, 1))
    return Drift(len(cosines), float(cosines.min()), float(cosines.mean()), percentile_1)


def _embedded_paths(embedded: EmbeddedFolder) -> list[bytes]:
    """Return the N paths of the embedded photos, in the order of the vectors."""
    return [path for path, is_embedded in zip(embedded.paths, embedded.has_vector, strict=True) if is_embedded]


def verdicts(first: Evaluation, second: Evaluation) -> Verdicts | None:
    """Compare the verdicts pair by pair; None without pairs."""
    if first.pairs is None or second.pairs is None:
        return None
    before, after = first.pairs.folds, second.pairs.folds
    return Verdicts(
        after.accuracy - before.accuracy,
        int((after.right & ~before.right).sum()),
        int((before.right & ~after.right).sum()),
    )
