#!/usr/bin/env python3
"""Train the face detector: python -m training.train_detector data=... labels=face_detection_yunet_2023mar.onnx

Stopped or killed, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Generator

from .augment import Augmentation, repaint
from .backbones import parameters_of
from .crops import load_crops
from .detection import detection_loss
from .detector import FaceDetector, normalise
from .labels import label_crops
from .loop import begin, follow, set_learning_rate
from .scenes import SceneRules, Scenes, compose
from .state import new_state

logger = logging.getLogger(__name__)

_USUAL = 160  # a batch of this size has all its pictures
_VERIFIED = 256  # pictures


class Trainer:
    """A run being followed; see loop.Trainer."""

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        torch.manual_seed(config.seed)
        data, cache = Path(config.data), Path(config.run) / "cache"
        left_out = data / config.left_out if config.left_out else None
        self.crops = load_crops([data / name for name in config.tars], left_out, cache)
        self.labels = label_crops(self.crops, Path(config.label_model), Path(config.labels), cache)
        detector = FaceDetector(config.widths).to(memory_format=torch.channels_last)
        self.state = new_state(detector, config.weight_decay)
        self.rules = SceneRules(**config.scenes)
        self.augmentation = Augmentation(**config.augmentation)
        logger.info("%s parameters", f"{parameters_of(detector):,}")
        begin(self)

    def step(self) -> dict[str, float]:
        """One batch of pictures of one size."""
        config, state = self.config, self.state
        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + state.step)
        size = config.sizes[int(torch.randint(len(config.sizes), (), generator=rng))]
        scenes = self.scenes(max(8, int(config.batch * min(1.0, (_USUAL / size) ** 2))), size, rng)
        set_learning_rate(self)
        state.student.train()
        values = state.student(normalise(scenes.images).contiguous(memory_format=torch.channels_last))
        parts = detection_loss(values, scenes, size, config.landmark_weight)
        state.optimizer.zero_grad(set_to_none=True)
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(state.student.parameters(), 5.0)
        state.optimizer.step()
        state.step += 1
        state.samples += config.batch
        state.average(config.ema)
        return {name: float(part.detach()) for name, part in parts.items()}

    def verify(self) -> dict[str, float]:
        """The averaged weights on pictures that no step draws."""
        rng = torch.Generator().manual_seed(self.config.seed * 1_000_003 - 1)
        scenes = self.scenes(_VERIFIED, _USUAL, rng)
        with torch.no_grad():
            parts = detection_loss(
                self.state.ema(normalise(scenes.images)), scenes, _USUAL, self.config.landmark_weight
            )
        return {f"averaged_{name}": float(part) for name, part in parts.items()}

    def scenes(self, count: int, size: int, rng: Generator) -> Scenes:
        """So many pictures, BGR."""
        places = self.rules.faces
        which = torch.randint(len(self.labels.rows), (count, places), generator=rng).numpy()
        behind = torch.randint(len(self.crops), (count,), generator=rng).numpy()
        rows = self.labels.rows[which]  # (n, F)
        crops = torch.from_numpy(np.ascontiguousarray(self.crops[rows.ravel()][..., ::-1]))
        crops = crops.permute(0, 3, 1, 2).unflatten(0, (count, places))
        backdrop = torch.from_numpy(np.ascontiguousarray(self.crops[behind][..., ::-1])).permute(0, 3, 1, 2)
        boxes = torch.from_numpy(self.labels.boxes[which])
        landmarks = torch.from_numpy(self.labels.landmarks[which])
        found = compose(crops, boxes, landmarks, backdrop, size, self.rules, rng)
        return replace(found, images=repaint(found.images, self.augmentation, rng).clamp_(0, 255))


@hydra.main(version_base=None, config_path="conf", config_name="detector")
def main(config: DictConfig) -> None:
    follow(Trainer(config))


if __name__ == "__main__":
    main()
