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


def distillation(embeddings: Tensor, targets: Tensor, similarity: float) -> tuple[Tensor, Tensor]:
    """Measure how far the student is from the teacher.

    Args:
        embeddings: (N, D) float32 of the student, not normalised.
        targets: (N, D) float32, unit rows.
        similarity: weight of the second term.
    Returns:
        The loss, which is 1 - mean cosine, plus the weight times the mean squared difference of the two similarity
        matrices off the diagonal; and the mean cosine.
    """
    unit = functional.normalize(embeddings)
    cosine = (unit * targets).sum(dim=1).mean()
    off_diagonal = ~torch.eye(len(unit), dtype=torch.bool)
    gap = (unit @ unit.T - targets @ targets.T)[off_diagonal].square().mean()
    return 1 - cosine + similarity * gap, cosine.detach()
