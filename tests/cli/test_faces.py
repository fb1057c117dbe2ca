"""The options about faces, from process through search to evaluate, with a detector that anybody can check."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from runtime.engines.engine import sidecar_path
from tests.support import encoded_images as make
from tests.support.errors import USAGE, assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill, summary
from tests.support.red_square_detector import picture, save_red_squares

PEOPLE = 3
SHOTS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`in`: people with a face in each photograph (P2's are darker), one photograph with none; and the detector."""
    folder = tmp_path_factory.mktemp("faces")
    rng = np.random.default_rng(1)
    for person in range(PEOPLE):
        for shot in range(1, SHOTS + 1):
            square = (int(rng.integers(40, 160)), int(rng.integers(40, 200)), 90)
            path = folder / "in" / f"P{person}" / f"P{person}_{shot:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = picture(400, 300, square, seed=person)
            path.write_bytes(make.encode(image if person < 2 else (image * 0.45).astype(np.uint8), "PNG"))
    (folder / "in" / "P0" / "P0_0009.png").write_bytes(make.encode(picture(400, 300), "PNG"))
    text = save_red_squares(folder).read_text()
    # One that sees the darker squares too.
    keen = text.replace('"red-squares"', '"keen"').replace("std = [1.0, 1.0, 1.0]", "std = [0.5, 0.5, 0.5]")
    (folder / "keen.toml").write_text(keen)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A cache of its own, so that detectors are built here."""
    return {"FACEMILL_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def people(place: Path, tiny_engine: Path, environment: dict[str, str]) -> Path:
    done = facemill("process", place / "in", "-o", place / "people.h5", "--engine", tiny_engine, "--align", "detect",
               "--detector", place / "keen.toml", "--json", **environment)  # fmt: skip
    assert summary(done)["outcomes"] == {"embedded": PEOPLE * SHOTS, "no-face": 1}
    return place / "people.h5"


def test_a_query_is_aligned_as_the_rows_were(people: Path, place: Path, environment: dict[str, str]) -> None:
    query = place / "in" / "P1" / "P1_0002.png"
    done = facemill("search", people, query, place / "in" / "P0" / "P0_0009.png", "-k", 3, "--csv", **environment)
    assert done.returncode == 1  # of the query without a face
    (first,) = [row for row in csv.DictReader(io.StringIO(done.stdout)) if row["rank"] == "1"]
    assert first["path"] == "P1/P1_0002.png"
    assert float(first["score"]) == pytest.approx(1, abs=1e-5)
    assert "P0_0009.png: no-face" in done.stderr


def test_a_search_says_which_detector_is_gone(people: Path, place: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(people.read_bytes())
    with h5py.File(copy, "a") as file:
        file["metadata"].attrs["detector_engine"] = str(tmp_path / "gone.onnx")
    query = place / "in" / "P1" / "P1_0002.png"
    done = facemill("search", copy, query)
    assert_refused(done, "E-ENGINE", tmp_path / "gone.onnx", "facemill build-engine")
    with h5py.File(copy, "a") as file:
        del file["metadata"].attrs["detector_engine"]
    assert_refused(facemill("search", copy, query), "E-ENGINE", copy, "facemill build-engine")


@pytest.mark.slow
def test_a_detector_may_be_named_by_its_engine(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    built = facemill("build-engine", "--model", place / "keen.toml", "--output", tmp_path)
    assert built.returncode == 0, built.stderr
    (engine,) = tmp_path.glob("*.onnx")
    done = facemill("process", place / "in", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "auto",
               "--detector", engine, "--faces", "all", "--min-iod", 30, "--json")  # fmt: skip
    assert summary(done)["outcomes"]["no-face"] == 1
    wrong = facemill("process", place / "in", "-o", tmp_path / "w.h5", "--engine", tiny_engine, "--align", "auto",
                "--detector", tiny_engine)  # fmt: skip
    assert_refused(wrong, "E-CONFIG", tiny_engine, "facemill-det")


def test_without_a_detector_and_a_network_the_way_out_is_named(
    place: Path, tiny_engine: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    alone = {**environment, "FACEMILL_MODELS": str(tmp_path), "FACEMILL_CACHE": str(tmp_path / "cache")}
    done = facemill("process", place / "in", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "auto",
               "--detector", "scrfd-500m", **alone)  # fmt: skip
    assert_refused(done, "E-MODEL-UNAVAILABLE", "scrfd_500m_bnkps.onnx", "--align none", "--detector facemill-det")


def test_an_onnx_file_alone_gets_a_detectors_model_file(place: Path, tiny_engine: Path, tmp_path: Path) -> None:
    done = facemill("process", place / "in", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "detect",
               "--detector", place / "red-squares.onnx")  # fmt: skip
    assert_refused(done, "E-MODEL", f"--detector {place / 'red-squares.toml'}", 'decode = "')


@pytest.mark.slow
def test_rows_of_two_detectors_are_not_mixed(
    people: Path, place: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "people.h5"
    copy.write_bytes(people.read_bytes())
    arguments = (place / "in", "-o", copy, "--engine", tiny_engine, "--align", "detect")
    done = facemill("process", *arguments, "--detector", place / "red-squares.toml", **environment)
    assert_refused(done, "E-CONTRACT", "detector", "keen", "red-squares")
    assert "detector_sha256" not in done.stderr  # one file, two ways to feed it
    model = onnx.load(place / "red-squares.onnx")
    model.doc_string = "another file of the same name"
    onnx.save(model, tmp_path / "red-squares.onnx")
    (tmp_path / "keen.toml").write_bytes((place / "keen.toml").read_bytes())
    done = facemill("process", *arguments, "--detector", tmp_path / "keen.toml", **environment)
    assert_refused(done, "E-CONTRACT", "detector_sha256")
    assert "detector: " not in done.stderr
    assert copy.read_bytes() == people.read_bytes()


@pytest.mark.parametrize("option", [("--min-iod", "nan"), ("--min-frontal", "5")])
def test_thresholds_that_no_face_meets_are_refused(
    place: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path, option: tuple[str, str]
) -> None:
    done = facemill("process", place / "in", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "detect",
               "--detector", place / "keen.toml", *option, **environment)  # fmt: skip
    assert_refused(done, "E-CONFIG", *option)
    assert not (tmp_path / "o.h5").exists()


def compared(stdout: str) -> dict[str, list[str]]:
    """The table of detectors: by row, the value in each column."""
    lines = stdout[stdout.index("Detectors. ") :].splitlines()
    rows = [re.split(r" {2,}", line.strip()) for line in lines[2:] if line.startswith("  ")]
    return {name: values for name, *values in rows}


@pytest.mark.slow
def test_detectors_are_compared_alike_from_photographs_and_from_what_was_kept(
    place: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    both = [str(place / "red-squares.toml"), str(place / "keen.toml")]
    arguments = (place / "in", "--engine", tiny_engine, "--align", "detect", "-o", tmp_path)
    done = facemill("evaluate", *arguments, "--detectors", ",".join(both), **environment)
    assert done.returncode == 0, done.stderr
    found = compared(done.stdout)
    assert found["photos with a face"] == ["60.00 %", "90.00 %"]
    assert found["licence"] == ["Apache-2.0", "Apache-2.0"]
    for speed in ("detection alone, photos/s", "whole run, photos/s"):
        assert all(float(value.replace(",", "")) > 0 for value in found[speed])
    again = facemill("evaluate", *arguments, "--detectors", f"{both[1]}, {both[0]}", **environment)
    assert again.returncode == 0, again.stderr
    assert compared(again.stdout) == {name: values[::-1] for name, values in found.items()}
    told = [next(line for line in one.stdout.splitlines() if line.startswith("Detectors. ")) for one in (done, again)]
    assert told[0] == told[1]
    facts = json.loads((tmp_path / "report.json").read_text())
    assert facts["recommendation"] in told[0]
    assert [one["found"]["value"] for one in facts["detectors"]] == [0.9, 0.6]
    for kept in tmp_path.glob("*.speed.json"):
        kept.unlink()
    lost = facemill("evaluate", *arguments, "--detectors", ",".join(both), **environment)
    assert compared(lost.stdout)["detection alone, photos/s"] == ["not measured"] * 2


@pytest.mark.parametrize("names", [",", "", " , "])
def test_no_detectors_are_a_mistake(place: Path, names: str) -> None:
    done = facemill("evaluate", place / "in", "--detectors", names)
    assert_refused(done, USAGE, "--detectors", "facemill-det,yunet")


def test_two_engines_behind_one_detector_are_no_comparison_of_detectors(
    place: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    other = tmp_path / "other.onnx"
    other.write_bytes(tiny_engine.read_bytes())
    sidecar_path(other).write_bytes(sidecar_path(tiny_engine).read_bytes())
    done = facemill("evaluate", place / "in", "--compare", tiny_engine, other, "--align", "detect", "--detector",
               place / "keen.toml", **environment)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Take " not in done.stdout


@pytest.mark.parametrize("more", [("--align", "none"), ("--compare", "a.onnx", "b.onnx"), ("--calibrate", "x.h5")])
def test_detectors_beside_what_they_exclude(place: Path, tmp_path: Path, more: tuple[str, ...]) -> None:
    for name in ("a.onnx", "b.onnx", "x.h5"):
        (tmp_path / name).touch()
    align = () if "--align" in more else ("--align", "auto")
    done = facemill("evaluate", place / "in", "--detectors", "yunet,scrfd-500m", *align, *more, cwd=tmp_path)
    assert_refused(done, USAGE, "--detectors", more[0])


def test_int8_is_calibrated_on_aligned_crops(place: Path, environment: dict[str, str], tmp_path: Path) -> None:
    done = facemill("build-engine", "--model", "random-128", "--precision", "int8", "--calibration", place / "in",
               "--align", "detect", "--detector", place / "keen.toml", "--output", tmp_path,
               **environment)  # fmt: skip
    assert_refused(done, "E-CONFIG", 9, 64)  # nine are too few, and it says so
    assert_names(done.stderr, 9, 10)


def test_every_option_is_in_the_document() -> None:
    from runtime.cli.groups import face_options

    text = (ROOT / "docs" / "faces.md").read_text(encoding="utf-8")
    options = [parameter.opts[0] for parameter in face_options(lambda: None).__click_params__]  # type: ignore[attr-defined]
    assert len(options) == 7
    for option in options:
        assert f"`{option}" in text, option
