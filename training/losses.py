"""What the student is asked to do."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def embedding_space(teacher_dimension: int, dimension: int, seed: int) -> Tensor:
    """A fixed isometry from the teacher's space into the student's: (T, D), orthonormal rows.

    The student is trained towards the teacher's answer in its own embedding, with no head between: cosines of the
    targets are the teacher's cosines, whatever D is.

    Raises:
        ValueError: the student's space is smaller than the teacher's.
    """
    if dimension < teacher_dimension:
        raise ValueError(f"the student has {dimension} dimensions; wanted: at least the teacher's {teacher_dimension}")
    rng = torch.Generator("cpu").manual_seed(seed)  # whatever computes: a run may go on elsewhere
    q, _ = torch.linalg.qr(torch.randn(dimension, teacher_dimension, generator=rng, device="cpu"))
    return q.T.contiguous().to(torch.get_default_device())


def distillation(embeddings: Tensor, targets: Tensor, similarity: float) -> tuple[Tensor, Tensor]:
    """How far the student is from the teacher.

    Args:
        embeddings: (N, D) float32, of the student; not normalised.
        targets: (N, D) float32, unit rows.
        similarity: weight of the second term.
    Returns:
        The loss: 1 - mean cosine, plus the mean squared difference of the two similarity matrices off the diagonal
        times the weight; and the mean cosine by itself.
    """
    unit = functional.normalize(embeddings)
    cosine = (unit * targets).sum(dim=1).mean()
    apart = ~torch.eye(len(unit), dtype=torch.bool)
    gap = (unit @ unit.T - targets @ targets.T)[apart].square().mean()
    return 1 - cosine + similarity * gap, cosine.detach()
