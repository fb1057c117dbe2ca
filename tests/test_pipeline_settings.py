"""The tuner: picks what is fastest, avoids what does not fit, remembers."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from runners import INFO, ArithmeticRunner

from runtime.pipeline import settings as tuning
from runtime.pipeline.settings import Settings

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
    return tuning.tune(
        INFO, lambda threads: CostlyRunner(), IMAGES, lambda: time.sleep(0.001), per_decode=8, batch_size=batch_size
    )


def test_the_largest_batch_that_fits_wins_when_calls_are_costly() -> None:
    found = tuned()
    assert found.batch_size == 16
    assert 1 <= found.decoders <= tuning.usable_cores()
    # Sleeping runners do not share a core: as many calls at once as are tried is fastest.
    assert found.streams == tuning.usable_cores()


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
    assert tuning.with_given(Settings(16, 2, 1, 2), 3, None) == Settings(3, 2, 1, 2)
    assert tuning.with_given(Settings(16, 2, 1, 2), None, 7) == Settings(16, 2, 1, 7)
