"""A GPU's decoder that shows another photo than its file stops the run, with the name of the photo."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.engines.build import build_engine
from runtime.errors import EngineError
from runtime.faces.rules import FaceRules
from runtime.graphs.prepare import prepare_graph
from runtime.images.jpeg_runs import JpegRuns
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline.gpu_check import EVERY, sampled
from runtime.records import Encoded
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver
from tests.support.errors import raises
from tests.support.gpu_stages import open_crop_stage, open_face_stage
from tests.support.late_dali import decode_late
from tests.support.model_files import info, save_cnn, spec
from tests.support.red_square_detector import picture, save_red_squares

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

INFO = info(backend="tensorrt", backend_version="tensorrt shim", profile=(1, 8, 8))
PHOTOS = [make.encode(picture(400, 300, (40 + 7 * i, 100 + 11 * i, 110 + 3 * i), seed=i)) for i in range(4)]
SCENES = [make.encode(make.scene(400, 300, i)) for i in range(4)]
NAMES = [b"%d.jpg" % i for i in range(4)] * EVERY


def mix_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make DALI show the next photo of a run instead of each."""
    execute = JpegRuns._execute

    def execute_shifted(pipe: Any, files: list[bytes], stream: int | None) -> Any:
        return execute(pipe, [*files[1:], *files[:1]], stream)

    monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_shifted))


def batch(first: int, files: list[bytes]) -> Encoded:
    return Encoded(np.arange(first, first + 4), files=tuple(files), names=NAMES)


def engine_in(folder: Path) -> bytes:
    return prepare_graph(save_cnn(folder / "m.onnx"), spec(), "fp32").SerializeToString()


def test_one_photo_in_a_thousand_is_compared() -> None:
    rows = np.arange(2990, 3010)
    assert sampled(rows, list(range(20))) == [10]
    assert sampled(rows, [3, 10, 12]) == [1]
    assert sampled(np.arange(10_000), list(range(10_000))) == list(range(0, 10_000, 1000))


@pytest.mark.slow
def test_a_crop_of_another_photo_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode_late(monkeypatch)
    mix_up(monkeypatch)
    with open_crop_stage(ShimDriver(tmp_path), (engine_in(tmp_path), INFO)) as stage:
        stage(batch(3001, SCENES))  # none of these rows is compared
        with raises(EngineError, "0.jpg", "grey levels", "--decoder opencv"):
            stage(batch(2998, SCENES))


@pytest.mark.slow
def test_a_photo_of_another_person_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    red = load_spec(str(save_red_squares(tmp_path)))
    finder = build_engine(red, resolve_weights(red), backend="cpu", output=tmp_path).engine
    mix_up(monkeypatch)
    rules = FaceRules(align="detect", min_iod=0)
    with open_face_stage((engine_in(tmp_path), info()), (finder.content(), finder.info), tmp_path, rules) as stage:
        stage(batch(3001, PHOTOS))
        with raises(EngineError, "0.jpg", "grey levels", "--decoder opencv"):
            stage(batch(2998, PHOTOS))


@pytest.mark.slow
def test_a_check_changes_no_result(tmp_path: Path) -> None:
    red = load_spec(str(save_red_squares(tmp_path)))
    finder = build_engine(red, resolve_weights(red), backend="cpu", output=tmp_path).engine
    engine, facts = (engine_in(tmp_path), info()), (finder.content(), finder.info)
    rules = FaceRules(align="detect", min_iod=0)
    with open_face_stage(engine, facts, tmp_path, rules, slots=1) as stage:
        checked, unchecked = stage(batch(2998, PHOTOS)), stage(batch(3001, PHOTOS))
    np.testing.assert_array_equal(checked.embeddings, unchecked.embeddings)
