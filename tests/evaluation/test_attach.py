"""Attach a calibration to a finished file: nothing else changes, and a failure leaves the file unchanged."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import pytest

from runtime.engines.build import build_engine
from runtime.engines.engine import read_engine
from runtime.errors import ConfigError, ContractError, DiskFullError, LockedError, StorageError
from runtime.evaluation.attach import attach_calibration, calibration_of, check_file
from runtime.evaluation.evaluate import Evaluation, evaluate
from runtime.faces.rules import FaceRules
from runtime.index.indexfile import ensure_index
from runtime.metrics.falsematch import Calibration
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.storage.calibration import find_calibration
from runtime.storage.file import EmbeddingFile
from runtime.storage.runfolder import RunFolder
from tests.support import encoded_images as make
from tests.support.embedding_files import contents, differences
from tests.support.errors import raises
from tests.support.lfw_folder import write_people, write_portrait
from tests.support.model_files import copy_engine
from tests.support.red_square_detector import picture, save_red_squares


@pytest.fixture(scope="module")
def evaluation(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("attach")
    return evaluate(
        Request(
            (str(write_people(folder / "known")),),
            folder / "known.h5",
            read_engine(tiny_engine),
            faces=FaceRules("none"),
        )
    )


@pytest.fixture(scope="module")
def calibration(evaluation: Evaluation) -> Calibration:
    return calibration_of(evaluation, Path("somewhere/known"), "2030-01-02T03:04:05+00:00")


@pytest.fixture(scope="module")
def finished_file(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with failures, digests and a path that is not UTF-8. Tests must not change it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(photos / "1", folder / "in")
    os.rename(os.fsencode(next((folder / "in").iterdir())), os.fsencode(folder / "in") + b"/caf\xe9.jpg")
    process(
        Request(
            (str(folder / "in"),),
            folder / "o.h5",
            read_engine(tiny_engine),
            skip_duplicates=True,
            faces=FaceRules("none"),
        )
    )
    return folder / "o.h5"


@pytest.fixture
def file(finished_file: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(finished_file, tmp_path / "people.h5"))


@pytest.mark.slow
def test_nothing_but_the_calibration_changes(file: Path, finished_file: Path, calibration: Calibration) -> None:
    file.chmod(0o640)
    attach_calibration(file, calibration)
    assert differences(finished_file, file) == ["@score_calibration"]
    assert "outcomes/raw_paths/bytes" in contents(file)
    with h5py.File(finished_file) as before, h5py.File(file) as after:
        assert after["metadata"].attrs["run_id"] == before["metadata"].attrs["run_id"]
        assert after["embeddings"].fletcher32
        assert after["outcomes/path"].compression == "gzip"
    assert file.stat().st_mode & 0o777 == 0o640
    assert os.listdir(file.parent) == ["people.h5"]
    with EmbeddingFile(file) as gallery:
        assert find_calibration(gallery) == calibration


def test_a_second_calibration_replaces_the_first(file: Path, calibration: Calibration) -> None:
    attach_calibration(file, calibration)
    attach_calibration(file, replace(calibration, folder="other"))
    with EmbeddingFile(file) as gallery:
        attached = find_calibration(gallery)
    assert attached is not None
    assert attached.folder == "other"


def test_a_link_is_followed(file: Path, tmp_path: Path, calibration: Calibration) -> None:
    link = tmp_path / "link.h5"
    link.symlink_to(file)
    attach_calibration(link, calibration)
    assert link.is_symlink()
    with EmbeddingFile(file) as gallery:
        assert find_calibration(gallery) == calibration


@pytest.mark.slow
def test_a_file_with_a_calibration_can_be_retried(tiny_engine: Path, tmp_path: Path, calibration: Calibration) -> None:
    request = Request(
        (str(write_people(tmp_path / "in")),), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")
    )
    assert process(request).outcomes["corrupt"] == 1
    attach_calibration(tmp_path / "o.h5", calibration)
    write_portrait(tmp_path / "in", 3, 1)
    assert "corrupt" not in process(replace(request, retry=True)).outcomes


def test_a_calibration_of_another_model_is_refused(file: Path, finished_file: Path, calibration: Calibration) -> None:
    int8_calibration = replace(
        calibration, contract={**calibration.contract, "precision": "int8", "model_sha256": "f" * 64}
    )
    with raises(ContractError, "precision", "fp32", "int8") as caught:
        attach_calibration(file, int8_calibration)
    assert "f" * 64 in str(caught.value)
    assert file.read_bytes() == finished_file.read_bytes()


def test_the_engine_is_checked_first(file: Path, tiny_engine: Path, tmp_path: Path) -> None:
    check_file(file, Request((), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")))
    int8_engine = copy_engine(tiny_engine, tmp_path / "other.onnx", precision="int8")
    with raises(ContractError, "precision", "fp32", "int8"):
        check_file(file, Request((), tmp_path / "o.h5", int8_engine, faces=FaceRules("none")))
    with raises(StorageError, tmp_path / "none.h5", "facemill process"):
        check_file(
            tmp_path / "none.h5", Request((), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none"))
        )


@pytest.mark.slow
def test_a_calibration_of_other_views_is_refused(tiny_engine: Path, tmp_path: Path) -> None:
    """With `--faces all` the detector uses other views, so the crop of the same face differs."""
    spec = load_spec(str(save_red_squares(tmp_path)))
    detector = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path).engine
    for person in range(2):
        for shot in range(2):
            path = tmp_path / "in" / f"P{person}" / f"{shot}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make.encode(picture(400, 300, (60 * person, 90 * shot, 90), seed=person), "PNG"))

    def request(policy: str) -> Request:
        rules, output = FaceRules("detect", policy, min_iod=0), tmp_path / f"{policy}.h5"
        return Request((str(tmp_path / "in"),), output, read_engine(tiny_engine), faces=rules, detector=detector)

    for policy in ("largest", "all", "one"):
        process(request(policy))
    with raises(ContractError, "detector_views", f"--detector {detector}", "--faces all"):
        check_file(tmp_path / "all.h5", request("largest"))
    with raises(ContractError, "--align detect", "--faces largest"):
        check_file(tmp_path / "largest.h5", request("one"))
    check_file(tmp_path / "all.h5", request("one"))
    check_file(tmp_path / "largest.h5", replace(request("largest"), faces=FaceRules("auto", min_iod=40)))
    calibration = calibration_of(evaluate(request("largest")), tmp_path, "")
    attach_calibration(tmp_path / "largest.h5", calibration)
    with EmbeddingFile(tmp_path / "largest.h5") as gallery:
        assert find_calibration(gallery) == calibration
    with raises(ContractError, "detector_views"):
        attach_calibration(tmp_path / "all.h5", calibration)


def test_a_calibration_that_does_not_fit_its_file_is_not_used(file: Path, calibration: Calibration) -> None:
    """A user may have copied it by hand."""
    attach_calibration(file, calibration)
    with EmbeddingFile(file) as gallery:
        gallery.contract = replace(gallery.contract, model_sha256="e" * 64)
        assert find_calibration(gallery) is None
        gallery.metadata["score_calibration"] = "{"
        assert find_calibration(gallery) is None


def test_a_file_in_use_by_a_run_is_not_changed(file: Path, finished_file: Path, calibration: Calibration) -> None:
    with RunFolder(file), raises(LockedError, file):
        attach_calibration(file, calibration)
    assert file.read_bytes() == finished_file.read_bytes()


def test_a_full_disk_leaves_the_file_unchanged(file: Path, finished_file: Path, calibration: Calibration) -> None:
    before, limits = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limits[1]))
        with pytest.raises(DiskFullError):
            attach_calibration(file, calibration)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert file.read_bytes() == finished_file.read_bytes()
    assert os.listdir(file.parent) == ["people.h5"]


def test_a_missing_file_creates_no_folder(tmp_path: Path, calibration: Calibration) -> None:
    with raises(StorageError, tmp_path / "no" / "people.h5", "facemill process"):
        attach_calibration(tmp_path / "no" / "people.h5", calibration)
    assert os.listdir(tmp_path) == []


def test_a_single_person_cannot_calibrate(tiny_engine: Path, tmp_path: Path) -> None:
    for shot in range(2):
        write_portrait(tmp_path / "in", 0, shot)
    alone = evaluate(
        Request((str(tmp_path / "in"),), tmp_path / "o.h5", read_engine(tiny_engine), faces=FaceRules("none"))
    )
    with raises(ConfigError, "/outcomes"):
        calibration_of(alone, tmp_path, "")


def test_the_calibration_names_its_data(evaluation: Evaluation, calibration: Calibration) -> None:
    assert (calibration.folder, calibration.people, calibration.photographs) == ("known", 13, 36)
    assert calibration.pairs == evaluation.curve.impostors
    assert calibration.contract["model_sha256"] == evaluation.embedded.contract.model_sha256
    assert "root" not in calibration.contract
    assert calibration.expected(-1, 50).hits == 50


def test_the_index_next_to_the_file_remains(file: Path, calibration: Calibration) -> None:
    with EmbeddingFile(file) as gallery:
        index = ensure_index(gallery)
    assert index is not None
    before = index.stat()
    attach_calibration(file, calibration)
    with EmbeddingFile(file) as gallery:
        ensure_index(gallery)
    assert (index.stat().st_ino, index.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
