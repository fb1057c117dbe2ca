"""The ranges that INT8 covers, checked on distributions with known tails."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from runtime.engines.calibrate import METHODS, CalibrationSet, Observed, observe, value_range
from runtime.engines.parity import synthetic_crops
from runtime.errors import ConfigError, EngineError
from runtime.graphs.prepare import prepare_graph
from tests.support.errors import raises
from tests.support.model_files import save_cnn, spec

CROPS = synthetic_crops(112, count=70)


def observe_values(values: NDArray[np.float32]) -> Observed:
    return Observed(float(values.min()), float(values.max()), values)


def normal(count: int = 400_000) -> NDArray[np.float32]:
    return np.random.RandomState(5).standard_normal(count).astype(np.float32)


def test_the_range_covers_all_values(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")
    names = ["body/c1", "body/r1"]
    observed = observe(graph, names, CROPS[:10])
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    from onnxruntime import InferenceSession

    values = InferenceSession(watched.SerializeToString()).run(names, {"images": CROPS[:10]})
    for name, expected in zip(names, values, strict=True):
        assert (observed[name].low, observed[name].high) == pytest.approx((expected.min(), expected.max()), rel=1e-5)
        assert np.isin(np.round(observed[name].sample, 3), np.round(expected, 3)).mean() > 0.99
        assert observed[name].sample.std() == pytest.approx(expected.std(), rel=0.05)


def test_the_same_crops_give_the_same_ranges(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")
    ranges_a, ranges_b = (observe(graph, ["body/r1"], CROPS[:9])["body/r1"] for _ in range(2))
    np.testing.assert_array_equal(ranges_a.sample, ranges_b.sample)


def test_a_graph_that_overflows_is_refused_by_name(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx", gain=1e9), spec(), "fp16")  # beyond float16 in the first layer
    with raises(EngineError, "body/c1", "NaN", "--precision fp32"):
        observe(graph, ["body/c1"], CROPS[:2])


def test_minmax_clips_nothing() -> None:
    values = np.append(normal(), np.float32(500))
    assert value_range(observe_values(values), "minmax").tolist() == [values.min(), 500]


def test_percentile_clips_the_last_hundred_thousandth() -> None:
    values = np.append(normal(), np.float32([-500, 500]))
    low, high = value_range(observe_values(values), "percentile")
    assert -5 < low < -4
    assert 4 < high < 5


def test_entropy_clips_far_outliers() -> None:
    values = np.append(normal(), np.float32([80]))
    low, high = value_range(observe_values(values), "entropy")
    assert low == values.min()  # values that never occurred get no range
    assert 2.5 < high < 20


def test_entropy_is_not_decided_by_zeros() -> None:
    values = np.maximum(np.append(normal(), np.float32([80])), 0)
    more = np.append(values, np.zeros(5_000_000, np.float32))
    assert (
        value_range(observe_values(values), "entropy").tolist() == value_range(observe_values(more), "entropy").tolist()
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [np.zeros(1000), np.full(1000, 3.0), -np.arange(1000.0)])
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_unusual_tensors_have_ranges(method: str, values: NDArray[np.float64], kind: type) -> None:
    limits = value_range(observe_values(values.astype(kind)), method)
    assert limits.dtype == kind
    assert values.min() <= limits[0] <= limits[1] <= values.max()


def test_each_crop_is_in_one_part() -> None:
    parts = CalibrationSet(CROPS, 0).parts()
    assert [len(part) for part in parts] == [35, 17, 18]
    np.testing.assert_array_equal(np.concatenate(parts), CROPS)


def test_the_name_of_a_set_changes_with_every_pixel_and_the_seed() -> None:
    changed = CROPS.copy()
    changed[-1, -1, -1, -1] ^= 1
    names = {str(CalibrationSet(CROPS, 0)), str(CalibrationSet(CROPS, 1)), str(CalibrationSet(changed, 0))}
    assert len(names) == 3
    assert str(CalibrationSet(CROPS.copy(), 0)) in names


def test_too_few_crops_are_refused() -> None:
    with raises(ConfigError, 63, 64, "--calibration"):
        CalibrationSet(CROPS[:63], 0)
