"""The tuner chooses the fastest settings that fit, and stores them."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline import tuning
from runtime.pipeline.settings import Settings, override, usable_cores
from tests.support.arithmetic_runner import INFO, ArithmeticRunner

IMAGES = np.zeros((256, 8, 8, 3), np.uint8)


class ThreadTimes:
    """A clock of simulated time. Its threads do not compete for cores: each has a time of its own.

    The thread that made the clock waits for the others, so its time is the latest of all.
    """

    def __init__(self) -> None:
        self._maker, self._lock, self._own = threading.get_ident(), threading.Lock(), threading.local()
        self._latest = 0.0

    def spend(self, seconds: float) -> None:
        """Let the time of this thread pass."""
        self._own.now = self.now() + seconds
        with self._lock:
            self._latest = max(self._latest, self._own.now)

    def now(self) -> float:
        """The time of this thread, seconds."""
        waits_for_all = threading.get_ident() == self._maker
        return self._latest if waits_for_all else getattr(self._own, "now", self._latest)


class CostlyRunner(ArithmeticRunner):
    """Each call takes a fixed time plus a time per image; more than 16 images do not fit."""

    def __init__(self, times: ThreadTimes) -> None:
        super().__init__(fits=16)
        self._times = times

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = super().infer(images)
        self._times.spend(0.004 + 0.0001 * len(images))
        return result


def tune(batch_size: int | None = None) -> Settings:
    times = ThreadTimes()
    return tuning.tune_cpu(
        INFO,
        lambda threads: CostlyRunner(times),
        IMAGES,
        lambda: times.spend(0.001),
        per_decode=8,
        batch_size=batch_size,
        clock=times.now,
    )


def test_costly_calls_give_the_largest_batch_that_fits() -> None:
    settings = tune()
    assert settings.batch_size == 16
    assert 1 <= settings.decoders <= usable_cores()
    # The threads do not compete for cores, so the largest tested number of streams is fastest.
    assert settings.streams == usable_cores()


@pytest.mark.parametrize(("gain", "shape"), [(0.9, (2, 1)), (1.05, (2, 1)), (1.3, (1, 2))])
def test_two_threads_per_call_must_be_clearly_faster(
    gain: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Costs on a fake clock. The probe runs no decoders; in a real run they slow down calls with two threads."""
    now, lock = [0.0], threading.Lock()

    class ClockedRunner(ArithmeticRunner):
        def __init__(self, threads: int) -> None:
            super().__init__()
            self._speed = 2.0 * (gain if threads > 1 else 1.0)  # both cores work in both cases

        def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with lock:
                now[0] += (0.004 + 0.001 * len(images) + 0.0001 * max(0, len(images) - 32) ** 1.5) / self._speed
            return super().infer(images)

    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    settings = tuning.tune_cpu(
        INFO, ClockedRunner, IMAGES, lambda: None, per_decode=8, batch_size=None, clock=lambda: now[0]
    )
    assert (settings.streams, settings.threads) == shape
    assert settings.batch_size == 32


def test_a_given_batch_size_is_used() -> None:
    assert tune(batch_size=4).batch_size == 4


def test_settings_are_stored_per_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path))
    assert tuning.recall_settings(INFO, "opencv") is None
    settings = Settings(16, 2, 1, 2, 3)
    tuning.remember_settings(INFO, "opencv", settings)
    assert tuning.recall_settings(INFO, "opencv") == settings
    assert tuning.recall_settings(INFO, "dali") is None
    tuning.settings_file(INFO, "opencv").write_text("{damaged")
    assert tuning.recall_settings(INFO, "opencv") is None


def test_options_of_the_user_override_the_settings() -> None:
    assert override(Settings(16, 2, 1, 2), 3, None) == Settings(3, 2, 1, 2)
    assert override(Settings(16, 2, 1, 2), None, 7) == Settings(16, 2, 1, 7)
