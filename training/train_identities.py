#!/usr/bin/env python3
"""Train on crops with identities: python -m training.train_identities data=... tars='[people.tar]' start=...

After a stop or a kill, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Tensor, nn

from .augment import Augmentation, augment
from .backbones import build_backbone, count_parameters, normalise
from .command import command, parse_settings
from .crops import load_crops, load_persons, to_device
from .device import random_numbers
from .loop import PHOTOS, begin, resume, set_learning_rate, train
from .objectives import Objective, Stage, find_stage
from .sampling import batch_rows, hold_out, input_size, person_rows
from .state import new_state
from .verification import load_pairs, measure_accuracy, measure_retrieval, show_embeddings

logger = logging.getLogger(__name__)


class IdentityTrainer:
    """A run on crops with identities.

    Raises:
        ValueError: the settings and persons cannot fill batches, or the run was started with different settings.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        checkpoint, tars, left_out = begin(config)
        input_size(0, config.stages)
        self.stages = [parse_settings(Stage, stage, f"objectives[{i}]") for i, stage in enumerate(config.objectives)]
        self.augmentation = parse_settings(Augmentation, config.augmentation, "augmentation")
        self.pairs = load_pairs(Path(config.lfw)) if config.lfw else None
        student = build_backbone(**config.backbone).to(memory_format=torch.channels_last)
        self.crops = load_crops(tars, left_out, Path(config.run) / "cache")
        self.pixels = to_device(self.crops)
        self.persons = load_persons(tars, left_out)
        held_out = hold_out(self.persons, config.held_out, config.seed)
        self.learned, self.held_out = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        people, classes = np.unique(self.persons[self.learned], return_inverse=True)
        self.classes: NDArray[np.int64] = classes  # (len(learned),) class of each row
        self.several = [rows for rows in _group_rows(classes) if len(rows) > 1]
        self._check()
        self.objectives = nn.ModuleList(Objective(s, len(people), config.backbone.dimension) for s in self.stages)
        self.state = new_state(student, config.weight_decay, self.objectives)
        logger.info("%s parameters", f"{count_parameters(student):,}")
        logger.info(
            "%d persons to learn from, %d of them with several crops; %d persons with %d crops are held out",
            *(len(people), len(self.several), len(np.unique(self.persons[self.held_out])), len(self.held_out)),
        )
        resume(self, checkpoint, weights_only=True)

    def _check(self) -> None:
        config = self.config
        if not 0 <= config.held_out < 1 or not len(self.learned):
            raise ValueError(
                f"held_out is {config.held_out}, which leaves {len(self.learned)} crops to learn from; expected: 0 or "
                "more and less than 1"
            )
        if self.augmentation.mixture:
            raise ValueError(
                f"augmentation.mixture is {self.augmentation.mixture}; expected: 0, as mixtures have no person"
            )
        if not self.stages or self.stages[0].start != 0:
            raise ValueError("objectives do not start at 0 samples; expected: the first with start: 0")
        if not any(stage.of_triplets for stage in self.stages):
            return
        if config.crops_each < 2 or config.batch % config.crops_each or config.batch < 2 * config.crops_each:
            raise ValueError(
                f"crops_each is {config.crops_each}; expected: 2 or more, a divisor of batch {config.batch}, and at "
                "most half of it, because triplets need two persons"
            )
        if len(self.several) < config.batch // config.crops_each:
            raise ValueError(
                f"{len(self.several)} persons have several crops; expected: {config.batch // config.crops_each} for a "
                "batch. Make batch smaller or crops_each larger"
            )

    def photos(self) -> Tensor:
        """See `training.loop.Trainer`."""
        return normalise(self.pixels[:PHOTOS].permute(0, 3, 1, 2))

    def step(self) -> dict[str, float]:
        """Learn from one batch; returns the loss and the number of the stage."""
        config, state = self.config, self.state
        rng = random_numbers(config.seed * 1_000_003 + state.step)
        stage = find_stage(state.samples, self.stages)
        objective = self.objectives[stage]
        rows = self._rows(objective.of_triplets)
        chosen = torch.from_numpy(self.learned[rows]).to(self.pixels.device)
        crops = self.pixels[chosen].permute(0, 3, 1, 2)  # (N, 3, 112, 112) uint8
        images = augment(crops, self.augmentation, input_size(state.samples, config.stages), rng)
        x = normalise(images).contiguous(memory_format=torch.channels_last)
        set_learning_rate(self)
        state.student.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.bfloat16):
            embeddings = state.student(x)
        loss = objective(embeddings.float(), torch.from_numpy(self.classes[rows]).to(x.device))
        state.learn(loss, config.batch, config.ema)
        return {"loss": float(loss.detach()), "stage": float(stage + 1)}

    def _rows(self, of_triplets: bool) -> NDArray[np.int64]:
        """Rows of `learned` for this step."""
        config, step = self.config, self.state.step
        if not of_triplets:
            return batch_rows(step, config.batch, len(self.learned), config.seed)
        persons = config.batch // config.crops_each
        return person_rows(step, persons, config.crops_each, self.several, config.seed)

    def verify(self) -> dict[str, float]:
        """Measure retrieval among the held-out persons, and LFW's accuracy if `lfw` is given."""
        rows = self.held_out
        figures = measure_retrieval(self.state.ema, self.crops[rows], self.persons[rows])
        return figures if self.pairs is None else {**figures, "lfw": measure_accuracy(self.state.ema, self.pairs)}

    def show(self, board: Any) -> None:
        """Show some held-out crops in TensorBoard's projector, if there are any."""
        rows = self.held_out
        if len(rows):
            show_embeddings(board, self.state.ema, self.crops[rows], self.persons[rows], self.state.samples)


def _group_rows(classes: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows of each class 0..C-1."""
    order = np.argsort(classes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)


@hydra.main(version_base=None, config_path="conf", config_name="identities")
@command
def main(config: DictConfig) -> None:
    trainer = IdentityTrainer(config)
    train(trainer, trainer.show)


if __name__ == "__main__":
    main()
