"""Several processes, one file: the same one that a single process writes."""

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


@pytest.fixture(scope="module")
def many(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    listing = tmp_path_factory.mktemp("list") / "list.txt"
    listing.write_text("\n".join(str(p) for p in sorted(photos.rglob("*.jpg")) for _ in range(15)))
    return f"@{listing}"


@pytest.fixture(scope="module")
def whole(many: str, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "o.h5"
    assert facemill("process", many, "-o", output, "--engine", tiny_engine, *SMALL_SEGMENTS).returncode == 0
    return output


def test_two_processes_write_the_file_of_one(many: str, tiny_engine: Path, tmp_path: Path, whole: Path) -> None:
    output = tmp_path / "o.h5"
    done = facemill(
        "process", many, "-o", output, "--engine", tiny_engine, "--device", "cpu,cpu", "--json", *SMALL_SEGMENTS
    )
    found = summary(done)
    assert found["processed"] == 9000
    assert found["images_per_s"] > 0
    assert found["stages"]["infer"]["images_per_s"] > 0
    assert_same_file(output, whole)
    assert os.listdir(tmp_path) == ["o.h5"]


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_stopped_or_killed_it_goes_on_even_with_another_number_of_processes(
    signum: signal.Signals, many: str, tiny_engine: Path, tmp_path: Path, whole: Path
) -> None:
    output = tmp_path / "o.h5"
    arguments = ("process", many, "-o", output, "--engine", tiny_engine, *SMALL_SEGMENTS)
    with start_facemill(*arguments, "--device", "cpu,cpu") as process:
        wait_for_segment(output)
        process.send_signal(signum)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (143 if signum == signal.SIGTERM else -signal.SIGKILL), errors
    assert "Traceback" not in errors
    again = summary(facemill(*arguments, "--json"))
    assert 0 < again["processed"] < 9000
    assert_same_file(output, whole)


def test_a_process_that_fails_ends_the_run_with_its_words(many: str, tiny_engine: Path, tmp_path: Path) -> None:
    arguments = ("-o", tmp_path / "o.h5", "--engine", tiny_engine, "--device", "cpu,cpu", "--segment-rows", 100_000)
    done = facemill_process(*("process", many, *arguments), preexec_fn=file_size_limit(200_000))
    assert_refused(done, "E-DISK-FULL")


def test_rows_are_divided_in_turns_and_none_is_lost() -> None:
    rows = np.arange(0, 50_000, 2)
    parts = divide(rows, 3)
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert max(map(len, parts)) - min(map(len, parts)) <= 4096
    assert [len(p) for p in divide(np.arange(3), 2)] == [2, 1]
    assert sum(len(p) for p in divide(np.arange(0), 2)) == 0


def test_every_process_has_a_core() -> None:
    cores = os.sched_getaffinity(0)
    assert set().union(*(cores_of(n, ["cpu", "cpu"]) for n in range(2))) == cores
    assert all(cores_of(n, ["cpu"] * 100) for n in range(100))


def test_a_device_that_the_engine_does_not_run_on_is_refused(
    many: str, tiny_engine: Path, tmp_path: Path, driver: FakeDriver
) -> None:
    arguments = (many, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--device", "1")
    done = facemill_process("process", *arguments, env=driver.environment(gpus=2))
    assert_refused(done, "E-CONFIG", "--device", tiny_engine, "cpu")


ENGINE = Engine(Path("e"), INFO)


@pytest.mark.parametrize(("devices", "value"), [(("gpu",), "gpu"), (("cpu", "-1"), "-1")])
def test_devices_that_are_none(devices: tuple[str, ...], value: str) -> None:
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


@pytest.mark.parametrize(
    ("gpus", "shown", "devices", "values"),
    [
        (0, None, "0", ("GPU 0", "facemill doctor")),
        (1, None, "3", ("GPU 3", "facemill doctor")),
        (1, None, "0, 01", ("GPU 1", "facemill doctor")),
        (1, "", "0", ("GPU 0", "CUDA_VISIBLE_DEVICES=", "unset CUDA_VISIBLE_DEVICES")),
        (1, "4", "0", ("GPU 0 (4 in CUDA_VISIBLE_DEVICES)", "facemill doctor")),
    ],
)
def test_a_gpu_that_is_not_there_ends_the_command_before_it_begins(
    gpus: int, shown: str | None, devices: str, values: Values, tmp_path: Path, driver: FakeDriver
) -> None:
    env = {**driver.environment(gpus=gpus, shown=shown), "FACEMILL_CACHE": str(tmp_path)}
    done = facemill_process("process", tmp_path, "-o", tmp_path / "o.h5", "--device", devices, env=env)
    assert_refused(done, OPTION, "--device", *values)
    assert os.listdir(tmp_path) == []
