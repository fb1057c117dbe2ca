"""TensorRT: the backend `tensorrt`, through `tensorrt` or `tensorrt_rtx`, whichever built the engine."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...cuda.driver import Driver, open_driver
from ...errors import EngineError, OutOfMemoryError
from ...extras import require
from ..engine import EngineInfo
from ..inputs import check_images
from .api import tensorrt_log, version_of
from .build import context_bytes
from .cache import RtxCache
from .memory import plan_device
from .slot import Slot

logger = logging.getLogger(__name__)

SLOTS = 2  # one copies while the other computes
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "memory allocation")


class TensorRTRunner:
    """A Runner on TensorRT; `infer` may be called from several threads at once, and as many run as there are slots.

    Attributes:
        info: the engine's sidecar.
        driver: the GPU; current on a thread in `with runner.slot()`.
        plan: who gets how much of its memory.
    """

    def __init__(
        self,
        engine: bytes,
        info: EngineInfo,
        *,
        slots: int = SLOTS,
        decoder_bytes: int = 0,
        detector_bytes: int = 0,
        cache: Path | None = None,
        driver: Driver | None = None,
        trt: ModuleType | None = None,
    ) -> None:
        """Load a plan.

        Args:
            engine: content of the plan file.
            info: its sidecar.
            slots: batches in flight; fewer if the GPU has no room for more.
            decoder_bytes, detector_bytes: device memory that a decoder, and a detector, beside each slot will take.
            cache: where TensorRT-RTX keeps what it compiles.
            driver, trt: None for those of this machine.
        Raises:
            MissingDependencyError: the TensorRT that built it, or CuPy, is not installed.
            EngineError: it does not load on this machine.
            OutOfMemoryError: the GPU has no room for it.
        """
        module = info.backend_version.split(" ")[0]
        trt = trt or require(module, extra="rtx" if module == "tensorrt_rtx" else "tensorrt")
        self.info = info
        self.driver = driver or open_driver()
        self._log = tensorrt_log(trt)
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._cache: RtxCache | None = None
        with self.driver, ExitStack() as stack:
            self._log.words()  # forget those of earlier work
            memory = self.driver.memory()  # before the weights are there: the plan counts them
            self._runtime = trt.Runtime(self._log.logger)  # has to outlive the engine
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise self._error(
                    f"{version_of(trt)} cannot load the engine of {info.model}, built by {info.backend_version} for "
                    f"{info.device}",
                    f"Build it on this machine with: facemill build-engine --model {info.model} --backend tensorrt",
                )
            self.plan = plan_device(
                info,
                slots=slots,
                weights=len(engine),
                context=context_bytes(self._engine),
                decoder=decoder_bytes,
                detector=detector_bytes,
                memory=memory,
            )
            logger.info("%s", self.plan)
            config = self._configure(trt, cache)
            for _ in range(self.plan.slots):
                context = self._engine.create_execution_context(*([] if config is None else [config]))
                if context is None:
                    raise self._error(
                        f"TensorRT could not create an execution context for {info.model}",
                        "Build the engine with a smaller --batch MIN,OPT,MAX",
                    )
                slot = Slot(self.driver, context, info)
                self._slots.put(stack.enter_context(slot))
            self._stack = stack.pop_all()

    def _configure(self, trt: ModuleType, cache: Path | None) -> Any:
        """How TensorRT-RTX compiles kernels, and the cache of them; None for TensorRT, which did when it built."""
        if trt.__name__ != "tensorrt_rtx":
            return None
        config = self._engine.create_runtime_config()
        self._cache = RtxCache(config, cache)
        # By default other kernels serve a batch size until its own are compiled in the background: rows would depend
        # on when that was, tuning would measure the wrong kernels, and compiling would take cores from decoding.
        # A detector's pictures have dozens of shapes, of which few come again: nobody waits for kernels of each.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        wanted = strategies.LAZY if self.info.detects else strategies.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = wanted
        return config

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """A slot that no other thread uses, with the driver current on this one; waits for a free one.

        Raises:
            OutOfMemoryError, EngineError: TensorRT failed within; the slot stays usable.
        """
        slot = self._slots.get()
        try:
            with self.driver:
                try:
                    yield slot
                except BaseException as err:
                    slot.stream.synchronize()  # nobody else gets buffers that the GPU still uses
                    if isinstance(err, EngineError) and not isinstance(err, OutOfMemoryError):
                        raise self._error(str(err), "See: facemill doctor") from err
                    raise
        finally:
            self._slots.put(slot)

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed one batch: see Runner.infer."""
        check_images(images, self.info)
        with self.slot() as slot:
            slot.fill(0, images)
            slot.start(len(images))
            return slot.finish(len(images))[0]

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Run one batch: see Runner.infer_s."""
        check_images(images, self.info)
        with self.slot() as slot:
            slot.fill(0, images)
            slot.start(len(images))
            return slot.finish(len(images))[1]

    def _error(self, what: str, next_step: str) -> EngineError:
        """With TensorRT's own words; an OutOfMemoryError if they say so."""
        words = self._log.words()
        kind = OutOfMemoryError if any(word in words.lower() for word in _OUT_OF_MEMORY) else EngineError
        return kind(f"{what}{words}. {next_step}")

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        """Let go of the slots, then of the engine that their contexts belong to."""
        for _ in range(self.plan.slots):
            self._slots.get()  # waits for the batches under way
        with self.driver:
            if self._cache is not None:
                self._cache.keep()
            self._stack.close()
            self._cache = None
            del self._engine, self._runtime
