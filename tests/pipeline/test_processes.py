"""Several processes write the same file as a single process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.engine import Engine
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.pipeline.processes import divide
from runtime.pipeline.request import Request, RunOptions
from runtime.pipeline.settings import cores_of
from tests.support.arithmetic_runner import INFO
from tests.support.errors import OPTION, Values, assert_refused, raises
from tests.support.facemill_command import facemill, facemill_process, start_facemill, summary
from tests.support.interrupted_runs import SMALL_SEGMENTS, assert_same_file, file_size_limit, wait_for_segment
from tests.support.nvidia_driver_stand_in import FakeDriver

NO_FACES = ("--align", "none")  # detection would take most of the time


@pytest.fixture(scope="module")
def photo_list(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    listing = tmp_path_factory.mktemp("list") / "list.txt"
    listing.write_text("\n".join(str(path) for path in sorted(photos.rglob("*.jpg")) for _ in range(15)))
    return f"@{listing}"


@pytest.fixture(scope="module")
def single_process(photo_list: str, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "o.h5"
    arguments = (photo_list, "-o", output, "--engine", tiny_engine, *NO_FACES, *SMALL_SEGMENTS)
    assert facemill("process", *arguments).returncode == 0
    return output


@pytest.mark.slow
def test_two_processes_write_the_file_of_one(
    photo_list: str, tiny_engine: Path, tmp_path: Path, single_process: Path
) -> None:
    output = tmp_path / "o.h5"
    arguments = (photo_list, "-o", output, "--engine", tiny_engine, *NO_FACES, *SMALL_SEGMENTS)
    result = facemill("process", *arguments, "--device", "cpu,cpu", "--json")
    counts = summary(result)
    assert counts["processed"] == 9000
    assert counts["images_per_s"] > 0
    assert counts["stages"]["infer"]["images_per_s"] > 0
    assert_same_file(output, single_process)
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.slow
def test_two_processes_find_the_faces_of_one(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    for name, devices in (("one", "cpu"), ("two", "cpu,cpu")):
        arguments = (photos, "-o", tmp_path / f"{name}.h5", "--engine", tiny_engine, *SMALL_SEGMENTS)
        assert summary(facemill("process", *arguments, "--device", devices, "--json"))["processed"] == 600
    assert_same_file(tmp_path / "two.h5", tmp_path / "one.h5")


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_run_resumes_with_a_different_number_of_processes(
    signum: signal.Signals, photo_list: str, tiny_engine: Path, tmp_path: Path, single_process: Path
) -> None:
    output = tmp_path / "o.h5"
    arguments = ("process", photo_list, "-o", output, "--engine", tiny_engine, *NO_FACES, *SMALL_SEGMENTS)
    with start_facemill(*arguments, "--device", "cpu,cpu") as process:
        wait_for_segment(output)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if signum == signal.SIGTERM else -signal.SIGKILL), errors
    assert "Traceback" not in errors
    resumed = summary(facemill(*arguments, "--json"))
    assert 0 < resumed["processed"] < 9000
    assert_same_file(output, single_process)


@pytest.mark.slow
def test_a_failure_in_one_process_ends_the_run_with_its_error(
    photo_list: str, tiny_engine: Path, tmp_path: Path
) -> None:
    arguments = ("-o", tmp_path / "o.h5", "--engine", tiny_engine, "--device", "cpu,cpu", "--segment-rows", 100_000)
    limit = file_size_limit(200_000)
    result = facemill_process("process", photo_list, *arguments, *NO_FACES, preexec_fn=limit)
    assert_refused(result, "E-DISK-FULL")


def test_rows_are_divided_evenly_and_none_is_lost() -> None:
    rows = np.arange(0, 50_000, 2)
    shares = divide(rows, 3)
    assert sorted(np.concatenate(shares)) == rows.tolist()
    assert max(map(len, shares)) - min(map(len, shares)) <= 4096
    assert [len(path) for path in divide(np.arange(3), 2)] == [2, 1]
    assert sum(len(path) for path in divide(np.arange(0), 2)) == 0


def test_every_process_has_a_core() -> None:
    cores = os.sched_getaffinity(0)
    assert set().union(*(cores_of(index, ["cpu", "cpu"]) for index in range(2))) == cores
    assert all(cores_of(index, ["cpu"] * 100) for index in range(100))


@pytest.mark.slow
def test_a_device_that_the_engine_does_not_run_on_is_refused(
    photo_list: str, tiny_engine: Path, tmp_path: Path, driver: FakeDriver
) -> None:
    arguments = (photo_list, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--device", "1")
    result = facemill_process("process", *arguments, env=driver.environment(gpus=2))
    assert_refused(result, "E-CONFIG", "--device", tiny_engine, "cpu")


ENGINE = Engine(Path("e"), INFO)


@pytest.mark.parametrize(("devices", "value"), [(("gpu",), "gpu"), (("cpu", "-1"), "-1")])
def test_invalid_devices_are_refused(devices: tuple[str, ...], value: str) -> None:
    with raises(ConfigError, "--device", value):
        Request(("x",), Path("o.h5"), ENGINE, run=RunOptions(devices=devices), faces=FaceRules("none"))
    with raises(ConfigError, "--skip-duplicates", "--device"):
        Request(
            ("x",),
            Path("o.h5"),
            ENGINE,
            run=RunOptions(devices=("cpu", "cpu")),
            skip_duplicates=True,
            faces=FaceRules("none"),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpus", "visible_devices", "devices", "values"),
    [
        (0, None, "0", ("GPU 0", "facemill doctor")),
        (1, None, "3", ("GPU 3", "facemill doctor")),
        (1, None, "0, 01", ("GPU 1", "facemill doctor")),
        (1, "", "0", ("GPU 0", "CUDA_VISIBLE_DEVICES=", "unset CUDA_VISIBLE_DEVICES")),
        (1, "4", "0", ("GPU 0 (4 in CUDA_VISIBLE_DEVICES)", "facemill doctor")),
    ],
)
def test_a_missing_gpu_is_refused_before_the_run(
    gpus: int, visible_devices: str | None, devices: str, values: Values, tmp_path: Path, driver: FakeDriver
) -> None:
    env = {**driver.environment(gpus=gpus, shown=visible_devices), "FACEMILL_CACHE": str(tmp_path)}
    result = facemill_process("process", tmp_path, "-o", tmp_path / "o.h5", "--device", devices, env=env)
    assert_refused(result, OPTION, "--device", *values)
    assert os.listdir(tmp_path) == []
