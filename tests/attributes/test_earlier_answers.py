"""What `attributes` does with the answers that a file has: none is lost unless the user says so."""

from __future__ import annotations

import json
import shutil
import threading
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

import runtime
from runtime.attributes.answers import VALUES, unread_rows
from runtime.errors import ConfigError, Interrupted, LockedError, SourceError
from runtime.maintenance.attribute_parts import AttributeParts
from tests.support.attribute_files import write_attribute_model
from tests.support.errors import assert_refused, raises
from tests.support.facemill_command import facemill
from tests.support.people_files import make_people

BOTH = ("age", "gender")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_people(tmp_path / "photos", range(3))
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    write_attribute_model(folder)
    monkeypatch.setenv("FACEMILL_MODELS", str(folder))
    return folder


@pytest.fixture
def file(photos: Path, tmp_path: Path, tiny_engine: Path, models: Path) -> Path:
    """A file of 12 faces, and a head for its embeddings."""
    path = tmp_path / "a.h5"
    runtime.process(photos, path, engine=tiny_engine)
    with runtime.open(path) as gallery:
        facts = json.dumps({"model": gallery.contract.model, "model_sha256": gallery.contract.model_sha256})
        shapes = {"weight1": (gallery.dimension, 6), "bias1": (6,), "weight2": (6, VALUES), "bias2": (VALUES,)}
    rng = np.random.default_rng(3)
    np.savez(models / "head.npz", facts=facts, **{name: rng.normal(size=shape) for name, shape in shapes.items()})
    return path


def answers_of(file: Path) -> NDArray[np.void]:
    with runtime.open(file) as gallery:
        assert gallery.attributes is not None
        return np.array(gallery.attributes)


@pytest.mark.slow
def test_faces_whose_photos_are_gone_keep_their_answers_with_force(file: Path, photos: Path) -> None:
    runtime.add_attributes(file)
    before = answers_of(file)
    (photos / "P01" / "2.jpg").unlink()
    added = runtime.add_attributes(file, force=True)
    assert (added.read, added.kept, added.unread) == (11, 1, 0)
    assert (answers_of(file) == before).all()
    content = file.read_bytes()
    for person in photos.iterdir():
        shutil.rmtree(person)
    with raises(SourceError, 12):
        runtime.add_attributes(file, force=True)
    assert file.read_bytes() == content


@pytest.mark.slow
def test_faces_whose_photos_are_gone_keep_their_age_when_the_gender_is_added(file: Path, photos: Path) -> None:
    runtime.add_attributes(file, "age")
    before = answers_of(file)["age"]
    (photos / "P01" / "2.jpg").unlink()
    added = runtime.add_attributes(file, "gender")
    assert (added.names, added.read, added.unread) == (BOTH, 11, 1)
    after = answers_of(file)
    assert (after["age"] == before).all()
    assert (after["gender"] == b"").sum() == 1


@pytest.mark.slow
def test_another_source_replaces_answers_only_with_replace(file: Path, photos: Path) -> None:
    runtime.add_attributes(file, source="embeddings")
    content = file.read_bytes()
    (photos / "P01" / "2.jpg").unlink()
    for force in ([], ["--force"]):
        assert_refused(facemill("attributes", file, *force), "E-CONFIG", file, 12, "--replace")
    assert file.read_bytes() == content
    assert not list(file.parent.glob("*.parts"))
    result = facemill("attributes", file, "--replace", "--json")
    assert result.returncode == 0, result.stderr
    added = json.loads(result.stdout)
    assert (added["source"], added["read"], added["kept"], added["unread"]) == ("photos", 11, 0, 1)
    assert int(unread_rows(answers_of(file), BOTH).sum()) == 1


@pytest.mark.slow
def test_answers_that_no_face_has_are_replaced_without_asking(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["embeddings"][:] = 0
        del opened["metadata"].attrs["content_sha256"]
    assert runtime.add_attributes(file, source="embeddings").unread == 12
    assert runtime.add_attributes(file).read == 12


@pytest.mark.slow
def test_attributes_that_are_not_named_stay(file: Path) -> None:
    runtime.add_attributes(file)
    with raises(ConfigError, "age and gender", "--replace"):
        runtime.add_attributes(file, "age", source="embeddings")
    added = runtime.add_attributes(file, "age", source="embeddings", replace_others=True)
    assert added.names == BOTH
    assert not unread_rows(answers_of(file), BOTH).any()


@pytest.mark.slow
def test_a_second_command_changes_nothing_while_the_first_runs(file: Path) -> None:
    content = file.read_bytes()
    with AttributeParts(file):
        for source in ("photos", "embeddings"):
            with raises(LockedError, file) as refused:
                runtime.add_attributes(file, source=source)
            assert "another output" not in str(refused.value)
            assert file.read_bytes() == content


@pytest.mark.slow
def test_two_commands_at_once_leave_the_answers_of_one(file: Path) -> None:
    jobs = [threading.Thread(target=_add_or_be_refused, args=(file, source)) for source in ("photos", "embeddings")]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    with runtime.open(file) as gallery:
        contract = gallery.contract
    assert contract.attribute_names == "age,gender"
    assert not unread_rows(answers_of(file), BOTH).any()


def _add_or_be_refused(file: Path, source: str) -> None:
    with suppress(LockedError, ConfigError):  # the other was first
        runtime.add_attributes(file, source=source)


@pytest.mark.slow
def test_a_photo_that_another_replaced_is_not_read(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = tmp_path / "digests.h5"
    runtime.process(photos, file, engine=tiny_engine, skip_duplicates=True)
    shutil.copy(photos / "P02" / "0.jpg", photos / "P01" / "2.jpg")
    added = runtime.add_attributes(file)
    assert (added.read, added.unread) == (11, 1)
    with runtime.open(file) as gallery:
        assert [gallery.paths[row] for row in np.flatnonzero(unread_rows(answers_of(file), BOTH))] == ["P01/2.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30, -1e30, 400.0])
def test_landmarks_outside_a_photo_give_no_answer(file: Path, value: float) -> None:
    with h5py.File(file, "r+") as opened:
        assert opened["faces/landmarks"].shape == (12, 5, 2)
        opened["faces/landmarks"][5] = value
        opened["faces/landmarks"][7, 3, 1] = value
        del opened["metadata"].attrs["content_sha256"]
    added = runtime.add_attributes(file)
    assert (added.read, added.unread) == (10, 2)
    assert np.flatnonzero(unread_rows(answers_of(file), BOTH)).tolist() == [5, 7]


@pytest.mark.slow
def test_faces_of_the_stopped_command_are_counted_apart(file: Path) -> None:
    control = runtime.RunControl()
    control.stop()
    with raises(Interrupted, "0"):
        runtime.add_attributes(file, control=control)
    whole = file.with_name("whole.h5")
    shutil.copy(file, whole)
    runtime.add_attributes(whole)
    with AttributeParts(file) as parts:
        plan = json.loads((Path(f"{file}.attributes.parts") / "plan.json").read_text())
        parts.resume({name: value for name, value in plan.items() if name not in ("disks", "checksum")})
        assert list(parts.load()) == []
        parts.save(answers_of(whole)[:8])
    added = runtime.add_attributes(file)
    assert (added.read, added.resumed, added.unread) == (4, 8, 0)
    assert (answers_of(file) == answers_of(whole)).all()
