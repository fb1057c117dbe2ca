"""A stand-in for TensorRT on the CPU: an "engine" is an ONNX file, and device memory is the shim driver's.

It tests the code around TensorRT (slots, streams, buffers, failures) on a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import enum
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from runtime.engines.tensorrt.slot import Slot
from runtime.pipeline.gpu_embed import DeviceCrops
from runtime.pipeline.gpu_fill import Shrink

SIDES = (32, 1024)  # pixels, smallest and largest side of a detector's images
KINDS = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity


class Context:
    """Run one shape at a time on bare addresses."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        if len(self.engine.session.get_inputs()[0].shape) == 4 and shape[1:3] != (112, 112):  # the engine is a detector
            return all(SIDES[0] <= side <= SIDES[-1] for side in shape[1:3])
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self.engine
        engine.shapes.append(self.shape)
        if len(engine.shapes) in engine.refusals:
            engine.logger.log(Severity.ERROR, engine.refusals[len(engine.shapes)])
            return False
        (source,), (target,) = engine.session.get_inputs(), engine.session.get_outputs()
        images = memory(self.addresses[source.name], self.shape, KINDS[source.type])
        (rows,) = engine.session.run([target.name], {source.name: images})
        memory(self.addresses[target.name], rows.shape, KINDS[target.type])[:] = rows
        return True


class Strategy(enum.Enum):
    LAZY = 0
    EAGER = 1


class RuntimeCache:
    def deserialize(self, content: bytes) -> bool:
        return True

    def serialize(self) -> bytes:
        return b"kernels"


class RuntimeConfig:
    """The runtime configuration, which only tensorrt_rtx has."""

    __slots__ = ("dynamic_shapes_kernel_specialization_strategy",)  # the real class allows no other attribute either

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> None:
        pass


class Engine:
    """An ONNX engine.

    Attributes:
        configs: configurations that contexts were created with.
        shapes: shapes of all batches, in order.
        refusals: number of a batch, counted from 1 -> TensorRT's message for refusing it.
    """

    device_memory_size_v2 = 1000

    def __init__(self, content: bytes, logger: Any) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # other threads would spin between the batches
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.logger = logger
        self.shapes: list[tuple[int, ...]] = []
        self.refusals: dict[int, str] = {}
        self.configs: list[RuntimeConfig] = []

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, *config: RuntimeConfig) -> Context:
        self.configs.extend(config)
        return Context(self)


def memory(address: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """The array at an address."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_byte * count).from_address(address), dtype).reshape(shape)


class Runtime:
    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
        try:
            return Engine(content, self.logger)
        except Exception as err:
            self.logger.log(Severity.ERROR, f"no engine: {type(err).__name__}")
            return None


class ShimCrops(DeviceCrops):
    """DALI's CPU graph writes to the shim's device memory and has no streams."""

    def __init__(self, slot: Slot, shrink: Shrink) -> None:
        super().__init__(slot, shrink)
        self.stream = None


def tensorrt_module(name: str = "tensorrt") -> ModuleType:
    """Make the module that `import tensorrt` or `import tensorrt_rtx` would give."""
    module = ModuleType(name)
    module.__dict__.update(__version__="shim", ILogger=ILogger, Runtime=Runtime)
    if name == "tensorrt_rtx":
        module.__dict__.update(DynamicShapesKernelSpecializationStrategy=Strategy)
    return module
