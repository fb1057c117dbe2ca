"""The device of a gallery search, its log line, and invalid requests. The GPU is a fake."""

from __future__ import annotations

import logging
import types
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np
import pytest

from runtime.errors import ConfigError, EngineError, MissingDependencyError, OutOfMemoryError
from runtime.index import flat, gpu, placement
from runtime.index.exact import exact_top_k
from runtime.index.flat import FlatIndex
from runtime.index.memoryplan import resident_plan, streamed_plan
from runtime.index.open import open_index
from runtime.index.placement import GpuPlan, choose_gpu, estimate_s, gpu_source
from runtime.storage.file import EmbeddingFile
from tests.index.test_flat import unit_rows, write_gallery
from tests.index.test_sources import MAKERS, HalfIndex
from tests.support.errors import assert_names, raises

GB = 10**9
MILLIONS = 5_000_000, 512


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Fake a GPU with 24 GB free and a machine with 16 cores; return the queried devices."""
    devices: list[int] = []

    def memory(device: int) -> tuple[str, int]:
        devices.append(device)
        return "NVIDIA Pretended", 24 * GB

    monkeypatch.setattr(placement, "count_gpus", lambda: 1)
    monkeypatch.setattr(placement, "gpu_memory", memory)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    return devices


def test_the_upload_pays_off_only_for_many_queries() -> None:
    cpu, gpu_s = estimate_s(*MILLIONS, 1, cores=16)
    assert cpu < gpu_s
    cpu, gpu_s = estimate_s(*MILLIONS, 10_000, cores=16)
    assert gpu_s < cpu
    assert estimate_s(*MILLIONS, 10, cores=2)[0] > estimate_s(*MILLIONS, 10, cores=16)[0]


def test_auto_weighs_queries_and_logs_the_reason(one_gpu: list[int], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        assert choose_gpu("auto", *MILLIONS, k=50, queries=1) is None
        assert one_gpu == []  # the GPU is not even queried
        assert_names(caplog.text, "CPU", "1.1 s", 1, "GPU", "5.6 s")
        choice = choose_gpu("auto", *MILLIONS, k=50, queries=10_000)
    assert choice is not None
    assert (choice.device, choice.plan.placement) == (0, "fp32")
    assert_names(caplog.text, "GPU 0", "NVIDIA Pretended", "24.00 GB", "5,000,000", "FP32", "10.24 GB")


def test_a_named_gpu_is_used_at_any_cost(one_gpu: list[int]) -> None:
    assert choose_gpu("gpu", 10, 512, k=50, queries=1) is not None
    choice = choose_gpu("3", 10, 512, k=5000, queries=1)  # ten hits at most
    assert choice is not None
    assert choice.device == 3
    assert one_gpu == [0, 3]
    assert choose_gpu("cpu", *MILLIONS, k=50, queries=10_000) is None


def test_auto_falls_back_with_the_reason_but_a_named_gpu_does_not(
    one_gpu: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert choose_gpu("auto", *MILLIONS, k=2000, queries=10_000) is None
    assert_names(caplog.text, "CPU", 2000)
    with raises(ConfigError, 1024):
        choose_gpu("gpu", *MILLIONS, k=2000, queries=1)
    monkeypatch.setattr(placement, "gpu_memory", lambda device: ("NVIDIA Full", GB // 2))
    with caplog.at_level(logging.INFO):
        assert choose_gpu("auto", *MILLIONS, k=10, queries=10_000) is None
    assert "0.50 GB free" in caplog.text
    with raises(OutOfMemoryError, "0.50 GB"):
        choose_gpu("0", *MILLIONS, k=10, queries=1)


@pytest.mark.parametrize("device", ["", "gpu0", "-1", "cuda", "1.5"])
def test_an_unknown_device_is_refused(device: str) -> None:
    with raises(ConfigError, "auto", "cpu", "gpu"):
        choose_gpu(device, 10, 32, k=1, queries=1)


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="this FAISS is built for GPUs")
def test_a_faiss_without_gpus_is_named_with_the_command() -> None:
    assert choose_gpu("auto", *MILLIONS, k=10, queries=10_000) is None
    with raises(MissingDependencyError, "pip uninstall -y faiss-cpu && pip install faiss-gpu", "--device cpu"):
        choose_gpu("gpu", *MILLIONS, k=10, queries=1)


class FakeIndex:
    """Accepts the arguments of FAISS's GPU index, and keeps the rows on the CPU."""

    failure = ""
    temporary_bytes: ClassVar[list[int]]  # temporary memory of each index

    def __init__(self, resources: Any, dimension: int, config: Any) -> None:
        assert (resources.pinned, config.device, config.use_cuvs) == (0, 2, False)
        self.taken.append(resources.temp)
        self._index = HalfIndex(dimension) if config.useFloat16 else faiss.IndexFlatIP(dimension)
        self.ntotal = 0

    def add(self, vectors: Any) -> None:
        if self.failure:
            raise RuntimeError(self.failure)
        self._index.add(vectors)
        self.ntotal += len(vectors)

    def reset(self) -> None:
        self._index.reset()
        self.ntotal = 0

    def search(self, queries: Any, k: int) -> Any:
        return self._index.search(queries, k)


class FakeResources:
    def setTempMemory(self, size: int) -> None:  # noqa: N802
        self.temp = size

    def setPinnedMemory(self, size: int) -> None:  # noqa: N802
        self.pinned = size


@pytest.fixture
def fake_faiss(monkeypatch: pytest.MonkeyPatch) -> type[FakeIndex]:
    class Index(FakeIndex):
        taken: ClassVar[list[int]] = []

    module = types.SimpleNamespace(
        __version__="1.15",
        StandardGpuResources=FakeResources,
        GpuIndexFlatConfig=lambda: types.SimpleNamespace(use_cuvs=True),
        GpuIndexFlatIP=Index,
        get_num_gpus=lambda: 2,
    )
    monkeypatch.setattr(gpu, "gpu_faiss", lambda: module)
    return Index


@pytest.mark.parametrize("half", [False, True])
def test_an_index_on_a_gpu_is_filled_searched_and_emptied(fake_faiss: type[FakeIndex], half: bool) -> None:
    index = gpu.GpuIndex(2, 32, half=half, scratch_bytes=1000)
    assert fake_faiss.taken == [1000]
    index.add(unit_rows(50))
    assert index.ntotal == 50
    scores, rows = index.search(unit_rows(50)[:3], 1)
    assert rows.tolist() == [[0], [1], [2]]
    assert (np.abs(scores - 1).max() > 1e-5) == half
    index.reset()
    assert index.ntotal == 0


@pytest.mark.parametrize("placement", ["fp32", "fp16", "streamed"])
def test_faiss_takes_the_temporary_memory_that_the_plan_counts(
    fake_faiss: type[FakeIndex], monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    monkeypatch.setattr("runtime.index.memoryplan._PIECE_ROWS", 700)
    host = faiss.IndexFlatIP(32)
    host.add(unit_rows(3000))
    if placement == "streamed":
        plan = streamed_plan(3000, 32, 2 * GB, queries=5)
    else:
        plan = resident_plan(3000, 32, half=placement == "fp16", queries=5)
    source = gpu_source(GpuPlan(2, plan), host)
    indexes = 2 if placement == "streamed" else 4
    assert fake_faiss.taken == [plan.scratch_bytes] * indexes
    assert plan.device_bytes > plan.vector_bytes + indexes * plan.scratch_bytes
    rows, _ = exact_top_k(host, source, unit_rows(3000)[[0, 749, 750, 2999]], 1)
    assert rows[:, 0].tolist() == [0, 749, 750, 2999]


@pytest.mark.parametrize(
    ("message", "kind", "advice"),
    [
        (
            "StandardGpuResources: alloc fail type FlatData (cudaMalloc error out of memory [2])",
            OutOfMemoryError,
            (),
        ),
        ("something else", EngineError, ("facemill doctor",)),
    ],
)
def test_errors_of_faiss_on_a_gpu_are_translated(
    fake_faiss: type[FakeIndex], message: str, kind: type[EngineError], advice: tuple[str, ...]
) -> None:
    fake_faiss.failure = message
    with raises(kind, "FAISS", "GPU 2", message, *advice, "--device cpu"):
        gpu.GpuIndex(2, 32, half=False, scratch_bytes=1000).add(unit_rows(5))


def test_a_missing_gpu_is_refused(fake_faiss: type[FakeIndex], monkeypatch: pytest.MonkeyPatch) -> None:
    with raises(EngineError, "GPU 2", "FAISS", 0, 1, "facemill doctor"):
        gpu.gpu_memory(2)
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    with raises(EngineError, "unset NVIDIA_TF32_OVERRIDE"):
        gpu.gpu_memory(1)


@pytest.fixture
def gallery_file(tmp_path: Path) -> Path:
    return write_gallery(tmp_path / "people.h5", unit_rows(3000))


def use_fake_gpu(monkeypatch: pytest.MonkeyPatch, placement: str) -> GpuPlan:
    monkeypatch.setattr(flat, "gpu_source", lambda plan, host: MAKERS[placement](host))
    return GpuPlan(0, resident_plan(3000, 32, half=True, queries=1))


@pytest.mark.parametrize("placement", ["fp32", "fp16", "streamed"])
@pytest.mark.parametrize("k", [1, 10, 1024])
def test_the_gpu_gives_the_answer_of_the_cpu(
    gallery_file: Path, monkeypatch: pytest.MonkeyPatch, placement: str, k: int
) -> None:
    where = use_fake_gpu(monkeypatch, placement)
    queries = np.concatenate([unit_rows(3000)[5:10], unit_rows(3, seed=20)])
    with EmbeddingFile(gallery_file) as gallery, FlatIndex(gallery) as cpu, FlatIndex(gallery, where) as index:
        expected, got = cpu.search(queries, k), index.search(queries, k)
        np.testing.assert_array_equal(got[0], expected[0])
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("placement", ["fp16", "streamed"])
def test_too_many_hits_and_invalid_queries_are_refused(
    gallery_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, placement: str
) -> None:
    where = use_fake_gpu(monkeypatch, placement)
    with EmbeddingFile(gallery_file) as gallery, FlatIndex(gallery, where) as index:
        with raises(ConfigError, 1025, 1024):
            index.search(unit_rows(1), 1025)
        with raises(ConfigError, "(1, 32)", "(q, 32)"):
            index.search(np.full((1, 32), np.inf, np.float32), 1)
        assert index.search(np.empty((0, 32), np.float32), 4)[0].shape == (0, 4)
    few = write_gallery(tmp_path / "few.h5", unit_rows(3))
    with EmbeddingFile(few) as gallery, FlatIndex(gallery, where) as index:
        assert sorted(index.search(unit_rows(1), 2000)[0][0]) == [0, 1, 2]


def test_auto_continues_on_the_cpu_when_the_gpu_fails_but_a_named_gpu_does_not(
    gallery_file: Path, one_gpu: list[int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(plan: GpuPlan, host: Any) -> Any:
        raise OutOfMemoryError("another program was quicker")

    monkeypatch.setattr(flat, "gpu_source", refuse)
    with EmbeddingFile(gallery_file) as gallery:
        with raises(OutOfMemoryError, "quicker"):
            open_index(gallery, "gpu", k=1, queries=1)
        with caplog.at_level(logging.WARNING), open_index(gallery, k=1, queries=10**9) as index:
            np.testing.assert_array_equal(index.search(unit_rows(3000)[:4], 1)[0][:, 0], range(4))
    assert_names(caplog.text, "CPU", "another program was quicker")


def test_an_empty_gallery_needs_no_gpu_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import h5py

    with h5py.File(tmp_path / "none.h5", "w") as file:
        file.create_dataset("embeddings", shape=(0, 32), dtype=np.float32)
        file.create_dataset("image_paths", shape=(0,), dtype="S1")
        file.create_group("metadata").attrs.update(
            {"format_version": 1, "run_id": "x", "dimension": 32, "contract": '{"root": "/"}'}
        )
    monkeypatch.setattr(flat, "gpu_source", None)
    where = GpuPlan(0, resident_plan(0, 32, half=False, queries=1))
    with EmbeddingFile(tmp_path / "none.h5") as gallery, FlatIndex(gallery, where) as index:
        assert index.search(unit_rows(2), 5)[0].shape == (2, 0)
