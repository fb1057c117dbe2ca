"""Search an embedding file that `process` wrote: hits, errors, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.engines.engine import read_engine
from runtime.errors import ConfigError, ContractError, EngineError, MissingDependencyError
from runtime.faces.rules import FaceRules
from runtime.index.gpu import count_gpus
from runtime.pipeline.request import UNTRAINED_WARNING, Request
from runtime.pipeline.run import process
from runtime.search.answers import Answer
from runtime.search.search import Search
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import raises
from tests.support.model_files import copy_engine


@pytest.fixture(scope="module")
def people(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embed folder 3 of the photos."""
    output = tmp_path_factory.mktemp("query") / "people.h5"
    process(Request((str(photos / "3"),), output, read_engine(tiny_engine), faces=FaceRules("none")))
    return output


@pytest.fixture
def gallery(people: Path) -> Iterator[EmbeddingFile]:
    with EmbeddingFile(people) as searcher:
        yield searcher


def search(
    gallery: EmbeddingFile, queries: list[str], *, k: int = 10, threshold: float | None = None, **opening: Any
) -> list[Answer]:
    with Search(gallery, **opening) as searcher:
        return searcher.find(queries, k=k, threshold=threshold)


def photo_queries(gallery: EmbeddingFile, photos: Path, count: int) -> list[str]:
    return [str(photos / "3" / name) for name in gallery.names(range(count))]


@pytest.mark.slow
def test_every_photo_finds_itself_first(gallery: EmbeddingFile, photos: Path) -> None:
    queries = photo_queries(gallery, photos, 80)  # more than one batch
    answers = search(gallery, queries, k=3)
    assert [answer.query for answer in answers] == queries
    for row, answer in enumerate(answers):
        assert answer.error == ""
        assert [hit.rank for hit in answer.hits] == [1, 2, 3]
        assert answer.hits[0].row == row
        assert answer.hits[0].score == pytest.approx(1, abs=1e-5)
        assert queries[row].endswith(answer.hits[0].path)
    assert answers[0].facts.rows == gallery.rows
    assert sum(answer.search_ms for answer in answers) > 0
    assert answers[0].facts.warning == UNTRAINED_WARNING


def test_scores_are_the_inner_products(gallery: EmbeddingFile, people: Path, photos: Path) -> None:
    (answer,) = search(gallery, photo_queries(gallery, photos, 1), k=5)
    with h5py.File(people) as file:
        vectors = file["embeddings"][:]
    expected = np.sort(vectors @ vectors[0])[::-1][:5]
    np.testing.assert_allclose([hit.score for hit in answer.hits], expected, atol=1e-5)


def test_a_bad_query_does_not_stop_the_other_queries(gallery: EmbeddingFile, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(make.encode(make.scene())[:600])
    (tmp_path / "text.jpg").write_text("not a photo")
    valid = photo_queries(gallery, photos, 2)
    names = [valid[0], str(tmp_path / "none.jpg"), str(tmp_path / "cut.jpg"), str(tmp_path / "text.jpg"), valid[1]]
    answers = search(gallery, names, k=1)
    assert [bool(answer.error) for answer in answers] == [False, True, True, True, False]
    assert answers[1].error.startswith("unreadable: No such file")
    assert answers[2].error.startswith("corrupt: ")
    assert answers[3].error.startswith("unsupported: ")
    assert [answers[0].hits[0].row, answers[4].hits[0].row] == [0, 1]
    assert all(not answer.hits for answer in answers[1:4])


def test_a_search_with_only_bad_queries_does_not_fail(gallery: EmbeddingFile, tmp_path: Path) -> None:
    (answer,) = search(gallery, [str(tmp_path / "none.jpg")])
    assert answer.error


def test_threshold_removes_lower_hits(gallery: EmbeddingFile, photos: Path) -> None:
    query = photo_queries(gallery, photos, 1)
    all_hits = search(gallery, query, k=20)[0].hits
    threshold = all_hits[7].score
    assert search(gallery, query, k=20, threshold=threshold)[0].hits == all_hits[:8]
    assert search(gallery, query, k=20, threshold=1)[0].hits == tuple(hit for hit in all_hits if hit.score >= 1)


def test_every_device_gives_the_same_answer(gallery: EmbeddingFile, photos: Path) -> None:
    queries = photo_queries(gallery, photos, 5)
    expected = search(gallery, queries, k=7, device="cpu")
    assert search(gallery, queries, k=7) == expected
    if count_gpus():
        assert search(gallery, queries, k=7, device="gpu") == expected
    else:
        with raises((MissingDependencyError, EngineError), "--device cpu"):
            search(gallery, queries, k=7, device="gpu")
    with raises(ConfigError, "auto", "cpu", "gpu"):
        search(gallery, queries, device="cuda")


def test_a_different_engine_of_the_same_contract_gives_the_same_answer(
    gallery: EmbeddingFile, photos: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    other_engine = copy_engine(tiny_engine, tmp_path / "other.onnx", backend_version="another one", profile=(1, 2, 4))
    query = photo_queries(gallery, photos, 9)
    assert search(gallery, query, engine=other_engine) == search(gallery, query)


@pytest.mark.parametrize(
    "change",
    [{"model_sha256": "f" * 64}, {"precision": "fp16"}, {"channel_order": "bgr"}, {"dimension": 32}, {"size": 96}],
)
def test_an_engine_with_a_different_contract_is_refused(
    gallery: EmbeddingFile, photos: Path, tiny_engine: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    info = read_engine(tiny_engine).info
    other_engine = copy_engine(tiny_engine, tmp_path / "other.onnx", **change)
    with pytest.raises(ContractError) as caught:
        search(gallery, photo_queries(gallery, photos, 1), engine=other_engine)
    ((key, value),) = change.items()
    assert str(value) in str(caught.value)
    assert str(getattr(info, key)) in str(caught.value)
    assert "facemill build-engine --model tiny" in str(caught.value)


def test_a_missing_engine_is_refused_with_a_fix(gallery: EmbeddingFile, photos: Path, tmp_path: Path) -> None:
    with raises(EngineError, "gone.onnx", "facemill build-engine", "--model"):
        read_engine(tmp_path / "gone.onnx")
    gallery.metadata["engine"] = str(tmp_path / "moved.onnx")
    with raises(
        EngineError, "people.h5", "moved.onnx", "facemill build-engine --model tiny --precision fp32", "--engine"
    ):
        search(gallery, photo_queries(gallery, photos, 1))


def test_limits_of_the_file_apply_to_queries(gallery: EmbeddingFile, photos: Path) -> None:
    gallery.contract = replace(gallery.contract, max_pixels=100)
    (answer,) = search(gallery, photo_queries(gallery, photos, 1))
    assert "over the limit of 100" in answer.error


def test_a_file_without_embeddings_gives_no_hits(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.jpg").write_text("not a photo")
    process(Request((str(tmp_path / "in"),), tmp_path / "none.h5", read_engine(tiny_engine), faces=FaceRules("none")))
    with EmbeddingFile(tmp_path / "none.h5") as empty:
        (answer,) = search(empty, [str(next((photos / "3").iterdir()))])
    assert answer.hits == ()
    assert answer.error == ""
