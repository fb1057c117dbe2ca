"""Which engines the parity check accepts and which it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.engines.parity import Parity, check_parity, measure_parity, synthetic_crops
from runtime.errors import ModelError, ParityError
from runtime.graphs.prepare import prepare_graph
from tests.support.errors import raises
from tests.support.model_files import info, save_cnn, spec


@pytest.mark.slow
def test_a_different_normalisation_fails(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    graph = prepare_graph(weights, spec(mean=(120.0, 120.0, 120.0)), "fp32")
    with OrtRunner(graph.SerializeToString(), info()) as engine:
        parity = measure_parity(engine, spec(), weights)
    with raises(ParityError, 64, 0.99999):
        check_parity(parity, "fp32", "the engine")


@pytest.mark.slow
def test_outputs_that_are_not_finite_fail(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx", gain=1e9)  # beyond float16 in the first layer
    with OrtRunner(prepare_graph(weights, spec(), "fp16").SerializeToString(), info(precision="fp16")) as engine:
        parity = measure_parity(engine, spec(), weights)
    with raises(ParityError, "--precision fp32"):
        check_parity(parity, "fp16", "the engine")


@pytest.mark.slow
@pytest.mark.parametrize("profile", [(1, 1, 1), (1, 5, 7), (64, 64, 64), (100, 100, 128)])
def test_every_batch_profile_is_checked(tmp_path: Path, profile: tuple[int, int, int]) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    with OrtRunner(prepare_graph(weights, spec(), "fp32").SerializeToString(), info(profile=profile)) as engine:
        parity = measure_parity(engine, spec(), weights)
    assert parity.images == 64
    assert parity.minimum > 0.99999


def test_the_check_compares_the_given_crops(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    with OrtRunner(prepare_graph(weights, spec(), "fp32").SerializeToString(), info()) as engine:
        assert measure_parity(engine, spec(), weights, synthetic_crops(112, count=3, seed=9)).images == 3


def test_a_value_equal_to_the_limit_passes() -> None:
    check_parity(Parity(1, 0.999, 0.999), "fp16", "x")
    for minimum in (0.9989999, float("nan")):
        with pytest.raises(ParityError):
            check_parity(Parity(1, minimum, 1.0), "fp16", "x")


def test_a_mean_below_its_limit_fails() -> None:
    check_parity(Parity(128, 0.97, 0.995), "int8", "x")
    with raises(ParityError, "0.990000", "0.994000", 0.97, 0.995, "int8"):
        check_parity(Parity(128, 0.99, 0.994), "int8", "x")
    with pytest.raises(ParityError):
        check_parity(Parity(128, 0.969, 0.999), "int8", "x")


@pytest.mark.slow
def test_a_reference_that_does_not_run_is_a_model_error(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    with OrtRunner(prepare_graph(weights, spec(), "fp32").SerializeToString(), info()) as engine:
        weights.write_bytes(b"no longer")
        with raises(ModelError):
            measure_parity(engine, spec(), weights)


def test_crops_are_seeded_and_smooth() -> None:
    crops = synthetic_crops(112, count=8)
    np.testing.assert_array_equal(crops, synthetic_crops(112, count=8))
    assert (crops != synthetic_crops(112, count=8, seed=1)).any()
    steps = np.abs(np.diff(crops.astype(int), axis=2))
    assert np.median(steps) < 5  # white noise would have about 75
    assert crops.std(axis=(1, 2)).min() > 10  # flat grey would have 0
