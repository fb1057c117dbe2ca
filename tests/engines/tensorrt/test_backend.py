"""The GPUs that a plan is built for, and the fallback when the local GPU refuses it (Hopper has no target name)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from runtime.cuda.device import Gpu, find_gpu
from runtime.engines import make
from runtime.engines.build import BuildResult, build_engine
from runtime.engines.engine import EngineInfo, Parity, read_engine
from runtime.engines.tensorrt import backend
from runtime.engines.tensorrt.backend import build_working_plan, target_of
from runtime.engines.tensorrt.build import CURRENT, Plan
from runtime.errors import ConfigError, EngineError, OutOfMemoryError
from tests.support.errors import assert_names, raises
from tests.support.model_files import info, save_cnn, spec

HOPPER = Gpu("NVIDIA H100 80GB HBM3", "SM90")
RTX = info(backend="tensorrt", backend_version="tensorrt_rtx 1.7", precision="fp16", device=HOPPER.name)


@pytest.fixture
def hopper(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake GPU of which only the name is read."""
    monkeypatch.setattr(backend, "find_gpu", lambda: HOPPER)


def prove_plan(
    target: str | None, trouble: dict[str | None, EngineError], facts: EngineInfo = RTX
) -> tuple[Plan, EngineInfo, list[str | None]]:
    """Build and prove plans of which some fail on this machine's GPU. Return the result and every build."""
    built: list[str | None] = []

    def build(target: str | None) -> Plan:
        built.append(target)
        return Plan(str(target).encode(), "fp16")

    def prove(plan: Plan) -> EngineInfo:
        if built[-1] in trouble:
            raise trouble[built[-1]]
        return replace(facts, parity=Parity(64, 1.0, 1.0))

    return *build_working_plan(target, facts, build, prove), built


def test_a_plan_that_runs_is_kept_for_the_default_set(hopper: None) -> None:
    plan, record, built = prove_plan(None, {})
    assert (plan.content, built) == (b"None", [None])
    assert (record.refused, record.parity.images) == ("", 64)


def test_a_refused_plan_is_rebuilt_for_this_gpu_only(hopper: None, caplog: pytest.LogCaptureFixture) -> None:
    plan, record, built = prove_plan(None, {None: EngineError("invalid here: UNSUPPORTED_CC")})
    assert (plan.content, built) == (b"CURRENT", [None, CURRENT])
    assert (record.refused, record.parity.images) == ("default set: invalid here: UNSUPPORTED_CC", 64)
    refusal = "default set: invalid here: UNSUPPORTED_CC"
    assert_names(caplog.text, "NVIDIA H100 80GB HBM3 (SM90)", "tensorrt_rtx 1.7", refusal, "CURRENT")


def test_both_refusals_are_reported_with_the_next_command(hopper: None) -> None:
    gpu = "NVIDIA H100 80GB HBM3 (SM90)"
    refusals = ("default set: one", "CURRENT: other")
    commands = ("pip install", "tensorrt-cu12", "--backend cuda")
    with raises(EngineError, "tensorrt_rtx 1.7", "test-model", gpu, *refusals, *commands):
        prove_plan(None, {None: EngineError("one"), CURRENT: EngineError("other")})


@pytest.mark.parametrize(
    ("target", "error", "facts"),
    [
        ("SM90", EngineError("no"), RTX),  # a named target has no alternative
        (None, EngineError("no"), replace(RTX, backend_version="tensorrt 10.9")),  # has no default set
        (None, OutOfMemoryError("no"), RTX),  # no other plan would fit
    ],
)
def test_other_refusals_are_final(hopper: None, target: str | None, error: EngineError, facts: EngineInfo) -> None:
    with raises(type(error), "no"):
        prove_plan(target, {target: error}, facts)


def test_a_plan_for_another_gpu_is_not_run(hopper: None) -> None:
    _, record, built = prove_plan("SM75", {"SM75": EngineError("never met")})
    assert (record.parity.images, record.refused, built) == (0, "", ["SM75"])


@pytest.fixture
def trt(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import TensorRT-RTX, even where TensorRT is installed."""
    module: ModuleType = pytest.importorskip(
        "tensorrt_rtx", reason="the extra rtx is not installed: pip install tensorrt-rtx", exc_type=ImportError
    )
    monkeypatch.setattr(backend, "import_tensorrt", lambda compute_capability=None: module)
    return module


def build(folder: Path, **options: Any) -> BuildResult:
    weights = save_cnn(folder / "m.onnx")
    return build_engine(spec(), weights, backend="tensorrt", batch=(1, 2, 4), output=folder / "engines", **options)


def test_hopper_has_no_target_name(hopper: None, trt: ModuleType) -> None:
    version = f"tensorrt_rtx {trt.__version__}"
    assert (target_of(None, version), target_of("SM86", version)) == (None, "SM86")


@pytest.mark.slow
def test_the_sidecar_records_the_first_attempt(
    hopper: None, trt: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_plan, checked = backend.build_plan, []

    def build_without_gpu(*arguments: Any, compute_capability: str | None, **options: Any) -> Plan:
        name = "SM86" if compute_capability == CURRENT else compute_capability
        return build_plan(*arguments, compute_capability=name, **options)

    def check_plan(trt: ModuleType, plan: bytes) -> int:
        checked.append(plan)
        if len(checked) == 1:
            raise EngineError("UNSUPPORTED_CC")
        return 1000

    monkeypatch.setattr(backend, "build_plan", build_without_gpu)
    monkeypatch.setattr(backend, "check_plan", check_plan)
    monkeypatch.setattr(make, "_prove", lambda job, content, info: info)
    result = build(tmp_path)
    record = read_engine(result.engine.path).info
    assert (record.refused, record.context_bytes, record.device) == (
        "default set: UNSUPPORTED_CC",
        1000,
        HOPPER.name,
    )
    assert result.engine.path.read_bytes() == checked[1]
    assert not build(tmp_path).built  # it is up to date: the history of an engine is not compared


@pytest.mark.slow
@pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")
def test_tensorrts_message_appears_for_both_plans(hopper: None, trt: ModuleType, tmp_path: Path) -> None:
    """Without a driver, TensorRT calls one plan invalid and does not build the other."""
    with pytest.raises(EngineError) as failed:
        build(tmp_path)
    assert re.search(
        r"default set: tensorrt_rtx \S+ built a plan that is invalid on this machine: .*CUDA driver.*; CURRENT: "
        r"tensorrt_rtx \S+ cannot build the engine for CURRENT: .*CUDA.*Install TensorRT itself",
        str(failed.value),
        re.DOTALL,
    )
    assert not list((tmp_path / "engines").iterdir())


def test_current_is_not_an_option_for_users(tmp_path: Path) -> None:
    with raises(ConfigError, "CURRENT", "--compute-capability"):
        build(tmp_path, compute_capability=CURRENT)
