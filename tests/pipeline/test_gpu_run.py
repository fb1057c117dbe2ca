"""`process` on the GPU path, tested on the CPU: DALI's CPU graph, and stand-ins for CUDA and TensorRT."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.engines.build import build_engine
from runtime.engines.engine import Engine, read_engine
from runtime.engines.tensorrt import runner as tensorrt_runner
from runtime.errors import ConfigError, ContractError
from runtime.faces.rules import FaceRules
from runtime.images.dali_crops import DaliDecoder
from runtime.images.dali_photos import DaliPhotos
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline import gpu_embed, gpu_faces, run, tuning
from runtime.pipeline.request import Request, RunOptions, resolve_request
from runtime.pipeline.run import process
from runtime.pipeline.tuning import preparation_key, recall_settings
from runtime.storage.segments import SegmentRules
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import assert_names, raises
from tests.support.late_dali import decode_late
from tests.support.model_files import copy_engine
from tests.support.red_square_detector import picture, save_red_squares
from tests.support.tensorrt_stand_in import tensorrt_module

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

SMALL_SEGMENTS = RunOptions(segments=SegmentRules(100, 60))


def write_plan(engine: Path, folder: Path, profile: tuple[int, int, int]) -> Engine:
    """Copy an ONNX engine as a TensorRT plan; the stand-in for TensorRT runs it."""
    shim = {"backend": "tensorrt", "backend_version": "tensorrt shim", "device": "shim"}
    return copy_engine(engine, folder / f"{engine.stem}.plan", profile=profile, **shim)


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Make the tiny engine a TensorRT plan, and replace CUDA and TensorRT by their stand-ins."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_module())
    monkeypatch.setattr(tensorrt_runner, "open_driver", lambda: ShimDriver(tmp_path))

    def open_on_cpu(kind: Any, *arguments: Any) -> Any:
        *positional, options = arguments
        assert (options.device, options.device_id) == ("mixed", 0)
        return kind(*positional, replace(options, device="cpu"))

    monkeypatch.setattr(gpu_embed, "DaliDecoder", functools.partial(open_on_cpu, DaliDecoder))
    decode_late(monkeypatch)
    monkeypatch.setattr(gpu_faces, "DaliPhotos", functools.partial(open_on_cpu, DaliPhotos))
    return write_plan(tiny_engine, tmp_path, (1, 32, 64))


@pytest.fixture(scope="module")
def cpu_detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Build a detector for the CPU."""
    folder = tmp_path_factory.mktemp("red")
    detector_spec = load_spec(str(save_red_squares(folder)))
    return build_engine(detector_spec, resolve_weights(detector_spec), backend="cpu", output=folder).engine


def draw_portraits(folder: Path, side: int) -> Path:
    """Write 70 photos with no, one and two faces, in several sizes and formats; some are damaged."""
    rng = np.random.default_rng(0)
    for i in range(70):
        squares = [(int(rng.integers(0, 100)), int(rng.integers(0, 120)), side)] if i % 10 else []
        squares += [(160, 260, side + 2)] if i % 4 == 1 else []
        pixels = picture(400 + 16 * (i % 3), 300 + 8 * (i % 5), *squares, seed=i)
        data = make.encode(pixels, "PNG") if i % 15 == 7 else make.encode(pixels, quality=90, subsampling=2)
        (folder / f"p{i:03d}").with_suffix(".png" if i % 15 == 7 else ".jpg").write_bytes(
            data[: len(data) // 2] if i % 30 == 4 else data
        )
    return folder


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_portraits(tmp_path_factory.mktemp("portraits"), 110)


@pytest.fixture
def request_for(photos: Path, tmp_path: Path) -> Callable[..., Request]:
    return functools.partial(Request, (str(photos),), tmp_path / "o.h5", run=SMALL_SEGMENTS, faces=FaceRules("none"))


@pytest.mark.slow
def test_the_gpu_path_writes_the_file_of_the_cpu_path(
    engine: Engine, tiny_engine: Path, request_for: Callable[..., Request], tmp_path: Path
) -> None:
    gpu_summary = process(request_for(engine))
    cpu_summary = process(
        Request(
            (request_for(engine).inputs[0],), tmp_path / "cpu.h5", read_engine(tiny_engine), faces=FaceRules("none")
        )
    )
    assert gpu_summary.outcomes == cpu_summary.outcomes == {"embedded": 594, "corrupt": 6}
    assert set(gpu_summary.stages) == {"read", "decode", "infer", "write"}
    assert gpu_summary.stages["infer"]["images_per_s"] > 0
    with h5py.File(tmp_path / "o.h5") as gpu_file, h5py.File(tmp_path / "cpu.h5") as cpu_file:
        np.testing.assert_array_equal(gpu_file["image_paths"][:], cpu_file["image_paths"][:])
        np.testing.assert_array_equal(gpu_file["outcomes/status"][:], cpu_file["outcomes/status"][:])
        cosines = (gpu_file["embeddings"][:] * cpu_file["embeddings"][:]).sum(axis=1)
        assert cosines.min() > 0.99
        assert cosines.mean() > 0.999
        assert gpu_file["metadata"].attrs["decoder"] == "dali"
        assert cpu_file["metadata"].attrs["decoder"] == "opencv"


@pytest.mark.slow
def test_opencv_may_decode_for_tensorrt(engine: Engine, request_for: Callable[..., Request], tmp_path: Path) -> None:
    summary = process(request_for(engine, decoder="opencv"))
    assert summary.outcomes == {"embedded": 594, "corrupt": 6}
    with raises(ContractError, "decoder", "opencv", "dali"):
        process(request_for(engine, decoder="dali"))


def test_dali_decodes_only_for_tensorrt(tiny_engine: Path, request_for: Callable[..., Request]) -> None:
    with raises(ConfigError, "--decoder dali", "cpu"):
        process(request_for(read_engine(tiny_engine), decoder="dali"))
    with raises(ConfigError, "--decoder", "nvjpeg"):
        request_for(read_engine(tiny_engine), decoder="nvjpeg")


def test_without_dali_the_cpu_decodes_and_a_message_is_logged(
    engine: Engine,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("runtime.pipeline.request.available", lambda module: False)
    with caplog.at_level("INFO"):
        assert process(request_for(engine, limit=50)).processed == 50
    assert_names(caplog.text, "CPU", "DALI", "pip install")


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "side"), [("largest", 110), ("all", 44)])
def test_the_gpu_path_finds_the_faces_of_the_cpu_path(
    engine: Engine, tiny_engine: Path, cpu_detector: Engine, tmp_path: Path, policy: str, side: int
) -> None:
    (tmp_path / "photos").mkdir()
    portraits = draw_portraits(tmp_path / "photos", side)
    faces = FaceRules(align="detect", policy=policy, min_iod=0)
    outputs = tmp_path / "gpu.h5", tmp_path / "cpu.h5"
    engines = (engine, write_plan(cpu_detector.path, tmp_path, (1, 4, 8))), (read_engine(tiny_engine), cpu_detector)
    gpu_summary, cpu_summary = (
        process(Request((str(portraits),), output, embedder, faces=faces, detector=detector, run=SMALL_SEGMENTS))
        for output, (embedder, detector) in zip(outputs, engines, strict=True)
    )
    assert gpu_summary.outcomes == cpu_summary.outcomes
    assert gpu_summary.outcomes.keys() == {"embedded", "corrupt", "no-face"}
    assert set(gpu_summary.stages) == {"read", "decode", "detect", "infer", "write"}
    assert all(stage["images_per_s"] > 0 for stage in gpu_summary.stages.values())
    with h5py.File(outputs[0]) as gpu_file, h5py.File(outputs[1]) as cpu_file:
        for name in ("image_paths", "outcomes/status", "outcomes/faces", "face_index"):
            np.testing.assert_array_equal(gpu_file[name][:], cpu_file[name][:])
        assert np.abs(gpu_file["faces/box"][:] - cpu_file["faces/box"][:]).max() < 1.5
        assert np.abs(gpu_file["faces/landmarks"][:] - cpu_file["faces/landmarks"][:]).max() < 1
        cosines = (gpu_file["embeddings"][:] * cpu_file["embeddings"][:]).sum(axis=1)
        assert cosines.min() > 0.999
        assert gpu_file["metadata"].attrs["decoder"] == "dali"


@pytest.mark.slow
def test_tuned_settings_are_stored_per_detector(
    engine: Engine, cpu_detector: Engine, portraits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "TUNE_FROM_ROWS", 64)
    monkeypatch.setattr(tuning, "_GPU_SLOTS", (2,))
    gpu_detector = write_plan(cpu_detector.path, tmp_path, (1, 4, 8))
    request = Request((str(portraits),), tmp_path / "o.h5", engine, faces=FaceRules("detect"), detector=gpu_detector)
    assert process(request).processed == 70
    assert recall_settings(engine.info, preparation_key(replace(request, decoder="dali"))) is not None
    assert recall_settings(engine.info, "dali") is None


@pytest.mark.slow
def test_dali_needs_both_engines_on_the_gpu(
    engine: Engine, cpu_detector: Engine, portraits: Path, tmp_path: Path
) -> None:
    request = Request((str(portraits),), tmp_path / "o.h5", engine, faces=FaceRules("detect"), detector=cpu_detector)
    with raises(ConfigError, "cpu", "tensorrt"):
        process(replace(request, decoder="dali"))
    assert process(replace(request, limit=12)).processed == 12
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["metadata"].attrs["decoder"] == "opencv"


def test_opencv_decodes_where_all_pages_are_taken(
    engine: Engine, cpu_detector: Engine, portraits: Path, tmp_path: Path
) -> None:
    gpu_detector = write_plan(cpu_detector.path, tmp_path, (1, 4, 8))
    request = Request((str(portraits),), tmp_path / "o.h5", engine, gpu_detector, FaceRules("detect", pages="all"))
    assert resolve_request(request).decoder == "opencv"
    assert resolve_request(replace(request, faces=FaceRules("detect"))).decoder == "dali"
