"""Methods and layers chosen by measurement, on networks whose weak spot is planted."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.calibrate import CalibrationSet
from runtime.engines.onnxruntime.backend import OnnxRuntimeCpu
from runtime.engines.parity import BARS, measure_parity, synthetic_crops
from runtime.engines.quantise import quantise
from runtime.engines.tensorrt.backend import TensorRT
from runtime.errors import EngineError
from runtime.graphs.graph import simplify
from runtime.graphs.prepare import prepare_graph
from runtime.graphs.qdq import Scheme
from runtime.modelspec import load_spec
from tests.support.errors import raises
from tests.support.model_files import save, save_cnn, spec

CROPS = synthetic_crops(112, count=48)
CALIBRATION, CHOICE = CROPS[:32], CROPS[32:]


def save_uneven(path: Path) -> Path:
    """Five layers of 8 channels; between the third and the fourth, one channel is a thousand times the others.

    The fourth layer reverses it, so float loses nothing. With one INT8 scale per tensor, the other channels vanish.
    """
    random = np.random.default_rng(11)
    shapes = [(8, 3, 8, 8), (8, 8, 3, 3), (8, 8, 3, 3), (8, 8, 3, 3), (16, 8, 4, 4)]
    weights = [random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) for shape in shapes]
    weights[2][0] *= 1000
    weights[3][:, 0] /= 1000
    nodes, top = [], "x"
    for i, shape in enumerate(shapes):
        stride = [8, 1, 1, 1, 2][i]
        nodes.append(
            helper.make_node("Conv", [top, f"w{i}"], [f"c{i}"], name=f"conv{i}", strides=[stride] * 2,
                             kernel_shape=list(shape[2:]))
        )  # fmt: skip
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"], name=f"relu{i}"))
        top = f"r{i}"
    nodes[-1] = helper.make_node("GlobalAveragePool", ["c4"], ["y"], name="pool")
    ends = [
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 16, 1, 1])],
    ]
    constants = [numpy_helper.from_array(w.astype(np.float32), f"w{i}") for i, w in enumerate(weights)]
    return save(path, helper.make_graph(nodes, "uneven", *ends, constants))


@pytest.fixture
def uneven(tmp_path: Path) -> onnx.ModelProto:
    return prepare_graph(save_uneven(tmp_path / "m.onnx"), spec(), "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [OnnxRuntimeCpu.scheme, TensorRT.scheme], ids=["cpu", "tensorrt"])
def test_the_layers_around_the_weak_spot_stay_in_float(uneven: onnx.ModelProto, scheme: Scheme) -> None:
    alone = quantise(uneven, scheme, CALIBRATION, CHOICE, target=0.0)
    assert alone.left_float == ()
    assert alone.agreement < 0.95
    quantised = quantise(uneven, scheme, CALIBRATION, CHOICE, target=0.99)
    assert quantised.agreement >= 0.99
    # The layer that reads the uneven tensor and, where outputs are quantised too, the layer that writes it.
    assert set(quantised.left_float) == ({"body/conv3"} if scheme.inputs_only else {"body/conv2", "body/conv3"})


def test_no_layer_stays_in_float_needlessly(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")
    quantised = quantise(graph, OnnxRuntimeCpu.scheme, CALIBRATION, CHOICE, target=0.995)
    assert quantised.left_float == ()
    assert quantised.agreement >= 0.995


@pytest.mark.slow
def test_an_unreachable_target_is_refused_with_the_best_figure(uneven: onnx.ModelProto) -> None:
    with raises(EngineError, "3 of 5", 1.1):
        quantise(uneven, OnnxRuntimeCpu.scheme, CALIBRATION, CHOICE, target=1.1)


@pytest.mark.slow
def test_a_refused_engine_names_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.make._TARGET", 1.1)  # out of reach of every network
    weights, crops = save_uneven(tmp_path / "m.onnx"), CalibrationSet(synthetic_crops(112, count=64), 0)
    with raises(EngineError, "--model test-model --backend cpu --precision fp32", "INT8 loses too much", 1.1):
        build_engine(
            spec(dimension=16), weights, backend="cpu", precision="int8", output=tmp_path / "e", calibration=crops
        )
    assert not list((tmp_path / "e").glob("*.onnx"))


def test_whole_numbers_are_not_quantised(tmp_path: Path) -> None:
    """A graph may compute a shape, with the operators that are quantised where they compute with floats."""
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")
    last = graph.graph.output[0].name
    for node in graph.graph.node:
        node.output[:] = ["before" if name == last else name for name in node.output]
        node.input[:] = ["before" if name == last else name for name in node.input]
    graph.graph.initializer.append(numpy_helper.from_array(np.array([0, 0], np.int64), "nothing"))
    graph.graph.node.extend(
        [
            helper.make_node("Shape", ["before"], ["shape"], name="shape"),
            helper.make_node("Add", ["shape", "nothing"], ["same"], name="add"),
            helper.make_node("Reshape", ["before", "same"], [last], name="reshape"),
        ]
    )
    quantised = quantise(graph, OnnxRuntimeCpu.scheme, CALIBRATION, CHOICE, target=0.99)
    assert quantised.agreement >= 0.99
    (add,) = [node for node in quantised.model.graph.node if node.name == "add"]
    assert list(add.input) == ["shape", "nothing"]


@pytest.mark.slow
def test_the_best_method_is_selected(tmp_path: Path) -> None:
    """Calibrate on dim pictures of which one has a bright pixel, which widens the range of minmax."""
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(mean=(0.0, 0.0, 0.0)), "fp32")
    dim = (CROPS // 40).astype(np.uint8)
    glaring = dim[:32].copy()
    glaring[3, 50:54, 50:54] = 255
    assert quantise(graph, OnnxRuntimeCpu.scheme, dim[:32], dim[32:], target=0.0).agreement > 0.98
    quantised = quantise(graph, OnnxRuntimeCpu.scheme, glaring, dim[32:], target=0.0)
    assert quantised.method != "minmax"
    assert quantised.agreement > 0.98


@pytest.fixture(scope="module")
def real_crops(shared: Path) -> NDArray[np.uint8]:
    import cv2

    path = shared / "data" / "face_crops.tar"
    if not path.exists():
        pytest.skip(f"{path.name} is not there")
    crops = []
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                crops.append(cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB))
            if len(crops) == 320:
                return np.stack(crops)
    raise AssertionError(f"{path} holds {len(crops)} crops; expected 320")


@pytest.mark.slow
def test_a_real_network_on_real_faces(shared: Path, real_crops: NDArray[np.uint8], tmp_path: Path) -> None:
    weights = shared / "models" / "mobilefacenet_128.onnx"
    if not weights.exists():
        pytest.skip(f"{weights.name} is not there")
    model = load_spec("mobilefacenet-128")
    calibration = CalibrationSet(real_crops[:256], 0)
    result = build_engine(model, weights, backend="cpu", precision="int8", output=tmp_path, calibration=calibration)
    assert result.engine.info.parity.images == 64
    with open_runner(result.engine) as runner:  # on crops that the calibration did not use
        parity = measure_parity(runner, model, weights, real_crops[256:])
    assert parity.mean >= BARS["int8"].mean
    assert parity.minimum >= BARS["int8"].minimum
    fused = simplify(onnx.load(result.engine.path), str(result.engine.path), extended=True)
    kinds = [node.op_type for node in fused.graph.node]
    assert kinds.count("QLinearConv") >= 45  # of 51
    assert 1 <= len(result.engine.info.int8.left_float) <= 6


@pytest.mark.slow
def test_ignored_outputs_are_not_compared(uneven: onnx.ModelProto) -> None:
    all_outputs = quantise(uneven, OnnxRuntimeCpu.scheme, CALIBRATION, CHOICE, target=-1.0)
    weighted_outputs = quantise(
        uneven,
        OnnxRuntimeCpu.scheme,
        CALIBRATION,
        CHOICE,
        target=-1.0,
        reading=lambda answers: np.ones((len(answers), 1)),
    )
    assert all_outputs.agreement < 0.9999
    assert weighted_outputs.agreement == pytest.approx(1.0)
