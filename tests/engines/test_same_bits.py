"""Engines whose answers depend on the size of a call, or on the number of threads, are found out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.engines.engine import read_engine
from runtime.engines.same_bits import same_bits
from runtime.search.embedder import PhotoEmbedder, QueryRules
from tests.support.arithmetic_runner import ArithmeticRunner


class RoundingRunner(ArithmeticRunner):
    """Rounds otherwise in calls of at least so many images."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        answers = super().infer(images)
        return np.nextafter(answers, np.float32(0)) if len(images) >= self.size else answers


def test_runners_are_alike_if_every_bit_is() -> None:
    assert same_bits([ArithmeticRunner(), ArithmeticRunner()])
    for size in (2, 5, 16):
        assert not same_bits([RoundingRunner(size)])
    assert not same_bits([ArithmeticRunner(), RoundingRunner(1)])


@pytest.mark.slow
def test_photos_share_calls_of_engines_that_answer_alike(tiny_engine: Path) -> None:
    engine = read_engine(tiny_engine)
    with open_runner(engine, threads=1) as one, open_runner(engine, threads=2) as two:
        alike = same_bits([one, two])
    with PhotoEmbedder(QueryRules(engine)) as embedder:
        assert (embedder.photos_together() > 1) == alike
