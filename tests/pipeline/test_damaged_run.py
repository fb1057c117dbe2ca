"""What an unfinished run relies on has checksums: damage is repaired, or is an error, and never gives a wrong row."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import pytest

from runtime.engines.engine import read_engine
from runtime.errors import DamagedError, Interrupted, StorageError
from runtime.faces.rules import FaceRules
from runtime.pipeline import run
from runtime.pipeline.request import Request, RunOptions
from runtime.pipeline.run import process
from runtime.storage.dataset import assemble
from runtime.storage.ledger import Ledger
from runtime.storage.segments import SegmentRules
from runtime.storage.verify import verify_file
from tests.support import encoded_images as make
from tests.support.embedding_files import differences
from tests.support.errors import raises

PHOTOS = 48


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    for i in range(PHOTOS):
        (path / f"{i:02d}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=i), quality=70))
    return path


def request_of(folder: Path, output: Path, engine: Path) -> Request:
    options = RunOptions(batch_size=4, workers=1, segments=SegmentRules(8, 60.0))
    faces = FaceRules(align="none")
    return Request((str(folder),), output, read_engine(engine), faces=faces, decoder="opencv", run=options)


@pytest.fixture(scope="module")
def undisturbed(folder: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "o.h5"
    process(request_of(folder, output, tiny_engine))
    return output


@pytest.fixture
def request_(folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """A request whose run was stopped before it wrote the finished file; it has six segments of 8 photos."""

    def stop(*arguments: object, **options: object) -> None:
        raise Interrupted("stopped", 0)

    request = request_of(folder, tmp_path / "o.h5", tiny_engine)
    monkeypatch.setattr(run, "assemble", stop)
    with pytest.raises(Interrupted):
        process(request)
    monkeypatch.undo()
    return request


def parts_of(request: Request) -> Path:
    return request.output.with_name(request.output.name + ".parts")


def flip_bit(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["paths", "plan.json", "segment-000001.h5", "segment-000002.h5"])
def test_one_wrong_bit_is_repaired_or_refused(request_: Request, undisturbed: Path, name: str, seed: int) -> None:
    flip_bit(parts_of(request_) / name, random.Random(f"{name} {seed}"))
    segments = sorted(os.listdir(parts_of(request_)))
    try:
        process(request_)
        refused = False
    except StorageError:
        refused = True
    if refused:
        assert name == "plan.json"
        assert sorted(os.listdir(parts_of(request_))) == segments  # they may still be of use
        process(Request(**{**_fields(request_), "force": True}))
    assert differences(request_.output, undisturbed) == []
    assert verify_file(request_.output).findings == ()


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in Request.__slots__}


@pytest.mark.slow
def test_a_damaged_list_of_photos_that_changed_is_an_error(request_: Request, tmp_path: Path, folder: Path) -> None:
    (parts_of(request_) / "paths").write_bytes(b"00.jpg\0")
    segments = sorted(os.listdir(parts_of(request_)))
    hidden = (folder / "47.jpg").rename(tmp_path / "47.jpg")
    try:
        with raises(StorageError):
            process(request_)
    finally:
        hidden.rename(folder / "47.jpg")
    assert sorted(os.listdir(parts_of(request_))) == segments


@pytest.mark.parametrize("change", ["row of another photo", "row twice", "row of no photo", "unknown status"])
def test_a_segment_that_contradicts_the_plan_is_embedded_again(
    request_: Request, undisturbed: Path, change: str
) -> None:
    segment = parts_of(request_) / "segment-000001.h5"
    with h5py.File(segment, "r+") as file:  # with right checksums: written by a fault in memory, not on the disk
        rows = file["outcomes/row"][:]
        if change == "unknown status":
            file["outcomes/status"][0] = 200
        else:
            rows[-1] = {"row of another photo": rows[0], "row twice": rows[-2], "row of no photo": PHOTOS}[change]
            file["outcomes/row"][:] = rows
    process(request_)
    assert differences(request_.output, undisturbed) == []


def test_a_ledger_with_pending_rows_is_not_assembled(tmp_path: Path) -> None:
    with Ledger(3, tmp_path, "plan") as ledger, raises(DamagedError):
        assemble(tmp_path / "o.h5", ledger, [b"a", b"b", b"c"], {"dimension": 4}, "float32")
    assert not (tmp_path / "o.h5").exists()


def test_a_run_of_an_older_version_resumes(request_: Request, undisturbed: Path) -> None:
    path = parts_of(request_) / "plan.json"
    plan = json.loads(path.read_text())
    del plan["checksum"], plan["paths_sha256"]
    path.write_text(json.dumps(plan))
    process(request_)
    assert differences(request_.output, undisturbed) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["attribute", "name", "value of a dataset without a checksum"])
def test_verify_sees_every_change_of_a_finished_file(undisturbed: Path, tmp_path: Path, place: str) -> None:
    path = Path(shutil.copy(undisturbed, tmp_path / "o.h5"))
    assert verify_file(path).findings == ()
    with h5py.File(path, "r+") as file:
        if place == "attribute":
            file["metadata"].attrs["engine"] = "/another/engine.onnx"
        elif place == "name":
            file["metadata"].attrs["Run_id"] = file["metadata"].attrs["run_id"]
        else:
            file["outcomes/detail"][0] = b"something else"
    assert any(finding.startswith("content") for finding in verify_file(path).findings)
