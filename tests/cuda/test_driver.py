"""Errors where CUDA cannot be used, and how the errors of a package are translated."""

from __future__ import annotations

import importlib.util

import pytest

from runtime.cuda.device import find_gpu
from runtime.cuda.driver import cuda_errors, open_driver
from runtime.cuda.kernels import kernel_source
from runtime.errors import ConfigError, EngineError, MissingDependencyError, OutOfMemoryError
from tests.support.errors import raises


def installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def test_an_unknown_driver_is_refused() -> None:
    with raises(ConfigError, "cuda", "auto", "cupy", "pycuda"):
        open_driver("cuda")


@pytest.mark.parametrize("name", ["cupy", "pycuda"])
def test_a_missing_package_is_named_with_its_command(name: str) -> None:
    if installed(name):
        pytest.skip(f"{name} is installed")
    with raises(MissingDependencyError, name, "pip install"):
        open_driver(name)


def test_auto_without_a_package_asks_for_cupy() -> None:
    if installed("cupy") or installed("pycuda"):
        pytest.skip("a CUDA package is installed")
    with raises(MissingDependencyError, "pip install", "cupy"):
        open_driver()


def test_without_a_gpu_the_package_gives_the_reason() -> None:
    if find_gpu() is not None:
        pytest.skip("this machine has a GPU")
    pytest.importorskip("cupy", reason="cupy is not installed", exc_type=ImportError)
    with raises(EngineError, "GPU 0", "CuPy", "facemill doctor"):
        open_driver("cupy")


def test_out_of_memory_differs_from_other_failures() -> None:
    class TheirMemoryError(RuntimeError, MemoryError):
        pass

    short = (TheirMemoryError("none left"), RuntimeError("cudaErrorMemoryAllocation: out of memory"))
    for error in short:
        with (
            raises(OutOfMemoryError, "this", "X", "--batch-size"),
            cuda_errors("X", "this", (RuntimeError,)),
        ):
            raise error
    with raises(EngineError, "this", "X", "odd") as caught, cuda_errors("X", "this", (RuntimeError,)):
        raise RuntimeError("odd")
    assert not isinstance(caught.value, OutOfMemoryError)
    with pytest.raises(KeyError), cuda_errors("X", "this", (RuntimeError,)):
        raise KeyError("not CUDA's")


@pytest.mark.parametrize("name", ["align", "preprocess"])
def test_a_kernel_source_needs_no_folder(name: str) -> None:
    source = kernel_source(name)
    assert "#include" not in source
    assert f"void {name}_u8(" in source
    assert "struct Image" in source
