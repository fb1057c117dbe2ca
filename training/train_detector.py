#!/usr/bin/env python3
"""Train the face detector: python -m training.train_detector data=... teacher=face_detection_yunet_2023mar.onnx

After a stop or a kill, the same command resumes from the last checkpoint.
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
from .backbones import count_parameters
from .command import command, parse_settings
from .crops import crops_key, load_crops, to_device
from .detection import check_answers, detection_loss
from .detector import FaceDetector, normalise
from .device import random_numbers
from .labels import label_crops
from .looks import Look, look_again
from .loop import PHOTOS, begin, resume, set_learning_rate, train
from .scenes import SceneRules, Scenes, compose
from .state import new_state
from .teacher import DetectorTeacher

logger = logging.getLogger(__name__)

_MAX_SIZE_FULL_BATCH = 160  # pixels; batches of larger images hold fewer images
_VERIFICATION_IMAGES = 256


class DetectorTrainer:
    """A detector's training run.

    Raises:
        ValueError: a setting is invalid, or the run was started with different settings.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        checkpoint, tars, left_out = begin(config)
        self.rules = parse_settings(SceneRules, config.scenes, "scenes")
        self.augmentation = parse_settings(Augmentation, config.augmentation, "augmentation")
        self.teacher = DetectorTeacher(Path(config.teacher_model), Path(config.teacher))
        detector = FaceDetector(config.widths).to(memory_format=torch.channels_last)
        self.state = new_state(detector, config.weight_decay)
        cache = Path(config.run) / "cache"
        crops = load_crops(tars, left_out, cache)
        self.pixels = to_device(crops)
        self.labels = label_crops(crops, crops_key(tars, left_out), self.teacher, cache).tensors()
        logger.info("%s parameters", f"{count_parameters(detector):,}")
        self._composed: tuple[int, Scenes] | None = None
        resume(self, checkpoint)

    def photos(self) -> Tensor:
        """See `training.loop.Trainer`."""
        return normalise(self.scenes(PHOTOS, _MAX_SIZE_FULL_BATCH, self._rng(-1)).images)

    def step(self) -> dict[str, float]:
        """Learn from a new look at the images that were composed last."""
        config, state = self.config, self.state
        rng = self._rng(2 * state.step + 1)
        look = Look.draw(config.sizes, config.nested, rng)
        count = max(4, int(config.batch * min(1.0, (_MAX_SIZE_FULL_BATCH / look.size) ** 2)))
        chosen = torch.randperm(config.batch, generator=rng)[:count]
        set_learning_rate(self)
        state.student.train()
        parts = self.loss(state.student, look_again(self.composed(state.step).select(chosen), look, rng), look.size)
        state.learn(parts["loss"], config.batch, config.ema)
        return {name: float(part.detach()) for name, part in parts.items()}

    def verify(self) -> dict[str, float]:
        """Measure the averaged weights on images that no step draws."""
        scenes = self.scenes(_VERIFICATION_IMAGES, _MAX_SIZE_FULL_BATCH, self._rng(-1))
        with torch.no_grad():
            parts = self.loss(self.state.ema, scenes, _MAX_SIZE_FULL_BATCH)
        return {f"averaged_{name}": float(part) for name, part in parts.items()}

    def loss(self, detector: nn.Module, scenes: Scenes, size: int) -> dict[str, Tensor]:
        """Compute the loss and its parts for one batch, with the teacher's answers."""
        images = scenes.images.round().to(torch.uint8)
        raw = self.teacher(images.permute(0, 2, 3, 1).cpu().numpy())
        answers = check_answers(torch.from_numpy(raw).to(images.device), scenes, size)
        values = detector(normalise(images).contiguous(memory_format=torch.channels_last))
        return detection_loss(values, answers, size, self.config.landmark_weight)

    def composed(self, step: int) -> Scenes:
        """Compose the images of a step. Consecutive steps share them, because composing takes longer than learning."""
        number = step // self.config.looks
        if self._composed is None or self._composed[0] != number:
            rng = self._rng(2 * number * self.config.looks)
            self._composed = number, self.scenes(self.config.batch, self.config.composed_size, rng)
        return self._composed[1]

    def _rng(self, number: int) -> Generator:
        """Random numbers of a step: twice its number for composing, one more for its look."""
        return random_numbers(self.config.seed * 1_000_003 + number)

    def scenes(self, count: int, size: int, rng: Generator) -> Scenes:
        """Compose `count` images in the teacher's channel order."""
        positions = self.rules.faces
        rows, boxes, landmarks = self.labels
        crop_indices = torch.randint(len(rows), (count, positions), generator=rng)
        backdrop_rows = torch.randint(len(self.pixels), (count,), generator=rng)
        crops = self._channels_first(rows[crop_indices].flatten()).unflatten(0, (count, positions))
        backdrop = self._channels_first(backdrop_rows)
        composed = compose(crops, boxes[crop_indices], landmarks[crop_indices], backdrop, size, self.rules, rng)
        images = repaint(composed.images, self.augmentation, rng).clamp_(
            0, 255
        )  # before the change of channel order, because JPEG acts on RGB
        return replace(composed, images=images.flip(1) if self.teacher.spec.channel_order == "bgr" else images)

    def _channels_first(self, rows: Tensor) -> Tensor:
        """(n, 3, C, C) uint8 RGB crops of these rows."""
        return self.pixels[rows].permute(0, 3, 1, 2)


@hydra.main(version_base=None, config_path="conf", config_name="detector")
@command
def main(config: DictConfig) -> None:
    train(DetectorTrainer(config))


if __name__ == "__main__":
    main()
