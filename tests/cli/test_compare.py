"""The compare command: its output, its page, its refusals."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.metrics.falsematch import Calibration
from runtime.pipeline.request import UNTRAINED_WARNING
from tests.support import encoded_images as make
from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import facemill
from tests.support.red_square_detector import picture, save_red_squares

GROUP = picture(448, 300, (28, 28, 40), (220, 28, 40), (124, 188, 40), (28, 316, 40))
ALONE = picture(400, 300, (120, 160, 46), seed=5)
CALIBRATION = Calibration({}, "known", 90, 30, 10_000, 0, (5000, *[400] * 500, *[10] * 400, 0), "now", "0")


@pytest.fixture(scope="module")
def data_folder(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder of photos with faces and its embedding file with a calibration."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "in").mkdir()
    for name, image in (("group.png", GROUP), ("alone.png", ALONE), ("nobody.png", picture(400, 300))):
        (folder / "in" / name).write_bytes(make.encode(image, "PNG"))
    save_red_squares(folder)
    result = facemill(
        "process",
        folder / "in",
        "-o",
        folder / "people.h5",
        "--engine",
        tiny_engine,
        "--align",
        "detect",
        "--detector",
        folder / "red-squares.toml",
    )
    assert result.returncode == 0, result.stderr
    with h5py.File(folder / "people.h5", "r+") as file:
        file["metadata"].attrs["score_calibration"] = CALIBRATION.to_json()
    return folder


@pytest.mark.slow
def test_a_file_defines_the_embedding_and_the_meaning_of_a_score(data_folder: Path) -> None:
    result = facemill(
        "compare",
        data_folder / "in/group.png",
        data_folder / "in/alone.png",
        "--file",
        data_folder / "people.h5",
        "--json",
    )
    assert result.returncode == 0, result.stderr
    line = json.loads(result.stdout)
    with h5py.File(data_folder / "people.h5") as file:
        vectors = file["embeddings"][:].astype(np.float64)
        rows = dict(zip(file["image_paths"].asstr()[:], range(len(vectors)), strict=True))
    score = vectors[rows["group.png"]] @ vectors[rows["alone.png"]]
    assert line["score"] == pytest.approx(score, abs=2e-6)
    assert line["threshold"] == pytest.approx(0.501)
    bucket = int(max(0, np.floor(score * 1000)))
    assert line["false_match_rate"] == pytest.approx(CALIBRATION.at_least[min(bucket, 901)] / 10_000)
    assert line["verdict"] == ("same" if score >= 0.501 else "different")
    assert [photo["faces"] for photo in line["photographs"]] == [4, 1]
    assert line["photographs"][0]["box"] != line["photographs"][1]["box"]
    assert line["model"] == "tiny"
    assert line["warning"] == UNTRAINED_WARNING


@pytest.mark.slow
def test_text_output(data_folder: Path) -> None:
    result = facemill(
        "compare", data_folder / "in/group.png", data_folder / "in/group.png", "--file", data_folder / "people.h5"
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].endswith("(1 of 4 faces taken (the main one: large, near the middle))")
    shown = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[1] for line in lines[2:6]}
    expected = {"verdict": "one person", "score": "1.0000", "threshold": "0.5010", "false match rate": "<0.0003"}
    assert shown == expected
    assert lines[-1].startswith("model: tiny (sha256 ")
    assert UNTRAINED_WARNING in result.stderr


@pytest.mark.slow
def test_without_a_file_compare_uses_the_options_of_process(data_folder: Path, tiny_model: Path) -> None:
    options = ("--model", tiny_model, "--detector", data_folder / "red-squares.toml", "--align", "detect", "--json")
    result = facemill("compare", data_folder / "in/group.png", data_folder / "in/alone.png", *options)
    assert result.returncode == 0, result.stderr
    line, file = json.loads(result.stdout), data_folder / "people.h5"
    with_file = facemill(
        "compare", data_folder / "in/group.png", data_folder / "in/alone.png", "--file", file, "--json"
    )
    assert line["score"] == json.loads(with_file.stdout)["score"]
    assert (line["verdict"], line["threshold"]) == ("unknown", None)
    assert "facemill evaluate FOLDER --model tiny" in line["threshold_origin"]
    assert "false_match_rate" not in line
    with_threshold = facemill(
        "compare", data_folder / "in/group.png", data_folder / "in/group.png", *options, "--threshold", 0.9
    )
    assert json.loads(with_threshold.stdout)["verdict"] == "same"


@pytest.mark.slow
def test_a_photo_without_a_face_is_an_error(data_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text\x1b.jpg").write_text("no photograph")
    names = data_folder / "in/nobody.png", tmp_path / "text\x1b.jpg"
    page = tmp_path / "a.html"
    result = facemill("compare", *names, "--file", data_folder / "people.h5", "--json", "--html", page)
    assert result.returncode == 1
    assert "nobody.png: no-face" in result.stderr
    assert "text\\x1b.jpg: unsupported" in result.stderr
    line = json.loads(result.stdout)
    assert (line["score"], line["verdict"]) == (None, "unknown")
    assert [photo["error"].partition(":")[0] for photo in line["photographs"]] == ["no-face", "unsupported"]
    assert not page.exists()
    assert facemill("compare", *names, "--file", data_folder / "people.h5").stdout == ""


@pytest.mark.slow
def test_a_page_is_overwritten_only_with_force(data_folder: Path, tmp_path: Path) -> None:
    names = ("compare", data_folder / "in/group.png", data_folder / "in/alone.png", "--file", data_folder / "people.h5")
    page = tmp_path / "pair.html"
    assert facemill(*names, "--html", page).returncode == 0
    before = page.read_bytes()
    assert b"Two people" in before or b"One person" in before
    assert before.count(b"data:image/jpeg;base64,") == 2
    refused = facemill(*names, "--html", page)
    assert_refused(refused, "E-EXISTS", page, "--force")
    assert refused.stdout == ""
    assert facemill(*names, "--html", page, "--force").returncode == 0


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (("--file", "people.h5", "--model", "tiny"), ("--file", "--model")),
        (("--file", "people.h5", "--align", "auto"), ("--file", "--align")),
        (("--engine", "a.onnx", "--model", "tiny"), ("--engine", "--model")),
        (("--threshold", "1.5"), ("--threshold", 1.5, -1, 1)),
        (("--threshold", "nan"), ("--threshold", "nan", -1, 1)),
        (("more.jpg",), ("more.jpg",)),
    ],
)
def test_wrong_options_are_refused(options: tuple[str, ...], values: Values) -> None:
    result = facemill("compare", "a.jpg", "b.jpg", *options)
    assert_refused(result, USAGE, *values)
    assert result.stdout == ""


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    result = facemill("compare", "a.jpg", "b.jpg", "--file", tmp_path / "none.h5")
    assert_refused(result, "E-STORAGE", tmp_path / "none.h5")


def test_help_has_examples() -> None:
    assert "Examples:" in facemill("compare", "--help").stdout
