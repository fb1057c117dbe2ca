#!/usr/bin/env python3
"""Train the age and gender network: python -m training.train_attributes data=... teachers=...

After a stop or a kill, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch.nn import functional

from .attribute_labels import age_weights, ask_teachers, read_labels
from .attributes import AGES, AttributeNet, age_distribution, attribute_loss, expected_age
from .augment import Augmentation, augment
from .backbones import count_parameters, normalise
from .command import command, parse_settings
from .crops import crops_key, load_crops, load_names, to_device
from .device import random_numbers
from .loop import PHOTOS, begin, resume, set_learning_rate, train
from .sampling import batch_rows, input_size
from .state import new_state

logger = logging.getLogger(__name__)

_CHILD, _ADULT = 13, 18  # years: younger than the first, from the second on
_BATCH = 256


class AttributeTrainer:
    """An attribute network's training run.

    Raises:
        ValueError: a setting is invalid, no crop has a label, or the run was started with different settings.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        checkpoint, tars, left_out = begin(config)
        input_size(0, config.stages)
        self.augmentation = parse_settings(Augmentation, config.augmentation, "augmentation")
        labels = read_labels(Path(config.data) / config.labels, load_names(tars, left_out))
        if not labels.held_out.any():
            raise ValueError(f"labels is {config.labels}, which names none of the crops; expected: ages of some crops")
        cache = Path(config.run) / "cache"
        crops = load_crops(tars, left_out, cache)
        labelled = ~np.isnan(labels.ages)
        taught_ages, taught_women = ask_teachers(
            crops, crops_key(tars, left_out), Path(config.teachers), cache, ~labelled
        )
        self.pixels = to_device(crops)
        learned = ~labels.held_out
        self.learned, self.held_out = torch.from_numpy(np.flatnonzero(learned)), np.flatnonzero(labels.held_out)
        ages, women, self.weights, distributions, probabilities = (
            torch.from_numpy(values).to(self.pixels.device)
            for values in (
                labels.ages,
                labels.women,
                age_weights(labels.ages, learned, config.rarity),
                taught_ages,
                taught_women,
            )
        )
        self.ages, self.women = ages, women
        is_labelled = ~ages.isnan()
        self.age_targets = torch.where(is_labelled[:, None], age_distribution(ages.nan_to_num()), distributions)
        share = torch.where(is_labelled, float(config.taught_gender), 1.0)
        self.women_targets = share * probabilities + (1 - share) * women.nan_to_num()
        network = AttributeNet(config.width).to(memory_format=torch.channels_last)
        self.state = new_state(network, config.weight_decay)
        logger.info("%s parameters", f"{count_parameters(network):,}")
        resume(self, checkpoint)

    def photos(self) -> Tensor:
        """See `training.loop.Trainer`."""
        return normalise(self.pixels[self.learned[:PHOTOS]].permute(0, 3, 1, 2))

    def step(self) -> dict[str, float]:
        """Learn from one batch of crops."""
        config, state = self.config, self.state
        rng = random_numbers(config.seed * 1_000_003 + state.step)
        rows = self.learned[torch.from_numpy(batch_rows(state.step, config.batch, len(self.learned), config.seed))]
        crops = self.pixels[rows].permute(0, 3, 1, 2)  # (N, 3, 112, 112) uint8
        images = augment(crops, self.augmentation, input_size(state.samples, config.stages), rng)
        set_learning_rate(self)
        state.student.train()
        values = state.student(normalise(images).contiguous(memory_format=torch.channels_last))
        parts = attribute_loss(values, self.age_targets[rows], self.women_targets[rows], self.weights[rows])
        state.learn(parts["loss"], config.batch, config.ema)
        return {name: float(part.detach()) for name, part in parts.items()}

    def verify(self) -> dict[str, float]:
        """Measure the averaged weights on crops that no step learns from.

        Returns:
            Mean error of the age, of everybody and of children below 13, years; share of right genders, of everybody
            and of adults; share of ages in the interval that should hold 80 %.
        """
        values = self._answers(input_size(self.state.samples, self.config.stages))
        ages, women = self.ages[self.held_out], self.women[self.held_out]
        errors = (expected_age(values) - ages).abs()
        right = ((values[:, AGES] > 0).float() == women).float()
        below = values[:, :AGES].softmax(dim=1).cumsum(dim=1)  # (n, 101)
        low, high = (below < 0.1).sum(dim=1), (below < 0.9).sum(dim=1)
        inside = ((ages >= low) & (ages <= high)).float()
        return {
            "age_error": float(errors.mean()),
            "child_error": float(errors[ages < _CHILD].mean()),
            "gender_right": float(right.mean()),
            "adults_right": float(right[ages >= _ADULT].mean()),
            "inside": float(inside.mean()),
        }

    @torch.no_grad()
    def _answers(self, size: int) -> Tensor:
        """(n, 102): answers of the averaged weights for the crops held out."""
        answers = []
        for start in range(0, len(self.held_out), _BATCH):
            crops = self.pixels[self.held_out[start : start + _BATCH]].permute(0, 3, 1, 2).float()
            x = crops if size == crops.shape[-1] else functional.interpolate(crops, size=(size, size), mode="area")
            answers.append(self.state.ema(normalise(x).contiguous(memory_format=torch.channels_last)))
        return torch.cat(answers)


@hydra.main(version_base=None, config_path="conf", config_name="attributes")
@command
def main(config: DictConfig) -> None:
    train(AttributeTrainer(config))


if __name__ == "__main__":
    main()
