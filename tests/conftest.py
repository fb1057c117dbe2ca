"""Fixtures for all tests: a private cache, a small engine, a folder of photos, the folder of real models."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support import encoded_images as make
from tests.support.nvidia_driver_stand_in import FakeDriver

ROOT = Path(__file__).resolve().parents[1]


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
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from tests.support.model_files import write_model_file

    rng = np.random.default_rng(7)
    folder = tmp_path_factory.mktemp("tiny")
    weights = {
        "w": rng.standard_normal((8, 3, 16, 16)) / 16,
        "m": rng.standard_normal((8 * 49, 16)) / 8,
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["features"], strides=[16, 16]),
            helper.make_node("Flatten", ["features"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["vector"]),
        ],
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 16])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "tiny.onnx")
    names = {"name": "tiny", "file": "tiny.onnx", "input_name": "image", "output_name": "vector"}
    return write_model_file(folder / "tiny.toml", **names)


@pytest.fixture(scope="session")
def tiny_engine(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model as a CPU engine, built by facemill."""
    from runtime.engines.build import build_engine
    from runtime.modelspec import load_spec
    from runtime.modelstore import resolve_weights

    spec = load_spec(str(tiny_model))
    return build_engine(
        spec, resolve_weights(spec), backend="cpu", output=tmp_path_factory.mktemp("engines")
    ).engine.path


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
