"""The settings of a run: batch size and numbers of threads."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..engines.backends import backend_of
from ..engines.engine import EngineInfo


@dataclass(frozen=True, slots=True)
class Settings:
    """Batch size and numbers of threads.

    Attributes:
        batch_size: images in one call of the engine.
        streams: calls of the engine at the same time.
        threads: threads inside one call.
        decoders: threads that decode.
        readers: threads that read files; may exceed the cores, since they wait for disks.
    """

    batch_size: int
    streams: int
    threads: int
    decoders: int
    readers: int = 2


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def cores_of(number: int, devices: Sequence[str]) -> set[int]:
    """The cores of one of several processes: an even part of the cores of this process, at least one."""
    cores = sorted(os.sched_getaffinity(0))
    return set(cores[number :: len(devices)] or cores)


@contextmanager
def limit_cores(devices: Sequence[str]) -> Iterator[None]:
    """Limit this thread, and threads that it starts, to the cores of one process of the run.

    Settings are then chosen for that process. Without "cpu" in `devices` nothing changes.
    """
    all_cores = os.sched_getaffinity(0)
    try:
        if "cpu" in devices:
            os.sched_setaffinity(0, cores_of(0, devices))
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def default_settings(info: EngineInfo) -> Settings:
    """Settings for a run that is too short to tune."""
    cores = usable_cores()
    if not backend_of(info.backend).on_gpu:
        return Settings(min(8, info.profile[2]), cores, 1, max(1, cores))
    return Settings(info.profile[1], 3, 1, cores, min(4, cores))


def override(settings: Settings, batch_size: int | None, workers: int | None) -> Settings:
    """Override settings with values from the user.

    Args:
        settings: tuned, remembered or default settings.
        batch_size: images in one call of the engine; None to keep the value of `settings`.
        workers: threads that decode; None to keep the value of `settings`.
    """
    return replace(settings, batch_size=batch_size or settings.batch_size, decoders=workers or settings.decoders)
