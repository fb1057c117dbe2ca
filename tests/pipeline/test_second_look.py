"""A run with a second look: the contract names it, and files made with and without it stay apart and usable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from runtime.api.jobs import add, process
from runtime.engines.build import build_engine
from runtime.engines.engine import Engine, read_engine
from runtime.errors import ConfigError, ContractError
from runtime.faces.rules import FaceRules
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from runtime.search.search import Search
from runtime.storage.file import EmbeddingFile
from tests.support.dotted_landmarks import save_drift
from tests.support.errors import raises
from tests.support.red_square_detector import build_red_squares, picture

RULES = FaceRules("detect", min_iod=0)


@dataclass(frozen=True)
class Case:
    """Engines and photos."""

    engine: Path
    detector: Engine
    look: Engine
    photos: Path

    def process(self, output: Path, landmarks: str | Engine | None, faces: FaceRules = RULES) -> Path:
        process(self.photos, output, engine=self.engine, detector=self.detector, landmarks=landmarks, faces=faces)
        return output


def build_drift(folder: Path, seed: int = 3) -> Engine:
    folder.mkdir(exist_ok=True)
    model = load_spec(str(save_drift(folder, seed)))
    return build_engine(model, resolve_weights(model), backend="cpu", output=folder).engine


@pytest.fixture(scope="module")
def case(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    photos = folder / "photos"
    photos.mkdir()
    for i in range(4):
        pixels = picture(400, 300, (40 + 20 * i, 100 + 11 * i, 110 + 3 * i), seed=i)
        cv2.imwrite(str(photos / f"{i}.png"), pixels[..., ::-1])
    return Case(tiny_engine, build_red_squares(folder), build_drift(folder / "look"), photos)


@pytest.fixture
def more(case: Case, tmp_path: Path) -> Path:
    """A folder with one more photo."""
    (tmp_path / "more").mkdir()
    cv2.imwrite(str(tmp_path / "more" / "new.png"), picture(400, 300, (90, 120, 120), seed=9)[..., ::-1])
    return tmp_path / "more"


@pytest.mark.slow
def test_the_file_names_the_second_look_and_the_landmarks_are_its(case: Case, tmp_path: Path) -> None:
    with EmbeddingFile(case.process(tmp_path / "with.h5", case.look)) as file:
        contract, faces, vectors = file.contract, file.faces, file.vectors
        assert file.metadata["landmarks_engine"] == str(case.look.path)
    info = case.look.info
    named = contract.landmarks, contract.landmarks_sha256, contract.landmarks_precision
    assert named == (info.model, info.model_sha256, "fp32")
    with EmbeddingFile(case.process(tmp_path / "without.h5", "none")) as plain:
        assert plain.contract.landmarks is plain.contract.landmarks_sha256 is None
        assert "landmarks_engine" not in plain.metadata
        assert plain.faces is not None
        assert faces is not None
        off = np.linalg.norm(plain.faces["landmarks"] - faces["landmarks"], axis=2).mean(axis=1)
        assert (off > 0.02 * plain.faces["iod"]).all()
        assert not np.allclose(plain.vectors, vectors, atol=1e-3)
        np.testing.assert_allclose(plain.faces["fit"], 0, atol=0.01)  # that detector answers with the template
        assert (faces["fit"] > 0.02).all()


@pytest.mark.slow
def test_a_file_without_a_second_look_is_resumed_searched_and_added_to_without_it(
    case: Case, more: Path, tmp_path: Path
) -> None:
    file = case.process(tmp_path / "o.h5", "none")
    case.process(file, None)  # the default of a resumed file is its own
    with Search(file) as search:
        (result,) = search.find(str(case.photos / "1.png"), k=1)
        assert result.hits[0].score == pytest.approx(1, abs=1e-5)
    assert add(file, more).added == 1
    with EmbeddingFile(file) as added:
        assert added.contract.landmarks_sha256 is None
        assert added.rows == 5


@pytest.mark.slow
def test_a_file_with_a_second_look_is_searched_and_added_to_with_it(case: Case, more: Path, tmp_path: Path) -> None:
    file = case.process(tmp_path / "o.h5", case.look)
    with Search(file) as search:
        (result,) = search.find(str(case.photos / "2.png"), k=1)
        assert result.hits[0].score == pytest.approx(1, abs=1e-5)
    assert add(file, more).added == 1
    with EmbeddingFile(file) as added:
        assert added.contract.landmarks_sha256 == case.look.info.model_sha256


@pytest.mark.slow
def test_rows_with_and_without_a_second_look_never_share_a_file(case: Case, tmp_path: Path) -> None:
    with_look, without = case.process(tmp_path / "a.h5", case.look), case.process(tmp_path / "b.h5", "none")
    with raises(ContractError, "landmarks", "stored: made with `--landmarks none`", "requested: `--landmarks drift`"):
        case.process(without, case.look)
    with raises(ContractError, "stored: made with `--landmarks drift`", "requested: `--landmarks none`"):
        case.process(with_look, "none")


@pytest.mark.slow
def test_photos_are_not_added_with_another_landmark_network(case: Case, more: Path, tmp_path: Path) -> None:
    look = build_drift(tmp_path / "look")
    file = case.process(tmp_path / "o.h5", look)
    other = build_drift(tmp_path / "look", seed=4)  # in the place of the first
    assert read_engine(look.path).info.model_sha256 == other.info.model_sha256 != look.info.model_sha256
    with raises(ContractError, "landmarks_sha256", other.info.model_sha256, look.info.model_sha256):
        add(file, more)


def test_faces_whose_landmarks_fit_badly_are_of_low_quality(case: Case, tmp_path: Path) -> None:
    file = case.process(tmp_path / "o.h5", case.look, FaceRules("detect", min_iod=0, max_fit=0.01))
    with h5py.File(file) as opened:
        details = opened["outcomes/detail"].asstr()[:]
        assert len(opened["embeddings"]) == 0
    assert all("fit" in detail and "0.01" in detail for detail in details)
    with raises(ContractError, "max_fit", 0.01, 0.5):
        case.process(file, None, FaceRules("detect", min_iod=0, max_fit=0.5))
    with raises(ConfigError, "--max-fit", 1.5):
        FaceRules(max_fit=1.5)


def test_engines_of_other_tasks_are_refused(case: Case, tmp_path: Path) -> None:
    with raises(ConfigError, "landmark"):
        case.process(tmp_path / "o.h5", case.detector)
    with raises(ConfigError, "--landmarks", "facemill-det", "facemill-landmarks"):
        case.process(tmp_path / "o.h5", "facemill-det")
    with raises(ConfigError, "--landmarks"):
        process(case.photos, tmp_path / "o.h5", engine=case.look, detector=case.detector, landmarks="none")
