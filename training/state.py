"""The state of a training run, and its checkpoint file."""

from __future__ import annotations

import copy
import math
import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .command import require_file
from .shipped import take_shipped

_MAX_GRADIENT_NORM = 5.0  # of all gradients together; a longer one is clipped
_KEYS = {"student", "ema", "optimizer", "step", "samples", "config"}


@dataclass
class State:
    """A run between two steps. Random numbers depend only on (seed, step), so no generator is stored.

    Attributes:
        student: network in training.
        ema: moving average of the student, which is verified and exported.
        optimizer: AdamW with its moments.
        head: module trained together with the student and not exported, such as the classes' weights; or None.
        step: steps done.
        samples: images learned from.
    """

    student: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    head: nn.Module | None = None
    step: int = 0
    samples: int = 0

    def learn(self, loss: Tensor, samples: int, ema: float) -> None:
        """Do one step of the optimizer, and update the average.

        Args:
            loss: loss of one batch, with its graph.
            samples: images in the batch.
            ema: decay of the average.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [*self.student.parameters(), *(self.head.parameters() if self.head is not None else ())]
        nn.utils.clip_grad_norm_(trained, _MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1
        self.samples += samples
        self.average(ema)

    def average(self, decay: float) -> None:
        """Move the average towards the student; faster early in a run, so that the first weights are soon forgotten."""
        share = 1 - min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for average, current in zip(
                self.ema.state_dict().values(), self.student.state_dict().values(), strict=True
            ):
                if average.is_floating_point():
                    average.lerp_(current, share)
                else:
                    average.copy_(current)

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write a checkpoint; a failure leaves the previous one."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        content = {
            "student": self.student.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "samples": self.samples,
            "config": config,
        }
        if self.head is not None:
            content["head"] = self.head.state_dict()
        torch.save(content, partial)
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)

    def load(self, content: dict[str, Any]) -> None:
        """Restore the state of a checkpoint exactly."""
        self.student.load_state_dict(content["student"])
        self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.head is not None and "head" in content:
            self.head.load_state_dict(content["head"])
        self.step, self.samples = content["step"], content["samples"]

    def take_weights(self, content: dict[str, Any]) -> None:
        """Start from the averaged weights of another run's checkpoint."""
        for network in (self.student, self.ema):
            network.load_state_dict(content["ema"])

    def take_shipped(self, model_file: Path, photos: Tensor) -> None:
        """Start from the weights of a shipped model; see `training.shipped`."""
        for network in (self.student, self.ema):
            take_shipped(network, model_file, photos)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint that `State.save` wrote. Executes no code in it.

    Raises:
        ValueError: the file does not exist, or is not a whole checkpoint.
    """
    require_file(path, "the checkpoint", "the last.pt of a run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as err:
        raise ValueError(f"{path} cannot be read as a checkpoint; expected: the last.pt of a run") from err
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise ValueError(f"{path} is not a whole checkpoint; expected: the last.pt of a run")
    return content


def new_state(student: nn.Module, weight_decay: float, head: nn.Module | None = None) -> State:
    """Make the state of a new run. Parameters of one dimension, such as biases and batch norms, do not decay."""
    trained = [*student.parameters(), *(head.parameters() if head is not None else ())]
    decayed = [p for p in trained if p.ndim > 1]
    undecayed = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": undecayed, "weight_decay": 0.0}]
    ema = copy.deepcopy(student).eval().requires_grad_(False)
    return State(student, ema, torch.optim.AdamW(groups, lr=0.0), head)


def learning_rate(samples: int, total: int, warm_up: int, hold: int, peak: float) -> float:
    """Learning rate: linear warm-up, the peak until `hold` samples are learned, then a cosine to zero.

    Until `hold`, the rate does not depend on `total`, so a run can still be made longer or shorter.
    """
    if samples < warm_up:
        return peak * (samples + 1) / warm_up
    begin = max(warm_up, hold)
    progress = min(1.0, max(0.0, (samples - begin) / max(1, total - begin)))
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
