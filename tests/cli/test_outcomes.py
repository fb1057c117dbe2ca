"""`facemill outcomes`: the photos without an embedding, each with the reason."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import h5py
import pytest

import runtime as facemill_library
from runtime.cli.outcomes import STATUSES
from runtime.records import Status
from runtime.storage import outcomes as reading
from tests.support import encoded_images as make
from tests.support.errors import USAGE, assert_refused
from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_people

NAMES = ["=1+1.jpg", "P00/0.jpg", "P00/1.jpg", "P01/0.jpg", "P01/1.jpg", "\x1b[31mred\rline.jpg", "caf\\xe9.jpg"]
FAILED = {"=1+1.jpg": "corrupt", "\x1b[31mred\rline.jpg": "unsupported", "caf\\xe9.jpg": "duplicate"}


@pytest.fixture(scope="module")
def file(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of four embedded photos; a damaged one, a text, and a duplicate, all with odd names."""
    folder = tmp_path_factory.mktemp("outcomes")
    photos = folder / "photos"
    make_people(photos, range(2), 2)
    whole = make.encode(make.scene(112, 112, seed=77))
    (photos / "=1+1.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "\x1b[31mred\rline.jpg").write_text("no photo")
    Path(os.fsdecode(os.fsencode(photos) + b"/caf\xe9.jpg")).write_bytes((photos / "P00" / "0.jpg").read_bytes())
    return embed_folder(photos, folder / "people.h5", tiny_engine, "--align", "none", "--skip-duplicates")


def listed(file: Path, *options: object) -> str:
    result = facemill("outcomes", file, *options)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_photos_without_an_embedding_are_listed_in_scan_order(file: Path) -> None:
    answers = [json.loads(line) for line in listed(file, "--json").splitlines()]
    with h5py.File(file) as opened:
        paths = opened["outcomes/path"].asstr()[:].tolist()
        details = opened["outcomes/detail"].asstr()[:].tolist()
    assert {answer["path"]: answer["status"] for answer in answers} == FAILED
    assert [answer["photo"] for answer in answers] == sorted(paths.index(name) for name in FAILED)
    for answer in answers:
        assert answer["path"] == paths[answer["photo"]]
        assert answer["detail"] == details[answer["photo"]] != ""


def test_outcomes_are_picked_by_name_and_counted(file: Path) -> None:
    result = facemill("outcomes", file, "--status", "corrupt", "--status", "embedded")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["corrupt", *["embedded"] * 4]
    assert result.stderr.splitlines()[-1] == "5 of 7 photos listed, corrupt 1, embedded 4"
    assert listed(file, "--status", "no-face") == ""
    assert_refused(facemill("outcomes", file, "--status", "pending"), USAGE, "--status")
    assert_refused(facemill("outcomes", file, "--csv", "--json"), USAGE, "--csv", "--json")


def test_every_outcome_of_a_finished_file_can_be_picked() -> None:
    assert [status.label for status in Status if status is not Status.PENDING] == list(STATUSES)


def test_the_table_and_csv_let_no_name_through(file: Path) -> None:
    table = listed(file)
    assert "\x1b" not in table
    assert len(table.splitlines()) == 3
    rows = list(csv.reader(io.StringIO(listed(file, "--csv"), newline="")))
    assert rows[0] == ["photo", "path", "status", "detail"]
    assert {row[1]: row[2] for row in rows[1:]} == FAILED
    safe = [row[1] for row in csv.reader(io.StringIO(listed(file, "--csv", "--csv-safe"), newline=""))]
    assert "'=1+1.jpg" in safe


def test_the_library_yields_the_same(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [json.loads(line) for line in listed(file, "--json", "--status", "embedded").splitlines()]
    assert len(answers) == 4
    assert [outcome.to_dict() for outcome in facemill_library.outcomes(file, [Status.EMBEDDED])] == answers
    every = list(facemill_library.outcomes(file, list(Status)))
    assert [outcome.photo for outcome in every] == list(range(7))
    assert sorted(outcome.path for outcome in every) == sorted(NAMES)
    monkeypatch.setattr(reading, "_BLOCK_ROWS", 2)  # several blocks give the same
    assert list(facemill_library.outcomes(file, list(Status))) == every


def test_a_damaged_file_is_refused(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.h5"
    broken.write_bytes(file.read_bytes())
    with h5py.File(broken, "r+") as opened:
        del opened["outcomes/detail"]
    assert_refused(facemill("outcomes", broken), "E-STORAGE", broken)
