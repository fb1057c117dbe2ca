"""ONNX Runtime as two backends: `cpu` and `cuda`. An engine is an ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...extras import require
from ...graphs.qdq import CLIPPING, PASSING, WEIGHTED, Scheme
from ..backend import BuildJob, Fault, Profile, Prove
from ..engine import Engine, EngineInfo

if TYPE_CHECKING:
    import onnx

    from .runner import OrtRunner


class OnnxRuntimeCpu:
    """ONNX Runtime on the CPU; see `Backend`."""

    name = "cpu"
    title = "ONNX Runtime"
    suffix = "onnx"
    on_gpu = False
    keeps_photos = False
    names_targets = False
    requires: tuple[tuple[str, ...], ...] = (("onnxruntime",),)
    extra = ""
    usual_precision = "fp32"
    refusals: Mapping[str, str] = {
        "fp16": "ONNX Runtime computes in fp32 there, so it would only be slower and less exact. Use --precision fp32"
    }
    # ONNX Runtime fuses DQ, operator and Q into one integer operator. A Relu or Clip before the Q goes into its range.
    scheme: Scheme | None = Scheme(
        (*WEIGHTED, "Add", *CLIPPING, *PASSING), symmetric=False, inputs_only=False, rest="fp32"
    )

    def profile(self, task: str) -> Profile:
        return 1, 8, 256

    def find_fault(self) -> Fault | None:
        return None

    def version(self, compute_capability: str | None = None) -> str:
        return f"onnxruntime {require('onnxruntime').__version__}"

    def device(self, compute_capability: str | None = None) -> str:
        return self.name

    def adapt(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        from ...graphs.prelu import replace_prelu

        return replace_prelu(graph)

    def build(self, job: BuildJob, graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
        from ...graphs.graph import simplify

        if job.precision != "int8":  # ONNX Runtime fuses Q/DQ for the processor, when it loads the file
            graph = simplify(graph, f"the graph made from {job.weights}", extended=True)
        return _prove(graph, info, prove)

    def open(self, content: bytes, info: EngineInfo, *, threads: int = 0, path: Path | None = None) -> OrtRunner:
        from .runner import OrtRunner

        return OrtRunner(content, info, threads=threads)

    def why_stale(self, engine: Engine) -> str:
        return ""


class OnnxRuntimeCuda(OnnxRuntimeCpu):
    """ONNX Runtime on an NVIDIA GPU; see `Backend`."""

    name = "cuda"
    title = "ONNX Runtime with CUDA"
    on_gpu = True
    usual_precision = "fp16"
    refusals: Mapping[str, str] = {
        "int8": "ONNX Runtime has no INT8 convolutions on a GPU. Use --backend tensorrt or cpu"
    }
    scheme: Scheme | None = None

    def profile(self, task: str) -> Profile:
        return (1, 16, 32) if task == "detect" else (1, 256, 512)

    def find_fault(self) -> Fault | None:
        if "CUDAExecutionProvider" in require("onnxruntime").get_available_providers():
            return None
        return Fault(
            "the installed onnxruntime has no CUDAExecutionProvider",
            "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        )

    def adapt(self, graph: onnx.ModelProto) -> onnx.ModelProto:
        return graph

    def build(self, job: BuildJob, graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
        # Not simplified: ONNX Runtime fuses for its provider when it loads the file.
        return _prove(graph, info, prove)


def _prove(graph: onnx.ModelProto, info: EngineInfo, prove: Prove) -> tuple[bytes, EngineInfo]:
    from ...graphs.half import precision_of

    content = graph.SerializeToString(deterministic=True)
    return content, prove(content, replace(info, precision=precision_of(graph)))
