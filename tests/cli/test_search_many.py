"""Search with many queries: folders, lists, hits by folder, --exclude-self, the page."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.test_search import Page
from tests.support import encoded_images as make
from tests.support.errors import assert_names
from tests.support.facemill_command import facemill

ODD = "<b>'\"\n"


@pytest.fixture(scope="module")
def people(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed four people with three photos each; one has an odd name."""
    folder = tmp_path_factory.mktemp("many")
    for person in range(4):
        person_folder = folder / "in" / (f"person{person}" if person else ODD)
        person_folder.mkdir(parents=True)
        for number in range(3):
            (person_folder / f"{number}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=10 * person + number)))
    assert facemill("process", folder / "in", "-o", folder / "people.h5", "--engine", tiny_engine).returncode == 0
    return folder / "people.h5"


@pytest.fixture(scope="module")
def queries(people: Path) -> Path:
    """Make a folder of queries: links to all photos, and two files that are not photos."""
    folder = people.parent / "queries"
    (folder / "deep").mkdir(parents=True)
    for path in (people.parent / "in").rglob("*.jpg"):
        os.symlink(path, folder / "deep" / f"{path.parent.name}-{path.name}")
    (folder / "text.jpg").write_text("not a photo")
    (folder / "cut.jpg").write_bytes(make.encode(make.scene(112, 112))[:600])
    return folder


def search(people: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    result = facemill("search", people, *arguments)
    assert result.returncode == code, result.stderr
    return result.stdout, result.stderr


@pytest.mark.slow
def test_queries_of_a_folder_are_answered_in_scan_order(people: Path, queries: Path) -> None:
    out, err = search(people, queries, "-k", 1, "--json", code=1)
    lines = [json.loads(line) for line in out.splitlines()]
    expected = sorted(os.fsencode(path) for path in queries.rglob("*.jpg"))
    assert [os.fsencode(line["query"]) for line in lines] == expected
    for line in lines:
        if "error" not in line:
            assert line["hits"][0]["score"] == 1.0
            assert line["query"].endswith(line["hits"][0]["path"].replace("/", "-"))
    assert [line["error"].partition(":")[0] for line in lines if "error" in line] == ["corrupt", "unsupported"]
    assert "cut.jpg: corrupt" in err
    assert err.splitlines()[-1] == "error: 2 of 14 queries have no answer (corrupt: 1, unsupported: 1)"


def test_queries_of_a_list_are_answered_in_its_order(people: Path, queries: Path) -> None:
    (people.parent / "list.txt").write_text("in/person1/2.jpg\nin/person3/0.jpg\n")
    rows = list(csv.DictReader(io.StringIO(search(people, f"@{people.parent / 'list.txt'}", "-k", 1, "--csv")[0])))
    assert [row["path"] for row in rows] == ["person1/2.jpg", "person3/0.jpg"]
    assert [row["query"] for row in rows] == [str(people.parent / "in" / row["path"]) for row in rows]


@pytest.mark.slow
def test_exclude_self_and_group_by_folder(people: Path, queries: Path) -> None:
    options = ("--exclude-self", "--group-by", "folder", "-k", 9)
    out, _ = search(people, queries / "deep", *options, "--json")
    for line in map(json.loads, out.splitlines()):
        hits = line["hits"]
        assert sorted(hit["folder"] for hit in hits) == sorted(["person1", "person2", "person3", ODD])
        own_folder = line["query"].rsplit("/", 1)[1].rsplit("-", 1)[0]
        assert {hit["folder"]: hit["photographs"] for hit in hits} == {
            folder: 2 if folder == own_folder else 3 for folder in ("person1", "person2", "person3", ODD)
        }
        assert all(hit["path"].startswith(hit["folder"] + "/") for hit in hits)
        assert all(hit["score"] < 0.99999 for hit in hits if hit["folder"] == own_folder)
        assert "cut" not in line
    rows = list(csv.DictReader(io.StringIO(search(people, queries / "deep", *options, "--csv")[0])))
    face = ["face_index", "left", "top", "right", "bottom"]
    assert list(rows[0]) == ["query", "rank", "score", "row", "path", "search_ms", *face, "folder", "photographs"]
    assert {row["folder"] for row in rows} == {"person1", "person2", "person3", ODD}
    table, _ = search(people, queries / "deep" / "person1-0.jpg", *options)
    lines = table.splitlines()
    assert lines[1].split() == ["rank", "score", "face_index", "box", "photographs", "path"]
    assert len(lines) == 8
    assert lines[-1] == "index: flat (exact)"
    assert lines[1].index("path") == lines[2].rindex(lines[2].split()[-1])
    assert "<b>'\"\\n/" in table


@pytest.mark.slow
def test_each_query_has_one_header_and_the_model_is_printed_once(people: Path, queries: Path) -> None:
    out, _ = search(people, queries / "deep", "-k", 2)
    assert out.count("model: tiny") == 1
    assert out.count("rank") == 12
    assert search(people, queries / "deep", "--csv")[0].count("query,rank") == 1


@pytest.mark.slow
def test_the_page_has_contents_with_a_link_to_each_query(people: Path, queries: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.html"
    search(people, queries, "--group-by", "folder", "-k", 2, "--html", target, code=1)
    text = target.read_text("utf-8")
    page = Page(text)
    assert page.tags.count("section") == 14
    assert re.findall(r'href="#(q\d+)"', text) == re.findall(r'<section id="(q\d+)"', text)
    assert page.text.count("3 photos of") + page.text.count("2 photos of") + page.text.count("1 photo of") == 24
    assert "2 folders" in page.text
    assert "b" not in page.tags
    assert "<b>'\"\\n" in page.text
    assert page.text.count("corrupt") == 2  # in the contents, and at the query
    assert str(target) in (people.parent / "people.h5.pages").read_text()


@pytest.mark.slow
def test_a_page_of_one_query_has_no_contents(people: Path, queries: Path, tmp_path: Path) -> None:
    search(people, queries / "deep" / "person1-0.jpg", "--html", tmp_path / "a.html")
    assert "nav" not in Page((tmp_path / "a.html").read_text("utf-8")).tags


def test_an_empty_folder_of_queries_is_refused(people: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    out, err = search(people, tmp_path / "empty", code=1)
    assert out == ""
    assert err.startswith("E-SOURCE: ")
    assert_names(err, tmp_path / "empty")
    assert facemill("search", people, "a.jpg", "--group-by", "year").returncode == 2
