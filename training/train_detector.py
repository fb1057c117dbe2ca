#!/usr/bin/env python3
"""Train the face detector: python -m training.train_detector data=... teacher=face_detection_yunet_2023mar.onnx

Stopped or killed, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import hydra
import torch
from omegaconf import DictConfig
from torch import Generator, Tensor, nn

from .augment import Augmentation, repaint
from .backbones import parameters_of
from .command import command, settings_as
from .crops import crops_key, load_crops, pixels_of, sources_of
from .detection import check_answers, detection_loss
from .detector import FaceDetector, normalise
from .device import random_numbers, use_device
from .labels import label_crops
from .looks import Look, look_again
from .loop import begin, follow, kept_of, set_learning_rate
from .scenes import SceneRules, Scenes, compose
from .state import new_state
from .teacher import DetectorTeacher

logger = logging.getLogger(__name__)

_USUAL = 160  # a batch of this size, and of smaller ones, has all its pictures
_VERIFIED = 256  # pictures


class Trainer:
    """A run being followed; see loop.Trainer.

    Raises:
        ValueError: a setting is not what is needed, or the run was begun with others.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        use_device(config.device)
        torch.manual_seed(config.seed)
        # First what may be refused: decoding and labelling take minutes.
        kept, (tars, left_out) = kept_of(config), sources_of(config)
        self.rules = settings_as(SceneRules, config.scenes, "scenes")
        self.augmentation = settings_as(Augmentation, config.augmentation, "augmentation")
        self.teacher = DetectorTeacher(Path(config.teacher_model), Path(config.teacher))
        detector = FaceDetector(config.widths).to(memory_format=torch.channels_last)
        self.state = new_state(detector, config.weight_decay)
        cache = Path(config.run) / "cache"
        crops = load_crops(tars, left_out, cache)
        self.pixels = pixels_of(crops)
        self.labels = label_crops(crops, crops_key(tars, left_out), self.teacher, cache).tensors()
        logger.info("%s parameters", f"{parameters_of(detector):,}")
        self._composed: tuple[int, Scenes] | None = None
        begin(self, kept)

    def step(self) -> dict[str, float]:
        """One batch: the pictures that were composed last, as they have not yet been seen."""
        config, state = self.config, self.state
        rng = self._rng(2 * state.step + 1)
        look = Look.draw(config.sizes, config.nested, rng)
        count = max(4, int(config.batch * min(1.0, (_USUAL / look.size) ** 2)))
        which = torch.randperm(config.batch, generator=rng)[:count]
        set_learning_rate(self)
        state.student.train()
        parts = self.loss(state.student, look_again(self.composed(state.step).some(which), look, rng), look.size)
        state.learn(parts["loss"], config.batch, config.ema)
        return {name: float(part.detach()) for name, part in parts.items()}

    def verify(self) -> dict[str, float]:
        """The averaged weights on pictures that no step draws."""
        scenes = self.scenes(_VERIFIED, _USUAL, self._rng(-1))
        with torch.no_grad():
            parts = self.loss(self.state.ema, scenes, _USUAL)
        return {f"averaged_{name}": float(part) for name, part in parts.items()}

    def loss(self, detector: nn.Module, scenes: Scenes, size: int) -> dict[str, Tensor]:
        """Of one batch, for which the teacher answers."""
        pictures = scenes.images.round().to(torch.uint8)
        raw = self.teacher(pictures.permute(0, 2, 3, 1).cpu().numpy())
        answers = check_answers(torch.from_numpy(raw).to(pictures.device), scenes, size)
        values = detector(normalise(pictures).contiguous(memory_format=torch.channels_last))
        return detection_loss(values, answers, size, self.config.landmark_weight)

    def composed(self, step: int) -> Scenes:
        """The pictures of a step, which it shares with the ones around it: composing takes longer than learning."""
        number = step // self.config.looks
        if self._composed is None or self._composed[0] != number:
            rng = self._rng(2 * number * self.config.looks)
            self._composed = number, self.scenes(self.config.batch, self.config.composed_size, rng)
        return self._composed[1]

    def _rng(self, number: int) -> Generator:
        """Of a step, twice its number; odd: of how it looks at its pictures."""
        return random_numbers(self.config.seed * 1_000_003 + number)

    def scenes(self, count: int, size: int, rng: Generator) -> Scenes:
        """So many pictures, in the teacher's channel order."""
        places = self.rules.faces
        rows, boxes, landmarks = self.labels
        which = torch.randint(len(rows), (count, places), generator=rng)
        behind = torch.randint(len(self.pixels), (count,), generator=rng)
        crops = self._channels_first(rows[which].flatten()).unflatten(0, (count, places))
        backdrop = self._channels_first(behind)
        found = compose(crops, boxes[which], landmarks[which], backdrop, size, self.rules, rng)
        images = repaint(found.images, self.augmentation, rng).clamp_(0, 255)  # of RGB, as a JPEG file is
        return replace(found, images=images.flip(1) if self.teacher.spec.channel_order == "bgr" else images)

    def _channels_first(self, rows: Tensor) -> Tensor:
        """(n, 3, C, C) uint8 RGB of these crops."""
        return self.pixels[rows].permute(0, 3, 1, 2)


@hydra.main(version_base=None, config_path="conf", config_name="detector")
@command
def main(config: DictConfig) -> None:
    follow(Trainer(config))


if __name__ == "__main__":
    main()
