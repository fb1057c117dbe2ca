"""Crops with identities as a further objective of a distillation run: a share of each batch, and its loss."""

from __future__ import annotations

import csv
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .command import require_file
from .crops import crop_names
from .objectives import Objective, Stage
from .sampling import person_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IdentityRules:
    """The further objective.

    Attributes:
        labels: CSV file in the folder of the tars, with the columns `crop` (name of a member, with or without its
            folder) and `identity`; crops without an identity are empty there. None: no such objective.
        share: share of the images of a batch, 0 to 1.
        crops_each: crops of each person in a batch, 2 or more.
        weight: weight of the loss, added to that of the distillation.
        loss, miner, margin, scale: see `training.objectives.Stage`.
    """

    labels: str | None = None
    share: float = 0.25
    crops_each: int = 4
    weight: float = 0.2
    loss: str = "triplet"
    miner: str = "all"
    margin: float | None = None
    scale: float = 64.0

    def persons(self, batch: int) -> int:
        """Number of persons in a batch."""
        return round(batch * self.share) // self.crops_each


class Identified(nn.Module):
    """The loss of the crops whose identity is known.

    Args:
        rules: the objective.
        persons: (N,) int64, the person of each crop, 0..P-1, or -1 if it is not known.
        batch: images of a batch.
        dimension: D of an embedding.
        seed: random seed of the run.
    Raises:
        ValueError: the rules and the persons cannot fill a batch.
    """

    def __init__(self, rules: IdentityRules, persons: NDArray[np.int64], batch: int, dimension: int, seed: int) -> None:
        super().__init__()
        self.rules, self._seed = rules, seed
        self._rows_of = [rows for rows in _rows_of_persons(persons) if len(rows) > 1]
        self._persons = rules.persons(batch)
        if not (0 < rules.share < 1 and rules.crops_each > 1 and 1 < self._persons <= len(self._rows_of)):
            raise ValueError(
                f"identities has share={rules.share} and crops_each={rules.crops_each}: {self._persons} persons in a "
                f"batch of {batch}; expected: 2 to {len(self._rows_of)}, the persons with several crops"
            )
        stage = Stage(0, rules.loss, rules.miner, rules.margin, rules.scale)
        self.objective = Objective(stage, len(self._rows_of), dimension)
        self._class_of = np.full(len(persons), -1, np.int64)
        for number, rows in enumerate(self._rows_of):
            self._class_of[rows] = number

    def rows(self, step: int) -> NDArray[np.int64]:
        """The crops of a step whose identity is known: (K,) int64, grouped by person."""
        return person_rows(step, self._persons, self.rules.crops_each, self._rows_of, self._seed)

    def forward(self, embeddings: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """The weighted loss of (K, D) float32 embeddings of these crops."""
        classes = torch.from_numpy(self._class_of[rows]).to(embeddings.device)
        loss: Tensor = self.rules.weight * self.objective(embeddings, classes)
        return loss


def load_identities(labels: Path, tars: list[Path], left_out: Path | None) -> NDArray[np.int64]:
    """Read the persons of crops.

    Args:
        labels: CSV file, see `IdentityRules`.
        tars, left_out: as given to `load_crops`; the rows are the same.
    Returns:
        (N,) int64: number of each crop's person, 0..P-1, or -1 if it is not known.
    Raises:
        ValueError: the file does not exist, or lacks a column.
    """
    require_file(labels, "identities.labels", "a CSV file with the columns crop and identity")
    with labels.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if not {"crop", "identity"} <= set(reader.fieldnames or ()):
            raise ValueError(f"{labels} has the columns {reader.fieldnames}; expected: crop and identity")
        identity_of = {Path(line["crop"]).name: line["identity"] for line in reader if line["identity"]}
    numbers: dict[str, int] = {}
    persons = np.array(
        [
            numbers.setdefault(identity_of[name], len(numbers)) if name in identity_of else -1
            for name in (Path(name).name for _, name in crop_names(tars, left_out))
        ],
        np.int64,
    )
    logger.info("%d crops of %d persons have identities", (persons >= 0).sum(), len(numbers))
    return persons


def _rows_of_persons(persons: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each person 0..P-1."""
    order = np.argsort(persons, kind="stable")
    order = order[persons[order] >= 0]
    return np.split(order, np.flatnonzero(np.diff(persons[order])) + 1)
