"""Compare two photos: score, origin of the threshold, behaviour without a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtime.engines.engine import Engine, read_engine
from runtime.errors import EngineError
from runtime.images.decode import Limits, decode_image
from runtime.metrics.falsematch import Calibration
from runtime.modelspec import load_spec
from runtime.pages.compare_page import write_comparison
from runtime.pipeline.request import UNTRAINED_WARNING
from runtime.search import compare as compare_module
from runtime.search.compare import Comparison, find_threshold
from runtime.search.embedder import PhotoEmbedder, QueryRules
from tests.support import encoded_images as make

# 1 of 1,000 pairs scores 0.3 or more, 500 score 0 or more.
CALIBRATION = Calibration({}, "fol<der", 90, 30, 1000, 0, (500, *[40] * 100, *[1] * 200, 0), "now", "0")


def compare(photos: Sequence[str], rules: QueryRules, **options: Any) -> Comparison:
    with PhotoEmbedder(rules) as embedder:
        return compare_module.compare(embedder, *photos, **options)


@pytest.fixture(scope="module")
def two_photos(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("two")
    for seed in (1, 2):
        (folder / f"{seed}.jpg").write_bytes(make.encode(make.scene(seed=seed)))
    return str(folder / "1.jpg"), str(folder / "2.jpg")


def vector(path: str, model: Path) -> np.ndarray:
    """Compute a (16,) float64 unit vector with plain ONNX Runtime, normalised in double precision."""
    crop = decode_image(Path(path).read_bytes(), size=112, channel_order="rgb")
    session = onnxruntime.InferenceSession(model.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    image = ((crop.astype(np.float32) - 127.5) / 127.5).transpose(2, 0, 1)[None]  # (1, 3, 112, 112)
    comparison = session.run(None, {"image": image})[0][0].astype(np.float64)
    return comparison / np.linalg.norm(comparison)


def test_the_score_is_the_cosine(two_photos: tuple[str, str], tiny_engine: Path, tiny_model: Path) -> None:
    comparison = compare(two_photos, QueryRules(read_engine(tiny_engine)))
    expected = vector(two_photos[0], tiny_model) @ vector(two_photos[1], tiny_model)
    assert comparison.score == pytest.approx(expected, abs=1e-5)
    assert abs(expected) < 0.999
    assert (comparison.model, comparison.model_sha256) == ("tiny", read_engine(tiny_engine).info.model_sha256)
    assert comparison.warning == UNTRAINED_WARNING
    same = compare((two_photos[0], two_photos[0]), QueryRules(read_engine(tiny_engine)))
    assert same.score == pytest.approx(1, abs=1e-6)


def test_without_a_threshold_there_is_no_verdict(two_photos: tuple[str, str], tiny_engine: Path) -> None:
    comparison = compare(two_photos, QueryRules(read_engine(tiny_engine)))
    assert (comparison.verdict, comparison.threshold.value, comparison.false_match_rate) == ("unknown", None, None)
    assert "facemill evaluate FOLDER --model tiny" in comparison.threshold.origin
    assert comparison.explain_rate() == ""


def test_a_calibration_gives_threshold_and_false_match_rate(two_photos: tuple[str, str], tiny_engine: Path) -> None:
    comparison = compare((two_photos[0], two_photos[0]), QueryRules(read_engine(tiny_engine)), calibration=CALIBRATION)
    assert comparison.threshold.value == pytest.approx(0.101)  # the false-match rate is 1 of 1,000
    assert comparison.verdict == "same"
    assert comparison.false_match_rate is not None
    assert (comparison.false_match_rate.at_most, comparison.false_match_rate.hits) == (True, pytest.approx(3e-3))
    lower = replace(comparison, score=0.05)
    assert (lower.verdict, str(lower.false_match_rate)) == ("different", "0.04")
    assert "1,000 pairs" in comparison.explain_rate()


def test_origin_of_a_threshold() -> None:
    shipped = load_spec("facemill-512")
    assert shipped.sha256 is not None
    assert find_threshold(0.5, CALIBRATION, "facemill-512", shipped.sha256).value == 0.5
    assert find_threshold(None, CALIBRATION, "facemill-512", shipped.sha256).value == pytest.approx(0.101)
    small_calibration = replace(CALIBRATION, pairs=999)
    stated = find_threshold(None, small_calibration, "facemill-512", shipped.sha256)
    assert (stated.value, stated.stated) == (shipped.threshold, True)
    assert stated.origin.endswith(str(shipped.threshold_source))
    without_card = find_threshold(
        None, small_calibration, "facemill-512", "0" * 64
    )  # different weights with the same name
    assert without_card.value is None
    assert without_card.origin.startswith("the calibration's 999 pairs are too few")


def test_the_stated_threshold_is_that_of_the_model_card() -> None:
    shipped = load_spec("facemill-512")
    card = (shipped.folder / "facemill-512.md").read_text(encoding="utf-8")
    assert str(shipped.sha256) in card
    (line,) = [line for line in card.splitlines() if "29,640,749 pairs" in line]
    assert line.split("cosines of ")[1].startswith(f"{shipped.threshold}, ")
    assert line.startswith("| TAR at FAR 0.1 %")
    assert "0.1 % of the 29,640,749 pairs" in str(shipped.threshold_source)


def test_photos_that_cannot_be_decoded_are_errors(
    two_photos: tuple[str, str], tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "cut.jpg").write_bytes(make.encode(make.scene())[:600])
    comparison = compare(
        (two_photos[0], str(tmp_path / "cut.jpg")), QueryRules(read_engine(tiny_engine)), threshold=0.0
    )
    assert (comparison.score, comparison.verdict) == (None, "unknown")
    assert [photo.error.partition(":")[0] for photo in comparison.photographs] == ["", "corrupt"]
    missing = compare((str(tmp_path / "none.jpg"),) * 2, QueryRules(read_engine(tiny_engine)))
    assert all(photo.error.startswith("unreadable") for photo in missing.photographs)


def test_the_pixel_limit_applies_to_photos(two_photos: tuple[str, str], tiny_engine: Path) -> None:
    comparison = compare(two_photos, QueryRules(read_engine(tiny_engine), limits=Limits(max_pixels=100)))
    assert "over the limit of 100" in comparison.photographs[0].error


def test_an_embedder_accepts_any_number_of_photos(two_photos: tuple[str, str], tiny_engine: Path) -> None:
    with PhotoEmbedder(QueryRules(read_engine(tiny_engine))) as embedder:
        assert embedder.embed([]) == []
        many = embedder.embed([*two_photos, "none.jpg"] * 50)
        alone = [embedder.embed([path])[0].vector for path in two_photos]
    vectors = {i: embedding.vector for i, embedding in enumerate(many) if embedding.vector is not None}
    assert list(vectors) == [i for i in range(150) if i % 3 < 2]
    assert all(vector.shape == (16,) for vector in vectors.values())
    np.testing.assert_allclose(np.stack(list(vectors.values())), np.tile(np.stack(alone), (50, 1)), atol=1e-6)
    with (
        PhotoEmbedder(QueryRules(Engine(Path("none.onnx"), read_engine(tiny_engine).info))) as missing,
        pytest.raises(EngineError),
    ):
        missing.embed(two_photos)


def test_the_page_is_self_contained_and_escapes_names(
    two_photos: tuple[str, str], tiny_engine: Path, tmp_path: Path
) -> None:
    hostile = tmp_path / '<img src=x onerror="alert(1)">\x1b.jpg'
    hostile.write_bytes(Path(two_photos[1]).read_bytes())
    comparison: Comparison = compare(
        (two_photos[0], str(hostile)), QueryRules(read_engine(tiny_engine)), calibration=CALIBRATION
    )
    file = tmp_path / "people.h5"
    file.touch()
    write_comparison(tmp_path / "a.html", comparison, Limits(), file)
    page = (tmp_path / "a.html").read_text("utf-8")
    assert page.count("data:image/jpeg;base64,") == 2
    assert "&lt;img src=x onerror=" in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    assert "fol&lt;der" in page
    assert f"{comparison.score:.4f}" in page
    assert comparison.model_sha256 in page
    assert '"page": "a.html"' in (tmp_path / "people.h5.pages").read_text()
    assert "http://" not in page
    assert "https://" not in page
