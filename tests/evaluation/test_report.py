"""The report: equal figures in every format, hostile names, pictures, and folders with other files."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.engine import read_engine
from runtime.errors import ConfigError, MissingDependencyError, OutputExistsError
from runtime.evaluation.compare import compare_evaluations
from runtime.evaluation.evaluate import Evaluation, Lookalikes, evaluate
from runtime.evaluation.plots import draw_roc, draw_scores
from runtime.evaluation.report import Report, as_text, check_report_folder, labels_of, write_report
from runtime.faces.rules import FaceRules
from runtime.metrics.pairs import read_pairs
from runtime.pipeline.request import Request
from tests.support.errors import raises
from tests.support.lfw_folder import write_pairs, write_people, write_portrait

NAMES = ["report.json", "report.md", "roc.png", "scores.png"]
BLUE, VERMILLION = (0, 114, 178), (213, 94, 0)


@pytest.fixture(scope="module")
def evaluation(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("report")
    pairs = read_pairs(write_pairs(folder / "pairs.txt"))
    return evaluate(
        Request(
            (str(write_people(folder / "in")),), folder / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")
        ),
        pairs,
    )


@pytest.fixture(scope="module")
def report(evaluation: Evaluation) -> Report:
    return Report("people/", "pairs.txt", ("tiny.onnx",), (evaluation,), 20, None, "2030-01-02T03:04:05+00:00")


@pytest.fixture
def no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make matplotlib impossible to import."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)


def parse_strict_json(text: str) -> dict[str, object]:
    """Parse JSON; fail on NaN and infinities, which other readers refuse."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    parsed: dict[str, object] = json.loads(text, parse_constant=refuse)
    return parsed


@pytest.mark.slow
def test_the_json_contains_the_figures(report: Report, evaluation: Evaluation) -> None:
    document = parse_strict_json(json.dumps(report.to_dict()))
    assert (document["folder"], document["pairs_file"], document["comparison"]) == ("people/", "pairs.txt", None)
    (facts,) = report.to_dict()["evaluations"]
    assert evaluation.pairs is not None
    assert evaluation.retrieval is not None
    assert facts["label"] == "tiny.onnx"
    assert facts["outcomes"] == {"embedded": 37, "corrupt": 1}
    assert facts["pairs"]["accuracy"] == evaluation.pairs.folds.accuracy
    assert (facts["pairs"]["missing"], facts["pairs"]["absent_photographs"]) == (2, 1)
    assert [rate["tar"] for rate in facts["pairs"]["tar_at_far"]] == [None, None, None]  # 7 impostor pairs
    assert facts["retrieval"]["MAP@R"]["value"] == evaluation.retrieval.means[2]
    low, high = facts["retrieval"]["MAP@R"]["interval"]
    assert low < evaluation.retrieval.means[2] < high
    assert [row["expected_false_hits"] for row in facts["gallery"]["thresholds"]] == [0.01, 0.1, 1.0]
    assert facts["gallery"]["expected_false_hits_above_at_most"] == pytest.approx(60 / evaluation.curve.impostors)


def test_tables_contain_the_figures(report: Report, evaluation: Evaluation) -> None:
    assert evaluation.pairs is not None
    assert evaluation.retrieval is not None
    text = "\n".join(as_text(report.tables()))
    for phrase in (
        f"{100 * evaluation.pairs.folds.accuracy:.2f} %",
        "2 (1 photos are not in the folder)",
        "needs more than 7 impostor pairs",
        f"{100 * evaluation.retrieval.means[0]:.2f} %",
        "corrupt",
        "identify nobody",
        "Thresholds for a gallery of 20 photos",
        evaluation.lookalikes[0].one,
    ):
        assert phrase in text


@pytest.mark.slow
def test_a_report_is_four_files(report: Report, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[report]'")
    write_report(tmp_path, report)
    assert sorted(os.listdir(tmp_path)) == NAMES
    assert parse_strict_json((tmp_path / "report.json").read_text()) == json.loads(json.dumps(report.to_dict()))
    text = (tmp_path / "report.md").read_text()
    assert "![roc](roc.png)" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 4)


def test_without_matplotlib_figures_are_written_and_old_pictures_removed(
    report: Report, tmp_path: Path, no_matplotlib: None, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "roc.png").write_bytes(b"of an earlier evaluation")
    write_report(tmp_path, report)
    assert sorted(os.listdir(tmp_path)) == NAMES[:2]
    assert "png" not in (tmp_path / "report.md").read_text()
    with raises(MissingDependencyError, "pip install matplotlib"):
        draw_roc(report.evaluations, report.labels)


@pytest.mark.slow
def test_names_cannot_break_a_table_or_a_page(report: Report, evaluation: Evaluation, tmp_path: Path) -> None:
    evil = '<img src=x onerror="alert(1)">|\x1b[31m`\udcff.jpg'
    strange = replace(evaluation, lookalikes=(Lookalikes(0.5, evil, "b.jpg"),))
    write_report(tmp_path, replace(report, evaluations=(strange,), folder=evil))
    text = (tmp_path / "report.md").read_text("utf-8")
    assert "\x1b" not in text
    assert "| 0.5000 | &lt;img" in text
    (row,) = [line for line in text.splitlines() if line.startswith("| 0.5000")]
    assert row.count("|") == 4
    facts = parse_strict_json((tmp_path / "report.json").read_text())
    assert facts["folder"] == evil


def colours(picture: bytes) -> set[tuple[int, ...]]:
    import cv2

    pixels = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1] == 1080
    return set(map(tuple, pixels[..., ::-1].reshape(-1, 3).tolist()))


@pytest.mark.slow
def test_pictures_show_both_curves(report: Report, evaluation: Evaluation) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[report]'")
    for draw in (draw_roc, draw_scores):
        assert {BLUE, VERMILLION} <= colours(draw([evaluation], ["tiny"]))


@pytest.mark.slow
def test_pictures_of_awkward_folders_can_be_drawn(tiny_engine: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: pip install '.[report]'")
    for person in range(3):
        write_portrait(tmp_path / "alone", person, 0)  # no genuine pair
    for shot in range(3):
        write_portrait(tmp_path / "one", 0, shot)  # no impostor pair
    for name in ("alone", "one"):
        evaluation = evaluate(
            Request((str(tmp_path / name),), tmp_path / f"{name}.h5", read_engine(tiny_engine), faces=FaceRules("none"))
        )
        report = Report(name, "", ("tiny",), (evaluation,), 10, None, "")
        assert draw_roc([evaluation], ["tiny"]).startswith(b"\x89PNG")
        assert draw_scores([evaluation], ["tiny"]).startswith(b"\x89PNG")
        parse_strict_json(json.dumps(report.to_dict()))
        assert "\n".join(as_text(report.tables()))


def test_a_comparison_has_one_column_per_engine(evaluation: Evaluation) -> None:
    report = Report(
        "people/",
        "pairs.txt",
        ("a.onnx", "b.onnx"),
        (evaluation, evaluation),
        None,
        compare_evaluations(evaluation, evaluation),
        "",
    )
    text = "\n".join(as_text(report.tables()))
    assert "a.onnx" in text
    assert "cosine, minimum" in text
    assert "1.000000" in text
    assert "+0.00 points" in text
    facts = parse_strict_json(json.dumps(report.to_dict()))
    assert facts["comparison"]["verdicts"] == {"accuracy": 0.0, "gained": 0, "lost": 0}  # type: ignore[index]


def test_engines_get_distinct_labels() -> None:
    assert labels_of([Path("x/a.onnx"), Path("x/b.onnx")]) == ("a.onnx", "b.onnx")
    assert labels_of([Path("x/a.onnx"), Path("y/a.onnx")]) == ("x/a.onnx", "y/a.onnx")


@pytest.mark.slow
def test_a_report_overwrites_no_file_without_force(report: Report, tmp_path: Path) -> None:
    people = tmp_path / "people"
    with pytest.raises(ConfigError):  # a typo, or a disk that is not mounted
        check_report_folder(tmp_path / "new" / "deep", people, force=False)
    check_report_folder(tmp_path / "new", people, force=False)
    assert (tmp_path / "new").is_dir()
    write_report(tmp_path / "new", report)
    check_report_folder(tmp_path / "new", people, force=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    check_report_folder(tmp_path / "mine", people, force=False)
    (tmp_path / "mine" / "report.md").write_text("mine")
    with raises(OutputExistsError, "report.md", "--force"):
        check_report_folder(tmp_path / "mine", people, force=False)
    check_report_folder(tmp_path / "mine", people, force=True)
    with raises(OutputExistsError, "report.md", "-o"):
        check_report_folder(tmp_path / "mine" / "report.md", people, force=True)
    with raises(ConfigError, "people/report", "-o"):
        check_report_folder(people / "report", people, force=True)
