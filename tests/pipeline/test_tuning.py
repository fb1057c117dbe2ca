"""The tuner: picks what is fastest, avoids what does not fit, remembers."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.pipeline import tuning
from runtime.pipeline.settings import Settings, override, usable_cores
from tests.support.arithmetic_runner import INFO, ArithmeticRunner

IMAGES = np.zeros((256, 8, 8, 3), np.uint8)


class CostlyRunner(ArithmeticRunner):
    """Each call costs a fixed time plus a time an image; more than 16 images do not fit."""

    def __init__(self) -> None:
        super().__init__(fits=16)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = super().infer(images)
        time.sleep(0.004 + 0.0001 * len(images))
        return result


def tuned(batch_size: int | None = None) -> Settings:
    return tuning.tune_cpu(
        INFO, lambda threads: CostlyRunner(), IMAGES, lambda: time.sleep(0.001), per_decode=8, batch_size=batch_size
    )


def test_the_largest_batch_that_fits_wins_when_calls_are_costly() -> None:
    found = tuned()
    assert found.batch_size == 16
    assert 1 <= found.decoders <= usable_cores()
    # Sleeping runners do not share a core: as many calls at once as are tried is fastest.
    assert found.streams == usable_cores()


@pytest.mark.parametrize(("gain", "shape"), [(0.9, (2, 1)), (1.05, (2, 1)), (1.3, (1, 2))])
def test_two_threads_in_a_call_have_to_be_clearly_faster(
    gain: float, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Known costs on a fake clock: decoders, which the probe does not run, get in the way of such calls."""
    now, lock = [0.0], threading.Lock()

    class Clocked(ArithmeticRunner):
        def __init__(self, threads: int) -> None:
            super().__init__()
            self._speed = 2.0 * (gain if threads > 1 else 1.0)  # either way both cores work

        def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            with lock:
                now[0] += (0.004 + 0.001 * len(images) + 0.0001 * max(0, len(images) - 32) ** 1.5) / self._speed
            return super().infer(images)

    monkeypatch.setattr(tuning, "usable_cores", lambda: 2)
    found = tuning.tune_cpu(INFO, Clocked, IMAGES, lambda: None, per_decode=8, batch_size=None, clock=lambda: now[0])
    assert (found.streams, found.threads) == shape
    assert found.batch_size == 32


def test_a_given_batch_size_is_kept() -> None:
    assert tuned(batch_size=4).batch_size == 4


def test_settings_are_remembered_by_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path))
    assert tuning.recall_settings(INFO, "opencv") is None
    found = Settings(16, 2, 1, 2, 3)
    tuning.remember_settings(INFO, "opencv", found)
    assert tuning.recall_settings(INFO, "opencv") == found
    assert tuning.recall_settings(INFO, "dali") is None
    tuning.settings_file(INFO, "opencv").write_text("{damaged")
    assert tuning.recall_settings(INFO, "opencv") is None


def test_what_the_user_gives_wins() -> None:
    assert override(Settings(16, 2, 1, 2), 3, None) == Settings(3, 2, 1, 2)
    assert override(Settings(16, 2, 1, 2), None, 7) == Settings(16, 2, 1, 7)
