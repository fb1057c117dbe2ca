"""build_engine writes proven engines, once, one process at a time."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from runtime import __version__
from runtime.cuda.device import find_gpu
from runtime.engines import build as build_module
from runtime.engines import rate as rate_module
from runtime.engines.build import BuildResult, build_engine
from runtime.engines.calibrate import CalibrationSet
from runtime.engines.engine import Engine, EngineInfo, Parity, Quantisation, read_engine, sidecar_path
from runtime.engines.onnxruntime.runner import OrtRunner
from runtime.engines.parity import BARS, Bar, check_parity, measure_parity, synthetic_crops
from runtime.engines.rate import measure_rates
from runtime.errors import ConfigError, EngineError, ModelError, ParityError
from runtime.extras import pip_install
from runtime.graphs.half import precision_of
from tests.support.errors import Values, assert_names, raises
from tests.support.model_files import info, save_cnn, spec

ROOT = Path(__file__).resolve().parents[2]
CROPS = CalibrationSet(synthetic_crops(112, count=64), 0)
SMALL = CalibrationSet(synthetic_crops(64, count=64), 0)
without_gpu = pytest.mark.skipif(find_gpu() is not None, reason="this machine has a GPU")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_cnn(tmp_path / "m.onnx")


def build(weights: Path, **options: Any) -> BuildResult:
    options.setdefault("backend", "cpu")
    return build_engine(options.pop("spec", spec()), weights, output=weights.parent / "engines", **options)


def list_folder(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.slow
def test_the_sidecar_describes_the_build(weights: Path) -> None:
    result = build(weights)
    assert result.engine.path.name == "test-model.cpu-fp32.onnx"
    assert result.built
    assert result.engine == read_engine(result.engine.path)
    assert result.engine.info == EngineInfo(
        model="test-model",
        model_sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        trained=False,
        dimension=16,
        size=112,
        channel_order="rgb",
        backend="cpu",
        backend_version=result.engine.info.backend_version,
        precision="fp32",
        profile=(1, 8, 256),
        device="cpu",
        engine_sha256=hashlib.sha256(result.engine.path.read_bytes()).hexdigest(),
        parity=Parity(64, result.engine.info.parity.minimum, result.engine.info.parity.mean),
        tool_version=__version__,
        recipe=result.engine.info.recipe,
    )
    assert result.engine.info.backend_version.startswith("onnxruntime ")
    assert 0.99999 <= result.engine.info.parity.minimum <= result.engine.info.parity.mean <= 1 + 1e-9


@pytest.mark.slow
def test_the_engine_is_optimised_for_any_processor(weights: Path) -> None:
    graph = onnx.load(build(weights).engine.path).graph
    kinds = {(node.domain, node.op_type) for node in graph.node}
    assert ("com.microsoft", "FusedConv") in kinds  # convolution and ReLU
    assert not any("nchwc" in domain for domain, _ in kinds)


@pytest.mark.slow
def test_a_second_build_is_up_to_date_and_writes_nothing(weights: Path) -> None:
    first = build(weights)
    before = list_folder(first.engine.path.parent)
    second = build(weights)
    assert (second.built, second.reason) == (False, "up to date")
    assert second.engine == first.engine
    assert list_folder(first.engine.path.parent) == before
    assert sorted(before) == [first.engine.path.name, first.engine.path.name + ".json"]


@pytest.mark.slow
def test_the_same_inputs_give_the_same_engine(weights: Path) -> None:
    first = build(weights)
    forced = build(weights, force=True)
    assert (forced.built, forced.reason) == (True, "forced")
    assert forced.engine.info == first.engine.info


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch": (1, 4, 32)}, r"profile was \(1, 8, 256\) and is now \(1, 4, 32\)"),
        ({"spec": spec(mean=(120.0, 120.0, 120.0))}, "recipe was"),
        ({"spec": spec(channel_order="bgr")}, "channel_order was rgb and is now bgr"),
        ({"spec": spec(trained=True)}, "trained was False"),
    ],
)
def test_changed_options_rebuild_the_engine(weights: Path, change: dict[str, Any], reason: str) -> None:
    build(weights)
    result = build(weights, **change)
    assert result.built
    assert re.match(reason, result.reason)
    assert not build(weights, **change).built


@pytest.mark.slow
def test_changed_weights_version_or_damage_rebuild_the_engine(weights: Path) -> None:
    path = build(weights).engine.path
    save_cnn(weights, gain=0.5)
    assert build(weights).reason.startswith("model_sha256 was")

    content = json.loads(sidecar_path(path).read_text())
    sidecar_path(path).write_text(json.dumps({**content, "tool_version": "0.0.1"}))
    assert build(weights).reason == f"tool_version was 0.0.1 and is now {__version__}"

    path.write_bytes(path.read_bytes()[:-1])
    assert_names(build(weights).reason, "sidecar")

    sidecar_path(path).write_text("{")
    assert "cannot be used" in build(weights).reason

    path.unlink()
    assert build(weights).reason == "there was no engine"
    assert not build(weights).built


def test_facts_survive_a_round_trip_through_the_sidecar() -> None:
    """The sidecar stays flat and is read back unchanged, also in its form from before models had tasks."""
    facts = info(
        parity=Parity(3, 0.5, 0.75), int8=Quantisation("64 crops", "minmax", ("a", "b")), decode="yunet", task="detect"
    )
    flat = facts.to_dict()
    assert (flat["parity_min"], flat["calibration_method"], flat["left_float"]) == (0.5, "minmax", ["a", "b"])
    assert EngineInfo.from_dict(json.loads(json.dumps(flat))) == facts
    old = {**flat, "detector": "yunet"}
    del old["task"], old["decode"]
    assert EngineInfo.from_dict(old) == facts


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "values"),
    [
        ({"dimension": "512"}, ("dimension", "'512'")),
        ({"colour": 1}, ("colour",)),
        ({"parity_min": "high"}, ("minimum", "high")),
    ],
)
def test_an_invalid_sidecar_is_refused_with_the_reason(weights: Path, change: dict[str, Any], values: Values) -> None:
    engine = build(weights).engine
    sidecar_path(engine.path).write_text(json.dumps({**engine.info.to_dict(), **change}))
    with raises(EngineError, *values, "facemill build-engine --model NAME --force"):
        read_engine(engine.path)


def test_every_field_known_before_a_build_is_compared() -> None:
    from runtime.engines import build as module

    assert info().to_dict().keys() > module._BUILD_RESULTS


@pytest.mark.slow
def test_weights_with_another_sha256_are_refused(weights: Path) -> None:
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    with raises(ModelError, sha256, "0" * 64, "facemill models fetch test-model"):
        build(weights, spec=spec(sha256="0" * 64))
    assert build(weights, spec=spec(sha256=sha256)).built


@pytest.mark.slow
def test_an_int8_engine_records_its_calibration(weights: Path) -> None:
    result = build(weights, precision="int8", calibration=CROPS)
    assert result.engine.path.name == "test-model.cpu-int8.onnx"
    assert result.engine == read_engine(result.engine.path)
    assert result.engine.info.precision == precision_of(onnx.load(result.engine.path)) == "int8"
    assert result.engine.info.int8.calibration == str(CROPS)
    assert result.engine.info.int8.calibration.startswith("64 crops, seed 0, sha256 ")
    assert result.engine.info.int8.method in ("minmax", "percentile", "entropy")
    assert result.engine.info.parity.images == 16
    assert 0.97 <= result.engine.info.parity.minimum <= result.engine.info.parity.mean
    assert result.engine.info.parity.mean >= 0.995


@pytest.mark.slow
def test_only_changed_crops_rebuild_an_int8_engine(weights: Path) -> None:
    first = build(weights, precision="int8", calibration=CROPS)
    before = list_folder(first.engine.path.parent)
    assert not build(weights, precision="int8", calibration=CROPS).built
    assert list_folder(first.engine.path.parent) == before
    for crops in (CalibrationSet(CROPS.crops, 1), CalibrationSet(CROPS.crops[::-1], 1)):
        assert re.match("calibration was 64 crops", build(weights, precision="int8", calibration=crops).reason)
    assert build(weights, precision="int8", calibration=CROPS).engine.info == first.engine.info


@pytest.mark.slow
@pytest.mark.parametrize(("rates", "precision"), [((300.0, 700.0), "int8"), ((700.0, 300.0), "fp32")])
def test_auto_selects_the_faster_precision(
    weights: Path, monkeypatch: pytest.MonkeyPatch, rates: tuple[float, float], precision: str
) -> None:
    timed: list[Engine] = []
    monkeypatch.setattr(build_module, "measure_rates", lambda engines, side: timed.extend(engines) or list(rates))
    result = build(weights, calibration=CROPS)
    assert [engine.path.name for engine in timed] == ["test-model.cpu-fp32.onnx", "test-model.cpu-int8.onnx"]
    assert result.engine.info.precision == precision
    assert result.reason.endswith(f"auto took {precision}: int8 {rates[1]:.0f} images/s, fp32 {rates[0]:.0f}")
    again = build(weights, calibration=CROPS)
    assert (again.engine.path, again.built) == (result.engine.path, False)
    assert build(weights).engine.info.precision == "fp32"  # no calibration crops


@pytest.mark.slow
def test_auto_selects_fp32_where_int8_fails(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BARS, "int8", Bar(1.1, 1.1))
    result = build(weights, calibration=CROPS)
    assert result.engine.info.precision == "fp32"
    assert_names(result.reason, "int8", 1.1)


def test_rates_are_medians_of_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The costs are known, on a fake clock. Now and then the machine pauses for seconds."""
    now, calls = [0.0], [0]

    class TimedRunner:
        def __init__(self, cost: float) -> None:
            self.info, self._cost = info(profile=(1, 8, 16)), cost

        def infer_s(self, batch: Any) -> float:
            calls[0] += 1
            seconds = self._cost * len(batch) + (7.0 if calls[0] % 211 == 0 else 0.0)
            now[0] += seconds
            return seconds

        def __enter__(self) -> TimedRunner:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(rate_module, "open_runner", lambda engine: TimedRunner({"a": 0.001, "b": 0.0025}[str(engine)]))
    rate_a, rate_b = measure_rates([Engine(Path(name), info()) for name in "ab"], 112, lambda: now[0])
    assert calls[0] > 100
    assert (rate_a, rate_b) == (pytest.approx(1000), pytest.approx(400))


@pytest.mark.slow
def test_a_damaged_int8_engine_fails_the_parity_check(weights: Path) -> None:
    result = build(weights, precision="int8", calibration=CROPS)
    _, _, judges = CROPS.parts()
    with OrtRunner(result.engine.path.read_bytes(), result.engine.info) as runner:
        check_parity(measure_parity(runner, spec(), weights, judges), "int8", "the engine")
    model = onnx.load(result.engine.path)
    tensor = max(
        (t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8), key=lambda t: len(t.dims)
    )
    values = onnx.numpy_helper.to_array(tensor).copy()
    values[0] = -values[0]  # one channel
    tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    with OrtRunner(model.SerializeToString(), result.engine.info) as damaged:
        parity = measure_parity(damaged, spec(), weights, judges)
    with raises(ParityError, 0.97, 0.995, "int8"):
        check_parity(parity, "int8", "the engine")


@pytest.mark.slow
def test_weights_unfit_for_int8_write_no_engine(weights: Path) -> None:
    """Behind each convolution one channel dwarfs the others, which a single scale per tensor cannot represent."""
    model = onnx.load(weights)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w1", "w2"):
            values[0] *= 3000
        if tensor.name == "w2":
            values[:, 0] /= 3000
        if tensor.name == "fc":
            values[:16] /= 3000
        tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(model, weights)
    with raises(EngineError, "2 of 3", "--precision fp32"):
        build(weights, precision="int8", calibration=CROPS)
    assert not list((weights.parent / "engines").iterdir())


def test_missing_and_damaged_weights_write_no_engine(tmp_path: Path) -> None:
    with raises(ModelError, "No such file"):
        build(tmp_path / "none.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"bad")
    with raises(ModelError, "bad.onnx"):
        build(tmp_path / "bad.onnx")
    assert not list((tmp_path / "engines").iterdir())


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"precision": "fp16"}, ("cpu", "fp16", "--precision fp32")),
        ({"precision": "int4"}, ("int4",)),
        ({"precision": "int8"}, ("--calibration PHOTOS",)),
        ({"precision": "int8", "backend": "cuda", "calibration": CROPS}, ("cuda", "int8", "tensorrt or cpu")),
        (
            {"precision": "int8", "calibration": SMALL},
            ("(64, 64, 3)", "test-model", "(112, 112, 3)"),
        ),
        ({"calibration": CROPS, "precision": "fp32"}, ("fp32", "--precision int8")),
        (
            {"calibration": CROPS, "compute_capability": "SM75", "backend": "tensorrt"},
            ("SM75", "--precision int8"),
        ),
        ({"backend": "openvino"}, ("openvino",)),
        ({"batch": (0, 1, 2)}, ("(0, 1, 2)",)),
        ({"batch": (4, 2, 8)}, ("(4, 2, 8)",)),
        ({"compute_capability": "SM75"}, ("--backend tensorrt",)),
    ],
)
def test_impossible_options_are_refused(weights: Path, options: dict[str, Any], values: Values) -> None:
    with raises(ConfigError, *values):
        build(weights, **options)


@pytest.mark.slow
@without_gpu
def test_auto_logs_why_it_fell_back(weights: Path) -> None:
    result = build(weights, backend="auto")
    assert result.engine.info.backend == "cpu"
    assert result.reason == "there was no engine; auto fell back to cpu (no NVIDIA GPU with a driver was found)"


@without_gpu
def test_a_named_backend_never_falls_back(weights: Path) -> None:
    with raises(EngineError, "CUDAExecutionProvider"):
        build(weights, backend="cuda")
    assert not list((weights.parent / "engines").iterdir())


NO_TENSORRT = """
import sys
sys.path[:0] = sys.argv[1:3]
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].startswith("tensorrt"):
            raise ModuleNotFoundError("blocked for the test: " + name, name=name)
sys.meta_path.insert(0, Blocker())
from pathlib import Path
from tests.support.model_files import spec
from runtime.engines.build import build_engine
from runtime.errors import MissingDependencyError
from runtime.extras import pip_install
weights, output = map(Path, sys.argv[3:5])
for capability in (None, "SM75"):
    try:
        build_engine(spec(), weights, backend="tensorrt", output=output, compute_capability=capability)
    except MissingDependencyError as err:
        print(err)
"""


@pytest.mark.slow
def test_a_missing_tensorrt_is_named_with_its_install_command(weights: Path) -> None:
    output = weights.parent / "engines"
    command = [sys.executable, "-c", NO_TENSORRT, str(ROOT), str(ROOT / "tests"), str(weights), str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    any_backend, tensorrt = result.stdout.splitlines()
    assert (
        f"{pip_install('rtx')}, or pip install --extra-index-url https://pypi.nvidia.com tensorrt-cu12" in any_backend
    )
    assert tensorrt.endswith(pip_install("rtx"))


def test_a_gpu_that_is_hidden_is_not_found() -> None:
    code = "from runtime.cuda.device import find_gpu; print(find_gpu())"
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=hidden, capture_output=True, text=True, timeout=60
    )
    assert result.stdout == "None\n", result.stderr


def test_a_folder_that_is_a_file_is_an_error(weights: Path) -> None:
    (weights.parent / "engines").write_text("")
    with raises(EngineError, "engines"):
        build(weights)


@pytest.mark.slow
def test_a_full_disk_leaves_no_file(weights: Path) -> None:
    """Limit the file size of this process to less than the engine."""
    output = weights.parent / "engines"
    command = [sys.executable, "-c", DISK_FULL, str(ROOT), str(ROOT / "tests"), str(weights), str(output)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.stdout.startswith("EngineError"), result.stderr
    assert_names(result.stdout, "E-ENGINE", "File too large")
    assert not list(output.iterdir())


DISK_FULL = """
import resource, signal, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from tests.support.model_files import spec
from runtime.engines import make
from runtime.engines.backend import BuildJob
from runtime.engines.backends import backend_of
from runtime.engines.engine import write_engine
from runtime.errors import EngineError
from runtime.extras import pip_install
job = BuildJob(spec(), Path(sys.argv[3]), backend_of("cpu"), "fp32", (1, 8, 256))
engine, info = make.make_engine(job, make.describe(job))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(engine) // 2, len(engine) // 2))
folder = Path(sys.argv[4])
folder.mkdir()
try:
    write_engine(folder / "engine.onnx", engine, info)
except EngineError as err:
    print("EngineError", err)
"""


TWO_AT_ONCE = """
import sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from tests.support.model_files import spec
from runtime.engines.build import build_engine
result = build_engine(spec(), Path(sys.argv[3]), backend="cpu", output=Path(sys.argv[4]))
print(result.built)
"""


@pytest.mark.slow
def test_only_one_of_several_concurrent_builds_builds(weights: Path) -> None:
    output = weights.parent / "engines"
    command = [sys.executable, "-c", TWO_AT_ONCE, str(ROOT), str(ROOT / "tests"), str(weights), str(output)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    answers = sorted(process.communicate(timeout=300)[0].strip() for process in running)
    assert [process.returncode for process in running] == [0, 0, 0]
    assert answers == ["False", "False", "True"]
    assert sorted(path.name for path in output.iterdir()) == [
        "test-model.cpu-fp32.onnx",
        "test-model.cpu-fp32.onnx.json",
    ]
