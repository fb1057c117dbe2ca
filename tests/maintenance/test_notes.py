"""Notes beside an embedding file are facts, not orders: they overwrite and delete nothing, whatever they hold."""

from __future__ import annotations

import json
import shutil
from dataclasses import astuple
from pathlib import Path

import h5py
import pytest

from runtime.maintenance.receipt import key_path
from runtime.storage.derived import record_page, take_fingerprint
from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, make_people, paths_in

RUN = "RUN_ID"


def removing(**card: object) -> str:
    return json.dumps({"card": {"run_id_after": RUN, "run_id_before": "x", **card}, "keep_pages": False})


BAD_NOTES = [
    "", "{}", "[]", "5", "null", "\xff", "[" * 100_000, '{"card":{}}', '{"card":5,"keep_pages":2}', removing(),
    removing(other_names_of_file_before="x"), removing(asked_hmac=5), removing(begun_utc="../../x"),
]  # fmt: skip
BAD_PAGES = [
    "5", '"x"', '{"page":5,"seen":null}', '{"page":"/x","seen":5}', '{"page":"/x","seen":[1]}',
    '{"page":"/x","seen":["a","b","c"]}', '{"page":"/\\u0000x","seen":[1,2,3]}', '{"page":"/dev/null","seen":null}',
    '{"page":"/proc/self/fd","seen":[1,2,3]}', "[" * 50_000, '{"page":"/' + "a" * 5000 + '","seen":null}',
    '{"page":"FILE","seen":[1,1,1]}', '{"elsewhere":5}', '{"elsewhere":"\\u001b[31mred"}',
    '{"page":"/x","seen":[1e999,1,1]}', '{"page":"/x","seen":[NaN,1,1]}', '{"page":"/\\ud800","seen":[1,1,1]}',
]  # fmt: skip


@pytest.fixture(scope="module")
def sample(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed three people."""
    folder = tmp_path_factory.mktemp("notes")
    make_people(folder / "photos", range(3))
    return embed_folder(folder / "photos", folder / "people.h5", tiny_engine)


@pytest.fixture
def file(sample: Path, tmp_path: Path) -> Path:
    """Copy the file to a folder of its own, beside the user's home."""
    (tmp_path / "share").mkdir()
    (tmp_path / "home").mkdir()
    return Path(shutil.copy(sample, tmp_path / "share" / "people.h5"))


@pytest.mark.slow
@pytest.mark.parametrize("text", BAD_NOTES)
def test_a_damaged_note_of_a_removal_is_named_and_not_followed(text: str, file: Path) -> None:
    with h5py.File(file) as opened:
        run_id = str(opened["metadata"].attrs["run_id"])
    note = file.with_name("people.h5.removing")
    note.write_bytes(text.replace(RUN, run_id).encode("latin-1"))
    result = facemill("remove", file, "--path", "P02/", "--yes", "--json")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert str(note) in [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]]
    assert not [path for path in paths_in(file) if path.startswith(b"P02")]


@pytest.mark.slow
@pytest.mark.parametrize("text", BAD_PAGES)
def test_a_damaged_list_of_pages_does_no_harm(text: str, file: Path) -> None:
    file.with_name("people.h5.pages").write_text(text.replace("FILE", str(file)) + "\n")
    result = facemill("remove", file, "--path", "P02/", "--yes")
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    assert not [path for path in paths_in(file) if path.startswith(b"P02")]


@pytest.mark.slow
def test_a_list_that_came_with_the_file_deletes_no_table_of_the_user(file: Path, tmp_path: Path) -> None:
    table, folder = tmp_path / "home" / "thesis.csv", tmp_path / "home" / "results"
    table.write_text("a,b\n1,2\n")
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"x")
    lines = [{"page": str(page), "seen": list(astuple(take_fingerprint(page)))} for page in (table, folder)]  # type: ignore[arg-type]
    file.with_name("people.h5.pages").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = facemill("remove", file, "--path", "P02/", "--yes", "--json")
    assert result.returncode == 0, result.stderr
    assert table.exists()
    assert (folder / "holiday.jpg").exists()
    assert {str(table), str(folder)} <= {entry["path"] for entry in json.loads(result.stdout)["may_still_show"]}


def test_a_page_elsewhere_that_the_user_made_is_deleted(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "home" / "page.html"
    page.write_text("faces")
    record_page(file, page)
    assert facemill("remove", file, "--path", "P02/", "--yes").returncode == 0
    assert not page.exists()


def test_a_note_that_others_may_write_is_not_followed(file: Path) -> None:
    page, pages = file.with_name("page.html"), file.with_name("people.h5.pages")
    page.write_text("faces")
    record_page(file, page)
    pages.chmod(0o666)
    result = facemill("remove", file, "--path", "P02/", "--yes", "--json")
    assert result.returncode == 0, result.stderr
    assert page.exists()
    assert str(pages) in [entry["path"] for entry in json.loads(result.stdout)["may_still_show"]]


def test_a_new_line_makes_no_foreign_line_trusted(file: Path) -> None:
    table, page, pages = file.with_name("thesis.csv"), file.with_name("page.html"), file.with_name("people.h5.pages")
    for path in (table, page):
        path.write_text("a,b\n1,2\n")
    fingerprint = take_fingerprint(table)
    assert fingerprint is not None
    pages.write_text(json.dumps({"page": str(table), "seen": list(astuple(fingerprint))}) + "\n")
    pages.chmod(0o666)
    record_page(file, page)
    result = facemill("remove", file, "--path", "P02/", "--yes", "--json")
    assert result.returncode == 0, result.stderr
    assert (table.exists(), page.exists()) == (True, False)
    assert any("another user" in entry["path"] for entry in json.loads(result.stdout)["may_still_show"])


@pytest.mark.slow
def test_a_resumed_removal_writes_its_receipt_where_the_command_says(file: Path, tmp_path: Path) -> None:
    target = tmp_path / "home" / "authorized_keys"
    target.write_text("mine")
    facts = json.loads(facemill("remove", file, "--path", "P02/", "--yes", "--json").stdout)
    key = key_path(Path(facts["receipt"])).read_text().strip()
    note = {"card": facts, "receipt": str(target), "keep_pages": False, "key": key}
    file.with_name("people.h5.removing").write_text(json.dumps(note))
    result = facemill("remove", file, "--path", "P02/", "--yes", "--json", "--receipt", tmp_path / "home" / "r.json")
    assert result.returncode == 0, result.stderr
    assert target.read_text() == "mine"
    assert (tmp_path / "home" / "r.json").exists()
    assert not file.with_name("people.h5.removing").exists()


def test_a_refused_receipt_discards_no_unfinished_run(file: Path) -> None:
    run = file.with_name("people.h5.parts")
    run.mkdir(0o700)
    (run / "plan.json").write_text("{}")
    result = facemill("remove", file, "--path", "P02/", "--yes", "--receipt", file)
    assert result.returncode == 1
    assert (run / "plan.json").exists()
