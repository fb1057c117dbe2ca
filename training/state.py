"""All that a run has to remember, and the file that keeps it."""

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

from .command import want_file

_LARGEST_GRADIENT = 5.0  # length of all of it together; a longer one is shortened
_KEYS = {"student", "ema", "optimizer", "step", "samples", "config"}


@dataclass
class State:
    """A run between two steps. Everything random is drawn from (seed, step), so nothing else need be kept.

    Attributes:
        student: the network in training.
        ema: its moving average: what is verified and exported.
        optimizer: AdamW with its moments.
        head: what is trained beside the student and not exported, such as the classes' weights; None: nothing.
        step: steps done.
        samples: pictures learned from.
    """

    student: nn.Module
    ema: nn.Module
    optimizer: torch.optim.Optimizer
    head: nn.Module | None = None
    step: int = 0
    samples: int = 0

    def learn(self, loss: Tensor, samples: int, ema: float) -> None:
        """A step of the optimizer down a loss, and of the average after it.

        Args:
            loss: of one batch, with its graph.
            samples: by which the count rises.
            ema: decay of the average.
        """
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        trained = [*self.student.parameters(), *(self.head.parameters() if self.head is not None else ())]
        nn.utils.clip_grad_norm_(trained, _LARGEST_GRADIENT)
        self.optimizer.step()
        self.step += 1
        self.samples += samples
        self.average(ema)

    def average(self, decay: float) -> None:
        """Move the average towards the student; early on faster, so that it is not held back by the beginning."""
        share = 1 - min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mine, its in zip(self.ema.state_dict().values(), self.student.state_dict().values(), strict=True):
                if mine.is_floating_point():
                    mine.lerp_(its, share)
                else:
                    mine.copy_(its)

    def save(self, path: Path, config: dict[str, Any]) -> None:
        """Write a checkpoint: whole, or the one before stays."""
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
        """Go on from a checkpoint, exactly."""
        self.student.load_state_dict(content["student"])
        self.ema.load_state_dict(content["ema"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.head is not None and "head" in content:
            self.head.load_state_dict(content["head"])
        self.step, self.samples = content["step"], content["samples"]

    def take_weights(self, content: dict[str, Any]) -> None:
        """Begin with the averaged weights of another run's checkpoint."""
        for network in (self.student, self.ema):
            network.load_state_dict(content["ema"])


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `State.save` wrote. Nothing in it is executed.

    Raises:
        ValueError: there is no such file, or it is none of these.
    """
    want_file(path, "the checkpoint", "the last.pt of a run")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError) as err:
        raise ValueError(f"{path} cannot be read as a checkpoint; wanted: the last.pt of a run") from err
    if not isinstance(content, dict) or not content.keys() >= _KEYS:
        raise ValueError(f"{path} is no whole checkpoint of a run; wanted: the last.pt of one")
    return content


def new_state(student: nn.Module, weight_decay: float, head: nn.Module | None = None) -> State:
    """The beginning of a run. Biases, batch norms and whatever else has one dimension do not decay."""
    trained = [*student.parameters(), *(head.parameters() if head is not None else ())]
    decays = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    groups = [{"params": decays, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    ema = copy.deepcopy(student).eval().requires_grad_(False)
    return State(student, ema, torch.optim.AdamW(groups, lr=0.0), head)


def learning_rate(samples: int, total: int, warm_up: int, hold: int, peak: float) -> float:
    """Linear warm-up, the peak until `hold` samples are learned, then a cosine to zero.

    While it holds, nothing depends on `total`: a run may still be made longer, or be brought to its end early.
    """
    if samples < warm_up:
        return peak * (samples + 1) / warm_up
    begin = max(warm_up, hold)
    done = min(1.0, max(0.0, (samples - begin) / max(1, total - begin)))
    return peak * 0.5 * (1 + math.cos(math.pi * done))
