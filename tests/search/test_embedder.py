"""Photos given as paths, bytes and arrays have equal embeddings; several threads may search at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from runtime.engines.engine import read_engine
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.search.embedder import PhotoEmbedder, QueryRules
from runtime.search.search import Search
from tests.support import encoded_images as make

NO_FACES = FaceRules(align="none")


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a lossless photo that is large enough to be halved twice before the crop."""
    path = tmp_path_factory.mktemp("photo") / "a.png"
    path.write_bytes(make.encode(make.scene(520, 470, seed=3), "PNG"))
    return path


def pixels(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB."""
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_a_path_its_bytes_and_its_pixels_give_the_same_vector(photo: Path, tiny_engine: Path) -> None:
    with PhotoEmbedder(QueryRules(read_engine(tiny_engine), faces=NO_FACES)) as embedder:
        embeddings = embedder.embed([str(photo), photo, photo.read_bytes(), pixels(photo), pixels(photo)[:, ::-1]])
    assert [embedding.photo for embedding in embeddings] == [
        str(photo),
        str(photo),
        "<photo 2>",
        "<photo 3>",
        "<photo 4>",
    ]
    vectors = [embedding.vector for embedding in embeddings]
    for vector in vectors[1:4]:
        np.testing.assert_array_equal(vector, vectors[0])
    assert not np.array_equal(vectors[4], vectors[0])
    assert embeddings[0].to_dict() == {"path": str(photo), "vector": vectors[0].tolist()}


def test_limits_apply_to_bytes_and_pixels(photo: Path, tiny_engine: Path) -> None:
    rules = QueryRules(read_engine(tiny_engine), faces=NO_FACES, limits=Limits(max_bytes=1000, max_pixels=100_000))
    with PhotoEmbedder(rules) as embedder:
        path, data, large, small = embedder.embed([photo, photo.read_bytes(), pixels(photo), pixels(photo)[:300, :300]])
    assert path.error == data.error == f"unsupported: {photo.stat().st_size} bytes, over the limit of 1000"
    assert large.error.startswith("unsupported: ")
    assert small.vector is not None  # 270,000 bytes: the byte limit does not apply to arrays


@pytest.mark.parametrize(
    "photo", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), 7]
)
def test_a_value_that_is_no_photo_has_an_error(photo: object, tiny_engine: Path) -> None:
    with PhotoEmbedder(QueryRules(read_engine(tiny_engine), faces=NO_FACES)) as embedder:
        empty, invalid = embedder.embed([b"", photo])  # type: ignore[list-item]
    assert (empty.vector, invalid.vector) == (None, None)
    assert empty.error.startswith("corrupt: ")
    assert invalid.error.startswith("unsupported: ")


@pytest.fixture(scope="module")
def people(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("people") / "people.h5"
    process(Request((str(photos / "2"),), output, read_engine(tiny_engine), faces=NO_FACES))
    return output


@pytest.mark.slow
def test_vectors_and_their_photos_find_the_same_hits(people: Path, photos: Path) -> None:
    with Search(people) as search:
        names = search.file.names(range(search.file.rows))
        queries = [photos / "2" / name for name in names]
        answers = search.find(queries, k=3)
        by_vector = search.find_vectors(np.concatenate(list(search.file.blocks())), k=3)
        (single_photo,) = search.find(queries[5], k=3)
        (single,) = search.find_vectors(search.file.block(5, 6)[0], k=3)
        with pytest.raises(ConfigError):
            search.find_vectors(np.zeros((2, 5), np.float32))
    assert [answer.query for answer in by_vector[:2]] == ["<vector 0>", "<vector 1>"]
    for answer, vector_answer in zip(answers, by_vector, strict=True):
        assert [hit.row for hit in answer.hits] == [hit.row for hit in vector_answer.hits]
    assert single_photo == answers[5]
    assert single.hits == by_vector[5].hits


@pytest.mark.slow
def test_a_reused_search_answers_like_a_new_one(people: Path, photos: Path) -> None:
    queries = sorted((photos / "2").iterdir())[:9]
    calls = [
        {"k": 2},
        {"k": 1, "by_folder": True},
        {"k": 2000},
        {"k": 5, "threshold": 0.5},
        {"k": 2, "exclude_self": True},
    ]
    with Search(people) as search:
        answers = [search.find(queries, **call) for call in [*calls, *reversed(calls)]]
    for call, first, repeated in zip(calls, answers, reversed(answers), strict=False):
        with Search(people) as fresh:
            assert fresh.find(queries, **call) == first == repeated


@pytest.mark.slow
def test_several_threads_search_at_once(people: Path, photos: Path) -> None:
    queries = sorted((photos / "2").iterdir())[:40]

    def answer(number: int) -> list[tuple[int, ...]]:
        answers = search.find(queries[number : number + 5], k=1 + number % 4)
        return [tuple(hit.row for hit in answer.hits) for answer in answers]

    with Search(people) as search:
        expected = [answer(number) for number in range(30)]
    with Search(people) as search, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(30))) == expected
