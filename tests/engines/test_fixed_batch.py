"""A fixed batch: every call of the engine has one size, and the answers are those of the images."""

from __future__ import annotations

import numpy as np

from runtime.engines.fixed_batch import FixedBatch
from tests.support.arithmetic_runner import ArithmeticRunner


def test_every_call_has_the_same_size_and_answers_for_the_given_images_only() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    runner = ArithmeticRunner()
    with FixedBatch(runner, 4) as fixed:
        answers = [fixed.infer(images[:n]) for n in (1, 3, 4)]
        larger = fixed.infer(images)  # the caller's limit is larger than the size: nothing is cut
    assert fixed.info is runner.info
    assert runner.sizes == [4, 4, 4, 5]
    for count, answer in zip((1, 3, 4), answers, strict=True):
        np.testing.assert_array_equal(answer, ArithmeticRunner().infer(images[:count]))
    assert len(larger) == 5
