"""`process --pages all` and every command that reads its file: each row names its page."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from runtime.api.pairs import find_pairs
from runtime.images.decode import Limits
from runtime.pages.thumbnails import thumbnail
from runtime.records import FacePlace
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.embedding_files import differences
from tests.support.errors import assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill, summary
from tests.support.red_square_detector import picture, save_red_squares
from tests.support.tiff_files import damage_page, pages_tiff

ANNA = picture(400, 300, (100, 120, 90), seed=1)
BERTA = picture(400, 300, (30, 220, 90), seed=2)
NOBODY = picture(400, 300)
ROWS = [("alone.png", 1, 0), ("damaged.tif", 1, 0), ("scan.tif", 1, 0), ("scan.tif", 3, 1)]
PAGES = "faces/page"


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make `in`: a scan of Anna, nobody and Berta, one whose second page is damaged, one of nobody, and Berta alone."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "in").mkdir()
    for name, data in (
        ("scan.tif", pages_tiff(ANNA, NOBODY, BERTA, previews=True)),
        ("damaged.tif", damage_page(pages_tiff(ANNA, BERTA), 1)),
        ("nobody.tif", pages_tiff(NOBODY, NOBODY)),
        ("alone.png", make.encode(BERTA, "PNG")),
    ):
        (folder / "in" / name).write_bytes(data)
    save_red_squares(folder)
    return folder


def process(folder: Path, photos: Path, output: Path, engine: Path, *options: object) -> None:
    detector = folder / "red-squares.toml"
    faces = ("--align", "detect", "--detector", detector, "--engine", engine)
    summary(facemill("process", photos, "-o", output, *faces, *options, "--json"))


@pytest.fixture(scope="module")
def made(data_folder: Path, tiny_engine: Path) -> Path:
    process(data_folder, data_folder / "in", data_folder / "all.h5", tiny_engine, "--pages", "all")
    return data_folder / "all.h5"


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "people.h5"))


def rows_of(path: Path) -> list[tuple[str, int, int]]:
    """Path, page and face_index of each row."""
    with EmbeddingFile(path) as opened:
        assert opened.faces is not None
        columns = opened.paths, opened.faces["page"].tolist(), opened.faces["face_index"].tolist()
        return list(zip(*columns, strict=True))


def run(*command: object) -> str:
    result = facemill(*command)
    assert result.returncode == 0, (command, result.stderr)
    return result.stdout


def damage(path: Path, dataset: str) -> None:
    """Overwrite the start of a dataset."""
    with h5py.File(path) as opened:
        place = opened[dataset].id.get_chunk_info(0).byte_offset
    with path.open("r+b") as opened:
        opened.seek(place)
        opened.write(b"\xff" * 4)


@pytest.mark.slow
def test_a_photo_has_a_row_for_each_page_with_a_face_and_one_outcome(made: Path) -> None:
    assert rows_of(made) == ROWS
    with h5py.File(made) as file:
        details = dict(zip(file["outcomes/path"].asstr()[:], file["outcomes/detail"].asstr()[:], strict=True))
        assert file["outcomes/status"][:].tolist() == [1, 1, 6, 1]
        assert file["outcomes/embeddings"][:].tolist() == [1, 1, 0, 2]
        assert file["metadata"].attrs["pages"] == "all"
        assert file["metadata"].attrs["format_version"] == 2
        np.testing.assert_allclose(file["embeddings"][3], file["embeddings"][0], atol=1e-5)  # Berta, in both files
    assert details["alone.png"] == ""
    assert_names(details["scan.tif"], "page 2 of 3", "no-face")
    assert_names(details["damaged.tif"], "page 2 of 2", "corrupt")
    assert_names(details["nobody.tif"], "pages 1 to 2 of 2")


@pytest.mark.slow
def test_without_the_option_the_file_has_no_trace_of_it(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    process(data_folder, data_folder / "in", tmp_path / "main.h5", tiny_engine)
    with h5py.File(tmp_path / "main.h5") as file:
        assert PAGES not in file
        assert "pages" not in file["metadata"].attrs
        assert "pages" not in json.loads(file["metadata"].attrs["contract"])
        assert file["outcomes/detail"].asstr()[3] == "page 1 of 3"
        assert len(file["embeddings"]) == 3


def test_a_run_resumes_only_with_the_same_pages(data_folder: Path, file: Path, tiny_engine: Path) -> None:
    options = ("--align", "detect", "--detector", data_folder / "red-squares.toml", "--engine", tiny_engine)
    result = facemill("process", data_folder / "in", "-o", file, *options)
    assert_refused(result, "E-CONTRACT", "pages", "'all'", "'main'")
    assert summary(facemill("process", data_folder / "in", "-o", file, *options, "--pages", "all", "--json"))[
        "processed"
    ] == 0  # fmt: skip
    crops = facemill("process", data_folder / "in", "-o", file, "--align", "none", "--pages", "all", "--force")
    assert_refused(crops, "E-CONFIG", "--pages", "--align")
    dali = facemill("process", data_folder / "in", "-o", file, *options, "--pages", "all", "--decoder", "dali")
    assert_refused(dali, "E-CONFIG", "--pages all", "--decoder dali")


@pytest.mark.slow
def test_a_retry_takes_all_pages(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    shutil.copytree(data_folder / "in", tmp_path / "in")
    process(data_folder, tmp_path / "in", tmp_path / "o.h5", tiny_engine, "--pages", "all")
    (tmp_path / "in" / "nobody.tif").write_bytes(pages_tiff(NOBODY, ANNA))
    process(data_folder, tmp_path / "in", tmp_path / "o.h5", tiny_engine, "--pages", "all", "--retry")
    assert rows_of(tmp_path / "o.h5") == [*ROWS[:2], ("nobody.tif", 2, 0), *ROWS[2:]]


@pytest.mark.slow
def test_add_and_merge_keep_the_pages(data_folder: Path, file: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "z.tif").write_bytes(pages_tiff(NOBODY, BERTA, ANNA))
    process(data_folder, tmp_path / "more", tmp_path / "more.h5", tiny_engine, "--pages", "all")
    process(data_folder, tmp_path / "more", tmp_path / "main.h5", tiny_engine)
    run("merge", file, tmp_path / "more.h5", "-o", tmp_path / "merged.h5")
    result = facemill("merge", file, tmp_path / "main.h5", "-o", tmp_path / "o.h5")
    assert_refused(result, "E-CONTRACT", "pages", "'all'", "'main'")
    run("add", file, tmp_path / "more")
    for path in (file, tmp_path / "merged.h5"):
        found = {(name.rpartition("/")[2], page, rank) for name, page, rank in rows_of(path)}
        assert found == {*ROWS, ("z.tif", 2, 0), ("z.tif", 3, 1)}
        run("verify", path)


@pytest.mark.slow
def test_remove_takes_all_pages_of_a_photo(file: Path, data_folder: Path) -> None:
    run("remove", file, "--path", data_folder / "in" / "scan.tif", "--yes")
    assert rows_of(file) == ROWS[:2]
    run("verify", file)


@pytest.mark.slow
def test_search_names_the_page(file: Path, data_folder: Path) -> None:
    query = data_folder / "in" / "alone.png"
    answer = json.loads(run("search", file, query, "--json"))
    hits = {(hit["path"], hit["page"], hit["face_index"]) for hit in answer["hits"]}
    assert hits == set(ROWS)
    assert "page" not in {key: value for key, value in answer.items() if key != "hits"}
    rows = list(csv.DictReader(io.StringIO(run("search", file, query, "--csv"))))
    assert {(row["path"], int(row["page"]), int(row["face_index"])) for row in rows} == set(ROWS)
    assert "page" in run("search", file, query).splitlines()[1].split()


def mean_difference(jpeg: bytes, pixels: np.ndarray) -> float:
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
    fitted = cv2.resize(pixels, shown.shape[1::-1], interpolation=cv2.INTER_AREA)
    return float(np.abs(shown - fitted).mean())


@pytest.mark.slow
def test_pictures_show_the_page_of_the_face(file: Path, data_folder: Path, tmp_path: Path) -> None:
    run("search", file, data_folder / "in" / "alone.png", "-k", 2, "--html", tmp_path / "hits.html")
    html = (tmp_path / "hits.html").read_text()
    assert "face_index 1, page 3" in html
    pictures = [base64.b64decode(text) for text in re.findall(r"data:image/jpeg;base64,([^\"]+)", html)]
    query, *hits = pictures  # Berta of her own file, and of the scan
    assert len(hits) == 2
    reference = cv2.imdecode(np.frombuffer(query, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert all(mean_difference(jpeg, reference) < 3 for jpeg in hits)
    scan = bytes(data_folder / "in" / "scan.tif")
    wrong = thumbnail(scan, FacePlace(1, (30, 220, 120, 310), 1), Limits(), side=192)
    assert wrong is not None
    assert mean_difference(wrong, reference) > 10
    assert thumbnail(scan, FacePlace(1, (30, 220, 120, 310), 9), Limits(), side=192) is None


@pytest.mark.slow
def test_pages_of_one_file_can_be_one_person_whose_folder_has_the_file_once(
    data_folder: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    pytest.importorskip("scipy", reason="scipy is not installed: pip install '.[cluster]'")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "twice.tif").write_bytes(pages_tiff(ANNA, ANNA))
    file = tmp_path / "o.h5"
    process(data_folder, tmp_path / "in", file, tiny_engine, "--pages", "all")
    folders = ("--folders", tmp_path / "f", "--mode", "copy", "--sheets", tmp_path / "s")
    run("cluster", file, "--threshold", 0.99, "-o", tmp_path / "a.csv", *folders)
    assert [path.name for path in (tmp_path / "f").glob("cluster-*/*")] == ["twice.tif"]
    rows = list(csv.DictReader((tmp_path / "a.csv").read_text().splitlines()))
    assert sorted((row["cluster"], row["face_index"], row["page"]) for row in rows) == [
        ("1", "0", "1"),
        ("1", "1", "2"),
    ]
    (sheet,) = (tmp_path / "s").glob("sheet-*.html")
    assert "page 2" in sheet.read_text()


@pytest.mark.slow
def test_pairs_name_the_page_of_each_face(file: Path, tmp_path: Path) -> None:
    run("pairs", file, "--threshold", -1, "-o", tmp_path / "o.csv", "--html", tmp_path / "review.html")
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert rows
    for row in rows:
        for side in "ab":
            place = row[f"path_{side}"], int(row[f"page_{side}"]), int(row[f"face_index_{side}"])
            assert place == ROWS[int(row[f"row_{side}"])]
    listed = find_pairs(file, threshold=-1)
    pairs = [{name: value for name, value in pair.to_dict().items() if name.startswith("page_")} for pair in listed]
    assert pairs == [{name: int(row[name]) for name in ("page_a", "page_b")} for row in rows]
    found = re.search(
        r'<script type="application/json" id="data">(.*?)</script>', (tmp_path / "review.html").read_text()
    )
    assert found
    decisions = json.loads(found[1])["pairs"]
    assert [pair[5:] for pair in decisions] == [[int(row["page_a"]), int(row["page_b"])] for row in rows]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run("pairs", file, "--threshold", -1, "-o", tmp_path / "o.parquet")
    table = parquet.read_table(tmp_path / "o.parquet").to_pydict()
    assert [list(pair) for pair in zip(table["page_a"], table["page_b"], strict=True)] == [
        pair[5:] for pair in decisions
    ]


@pytest.mark.slow
def test_verify_and_repair_know_the_page(file: Path, made: Path, tmp_path: Path) -> None:
    run("verify", file)
    with h5py.File(file, "r+") as opened:
        opened[PAGES][2] = 0
        del opened["metadata"].attrs["content_sha256"]
    result = facemill("verify", file)
    assert result.returncode == 1
    assert_names(result.stdout + result.stderr, "/faces/page", "row 2")
    run("repair", file, "-o", tmp_path / "repaired.h5")
    assert rows_of(tmp_path / "repaired.h5") == ROWS[:2]  # no row of a photo whose page is unknown
    damage_copy = Path(shutil.copy(made, tmp_path / "damaged.h5"))
    damage(damage_copy, "faces/brightness")
    run("repair", damage_copy, "-o", tmp_path / "whole.h5")
    assert rows_of(tmp_path / "whole.h5") == ROWS
    lost = Path(shutil.copy(made, tmp_path / "lost.h5"))
    with h5py.File(lost, "r+") as opened:
        del opened[PAGES]
        del opened["metadata"].attrs["content_sha256"]
    result = facemill("verify", lost)
    assert result.returncode == 1
    assert_names(result.stdout + result.stderr, "page")
    assert_refused(facemill("search", lost, lost), "E-STORAGE", "/faces/page", "facemill repair")


@pytest.mark.slow
def test_exports_have_the_page(file: Path, tmp_path: Path) -> None:
    run("export", file, "--npy", tmp_path / "npy")
    assert np.load(tmp_path / "npy" / "page.npy").tolist() == [page for _, page, _ in ROWS]
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    run("export", file, "--parquet", tmp_path / "o.parquet")
    assert parquet.read_table(tmp_path / "o.parquet").column("page").to_pylist() == [page for _, page, _ in ROWS]


@pytest.mark.slow
def test_a_resumed_run_gives_the_file_of_an_undisturbed_run(
    data_folder: Path, made: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    process(data_folder, data_folder / "in", tmp_path / "o.h5", tiny_engine, "--pages", "all", "--segment-rows", 1)
    assert differences(tmp_path / "o.h5", made) == []


CASES = ROOT.parent / "shared" / "cases"


@pytest.mark.skipif(not CASES.is_dir(), reason=f"{CASES} is missing")
def test_both_people_of_a_real_scan_are_found(tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("f07_two_pages.tif", "f07_preview_first.tif"):
        shutil.copy(CASES / name, tmp_path / "in")
    run("process", tmp_path / "in", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--pages", "all",
        "--detector", "facemill-det")  # fmt: skip
    assert rows_of(tmp_path / "o.h5") == [
        ("f07_preview_first.tif", 1, 0),
        ("f07_two_pages.tif", 1, 0),
        ("f07_two_pages.tif", 2, 1),
    ]
