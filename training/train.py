#!/usr/bin/env python3
"""Distil a face embedding network from a trained one: python -m training.train data=... teacher.path=...

After a stop or a kill, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import Generator, Tensor

from .augment import Augmentation, augment
from .backbones import build_backbone, count_parameters, normalise
from .command import command, parse_settings
from .crops import crops_key, load_crops, to_device
from .device import random_numbers
from .identified import Identified, IdentityRules, load_identities
from .loop import PHOTOS, begin, resume, set_learning_rate, train
from .losses import distillation
from .realign import realign, realigned_path
from .sampling import batch_rows, input_size
from .state import new_state
from .teachers import LOOKED_AT, Teachers
from .verification import load_pairs, measure_accuracy, show_embeddings

logger = logging.getLogger(__name__)


class DistillationTrainer:
    """A distillation run.

    Raises:
        ValueError: a setting is invalid, or the run was started with different settings.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        checkpoint, tars, left_out = begin(config)
        input_size(0, config.stages)
        self.augmentation = parse_settings(Augmentation, config.augmentation, "augmentation")
        self.pairs = load_pairs(Path(config.lfw)) if config.lfw else None
        student = build_backbone(**config.backbone).to(memory_format=torch.channels_last)
        cache = Path(config.run) / "cache"
        crops = load_crops(tars, left_out, cache)
        if config.get("landmarks"):
            path = realigned_path(cache, crops_key(tars, left_out), Path(config.landmarks))
            crops = realign(crops, Path(config.landmarks), path)
        self.pixels = to_device(crops)
        self.teachers = Teachers(config, self.pixels[:LOOKED_AT].permute(0, 3, 1, 2))
        self.identified: Identified | None = None
        rules = parse_settings(IdentityRules, config.get("identities") or {}, "identities")
        if rules.labels:
            persons = load_identities(Path(config.data) / rules.labels, tars, left_out)
            self.identified = Identified(rules, persons, config.batch, config.backbone.dimension, config.seed)
        self.state = new_state(student, config.weight_decay, self.identified)
        logger.info("%s parameters", f"{count_parameters(student):,}")
        resume(self, checkpoint)

    def photos(self) -> Tensor:
        """See `training.loop.Trainer`."""
        return normalise(self.pixels[:PHOTOS].permute(0, 3, 1, 2))

    def step(self) -> dict[str, float]:
        """Learn from one batch; returns the loss and the mean cosine to the teacher."""
        config, state = self.config, self.state
        rng = random_numbers(config.seed * 1_000_003 + state.step)
        known = self.identified.rows(state.step) if self.identified is not None else np.empty(0, np.int64)
        images = self._draw(batch_rows(state.step, config.batch - len(known), len(self.pixels), config.seed), rng)
        if len(known):
            images = torch.cat([self._draw(known, rng, mixture=0.0), images])
        targets = self.teachers(images)  # for exactly the image that the student sees
        size = input_size(state.samples, config.stages)
        if size != images.shape[-1]:
            images = torch.nn.functional.interpolate(images, size=(size, size), mode="area")
        x = normalise(images).contiguous(memory_format=torch.channels_last)
        set_learning_rate(self)
        state.student.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.bfloat16):
            embeddings = state.student(x)
        loss, cosine = distillation(embeddings.float(), targets, config.similarity, config.cosine)
        values = {"loss": loss, "cosine": cosine}
        if self.identified is not None:
            values["identities"] = self.identified(embeddings[: len(known)].float(), known)
            values["loss"] = loss + values["identities"]
        state.learn(values["loss"], config.batch, config.ema)
        return {name: float(value.detach()) for name, value in values.items()}

    def _draw(self, rows: NDArray[np.int64], rng: Generator, **changes: float) -> Tensor:
        """Augmented crops: (N, 3, 112, 112) float32, 0..255."""
        crops = self.pixels[torch.from_numpy(rows).to(self.pixels.device)].permute(0, 3, 1, 2)
        return augment(crops, replace(self.augmentation, **changes), crops.shape[-1], rng)

    def verify(self) -> dict[str, float]:
        """Measure LFW's accuracy; empty without `lfw`."""
        return {} if self.pairs is None else {"lfw": measure_accuracy(self.state.ema, self.pairs)}

    def show(self, board: Any) -> None:
        """Show some of LFW's crops in TensorBoard's projector; nothing without `lfw`."""
        if self.pairs is not None:
            show_embeddings(board, self.state.ema, self.pairs.crops, None, self.state.samples)


@hydra.main(version_base=None, config_path="conf", config_name="distil")
@command
def main(config: DictConfig) -> None:
    trainer = DistillationTrainer(config)
    train(trainer, trainer.show)


if __name__ == "__main__":
    main()
