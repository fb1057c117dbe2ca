"""A stand-in for TensorRT on the CPU: an "engine" is an ONNX file, and device memory is the shim driver's.

It tests the code around TensorRT (slots, streams, buffers, failures) on a machine without a GPU.
"""

from __future__ import annotations

import ctypes
import enum
import math
import threading
import weakref
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from tests.support.cuda_stand_in import ALIGNMENT, LateStream, Misuse, ShimDriver, own_span

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
    """Run one shape at a time on bare addresses, late: when something waits for the stream."""

    def __init__(self, engine: Engine, config: RuntimeConfig | None) -> None:
        self.engine = engine
        self.addresses: dict[str, int] = {}
        self.shape: tuple[int, ...] = ()
        self._config = None if config is None else weakref.ref(config)  # TensorRT does not keep it either
        self._flight: tuple[int, LateStream, int] | None = None  # thread, stream and number of the latest batch

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._check_thread()
        self.addresses[name] = address
        return address % ALIGNMENT == 0

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._check_thread()
        self.shape = shape
        if len(self.engine.session.get_inputs()[0].shape) == 4 and shape[1:3] != (112, 112):  # the engine is a detector
            return all(SIDES[0] <= side <= SIDES[-1] for side in shape[1:3])
        low, high = self.engine.batches
        return low <= shape[0] <= high

    def execute_async_v3(self, address: int) -> bool:
        self._check_thread()
        engine = self.engine
        if self._config is not None and self._config() is None:
            raise Misuse("a context runs whose configuration was freed")
        stream = ShimDriver.streams.get(address)
        if stream is None:
            raise Misuse(f"execute_async_v3 on {address:#x}, which is no stream")
        engine.shapes.append(self.shape)
        engine.contexts.append(id(self))
        if len(engine.shapes) in engine.refusals:
            engine.logger.log(Severity.ERROR, engine.refusals[len(engine.shapes)])
            return False
        (source,), (target,) = engine.session.get_inputs(), engine.session.get_outputs()
        shape, kinds, own = self.shape, (KINDS[source.type], KINDS[target.type]), stream.own
        read, written = self.addresses[source.name], self.addresses[target.name]
        nbytes = math.prod(shape) * np.dtype(kinds[0]).itemsize

        def work() -> None:
            own.need(own.live, read, nbytes, "the input of an engine")
            (rows,) = engine.session.run([target.name], {source.name: memory(read, shape, kinds[0])})
            own.need(own.live, written, rows.nbytes, "the output of an engine")
            memory(written, rows.shape, kinds[1])[:] = rows

        stream.add(work, (read, nbytes, "an engine", False), (*own_span(own, written), "an engine", True))
        self._flight = (threading.get_ident(), stream, stream.asked)
        return True

    def _check_thread(self) -> None:
        if self._flight is not None:
            thread, stream, number = self._flight
            if thread != threading.get_ident() and stream.done < number:
                raise Misuse("two threads use one context at the same time")


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

    # The real class allows no other attribute either.
    __slots__ = ("__weakref__", "dynamic_shapes_kernel_specialization_strategy")

    def create_runtime_cache(self) -> RuntimeCache:
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        return True


class Engine:
    """An ONNX engine.

    Attributes:
        strategies: of the configurations that contexts were created with.
        shapes, contexts: shape of each batch, in order, and the context that ran it.
        batches: smallest and largest batch of the profile.
        refusals: number of a batch, counted from 1 -> TensorRT's message for refusing it.
    """

    device_memory_size_v2 = 1000

    def __init__(self, content: bytes, logger: Any) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1  # other threads would spin between the batches
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.logger = logger
        self.shapes: list[tuple[int, ...]] = []
        self.contexts: list[int] = []
        self.batches = (1, 512)
        self.refusals: dict[int, str] = {}
        self.strategies: list[Strategy] = []

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, *config: RuntimeConfig) -> Context:
        self.strategies += [each.dynamic_shapes_kernel_specialization_strategy for each in config]
        return Context(self, config[0] if config else None)


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


def tensorrt_module(name: str = "tensorrt") -> ModuleType:
    """Make the module that `import tensorrt` or `import tensorrt_rtx` would give."""
    module = ModuleType(name)
    module.__dict__.update(__version__="shim", ILogger=ILogger, Runtime=Runtime)
    if name == "tensorrt_rtx":
        module.__dict__.update(DynamicShapesKernelSpecializationStrategy=Strategy)
    return module
