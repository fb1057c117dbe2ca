"""NVRTC compiles each kernel to PTX for every supported GPU, on a machine without a GPU."""

from __future__ import annotations

import re

import pytest

from runtime.cuda.kernels import kernel_source

pytest.importorskip("cupy", reason="cupy is not installed", exc_type=ImportError)
from cupy.cuda import nvrtc

try:
    nvrtc.getVersion()
except (RuntimeError, OSError) as err:
    pytest.skip(f"NVRTC is not installed: {err}", allow_module_level=True)


KERNELS = ("align", "preprocess")


def compile_ptx(source: str, target: int) -> str:
    program = nvrtc.createProgram(source, "kernel.cu", [], [])
    try:
        nvrtc.compileProgram(program, [f"--gpu-architecture=compute_{target}", "--std=c++14"])
        ptx: bytes = nvrtc.getPTX(program)
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)
    return ptx.decode()


@pytest.mark.parametrize("target", [75, 80, 90, 120])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_compiles_to_ptx(name: str, target: int) -> None:
    ptx = compile_ptx(kernel_source(name), target)
    assert f".target sm_{target}" in ptx
    assert set(re.findall(r"\.visible \.entry (\w+)\(", ptx)) == {f"{name}_u8"}
    assert ".f64" not in ptx  # a double constant would make it 32 times slower
