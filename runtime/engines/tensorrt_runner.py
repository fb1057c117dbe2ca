"""TensorRT: the backend `tensorrt`, through `tensorrt` or `tensorrt_rtx`, whichever built the engine."""

from __future__ import annotations

import queue
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, OutOfMemoryError
from ..extras import require
from .build_tensorrt import tensorrt_log
from .inputs import INPUT, OUTPUT, check_images
from .sidecar import EngineInfo

_SLOTS = 2  # calls on the GPU at once: one copies while the other computes


class TensorRTRunner:
    """A Runner on TensorRT; `infer` may be called from several threads at once, `_SLOTS` of which run.

    Attributes:
        info: the engine's sidecar.
    """

    def __init__(self, engine: bytes, info: EngineInfo) -> None:
        """Load a plan.

        Args:
            engine: content of the plan file.
            info: its sidecar.
        Raises:
            MissingDependencyError: the TensorRT that built it, or CuPy, is not installed.
            EngineError: it does not load on this machine.
            OutOfMemoryError: the GPU has no room for it.
        """
        module = info.backend_version.split(" ")[0]
        trt = require(module, extra="rtx" if module == "tensorrt_rtx" else "gpu")
        cupy = require("cupy", extra="gpu", purpose="device memory for TensorRT")
        self.info = info
        self._log = tensorrt_log(trt)
        self._runtime = trt.Runtime(self._log.logger)  # has to outlive the engine
        self._engine = self._runtime.deserialize_cuda_engine(engine)
        if self._engine is None:
            raise EngineError(
                f"{module} {trt.__version__} cannot load the engine of {info.model}, built by {info.backend_version} "
                f"for {info.device}{self._log.words()}. Build it on this machine with: facemill build-engine --model "
                f"{info.model} --backend tensorrt"
            )
        self._slots: queue.SimpleQueue[_Slot] = queue.SimpleQueue()
        try:
            for _ in range(_SLOTS):
                self._slots.put(_Slot(cupy, self._engine, info))
        except MemoryError as err:  # CuPy's own inherits it
            raise OutOfMemoryError(
                f"the GPU has no room for the engine of {info.model}: {err}. "
                f"Build it with a smaller --batch MIN,OPT,MAX"
            ) from err

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed one batch: see Runner.infer."""
        check_images(images, self.info)
        slot = self._slots.get()
        try:
            embeddings = slot.infer(images)
        except MemoryError as err:
            raise OutOfMemoryError(
                f"a batch of {len(images)} did not fit on the GPU: {err}. Use a smaller --batch-size"
            ) from err
        finally:
            self._slots.put(slot)
        if embeddings is None:
            raise EngineError(f"TensorRT failed on a batch of {len(images)} of {self.info.model}{self._log.words()}")
        return embeddings

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of the contexts, then of the engine that they belong to."""
        for _ in range(_SLOTS):
            self._slots.get()  # waits for the calls under way
        del self._engine, self._runtime


class _Slot:
    """What one call at a time owns: an execution context, a stream, and device memory for the largest batch."""

    def __init__(self, cupy: Any, engine: Any, info: EngineInfo) -> None:
        largest = info.profile[2]
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self._d_images = cupy.empty((largest, info.size, info.size, 3), np.uint8)
        self._d_embeddings = cupy.empty((largest, info.dimension), np.float32)
        self._context = engine.create_execution_context()
        if self._context is None:
            raise MemoryError("TensorRT could not create an execution context")
        self._context.set_tensor_address(INPUT, self._d_images.data.ptr)
        self._context.set_tensor_address(OUTPUT, self._d_embeddings.data.ptr)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        """(n, D) float32, or None if TensorRT refused."""
        n = len(images)
        self._d_images[:n].set(images, stream=self._stream)
        started = self._context.set_input_shape(INPUT, images.shape)
        started = started and self._context.execute_async_v3(self._stream.ptr)
        embeddings = np.empty((n, self._d_embeddings.shape[1]), np.float32)
        if started:
            self._d_embeddings[:n].get(stream=self._stream, out=embeddings)
        self._stream.synchronize()  # nobody touches the buffers of this slot while the GPU does
        return embeddings if started else None
