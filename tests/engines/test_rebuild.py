"""Stale TensorRT engines are recognised and rebuilt."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runtime.cuda.device import Gpu, find_gpu
from runtime.engines.build import build_engine, rebuild_if_stale
from runtime.engines.engine import Engine, read_engine, write_engine
from runtime.engines.tensorrt import stale
from runtime.engines.tensorrt.build import invalid_here
from runtime.engines.tensorrt.stale import why_stale
from runtime.engines.weights import weights_for
from runtime.errors import EngineError
from runtime.modelspec import load_spec
from tests.support.errors import assert_names, raises

trt = pytest.importorskip(
    "tensorrt_rtx", reason="the extra rtx is not installed: pip install tensorrt-rtx", exc_type=ImportError
)
pytestmark = pytest.mark.skipif(
    find_gpu() is not None, reason="this machine has a GPU: the engines here are not for it"
)

TURING = Gpu("NVIDIA GeForce RTX 2060", "SM75")


@pytest.fixture(autouse=True)
def registered(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the tiny model: an engine is rebuilt from the model of its name."""
    monkeypatch.setenv("FACEMILL_MODELS", str(tiny_model.parent))


@pytest.fixture(scope="module")
def built(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine of the tiny model. Tests must not change it."""
    spec, folder = load_spec(str(tiny_model)), tmp_path_factory.mktemp("built")
    return build_engine(
        spec, weights_for(spec), backend="tensorrt", batch=(1, 2, 4), output=folder, compute_capability="SM75"
    ).engine


@pytest.fixture
def engine(built: Engine, tmp_path: Path) -> Engine:
    return write_engine(tmp_path / built.path.name, built.content(), built.info)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake a GPU for this module; each test decides whether TensorRT-RTX can load a plan."""
    monkeypatch.setattr(stale, "find_gpu", lambda: TURING)
    monkeypatch.setattr(stale, "invalid_here", lambda trt, plan: "")


def change(engine: Engine, **values: Any) -> Engine:
    return write_engine(engine.path, engine.content(), replace(engine.info, **values))


def test_an_engine_for_this_gpu_is_used_as_it_is(engine: Engine, gpu: None) -> None:
    assert why_stale(engine) == ""
    assert rebuild_if_stale(engine) == engine


def test_an_engine_for_all_gpus_is_used_on_this_one(engine: Engine, gpu: None) -> None:
    engine = change(engine, device="default set")
    assert why_stale(engine) == ""


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"backend_version": "tensorrt_rtx 1.0.0"}, ("tensorrt_rtx 1.0.0", f"tensorrt_rtx {trt.__version__}")),
        ({"backend_version": "tensorrt 10.9"}, ("tensorrt", "tensorrt_rtx")),
        ({"device": "SM86"}, ("SM86", "NVIDIA GeForce RTX 2060 (SM75)")),
        ({"device": "NVIDIA A100"}, ("NVIDIA A100",)),
    ],
)
def test_a_stale_engine_is_rebuilt_and_the_reason_is_logged(
    engine: Engine, gpu: None, caplog: pytest.LogCaptureFixture, values: dict[str, Any], reason: tuple[str, ...]
) -> None:
    engine = change(engine, **values)
    rebuilt = rebuild_if_stale(engine)
    assert rebuilt == read_engine(rebuilt.path)
    info = rebuilt.info
    assert info.backend_version == f"tensorrt_rtx {trt.__version__}"
    assert (info.precision, info.profile, info.model) == ("fp16", (1, 2, 4), "tiny")
    assert [record.levelname for record in caplog.records if "Rebuilding it" in record.message] == ["WARNING"]
    assert_names(caplog.text, *reason)


def test_a_changed_onnx_file_makes_the_engine_stale(
    engine: Engine, gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w600k_mbf.onnx").write_bytes(b"another")
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    engine = change(engine, model="w600k_mbf")
    assert_names(why_stale(engine), "ONNX")


def test_a_failed_rebuild_gives_the_reason(engine: Engine, gpu: None) -> None:
    engine = change(engine, device="SM86", precision="int8")
    with raises(EngineError, "SM86", "--precision int8", "--calibration"):
        rebuild_if_stale(engine)
    engine = change(engine, precision="fp16", model="mine")
    with raises(EngineError, "SM86", "mine"):
        rebuild_if_stale(engine)


def test_without_a_gpu_no_engine_is_stale(engine: Engine) -> None:
    engine = change(engine, device="SM86")
    assert rebuild_if_stale(engine) == engine


def test_tensorrt_rtx_gives_the_verdict(engine: Engine) -> None:
    """Without a driver, TensorRT-RTX calls every engine invalid and names what is missing."""
    assert "CUDA driver version is insufficient" in invalid_here(trt, engine.content())
