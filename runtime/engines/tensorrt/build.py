"""Build a TensorRT plan from a prepared graph, with `tensorrt` (10.x, 11.x) or `tensorrt_rtx` (1.x).

`tensorrt_rtx` compiles for a given compute capability and needs no GPU for that; `tensorrt` compiles for the GPU of
this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from ...errors import EngineError
from ...extras import pip_install
from ...graphs.tensors import INPUT, OUTPUT, OUTPUTS
from .api import tensorrt_log, version_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

CURRENT = "CURRENT"  # TensorRT-RTX's name for the GPU of this machine, which may have no other


@dataclass(frozen=True, slots=True)
class Plan:
    """A built plan.

    Attributes:
        content: the engine file.
        precision: "int8", "fp16" or "fp32": the smallest type among the layers of the network.
    """

    content: bytes
    precision: str


def build_plan(
    trt: ModuleType,
    onnx_content: bytes,
    *,
    profile: tuple[int, int, int],
    sides: tuple[int, int, int],
    output: str = OUTPUT,
    compute_capability: str | None = None,
) -> Plan:
    """Compile a graph from `prepare_graph`.

    Args:
        trt: from `import_tensorrt`.
        onnx_content: the ONNX file.
        profile: (min, opt, max) batch sizes.
        sides: smallest, usual and largest side of an image, pixels.
        output: name of the graph's output.
        compute_capability: e.g. "SM75", or CURRENT; None: this machine's GPU, or the default set of tensorrt_rtx.
    Raises:
        EngineError: TensorRT rejects the graph, the compute capability or this machine; the message has its errors.
    """

    def inspect(network: Any) -> str:
        _check_io(trt, network, output)
        return _precision(trt, network)

    shapes = [(batch, side, side, 3) for batch, side in zip(profile, sides, strict=True)]
    return Plan(*compile_network(trt, onnx_content, shapes, inspect, compute_capability))


def compile_network(
    trt: ModuleType,
    onnx_content: bytes,
    shapes: Sequence[tuple[int, ...]],
    inspect: Callable[[Any], T],
    compute_capability: str | None = None,
) -> tuple[bytes, T]:
    """Compile any graph with one input.

    Args:
        trt, onnx_content, compute_capability: see `build_plan`.
        shapes: smallest, usual and largest shape of the input.
        inspect: called with the network before the build; raises if the network is wrong.
    Returns:
        The plan, and the result of `inspect`.
    Raises:
        EngineError: TensorRT rejects the graph, the compute capability or this machine.
    """
    log = tensorrt_log(trt)
    log.take_errors()  # drop the errors of earlier work
    try:
        builder = trt.Builder(log.logger)
    except TypeError as err:  # Python's error for a factory that returns nothing
        raise EngineError(
            f"{version_of(trt)} cannot start on this machine{log.take_errors()}. A GPU and its driver are needed to "
            f"build with tensorrt; tensorrt_rtx needs none: {pip_install('rtx')}. See: facemill doctor"
        ) from err
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind since TensorRT 11
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(onnx_content):
        raise EngineError(f"{version_of(trt)} cannot parse the model's graph: {_parser_errors(parser)}")
    inspected = inspect(network)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; FP32 layers must be exact
    if compute_capability is not None:
        _set_compute_capability(trt, config, compute_capability)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{version_of(trt)} cannot build the engine for {compute_capability or 'its default'}{log.take_errors()}. "
            f"Try another --precision, --batch or --backend"
        )
    return bytes(memoryview(plan)), inspected


def check_plan(trt: ModuleType, plan: bytes) -> int:
    """Load a plan on this machine's GPU and check its inputs and outputs.

    Returns:
        Device memory of one execution context, bytes.
    Raises:
        EngineError: the plan does not load, or its inputs or outputs are wrong.
    """
    reason = invalid_here(trt, plan)
    if reason:
        raise EngineError(f"{version_of(trt)} built a plan that is invalid on this machine: {reason}")
    log = tensorrt_log(trt)
    log.take_errors()  # drop the errors of earlier work
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{version_of(trt)} built a plan that it cannot load{log.take_errors()}")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    types = {name: engine.get_tensor_dtype(name) for name in names}
    _require_types(trt, types, next((name for name in OUTPUTS.values() if name in types), OUTPUT))
    return context_bytes(engine)


def invalid_here(trt: ModuleType, plan: bytes) -> str:
    """Why TensorRT-RTX reports a plan as invalid for this machine's GPU; empty if it is valid.

    TensorRT cannot tell before it loads a plan.
    """
    if trt.__name__ != "tensorrt_rtx":
        return ""
    log = tensorrt_log(trt)
    log.take_errors()  # drop the errors of earlier work
    validity, flags = trt.Runtime(log.logger).get_engine_validity(plan)
    if validity == trt.EngineValidity.VALID:
        return ""
    reasons = [name for name, flag in trt.EngineInvalidityDiagnostics.__members__.items() if int(flags) & int(flag)]
    details = f"{', '.join(reasons) or 'no reason given'}{log.take_errors()}"
    if validity == trt.EngineValidity.SUBOPTIMAL:
        logger.info("TensorRT-RTX reports the engine as suboptimal for this GPU: %s", details)
        return ""
    return details


def context_bytes(engine: Any) -> int:
    """Device memory of one execution context, as the engine reports it, bytes."""
    size = getattr(engine, "device_memory_size_v2", None)  # from TensorRT 10.1 on
    return int(engine.device_memory_size if size is None else size)


def _set_compute_capability(trt: ModuleType, config: Any, name: str) -> None:
    capabilities = getattr(trt.ComputeCapability, "__members__", {})
    known = sorted(key for key in capabilities if key.startswith("SM"))
    if name not in (*known, CURRENT):
        raise EngineError(
            f"{version_of(trt)} does not build for compute capability {name!r}; expected: {', '.join(known)}"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capabilities[name], 0):
        raise EngineError(f"{version_of(trt)} refused the compute capability {name}")


def _check_io(trt: ModuleType, network: Any, output: str) -> None:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    _require_types(trt, {tensor.name: tensor.dtype for tensor in tensors}, output)


def _require_types(trt: ModuleType, types: dict[str, Any], output: str) -> None:
    expected = {INPUT: trt.DataType.UINT8, output: trt.DataType.FLOAT}
    if types != expected:
        raise EngineError(
            f"{version_of(trt)} built an engine with the inputs and outputs {_describe(types)}; expected: "
            f"{_describe(expected)}"
        )


def _describe(tensors: dict[str, Any]) -> str:
    return ", ".join(f"{name} {kind.name}" for name, kind in tensors.items())


def _precision(trt: ModuleType, network: Any) -> str:
    """The precision of a strongly typed network: the smallest output type of its layers, without constants."""
    layers = map(network.get_layer, range(network.num_layers))
    kinds = {layer.get_output_type(0) for layer in layers if layer.type != trt.LayerType.CONSTANT}
    precisions = {trt.DataType.INT8: "int8", trt.DataType.HALF: "fp16"}
    return next((name for kind, name in precisions.items() if kind in kinds), "fp32")


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"{error.desc()} (node {error.node()}, {error.node_operator()} {error.node_name()!r})" for error in errors
    )
