"""Folders of filtered photos: what is in them, and undoing them to the byte."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtime
from runtime.errors import ConfigError, OutputExistsError, StorageError
from runtime.filters.folders import FolderFacts
from runtime.receipts import placing
from runtime.storage.dataset import edit_file
from tests.support.attribute_files import drawn_attributes
from tests.support.errors import assert_names, raises
from tests.support.facemill_command import facemill


@pytest.fixture
def file(samples: Path, tmp_path: Path) -> Path:
    shutil.copytree(samples / "photos", tmp_path / "here" / "photos")
    path = Path(shutil.copy(samples / "people.h5", tmp_path / "here" / "people.h5"))
    # The photos of the file are those of the samples, whose folder no test changes.
    return path


def tree(folder: Path) -> dict[bytes, object]:
    """Every file, link and folder below a folder, with its content."""
    found: dict[bytes, object] = {}
    for top, folders, files in os.walk(os.fsencode(folder)):
        for name in (*folders, *files):
            path = os.path.join(top, name)
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
            found[path] = content
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_undo_restores_the_tree_to_the_byte(file: Path, samples: Path, mode: str) -> None:
    folder = file.parent
    before, originals = tree(folder), tree(samples / "photos")
    report = runtime.filter(file, gender="woman", folders=folder / "women", mode=mode)
    assert report.folders is not None
    assert report.folders.photos == report.photos > 0
    with runtime.open(file) as gallery:
        names = {name for row in report.rows.tolist() for name in gallery.photo_names([row])}
    top = os.fsencode(folder / "women" / "photos")
    written = {os.path.relpath(path, top) for path, content in tree(folder / "women" / "photos").items() if content}
    assert written == names
    for name in names:
        assert (
            Path(os.fsdecode(os.path.join(top, name))).read_bytes()
            == originals[os.path.join(os.fsencode(samples / "photos"), name)]
        )
    undone = runtime.undo_filter(report.folders.receipt)
    assert (undone.removed, undone.gone, undone.kept) == (report.photos, 0, ())
    assert tree(folder) == before
    assert tree(samples / "photos") == originals


def test_the_absolute_paths_are_exact(file: Path) -> None:
    report = runtime.filter(file, age="0-150")
    paths = list(report.photo_paths())
    assert all(os.path.isabs(path) and os.path.isfile(path) for path in paths)
    with runtime.open(file) as gallery:
        expected = {os.path.join(gallery.root, *gallery.photo_names([row])) for row in report.rows.tolist()}
    assert set(paths) == expected
    assert len(paths) == report.photos


def test_the_list_has_the_rows_and_their_attributes(file: Path) -> None:
    report = runtime.filter(file, age="20-60", unsure="drop", output=file.parent / "list.csv")
    with (file.parent / "list.csv").open(encoding="utf-8", newline="") as stream:
        lines = list(csv.DictReader(stream))
    assert [int(line["row"]) for line in lines] == report.rows.tolist()
    known = drawn_attributes(report.embeddings)
    for line, match in zip(lines, report, strict=True):
        row = int(line["row"])
        assert line["path"] == match.path
        assert line["gender"] == known["gender"][row].decode() == match.gender
        assert abs(float(line["age"]) - known["age"][row]) <= 0.051
    assert report.unread == len(np.arange(report.embeddings)[::7])


def test_what_was_changed_or_added_stays(file: Path) -> None:
    folder = file.parent / "copies"
    report = runtime.filter(file, age="0-150", folders=folder, mode="copy")
    assert report.folders is not None
    copies = sorted(path for path in (folder / "photos").rglob("*.jpg"))
    copies[0].write_bytes(b"edited")
    copies[1].unlink()
    (folder / "photos" / "note.txt").write_text("mine")
    undone = runtime.undo_filter(report.folders.receipt)
    assert (undone.gone, len(undone.kept)) == (1, 1)
    assert copies[0].read_bytes() == b"edited"
    assert (folder / "photos" / "note.txt").read_text() == "mine"
    assert [path for path in (folder / "photos").rglob("*.jpg")] == [copies[0]]
    copies[0].unlink()
    again = runtime.undo_filter(report.folders.receipt)
    assert again.removed == 0
    assert sorted(os.listdir(folder)) == ["photos"]  # the note is not ours


def test_the_last_name_of_a_photo_is_not_removed(file: Path, tmp_path: Path) -> None:
    make = tmp_path / "own"
    shutil.copytree(file.parent / "photos", make)
    report = runtime.filter(file, age="0-150", folders=file.parent / "links", mode="hardlink")
    assert report.folders is not None
    receipt = Path(report.folders.receipt)
    name = json.loads(next(line for line in receipt.read_text().splitlines() if '"photo"' in line))["photo"]
    link = file.parent / "links" / "photos" / name
    with runtime.open(file) as gallery:
        original = Path(os.fsdecode(gallery.root)) / name
    aside = original.rename(original.with_suffix(".aside"))
    shutil.copy(aside, original)
    aside.unlink()  # the link is the last name of the photo that was filtered
    undone = runtime.undo_filter(receipt)
    assert undone.kept == (name,)
    assert link.exists()


def test_a_link_in_the_way_leads_undo_nowhere(file: Path, tmp_path: Path) -> None:
    report = runtime.filter(file, age="0-150", folders=file.parent / "copies", mode="copy")
    assert report.folders is not None
    person = next(path for path in (file.parent / "copies" / "photos").iterdir() if path.is_dir())
    moved = person.rename(tmp_path / "elsewhere")
    person.symlink_to(moved)
    files = sorted(os.listdir(moved))
    undone = runtime.undo_filter(report.folders.receipt)
    assert len(undone.kept) >= len(files) > 0
    assert sorted(os.listdir(moved)) == files


@pytest.mark.parametrize(
    "content",
    ["", "no json\n", '{"kind": "other"}\n', '{"kind": "filtered photos"}\n{"photo": "../x", "seen": [1, 2, 3]}\n'],
)
def test_other_files_are_no_receipts(tmp_path: Path, content: str) -> None:
    (tmp_path / "x").write_text("keep")
    receipt = tmp_path / "receipt.jsonl"
    receipt.write_text(content)
    with raises(ConfigError, receipt):
        runtime.undo_filter(receipt)
    assert (tmp_path / "x").read_text() == "keep"


@pytest.mark.slow
def test_outputs_that_exist_are_kept_without_force(file: Path) -> None:
    folder = file.parent / "women"
    runtime.filter(file, gender="woman", folders=folder)
    with raises(OutputExistsError, folder):
        runtime.filter(file, gender="man", folders=folder)
    report = runtime.filter(file, gender="man", folders=folder, force=True)
    assert report.folders is not None
    runtime.undo_filter(report.folders.receipt)
    assert not folder.exists()


@pytest.mark.parametrize("mode", ["symlink", "hardlink", "copy"])
def test_the_same_call_again_changes_nothing(file: Path, mode: str) -> None:
    def call(gender: str = "woman", **options: bool) -> FolderFacts:
        facts = runtime.filter(file, gender=gender, folders=file.parent / "out", mode=mode, **options).folders
        assert facts is not None
        return facts

    first = call()
    before = tree(file.parent)
    again = call()
    assert again.already
    assert not first.already
    assert replace(again, already=False) == first
    assert tree(file.parent) == before
    with raises(OutputExistsError, file.parent / "out"):
        call("man")
    with raises(OutputExistsError, file.parent / "out"):
        call(csv_safe=True)
    next(path for path in (file.parent / "out" / "photos").rglob("*.jpg")).unlink()
    with raises(OutputExistsError, file.parent / "out"):
        call()
    assert not call(force=True).already


def test_a_changed_file_is_filtered_only_with_force(file: Path) -> None:
    folder = file.parent / "out"
    runtime.filter(file, gender="woman", folders=folder)
    with edit_file(file) as target:
        target["attributes/gender"][:] = b"woman"
    with raises(OutputExistsError, folder):
        runtime.filter(file, gender="woman", folders=folder)


@pytest.mark.slow
def test_the_command_prints_paths_or_json_and_undoes(file: Path) -> None:
    report = runtime.filter(file, gender="man")
    result = facemill("filter", file, "--gender", "man")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == len(report)
    assert_names(result.stderr, report.root)
    listed = json.loads(facemill("filter", file, "--gender", "man", "--json").stdout)
    assert listed == {**report.to_dict(), "matches": [match.to_dict() for match in report]}
    assert {match["gender"] for match in listed["matches"]} == {"man"}
    separated = facemill("filter", file, "--gender", "man", "-0").stdout.split("\0")
    assert separated.pop() == ""
    assert len(separated) == len(set(separated)) == report.photos
    written = facemill("filter", file, "--gender", "man", "--folders", file.parent / "men", "--json")
    assert json.loads(written.stdout)["selected"] == len(report)
    again = facemill("filter", file, "--gender", "man", "--folders", file.parent / "men", "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == {**json.loads(written.stdout), "already": True}
    undone = facemill("filter", "--undo", file.parent / "men" / "receipt.jsonl", "--json")
    assert json.loads(undone.stdout)["removed"] == report.photos
    assert not (file.parent / "men").exists()


@pytest.mark.parametrize(
    "arguments",
    [[], ["FILE"], ["FILE", "--age", "x"], ["FILE", "--age", "3", "--mode", "copy"], ["--undo", "r", "--age", "3"]],
)
def test_incomplete_commands_are_refused(file: Path, arguments: list[str]) -> None:
    result = facemill("filter", *[str(file) if each == "FILE" else each for each in arguments])
    assert result.returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out", "out/photos", "out/photos.partial"])
def test_a_folder_that_became_a_link_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder, other, is_image = file.parent / name, file.parent / "other", placing.is_image
    other.mkdir()

    def swap(data: bytes) -> bool:
        if not folder.is_symlink():
            folder.rename(file.parent / "away")
            folder.symlink_to(other)
        return is_image(data)

    monkeypatch.setattr(placing, "is_image", swap)
    with raises(StorageError, folder.name, "run the same command again"):
        runtime.filter(file, age="0-150", folders=file.parent / "out", mode="copy")
    assert not list(other.iterdir())
