"""Fixtures for all tests: a private cache, a small engine, a folder of photos, the folder of real models."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import encoded_images as make
from tests.support.nvidia_driver_stand_in import FakeDriver

ROOT = Path(__file__).resolve().parents[1]

# The threads of FAISS wait without using the processor. Several processes of tests share the cores: with the default,
# training an index took twenty times the processor time. OpenMP reads this when FAISS is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import ONNX Runtime themselves


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the modules that have most slow tests, so that no process ends long after the others."""
    slow = Counter(item.path for item in items if "slow" in item.keywords)
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or writes the user's cache, or takes models from where the user keeps them."""
    os.environ["FACEMILL_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("FACEMILL_MODELS", None)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Use one thread, because the small networks of the tests are slower with two."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file next to its ONNX file: it separates photos and runs fast."""
    from tests.support.model_files import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a CPU engine, built by facemill."""
    from tests.support.model_files import build_tiny_engine

    return build_tiny_engine(tiny_model, tmp_path_factory.mktemp("engines"))


@pytest.fixture(scope="session")
def shipped_detector() -> Path:
    """The engine of the default detector, in the cache of the tests.

    For tests in which a limit, a signal or the rights of another user would otherwise affect its build.
    """
    from runtime.engines.choose import choose_detector
    from runtime.modelstore import SHIPPED_DETECTOR

    engine = choose_detector(SHIPPED_DETECTOR, align="auto", backend="cpu")
    assert engine is not None
    return engine.path


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 small photos in folders, six of them truncated. Tests must not change them."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(600):
        path = folder / f"{i % 7}" / f"p{i:04d}.jpg"
        path.parent.mkdir(exist_ok=True)
        data = make.encode(make.scene(112, 112, seed=i), quality=70)
        path.write_bytes(data[: len(data) // 2] if i % 100 == 50 else data)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real models and data: FACEMILL_SHARED, or next to the checkout."""
    folder = Path(os.environ.get("FACEMILL_SHARED", ROOT.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip("no folder of real models: name one with FACEMILL_SHARED")
    return folder


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> FakeDriver:
    """A fake NVIDIA driver that can only count GPUs."""
    if shutil.which("g++") is None:
        pytest.skip("no g++: the stand-in for NVIDIA's driver is C++")
    return FakeDriver(tmp_path_factory.mktemp("driver"))
