"""The loop of every run: steps, a log, checkpoints at intervals, verification at intervals."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from omegaconf import DictConfig, OmegaConf

from .command import want_file
from .state import State, learning_rate, read_checkpoint

logger = logging.getLogger(__name__)

_OF_NETWORK = ("backbone", "widths")
# What a run is; how long, how fast and on what pictures it learns may change on the way.
_DECIDING = (*_OF_NETWORK, "seed", "teacher", "tars", "left_out", "held_out", "batch", "objectives")


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


def kept_of(config: DictConfig) -> dict[str, Any] | None:
    """The checkpoint that a run goes on from, or begins with; None: it begins with nothing.

    To be asked before anything else, so that a run that cannot go on is refused before it decodes for minutes.

    Raises:
        ValueError: it was made with other settings, or of another network.
    """
    path = checkpoint_of(config)
    if path.exists():
        kept = read_checkpoint(path)
        _compare(config, kept["config"], _DECIDING, f"{path} was made with", "give another run=..., or the old value")
        return kept
    if not config.start:
        return None
    start = want_file(Path(config.start), "start", "a checkpoint, such as runs/distil/last.pt")
    kept = read_checkpoint(start)
    _compare(config, kept["config"], _OF_NETWORK, f"start={start} has", "give the old value, or another start=...")
    return kept


def _compare(config: DictConfig, before: dict[str, Any], keys: Iterable[str], made_with: str, wanted: str) -> None:
    now = _plain(config)
    for key in keys:
        if key not in before:
            continue  # an older checkpoint
        if key not in now:
            raise ValueError(f"{made_with} {key}={before[key]}, so it is of another kind of run; {wanted}")
        one, other = _decisive(now[key], before[key]), _decisive(before[key], now[key])
        if one != other:
            raise ValueError(f"{key} is {one}, but {made_with} {other}; wanted: {wanted}")


def _decisive(value: Any, other: Any) -> Any:
    """What counts of a setting: of paths the name, as folders differ between machines; of groups what both have."""
    if isinstance(value, dict) and isinstance(other, dict):
        return {key: _decisive(one, other[key]) for key, one in value.items() if key in other}
    return Path(value).name if isinstance(value, str) else value


def begin(trainer: Trainer, kept: dict[str, Any] | None, *, anew: bool = False) -> None:
    """Take up the run where it stopped, or from `start` where it has not begun.

    Args:
        trainer: the run.
        kept: of `kept_of`.
        anew: `start` is of another kind of run: its averaged weights are taken, and counting begins at 0.
    Raises:
        ValueError: the checkpoint is of another network.
    """
    try:
        if kept is not None and anew and not checkpoint_of(trainer.config).exists():
            trainer.state.take_weights(kept)
        elif kept is not None:
            trainer.state.load(kept)
    except RuntimeError as err:
        first = str(err).splitlines()[1:2] or [str(err)]
        raise ValueError(f"the checkpoint is of another network: {first[0].strip()}; give another run=...") from err
    logger.info("%d of %d samples done", trainer.state.samples, trainer.config.samples)


def save(trainer: Trainer) -> None:
    """Keep the run as it is."""
    trainer.state.save(checkpoint_of(trainer.config), _plain(trainer.config))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain


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
    Raises:
        SystemExit: 130 or 143: Ctrl-C or SIGTERM came; what is learned is kept.
    """
    from torch.utils.tensorboard import SummaryWriter

    config, state = trainer.config, trainer.state
    board = SummaryWriter(str(Path(config.run) / "tensorboard"))
    saved = began = time.monotonic()
    first = state.samples
    with _signals() as came:
        while state.samples < config.samples and not came:
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
    if state.samples < config.samples:
        kept = checkpoint_of(config)
        logger.info(
            "stopped at %d of %d samples; the same command goes on from %s", state.samples, config.samples, kept
        )
        raise SystemExit(128 + came[0])


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The requests to stop that have come, which end the run after its step; a second one ends it at once."""
    came: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}  # nohup

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        came.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield came
    finally:
        restore()


def _note(board: Any, samples: int, values: dict[str, float]) -> None:
    if not values:
        return
    for name, value in values.items():
        board.add_scalar(name, value, samples)
    logger.info("%9d samples  %s", samples, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
