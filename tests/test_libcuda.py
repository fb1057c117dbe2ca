"""NVIDIA's driver, queried without any package. A process queries CUDA once, so each test starts a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from runtime import libcuda
from tests.support.facemill_command import ROOT
from tests.support.nvidia_driver_stand_in import FakeDriver


def ask(driver: FakeDriver, question: str, **options: object) -> str:
    code = f"from runtime.libcuda import *; from runtime.cuda.device import find_gpu; print({question})"
    env = driver.environment(**options)  # type: ignore[arg-type]
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, timeout=60)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(("cuda", "version"), [(12090, "(12, 9)"), (13000, "(13, 0)")])
def test_the_cuda_version_of_the_driver_is_read_without_a_gpu(driver: FakeDriver, cuda: int, version: str) -> None:
    assert ask(driver, "driver_cuda()", gpus=0, cuda=cuda) == version


@pytest.mark.parametrize(
    ("gpus", "shown", "count"), [(0, None, 0), (2, None, 2), (2, "1", 1), (2, "1,5,0", 1), (2, "", 0), (2, "-1", 0)]
)
def test_gpus_are_counted_as_cuda_shows_them(driver: FakeDriver, gpus: int, shown: str | None, count: int) -> None:
    assert ask(driver, "count_gpus()", gpus=gpus, shown=shown) == str(count)


def test_the_first_gpu_is_the_first_of_cuda(driver: FakeDriver) -> None:
    fields = ask(driver, "find_gpu()", gpus=3, shown="2,0")
    assert fields == "Gpu(name='Fake 2', compute_capability='SM75', pci_bus_id='0000:01:00.0')"
    assert ask(driver, "find_gpu()", gpus=0) == "None"


def test_without_a_driver_no_gpu_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libcuda, "open_libcuda", lambda: None)
    assert (libcuda.driver_cuda(), libcuda.count_gpus()) == (None, 0)
