"""The whole main job on the GPU path, on the CPU: DALI's CPU graph, and shims in the places of CUDA and TensorRT."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from cuda_shim import ShimDriver
from tensorrt_shim import ShimCrops, shim

from runtime.engines import tensorrt_runner
from runtime.engines.sidecar import sidecar_path
from runtime.errors import ConfigError, ContractError
from runtime.images.decode_dali import DaliDecoder
from runtime.pipeline import device_work
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.storage.segments import SegmentRules

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what DALI's own dependencies deprecate is not ours to mend
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")


@pytest.fixture
def engine(tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of the backend tensorrt, as far as anybody can tell here."""
    path = tmp_path / "tiny.plan"
    path.write_bytes(tiny_engine.read_bytes())
    card = json.loads(sidecar_path(tiny_engine).read_text())
    card |= {"backend": "tensorrt", "backend_version": "tensorrt shim", "device": "shim", "profile": [1, 32, 64]}
    sidecar_path(path).write_text(json.dumps(card))
    monkeypatch.setitem(sys.modules, "tensorrt", shim())
    monkeypatch.setattr(tensorrt_runner, "open_driver", lambda: ShimDriver(tmp_path))

    def on_the_cpu(*arguments: Any, device: str, device_id: int, **options: Any) -> DaliDecoder:
        assert (device, device_id) == ("mixed", 0)
        return DaliDecoder(*arguments, **options)

    monkeypatch.setattr(device_work, "DaliDecoder", on_the_cpu)
    monkeypatch.setattr(device_work, "DeviceCrops", ShimCrops)
    return path


@pytest.fixture
def request_for(photos: Path, tmp_path: Path) -> Callable[..., Request]:
    return functools.partial(Request, (str(photos),), tmp_path / "o.h5", rules=SegmentRules(100, 60))


def test_the_file_is_that_of_the_cpu(
    engine: Path, tiny_engine: Path, request_for: Callable[..., Request], tmp_path: Path
) -> None:
    found = process(request_for(engine))
    wanted = process(Request((request_for(engine).inputs[0],), tmp_path / "cpu.h5", tiny_engine))
    assert found.outcomes == wanted.outcomes == {"embedded": 594, "corrupt": 6}
    assert set(found.stages) == {"read", "decode", "infer", "write"}
    assert found.stages["infer"]["images_per_s"] > 0
    with h5py.File(tmp_path / "o.h5") as mine, h5py.File(tmp_path / "cpu.h5") as theirs:
        np.testing.assert_array_equal(mine["image_paths"][:], theirs["image_paths"][:])
        np.testing.assert_array_equal(mine["outcomes/status"][:], theirs["outcomes/status"][:])
        cosines = (mine["embeddings"][:] * theirs["embeddings"][:]).sum(axis=1)
        assert cosines.min() > 0.99
        assert cosines.mean() > 0.999
        assert mine["metadata"].attrs["decoder"] == "dali"
        assert theirs["metadata"].attrs["decoder"] == "opencv"


def test_the_cpu_may_decode_for_it(engine: Path, request_for: Callable[..., Request], tmp_path: Path) -> None:
    found = process(request_for(engine, decoder="opencv"))
    assert found.outcomes == {"embedded": 594, "corrupt": 6}
    with pytest.raises(ContractError, match="decoder: 'opencv' there, 'dali' now"):
        process(request_for(engine, decoder="dali"))


def test_dali_decodes_for_tensorrt_alone(tiny_engine: Path, request_for: Callable[..., Request]) -> None:
    with pytest.raises(ConfigError, match="--decoder dali was given with an engine for cpu"):
        process(request_for(tiny_engine, decoder="dali"))
    with pytest.raises(ConfigError, match="--decoder is 'nvjpeg'"):
        request_for(tiny_engine, decoder="nvjpeg")


def test_without_dali_the_cpu_decodes_and_the_log_says_so(
    engine: Path,
    request_for: Callable[..., Request],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("runtime.pipeline.request.available", lambda module: False)
    with caplog.at_level("INFO"):
        assert process(request_for(engine, limit=50)).processed == 50
    assert "decoding on the CPU: DALI is not installed (pip install" in caplog.text
