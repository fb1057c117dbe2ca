"""The search command: its output, its page, its refusals."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import shutil
from pathlib import Path

import h5py
import pytest

from runtime.index.gpu import count_gpus
from runtime.pipeline.request import UNTRAINED_WARNING
from tests.support import encoded_images as make
from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import facemill

EVIL = '<img src=x onerror="alert(1)">&\x1b[31m\u202e.jpg'


@pytest.fixture(scope="module")
def people(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed a few photos, one of them with a hostile name; one photo is deleted afterwards."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "in").mkdir()
    for i in range(8):
        (folder / "in" / f"p{i}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=i)))
    (folder / "in" / EVIL).write_bytes(make.encode(make.scene(112, 112, seed=99)))
    (folder / "in" / "gone.jpg").write_bytes(make.encode(make.scene(112, 112, seed=98)))
    raw = os.path.join(os.fsencode(folder), b"in", b"raw\xff.jpg")
    with open(raw, "wb") as file:
        file.write(make.encode(make.scene(112, 112, seed=97)))
    assert facemill("process", folder / "in", "-o", folder / "people.h5", "--engine", tiny_engine).returncode == 0
    (folder / "in" / "gone.jpg").unlink()
    return folder / "people.h5"


@pytest.mark.slow
def test_table_output(people: Path) -> None:
    result = facemill("search", people, people.parent / "in" / "p3.jpg", "-k", "2")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert "p3.jpg" in lines[0]
    assert "11 embeddings" in lines[0]
    assert lines[1].split() == ["rank", "score", "face_index", "box", "path"]
    assert lines[2].split() == ["1", "1.0000", "0", "0,0,112,112", "p3.jpg"]
    assert len(lines) == 6
    assert re.fullmatch(r"model: tiny \(sha256 [0-9a-f]{12}\)", lines[4])
    assert lines[5] == "index: flat (exact)"
    assert UNTRAINED_WARNING in result.stderr


def test_json_has_one_line_per_query(people: Path) -> None:
    folder = people.parent / "in"
    result = facemill("search", people, folder / "p1.jpg", folder / "none.jpg", folder / EVIL, "-k", "3", "--json")
    assert result.returncode == 1
    assert "error: " in result.stderr
    assert "none.jpg: unreadable" in result.stderr
    first, missing, evil = map(json.loads, result.stdout.splitlines())
    assert first["query"] == str(folder / "p1.jpg")
    assert first["search_ms"] > 0
    with h5py.File(people) as file:
        model = {name: file["metadata"].attrs[name] for name in ("model", "model_sha256")}
    assert model["model"] == "tiny"
    assert all(model.items() <= line.items() for line in (first, missing, evil))
    face = {"face_index": 0, "box": [0, 0, 112, 112]}
    assert (first["faces"], first["face_index"], first["box"]) == (1, 0, face["box"])
    assert first["hits"][0] == {"rank": 1, "score": 1.0, "row": first["hits"][0]["row"], "path": "p1.jpg", **face}
    assert [hit["rank"] for hit in first["hits"]] == [1, 2, 3]
    assert first["warning"] == UNTRAINED_WARNING
    assert missing["error"].startswith("unreadable")
    assert missing["hits"] == []
    assert evil["hits"][0]["path"] == EVIL


def test_csv_output(people: Path) -> None:
    folder = people.parent / "in"
    result = facemill("search", people, folder / "p1.jpg", folder / EVIL, "-k", "2", "--csv")
    assert result.returncode == 0, result.stderr
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert list(rows[0])[:6] == ["query", "rank", "score", "row", "path", "search_ms"]
    assert list(rows[0])[6:] == ["face_index", "left", "top", "right", "bottom"]
    assert [row["rank"] for row in rows] == ["1", "2", "1", "2"]
    assert rows[2]["path"] == EVIL
    assert rows[2]["score"] == "1.000000"


def test_control_characters_are_escaped(people: Path) -> None:
    folder = people.parent / "in"
    result = facemill("search", people, folder / EVIL, folder / "nothing\x1b[2J", "-k", "20")
    assert result.returncode == 1
    for text in (result.stdout, result.stderr):
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "\\x1b[31m\\u202e" in result.stdout
    assert "raw\\xff.jpg" in result.stdout


@pytest.mark.slow
def test_a_query_name_need_not_be_utf8(people: Path) -> None:
    raw = os.path.join(os.fsencode(people.parent), b"in", b"raw\xff.jpg")
    for option in ([], ["--json"], ["--csv"]):
        result = facemill(
            "search", people, os.fsdecode(raw), "-k", "1", *option, "--html", people.parent / "raw.html", "--force"
        )
        assert result.returncode == 0, result.stderr
        assert "raw" in result.stdout


@pytest.mark.slow
def test_a_file_without_face_detection_has_no_face_columns(people: Path, tiny_engine: Path, tmp_path: Path) -> None:
    photo, file = people.parent / "in" / "p1.jpg", tmp_path / "o.h5"
    assert facemill("process", photo, "-o", file, "--engine", tiny_engine, "--align", "none").returncode == 0
    line = json.loads(facemill("search", file, photo, "--json").stdout)
    assert not {"faces", "box", "face_index"} & line.keys()
    assert line["hits"] == [{"rank": 1, "score": 1.0, "row": 0, "path": "p1.jpg"}]
    (header, _) = csv.reader(io.StringIO(facemill("search", file, photo, "--csv").stdout))
    assert header == ["query", "rank", "score", "row", "path", "search_ms"]
    table = facemill("search", file, photo, "--html", tmp_path / "a.html").stdout.splitlines()
    assert table[1].split() == ["rank", "score", "path"]
    assert table[2].split() == ["1", "1.0000", "p1.jpg"]
    assert "face_index" not in Page((tmp_path / "a.html").read_text("utf-8")).text


class Page(html.parser.HTMLParser):
    """The images, tags and text of a page, parsed as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.slow
def test_page_contents(people: Path, tmp_path: Path) -> None:
    folder = people.parent / "in"
    target = tmp_path / "answer.html"
    result = facemill("search", people, folder / EVIL, folder / "text.jpg", "-k", "50", "--html", target)
    assert result.returncode == 1
    text = target.read_text("utf-8")
    page = Page(text)
    assert len(page.images) == 11  # the query and eleven hits, without the deleted photo
    assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.images)
    assert all(image["alt"] and "onerror" not in image.keys() - {"alt"} for image in page.images)
    assert page.text.count("cannot be shown") == 2  # gone.jpg, and the query that is not a photo
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert "http://" not in text
    assert "https://" not in text
    assert '<img src=x onerror="alert(1)">&\\x1b[31m\\u202e.jpg' in page.text
    assert UNTRAINED_WARNING in page.text
    assert re.search(r"model tiny \(sha256 [0-9a-f]{12}\)", page.text)
    assert page.text.count("face_index 0") == 11
    assert "unreadable" in page.text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert os.listdir(tmp_path) == ["answer.html"]


def test_pages_keep_the_shape_of_photos(tiny_engine: Path, tmp_path: Path) -> None:
    import base64

    import cv2
    import numpy as np

    photo = tmp_path / "wide.jpg"
    photo.write_bytes(make.encode(make.scene(60, 120, seed=97)))
    options = ("--engine", tiny_engine, "--align", "none")  # the photo shows no face
    assert facemill("process", photo, "-o", tmp_path / "o.h5", *options).returncode == 0
    assert facemill("search", tmp_path / "o.h5", photo, "-k", "1", "--html", tmp_path / "a.html").returncode == 0
    query, hit = Page((tmp_path / "a.html").read_text("utf-8")).images
    for image in (query, hit):
        data = base64.b64decode(str(image["src"]).split(",")[1])
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (60, 120, 3)


@pytest.mark.slow
def test_a_page_is_overwritten_only_with_force(people: Path, tmp_path: Path) -> None:
    target = tmp_path / "answer.html"
    target.write_text("mine")
    query = people.parent / "in" / "p0.jpg"
    result = facemill("search", people, query, "--html", target)
    assert result.returncode == 1
    assert_refused(result, "E-EXISTS", target, "--force")
    assert result.stdout == ""
    assert target.read_text() == "mine"
    assert facemill("search", people, query, "--html", target, "--force").returncode == 0
    assert "<!doctype html>" in target.read_text("utf-8")


def test_force_cannot_replace_the_embedding_file(people: Path) -> None:
    before = people.read_bytes()
    result = facemill("search", people, people.parent / "in" / "p0.jpg", "--html", people, "--force")
    assert result.returncode == 1
    assert_refused(result, "E-CONFIG", people, ".html")
    assert people.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["--json", "--csv"], USAGE, ("--json", "--csv")),
        (["-k", "0"], USAGE, ("-k", 0)),
        (["--threshold", "nan"], USAGE, ("--threshold", "nan", -1, 1)),
        (["--threshold", "40"], USAGE, ("--threshold", 40, -1, 1)),
        (["--html", "no/such/folder/a.html"], "E-CONFIG", ("no/such/folder",)),
        (["--engine", "no.onnx"], "E-ENGINE", ("no.onnx", "facemill build-engine")),
        (["--device", "cuda:0"], USAGE, ("--device", "cuda:0", "auto", "cpu", "gpu")),
        (["--device", "-1"], USAGE, ("--device", -1, "auto", "cpu", "gpu")),
    ],
)
def test_wrong_options_are_refused(people: Path, arguments: list[str], code: str, values: Values) -> None:
    result = facemill("search", people, people.parent / "in" / "p0.jpg", *arguments)
    assert_refused(result, code, *values)
    assert result.stdout == ""


@pytest.mark.slow
def test_device_does_not_change_the_hits(people: Path) -> None:
    query = people.parent / "in" / "p0.jpg"
    plain, cpu = (facemill("search", people, query, "--csv", *device) for device in ([], ["--device", "cpu"]))
    assert plain.returncode == cpu.returncode == 0, cpu.stderr
    rows = [list(csv.DictReader(io.StringIO(result.stdout))) for result in (plain, cpu)]
    for row in rows[0] + rows[1]:
        del row["search_ms"]
    assert rows[0] == rows[1]


@pytest.mark.skipif(count_gpus() > 0, reason="there is a GPU that FAISS sees")
@pytest.mark.parametrize("device", ["gpu", "7"])
def test_a_missing_gpu_is_refused_with_a_fix(people: Path, device: str) -> None:
    result = facemill("search", people, people.parent / "in" / "p0.jpg", "--device", device)
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("E-")
    assert "pip install faiss-gpu" in line or "facemill doctor" in line
    assert line.endswith("--device cpu")


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x89HDF\r\n\x1a\n" + bytes(100)])
def test_a_missing_or_foreign_file_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "people.h5"
    if content is not None:
        path.write_bytes(content)
    result = facemill("search", path, path)
    assert_refused(result, "E-STORAGE", path)


@pytest.mark.slow
def test_a_moved_file_still_finds_its_photos(people: Path, tmp_path: Path) -> None:
    shutil.copy(people, tmp_path / "moved.h5")
    result = facemill("search", tmp_path / "moved.h5", people.parent / "in" / "p2.jpg", "--html", tmp_path / "a.html")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "moved.h5.faiss").exists()
    assert len(Page((tmp_path / "a.html").read_text("utf-8")).images) == 10


def test_help_has_examples() -> None:
    result = facemill("search", "--help")
    assert result.returncode == 0
    assert "Examples:" in result.stdout
