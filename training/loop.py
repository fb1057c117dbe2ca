"""The loop of every run: steps, a log, checkpoints at intervals, verification at intervals."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from .state import State, learning_rate

logger = logging.getLogger(__name__)


class Trainer(Protocol):
    """A run being followed.

    Attributes:
        config: its settings; `samples`, `batch`, `run` and those of the intervals among them.
        state: what it has to remember.
    """

    config: DictConfig
    state: State

    def step(self) -> dict[str, float]:
        """One batch; returns what is to be logged, `loss` first."""
        ...

    def verify(self) -> dict[str, float]:
        """How good the averaged weights are; empty where nothing is at hand to verify with."""
        ...


def checkpoint_of(config: DictConfig) -> Path:
    """The file that a run goes on from."""
    return Path(config.run) / "last.pt"


def begin(trainer: Trainer, *, anew: bool = False) -> None:
    """Take up the run where it stopped, or from `start` where it has not begun.

    Args:
        trainer: the run.
        anew: `start` is of another kind of run: its averaged weights are taken, and counting begins at 0.
    """
    kept, start = checkpoint_of(trainer.config), trainer.config.start
    if kept.exists():
        trainer.state.load(kept)
    elif start and anew:
        trainer.state.take_weights(Path(start))
    elif start:
        trainer.state.load(Path(start))
    logger.info("%d of %d samples done", trainer.state.samples, trainer.config.samples)


def save(trainer: Trainer) -> None:
    """Keep the run as it is."""
    plain: dict[str, Any] = OmegaConf.to_container(trainer.config, resolve=True)  # type: ignore[assignment]
    trainer.state.save(checkpoint_of(trainer.config), plain)


def set_learning_rate(trainer: Trainer) -> None:
    """Give the optimizer the rate of this moment."""
    config = trainer.config
    for group in trainer.state.optimizer.param_groups:
        group["lr"] = learning_rate(
            trainer.state.samples, config.samples, config.warm_up, config.hold, config.learning_rate
        )


def follow(trainer: Trainer, show: Callable[[Any], None] | None = None) -> None:
    """Train until all samples are learned.

    Args:
        trainer: the run.
        show: called after each verification with TensorBoard's writer, for what is no number.
    """
    from torch.utils.tensorboard import SummaryWriter

    config, state = trainer.config, trainer.state
    board = SummaryWriter(str(Path(config.run) / "tensorboard"))
    saved = began = time.monotonic()
    first = state.samples
    while state.samples < config.samples:
        found = trainer.step()
        now = time.monotonic()
        if state.step % config.log_every == 0:
            rate = (state.samples - first) / (now - began)
            _note(board, state.samples, {**found, "images_per_s": rate})
        if now - saved >= config.checkpoint_every_s:
            save(trainer)
            saved = now
        if state.samples % config.verify_every < config.batch:
            _note(board, state.samples, trainer.verify())
            if show is not None:
                show(board)
    save(trainer)
    board.close()


def _note(board: Any, samples: int, values: dict[str, float]) -> None:
    if not values:
        return
    for name, value in values.items():
        board.add_scalar(name, value, samples)
    logger.info("%9d samples  %s", samples, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
