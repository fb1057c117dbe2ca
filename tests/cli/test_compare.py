"""The compare command: what is printed, what is written, what is refused."""

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
KNOWN = Calibration({}, "known", 90, 30, 10_000, 0, (5000, *[400] * 500, *[10] * 400, 0), "now", "0")


@pytest.fixture(scope="module")
def place(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of photographs with faces, and an embedding file of it that carries a calibration."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "in").mkdir()
    for name, image in (("group.png", GROUP), ("alone.png", ALONE), ("nobody.png", picture(400, 300))):
        (folder / "in" / name).write_bytes(make.encode(image, "PNG"))
    save_red_squares(folder)
    done = facemill("process", folder / "in", "-o", folder / "people.h5", "--engine", tiny_engine, "--align", "detect",
               "--detector", folder / "red-squares.toml")  # fmt: skip
    assert done.returncode == 0, done.stderr
    with h5py.File(folder / "people.h5", "r+") as file:
        file["metadata"].attrs["score_calibration"] = KNOWN.to_json()
    return folder


def test_a_file_says_how_photographs_become_vectors_and_what_scores_mean(place: Path) -> None:
    done = facemill("compare", place / "in/group.png", place / "in/alone.png", "--file", place / "people.h5", "--json")
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    with h5py.File(place / "people.h5") as file:
        vectors = file["embeddings"][:].astype(np.float64)
        rows = dict(zip(file["image_paths"].asstr()[:], range(len(vectors)), strict=True))
    score = vectors[rows["group.png"]] @ vectors[rows["alone.png"]]
    assert line["score"] == pytest.approx(score, abs=2e-6)
    assert line["threshold"] == pytest.approx(0.501)
    place_in_counts = int(max(0, np.floor(score * 1000)))
    assert line["false_match_rate"] == pytest.approx(KNOWN.at_least[min(place_in_counts, 901)] / 10_000)
    assert line["verdict"] == ("same" if score >= 0.501 else "different")
    assert [one["faces"] for one in line["photographs"]] == [4, 1]
    assert line["photographs"][0]["box"] != line["photographs"][1]["box"]
    assert line["model"] == "tiny"
    assert line["warning"] == UNTRAINED_WARNING


def test_words_for_a_person(place: Path) -> None:
    done = facemill("compare", place / "in/group.png", place / "in/group.png", "--file", place / "people.h5")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].endswith("(1 of 4 faces taken (the largest one))")
    shown = {line.rsplit("  ", 1)[0].strip(): line.rsplit("  ", 1)[1] for line in lines[2:6]}
    expected = {"verdict": "one person", "score": "1.0000", "threshold": "0.5010", "false match rate": "<0.0003"}
    assert shown == expected
    assert lines[-1].startswith("model: tiny (sha256 ")
    assert UNTRAINED_WARNING in done.stderr


def test_without_a_file_a_model_and_a_detector_are_taken_as_process_takes_them(place: Path, tiny_model: Path) -> None:
    options = ("--model", tiny_model, "--detector", place / "red-squares.toml", "--align", "detect", "--json")
    done = facemill("compare", place / "in/group.png", place / "in/alone.png", *options)
    assert done.returncode == 0, done.stderr
    line, filed = json.loads(done.stdout), place / "people.h5"
    same = facemill("compare", place / "in/group.png", place / "in/alone.png", "--file", filed, "--json")
    assert line["score"] == json.loads(same.stdout)["score"]
    assert (line["verdict"], line["threshold"]) == ("unknown", None)
    assert "facemill evaluate FOLDER --model tiny" in line["threshold_origin"]
    assert "false_match_rate" not in line
    given = facemill("compare", place / "in/group.png", place / "in/group.png", *options, "--threshold", 0.9)
    assert json.loads(given.stdout)["verdict"] == "same"


def test_a_photograph_without_a_face_ends_it(place: Path, tmp_path: Path) -> None:
    (tmp_path / "text\x1b.jpg").write_text("no photograph")
    names = place / "in/nobody.png", tmp_path / "text\x1b.jpg"
    page = tmp_path / "a.html"
    done = facemill("compare", *names, "--file", place / "people.h5", "--json", "--html", page)
    assert done.returncode == 1
    assert "nobody.png: no-face" in done.stderr
    assert "text\\x1b.jpg: unsupported" in done.stderr
    line = json.loads(done.stdout)
    assert (line["score"], line["verdict"]) == (None, "unknown")
    assert [one["error"].partition(":")[0] for one in line["photographs"]] == ["no-face", "unsupported"]
    assert not page.exists()
    assert facemill("compare", *names, "--file", place / "people.h5").stdout == ""


def test_the_page_is_never_overwritten_unasked(place: Path, tmp_path: Path) -> None:
    names = ("compare", place / "in/group.png", place / "in/alone.png", "--file", place / "people.h5")
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
def test_wrong_usage(options: tuple[str, ...], values: Values) -> None:
    done = facemill("compare", "a.jpg", "b.jpg", *options)
    assert_refused(done, USAGE, *values)
    assert done.stdout == ""


def test_a_file_that_is_none(tmp_path: Path) -> None:
    done = facemill("compare", "a.jpg", "b.jpg", "--file", tmp_path / "none.h5")
    assert_refused(done, "E-STORAGE", tmp_path / "none.h5")


def test_help_has_examples() -> None:
    assert "Examples:" in facemill("compare", "--help").stdout
