"""A prepared graph to a TensorRT plan, through `tensorrt` (10.x, 11.x) or `tensorrt_rtx` (1.x) alike.

`tensorrt_rtx` compiles for a compute capability that it is told and needs no GPU for that; `tensorrt` compiles for the
GPU of this machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

from ...errors import EngineError
from ...extras import pip_install
from ...graphs.tensors import FACES, INPUT, OUTPUT
from .api import tensorrt_log, version_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

CURRENT = "CURRENT"  # TensorRT-RTX's word for this machine's GPU, which need not have a name there


@dataclass(frozen=True, slots=True)
class Plan:
    """A built plan.

    Attributes:
        content: the engine file.
        precision: "int8", "fp16" or "fp32": the smallest type that the network's layers hold.
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
    """Compile a graph that `prepare_graph` made.

    Args:
        trt: from `import_tensorrt`.
        onnx_content: the ONNX file.
        profile: (min, opt, max) batch sizes.
        sides: smallest, usual and largest side of a picture, pixels.
        output: name of the graph's output.
        compute_capability: e.g. "SM75", or CURRENT; None: this machine's GPU, or tensorrt_rtx's own default set.
    Raises:
        EngineError: it refuses the graph, the compute capability or this machine; its own words are in the message.
    """

    def look(network: Any) -> str:
        _check_io(trt, network, output)
        return _precision(trt, network)

    shapes = [(batch, side, side, 3) for batch, side in zip(profile, sides, strict=True)]
    return Plan(*compile_network(trt, onnx_content, shapes, look, compute_capability))


def compile_network(
    trt: ModuleType,
    onnx_content: bytes,
    shapes: Sequence[tuple[int, ...]],
    look: Callable[[Any], T],
    compute_capability: str | None = None,
) -> tuple[bytes, T]:
    """Compile any graph with one input.

    Args:
        trt, onnx_content, compute_capability: as for `build_plan`.
        shapes: of the input: smallest, usual, largest.
        look: called with the network before it is built; raises if it is not what was expected.
    Returns:
        The plan, and what `look` found.
    Raises:
        EngineError: as `build_plan` does.
    """
    log = tensorrt_log(trt)
    log.words()  # forget those of earlier work
    try:
        builder = trt.Builder(log.logger)
    except TypeError as err:  # what a factory that returns nothing looks like from Python
        raise EngineError(
            f"{version_of(trt)} cannot start on this machine{log.words()}. A GPU and its driver are needed to build "
            f"with tensorrt; tensorrt_rtx needs none: {pip_install('rtx')}. See: facemill doctor"
        ) from err
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)  # the only kind from TensorRT 11 on
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, log.logger)
    if not parser.parse(onnx_content):
        raise EngineError(f"{version_of(trt)} cannot parse the model's graph: {_parser_words(parser)}")
    found = look(network)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; what is FP32 here is so to be exact
    if compute_capability is not None:
        _set_compute_capability(trt, config, compute_capability)
    profile = builder.create_optimization_profile()
    profile.set_shape(network.get_input(0).name, *shapes)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(
            f"{version_of(trt)} cannot build the engine for {compute_capability or 'its default'}{log.words()}. "
            f"Try another --precision, --batch or --backend"
        )
    return bytes(memoryview(plan)), found


def check_plan(trt: ModuleType, plan: bytes) -> int:
    """Load a plan on this machine's GPU and read its inputs and outputs back.

    Returns:
        Bytes of device memory that one execution context of it takes.
    Raises:
        EngineError: it does not load, or they are not what was asked for.
    """
    reason = invalid_here(trt, plan)
    if reason:
        raise EngineError(f"{version_of(trt)} built a plan and calls it invalid here: {reason}")
    log = tensorrt_log(trt)
    log.words()  # forget those of earlier work
    engine = trt.Runtime(log.logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{version_of(trt)} built a plan that it cannot load{log.words()}")
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    types = {name: engine.get_tensor_dtype(name) for name in names}
    _require_types(trt, types, FACES if FACES in types else OUTPUT)
    return context_bytes(engine)


def invalid_here(trt: ModuleType, plan: bytes) -> str:
    """Why TensorRT-RTX calls a plan invalid for this machine's GPU; empty when it does not.

    TensorRT gives no verdict before it loads a plan.
    """
    if trt.__name__ != "tensorrt_rtx":
        return ""
    log = tensorrt_log(trt)
    log.words()  # forget those of earlier work
    validity, flags = trt.Runtime(log.logger).get_engine_validity(plan)
    if validity == trt.EngineValidity.VALID:
        return ""
    reasons = [name for name, flag in trt.EngineInvalidityDiagnostics.__members__.items() if int(flags) & int(flag)]
    words = f"{', '.join(reasons) or 'no reason given'}{log.words()}"
    if validity == trt.EngineValidity.SUBOPTIMAL:
        logger.info("TensorRT-RTX calls the engine suboptimal for this GPU: %s", words)
        return ""
    return words


def context_bytes(engine: Any) -> int:
    """Device memory of one execution context, by the engine's own word."""
    size = getattr(engine, "device_memory_size_v2", None)  # from TensorRT 10.1 on
    return int(engine.device_memory_size if size is None else size)


def _set_compute_capability(trt: ModuleType, config: Any, name: str) -> None:
    capabilities = getattr(trt.ComputeCapability, "__members__", {})
    known = sorted(key for key in capabilities if key.startswith("SM"))
    if name not in (*known, CURRENT):
        raise EngineError(
            f"{version_of(trt)} does not build for compute capability {name!r}; it knows: {', '.join(known)}"
        )
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(capabilities[name], 0):
        raise EngineError(f"{version_of(trt)} refused the compute capability {name}")


def _check_io(trt: ModuleType, network: Any, output: str) -> None:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    tensors += [network.get_output(i) for i in range(network.num_outputs)]
    _require_types(trt, {tensor.name: tensor.dtype for tensor in tensors}, output)


def _require_types(trt: ModuleType, found: dict[str, Any], output: str) -> None:
    expected = {INPUT: trt.DataType.UINT8, output: trt.DataType.FLOAT}
    if found != expected:
        raise EngineError(
            f"{version_of(trt)} made an engine with the inputs and outputs {_types(found)}; expected: "
            f"{_types(expected)}"
        )


def _types(tensors: dict[str, Any]) -> str:
    return ", ".join(f"{name} {kind.name}" for name, kind in tensors.items())


def _precision(trt: ModuleType, network: Any) -> str:
    """A strongly typed network is built as it is typed: its layers but constants say what it computes in."""
    layers = map(network.get_layer, range(network.num_layers))
    kinds = {layer.get_output_type(0) for layer in layers if layer.type != trt.LayerType.CONSTANT}
    named = {trt.DataType.INT8: "int8", trt.DataType.HALF: "fp16"}
    return next((name for kind, name in named.items() if kind in kinds), "fp32")


def _parser_words(parser: Any) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    return "; ".join(
        f"{error.desc()} (node {error.node()}, {error.node_operator()} {error.node_name()!r})" for error in errors
    )
