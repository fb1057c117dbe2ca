#!/usr/bin/env python3
"""Distil a face embedding network from a trained one: python -m training.train data=... teacher.path=...

Stopped or killed, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import Tensor

from .augment import Augmentation, augment
from .backbones import build_backbone, normalise, parameters_of
from .command import command, settings_as
from .crops import load_crops, pixels_of, sources_of
from .device import random_numbers, use_device
from .loop import begin, follow, kept_of, set_learning_rate
from .losses import distillation, embedding_space
from .sampling import batch_rows, input_size
from .state import new_state
from .teacher import Teacher
from .verification import accuracy_of, load_pairs, project

logger = logging.getLogger(__name__)


class Trainer:
    """A run being followed; see loop.Trainer.

    Raises:
        ValueError: a setting is not what is needed, or the run was begun with others.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        use_device(config.device)
        torch.manual_seed(config.seed)
        # First what may be refused: decoding takes minutes.
        kept, (tars, left_out) = kept_of(config), sources_of(config)
        input_size(0, config.stages)
        self.augmentation = settings_as(Augmentation, config.augmentation, "augmentation")
        self.teacher = Teacher(**{**config.teacher, "path": Path(config.teacher.path)})
        self.pairs = load_pairs(Path(config.lfw)) if config.lfw else None
        student = build_backbone(**config.backbone).to(memory_format=torch.channels_last)
        self.state = new_state(student, config.weight_decay)
        self.space: Tensor | None = None
        self.pixels = pixels_of(load_crops(tars, left_out, Path(config.run) / "cache"))
        logger.info("%s parameters", f"{parameters_of(student):,}")
        begin(self, kept)

    def step(self) -> dict[str, float]:
        """One batch; returns the loss and the mean cosine to the teacher."""
        config, state = self.config, self.state
        rng = random_numbers(config.seed * 1_000_003 + state.step)
        rows = batch_rows(state.step, config.batch, len(self.pixels), config.seed)
        crops = self.pixels[torch.from_numpy(rows).to(self.pixels.device)].permute(0, 3, 1, 2)  # (N, 3, 112, 112) uint8
        pictures = augment(crops, self.augmentation, crops.shape[-1], rng)
        answers = self.teacher(pictures)  # for the very picture that the student sees
        if self.space is None:
            self.space = embedding_space(answers.shape[1], config.backbone.dimension, config.seed)
        size = input_size(state.samples, config.stages)
        if size != pictures.shape[-1]:
            pictures = torch.nn.functional.interpolate(pictures, size=(size, size), mode="area")
        x = normalise(pictures).contiguous(memory_format=torch.channels_last)
        set_learning_rate(self)
        state.student.train()
        with torch.autocast(x.device.type, torch.bfloat16, enabled=config.bfloat16):
            embeddings = state.student(x)
        loss, cosine = distillation(embeddings.float(), answers @ self.space, config.similarity)
        state.learn(loss, config.batch, config.ema)
        return {"loss": float(loss.detach()), "cosine": float(cosine)}

    def verify(self) -> dict[str, float]:
        """LFW's accuracy, where its crops are at hand."""
        return {} if self.pairs is None else {"lfw": accuracy_of(self.state.ema, self.pairs)}

    def show(self, board: Any) -> None:
        """Some of LFW's crops in TensorBoard's projector, where they are at hand."""
        if self.pairs is not None:
            project(board, self.state.ema, self.pairs.crops, None, self.state.samples)


@hydra.main(version_base=None, config_path="conf", config_name="distil")
@command
def main(config: DictConfig) -> None:
    trainer = Trainer(config)
    follow(trainer, trainer.show)


if __name__ == "__main__":
    main()
