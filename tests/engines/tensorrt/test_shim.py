"""TensorRT plans, built for real. tensorrt_rtx needs no GPU to build; running them does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.cuda.device import find_gpu
from runtime.engines.backends import open_runner
from runtime.engines.build import BuildResult, build_engine
from runtime.engines.calibrate import CalibrationSet
from runtime.engines.parity import BARS, reading_of, synthetic_crops
from runtime.engines.quantise import quantise
from runtime.engines.tensorrt.api import import_tensorrt
from runtime.engines.tensorrt.backend import TensorRT
from runtime.engines.tensorrt.build import CURRENT, build_plan
from runtime.errors import ConfigError, EngineError, MissingDependencyError, ParityError
from runtime.graphs.mobilefacenet import generate
from runtime.graphs.prepare import prepare_graph
from runtime.graphs.tensors import INPUT, OUTPUT
from tests.support.errors import raises
from tests.support.model_files import save_cnn, spec

trt = pytest.importorskip(
    "tensorrt_rtx", reason="the extra rtx is not installed: pip install tensorrt-rtx", exc_type=ImportError
)
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


def build(folder: Path, weights: Path, dimension: int = 16, **options: Any) -> BuildResult:
    return build_engine(spec(dimension=dimension), weights, backend="tensorrt", output=folder / "engines", **options)


def types_in(plan: bytes) -> dict[str, set[str]]:
    """Read the tensor types from the plan: name without the compiler's suffix -> types."""
    types: dict[str, set[str]] = {}
    for tensor in re.findall(rb"tensor=\{[^}]*\}[^\n]*", plan):
        name = re.search(rb'name="([^"]*)"', tensor)
        kind = re.search(rb" type=(\w+)", tensor)
        if name and kind:
            types.setdefault(name[1].decode().split(".")[0], set()).add(kind[1].decode())
    return types


@pytest.mark.slow
@pytest.mark.parametrize(("target", "form"), [("SM75", "128"), ("SM75", "512"), (None, "128")])
def test_an_fp16_plan_takes_uint8_and_returns_float32(tmp_path: Path, target: str | None, form: str) -> None:
    if target is None and find_gpu() is not None:
        pytest.skip("with a GPU, that GPU is the default")
    generate(tmp_path / "m.onnx", form=form, seed=0)
    result = build(tmp_path, tmp_path / "m.onnx", int(form), compute_capability=target)
    name = "sm75" if target else "default-set"
    assert result.engine.path.name == f"test-model.tensorrt-fp16-{name}.plan"
    assert (result.engine.info.precision, result.engine.info.profile) == ("fp16", (1, 256, 512))
    assert result.engine.info.device == (target or "default set")
    assert result.engine.info.backend_version == f"tensorrt_rtx {trt.__version__}"
    types = types_in(result.engine.path.read_bytes())
    assert types[INPUT] == {"uint8"}
    assert types[OUTPUT] == {"float"}
    assert "half" in set().union(*types.values())
    assert not build(tmp_path, tmp_path / "m.onnx", int(form), compute_capability=target).built


@pytest.mark.slow
def test_an_fp32_plan_contains_no_fp16(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    result = build(tmp_path, weights, precision="fp32", batch=(1, 4, 8), compute_capability="SM86")
    assert (result.engine.info.precision, result.engine.info.profile) == ("fp32", (1, 4, 8))
    plan = result.engine.path.read_bytes()
    assert "half" not in set().union(*types_in(plan).values())
    assert b"tf32=0" in plan  # the builder's own record of its options
    assert b"tf32=1" not in plan


@pytest.mark.slow
def test_an_int8_plan_contains_int8_and_fp16(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp16")
    assert TensorRT.scheme is not None
    crops = synthetic_crops(112, count=64)
    quantised = quantise(graph, TensorRT.scheme, crops[:32], crops[32:], BARS["int8"].mean, reading_of(spec()))
    plan = build_plan(
        import_tensorrt("SM86"),
        quantised.model.SerializeToString(),
        profile=(1, 2, 4),
        sides=(112,) * 3,
        compute_capability="SM86",
    )
    assert plan.precision == "int8"
    types = types_in(plan.content)
    assert types[INPUT] == {"uint8"}
    assert types[OUTPUT] == {"float"}
    assert {"int8", "half"} <= set().union(*types.values())


@pytest.mark.slow
@without_gpu
@pytest.mark.parametrize("target", ["SM75", None])
def test_an_int8_plan_that_nothing_here_can_run_is_refused(tmp_path: Path, target: str | None) -> None:
    crops = CalibrationSet(synthetic_crops(112, count=64), 0)
    weights = save_cnn(tmp_path / "m.onnx")
    with raises(ConfigError, "int8", target or "default set", "--precision fp16"):
        build(tmp_path, weights, precision="int8", calibration=crops, compute_capability=target)
    assert not list((tmp_path / "engines").iterdir())


@pytest.mark.slow
def test_weights_in_int8_alone_do_not_make_an_int8_plan(tmp_path: Path) -> None:
    """Weights are stored in INT8, but the layer that reads them computes in float."""
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32")
    for node in [node for node in graph.graph.node if node.op_type == "Conv"]:
        weight = next(tensor for tensor in graph.graph.initializer if tensor.name == node.input[1])
        values = numpy_helper.to_array(weight)
        scale = np.float32(np.abs(values).max() / 127)
        stored, name = np.round(values / scale).astype(np.int8), f"{weight.name}.int8"
        graph.graph.initializer.append(numpy_helper.from_array(stored, name))
        graph.graph.initializer.append(numpy_helper.from_array(scale, f"{name}.scale"))
        graph.graph.node.insert(0, helper.make_node("DequantizeLinear", [name, f"{name}.scale"], [f"{name}.float"]))
        node.input[1] = f"{name}.float"
    plan = build_plan(
        import_tensorrt("SM86"),
        graph.SerializeToString(),
        profile=(1, 2, 4),
        sides=(112,) * 3,
        compute_capability="SM86",
    )
    assert plan.precision == "fp32"


@pytest.mark.slow
@without_gpu
def test_a_plan_for_another_gpu_records_no_parity(tmp_path: Path) -> None:
    result = build(tmp_path, save_cnn(tmp_path / "m.onnx"), compute_capability="SM75")
    assert (result.engine.info.parity.images, result.engine.info.parity.minimum) == (0, 0.0)


@pytest.mark.slow
def test_the_graph_is_proven_before_the_plan_is_built(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx", gain=1e9)  # beyond float16 in the first layer
    with raises(ParityError, "--precision fp32"):
        build(tmp_path, weights, compute_capability="SM75")
    assert not list((tmp_path / "engines").iterdir())
    assert build(tmp_path, weights, compute_capability="SM86", precision="fp32").built


@pytest.mark.slow
def test_an_unsupported_device_gets_tensorrts_message(tmp_path: Path) -> None:
    """tensorrt_rtx multiplies no matrices in fp32 on Turing."""
    with raises(EngineError, "FP32 GEMM is not supported", "--precision"):
        build(tmp_path, save_cnn(tmp_path / "m.onnx"), precision="fp32", compute_capability="SM75")


@pytest.mark.slow
def test_an_unknown_compute_capability_is_refused_with_a_list(tmp_path: Path) -> None:
    with raises(EngineError, "SM74", "SM75"):
        build(tmp_path, save_cnn(tmp_path / "m.onnx"), compute_capability="SM74")


@pytest.mark.slow
def test_a_compute_capability_alone_means_tensorrt(tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "m.onnx")
    result = build_engine(spec(), weights, output=tmp_path / "engines", compute_capability="SM75")
    assert (result.engine.info.backend, result.reason) == ("tensorrt", "there was no engine")


def graph_with(operator: str) -> bytes:
    """Make a graph with valid input and output, and one operator between them."""
    nodes = [
        helper.make_node("Cast", [INPUT], ["x"], to=TensorProto.FLOAT),
        helper.make_node(operator, ["x"], ["y"], name="the_odd_one", domain="com.example"),
        helper.make_node("Flatten", ["y"], [OUTPUT]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ["N", 112, 112, 3])],
        [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["N", 16])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())


def test_the_error_contains_the_parsers_message() -> None:
    with raises(EngineError, "Plugin not found", 1, "FancyAttention", "the_odd_one"):
        build_plan(import_tensorrt("SM75"), graph_with("FancyAttention"), profile=(1, 2, 4), sides=(112,) * 3)
    with raises(EngineError):
        build_plan(import_tensorrt("SM75"), b"no ONNX", profile=(1, 2, 4), sides=(112,) * 3)


def test_unsupported_inputs_and_outputs_are_refused(tmp_path: Path) -> None:
    raw = save_cnn(tmp_path / "m.onnx").read_bytes()
    with raises(EngineError, "image FLOAT, vector FLOAT", "images UINT8, embeddings FLOAT"):
        build_plan(import_tensorrt("SM75"), raw, profile=(1, 2, 4), sides=(112,) * 3)


def test_the_error_contains_the_builders_message(tmp_path: Path) -> None:
    graph = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp16").SerializeToString()
    with raises(EngineError, "SM75"):
        build_plan(import_tensorrt("SM75"), graph, profile=(4, 2, 1), sides=(112,) * 3, compute_capability="SM75")


@pytest.mark.slow
@without_gpu
def test_a_plan_is_not_opened_without_a_gpu(tmp_path: Path) -> None:
    engine = build(tmp_path, save_cnn(tmp_path / "m.onnx"), compute_capability="SM75").engine
    with raises((EngineError, MissingDependencyError)):
        open_runner(engine)


def test_tensorrt_has_the_attributes_that_the_runner_sets() -> None:
    assert isinstance(trt.IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy, property)
    assert "EAGER" in trt.DynamicShapesKernelSpecializationStrategy.__members__
    assert CURRENT in trt.ComputeCapability.__members__


@pytest.mark.gpu
def test_a_plan_gives_the_vectors_of_the_model(tmp_path: Path) -> None:
    if find_gpu() is None:
        pytest.skip("no NVIDIA GPU with a driver")
    generate(tmp_path / "m.onnx", form="128", seed=0)
    result = build(tmp_path, tmp_path / "m.onnx", 128)
    assert result.engine.info.parity.images == 64
    assert result.engine.info.parity.minimum >= BARS["fp16"].minimum
    with open_runner(result.engine) as runner:
        assert not runner.infer(np.zeros((3, 112, 112, 3), np.uint8)).std(axis=0).any()
