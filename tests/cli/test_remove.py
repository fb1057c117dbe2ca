"""A person is erased: from the file, from all that was made from it, whatever their photographs are called."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.maintenance.remove import Removal
from runtime.maintenance.selection import read_names
from runtime.records import Status
from runtime.storage.derived import record_page, recorded_pages
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.support.errors import USAGE, assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.people_files import (
    ODD,
    embed_folder,
    files_that_hold,
    make_odd_people,
    make_people,
    paths_in,
    vectors_of,
)


@pytest.fixture(scope="module")
def made(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photographs and their file."""
    place = tmp_path_factory.mktemp("remove")
    make_odd_people(place / "photos")
    embed_folder(place / "photos", place / "people.h5", tiny_engine, "--skip-duplicates")
    return place


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    """A copy of it, alone in a folder."""
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(made / "people.h5", tmp_path / "here" / "people.h5"))


def remove(file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return facemill("remove", file, "--yes", *arguments)


def needles_of(file: Path, name: str) -> list[bytes]:
    """Bytes by which the vectors of a photograph or folder would be known, in both precisions."""
    vectors = vectors_of(file, name)
    assert len(vectors)
    rows = [row for vector in vectors for row in (vector.tobytes(), vector.astype(np.float16).tobytes())]
    return [*rows, name.encode()]


def test_a_person_is_gone_from_all_files_and_the_others_are_as_they_were(file: Path, made: Path) -> None:
    search = facemill("search", file, made / "photos" / "P02" / "1.jpg", "--html", file.parent / "hits.html")
    assert search.returncode == 0, search.stderr
    shutil.copy(file, file.with_name("people.h5.damaged-1"))
    shutil.copy(file, file.with_name("people.h5.partial"))
    (file.parent / "people.h5.adding.parts").mkdir()
    shutil.copy(file, file.parent / "people.h5.adding.parts" / "segment-000001.h5")
    (file.parent / "people.h5.parts").mkdir()
    for name in ("plan.json", "segment-000001.h5", "segment-000002.damaged", "paths"):
        shutil.copy(file, file.parent / "people.h5.parts" / name)
    needles = needles_of(file, "P02/")
    assert len(files_that_hold(file.parent, *needles)) >= 9
    before = paths_in(file)
    done = remove(file, "--path", "P02/", "--json")
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert files_that_hold(file.parent, *needles) == []
    assert sorted(os.listdir(file.parent)) == ["people.h5", Path(card["receipt"]).name]
    assert paths_in(file) == [path for path in before if not path.startswith(b"P02/")]
    assert verify_file(file).findings == ()
    for name in ("P00/0.jpg", "P03/", "odd é/"):
        np.testing.assert_array_equal(vectors_of(file, name), vectors_of(made / "people.h5", name))
    assert (made / "photos" / "P02" / "1.jpg").exists()
    assert facemill("search", file, made / "photos" / "P02" / "1.jpg").returncode == 0


def test_the_receipt_says_what_was_done_and_names_nobody(file: Path, made: Path) -> None:
    with h5py.File(file) as opened:
        before = dict(opened["metadata"].attrs)
    card = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    stored = json.loads(Path(card.pop("receipt")).read_text())
    assert stored == card
    assert "P02" not in json.dumps(card)
    assert card["asked_sha256"] == [hashlib.sha256(b"P02/").hexdigest()]
    assert hashlib.sha256(b"P02/3.jpg").hexdigest() in card["removed_sha256"]
    assert (card["removed_photographs"], card["removed_embeddings"], card["removed_as_duplicates"]) == (4, 4, 0)
    assert card["photographs_before"] - card["photographs_after"] == 4
    assert card["sha256_after"] == hashlib.sha256(file.read_bytes()).hexdigest()
    with h5py.File(file) as opened:
        after = dict(opened["metadata"].attrs)
    assert card["run_id_before"] == before["run_id"] != after["run_id"] == card["run_id_after"]
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed - {"finished_utc"} == {"run_id", "scanned", "embedded", "count_embedded"}  # within a second or not
    assert after["finished_utc"] >= before["finished_utc"]
    named = json.loads(
        remove(file, "--path", "P03/0.jpg", "--name-paths", "--json", "--receipt", file.parent / "r").stdout
    )
    assert named["removed"] == ["P03/0.jpg"]
    assert json.loads((file.parent / "r").read_text())["removed"] == ["P03/0.jpg"]


def test_duplicates_go_with_their_original_and_alone_without_it(file: Path) -> None:
    done = remove(file, "--path", "P09/1.jpg")
    assert done.returncode == 0, done.stderr
    assert b"P09/0.jpg" in paths_in(file)
    assert b"P00/0.jpg" in paths_in(file)
    done = remove(file, "--path", "P00/0.jpg")
    assert_names(done.stderr, 1)
    assert [path for path in paths_in(file) if path.startswith(b"P09")] == [b"P09/2.jpg"]
    assert files_that_hold(file.parent, b"P00/0.jpg") == []
    with h5py.File(file) as opened:
        assert not any(b"P00/0" in detail for detail in opened["outcomes/detail"][:])
    assert verify_file(file).findings == ()


@pytest.mark.parametrize("form", ["raw", "text"])
@pytest.mark.parametrize("name", ODD)
def test_odd_names_in_a_list(name: bytes, form: str, file: Path, tmp_path: Path) -> None:
    before = paths_in(file)
    path = "odd é/".encode() + name
    asked = path if form == "raw" else path.decode("utf-8", "backslashreplace").encode()
    (tmp_path / "list.txt").write_bytes(asked + (b"\0" if b"\n" in name else b"\n"))
    names = read_names(tmp_path / "list.txt")
    with Removal(file) as removal:
        found = removal.find(names)
        assert found.missing == ()
        removal.erase(found, names, name_paths=True)
    assert set(before) - set(paths_in(file)) == {path}
    assert verify_file(file).findings == ()
    (receipt,) = file.parent.glob("*.removed-*.json")
    assert json.loads(receipt.read_bytes().decode("ascii"))["removed"] == [path.decode("utf-8", "backslashreplace")]


def test_names_that_mean_nothing_stop_it_unless_told_otherwise(file: Path) -> None:
    data = file.read_bytes()
    done = remove(file, "--path", "P02/", "--path", "nobody\x1b[31m/", "--path", "P02/77.jpg")
    assert_refused(done, "E-CONFIG", 2, "nobody\\x1b[31m/\n  P02/77.jpg", "/photos", "/outcomes/path")
    (file.parent.parent / "empty").write_text("\n \n")
    done = remove(file, "--paths-from", file.parent.parent / "empty")
    assert_refused(done, "E-CONFIG")
    assert file.read_bytes() == data
    assert remove(file, "--path", "nobody", "--ignore-missing").returncode == 0
    assert file.read_bytes() == data
    done = remove(file, "--path", "P02/", "--path", "nobody", "--ignore-missing", "--json")
    card = json.loads(done.stdout)
    assert (card["removed_photographs"], card["names_not_found"]) == (4, 1)


def test_a_list_from_standard_input(file: Path) -> None:
    command = [sys.executable, "-m", "runtime.cli.app", "remove", str(file), "--yes", "--paths-from", "-"]
    done = subprocess.run(command, input=b"P02/0.jpg\nP03\n", capture_output=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not [path for path in paths_in(file) if path.startswith((b"P02/0", b"P03"))]


def test_nothing_happens_without_a_yes(file: Path) -> None:
    data = file.read_bytes()
    dry = facemill("remove", file, "--path", "P02/", "--dry-run")
    assert dry.returncode == 0
    assert "4 photos (4 embeddings)" in dry.stderr
    done = facemill("remove", file, "--path", "P02/")
    assert_refused(done, USAGE, "--yes")
    assert facemill("remove", file, "--yes").returncode == 2
    for wrong in (("--path", "."), ("--path", "P02/", "--receipt", file), ("--path", "P02/", "--receipt", "/none/x")):
        assert remove(file, *wrong).returncode == 1
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == ["people.h5"]


def test_everybody_can_be_removed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(b"\0".join(paths_in(file)))
    done = remove(file, "--paths-from", tmp_path / "all")
    assert done.returncode == 0, done.stderr
    found = verify_file(file)
    assert (found.embeddings, found.photographs, found.findings) == (0, 0, ())


def test_only_pages_of_facemills_are_deleted_and_nothing_behind_a_link(file: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name in ("a.html", "thesis.docx", "b.jpg"):
        (outside / name).write_text("mine")
    sheets = tmp_path / "sheets"
    (sheets / "person-1").mkdir(parents=True)
    (sheets / "sheet.html").write_text("x")
    (sheets / "person-1" / "1.jpg").symlink_to(outside / "b.jpg")
    (sheets / "person-2").symlink_to(outside)
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "thesis.docx").write_text("mine")
    (tmp_path / "link.html").symlink_to(outside / "a.html")
    (tmp_path / "pairs.csv").write_text("x")
    for page in (outside / "thesis.docx", sheets, mixed, tmp_path / "link.html", tmp_path / "pairs.csv", tmp_path):
        record_page(file, page)
    record_page(file, tmp_path / "gone.html")
    card = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert not sheets.exists()
    assert not (tmp_path / "pairs.csv").exists()
    assert sorted(os.listdir(outside)) == ["a.html", "b.jpg", "thesis.docx"]
    kept = {Path(one["path"]) for one in card["may_still_show"]}
    assert kept == {outside / "thesis.docx", mixed, tmp_path / "link.html", tmp_path}
    assert set(recorded_pages(file)) == kept


def test_what_a_user_has_changed_or_put_in_the_place_of_a_page_stays_and_is_named(file: Path, tmp_path: Path) -> None:
    for name in ("page.html", "other.html", "folder/cluster-00001/1.jpg", "whole/cluster-00001/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("facemill's")
    pages = [tmp_path / name for name in ("page.html", "other.html", "folder", "whole")]
    for page in pages:
        record_page(file, page)
    half = tmp_path / "half"
    record_page(file, half)  # and the writer was killed
    half.mkdir()
    (half / "wedding.jpg").write_text("mine, or a copy that was made of a photograph")
    pages.append(half)
    (tmp_path / "page.html").write_text("my own thesis")
    (tmp_path / "folder" / "cluster-00001" / "my wedding.jpg").write_text("mine")
    beside = file.with_name("people.h5.pairs-reviewed")
    beside.mkdir()
    card = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert {one["path"] for one in card["may_still_show"]} == {str(pages[0]), str(pages[2]), str(half)}
    assert "changed since facemill wrote it" in card["may_still_show"][0]["why"]
    assert [page.exists() for page in pages] == [True, False, True, False, True]
    assert (tmp_path / "folder" / "cluster-00001" / "my wedding.jpg").exists()
    assert beside.exists()
    card = json.loads(remove(file, "--path", "P03/", "--json").stdout)  # nor does another removal take them
    assert {one["path"] for one in card["may_still_show"]} == {str(pages[0]), str(pages[2]), str(half)}


def test_what_a_link_led_to_and_other_names_of_the_old_file_are_told(file: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"vectors")
    link = file.with_name("people.h5.faiss")
    link.symlink_to(tmp_path / "index")
    (tmp_path / "second.h5").hardlink_to(file)
    card = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert not link.is_symlink()
    assert (tmp_path / "index").exists()
    assert [one["path"] for one in card["may_still_show"]] == [str(tmp_path / "index"), "unknown"]
    assert "other names: 1 (hard links)" in card["may_still_show"][1]["why"]
    assert b"P02/0.jpg" in paths_in(tmp_path / "second.h5")


def test_what_the_file_was_joined_into_is_named(file: Path, made: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other = embed_folder(make_more(tmp_path / "more"), tmp_path / "other.h5", tiny_engine)
    done = facemill("merge", file, other, "-o", tmp_path / "both.h5")
    assert done.returncode == 0, done.stderr
    for name in ("P02/", "P03/"):  # every time
        card = json.loads(remove(file, "--path", name, "--json").stdout)
        assert [one["path"] for one in card["may_still_show"]] == [str(tmp_path / "both.h5")]


def make_more(folder: Path) -> Path:
    make_people(folder, range(40, 41))
    return folder


def test_that_the_same_picture_stays_under_another_name_is_told(file: Path) -> None:
    done = remove(file, "--path", "P09/0.jpg", "--json")
    assert_names(done.stderr, 1)
    assert json.loads(done.stdout)["same_files_stay"] == 1
    card = json.loads(remove(file, "--path", "P00/0.jpg", "--path", "P09/", "--json").stdout)
    assert card["same_files_stay"] == 0


def test_nobody_else_may_read_what_is_made_of_a_private_file(file: Path) -> None:
    file.chmod(0o600)
    card = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert Path(card["receipt"]).stat().st_mode & 0o777 == 0o600


def test_the_photographs_in_a_recorded_folder_of_theirs_stay(made: Path, tmp_path: Path) -> None:
    place = tmp_path / "x"
    shutil.copytree(made, place)
    with h5py.File(place / "people.h5", "r+") as opened:
        contract = json.loads(opened["metadata"].attrs["contract"])
        opened["metadata"].attrs["contract"] = json.dumps({**contract, "root": str(place / "photos")})
    for folder in (place / "photos", place / "photos" / "P03"):
        record_page(place / "people.h5", folder)
    card = json.loads(remove(place / "people.h5", "--path", "P02/", "--json").stdout)
    assert len(card["may_still_show"]) == 2
    assert len(list((place / "photos" / "P03").iterdir())) == 4


def test_pages_are_kept_when_asked_for(file: Path) -> None:
    page = file.parent / "page.html"
    page.write_text("x")
    record_page(file, page)
    done = remove(file, "--path", "P02/", "--keep-pages")
    assert "may still show them" in done.stdout
    assert page.exists()
    assert recorded_pages(file) == [page]


def test_other_datasets_are_dropped_and_other_attributes_kept(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["cluster"] = np.zeros(len(opened["embeddings"]), np.int32)
        opened["metadata"].attrs["score_calibration"] = "kept"
        opened["metadata"].attrs["ours"] = 7
    done = remove(file, "--path", "P02/")
    assert "/cluster" in done.stderr
    with h5py.File(file) as opened:
        assert "cluster" not in opened
        assert opened["metadata"].attrs["score_calibration"] == "kept"
        assert opened["metadata"].attrs["ours"] == 7


def test_who_may_read_the_file_may_read_the_new_one_and_a_link_is_followed(file: Path, tmp_path: Path) -> None:
    file.chmod(0o600)
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    (tmp_path / "link.h5.faiss").write_bytes(b"x")
    file.with_name("people.h5.faiss").write_bytes(b"x")
    assert remove(link, "--path", "P02/").returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert link.is_symlink()
    assert not (tmp_path / "link.h5.faiss").exists()
    assert not file.with_name("people.h5.faiss").exists()


def killed_at(file: Path, where: str, *arguments: object) -> None:
    """A removal that is killed as soon as it calls a function."""
    module = ".".join(where.split(".")[:3])
    code = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {module}\n"
        f"{where} = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from runtime.cli.remove import main\n"
        f"main({[str(a) for a in (file, '--yes', *arguments)]!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr


MOMENTS = (
    "runtime.maintenance.remove.rewriting",
    "runtime.maintenance.remove.assemble",
    "runtime.storage.dataset._write_outcomes",
    "runtime.maintenance.remove.erase",
    "runtime.maintenance.erase.forget_pages",
    "runtime.maintenance.remove.sha256_of",
    "runtime.maintenance.remove.Removal._drop_note",
)


@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_kill_between_two_steps_is_completed_by_the_same_command(moment: str, file: Path) -> None:
    needles = needles_of(file, "P02/")
    shutil.copy(file, file.with_name("people.h5.faiss"))
    page = file.parent / "page.html"
    page.write_bytes(b"P02/1.jpg")
    record_page(file, page)
    before = paths_in(file)
    left = [path for path in before if not path.startswith(b"P02/")]
    killed_at(file, moment, "--path", "P02/")
    assert paths_in(file) in (before, left)  # whole, as it was or as it is to be
    assert verify_file(file).findings == ()
    done = remove(file, "--path", "P02/", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["removed_photographs"] == 4
    assert paths_in(file) == left
    assert files_that_hold(file.parent, *needles) == []
    names = sorted(os.listdir(file.parent))
    assert names[0] == "people.h5"
    assert len(names) == 2  # with one receipt
    assert "removed-" in names[1]


def test_another_removal_completes_an_interrupted_one_first(file: Path) -> None:
    shutil.copy(file, file.with_name("people.h5.faiss"))
    killed_at(file, "runtime.maintenance.remove.erase", "--path", "P02/")
    assert file.with_name("people.h5.removing").exists()
    done = remove(file, "--path", "P03/")
    assert not [path for path in paths_in(file) if path.startswith((b"P02", b"P03"))]
    receipts = list(file.parent.glob("*.removed-*.json"))
    assert len(receipts) == 2
    assert [str(path) in done.stderr for path in receipts].count(True) == 1  # of the removal that it completed first


def test_a_file_that_was_replaced_meanwhile_keeps_no_index_of_before_and_gets_no_receipt(
    file: Path, made: Path
) -> None:
    killed_at(file, "runtime.maintenance.remove.erase", "--path", "P02/")
    with h5py.File(file, "r+") as opened:
        opened["metadata"].attrs["run_id"] = "another"
    shutil.copy(made / "people.h5", file.with_name("people.h5.faiss"))
    done = remove(file, "--path", "P02/")
    assert_refused(done, "E-CONFIG", 1, "P02/")
    assert str(file) in done.stderr.splitlines()[0]  # on the removal that cannot be completed; then comes the error
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.parametrize("seed", range(5))
def test_kill_9_at_a_random_moment(seed: int, file: Path) -> None:
    needles = needles_of(file, "P02/")
    before = paths_in(file)
    command = [sys.executable, "-m", "runtime.cli.app", "remove", str(file), "--yes", "--path", "P02/"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.2, 0.9))
        process.kill()
    assert paths_in(file) in (before, [path for path in before if not path.startswith(b"P02/")])
    done = remove(file, "--path", "P02/", "--ignore-missing")
    assert done.returncode == 0, done.stderr
    assert files_that_hold(file.parent, *needles) == []


def test_a_file_that_is_being_written_or_is_none_is_refused(file: Path) -> None:
    for name, command in (("people.h5", ""), ("people.h5.pairs", "facemill pairs")):
        with RunFolder(file.with_name(name)):
            done = remove(file, "--path", "P02/")
            assert_refused(done, "E-LOCKED", file, command)
        assert b"P02/0.jpg" in paths_in(file)
    file.write_bytes(b"no file of ours")
    done = remove(file, "--path", "P02/")
    assert_refused(done, "E-STORAGE", file)
    missing = file.with_name("none.h5")
    assert_refused(remove(missing, "--path", "P02/"), "E-STORAGE", missing)


def test_statuses_of_the_others_are_kept(file: Path, made: Path) -> None:
    remove(file, "--path", "P02/")
    with h5py.File(file) as new, h5py.File(made / "people.h5") as old:
        keep = np.array([not path.startswith(b"P02/") for path in paths_in(made / "people.h5")])
        for name in ("status", "detail", "digest"):
            np.testing.assert_array_equal(new[f"outcomes/{name}"][:], old[f"outcomes/{name}"][:][keep])
        assert {Status(int(s)) for s in new["outcomes/status"][:]} == {
            Status.EMBEDDED,
            Status.CORRUPT,
            Status.DUPLICATE,
        }
