"""Erased is erased: from unfinished runs, under earlier names, in moved and copied folders, after failed deletions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path
from typing import Any

import h5py
import pytest

from runtime.api.jobs import remove as remove_photos
from runtime.errors import StorageError, UnfinishedError
from runtime.maintenance import erase
from runtime.maintenance import merge as merging
from runtime.maintenance.copies import copying
from runtime.maintenance.unfinished import is_unfinished
from runtime.review.review import PairVerdict, Review
from runtime.storage import deletion
from runtime.storage.derived import derived_file, record_page, record_start, take_fingerprint
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from runtime.storage.runfolder import RunFolder
from tests.support.errors import assert_names, assert_refused, raises
from tests.support.facemill_command import ROOT
from tests.support.facemill_command import facemill as run
from tests.support.interrupted_runs import kill_at
from tests.support.people_files import embed_folder, files_that_hold, make_people, paths_in, vectors_of

PERSON = "P02"


@pytest.fixture(scope="module")
def samples(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of three people; a file of all of them, and a file without the last."""
    folder = tmp_path_factory.mktemp("erasure")
    make_people(folder / "photos", range(3))
    embed_folder(folder / "photos", folder / "people.h5", tiny_engine, "--align", "none")
    rest = [f"photos/{person}/{number}.jpg" for person in ("P00", "P01") for number in range(4)]
    (folder / "rest.txt").write_text("\n".join(rest))
    embed_folder(Path(f"@{folder / 'rest.txt'}"), folder / "rest.h5", tiny_engine, "--align", "none")
    return folder


@pytest.fixture
def file(samples: Path, tmp_path: Path) -> Path:
    """The file of all people, in a folder of its own."""
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(samples / "people.h5", tmp_path / "here" / "people.h5"))


@pytest.fixture
def rest(samples: Path, tmp_path: Path) -> Path:
    """The file without the last person, in a folder of its own."""
    (tmp_path / "here").mkdir()
    return Path(shutil.copy(samples / "rest.h5", tmp_path / "here" / "people.h5"))


def remove(file: Path, *arguments: object, name: str = f"{PERSON}/") -> subprocess.CompletedProcess[str]:
    return run("remove", file, "--path", name, "--yes", *arguments)


def traces_of_person(samples: Path) -> list[bytes]:
    vectors = vectors_of(samples / "people.h5", f"{PERSON}/")
    assert len(vectors) == 4
    return [f"{PERSON}/".encode(), *(vector.tobytes() for vector in vectors)]


def interrupt_a_run(state: str, samples: Path, file: Path, engine: Path) -> None:
    """Leave an unfinished run beside a file that does not have the person yet."""
    if state == "an addition that is not joined":
        embed_folder(samples / "photos", file.with_name(file.name + ".adding"), engine, "--align", "none")
    elif state == "an addition":
        kill_at("runtime.pipeline.run.assemble", "add", file, samples / "photos")
    else:
        kill_at(
            "runtime.pipeline.run.assemble",
            *("process", samples / "photos", "-o", file, "--engine", engine, "--align", "none", "--force"),
        )


@pytest.mark.slow
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("state", ["an addition that is not joined", "an addition", "a run with --force"])
def test_a_person_in_an_unfinished_run_is_erased_and_does_not_come_back(
    state: str, absolute: bool, samples: Path, rest: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    interrupt_a_run(state, samples, rest, tiny_engine)
    assert files_that_hold(rest.parent, *traces_of_person(samples)) != []
    page = rest.with_name("page.html")
    page.write_text("a page of the file without the person")
    record_page(rest, page)
    before = paths_in(rest)
    name = f"{samples / 'photos' / PERSON}/" if absolute else f"{PERSON}/"
    assert "unfinished run" in run("remove", rest, "--path", name, "--dry-run").stderr
    result = remove(rest, "--json", name=name)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["removed_photographs"] == 0
    assert files_that_hold(rest.parent, *traces_of_person(samples)) == []
    assert paths_in(rest) == before
    assert page.exists()
    (tmp_path / "photos").mkdir()
    for person in ("P00", "P01"):
        shutil.copytree(samples / "photos" / person, tmp_path / "photos" / person)
    again = run("process", tmp_path / "photos", "-o", rest, "--engine", tiny_engine, "--align", "none", "--force")
    assert again.returncode == 0, again.stderr
    assert paths_in(rest) == before


@pytest.mark.slow
def test_an_unfinished_run_of_other_people_stays_unless_it_is_named(
    samples: Path, rest: Path, tiny_engine: Path
) -> None:
    interrupt_a_run("an addition that is not joined", samples, rest, tiny_engine)
    assert_refused(remove(rest, name="P77/"), "E-CONFIG", "P77/")
    assert rest.with_name("people.h5.adding").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["merge.record_elsewhere", "merge.assemble", "merge.was_replaced"])
def test_what_a_killed_merge_left_is_erased_with_the_person(
    place: str, samples: Path, file: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    """The list of all photos is written before the joined file, in another folder."""
    other, output = tmp_path / "there" / "more.h5", tmp_path / "there" / "joined.h5"
    other.parent.mkdir()
    make_people(tmp_path / "more", range(5, 7))
    embed_folder(tmp_path / "more", other, tiny_engine, "--align", "none")
    kill_at(f"runtime.maintenance.{place}", "merge", file, other, "-o", output)
    assert files_that_hold(output.parent, *traces_of_person(samples)) != []
    if output.exists():  # the receipt of the removal names it
        output.rename(output.with_name("kept.h5"))
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert f"{output}.parts" in json.loads(result.stdout)["deleted"]
    assert [
        path for path in files_that_hold(output.parent, *traces_of_person(samples)) if "kept" not in str(path)
    ] == []
    assert not output.with_name("joined.h5.parts").exists()


@pytest.mark.slow
def test_what_a_killed_repair_left_is_erased_with_the_person(samples: Path, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "repaired.h5"
    whole = file.read_bytes()
    with h5py.File(file, "r+") as opened:
        opened["embeddings"][0] *= 2
    kill_at("runtime.maintenance.repair.assemble", "repair", file, "-o", output)
    assert files_that_hold(tmp_path, *traces_of_person(samples)) != []
    file.write_bytes(whole)  # restored from a copy
    assert remove(file).returncode == 0
    assert not output.with_name("repaired.h5.parts").exists()


@pytest.mark.parametrize("state", ["in use", "an unfinished run", "with another file"])
def test_a_copy_that_is_no_leftover_stays(state: str, file: Path, tmp_path: Path) -> None:
    output = tmp_path / "joined.h5"
    with copying([file], output):
        with RunFolder(output) as folder:
            folder.paths_file.write_bytes(f"{PERSON}/0.jpg".encode())
            if state == "in use":
                assert remove(file).returncode == 0
                assert folder.paths_file.exists()
                return
            (folder.path / "plan.json").write_text("{}")
        if state == "with another file":
            (folder.path / "plan.json").rename(folder.path / "notes.txt")
            refused = remove(file)
            assert refused.returncode == 3, refused.stderr
            assert_names(refused.stderr, folder.path, "notes.txt")
            (folder.path / "notes.txt").unlink()
        assert remove(file).returncode == 0
    assert folder.path.exists() == (state == "an unfinished run")
    assert not file.with_name("people.h5.pages").exists()


@pytest.mark.parametrize("name", ["people.h5", "people.adding.h5"])
def test_only_runs_and_half_files_belong_to_an_unfinished_run(name: str, tmp_path: Path) -> None:
    unfinished = (".adding", ".adding.parts", ".adding.partial", ".partial")
    others = (".faiss", ".faiss.json", ".faiss.partial", ".pairs.parts", ".damaged-1")
    file = tmp_path / name
    assert [is_unfinished(Path(f"{file}{suffix}"), file) for suffix in unfinished] == [True] * 4
    assert [is_unfinished(Path(f"{file}{suffix}"), file) for suffix in others] == [False] * 5


def test_an_unfinished_run_that_cannot_be_read_is_taken_to_hold_the_person(rest: Path) -> None:
    rest.with_name("people.h5.adding").write_bytes(b"damaged")
    assert remove(rest).returncode == 0
    assert not rest.with_name("people.h5.adding").exists()


@pytest.mark.slow
def test_a_name_that_was_removed_before_is_no_mistake(file: Path) -> None:
    first = json.loads(remove(file, "--json").stdout)
    again = remove(file, "--json")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout) == first
    assert first["receipt"] in again.stderr
    assert remove(file, name="P01/").returncode == 0
    for form in ("P01", "P01/", "P01/0.jpg", f"{PERSON}/0.jpg"):
        assert remove(file, name=form).returncode == 0, form
    assert_refused(remove(file, name="P01/9.jpg"), "E-CONFIG", "P01/9.jpg")
    Path(first["receipt"] + ".key").unlink()
    assert_refused(remove(file), "E-CONFIG", f"{PERSON}/")  # nobody can tell without the key


def test_a_named_receipt_answers_too_and_is_not_replaced(file: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    assert remove(file, "--receipt", receipt).returncode == 0
    content = receipt.read_bytes()
    assert remove(file, "--receipt", receipt).returncode == 0
    assert receipt.read_bytes() == content
    assert_refused(remove(file, "--receipt", receipt, name="P01/"), "E-EXISTS", receipt)
    assert b"P01/0.jpg" in paths_in(file)


def test_a_file_in_the_place_of_the_key_is_kept(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "receipt.json.key"
    key.write_text("mine")
    assert_refused(remove(file, "--receipt", tmp_path / "receipt.json"), "E-EXISTS", key)
    assert key.read_text() == "mine"
    assert f"{PERSON}/0.jpg".encode() in paths_in(file)


@pytest.mark.slow
def test_a_page_that_cannot_be_deleted_is_an_unfinished_removal(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = [file.with_name(name) for name in ("a.html", "b.html")]
    for page in pages:
        page.write_text("faces")
        record_page(file, page)
    unlink = os.unlink

    def refuse(name: str, *, dir_fd: int | None = None) -> None:
        if Path(name).name == pages[0].name:
            raise OSError(5, "Input/output error")
        unlink(name, dir_fd=dir_fd)

    with monkeypatch.context() as context:
        context.setattr(os, "unlink", refuse)
        for _ in range(2):
            with raises(UnfinishedError, pages[0], "Input/output error", "--keep-pages"):
                remove_photos(file, f"{PERSON}/")
        assert f"{PERSON}/0.jpg".encode() not in paths_in(file)
        assert [page.exists() for page in pages] == [True, False]
        assert pages[0] in read_list(file).pages()
        assert list(file.parent.glob("*.removed-*")) == []
    receipt = remove_photos(file, f"{PERSON}/")
    assert receipt is not None
    assert receipt.removed_photographs == 4
    assert not pages[0].exists()
    assert receipt.may_still_show == ()
    assert sorted(path.suffix for path in file.parent.iterdir()) == [".h5", ".json", ".key"]


@pytest.mark.slow
def test_the_command_ends_with_3_until_the_removal_is_finished(file: Path) -> None:
    index = file.with_name("people.h5.faiss")
    page = file.with_name("page.html")
    page.write_text("faces")
    record_page(file, page)
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "unlink = os.unlink\n"
        "def refuse(name, **given):\n"
        "    if name == 'page.html': raise OSError(30, 'Read-only file system')\n"
        "    unlink(name, **given)\n"
        "os.unlink = refuse\n"
        "from runtime.cli.remove import main\n"
        f"main([{str(file)!r}, '--path', 'P02/', '--yes'])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 3, result.stderr
    assert "E-UNFINISHED: " in result.stderr
    assert "Traceback" not in result.stderr
    kept = remove(file, "--keep-pages", "--json")
    assert kept.returncode == 0, kept.stderr
    assert [entry["path"] for entry in json.loads(kept.stdout)["may_still_show"]] == [str(page)]
    assert not index.exists()


@pytest.mark.slow
def test_a_folder_whose_deletion_was_killed_is_deleted_whatever_it_holds(file: Path) -> None:
    folder = file.with_name("sheets")
    (folder / "cluster-1").mkdir(parents=True)
    for name in ("index.html", "cluster-1/a.html", "cluster-1/b.html"):
        (folder / name).write_text("faces")
    record_page(file, folder)
    kill_at("runtime.storage.deletion.sync_folder", "remove", file, "--path", f"{PERSON}/", "--yes")
    (remains,) = file.parent.glob("sheets.removing-*")
    shutil.rmtree(remains / "cluster-1")  # as if the kill had come later
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["may_still_show"] == []
    assert list(file.parent.glob("sheets*")) == []


@pytest.mark.slow
def test_keep_pages_ends_a_removal_whose_folder_cannot_be_deleted(file: Path) -> None:
    folder = file.with_name("sheets")
    folder.mkdir()
    (folder / "index.html").write_text("faces")
    record_page(file, folder)
    kill_at("runtime.storage.deletion.sync_folder", "remove", file, "--path", f"{PERSON}/", "--yes")
    (remains,) = file.parent.glob("sheets.removing-*")
    result = remove(file, "--keep-pages", "--json")
    assert result.returncode == 0, result.stderr
    assert [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]] == [str(remains)]


@pytest.mark.slow
def test_the_remains_of_a_killed_export_are_deleted_after_a_killed_deletion(file: Path) -> None:
    folder = file.with_name("npy")
    record_start(file, folder)
    partial = file.with_name("npy.partial")
    partial.mkdir()
    (partial / "embeddings.npy").write_text("faces")
    kill_at("runtime.storage.deletion.sync_folder", "remove", file, "--path", f"{PERSON}/", "--yes")
    assert list(file.parent.glob("npy.partial.removing-*"))
    assert remove(file).returncode == 0
    assert list(file.parent.glob("npy*")) == []


def test_a_page_that_cannot_be_looked_at_is_an_unfinished_removal(file: Path, tmp_path: Path) -> None:
    folder = file.with_name("disk")
    folder.mkdir()
    page = folder / "page.html"
    page.write_text("faces")
    record_page(file, page)
    folder.rename(tmp_path / "away")
    folder.symlink_to(folder)  # a loop: no path through it can be looked at
    result = remove(file)
    assert result.returncode == 3, result.stderr
    assert_names(result.stderr, page, "--keep-pages")
    folder.unlink()
    (tmp_path / "away").rename(folder)
    assert remove(file).returncode == 0
    assert not page.exists()


def test_a_page_that_gets_its_name_while_a_removal_deletes_is_deleted_too(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, partial = file.with_name("page.html"), file.with_name("page.html.partial")
    page.write_text("faces")
    record_page(file, page)
    page.rename(partial)  # the writer has noted the page, and is about to rename it
    real = erase.delete

    def delete_late(path: Path) -> str:
        if path == partial and partial.exists():
            partial.rename(page)
        return real(path)

    monkeypatch.setattr(erase, "delete", delete_late)
    receipt = remove_photos(file, f"{PERSON}/")
    assert receipt is not None
    assert not page.exists()
    assert not partial.exists()


def test_a_page_behind_a_link_and_two_dots_is_where_the_kernel_says(file: Path, tmp_path: Path) -> None:
    (tmp_path / "x" / "sub").mkdir(parents=True)
    link = file.with_name("link")
    link.symlink_to(tmp_path / "x" / "sub")
    page = Path(f"{link}/../page.html")
    page.write_text("faces")
    record_page(file, page)
    assert (tmp_path / "x" / "page.html").exists()
    assert remove(file).returncode == 0
    assert not (tmp_path / "x" / "page.html").exists()


@pytest.mark.slow
def test_a_list_of_a_stranger_is_neither_followed_nor_deleted(file: Path) -> None:
    page = file.with_name("page.html")
    page.write_text("faces")
    record_page(file, page)
    pages = file.with_name("people.h5.pages")
    pages.chmod(0o666)
    content = pages.read_bytes()
    assert remove(file).returncode == 0
    assert pages.read_bytes() == content
    pages.chmod(0o600)
    assert remove(file, name="P01/").returncode == 0
    assert not page.exists()


def test_a_pipe_in_the_place_of_the_list_stops_nothing(file: Path) -> None:
    pages = file.with_name("people.h5.pages")
    os.mkfifo(pages)
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert str(pages) in [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]]


@pytest.mark.slow
def test_a_removal_is_finished_under_another_name_of_the_file(file: Path) -> None:
    page = file.with_name("page.html")
    page.write_text("faces")
    record_page(file, page)
    kill_at("runtime.maintenance.remove.erase", "remove", file, "--path", f"{PERSON}/", "--yes")
    renamed = file.rename(file.with_name("renamed.h5"))
    result = remove(renamed, "--json")
    assert result.returncode == 0, result.stderr
    receipt = Path(json.loads(result.stdout)["receipt"]).name
    assert sorted(os.listdir(file.parent)) == ["renamed.h5", receipt, f"{receipt}.key"]


def test_the_key_of_an_earlier_receipt_is_never_replaced(file: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.json"
    assert remove(file, "--receipt", receipt).returncode == 0
    key = Path(f"{receipt}.key")
    content = key.read_bytes()
    receipt.unlink()  # given away
    assert_refused(remove(file, "--receipt", receipt, name="P01/"), "E-EXISTS", key)
    assert key.read_bytes() == content
    assert b"P01/0.jpg" in paths_in(file)


@pytest.mark.parametrize("name", ["people.h5.removing", "people.h5.pages", "people.h5.faiss", "people.h5.parts/r.json"])
def test_a_receipt_has_no_name_of_ours(file: Path, name: str) -> None:
    assert_refused(remove(file, "--receipt", file.parent / name), "E-CONFIG", name)
    assert f"{PERSON}/0.jpg".encode() in paths_in(file)


def test_a_folder_that_became_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "page.html").write_text("mine")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "page.html").write_text("faces")
    real = os.path.realpath

    def swap(path: Path) -> str:
        answer = real(path)
        (tmp_path / "sub").rename(tmp_path / "old")
        (tmp_path / "sub").symlink_to(tmp_path / "victim")
        return answer

    with monkeypatch.context() as context:
        context.setattr(os.path, "realpath", swap)
        assert "link" in deletion.delete(tmp_path / "sub" / "page.html")
    assert (tmp_path / "victim" / "page.html").exists()


@pytest.mark.slow
def test_a_joined_file_of_rows_that_were_removed_meanwhile_is_deleted(
    file: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_people(tmp_path / "more", range(50, 51))
    other = embed_folder(tmp_path / "more", tmp_path / "more.h5", tiny_engine, "--align", "none")
    real = merging.assemble

    def assemble(*arguments: Any, **given: Any) -> None:
        receipt = remove_photos(file, f"{PERSON}/")
        assert receipt is not None
        assert str(tmp_path / "both.h5") in [path for path, _ in receipt.may_still_show]
        real(*arguments, **given)

    monkeypatch.setattr(merging, "assemble", assemble)
    with raises(StorageError, file, tmp_path / "both.h5"):
        merging.merge([file, other], tmp_path / "both.h5")
    assert not (tmp_path / "both.h5").exists()


def test_only_names_with_sixteen_digits_mean_a_deletion(tmp_path: Path) -> None:
    ours, theirs = tmp_path / f"x.removing-{'0a' * 8}", tmp_path / "x.removing-soon"
    for folder in (ours, theirs):
        folder.mkdir()
    assert deletion.renamed_remains(tmp_path / "x") == [ours]
    assert deletion.final_name(ours) == "x"
    assert deletion.delete(ours) == ""
    assert os.listdir(tmp_path) == ["x.removing-soon"]


def test_a_link_to_a_folder_is_deleted_itself(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    assert deletion.delete(tmp_path / "link") == ""
    assert (tmp_path / "mine" / "a").exists()
    assert deletion.delete(tmp_path / "link") == ""  # it is gone


@pytest.fixture
def searched(file: Path, samples: Path) -> Path:
    """The file after a search with a page and an index, and an export."""
    query = samples / "photos" / "P00" / "0.jpg"
    result = run("search", file, query, "--html", file.with_name("page.html"))
    assert result.returncode == 0, result.stderr
    assert run("export", file, "--npy", file.with_name("npy")).returncode == 0
    assert file.with_name("people.h5.faiss").exists()
    return file


@pytest.mark.slow
def test_an_index_is_beside_the_file_and_not_beside_its_link(file: Path, samples: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    query = samples / "photos" / "P00" / "0.jpg"
    for kind in ("flat", "flat"):
        assert run("search", link, query, "--index", kind).returncode == 0
    assert not list(tmp_path.glob("link.h5.*"))
    assert file.with_name("people.h5.faiss").exists()
    assert remove(file).returncode == 0
    assert files_that_hold(tmp_path, *traces_of_person(samples)) == []


@pytest.mark.slow
def test_pages_and_indexes_of_a_renamed_file_are_erased(searched: Path, samples: Path) -> None:
    searched = searched.rename(searched.with_name("renamed.h5"))
    assert run("add", searched, samples / "photos").returncode == 0  # nothing to add, and no other identity
    result = remove(searched, "--json")
    assert result.returncode == 0, result.stderr
    assert files_that_hold(searched.parent, *traces_of_person(samples)) == []
    receipt = Path(json.loads(result.stdout)["receipt"]).name
    assert sorted(os.listdir(searched.parent)) == ["renamed.h5", receipt, f"{receipt}.key"]


@pytest.mark.slow
def test_what_was_made_before_a_run_that_started_over_is_erased_too(
    file: Path, samples: Path, tiny_engine: Path
) -> None:
    photos = Path(shutil.copytree(samples / "photos", file.parent / "photos"))
    file.unlink()
    embed_folder(photos, file, tiny_engine, "--align", "none")
    here, query = file.parent, photos / PERSON / "0.jpg"
    assert run("search", file, query, "--html", here / "before.html").returncode == 0
    folders = ("--threshold", "0.5", "--min-photos", 1, "--folders", here / "sorted", "--mode", "copy", "--no-column")
    assert run("cluster", file, *folders).returncode == 0
    shutil.rmtree(photos / PERSON)
    embed_folder(photos, file, tiny_engine, "--align", "none", "--force")
    record_page(file, Path(shutil.copy(here / "before.html", here / "after.html")))
    assert len(paths_in(file)) == 8

    refused = remove(file)
    assert_refused(refused, "E-CONFIG", f"{PERSON}/", here / "before.html", here / "sorted", "--ignore-missing")
    assert here.joinpath("before.html").exists()
    removed = json.loads(remove(file, "--ignore-missing", "--json").stdout)
    assert removed["removed_photographs"] == 0
    assert {Path(path).name for path in removed["deleted"]} >= {"before.html", "sorted", "people.h5.faiss"}
    assert not here.joinpath("before.html").exists()
    assert not here.joinpath("sorted").exists()
    assert here.joinpath("after.html").exists()
    assert files_that_hold(here, *traces_of_person(samples)) == [str(here / "after.html")]
    assert "nothing to remove" in remove(file, "--ignore-missing", name="nobody").stdout
    assert {page.name for page in read_list(file).pages()} == {"after.html"}


@pytest.mark.slow
def test_an_unfinished_run_that_holds_no_named_photo_outlives_the_pages_of_earlier_rows(
    file: Path, samples: Path, tiny_engine: Path
) -> None:
    assert (
        run("search", file, samples / "photos" / PERSON / "0.jpg", "--html", file.parent / "before.html").returncode
        == 0
    )
    again = ("process", samples / "photos", "-o", file, "--engine", tiny_engine, "--align", "none", "--force")
    assert run(*again).returncode == 0
    kill_at("runtime.pipeline.run.assemble", *again)
    plan = file.parent / "people.h5.parts" / "plan.json"
    before = plan.read_bytes()
    removed = remove(file, "--ignore-missing", name="nobody")
    assert removed.returncode == 0
    assert not (file.parent / "before.html").exists()
    assert plan.read_bytes() == before
    assert "discarded" not in removed.stderr
    resumed = run(*again)
    assert resumed.returncode == 0
    assert len(paths_in(file)) == 12


@pytest.mark.slow
def test_an_index_of_another_file_in_the_folder_stays(searched: Path, samples: Path) -> None:
    shutil.copy2(searched, searched.with_name("copy.h5"))
    index, page = searched.with_name("people.h5.faiss"), searched.with_name("page.html")
    assert remove(searched.with_name("copy.h5")).returncode == 0
    assert index.exists()
    assert page.exists()
    searched.unlink()
    embed_folder(samples / "photos" / "P00", searched.with_name("other.h5"), engine_of(samples), "--align", "none")
    assert remove(searched.with_name("other.h5"), name="0.jpg").returncode == 0
    assert index.exists()


def engine_of(samples: Path) -> Path:
    with EmbeddingFile(samples / "people.h5") as file:
        return Path(file.metadata["engine"])


@pytest.mark.slow
def test_pages_in_a_moved_folder_are_erased(searched: Path, samples: Path) -> None:
    moved = searched.parent.rename(searched.parent.with_name("moved"))
    result = remove(moved / "people.h5", "--json")
    assert result.returncode == 0, result.stderr
    assert files_that_hold(moved, *traces_of_person(samples)) == []
    assert json.loads(result.stdout)["may_still_show"] == []
    assert not (moved / "page.html").exists()


@pytest.mark.slow
def test_a_removal_in_a_copied_folder_erases_the_copied_pages_and_not_the_original(searched: Path) -> None:
    copied = searched.parent.with_name("copied")
    shutil.copytree(searched.parent, copied)
    assert remove(copied / "people.h5").returncode == 0
    assert not (copied / "page.html").exists()
    assert not (copied / "npy").exists()
    assert searched.with_name("page.html").exists()
    assert searched.with_name("npy").exists()


@pytest.mark.slow
def test_a_page_that_was_moved_is_named_in_every_receipt(searched: Path) -> None:
    page = searched.with_name("page.html")
    page.rename(searched.with_name("elsewhere.html"))
    for name in (f"{PERSON}/", "P01/"):
        receipt = json.loads(remove(searched, "--json", name=name).stdout)
        assert [entry["path"] for entry in receipt["may_still_show"]] == [str(page)]


def test_a_page_of_rows_that_were_removed_meanwhile_is_deleted(file: Path) -> None:
    page = file.with_name("page.html")
    with EmbeddingFile(file) as embeddings:
        assert remove(file).returncode == 0
        page.write_text("faces of the old file")
        with raises(StorageError, file, page):
            record_page(embeddings, page)
    assert not page.exists()


def test_a_page_that_is_not_yet_named_never_gets_a_name_after_a_removal(file: Path) -> None:
    page = file.with_name("page.html")
    page.write_text("an earlier page")
    with EmbeddingFile(file) as embeddings, raises(StorageError, file, page):  # noqa: SIM117 - the order matters
        with derived_file(embeddings, page, "the page") as output:
            output.write(b"faces of the old file")
            assert remove(file, "--keep-pages").returncode == 0
    assert page.read_text() == "an earlier page"
    assert not page.with_name("page.html.partial").exists()


def test_a_page_is_kept_when_only_a_column_was_written(file: Path) -> None:
    page = file.with_name("page.html")
    with EmbeddingFile(file) as embeddings:
        assert run("cluster", file, "--threshold", "0.5").returncode == 0
        page.write_text("faces")
        record_page(embeddings, page)
    assert page.exists()


def embed_nested(folder: Path, engine: Path) -> Path:
    """A file of three people below `a`, with two more below `b` that are not in it."""
    make_people(folder / "photos" / "a", range(3))
    make_people(folder / "photos" / "b", range(5, 7))
    return embed_folder(folder / "photos" / "a", folder / "people.h5", engine, "--align", "none")


@pytest.mark.slow
@pytest.mark.parametrize("rooted", [True, False])
@pytest.mark.parametrize("change", ["process", "add"])
def test_an_interrupted_removal_is_not_done_where_the_root_changed(
    change: str, rooted: bool, tiny_engine: Path, tmp_path: Path
) -> None:
    """The note has names below the old root, the file has names below the new one."""
    file, photos = embed_nested(tmp_path, tiny_engine), tmp_path / "photos"
    kill_at("runtime.maintenance.remove.rewriting", "remove", file, "--path", f"{PERSON}/", "--yes")
    note = file.with_name("people.h5.removing")
    if not rooted:  # it was written by an earlier version
        noted = json.loads(note.read_text())
        del noted["card"]["root"]
        note.write_text(json.dumps(noted))
    if change == "process":
        embed_folder(photos / "a", file, tiny_engine, "--align", "none", "--force", photos / "b")
    else:
        assert run("add", file, photos / "b").returncode == 0
    assert f"a/{PERSON}/0.jpg".encode() in paths_in(file)
    assert_refused(remove(file), "E-CONFIG", f"{PERSON}/")
    removed = json.loads(remove(file, "--json", name=f"a/{PERSON}/").stdout)
    assert removed["removed_photographs"] == 4
    assert not [path for path in paths_in(file) if PERSON.encode() in path]
    assert not note.exists()


@pytest.mark.slow
def test_a_finished_removal_is_known_where_the_root_changed(tiny_engine: Path, tmp_path: Path) -> None:
    file, photos = embed_nested(tmp_path, tiny_engine), tmp_path / "photos"
    kill_at("runtime.maintenance.remove.erase", "remove", file, "--path", f"{PERSON}/", "--yes")
    shutil.rmtree(photos / "a" / PERSON)
    assert run("add", file, photos / "b").returncode == 0
    assert len(paths_in(file)) == 16
    result = remove(file, "--json", name=f"{photos / 'a' / PERSON}/")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["removed_photographs"] == 4
    assert json.loads(remove(file, "--json", name=f"a/{PERSON}/").stdout) == json.loads(result.stdout)


@pytest.mark.slow
def test_an_earlier_receipt_is_no_answer_where_the_root_changed(tiny_engine: Path, tmp_path: Path) -> None:
    file, photos = embed_nested(tmp_path, tiny_engine), tmp_path / "photos"
    assert remove(file).returncode == 0
    embed_folder(photos / "a", file, tiny_engine, "--align", "none", "--force", photos / "b")
    assert f"a/{PERSON}/0.jpg".encode() in paths_in(file)
    assert_refused(remove(file), "E-CONFIG", f"{PERSON}/")


def record_pages(file: Path) -> list[Path]:
    """A page and a folder that are noted in the list of a file."""
    page, folder = file.with_name("page.html"), file.with_name("folders")
    page.write_text("faces")
    folder.mkdir()
    (folder / "index.html").write_text("faces")
    for made in (page, folder):
        record_page(file, made)
    return [page, folder]


def move_behind_link(file: Path, folder: Path) -> Path:
    """Move a file, and leave a link to it in its place."""
    folder.mkdir(exist_ok=True)
    moved = file.rename(folder / ("moved.h5" if folder == file.parent else file.name))
    file.symlink_to(moved)
    return moved


@pytest.mark.slow
@pytest.mark.parametrize("where", ["another disk", "the same folder"])
def test_the_list_beside_a_link_that_a_moved_file_left_is_read(where: str, file: Path, tmp_path: Path) -> None:
    made = record_pages(file)
    moved = move_behind_link(file, tmp_path / "big" if where == "another disk" else file.parent)
    later = moved.with_name("later.html")
    later.write_text("faces")
    record_page(file, later)  # in the list of the file
    changed = file.with_name("changed.html")
    changed.write_text("faces")
    lines = file.with_name("people.h5.pages").read_text()
    seen = json.dumps({"page": changed.name, "seen": [1, 1, 1]})
    file.with_name("people.h5.pages").write_text(f"{lines}{seen}\n")
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert [page for page in (*made, later) if page.exists()] == []
    assert [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]] == [str(changed)]
    assert not file.with_name("people.h5.pages").exists()
    assert read_list(file).pages() == [changed]
    assert file.is_symlink()


@pytest.mark.slow
def test_a_list_of_another_file_beside_a_link_is_named_and_not_followed(
    file: Path, samples: Path, tmp_path: Path
) -> None:
    """A link takes the name of a file of which pages are left."""
    made = record_pages(file)
    file.unlink()
    file.symlink_to(shutil.copy(samples / "rest.h5", tmp_path / "rest.h5"))
    result = remove(file, "--json", name="P01/")
    assert result.returncode == 0, result.stderr
    assert all(page.exists() for page in made)
    pages = file.with_name("people.h5.pages")
    assert [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]] == [str(pages)]
    assert pages.exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["erase", "rewriting"])
def test_an_interrupted_removal_of_a_file_that_was_moved_behind_a_link_goes_on(
    place: str, file: Path, tmp_path: Path
) -> None:
    made = record_pages(file)
    kill_at(f"runtime.maintenance.remove.{place}", "remove", file, "--path", f"{PERSON}/", "--yes")
    moved = move_behind_link(file, tmp_path / "big")
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["removed_photographs"] == 4
    assert f"{PERSON}/0.jpg".encode() not in paths_in(file)
    assert [page for page in made if page.exists()] == []
    assert not [*file.parent.glob("*.removing"), *moved.parent.glob("*.removing")]


def test_a_damaged_note_beside_a_link_is_named(file: Path, tmp_path: Path) -> None:
    move_behind_link(file, tmp_path / "big")
    note = file.with_name("people.h5.removing")
    note.write_text("{")
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert str(note) in [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]]


@pytest.mark.slow
def test_a_list_behind_a_link_deletes_nothing_beside_the_link(file: Path, tmp_path: Path) -> None:
    """The owner of a shared file may have written its list; a page beside the link is not below the list's folder."""
    table = file.with_name("thesis.csv")
    table.write_text("a,b")
    moved = move_behind_link(file, tmp_path / "big")
    fingerprint = take_fingerprint(table)
    assert fingerprint is not None
    line = {"page": str(table), "seen": list(astuple(fingerprint))}
    moved.with_name("people.h5.pages").write_text(json.dumps(line) + "\n")
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    assert table.exists()
    assert [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]] == [str(table)]


@pytest.mark.slow
def test_what_a_renamed_file_left_under_a_name_that_another_file_took_is_erased(searched: Path, samples: Path) -> None:
    made = [searched.with_name("page.html"), searched.with_name("npy")]
    old = searched.rename(searched.with_name("old.h5"))
    embed_folder(samples / "photos" / "P00", searched, engine_of(samples), "--align", "none")
    of_new, pages = searched.with_name("new.html"), searched.with_name("people.h5.pages")
    of_new.write_text("faces")
    record_page(searched, of_new)
    result = remove(old, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["may_still_show"] == []
    assert [page for page in made if page.exists()] == []
    assert list(searched.parent.glob("people.h5.faiss*")) == []
    assert of_new.exists()
    assert read_list(searched).pages() == [of_new]
    assert len(pages.read_text().splitlines()) == 2  # the identity of the new file, and its page
    assert paths_in(searched) == [f"{number}.jpg".encode() for number in range(4)]


@pytest.mark.slow
def test_a_list_with_pages_of_the_renamed_file_alone_goes(searched: Path, samples: Path) -> None:
    old = searched.rename(searched.with_name("old.h5"))
    embed_folder(samples / "photos" / "P00", searched, engine_of(samples), "--align", "none")
    assert remove(old).returncode == 0
    assert not searched.with_name("people.h5.pages").exists()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["remove.erase", "erase.sync_folder", "remove.forget_pages"])
def test_a_page_that_went_away_after_a_killed_removal_is_named(place: str, file: Path, tmp_path: Path) -> None:
    """Nobody can tell whether the killed command deleted it, or a user moved it, unless its note says so."""
    page, folder = record_pages(file)
    moved_before = file.with_name("before.html")
    moved_before.write_text("faces")
    record_page(file, moved_before)
    moved_before.rename(tmp_path / "before.html")
    kill_at(f"runtime.maintenance.{place}", "remove", file, "--path", f"{PERSON}/", "--yes")
    if page.exists():
        page.rename(tmp_path / "page.html")
    result = remove(file, "--json")
    assert result.returncode == 0, result.stderr
    named = {entry["path"]: entry["why"] for entry in json.loads(result.stdout)["may_still_show"]}
    gone = {"remove.erase": {str(page)}, "erase.sync_folder": {str(page), str(folder)}}.get(place, set())
    assert named.keys() == {str(moved_before), *gone}
    assert all("deleted by the interrupted removal, or moved" in named[path] for path in gone)
    assert "if you moved it" in named[str(moved_before)]
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("left", ["beside a link", "under a name that another file took"])
def test_decisions_that_a_moved_file_left_behind_forget_the_person(left: str, file: Path, samples: Path) -> None:
    with EmbeddingFile(file) as embeddings:
        rows = [embeddings.names(range(embeddings.rows)).index(f"{person}/0.jpg") for person in ("P00", PERSON)]
    with Review(file) as review:
        review.decide_pairs([PairVerdict(*rows, "different")])
    decisions, given = file.with_name("people.h5.review"), file
    if left == "beside a link":
        (file.parent / "big").mkdir()
        file.rename(file.parent / "big" / "people.h5")
        file.symlink_to(file.parent / "big" / "people.h5")
    else:
        given = file.rename(file.with_name("old.h5"))
        shutil.copy(samples / "rest.h5", file)
    assert f"{PERSON}/0.jpg".encode() in decisions.read_bytes()
    receipt = json.loads(remove(given, "--json").stdout)
    assert receipt["faces_erased_from_decisions"] == 1
    assert f"{PERSON}/0.jpg".encode() not in decisions.read_bytes()
