"""The remove command: erase people from the file and from everything derived from it, with any file names."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.maintenance.receipt import key_path
from runtime.maintenance.remove import Removal
from runtime.maintenance.selection import read_names
from runtime.records import Status
from runtime.storage.derived import record_page
from runtime.storage.pagelist import read_list
from runtime.storage.runfolder import RunFolder
from runtime.storage.verify import verify_file
from tests.support.errors import USAGE, assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.interrupted_runs import kill_at
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
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with photos and their embedding file."""
    folder = tmp_path_factory.mktemp("remove")
    make_odd_people(folder / "photos")
    embed_folder(folder / "photos", folder / "people.h5", tiny_engine, "--skip-duplicates")
    return folder


@pytest.fixture
def file(samples: Path, tmp_path: Path) -> Path:
    """Copy the embedding file to an empty folder."""
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(samples / "people.h5", tmp_path / "here" / "people.h5"))


def remove(file: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return facemill("remove", file, "--yes", *arguments)


def traces_of(file: Path, name: str) -> list[bytes]:
    """List the bytes that would reveal a photo or folder: its vectors in both precisions, and its name."""
    vectors = vectors_of(file, name)
    assert len(vectors)
    rows = [row for vector in vectors for row in (vector.tobytes(), vector.astype(np.float16).tobytes())]
    return [*rows, name.encode()]


@pytest.mark.slow
def test_remove_erases_a_person_from_all_files_and_keeps_other_rows(file: Path, samples: Path) -> None:
    search = facemill("search", file, samples / "photos" / "P02" / "1.jpg", "--html", file.parent / "hits.html")
    assert search.returncode == 0, search.stderr
    shutil.copy(file, file.with_name("people.h5.damaged-1"))
    shutil.copy(file, file.with_name("people.h5.partial"))
    (file.parent / "people.h5.adding.parts").mkdir()
    shutil.copy(file, file.parent / "people.h5.adding.parts" / "segment-000001.h5")
    (file.parent / "people.h5.parts").mkdir()
    for name in ("plan.json", "segment-000001.h5", "segment-000002.damaged", "paths"):
        shutil.copy(file, file.parent / "people.h5.parts" / name)
    traces = traces_of(file, "P02/")
    assert len(files_that_hold(file.parent, *traces)) >= 9
    before = paths_in(file)
    result = remove(file, "--path", "P02/", "--json")
    assert result.returncode == 0, result.stderr
    receipt = json.loads(result.stdout)
    assert files_that_hold(file.parent, *traces) == []
    receipt_name = Path(receipt["receipt"]).name
    assert sorted(os.listdir(file.parent)) == ["people.h5", receipt_name, f"{receipt_name}.key"]
    assert paths_in(file) == [path for path in before if not path.startswith(b"P02/")]
    assert verify_file(file).findings == ()
    for name in ("P00/0.jpg", "P03/", "odd é/"):
        np.testing.assert_array_equal(vectors_of(file, name), vectors_of(samples / "people.h5", name))
    assert (samples / "photos" / "P02" / "1.jpg").exists()
    assert facemill("search", file, samples / "photos" / "P02" / "1.jpg").returncode == 0


@pytest.mark.slow
def test_the_receipt_has_all_counts_and_no_path(file: Path, samples: Path) -> None:
    with h5py.File(file) as opened:
        before = dict(opened["metadata"].attrs)
    receipt = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    receipt_path = Path(receipt.pop("receipt"))
    stored = json.loads(receipt_path.read_text())
    assert stored == receipt
    assert "P02" not in json.dumps(receipt)
    key = bytes.fromhex(key_path(receipt_path).read_text().strip())
    assert len(key) == 32
    assert receipt["asked_hmac"] == [hmac.new(key, b"P02/", "sha256").hexdigest()]
    assert hmac.new(key, b"P02/3.jpg", "sha256").hexdigest() in receipt["removed_hmac"]
    for name in (b"P02/", b"P02/3.jpg"):
        assert hashlib.sha256(name).hexdigest() not in receipt_path.read_text()
    assert (receipt["removed_photographs"], receipt["removed_embeddings"], receipt["removed_as_duplicates"]) == (
        4,
        4,
        0,
    )
    assert receipt["photographs_before"] - receipt["photographs_after"] == 4
    assert receipt["sha256_after"] == hashlib.sha256(file.read_bytes()).hexdigest()
    with h5py.File(file) as opened:
        after = dict(opened["metadata"].attrs)
    assert receipt["run_id_before"] == before["run_id"] != after["run_id"] == receipt["run_id_after"]
    changed = {key for key in before if before[key] != after.get(key)}
    assert changed - {"finished_utc"} == {
        "run_id",
        "content_sha256",
        "scanned",
        "embedded",
        "count_embedded",
    }  # finished_utc has a resolution of 1 s
    assert after["finished_utc"] >= before["finished_utc"]
    with_paths = json.loads(
        remove(file, "--path", "P03/0.jpg", "--name-paths", "--json", "--receipt", file.parent / "r").stdout
    )
    assert with_paths["removed"] == ["P03/0.jpg"]
    assert json.loads((file.parent / "r").read_text())["removed"] == ["P03/0.jpg"]


@pytest.mark.slow
def test_duplicates_are_removed_with_their_original_but_not_the_reverse(file: Path) -> None:
    result = remove(file, "--path", "P09/1.jpg")
    assert result.returncode == 0, result.stderr
    assert b"P09/0.jpg" in paths_in(file)
    assert b"P00/0.jpg" in paths_in(file)
    result = remove(file, "--path", "P00/0.jpg")
    assert_names(result.stderr, 1)
    assert [path for path in paths_in(file) if path.startswith(b"P09")] == [b"P09/2.jpg"]
    assert files_that_hold(file.parent, b"P00/0.jpg") == []
    with h5py.File(file) as opened:
        assert not any(b"P00/0" in detail for detail in opened["outcomes/detail"][:])
    assert verify_file(file).findings == ()


@pytest.mark.slow
@pytest.mark.parametrize("form", ["raw", "text"])
@pytest.mark.parametrize("name", ODD)
def test_odd_names_in_a_list_are_removed(name: bytes, form: str, file: Path, tmp_path: Path) -> None:
    before = paths_in(file)
    path = "odd é/".encode() + name
    listed = path if form == "raw" else path.decode("utf-8", "backslashreplace").encode()
    (tmp_path / "list.txt").write_bytes(listed + (b"\0" if b"\n" in name else b"\n"))
    names = read_names(tmp_path / "list.txt")
    with Removal(file) as removal:
        selection = removal.find(names)
        assert selection.missing == ()
        removal.erase(selection, names, name_paths=True)
    assert set(before) - set(paths_in(file)) == {path}
    assert verify_file(file).findings == ()
    (receipt,) = file.parent.glob("*.removed-*.json")
    assert json.loads(receipt.read_bytes().decode("ascii"))["removed"] == [path.decode("utf-8", "backslashreplace")]


@pytest.mark.slow
def test_unknown_names_are_refused_without_ignore_missing(file: Path) -> None:
    data = file.read_bytes()
    result = remove(file, "--path", "P02/", "--path", "nobody\x1b[31m/", "--path", "P02/77.jpg")
    assert_refused(result, "E-CONFIG", 2, "nobody\\x1b[31m/\n  P02/77.jpg", "/photos", "/outcomes/path")
    (file.parent.parent / "empty").write_text("\n \n")
    result = remove(file, "--paths-from", file.parent.parent / "empty")
    assert_refused(result, "E-CONFIG")
    assert file.read_bytes() == data
    assert remove(file, "--path", "nobody", "--ignore-missing").returncode == 0
    assert file.read_bytes() == data
    result = remove(file, "--path", "P02/", "--path", "nobody", "--ignore-missing", "--json")
    receipt = json.loads(result.stdout)
    assert (receipt["removed_photographs"], receipt["names_not_found"]) == (4, 1)


@pytest.mark.slow
def test_names_are_read_from_standard_input(file: Path) -> None:
    command = [sys.executable, "-m", "runtime.cli.app", "remove", str(file), "--yes", "--paths-from", "-"]
    result = subprocess.run(command, input=b"P02/0.jpg\nP03\n", capture_output=True, cwd=ROOT, timeout=60)
    assert result.returncode == 0, result.stderr
    assert not [path for path in paths_in(file) if path.startswith((b"P02/0", b"P03"))]


@pytest.mark.slow
def test_remove_changes_no_file_without_yes(file: Path) -> None:
    data = file.read_bytes()
    dry_run = facemill("remove", file, "--path", "P02/", "--dry-run")
    assert dry_run.returncode == 0
    assert "4 photos (4 embeddings)" in dry_run.stderr
    result = facemill("remove", file, "--path", "P02/")
    assert_refused(result, USAGE, "--yes")
    assert facemill("remove", file, "--yes").returncode == 2
    for mistake in (("--path", "."), ("--path", "P02/", "--receipt", file), ("--path", "P02/", "--receipt", "/none/x")):
        assert remove(file, *mistake).returncode == 1
    assert file.read_bytes() == data
    assert os.listdir(file.parent) == ["people.h5"]


@pytest.mark.slow
def test_every_photo_can_be_removed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "all").write_bytes(b"\0".join(paths_in(file)))
    result = remove(file, "--paths-from", tmp_path / "all")
    assert result.returncode == 0, result.stderr
    verification = verify_file(file)
    assert (verification.embeddings, verification.photographs, verification.findings) == (0, 0, ())


@pytest.mark.slow
def test_only_pages_of_facemill_are_deleted_and_no_link_is_followed(file: Path, tmp_path: Path) -> None:
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
    receipt = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert not sheets.exists()
    assert not (tmp_path / "pairs.csv").exists()
    assert sorted(os.listdir(outside)) == ["a.html", "b.jpg", "thesis.docx"]
    kept_pages = {Path(page["path"]) for page in receipt["may_still_show"]}
    assert kept_pages == {outside / "thesis.docx", mixed, tmp_path / "link.html", tmp_path}
    assert set(read_list(file).pages()) == kept_pages


@pytest.mark.slow
def test_changed_and_replaced_pages_are_kept_and_listed(file: Path, tmp_path: Path) -> None:
    for name in ("page.html", "other.html", "folder/cluster-00001/1.jpg", "whole/cluster-00001/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("facemill's")
    pages = [tmp_path / name for name in ("page.html", "other.html", "folder", "whole")]
    for page in pages:
        record_page(file, page)
    unfinished = tmp_path / "half"
    record_page(file, unfinished)  # as if the writer had been killed
    unfinished.mkdir()
    (unfinished / "wedding.jpg").write_text("mine, or a copy of a photo")
    pages.append(unfinished)
    (tmp_path / "page.html").write_text("my own thesis")
    (tmp_path / "folder" / "cluster-00001" / "my wedding.jpg").write_text("mine")
    reviewed = file.with_name("people.h5.pairs-reviewed")
    reviewed.mkdir()
    receipt = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert {entry["path"] for entry in receipt["may_still_show"]} == {str(pages[0]), str(pages[2]), str(unfinished)}
    assert "changed since facemill wrote it" in receipt["may_still_show"][0]["why"]
    assert [page.exists() for page in pages] == [True, False, True, False, True]
    assert (tmp_path / "folder" / "cluster-00001" / "my wedding.jpg").exists()
    assert reviewed.exists()
    receipt = json.loads(remove(file, "--path", "P03/", "--json").stdout)  # a second removal keeps them too
    assert {entry["path"] for entry in receipt["may_still_show"]} == {str(pages[0]), str(pages[2]), str(unfinished)}


@pytest.mark.slow
def test_link_targets_and_hard_links_are_listed(file: Path, tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"vectors")
    link = file.with_name("people.h5.faiss")
    link.symlink_to(tmp_path / "index")
    (tmp_path / "second.h5").hardlink_to(file)
    receipt = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert not link.is_symlink()
    assert (tmp_path / "index").exists()
    assert [entry["path"] for entry in receipt["may_still_show"]] == [str(tmp_path / "index"), "unknown"]
    assert "other names: 1 (hard links)" in receipt["may_still_show"][1]["why"]
    assert b"P02/0.jpg" in paths_in(tmp_path / "second.h5")


@pytest.mark.slow
def test_merged_files_are_listed(file: Path, samples: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other_file = embed_folder(make_more(tmp_path / "more"), tmp_path / "other.h5", tiny_engine)
    result = facemill("merge", file, other_file, "-o", tmp_path / "both.h5")
    assert result.returncode == 0, result.stderr
    for name in ("P02/", "P03/"):  # in each receipt, not only the first
        receipt = json.loads(remove(file, "--path", name, "--json").stdout)
        assert [entry["path"] for entry in receipt["may_still_show"]] == [str(tmp_path / "both.h5")]


def make_more(folder: Path) -> Path:
    make_people(folder, range(40, 41))
    return folder


@pytest.mark.slow
def test_a_remaining_copy_of_a_removed_photo_is_reported(file: Path) -> None:
    result = remove(file, "--path", "P09/0.jpg", "--json")
    assert_names(result.stderr, 1)
    assert json.loads(result.stdout)["same_files_stay"] == 1
    receipt = json.loads(remove(file, "--path", "P00/0.jpg", "--path", "P09/", "--json").stdout)
    assert receipt["same_files_stay"] == 0


def test_the_receipt_is_as_private_as_the_file(file: Path) -> None:
    file.chmod(0o600)
    receipt = json.loads(remove(file, "--path", "P02/", "--json").stdout)
    assert Path(receipt["receipt"]).stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
def test_photos_in_a_recorded_folder_are_kept(samples: Path, tmp_path: Path) -> None:
    copy = tmp_path / "x"
    shutil.copytree(samples, copy)
    with h5py.File(copy / "people.h5", "r+") as opened:
        contract = json.loads(opened["metadata"].attrs["contract"])
        opened["metadata"].attrs["contract"] = json.dumps({**contract, "root": str(copy / "photos")})
    for folder in (copy / "photos", copy / "photos" / "P03"):
        record_page(copy / "people.h5", folder)
    receipt = json.loads(remove(copy / "people.h5", "--path", "P02/", "--json").stdout)
    assert len(receipt["may_still_show"]) == 2
    assert len(list((copy / "photos" / "P03").iterdir())) == 4


@pytest.mark.slow
def test_keep_pages_keeps_pages(file: Path) -> None:
    page = file.parent / "page.html"
    page.write_text("x")
    record_page(file, page)
    result = remove(file, "--path", "P02/", "--keep-pages")
    assert "may still show them" in result.stdout
    assert page.exists()
    assert read_list(file).pages() == [page]


@pytest.mark.slow
def test_foreign_datasets_are_dropped_and_foreign_attributes_kept(file: Path) -> None:
    with h5py.File(file, "r+") as opened:
        opened["cluster"] = np.zeros(len(opened["embeddings"]), np.int32)
        opened["metadata"].attrs["score_calibration"] = "kept"
        opened["metadata"].attrs["ours"] = 7
    result = remove(file, "--path", "P02/")
    assert "/cluster" in result.stderr
    with h5py.File(file) as opened:
        assert "cluster" not in opened
        assert opened["metadata"].attrs["score_calibration"] == "kept"
        assert opened["metadata"].attrs["ours"] == 7


@pytest.mark.slow
def test_the_new_file_keeps_its_mode_and_a_link_is_followed(file: Path, tmp_path: Path) -> None:
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


def kill_remove(file: Path, target: str, *arguments: object) -> None:
    """Run a removal that is killed when it calls `target`."""
    kill_at(target, "remove", file, "--yes", *arguments)


KILL_TARGETS = (
    "runtime.maintenance.remove.rewriting",
    "runtime.maintenance.remove.assemble",
    "runtime.storage.dataset._write_outcomes",
    "runtime.maintenance.remove.erase",
    "runtime.maintenance.remove.forget_pages",
    "runtime.maintenance.remove.sha256_of",
    "runtime.maintenance.remove.drop_note",
)


@pytest.mark.slow
@pytest.mark.parametrize("target", KILL_TARGETS)
def test_the_same_command_resumes_after_a_kill_between_two_steps(target: str, file: Path) -> None:
    traces = traces_of(file, "P02/")
    shutil.copy(file, file.with_name("people.h5.faiss"))
    page = file.parent / "page.html"
    page.write_bytes(b"P02/1.jpg")
    record_page(file, page)
    paths_before = paths_in(file)
    paths_after = [path for path in paths_before if not path.startswith(b"P02/")]
    kill_remove(file, target, "--path", "P02/")
    assert paths_in(file) in (paths_before, paths_after)  # complete: either the old file or the new one
    assert verify_file(file).findings == ()
    result = remove(file, "--path", "P02/", "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["removed_photographs"] == 4
    assert paths_in(file) == paths_after
    assert files_that_hold(file.parent, *traces) == []
    names = sorted(os.listdir(file.parent))
    assert names[0] == "people.h5"
    assert len(names) == 3  # the file, and one receipt with its key
    assert "removed-" in names[1]


@pytest.mark.slow
def test_a_later_removal_first_completes_an_interrupted_one(file: Path) -> None:
    shutil.copy(file, file.with_name("people.h5.faiss"))
    kill_remove(file, "runtime.maintenance.remove.erase", "--path", "P02/")
    assert file.with_name("people.h5.removing").exists()
    result = remove(file, "--path", "P03/")
    assert not [path for path in paths_in(file) if path.startswith((b"P02", b"P03"))]
    receipts = list(file.parent.glob("*.removed-*.json"))
    assert len(receipts) == 2
    assert [str(path) in result.stderr for path in receipts].count(True) == 1  # the receipt of the completed removal


@pytest.mark.slow
def test_a_removal_is_finished_though_its_file_was_changed_after_a_kill(file: Path, samples: Path) -> None:
    kill_remove(file, "runtime.maintenance.remove.erase", "--path", "P02/")
    with h5py.File(file, "r+") as opened:
        opened["metadata"].attrs["run_id"] = "another"
    shutil.copy(samples / "people.h5", file.with_name("people.h5.faiss"))
    result = remove(file, "--path", "P02/", "--json")
    assert result.returncode == 0, result.stderr
    receipt = Path(json.loads(result.stdout)["receipt"])
    assert sorted(os.listdir(file.parent)) == ["people.h5", receipt.name, receipt.name + ".key"]


@pytest.mark.slow
def test_photos_that_came_back_after_a_kill_are_removed_again(file: Path, samples: Path) -> None:
    kill_remove(file, "runtime.maintenance.remove.erase", "--path", "P02/")
    shutil.copy(samples / "people.h5", file)
    with h5py.File(file, "r+") as opened:
        opened["metadata"].attrs["run_id"] = "another"
    shutil.copy(samples / "people.h5", file.with_name("people.h5.faiss"))
    result = remove(file, "--path", "P02/")
    assert result.returncode == 0, result.stderr
    assert str(file) in result.stderr.splitlines()[0]  # a warning about the interrupted removal
    assert len(list(file.parent.glob("*.json"))) == 1
    assert not file.with_name("people.h5.faiss").exists()
    assert not [path for path in paths_in(file) if path.startswith(b"P02")]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_remove_resumes_after_kill_9_at_a_random_moment(seed: int, file: Path) -> None:
    traces = traces_of(file, "P02/")
    before = paths_in(file)
    command = [sys.executable, "-m", "runtime.cli.app", "remove", str(file), "--yes", "--path", "P02/"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        time.sleep(random.Random(seed).uniform(0.2, 0.9))
        process.kill()
    assert paths_in(file) in (before, [path for path in before if not path.startswith(b"P02/")])
    result = remove(file, "--path", "P02/", "--ignore-missing")
    assert result.returncode == 0, result.stderr
    assert files_that_hold(file.parent, *traces) == []


def test_a_locked_foreign_or_missing_file_is_refused(file: Path) -> None:
    for name, command in (("people.h5", ""), ("people.h5.pairs", "facemill pairs")):
        with RunFolder(file.with_name(name)):
            result = remove(file, "--path", "P02/")
            assert_refused(result, "E-LOCKED", file, command)
        assert b"P02/0.jpg" in paths_in(file)
    file.write_bytes(b"no file of ours")
    result = remove(file, "--path", "P02/")
    assert_refused(result, "E-STORAGE", file)
    missing = file.with_name("none.h5")
    assert_refused(remove(missing, "--path", "P02/"), "E-STORAGE", missing)


@pytest.mark.slow
def test_outcomes_of_the_remaining_photos_are_kept(file: Path, samples: Path) -> None:
    remove(file, "--path", "P02/")
    with h5py.File(file) as new_file, h5py.File(samples / "people.h5") as old_file:
        kept_rows = np.array([not path.startswith(b"P02/") for path in paths_in(samples / "people.h5")])
        for name in ("status", "detail", "digest"):
            np.testing.assert_array_equal(new_file[f"outcomes/{name}"][:], old_file[f"outcomes/{name}"][:][kept_rows])
        assert {Status(int(status)) for status in new_file["outcomes/status"][:]} == {
            Status.EMBEDDED,
            Status.CORRUPT,
            Status.DUPLICATE,
        }
