"""The loop of every training run: steps, a log, checkpoints and verification at intervals."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from .command import require_file
from .crops import find_sources
from .device import use_device
from .state import State, learning_rate, read_checkpoint

logger = logging.getLogger(__name__)

_NETWORK_KEYS = ("backbone", "widths")
# Settings that identify a run. Its length, learning rate and augmentation may change later.
_RUN_KEYS = (
    *(*_NETWORK_KEYS, "seed", "teacher", "second_teacher", "identities", "tars", "left_out", "held_out", "batch"),
    "objectives",
    "landmarks",
)


PHOTOS = 64  # that a run which starts from shipped weights looks at


class Trainer(Protocol):
    """A training run.

    Attributes:
        config: its settings, among them `samples`, `batch`, `run` and the intervals.
        state: networks, optimizer and counters.
    """

    config: DictConfig
    state: State

    def photos(self) -> Tensor:
        """(N, 3, S, S): some photos as the network takes them; a run that starts from shipped weights needs them."""
        ...

    def step(self) -> dict[str, float]:
        """Learn from one batch; returns values to log, `loss` first."""
        ...

    def verify(self) -> dict[str, float]:
        """Measure the averaged weights; empty without data to verify with."""
        ...


def checkpoint_path(config: DictConfig) -> Path:
    """Path of a run's checkpoint."""
    return Path(config.run) / "last.pt"


def begin(config: DictConfig) -> tuple[dict[str, Any] | None, list[Path], Path | None]:
    """Begin a run: choose the device, seed the random numbers, and check what may be refused before minutes of work.

    Returns:
        The checkpoint to resume, see `load_checkpoint`; the tars, and the list of names to leave out.
    Raises:
        ValueError: the device, the checkpoint or a file cannot be used.
    """
    use_device(config.device)
    torch.manual_seed(config.seed)
    return load_checkpoint(config), *find_sources(config)


def load_checkpoint(config: DictConfig) -> dict[str, Any] | None:
    """Load the checkpoint that a run resumes or starts from; None if there is none, or if it starts from a model file.

    Call this first, so that a run that cannot resume is refused before it decodes for minutes.

    Raises:
        ValueError: the checkpoint was made with different settings, or is of another network.
    """
    path = checkpoint_path(config)
    if path.exists():
        checkpoint = read_checkpoint(path)
        _compare(config, checkpoint["config"], _RUN_KEYS, f"{path} was made with", "another run=..., or the old value")
        return checkpoint
    if not config.start:
        return None
    if _is_model_file(config.start):
        require_file(Path(config.start), "start", "a model file, such as models/facemill-512.toml")
        return None
    start = require_file(Path(config.start), "start", "a checkpoint, such as runs/distil/last.pt")
    checkpoint = read_checkpoint(start)
    _compare(config, checkpoint["config"], _NETWORK_KEYS, f"start={start} has", "the old value, or another start=...")
    return checkpoint


def _is_model_file(start: str | None) -> bool:
    return start is not None and start.endswith(".toml")


def _compare(config: DictConfig, before: dict[str, Any], keys: Iterable[str], made_with: str, remedy: str) -> None:
    now = _plain(config)
    for key in keys:
        if key not in before:
            continue  # the checkpoint is older than the setting
        if key not in now:
            raise ValueError(f"{made_with} {key}={before[key]}: it is of another kind of run; expected: {remedy}")
        value, old_value = _reduce_setting(now[key], before[key]), _reduce_setting(before[key], now[key])
        if value != old_value:
            raise ValueError(f"{key} is {value}, but {made_with} {old_value}; expected: {remedy}")


def _reduce_setting(value: Any, counterpart: Any) -> Any:
    """Reduce a path to its name, because folders differ by machine, and a group to the keys that both have."""
    if isinstance(value, dict) and isinstance(counterpart, dict):
        return {key: _reduce_setting(item, counterpart[key]) for key, item in value.items() if key in counterpart}
    return Path(value).name if isinstance(value, str) else value


def resume(trainer: Trainer, checkpoint: dict[str, Any] | None, *, weights_only: bool = False) -> None:
    """Resume a run from its checkpoint, or start it from the checkpoint or the model file of `start`.

    Args:
        trainer: the run.
        checkpoint: result of `load_checkpoint`.
        weights_only: take only the averaged weights of `start`, which is of another kind of run, and count from 0.
            A model file holds nothing else.
    Raises:
        ValueError: the checkpoint is of another network.
    """
    try:
        if checkpoint is not None and weights_only and not checkpoint_path(trainer.config).exists():
            trainer.state.take_weights(checkpoint)
        elif checkpoint is not None:
            trainer.state.load(checkpoint)
        elif _is_model_file(trainer.config.start):
            trainer.state.take_shipped(Path(trainer.config.start), trainer.photos())
    except RuntimeError as err:
        first = str(err).splitlines()[1:2] or [str(err)]
        raise ValueError(
            f"the checkpoint is of another network: {first[0].strip()}; expected: another run=..."
        ) from err
    logger.info("%d of %d samples done", trainer.state.samples, trainer.config.samples)


def save(trainer: Trainer) -> None:
    """Write the run's checkpoint."""
    trainer.state.save(checkpoint_path(trainer.config), _plain(trainer.config))


def _plain(config: DictConfig) -> dict[str, Any]:
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    return plain


def set_learning_rate(trainer: Trainer) -> None:
    """Set the optimizer's learning rate for the samples learned so far."""
    config = trainer.config
    for group in trainer.state.optimizer.param_groups:
        group["lr"] = learning_rate(
            trainer.state.samples, config.samples, config.warm_up, config.hold, config.learning_rate
        )


def train(trainer: Trainer, show: Callable[[Any], None] | None = None) -> None:
    """Train until all samples are learned.

    Args:
        trainer: the run.
        show: called after each verification with TensorBoard's writer, to add more than numbers.
    Raises:
        SystemExit: 130 after Ctrl-C or 143 after SIGTERM; the checkpoint is written.
    """
    from torch.utils.tensorboard import SummaryWriter

    config, state = trainer.config, trainer.state
    board = SummaryWriter(str(Path(config.run) / "tensorboard"))
    saved = began = time.monotonic()
    first = state.samples
    with _collect_signals() as signals:
        while state.samples < config.samples and not signals:
            values = trainer.step()
            now = time.monotonic()
            if state.step % config.log_every == 0:
                rate = (state.samples - first) / (now - began)
                _log_values(board, state.samples, {**values, "images_per_s": rate})
            if now - saved >= config.checkpoint_every_s:
                save(trainer)
                saved = now
            if state.samples % config.verify_every < config.batch:
                _log_values(board, state.samples, trainer.verify())
                if show is not None:
                    show(board)
        save(trainer)
    board.close()
    if state.samples < config.samples:
        checkpoint = checkpoint_path(config)
        logger.info(
            "stopped at %d of %d samples; the same command resumes from %s", state.samples, config.samples, checkpoint
        )
        raise SystemExit(128 + signals[0])


@contextmanager
def _collect_signals() -> Iterator[list[int]]:
    """Collect signals to stop, which end the run after its step; a second signal ends it at once."""
    signals: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if handler not in (None, signal.SIG_IGN)}  # nohup

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        signals.append(number)
        restore()

    for number in before:
        signal.signal(number, note)
    try:
        yield signals
    finally:
        restore()


def _log_values(board: Any, samples: int, values: dict[str, float]) -> None:
    if not values:
        return
    for name, value in values.items():
        board.add_scalar(name, value, samples)
    logger.info("%9d samples  %s", samples, "  ".join(f"{name} {value:.4f}" for name, value in values.items()))
