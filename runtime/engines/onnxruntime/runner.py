"""Run an ONNX engine with ONNX Runtime, on the CPU or on an NVIDIA GPU."""

from __future__ import annotations

import functools
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import EngineError, Interrupted, OutOfMemoryError
from ...extras import require
from ...graphs.tensors import INPUT
from ..engine import EngineInfo
from ..inputs import check_images, output_of

_OUT_OF_MEMORY = ("failed to allocate memory", "out of memory", "bad_alloc", "bad allocation")


class OrtRunner:
    """A Runner on ONNX Runtime; several threads may call `infer` at once.

    Attributes:
        info: the engine's sidecar.
    """

    def __init__(self, engine: bytes, info: EngineInfo, *, threads: int = 0) -> None:
        """Load an ONNX engine.

        Args:
            engine: content of the engine file.
            info: its sidecar; the backend determines the execution provider.
            threads: threads of one `infer`; 0: one per core. With 1 the calling thread does the work.
        Raises:
            EngineError: ONNX Runtime cannot load the file or lacks the execution provider.
        """
        ort = require("onnxruntime")
        self.info = info
        self._device = "cuda" if info.backend == "cuda" else "cpu"
        provider = "CUDAExecutionProvider" if info.backend == "cuda" else "CPUExecutionProvider"
        if provider not in ort.get_available_providers():
            raise EngineError(
                f"the engine for backend {info.backend!r} needs {provider}, which the installed onnxruntime "
                f"{ort.__version__} lacks (it has {', '.join(ort.get_available_providers())}). "
                f"Install it with: pip install onnxruntime-gpu, or use --backend cpu"
            )
        try:
            self._session = open_session(engine, provider, threads)
        except Interrupted:  # raised by a signal, wherever the program is
            raise
        except Exception as err:  # ONNX Runtime's errors share no base class
            raise _translate(err, f"ONNX Runtime cannot load the engine of {info.model}") from err
        if self._session.get_providers()[0] != provider:
            raise EngineError(
                f"ONNX Runtime could not start {provider} and fell back to {self._session.get_providers()[0]}: "
                f"its CUDA or cuDNN libraries do not load. See: facemill doctor; or use --backend cpu"
            )

    def infer(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed one batch, see `Runner.infer`."""
        check_images(images, self.info)
        ort = require("onnxruntime")
        try:
            binding = self._session.io_binding()
            binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(images, self._device, 0))
            binding.bind_output(output_of(self.info), self._device, 0)
            self._session.run_with_iobinding(binding)
            output: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        except Interrupted:  # raised by a signal, wherever the program is
            raise
        except Exception as err:  # ONNX Runtime's errors share no base class
            raise _translate(err, f"a batch of {len(images)} failed on {self.info.model}") from err
        return output

    def infer_s(self, images: NDArray[np.uint8]) -> float:
        """Time one batch, see `Runner.infer_s`."""
        start = time.perf_counter()
        self.infer(images)
        return time.perf_counter() - start

    def __enter__(self) -> OrtRunner:
        return self

    def __exit__(self, *exc: object) -> None:
        """Release the session. Its memory is freed when no `infer` is running."""
        del self._session


def open_session(content: bytes, provider: str = "CPUExecutionProvider", threads: int = 0) -> Any:
    """Open an ONNX Runtime session that computes the graph exactly, in INT8 too.

    Args:
        content: the ONNX file.
        provider: the execution provider.
        threads: threads of one run; 0: one per core. With 1 the calling thread does the work.
    Raises:
        Exception: an error of ONNX Runtime, which share no base class; it cannot load the graph.
    """
    ort = require("onnxruntime")
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors only, because warnings would bypass our logging
    options.intra_op_num_threads = threads
    if threads == 1:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _saturates():
        options.add_session_config_entry("session.x64quantprecision", "1")
    # That optimizer quantises weights with one scale per tensor that our quantiser left in float on purpose.
    return ort.InferenceSession(content, options, providers=[provider], disabled_optimizers=["WeightBiasQuantization"])


@functools.cache
def _saturates() -> bool:
    """Whether the fast product of uint8 and int8 overflows on this processor: x86 without VNNI."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True


def _translate(err: Exception, what: str) -> EngineError:
    """Turn an error of ONNX Runtime into one of facemill, with its text."""
    text = str(err)
    if isinstance(err, MemoryError) or any(message in text.lower() for message in _OUT_OF_MEMORY):
        return OutOfMemoryError(f"{what}: out of memory ({text}). Use a smaller --batch-size")
    return EngineError(f"{what}: {type(err).__name__}: {text}")
