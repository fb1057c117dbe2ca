"""The distillation loss, and the student's embedding space."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def embedding_space(teacher_dimension: int, dimension: int, seed: int) -> Tensor:
    """Make a fixed isometry from the teacher's space into the student's: (T, D), orthonormal rows.

    The student's embedding is trained directly towards the teacher's answer, without a head: the targets have the
    teacher's cosines for any D.

    Raises:
        ValueError: the student's space is smaller than the teacher's.
    """
    if dimension < teacher_dimension:
        raise ValueError(
            f"the student has {dimension} dimensions; expected: {teacher_dimension} or more, as the teacher"
        )
    rng = torch.Generator("cpu").manual_seed(seed)  # always on the CPU: a run may resume on another device
    q, _ = torch.linalg.qr(torch.randn(dimension, teacher_dimension, generator=rng, device="cpu"))
    return q.T.contiguous().to(torch.get_default_device())


def remaining_space(space: Tensor, seed: int) -> Tensor:
    """Make an orthonormal basis of what a space leaves free.

    Args:
        space: (T, D), orthonormal rows, see `embedding_space`.
        seed: random seed.
    Returns:
        (D - T, D), orthonormal rows at right angles to those of `space`.
    Raises:
        ValueError: the space leaves nothing free.
    """
    taken, dimension = space.shape
    if taken >= dimension:
        raise ValueError(
            f"the student has {dimension} dimensions, all of which the first teacher takes; expected: more, for a "
            "second teacher"
        )
    rng = torch.Generator("cpu").manual_seed(seed + 1)
    directions = torch.randn(dimension, dimension - taken, generator=rng, device="cpu")
    q, _ = torch.linalg.qr(torch.cat([space.T.cpu(), directions], 1))
    return q[:, taken:].T.contiguous().to(space.device)


def main_directions(answers: Tensor, count: int) -> Tensor:
    """Find the directions that keep the cosines of answers best.

    Args:
        answers: (N, D) float32, unit rows.
        count: maximum number of directions.
    Returns:
        (D, K) float32, orthonormal columns; K is the smaller of D and `count`.
    """
    _, vectors = torch.linalg.eigh(answers.double().T @ answers.double())  # in ascending order
    return vectors.flip(1)[:, :count].float().contiguous()


def distillation(
    embeddings: Tensor, targets: Tensor, similarity: float, cosine_weight: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Measure how far the student is from the teacher.

    Args:
        embeddings: (N, D) float32 of the student, not normalised.
        targets: (N, D) float32, unit rows.
        similarity: weight of the second term.
        cosine_weight: weight of the first term. At 0 only the similarity matrix is learned, in any space.
    Returns:
        The loss, which is 1 - mean cosine, plus the mean squared difference of the two similarity matrices off the
        diagonal, each times its weight; and the mean cosine.
    """
    unit = functional.normalize(embeddings)
    cosine = (unit * targets).sum(dim=1).mean()
    off_diagonal = ~torch.eye(len(unit), dtype=torch.bool)
    gap = (unit @ unit.T - targets @ targets.T)[off_diagonal].square().mean()
    return cosine_weight * (1 - cosine) + similarity * gap, cosine.detach()
