"""Two engines on the same photographs: how far their embeddings are apart, and what that does to the figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .embedded import EmbeddedFolder
from .evaluate import Evaluation


@dataclass(frozen=True, slots=True)
class Drift:
    """Cosines of the two embeddings of each photograph.

    Attributes:
        photographs: that both engines embedded.
        minimum, mean, percentile_1: over them.
    """

    photographs: int
    minimum: float
    mean: float
    percentile_1: float


@dataclass(frozen=True, slots=True)
class Verdicts:
    """LabelledPairs that the second engine judges otherwise than the first.

    Attributes:
        accuracy: of the second less that of the first.
        gained: wrong in the first, right in the second.
        lost: right in the first, wrong in the second.
    """

    accuracy: float
    gained: int
    lost: int


@dataclass(frozen=True, slots=True)
class EngineComparison:
    """The second of two engines against the first.

    Attributes:
        drift: None where a cosine means nothing.
        verdicts: None without pairs.
        retrieval: recall@1, R-Precision and MAP@R of the second less those of the first; None when nobody has two
            photographs.
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
    """How far the embeddings of two engines are apart.

    Args:
        first, second: of one folder.
    Returns:
        None where a cosine means nothing: the engines are of two models, or embedded no photograph in common.
    """
    if first.contract.model_sha256 != second.contract.model_sha256:
        return None
    row = {path: i for i, path in enumerate(_embedded_paths(second))}
    both = [(i, row[path]) for i, path in enumerate(_embedded_paths(first)) if path in row]
    if not both:
        return None
    here, there = np.array(both).T
    a, b = first.vectors[here].astype(np.float64), second.vectors[there].astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)  # a network may answer zero
    cosines = np.einsum("nd,nd->n", a, b) / np.maximum(lengths, 1e-300)
    low = float(np.percentile(cosines, 1))
    return Drift(len(cosines), float(cosines.min()), float(cosines.mean()), low)


def _embedded_paths(embedded: EmbeddedFolder) -> list[bytes]:
    """N paths, in the order of the vectors."""
    return [path for path, here in zip(embedded.paths, embedded.here, strict=True) if here]


def verdicts(first: Evaluation, second: Evaluation) -> Verdicts | None:
    """What changed pair by pair; None without pairs."""
    if first.pairs is None or second.pairs is None:
        return None
    before, after = first.pairs.folds, second.pairs.folds
    return Verdicts(
        after.accuracy - before.accuracy,
        int((after.right & ~before.right).sum()),
        int((before.right & ~after.right).sum()),
    )
