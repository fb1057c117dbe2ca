"""Run a TensorRT plan, with the package that built it: `tensorrt` or `tensorrt_rtx`."""

from __future__ import annotations

import logging
import queue
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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

SLOTS = 2  # one slot copies while the other computes
_OUT_OF_MEMORY = ("out of memory", "outofmemory", "memory allocation")


class TensorRTRunner:
    """A Runner on TensorRT. Several threads may call `infer` at once; as many run as there are slots.

    Attributes:
        info: the engine's sidecar.
        driver: the GPU, current on a thread inside `with runner.slot()`.
        plan: the memory plan of the GPU.
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
            slots: batches in flight; fewer if the GPU has too little memory.
            decoder_bytes, detector_bytes: device memory of a decoder and a detector for each slot.
            cache: file for the kernels that TensorRT-RTX compiles; None: no file.
            driver, trt: driver and TensorRT package; None for those of this machine.
        Raises:
            MissingDependencyError: the TensorRT package that built the plan, or CuPy, is not installed.
            EngineError: the plan does not load on this machine.
            OutOfMemoryError: the GPU has too little memory.
        """
        module = info.backend_version.split(" ")[0]
        trt = trt or require(module, extra="rtx" if module == "tensorrt_rtx" else "tensorrt")
        self.info = info
        self.driver = driver or open_driver()
        self._log = tensorrt_log(trt)
        self._slots: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        self._cache: RtxCache | None = None
        with self.driver, ExitStack() as stack:
            self._log.take_errors()  # drop the errors of earlier work
            memory = self.driver.memory()  # before the weights are loaded, because the plan counts them
            self._runtime = trt.Runtime(self._log.logger)  # must outlive the engine
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
            self._configs: list[Any] = []  # TensorRT does not keep them, and a context uses its own until its end
            for _ in range(self.plan.slots):
                context = self._engine.create_execution_context(*self._configure(trt, cache))
                if context is None:
                    raise self._error(
                        f"TensorRT could not create an execution context for {info.model}",
                        "Build the engine with a smaller --batch MIN,OPT,MAX",
                    )
                slot = Slot(self.driver, context, info)
                self._slots.put(stack.enter_context(slot))
            self._stack = stack.pop_all()

    def _configure(self, trt: ModuleType, cache: Path | None) -> list[Any]:
        """The configuration of the next context: how TensorRT-RTX compiles kernels; none for TensorRT.

        All contexts share one cache of kernels.
        """
        if trt.__name__ != "tensorrt_rtx":
            return []
        config = self._engine.create_runtime_config()
        if self._cache is None:
            self._cache = RtxCache(config, cache)
        self._cache.use_in(config)
        # By default generic kernels run a batch size until its own are compiled in the background. Then rows would
        # depend on timing, tuning would measure the wrong kernels, and compiling would take cores from decoding.
        # A detector's images have dozens of shapes that rarely repeat, so waiting for kernels of each is not worth it.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        strategy = strategies.LAZY if self.info.detects else strategies.EAGER
        config.dynamic_shapes_kernel_specialization_strategy = strategy
        self._configs.append(config)
        return [config]

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """Take a slot for this thread, with the driver current. Waits for a free slot.

        Raises:
            OutOfMemoryError, EngineError: TensorRT failed inside the block; the slot stays usable.
        """
        slot = self._slots.get()
        try:
            with self.driver:
                try:
                    yield slot
                except BaseException as err:
                    with suppress(EngineError):  # after some errors every call fails; the first one says why
                        slot.stream.synchronize()  # no other thread may get buffers that the GPU still uses
                    if isinstance(err, EngineError) and not isinstance(err, OutOfMemoryError):
                        raise self._error(err.message, "See: facemill doctor") from err
                    raise
        finally:
            self._slots.put(slot)

    def keep_kernels(self) -> None:
        """Write the kernels that TensorRT-RTX has compiled to the cache file, so that a killed run need not again."""
        if self._cache is not None:
            self._cache.save()

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed one batch, see `Runner.infer`."""
        check_images(images, self.info)
        with self.slot() as slot:
            slot.fill(0, images)
            slot.start(len(images))
            return slot.finish(len(images))[0]

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Time one batch, see `Runner.infer_s`."""
        check_images(images, self.info)
        with self.slot() as slot:
            slot.fill(0, images)
            slot.start(len(images))
            return slot.finish(len(images))[1]

    def _error(self, what: str, next_step: str) -> EngineError:
        """Make an error with TensorRT's own errors; an OutOfMemoryError if they report that."""
        errors = self._log.take_errors()
        kind = OutOfMemoryError if any(message in errors.lower() for message in _OUT_OF_MEMORY) else EngineError
        return kind(f"{what}{errors}. {next_step}")

    def __enter__(self) -> TensorRTRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        """Release the slots, then the engine of their contexts."""
        for _ in range(self.plan.slots):
            self._slots.get()  # waits for running batches
        with self.driver:
            self.keep_kernels()
            self._stack.__exit__(*exc)  # type: ignore[arg-type]
            self._configs.clear()
            self._cache = None
            del self._engine, self._runtime
