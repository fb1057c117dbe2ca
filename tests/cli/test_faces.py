"""The face options of process, search and evaluate, with a detector that finds red squares."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from runtime.engines.engine import sidecar_path
from runtime.records import LATER_DATASETS
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import USAGE, assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill, summary
from tests.support.red_square_detector import picture, save_red_squares

PEOPLE = 3
SHOTS = 3


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make `in`: people with a face in each photo (P2's are darker) and a photo without a face; and two detectors."""
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
    # This detector finds the darker squares too.
    keen = text.replace('"red-squares"', '"keen"').replace("std = [1.0, 1.0, 1.0]", "std = [0.5, 0.5, 0.5]")
    (folder / "keen.toml").write_text(keen)
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Use an empty cache, so that the tests build the detectors."""
    return {"FACEMILL_CACHE": str(tmp_path_factory.mktemp("cache"))}


@pytest.fixture(scope="module")
def people(data_folder: Path, tiny_engine: Path, environment: dict[str, str]) -> Path:
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        data_folder / "people.h5",
        "--engine",
        tiny_engine,
        "--align",
        "detect",
        "--detector",
        data_folder / "keen.toml",
        "--landmarks",
        "none",  # squares have no landmarks to find
        "--json",
        **environment,
    )
    assert summary(result)["outcomes"] == {"embedded": PEOPLE * SHOTS, "no-face": 1}
    return data_folder / "people.h5"


@pytest.mark.slow
def test_a_query_is_aligned_like_the_rows(people: Path, data_folder: Path, environment: dict[str, str]) -> None:
    query = data_folder / "in" / "P1" / "P1_0002.png"
    result = facemill(
        "search", people, query, data_folder / "in" / "P0" / "P0_0009.png", "-k", 3, "--csv", **environment
    )
    assert result.returncode == 1  # the query without a face failed
    (first,) = [row for row in csv.DictReader(io.StringIO(result.stdout)) if row["rank"] == "1"]
    assert first["path"] == "P1/P1_0002.png"
    assert float(first["score"]) == pytest.approx(1, abs=1e-5)
    assert "P0_0009.png: no-face" in result.stderr


@pytest.mark.slow
def test_a_search_names_a_missing_detector(people: Path, data_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.h5"
    copy.write_bytes(people.read_bytes())
    with h5py.File(copy, "a") as file:
        file["metadata"].attrs["detector_engine"] = str(tmp_path / "gone.onnx")
    query = data_folder / "in" / "P1" / "P1_0002.png"
    result = facemill("search", copy, query)
    assert_refused(result, "E-ENGINE", tmp_path / "gone.onnx", "facemill build-engine")
    with h5py.File(copy, "a") as file:
        del file["metadata"].attrs["detector_engine"]
    assert_refused(facemill("search", copy, query), "E-ENGINE", copy, "facemill build-engine")


@pytest.mark.slow
def test_a_detector_can_be_an_engine_file(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    built = facemill("build-engine", "--model", data_folder / "keen.toml", "--output", tmp_path)
    assert built.returncode == 0, built.stderr
    (engine,) = tmp_path.glob("*.onnx")
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        tmp_path / "o.h5",
        "--engine",
        tiny_engine,
        "--align",
        "auto",
        "--detector",
        engine,
        "--faces",
        "all",
        "--min-iod",
        30,
        "--json",
    )
    assert summary(result)["outcomes"]["no-face"] == 1
    wrong = facemill("process", data_folder / "in", "-o", tmp_path / "w.h5", "--engine", tiny_engine, "--align", "auto",
                "--detector", tiny_engine)  # fmt: skip
    assert_refused(wrong, "E-CONFIG", tiny_engine, "facemill-det")


def test_a_missing_detector_without_network_names_the_alternatives(
    data_folder: Path, tiny_engine: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    offline = {**environment, "FACEMILL_MODELS": str(tmp_path), "FACEMILL_CACHE": str(tmp_path / "cache")}
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        tmp_path / "o.h5",
        "--engine",
        tiny_engine,
        "--align",
        "auto",
        "--detector",
        "scrfd-500m",
        **offline,
    )
    assert_refused(result, "E-MODEL-UNAVAILABLE", "scrfd_500m_bnkps.onnx", "--align none", "--detector facemill-det")


def test_an_onnx_file_without_a_model_file_is_refused(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        tmp_path / "o.h5",
        "--engine",
        tiny_engine,
        "--align",
        "detect",
        "--detector",
        data_folder / "red-squares.onnx",
    )
    assert_refused(result, "E-MODEL", f"--detector {data_folder / 'red-squares.toml'}", 'decode = "')


@pytest.mark.slow
def test_rows_of_two_detectors_are_not_mixed(
    people: Path, data_folder: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    copy = tmp_path / "people.h5"
    copy.write_bytes(people.read_bytes())
    arguments = (data_folder / "in", "-o", copy, "--engine", tiny_engine, "--align", "detect")
    result = facemill("process", *arguments, "--detector", data_folder / "red-squares.toml", **environment)
    assert_refused(result, "E-CONTRACT", "detector", "keen", "red-squares")
    assert "detector_sha256" not in result.stderr  # one file with two preprocessings
    model = onnx.load(data_folder / "red-squares.onnx")
    model.doc_string = "a different file of the same name"
    onnx.save(model, tmp_path / "red-squares.onnx")
    (tmp_path / "keen.toml").write_bytes((data_folder / "keen.toml").read_bytes())
    result = facemill("process", *arguments, "--detector", tmp_path / "keen.toml", **environment)
    assert_refused(result, "E-CONTRACT", "detector_sha256")
    assert "detector: " not in result.stderr
    assert copy.read_bytes() == people.read_bytes()


@pytest.mark.parametrize("option", [("--min-iod", "nan"), ("--min-frontal", "5")])
def test_thresholds_that_no_face_meets_are_refused(
    data_folder: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path, option: tuple[str, str]
) -> None:
    result = facemill(
        "process",
        data_folder / "in",
        "-o",
        tmp_path / "o.h5",
        "--engine",
        tiny_engine,
        "--align",
        "detect",
        "--detector",
        data_folder / "keen.toml",
        *option,
        **environment,
    )
    assert_refused(result, "E-CONFIG", *option)
    assert not (tmp_path / "o.h5").exists()


def read_detector_table(stdout: str) -> dict[str, list[str]]:
    """Parse the table of detectors: row name -> the value in each column."""
    lines = stdout[stdout.index("Detectors. ") :].splitlines()
    rows = [re.split(r" {2,}", line.strip()) for line in lines[2:] if line.startswith("  ")]
    return {name: values for name, *values in rows}


@pytest.mark.slow
def test_detectors_are_compared_in_the_same_way_from_photos_and_from_stored_results(
    data_folder: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    detectors = [str(data_folder / "red-squares.toml"), str(data_folder / "keen.toml")]
    arguments = (data_folder / "in", "--engine", tiny_engine, "--align", "detect", "-o", tmp_path)
    result = facemill("evaluate", *arguments, "--detectors", ",".join(detectors), **environment)
    assert result.returncode == 0, result.stderr
    table = read_detector_table(result.stdout)
    assert table["photos with a face"] == ["60.00 %", "90.00 %"]
    assert table["licence"] == ["Apache-2.0", "Apache-2.0"]
    for speed in ("detection alone, photos/s", "whole run, photos/s"):
        assert all(float(value.replace(",", "")) > 0 for value in table[speed])
    repeated = facemill("evaluate", *arguments, "--detectors", f"{detectors[1]}, {detectors[0]}", **environment)
    assert repeated.returncode == 0, repeated.stderr
    assert read_detector_table(repeated.stdout) == {name: values[::-1] for name, values in table.items()}
    recommendations = [
        next(line for line in run.stdout.splitlines() if line.startswith("Detectors. ")) for run in (result, repeated)
    ]
    assert recommendations[0] == recommendations[1]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["recommendation"] in recommendations[0]
    assert [detector["found"]["value"] for detector in report["detectors"]] == [0.9, 0.6]
    for speed_file in tmp_path.glob("*.speed.json"):
        speed_file.unlink()
    without_speeds = facemill("evaluate", *arguments, "--detectors", ",".join(detectors), **environment)
    assert read_detector_table(without_speeds.stdout)["detection alone, photos/s"] == ["not measured"] * 2


@pytest.mark.parametrize("names", [",", "", " , "])
def test_an_empty_list_of_detectors_is_refused(data_folder: Path, names: str) -> None:
    result = facemill("evaluate", data_folder / "in", "--detectors", names)
    assert_refused(result, USAGE, "--detectors", "facemill-det,yunet")


@pytest.mark.slow
def test_comparing_two_engines_recommends_no_detector(
    data_folder: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    other_engine = tmp_path / "other.onnx"
    other_engine.write_bytes(tiny_engine.read_bytes())
    sidecar_path(other_engine).write_bytes(sidecar_path(tiny_engine).read_bytes())
    result = facemill(
        "evaluate",
        data_folder / "in",
        "--compare",
        tiny_engine,
        other_engine,
        "--align",
        "detect",
        "--detector",
        data_folder / "keen.toml",
        **environment,
    )
    assert result.returncode == 0, result.stderr
    assert "Take " not in result.stdout


@pytest.mark.parametrize("conflict", [("--align", "none"), ("--compare", "a.onnx", "b.onnx"), ("--calibrate", "x.h5")])
def test_detectors_with_a_conflicting_option_is_refused(
    data_folder: Path, tmp_path: Path, conflict: tuple[str, ...]
) -> None:
    for name in ("a.onnx", "b.onnx", "x.h5"):
        (tmp_path / name).touch()
    align = () if "--align" in conflict else ("--align", "auto")
    result = facemill(
        "evaluate", data_folder / "in", "--detectors", "yunet,scrfd-500m", *align, *conflict, cwd=tmp_path
    )
    assert_refused(result, USAGE, "--detectors", conflict[0])


@pytest.mark.slow
def test_int8_is_calibrated_on_aligned_crops(data_folder: Path, environment: dict[str, str], tmp_path: Path) -> None:
    result = facemill(
        "build-engine",
        "--model",
        "random-128",
        "--precision",
        "int8",
        "--calibration",
        data_folder / "in",
        "--align",
        "detect",
        "--detector",
        data_folder / "keen.toml",
        "--output",
        tmp_path,
        **environment,
    )
    assert_refused(result, "E-CONFIG", 9, 64)  # nine photos are too few
    assert_names(result.stderr, 9, 10)


def test_every_option_is_documented() -> None:
    from runtime.cli.groups import face_options

    text = (ROOT / "docs" / "faces.md").read_text(encoding="utf-8")
    options = [parameter.opts[0] for parameter in face_options(lambda: None).__click_params__]  # type: ignore[attr-defined]
    assert len(options) == 12
    for option in options:
        assert f"`{option}" in text, option


def older(file: Path, copy: Path) -> Path:
    """The file as versions before the exposure wrote it."""
    shutil.copy(file, copy)
    with h5py.File(copy, "r+") as opened:
        for name in LATER_DATASETS.values():
            del opened[name]
        del opened["metadata"].attrs["content_sha256"]
    return copy


@pytest.mark.slow
def test_the_exposure_of_each_face_is_stored_and_can_be_required(
    people: Path, data_folder: Path, tiny_engine: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with h5py.File(people) as file:
        brightness = file["faces/brightness"][:]
        contrast = file["faces/contrast"][:]
        dark = np.array([name.startswith(b"P2") for name in file["image_paths"][:]])
    assert brightness[dark].max() < brightness[~dark].min()
    assert contrast[dark].max() < contrast[~dark].min()
    limit = float(brightness[~dark].min())
    options = ("--engine", tiny_engine, "--align", "detect", "--detector", data_folder / "keen.toml", "--json")
    options = (*options, "--landmarks", "none")
    bright = facemill(
        "process", data_folder / "in", "-o", tmp_path / "o.h5", *options, "--min-brightness", limit, **environment
    )
    assert summary(bright)["outcomes"] == {"embedded": 6, "low-quality": 3, "no-face": 1}
    other = facemill("process", data_folder / "in", "-o", tmp_path / "o.h5", *options, **environment)
    assert_refused(other, "E-CONTRACT", "min_brightness", limit, 0.0)


@pytest.mark.slow
def test_files_without_exposure_stay_usable_and_their_rows_have_no_number(
    people: Path, data_folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    old = older(people, tmp_path / "old.h5")
    for command in (
        ("verify", old),
        ("search", old, data_folder / "in" / "P1" / "P1_0002.png"),
        ("export", old, "--npy", tmp_path / "npy"),
        ("repair", old, "-o", tmp_path / "repaired.h5"),
    ):
        result = facemill(*command, **environment)
        assert result.returncode == 0, (command, result.stderr)
    more = tmp_path / "more"
    more.mkdir()
    shutil.copy(data_folder / "in" / "P0" / "P0_0001.png", more)
    added = facemill("add", old, more, **environment)
    assert added.returncode == 0, added.stderr
    with EmbeddingFile(old) as file:
        assert file.faces is not None
        known = ~np.isnan(file.faces["brightness"])
        assert known.tolist() == [str(path).endswith("more/P0_0001.png") for path in file.paths]
        assert (~np.isnan(file.faces["contrast"]) == known).all()


@pytest.mark.slow
def test_a_repair_keeps_rows_whose_exposure_is_damaged(
    people: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    damaged = Path(shutil.copy(people, tmp_path / "damaged.h5"))
    with h5py.File(damaged) as file:
        data = file["faces/brightness"]
        place, rows = data.id.get_chunk_info(0).byte_offset, len(data)
    with damaged.open("r+b") as opened:
        opened.seek(place)
        opened.write(b"\xff" * 4)
    assert facemill("verify", damaged, **environment).returncode == 1
    result = facemill("repair", damaged, "-o", tmp_path / "repaired.h5", **environment)
    assert result.returncode == 0, result.stderr
    with EmbeddingFile(tmp_path / "repaired.h5") as repaired:
        assert repaired.rows == rows
        assert repaired.faces is not None
        assert np.isnan(repaired.faces["brightness"]).all()
        assert not np.isnan(repaired.faces["contrast"]).any()
