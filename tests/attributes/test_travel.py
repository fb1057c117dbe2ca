"""Ages and genders travel with their rows: through process, add, retry, remove, merge, repair, export, and back."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import runtime
from runtime.attributes.answers import unread_rows
from runtime.errors import ConfigError, ContractError, Interrupted, SourceError, StorageError
from runtime.maintenance.attribute_parts import AttributeParts
from runtime.records import unread_attributes
from runtime.storage.nearby import derived_nearby
from runtime.storage.runfolder import decode_plan
from runtime.storage.verify import verify_file
from tests.support.attribute_files import write_attribute_model
from tests.support.embedding_files import differences
from tests.support.errors import assert_names, raises
from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_people


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network that reads ages and genders from colours, under the name of the one that ships."""
    folder = tmp_path_factory.mktemp("models")
    write_attribute_model(folder)
    return folder


@pytest.fixture(autouse=True)
def _use_models(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACEMILL_MODELS", str(models))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_people(tmp_path / "photos", range(6))
    return tmp_path / "photos"


def embed(photos: Path, output: Path, engine: Path, **options: object) -> Path:
    runtime.process(photos, output, engine=engine, **options)  # type: ignore[arg-type]
    return output


def assert_right(file: Path) -> None:
    """The age of each row is the red of its photo, and a woman's photo is more green than blue."""
    assert verify_file(file).findings == ()
    with runtime.open(file) as gallery:
        attributes, paths = gallery.attributes, gallery.photo_paths(range(gallery.rows))
    assert attributes is not None
    assert len(paths)
    for row, path in zip(attributes, paths, strict=True):
        blue, green, red = cv2.imread(path.decode()).mean(axis=(0, 1)) / 255
        assert abs(row["age"] - 100 * red) < 1.5, path
        assert row["age_low"] <= row["age"] <= row["age_high"]
        assert row["gender"] == (b"woman" if green > blue else b"man")
        assert abs(row["gender_score"] - 1 / (1 + np.exp(-40 * abs(green - blue)))) < 0.05


@pytest.mark.slow
def test_process_writes_them_and_a_resumed_run_keeps_them(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="gender,age")
    assert_right(file)
    with runtime.open(file) as gallery:
        contract = gallery.contract
    assert contract.attribute_names == "age,gender"
    assert contract.attribute_model == "facemill-attributes"
    assert contract.attribute_source is None
    assert runtime.process(photos, file, engine=tiny_engine).processed == 0  # they need not be named again
    with raises(ContractError, "attribute_names", "finished", f"facemill attributes {file}"):
        runtime.process(photos, file, engine=tiny_engine, attributes="age")


@pytest.mark.slow
def test_only_what_is_named_is_written(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes=["gender"])
    with h5py.File(file) as opened:
        assert sorted(opened["attributes"]) == ["gender", "gender_score"]
        assert opened["attributes/gender"].asstr()[0] in ("man", "woman")
    with raises(ConfigError, "race"):
        runtime.process(photos, tmp_path / "b.h5", engine=tiny_engine, attributes="race")


@pytest.mark.slow
def test_added_later_they_are_the_same(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    first = embed(photos, tmp_path / "first.h5", tiny_engine, attributes="age,gender")
    later = embed(photos, tmp_path / "later.h5", tiny_engine)
    added = runtime.add_attributes(later)
    assert (added.rows, added.read, added.unread, added.names) == (24, 24, 0, ("age", "gender"))
    assert_right(later)
    changed = {"@engine", "@tool_version"}
    assert set(differences(first, later)) <= changed
    assert runtime.add_attributes(later).read == 0  # what is there is not read again
    assert runtime.add_attributes(later, "age", force=True).names == ("age", "gender")  # nor dropped


@pytest.mark.slow
def test_photos_that_are_gone_stay_unread_until_they_are_back(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine)
    (photos / "P02" / "1.jpg").rename(tmp_path / "aside.jpg")
    added = runtime.add_attributes(file)
    assert (added.read, added.unread) == (23, 1)
    with runtime.open(file) as gallery:
        assert gallery.attributes is not None
        row = gallery.paths.index("P02/1.jpg")
        assert np.flatnonzero(unread_rows(gallery.attributes, ["age", "gender"])).tolist() == [row]
    report = runtime.filter(file, age="0-150")
    assert (len(report), report.unread) == (23, 1)
    (tmp_path / "aside.jpg").rename(photos / "P02" / "1.jpg")
    assert runtime.add_attributes(file).read == 1
    assert_right(file)


@pytest.mark.slow
def test_without_any_photo_nothing_is_changed(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine)
    before = file.read_bytes()
    shutil.move(photos, tmp_path / "elsewhere")
    with raises(SourceError, photos):
        runtime.add_attributes(file)
    assert not list(tmp_path.glob("*.parts"))
    photos.mkdir()
    with raises(SourceError, "24 photos"):
        runtime.add_attributes(file)
    for number in range(6):  # photos that are not the same any more
        (photos / f"P{number:02d}").mkdir()
        for photo in range(4):
            (photos / f"P{number:02d}" / f"{photo}.jpg").write_bytes(b"no photo")
    with raises(SourceError, "--from embeddings"):
        runtime.add_attributes(file)
    assert file.read_bytes() == before
    assert not list(tmp_path.glob("*.parts"))


@pytest.mark.slow
def test_an_interrupted_job_goes_on(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine)
    control = runtime.RunControl()
    control.stop()
    with raises(Interrupted, "0"):
        runtime.add_attributes(file, control=control)
    folder = tmp_path / "a.h5.attributes.parts"
    assert folder in derived_nearby(file, ())  # so that a removal erases it
    plan = decode_plan((folder / "plan.json").read_bytes())
    plan.pop("disks")
    half = unread_attributes(10)
    half["age"], half["age_low"], half["age_high"], half["gender"], half["gender_score"] = 1, 0, 2, b"man", 1
    with AttributeParts(file) as parts:
        parts.resume(plan)
        list(parts.load())
        parts.save(half)
    runtime.add_attributes(file)
    assert not folder.exists()
    with runtime.open(file) as gallery:
        assert gallery.attributes is not None
        assert (gallery.attributes["age"][:10] == 1).all()  # taken from the part
        assert (gallery.attributes["age"][10:] != 1).all()


def test_a_job_that_was_killed_after_it_had_replaced_the_file_leaves_nothing(
    photos: Path, tmp_path: Path, tiny_engine: Path
) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="age,gender")
    with AttributeParts(file) as parts:
        parts.resume({"a": 1})
        parts.begin([])
        parts.save(unread_attributes(4))
    for name in ("a.h5.partial", "a.h5.faiss.json.partial"):
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / "a.h5.parts").mkdir(mode=0o700)
    (tmp_path / "a.h5.parts" / "lock").touch(mode=0o600)
    assert runtime.add_attributes(file).read == 0
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "a.h5"}


@pytest.mark.slow
def test_a_file_that_is_made_anew_drops_the_parts_of_the_old_one(
    photos: Path, tmp_path: Path, tiny_engine: Path
) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine)
    folder = tmp_path / "a.h5.attributes.parts"
    with AttributeParts(file) as parts:
        parts.resume({"a": 1})
        parts.begin([])
        parts.save(unread_attributes(4))
    embed(photos, file, tiny_engine)
    assert folder.exists()  # the file is the same
    embed(photos, file, tiny_engine, force=True)
    assert not folder.exists()


def test_damaged_and_foreign_parts_are_read_again(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = tmp_path / "a.h5"
    file.write_bytes(b"")
    with AttributeParts(file) as parts:
        parts.resume({"a": 1})
        parts.begin([])
        parts.save(unread_attributes(4))
        parts.save(unread_attributes(6))
    (path,) = (tmp_path / "a.h5.attributes.parts").glob("part-0-*")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with AttributeParts(file) as parts:
        parts.resume({"a": 1})
        assert list(parts.load()) == []
        assert parts.done == 0
    with AttributeParts(file) as parts:
        parts.resume({"a": 2})
        assert list(parts.load()) == []
        parts.remove()


@pytest.mark.slow
def test_they_travel_through_add_remove_merge_and_retry(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    other = tmp_path / "aside"
    shutil.move(photos / "P05", other)
    (photos / "P00" / "broken.jpg").write_bytes((photos / "P01" / "0.jpg").read_bytes()[:300])
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="age,gender")
    shutil.move(other, photos / "P05")
    assert runtime.add(file, photos).added == 4
    assert_right(file)
    shutil.copy(photos / "P03" / "0.jpg", photos / "P00" / "broken.jpg")
    runtime.process(photos, file, engine=tiny_engine, retry=True)
    assert_right(file)
    runtime.remove(file, "P01/")
    assert_right(file)
    make_people(tmp_path / "more", range(40, 42))
    second = embed(tmp_path / "more", tmp_path / "b.h5", tiny_engine, attributes="age,gender")
    merged = facemill("merge", file, second, "-o", tmp_path / "all.h5")
    assert merged.returncode == 0, merged.stderr
    assert_right(tmp_path / "all.h5")
    plain = embed(tmp_path / "more", tmp_path / "plain.h5", tiny_engine)
    refused = facemill("merge", file, plain, "-o", tmp_path / "no.h5")
    assert refused.returncode == 1
    assert_names(refused.stderr, "attribute_names", "facemill attributes")


@pytest.mark.slow
def test_a_repaired_file_keeps_them_or_says_that_they_are_lost(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="age,gender")
    with h5py.File(file) as opened:
        offset = opened["attributes/age"].id.get_chunk_info(0).byte_offset
    content = bytearray(file.read_bytes())
    content[offset + 8] ^= 0xFF
    file.write_bytes(content)
    assert verify_file(file).findings
    repaired = facemill("repair", file, "-o", tmp_path / "b.h5")
    assert repaired.returncode == 0, repaired.stderr
    assert "/attributes/age is lost" in repaired.stdout + repaired.stderr
    assert verify_file(tmp_path / "b.h5").findings == ()
    with runtime.open(tmp_path / "b.h5") as gallery:
        assert gallery.attributes is not None
        assert np.isnan(gallery.attributes["age"]).all()
        assert (gallery.attributes["gender"] != b"").all()
    runtime.add_attributes(tmp_path / "b.h5")
    assert_right(tmp_path / "b.h5")


@pytest.mark.slow
def test_exports_have_them(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="age,gender")
    with runtime.open(file) as gallery:
        attributes = gallery.attributes
    assert attributes is not None
    assert facemill("export", file, "--npy", tmp_path / "npy").returncode == 0
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "age.npy"), attributes["age"])
    assert np.load(tmp_path / "npy" / "gender.npy").tolist() == [each.decode() for each in attributes["gender"]]


@pytest.mark.slow
def test_impossible_values_are_found(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed_folder(photos, tmp_path / "a.h5", tiny_engine, "--attributes", "age,gender")
    for name, value in (("age", -3), ("gender_score", 2), ("gender", b"queen")):
        changed = Path(shutil.copy(file, tmp_path / f"{name}.h5"))
        with h5py.File(changed, "r+") as opened:
            opened[f"attributes/{name}"][3] = value
            del opened["metadata"].attrs["content_sha256"]
        assert any(f"/attributes/{name}" in finding for finding in verify_file(changed).findings)
        with raises(StorageError, f"attributes/{name}"), runtime.open(changed) as gallery:
            print(gallery.attributes)


@pytest.mark.slow
def test_search_and_cluster_take_the_filter(photos: Path, tmp_path: Path, tiny_engine: Path) -> None:
    file = embed(photos, tmp_path / "a.h5", tiny_engine, attributes="age,gender")
    with runtime.open(file) as gallery:
        vectors, attributes = gallery.vectors, gallery.attributes
    assert attributes is not None
    middle = int(np.median(attributes["age"]))
    mask = attributes["age"] >= middle
    with runtime.Search(file, age=f"{middle}-") as search:
        answers = search.find_vectors(vectors, k=30)
    for vector, answer in zip(vectors, answers, strict=True):
        scores = vectors[mask].astype(np.float64) @ vector
        expected = np.flatnonzero(mask)[np.lexsort((np.flatnonzero(mask), -scores.astype(np.float32)))]
        assert [hit.row for hit in answer.hits] == expected.tolist()
        assert answer.facts.rows == mask.sum()
        assert answer.to_dict()["among"]
    for options in ({"people": 3}, {"threshold": 0.5}):
        report = runtime.cluster(file, age=f"{middle}-", write_column=False, **options)  # type: ignore[arg-type]
        np.testing.assert_array_equal(report.numbers > 0, mask)
    with raises(ConfigError, "--index"), runtime.Search(file, gender="man", index="ivf") as search:
        search.find_vectors(vectors[:1])
