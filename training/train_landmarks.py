#!/usr/bin/env python3
"""Train the landmark network: python -m training.train_landmarks data=... teacher=scrfd_2.5g_bnkps.onnx

After a stop or a kill, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Generator, Tensor

from runtime.faces.finder import FindRules, View

from .augment import Augmentation, repaint
from .backbones import count_parameters
from .command import command, parse_settings
from .crops import crops_key, load_crops, to_device
from .device import random_numbers
from .labels import label_crops
from .landmarks import POINTS, LandmarkNet, landmark_loss, normalise
from .loop import PHOTOS, begin, resume, set_learning_rate, train
from .squares import SquareRules, draw_squares, plain_squares
from .state import new_state
from .teacher import DetectorTeacher

logger = logging.getLogger(__name__)

_VIEWS = FindRules(views=(View(160, 0.25), View(192, 0.25), View(224, 0.25)), retries=())
_VERIFIED = 512  # crops, the last ones, from which no step learns
_TURNS = (0, 30, 45)  # degrees


class LandmarkTrainer:
    """A landmark network's training run.

    Raises:
        ValueError: a setting is invalid, or the run was started with different settings.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        checkpoint, tars, left_out = begin(config)
        self.rules = parse_settings(SquareRules, config.squares, "squares")
        self.augmentation = parse_settings(Augmentation, config.augmentation, "augmentation")
        teacher = DetectorTeacher(Path(config.teacher_model), Path(config.teacher), any_family=True)
        network = LandmarkNet(config.width).to(memory_format=torch.channels_last)
        self.state = new_state(network, config.weight_decay)
        cache = Path(config.run) / "cache"
        crops = load_crops(tars, left_out, cache)
        self.pixels = to_device(crops)
        self.rows, _, self.landmarks = label_crops(crops, crops_key(tars, left_out), teacher, cache, _VIEWS).tensors()
        if len(self.rows) < 2 * _VERIFIED:
            raise ValueError(f"the teacher sees {len(self.rows)} faces; expected: at least {2 * _VERIFIED}")
        logger.info("%s parameters", f"{count_parameters(network):,}")
        resume(self, checkpoint)

    def photos(self) -> Tensor:
        """See `training.loop.Trainer`."""
        chosen = torch.arange(PHOTOS)
        images, _ = plain_squares(self._crops(chosen), self.landmarks[chosen], 0, self.rules.margin)
        return normalise(images)

    def step(self) -> dict[str, float]:
        """Learn from one batch of squares."""
        config, state = self.config, self.state
        rng = random_numbers(config.seed * 1_000_003 + state.step)
        learned = len(self.rows) - _VERIFIED
        chosen = torch.randint(learned, (config.batch,), generator=rng)
        backdrops = self._crops(torch.randint(learned, (config.batch,), generator=rng))
        images, landmarks = draw_squares(self._crops(chosen), self.landmarks[chosen], backdrops, self.rules, rng)
        set_learning_rate(self)
        state.student.train()
        parts = landmark_loss(self._answers(state.student, self._repainted(images, rng)), landmarks)
        state.learn(parts["loss"], config.batch, config.ema)
        return {name: float(part.detach()) for name, part in parts.items()}

    def verify(self) -> dict[str, float]:
        """Measure the averaged weights on faces that no step learns from, in eye distances, at some turns."""
        chosen = torch.arange(len(self.rows) - _VERIFIED, len(self.rows))
        crops, marks = self._crops(chosen), self.landmarks[chosen]
        errors = {}
        for degrees in _TURNS:
            images, landmarks = plain_squares(crops, marks, degrees, self.rules.margin)
            with torch.no_grad():
                values = self._answers(self.state.ema, images)
            points = values[:, : 2 * POINTS].unflatten(1, (POINTS, 2))
            eyes = (landmarks[:, 0] - landmarks[:, 1]).norm(dim=-1)
            errors[f"error_at_{degrees}"] = float(((points - landmarks).norm(dim=-1).mean(dim=1) / eyes).mean())
        return errors

    def _answers(self, network: torch.nn.Module, images: Tensor) -> Tensor:
        answers: Tensor = network(normalise(images).contiguous(memory_format=torch.channels_last))
        return answers

    def _repainted(self, images: Tensor, rng: Generator) -> Tensor:
        return repaint(images, self.augmentation, rng).clamp_(0, 255)

    def _crops(self, chosen: Tensor) -> Tensor:
        """(n, 3, C, C) uint8 RGB crops of these labels."""
        return self.pixels[self.rows[chosen]].permute(0, 3, 1, 2)


@hydra.main(version_base=None, config_path="conf", config_name="landmarks")
@command
def main(config: DictConfig) -> None:
    train(LandmarkTrainer(config))


if __name__ == "__main__":
    main()
