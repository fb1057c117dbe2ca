"""One photo is data: whatever its pixels make fail, the run goes on, and what was finished is kept."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from runtime.engines.backends import open_runner
from runtime.engines.build import build_engine
from runtime.engines.engine import read_engine
from runtime.engines.runner import Runner
from runtime.errors import EngineError, FacemillError, StorageError
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.interrupt import RunControl
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline.face_work import find_faces_with
from runtime.pipeline.request import Request
from runtime.pipeline.settings import Settings
from runtime.pipeline.worker import RunContext, Task, embed_task
from runtime.records import Photo, Photos, Status
from runtime.sources.source import MemorySource
from runtime.storage.segments import read_segments
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.facemill_command import facemill, summary
from tests.support.model_files import spec
from tests.support.red_square_detector import picture, save_red_squares


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("red")
    model = load_spec(str(save_red_squares(folder)))
    return open_runner(build_engine(model, resolve_weights(model), backend="cpu", output=folder).engine)


@pytest.mark.slow
def test_a_thin_photo_is_an_outcome_of_every_command(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for kind in ("PNG", "BMP", "TIFF"):
        (folder / f"thin.{kind.lower()}").write_bytes(make.encode(np.full((3000, 1, 3), 180, np.uint8), kind))
    for seed in range(3):
        (folder / f"whole{seed}.png").write_bytes(make.encode(make.scene(112, 112, seed=seed), "PNG"))
    output = tmp_path / "o.h5"
    answer = summary(facemill("process", folder, "-o", output, "--engine", tiny_engine, "--json"))
    assert answer["outcomes"] == {"embedded": 3, "no-face": 3}
    with h5py.File(output) as file:
        assert [len(detail) > 0 for detail in file["outcomes/detail"][:]] == [True] * 3 + [False] * 3
    found = facemill("search", output, folder / "thin.png", folder / "whole0.png", "--json")
    assert found.returncode in (0, 1)
    assert "Traceback" not in found.stderr
    assert "no-face" in found.stdout + found.stderr
    more = tmp_path / "more"
    more.mkdir()
    (more / "line.png").write_bytes(make.encode(np.full((1, 4000, 3), 180, np.uint8), "PNG"))
    assert facemill("add", output, more).returncode == 0


def photo_of(pixels: np.ndarray) -> Photo:
    return Photo(pixels, 1, *pixels.shape[:2])


@pytest.mark.slow
def test_a_photo_whose_pixels_break_a_stage_is_its_own_outcome(detector: Runner) -> None:
    face = picture(400, 300, (100, 120, 90))
    flat = np.zeros((64, 64), np.uint8)  # without channels: it fits no canvas
    batch = Photos(np.array([3, 5, 9]), photos=(photo_of(face), photo_of(flat), photo_of(face)), files=(b"", b"", b""))
    rules = FaceRules(align="detect", min_iod=0)
    got = find_faces_with(detector, rules, spec(channel_order="rgb"), Limits())(batch)
    assert got.rows.tolist() == [3, 9]
    assert [(o.row, o.status) for o in got.outcomes] == [(5, Status.CORRUPT)]
    assert got.face_counts == {3: 1, 9: 1}


@dataclass(frozen=True)
class Fails(MemorySource):
    """Photos of which one makes the source fail, as a disk does."""

    error: Exception = field(default_factory=ValueError)
    at: int = 0

    def read(self, row: int) -> bytes:
        if row == self.at:
            raise self.error
        return super().read(row)


@pytest.mark.slow
@pytest.mark.parametrize("error", [EngineError("the engine broke"), StorageError("the table of duplicates broke")])
def test_what_was_finished_is_kept_when_a_stage_dies(error: FacemillError, tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "o.h5.parts"
    folder.mkdir()
    photos = [make.encode(make.scene(112, 112, seed=seed % 7), "PNG") for seed in range(640)]
    source = Fails(photos, error=error, at=600)
    request = Request((), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules(align="none"))
    task = Task(request, "plan", folder, Settings(16, 1, 1, 1, 1))
    finished: list[int] = []

    def advance(count: int, counts: Mapping[str, int]) -> None:
        finished.append(count)

    context = RunContext(source, RunControl(), clocks=task.clocks(), advance=advance)
    with raises(type(error)):
        embed_task(task, np.arange(640), context)
    kept = [row for segment in read_segments(folder, "plan", 640) for row in segment.rows.tolist()]
    assert len(kept) == sum(finished) >= 400
    assert kept == list(range(len(kept)))


@pytest.mark.slow
@pytest.mark.parametrize("align", ["auto", "none"])
def test_the_outcome_of_a_photo_names_its_page(align: str, tiny_engine: Path, tmp_path: Path) -> None:
    pages = io.BytesIO()
    first, second = (Image.fromarray(make.scene(112, 112, seed=seed)) for seed in (1, 2))
    first.save(pages, "TIFF", save_all=True, append_images=[second])
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "one.tif").write_bytes(make.encode(make.scene(112, 112), "TIFF"))
    (folder / "two.tif").write_bytes(pages.getvalue())
    output = tmp_path / "o.h5"
    arguments = ("process", folder, "-o", output, "--engine", tiny_engine, "--align", align, "--json")
    assert summary(facemill(*arguments))["outcomes"] == {"embedded": 2}
    with h5py.File(output) as file:
        assert file["outcomes/detail"].asstr()[:].tolist() == ["", "page 1 of 2"]
    assert facemill("verify", output).returncode == 0
