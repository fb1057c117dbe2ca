"""Search photos of several faces: the face of a hit, the face of a query, the detection settings of a query."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.faces.rules import FaceRules
from runtime.pipeline.contract import query_face_rules_of
from runtime.storage.contract import EmbeddingContract
from tests.support import encoded_images as make
from tests.support.facemill_command import facemill, summary
from tests.support.red_square_detector import picture, save_red_squares

# Four faces, each on one cell of the 448-pixel view; the third is near the middle.
GROUP = picture(448, 300, (28, 28, 40), (220, 28, 40), (124, 188, 40), (28, 316, 40))
ALONE = picture(400, 300, (120, 160, 46), seed=5)


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("several")
    (folder / "in").mkdir()
    for name, image in (("group.png", GROUP), ("alone.png", ALONE)):
        (folder / "in" / name).write_bytes(make.encode(image, "PNG"))
    (folder / "nobody.png").write_bytes(make.encode(picture(400, 300), "PNG"))
    save_red_squares(folder)
    return folder


def embed(data_folder: Path, engine: Path, policy: str) -> Path:
    output = data_folder / f"{policy}.h5"
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        output,
        "--engine",
        engine,
        "--align",
        "detect",
        "--detector",
        data_folder / "red-squares.toml",
        "--faces",
        policy,
        "--json",
    )
    summary(result)
    return output


@pytest.fixture(scope="module")
def all_faces(data_folder: Path, tiny_engine: Path) -> Path:
    return embed(data_folder, tiny_engine, "all")


def search(file: Path, *arguments: object, code: int = 0) -> tuple[str, str]:
    result = facemill("search", file, *arguments)
    assert result.returncode == code, result.stderr
    return result.stdout, result.stderr


@pytest.mark.slow
def test_json_has_the_face_of_each_hit_and_query(all_faces: Path, data_folder: Path) -> None:
    queries = (data_folder / "in/alone.png", data_folder / "nobody.png", data_folder / "in/group.png")
    out, _ = search(all_faces, *queries, "-k", 10, "--json", code=1)
    alone, faceless, line = map(json.loads, out.splitlines())
    with h5py.File(all_faces) as file:
        ranks, boxes = file["face_index"][:], file["faces/box"][:]
    assert len(ranks) == 5
    for hit in line["hits"]:
        assert hit["face_index"] == ranks[hit["row"]]
        np.testing.assert_allclose(hit["box"], boxes[hit["row"]], atol=0.051)
    of_group = {(hit["face_index"], *hit["box"]) for hit in line["hits"] if hit["path"] == "group.png"}
    assert len(of_group) == 4
    assert (line["faces"], line["face_index"]) == (4, 0)
    for query in (line, alone):  # the best hit of each query is the query
        assert query["box"] == query["hits"][0]["box"]
    assert alone["box"] != line["box"]
    np.testing.assert_allclose(line["box"], [96, 160, 192, 256], atol=1)  # the box is three cells wide
    assert faceless["faces"] == 0
    assert "box" not in faceless


@pytest.mark.slow
def test_csv_and_table_have_the_face_of_each_hit_and_query(all_faces: Path, data_folder: Path) -> None:
    query = data_folder / "in/group.png"
    hits = json.loads(search(all_faces, query, "--json")[0])["hits"]
    out, err = search(all_faces, query, "--csv")
    assert f"{query}: 1 of 4 faces taken" in err
    rows = list(csv.DictReader(io.StringIO(out)))
    edges = ("left", "top", "right", "bottom")
    assert [(int(row["face_index"]), [float(row[edge]) for edge in edges]) for row in rows] == [
        (hit["face_index"], hit["box"]) for hit in hits
    ]
    lines = search(all_faces, query)[0].splitlines()
    assert lines[1].strip() == "1 of 4 faces taken (the main one: large, near the middle)"
    assert lines[2].split() == ["rank", "score", "face_index", "box", "path"]
    assert lines[2].index("path") == lines[3].index("group.png")
    assert len({tuple(line.split()[2:4]) for line in lines[3:8]}) == 5
    best = [float(edge) for edge in lines[3].split()[3].split(",")]
    np.testing.assert_allclose(best, hits[0]["box"], atol=0.51)


@pytest.mark.slow
def test_a_query_with_one_face_gives_no_notice(all_faces: Path, data_folder: Path) -> None:
    for option in ([], ["--csv"]):
        assert "taken" not in "".join(search(all_faces, data_folder / "in/alone.png", *option))
    assert json.loads(search(all_faces, data_folder / "in/alone.png", "--json")[0])["faces"] == 1


@pytest.mark.slow
def test_csv_without_hits_has_face_columns(all_faces: Path, data_folder: Path) -> None:
    out, _ = search(all_faces, data_folder / "in/alone.png", "--threshold", 1, "--exclude-self", "--csv")
    assert out.strip().endswith("search_ms,face_index,left,top,right,bottom")


def decode_images(page: str) -> list[NDArray[np.uint8]]:
    """(H, W, 3) uint8 BGR of the query and its hits."""
    sources = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    return [np.asarray(cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), 1)) for data in sources]


@pytest.mark.slow
def test_the_page_shows_faces_not_photos(all_faces: Path, data_folder: Path, tmp_path: Path) -> None:
    search(all_faces, data_folder / "in/group.png", "--html", tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text("utf-8")
    query, *hits = images = decode_images(page)
    assert len(hits) == 5
    for image in images:
        assert max(image.shape) < 140  # the photos are larger
        red = (image[..., 2] > 150) & (image[..., 1] < 100)
        assert 0.06 < red.mean() < 0.3
    np.testing.assert_array_equal(query, hits[0])
    assert len({image.tobytes() for image in hits}) == 5
    assert "1 of 4 faces taken" in page
    assert sorted(re.findall(r"face_index (\d)", page)) == ["0", "0", "1", "2", "3"]


@pytest.mark.slow
def test_the_page_marks_a_missing_photo(data_folder: Path, all_faces: Path, tmp_path: Path) -> None:
    hidden = data_folder / "hidden.png"
    os.rename(data_folder / "in/alone.png", hidden)
    try:
        search(all_faces, data_folder / "in/group.png", "--html", tmp_path / "a.html")
    finally:
        os.rename(hidden, data_folder / "in/alone.png")
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.count("cannot be shown") == 1
    assert len(decode_images(page)) == 5


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["largest", "all", "one"])
def test_a_query_uses_the_detection_settings_of_the_file(data_folder: Path, tiny_engine: Path, policy: str) -> None:
    """Different views give different landmarks and crops, so a row would score below 1 against itself."""
    file = embed(data_folder, tiny_engine, policy)
    with h5py.File(file) as opened:
        contract = EmbeddingContract.from_json(opened["metadata"].attrs["contract"])
    assert str(query_face_rules_of(contract).find.with_second_look()) == contract.detector_views
    (hit, *_) = json.loads(search(file, data_folder / "in/alone.png", "--json")[0])["hits"]
    assert hit["path"] == "alone.png"
    assert hit["score"] == pytest.approx(1, abs=2e-6)


@pytest.mark.slow
def test_a_query_may_have_several_faces(data_folder: Path, tiny_engine: Path) -> None:
    file = embed(data_folder, tiny_engine, "one")
    line = json.loads(search(file, data_folder / "in/group.png", "--json")[0])
    assert line["faces"] == 4
    assert [hit["path"] for hit in line["hits"]] == ["alone.png"]


def test_quality_limits_do_not_apply_to_queries(data_folder: Path) -> None:
    contract = EmbeddingContract(
        detector="x", faces="all", align="auto", min_score=0.7, min_iod=99, min_sharpness=99, min_frontal=1
    )
    assert query_face_rules_of(contract) == FaceRules("auto", "all", 0.7, 0, 0, 0, max_fit=1)
