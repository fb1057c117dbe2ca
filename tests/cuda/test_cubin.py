"""NVRTC compiles each kernel to machine code of every supported GPU, as CuPy would, on a machine without a GPU."""

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
MAX_REGISTERS = 80  # of a thread: with more, fewer blocks run at once


def compile_kernel(name: str, target: str) -> tuple[str, str]:
    """The PTX of a kernel, if the target is virtual, and the log of ptxas, if it is a chip."""
    program = nvrtc.createProgram(kernel_source(name), f"{name}.cu", [], [])
    try:
        # CuPy adds -ftz=true to our options.
        nvrtc.compileProgram(
            program, ["--std=c++14", "-ftz=true", "--ptxas-options=-v", f"--gpu-architecture={target}"]
        )
        if target.startswith("compute_"):
            return nvrtc.getPTX(program).decode(), ""
        assert nvrtc.getCUBIN(program)[:4] == b"\x7fELF"
        return "", str(nvrtc.getProgramLog(program))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


@pytest.mark.slow
@pytest.mark.parametrize("target", [75, 80, 86, 89, 90, 100, 120])
@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_fits_the_registers_of_each_gpu(name: str, target: int) -> None:
    _, log = compile_kernel(name, f"sm_{target}")
    assert f"Compiling entry function '{name}_u8' for 'sm_{target}'" in log
    assert "0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads" in log
    registers = re.search(r"Used (\d+) registers", log)
    assert registers is not None
    assert int(registers[1]) <= MAX_REGISTERS


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_has_one_entry_and_no_double_numbers(name: str) -> None:
    ptx, _ = compile_kernel(name, "compute_75")
    assert set(re.findall(r"\.visible \.entry (\w+)\(", ptx)) == {f"{name}_u8"}
    assert ".f64" not in ptx  # a double constant would make it 32 times slower
