"""Engines opened from disk: their inputs, their outputs and their errors."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.engine import Engine, read_engine, sidecar_path
from runtime.engines.parity import synthetic_crops
from runtime.errors import ConfigError, EngineError
from runtime.graphs.mobilefacenet import generate
from tests.support.errors import Values, raises
from tests.support.model_files import save_cnn, spec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    weights = save_cnn(folder / "m.onnx")
    return build_engine(spec(), weights, backend="cpu", batch=(2, 8, 16), output=folder).engine


def images(count: int) -> NDArray[np.uint8]:
    return synthetic_crops(112, count=count)


@pytest.mark.slow
def test_a_batch_becomes_unit_rows_in_a_new_array(engine: Engine) -> None:
    with open_runner(engine) as runner:
        rows_a, rows_b = runner.infer(images(5)), runner.infer(images(5))
    assert rows_a.shape == (5, 16)
    assert rows_a.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows_a, axis=1), 1, atol=1e-6)
    rows_a[:] = 0  # a new array that belongs to the caller
    np.testing.assert_allclose(np.linalg.norm(rows_b, axis=1), 1, atol=1e-6)


def test_the_input_is_not_changed(engine: Engine) -> None:
    crops = images(4)
    before = crops.copy()
    with open_runner(engine) as runner:
        runner.infer(crops)
    np.testing.assert_array_equal(crops, before)


def test_rows_depend_on_neither_batch_nor_threads(engine: Engine) -> None:
    crops = images(16)
    with (
        open_runner(engine, threads=1) as one_thread,
        open_runner(engine, threads=2) as two_threads,
        open_runner(engine) as default_threads,
    ):
        expected = one_thread.infer(crops)
        for runner in (one_thread, two_threads, default_threads):
            parts = np.concatenate([runner.infer(crops[start : start + 2]) for start in range(0, 16, 2)])
            np.testing.assert_array_equal(parts, expected)
            np.testing.assert_array_equal(runner.infer(crops), expected)


@pytest.mark.parametrize("threads", [0, 1])
def test_several_threads_share_a_runner(engine: Engine, threads: int) -> None:
    crops = images(16)
    together = threading.Barrier(4)

    def work(seed: int) -> bool:
        order = np.random.default_rng(seed).permutation(16)
        together.wait()
        return all(np.array_equal(runner.infer(crops[order]), expected[order]) for _ in range(10))

    with open_runner(engine, threads=threads) as runner, ThreadPoolExecutor(4) as pool:
        expected = runner.infer(crops)
        assert all(pool.map(work, range(4)))


@pytest.mark.parametrize(
    ("batch", "values"),
    [
        (np.zeros((2, 112, 112, 3), np.float32), ("float32 (2, 112, 112, 3)", "uint8 (n, 112, 112, 3)")),
        (np.zeros((2, 3, 112, 112), np.uint8), ("(2, 3, 112, 112)", "(n, 112, 112, 3)")),
        (np.zeros((112, 112, 3), np.uint8), ("(112, 112, 3)", "(n, 112, 112, 3)")),
        (np.zeros((2, 128, 128, 3), np.uint8), ("(2, 128, 128, 3)", "(n, 112, 112, 3)")),
        (np.zeros((1, 112, 112, 3), np.uint8), (2, 16, 1)),
        (np.zeros((17, 112, 112, 3), np.uint8), (2, 16, 17)),
        (np.zeros((0, 112, 112, 3), np.uint8), (2, 16, 0)),
        (np.zeros((4, 112, 112, 3), np.uint8)[::2], ("contiguous",)),
    ],
)
def test_a_wrong_batch_is_refused(engine: Engine, batch: NDArray[np.uint8], values: Values) -> None:
    with open_runner(engine) as runner, raises(ConfigError, *values):
        runner.infer(batch)


@pytest.fixture
def copy(engine: Engine, tmp_path: Path) -> Path:
    """A copy of the engine and its sidecar that a test may damage."""
    for path in (engine.path, sidecar_path(engine.path)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / engine.path.name


def test_a_changed_engine_is_refused(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    digests = [hashlib.sha256(data).hexdigest() for data in (copy.read_bytes(), content)]
    copy.write_bytes(content)
    with raises(EngineError, *digests, "--force"):
        open_runner(read_engine(copy))


def test_an_engine_without_its_file_or_sidecar_is_refused(copy: Path) -> None:
    content = copy.read_bytes()
    copy.unlink()
    with raises(EngineError, copy, "facemill build-engine"):
        open_runner(read_engine(copy))
    copy.write_bytes(content)
    sidecar_path(copy).unlink()
    with raises(EngineError, sidecar_path(copy), "facemill build-engine"):
        open_runner(read_engine(copy))


def test_an_engine_that_onnx_runtime_refuses_is_an_engine_error(copy: Path) -> None:
    copy.write_bytes(b"not an ONNX file")
    sidecar = json.loads(sidecar_path(copy).read_text())
    sidecar["engine_sha256"] = hashlib.sha256(b"not an ONNX file").hexdigest()
    sidecar_path(copy).write_text(json.dumps(sidecar))
    with raises(EngineError):
        open_runner(read_engine(copy))


OUT_OF_MEMORY = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import numpy as np
from runtime.graphs.mobilefacenet import generate
from runtime.engines.engine import read_engine
from runtime.engines.backends import open_runner
from runtime.errors import OutOfMemoryError

with open_runner(read_engine(Path(sys.argv[2])), threads=1) as runner:
    small = np.zeros((4, 112, 112, 3), np.uint8)
    before = runner.infer(small)
    large = np.zeros((256, 112, 112, 3), np.uint8)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    room = pages * resource.getpagesize() + (100 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    try:
        runner.infer(large)
    except OutOfMemoryError as err:
        print("out of memory:", err)
    assert np.array_equal(runner.infer(small), before)  # the runner still works with a smaller batch
"""


@pytest.mark.slow
def test_an_oversized_batch_is_out_of_memory_and_the_runner_remains_usable(tmp_path: Path) -> None:
    generate(tmp_path / "m.onnx", form="128", seed=0)
    engine = build_engine(spec(dimension=128), tmp_path / "m.onnx", backend="cpu", output=tmp_path).engine
    command = [sys.executable, "-c", OUT_OF_MEMORY, str(ROOT), str(engine)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "out of memory: E-MEMORY: a batch of 256 failed" in result.stdout
    assert "smaller --batch-size" in result.stdout
