"""Losses for crops with identities, by pytorch-metric-learning, and the stages that apply them in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pytorch_metric_learning import losses, miners
from torch import Tensor, nn

Triplets = tuple[Tensor, Tensor, Tensor]  # rows of anchors, of their person's others, of other people

LOSSES = ("arcface", "cosface", "triplet")
MINERS = ("all", "semihard", "hard")
_MARGINS = {"arcface": 28.6, "cosface": 0.35, "triplet": 0.2}


@dataclass(frozen=True)
class Stage:
    """The loss that applies from a number of samples on.

    Attributes:
        start: samples learned when the stage starts.
        loss: "arcface" or "cosface", which separate classes; or "triplet".
        miner: triplets of the batch to use: "all"; "semihard", where the other person is further away than the same
            person, by less than the margin; or "hard", the furthest of its person and the nearest of the others.
        margin: degrees for arcface, a cosine for cosface, a distance of unit vectors for triplet; None: the default.
        scale: scale of the cosines for arcface and cosface.
    Source: Deng et al. 2019, arXiv:1801.07698; Wang et al. 2018, arXiv:1801.09414; Schroff et al. 2015,
        arXiv:1503.03832; Hermans et al. 2017, arXiv:1703.07737.
    """

    start: int
    loss: str
    miner: str = "all"
    margin: float | None = None
    scale: float = 64.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            raise ValueError(f"loss is {self.loss!r}; expected: {', '.join(LOSSES)}")
        if self.miner not in MINERS or (self.miner != "all" and not self.of_triplets):
            raise ValueError(
                f"miner is {self.miner!r} for {self.loss}; expected: all; for triplet: {', '.join(MINERS)}"
            )

    @property
    def of_triplets(self) -> bool:
        """Whether a batch must hold several crops of each person."""
        return self.loss == "triplet"


class Objective(nn.Module):
    """The loss of a stage, with the weights of the classes if it has any.

    Args:
        stage: stage whose loss this is.
        classes: number of persons.
        dimension: D.
    """

    def __init__(self, stage: Stage, classes: int, dimension: int) -> None:
        super().__init__()
        margin = _MARGINS[stage.loss] if stage.margin is None else stage.margin
        self.of_triplets = stage.of_triplets
        self.miner: nn.Module | None = None
        if stage.loss == "triplet":
            self.loss = losses.TripletMarginLoss(margin=margin)
            if stage.miner == "hard":
                self.miner = miners.BatchHardMiner()
            elif stage.miner == "semihard":
                self.miner = miners.TripletMarginMiner(margin=margin, type_of_triplets="semihard")
        else:
            loss_class = losses.ArcFaceLoss if stage.loss == "arcface" else losses.CosFaceLoss
            self.loss = loss_class(num_classes=classes, embedding_size=dimension, margin=margin, scale=stage.scale)
        self.to(torch.get_default_device())  # the library creates the classes' weights on the CPU

    def forward(self, embeddings: Tensor, persons: Tensor) -> Tensor:
        """Compute the loss of (N, D) float32 embeddings, normalised or not, of persons (N,) int64."""
        value: Tensor = self.loss(embeddings, persons, self.mine_triplets(embeddings, persons))
        return value

    def mine_triplets(self, embeddings: Tensor, persons: Tensor) -> Triplets | None:
        """Select the triplets to use; None: all."""
        if self.miner is None:
            return None
        triplets: Triplets = self.miner(embeddings, persons)
        return triplets


def find_stage(samples: int, stages: Sequence[Stage]) -> int:
    """Index of the stage after this many samples."""
    return max(i for i, stage in enumerate(stages) if samples >= stage.start)
