"""The evaluate command: its output, its report, its calibration as used by search, its refusals."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

import h5py
import pytest

from runtime.cli.evaluate import main
from runtime.engines.engine import sidecar_path
from runtime.pipeline.request import UNTRAINED_WARNING
from tests.support.errors import USAGE, Values, assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill, start_facemill
from tests.support.lfw_folder import write_pairs, write_people


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make `in`, a folder of people, and `pairs.txt`."""
    folder = tmp_path_factory.mktemp("evaluate")
    write_people(folder / "in")
    write_pairs(folder / "pairs.txt")
    return folder


@pytest.fixture(scope="module")
def report(data_folder: Path, tiny_engine: Path) -> Path:
    """Write a report on the people; returns its folder."""
    result = facemill(
        "evaluate",
        data_folder / "in",
        "--pairs",
        data_folder / "pairs.txt",
        "--engine",
        tiny_engine,
        "-o",
        data_folder / "report",
    )
    assert result.returncode == 0, result.stderr
    return data_folder / "report"


@pytest.mark.slow
def test_figures_are_printed_and_no_file_remains(
    data_folder: Path, tiny_engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    result = facemill("evaluate", data_folder / "in", "--engine", tiny_engine, "--gallery", 30)
    assert result.returncode == 0, result.stderr
    assert re.search(r"^  corrupt +1$", result.stdout, re.MULTILINE)
    assert re.search(r"^  recall@1 +\d+\.\d\d %", result.stdout, re.MULTILINE)
    assert "Thresholds for a gallery of 30 photos" in result.stdout
    assert "accuracy" not in result.stdout
    assert UNTRAINED_WARNING in result.stderr
    assert not list(temporary.glob("facemill*"))


@pytest.mark.slow
def test_json_is_one_line(data_folder: Path, tiny_engine: Path) -> None:
    result = facemill(
        "evaluate", data_folder / "in", "--pairs", data_folder / "pairs.txt", "--engine", tiny_engine, "--json"
    )
    assert result.returncode == 0, result.stderr
    (line,) = result.stdout.splitlines()
    (evaluation,) = json.loads(line)["evaluations"]
    assert evaluation["pairs"]["pairs"] == 16
    assert evaluation["pairs"]["missing"] == 2
    assert evaluation["gallery"] is None


@pytest.mark.slow
def test_missing_photos_of_the_pairs_give_a_warning(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "few"
    shutil.copytree(
        data_folder / "in", folder, ignore=lambda _, names: [name for name in names if name.startswith("P1")]
    )
    shutil.rmtree(folder / "P09")
    arguments = (folder, "--pairs", data_folder / "pairs.txt", "--engine", tiny_engine, "-o", tmp_path / "report")
    result = facemill("evaluate", *arguments)
    assert result.returncode == 0, result.stderr
    warning = json.loads((tmp_path / "report" / "report.json").read_text())["evaluations"][0]["pairs"]["warning"]
    assert_names(warning, 25, 5, 1, "5 of 16")
    assert f"WARNING: {warning}" in result.stderr
    assert warning in (tmp_path / "report" / "report.md").read_text()


@pytest.mark.slow
def test_a_report_keeps_its_embeddings_and_reuses_them(report: Path, data_folder: Path, tiny_engine: Path) -> None:
    assert {"embeddings.h5", "report.json", "report.md"} <= set(os.listdir(report))
    assert not list(report.glob("*.parts"))
    with h5py.File(report / "embeddings.h5") as file:
        run_id = file["metadata"].attrs["run_id"]
    again = facemill("evaluate", data_folder / "in", "--engine", tiny_engine, "-o", report, "--gallery", 9)
    assert again.returncode == 0, again.stderr
    assert "9 photos" in (report / "report.md").read_text()
    with h5py.File(report / "embeddings.h5") as file:
        assert file["metadata"].attrs["run_id"] == run_id
    forced = facemill("evaluate", data_folder / "in", "--engine", tiny_engine, "-o", report, "--force")
    assert forced.returncode == 0, forced.stderr
    with h5py.File(report / "embeddings.h5") as file:
        assert file["metadata"].attrs["run_id"] != run_id


@pytest.mark.slow
def test_two_engines_are_compared(data_folder: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other_engine = Path(shutil.copy(tiny_engine, tmp_path / "other.onnx"))
    shutil.copy(sidecar_path(tiny_engine), sidecar_path(other_engine))
    arguments = (data_folder / "in", "--pairs", data_folder / "pairs.txt", "--compare", tiny_engine, other_engine)
    result = facemill("evaluate", *arguments, "-o", tmp_path / "report")
    assert result.returncode == 0, result.stderr
    assert re.search(r"cosine, minimum +1\.000000", result.stdout)
    assert re.search(r"accuracy +\+0\.00 points", result.stdout)
    assert {"embeddings-1.h5", "embeddings-2.h5"} <= set(os.listdir(tmp_path / "report"))


@pytest.fixture(scope="module")
def calibrated(data_folder: Path, tiny_engine: Path) -> Path:
    """Make an embedding file of the people with a calibration."""
    assert (
        facemill("process", data_folder / "in", "-o", data_folder / "people.h5", "--engine", tiny_engine).returncode
        == 0
    )
    plain = facemill("search", data_folder / "people.h5", data_folder / "in/P05/P05_0001.jpg", "--json")
    assert "expected" not in plain.stdout
    result = facemill("evaluate", data_folder / "in", "--engine", tiny_engine, "--calibrate", data_folder / "people.h5")
    assert result.returncode == 0, result.stderr
    return data_folder / "people.h5"


@pytest.mark.slow
def test_a_search_reports_expected_false_hits(calibrated: Path, data_folder: Path) -> None:
    with h5py.File(calibrated) as file:
        vectors = file["embeddings"][:]
        people = [name.split("/")[0] for name in file["image_paths"].asstr()[:] if "/" in name]
        rows = [row for row, name in enumerate(file["image_paths"].asstr()[:]) if "/" in name]
    scores = vectors[rows] @ vectors[rows].T
    impostors = [scores[i, j] for i in range(len(people)) for j in range(i + 1, len(people)) if people[i] != people[j]]
    result = facemill("search", calibrated, data_folder / "in/P05/P05_0001.jpg", "-k", 38, "--json")
    assert result.returncode == 0, result.stderr
    hits = json.loads(result.stdout)["hits"]
    for hit in hits:
        floor = int(hit["score"] * 1000 // 1) / 1000
        count = sum(score >= floor for score in impostors)
        assert hit["at_most"] == (count == 0)
        assert hit["expected_false_hits"] == pytest.approx(len(vectors) * (count or 3) / len(impostors), rel=1e-4)
    assert hits[0]["at_most"]
    assert not hits[-1]["at_most"]


@pytest.mark.slow
def test_expected_false_hits_are_in_table_csv_and_page(calibrated: Path, data_folder: Path, tmp_path: Path) -> None:
    query = data_folder / "in/P05/P05_0001.jpg"
    table = facemill("search", calibrated, query, "-k", 2, "--html", tmp_path / "a.html")
    assert table.returncode == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[1].split() == ["rank", "score", "expected", "face_index", "box", "path"]
    assert re.fullmatch(r" +1  +1\.0000 +<0\.\d+ +0  0,0,112,112  P05/P05_0001\.jpg", lines[2])
    assert "pairs of 13 people in 'in'" in lines[-1]
    page = (tmp_path / "a.html").read_text("utf-8")
    assert re.search(r">&lt;0\.\d+ false hits expected<", page)
    assert "pairs of 13 people" in page
    rows = list(csv.DictReader(io.StringIO(facemill("search", calibrated, query, "-k", 2, "--csv").stdout)))
    assert list(rows[0])[-2:] == ["expected_false_hits", "at_most"]
    assert rows[0]["at_most"] == "true"
    assert float(rows[0]["expected_false_hits"]) > 0


def test_a_broken_calibration_does_not_stop_a_search(calibrated: Path, data_folder: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copy(calibrated, tmp_path / "broken.h5"))
    with h5py.File(broken, "r+") as file:
        file["metadata"].attrs["score_calibration"] = "{}"
    result = facemill("search", broken, data_folder / "in/P05/P05_0001.jpg", "-k", 1)
    assert result.returncode == 0
    assert_names(result.stderr, "KeyError", "facemill evaluate FOLDER --calibrate")
    assert "expected" not in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        (["in", "--engine", "a", "--model", "b"], USAGE, ("--engine", "--model")),
        (["in", "--engine", "a", "--backend", "cpu"], USAGE, ("--engine", "--backend")),
        (["in", "--compare", "a", "b", "--model", "c"], USAGE, ("--model", "--compare")),
        (["in", "--compare", "a", "b", "--calibrate", "c.h5"], USAGE, ("--compare", "--calibrate")),
        (["in", "--compare", "a"], USAGE, ("--compare", 2)),
        (["in", "--gallery", "0"], USAGE, ("--gallery", 0)),
        (["none", "--model", "random-128"], "E-CONFIG", ("none",)),
        (["in/P05", "--model", "random-128"], "E-CONFIG", ("in/P05", "--pairs")),
        (["in", "--pairs", "none.txt"], "E-CONFIG", ("none.txt",)),
        (["in", "--engine", "none.onnx"], "E-ENGINE", ("none.onnx", "facemill build-engine")),
        (["in", "-o", "in/report"], "E-CONFIG", ("-o", "in/report")),
        (["in", "--model", "random-128", "--calibrate", "pairs.txt"], "E-STORAGE", ("pairs.txt",)),
    ],
)
def test_wrong_options_are_refused(data_folder: Path, arguments: list[str], code: str, values: Values) -> None:
    result = facemill("evaluate", *arguments, cwd=data_folder)
    assert_refused(result, code, *values)
    assert result.stdout == ""


@pytest.mark.slow
def test_a_signal_ends_evaluate_and_no_file_remains(photos: Path, tmp_path: Path) -> None:
    arguments = (photos, "--model", "random-128", "--backend", "cpu")
    with start_facemill("evaluate", *arguments, env={**os.environ, "TMPDIR": str(tmp_path)}) as process:
        assert process.stderr is not None
        stderr_lines = []
        for line in process.stderr:
            stderr_lines.append(line)
            if "photos to process" in line:
                process.send_signal(signal.SIGINT)
    assert process.returncode == 130
    assert "not kept without -o" in stderr_lines[-1]
    assert not list(tmp_path.glob("facemill*"))


def test_every_option_is_documented() -> None:
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    options = [parameter.opts for parameter in main.params if parameter.param_type_name == "option"]
    assert len(options) > 5
    for names in options:
        assert any(f"`{name}" in text for name in names), names


def test_help_has_examples() -> None:
    result = facemill("evaluate", "--help")
    assert result.returncode == 0
    assert "Examples:" in result.stdout
