"""Photos as paths, bytes and arrays are embedded alike; several threads may embed and search at once."""

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
    """A photo without loss, large enough to be halved twice on its way to the crop."""
    path = tmp_path_factory.mktemp("photo") / "a.png"
    path.write_bytes(make.encode(make.scene(520, 470, seed=3), "PNG"))
    return path


def pixels(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8, RGB."""
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1])


def test_a_path_its_bytes_and_its_pixels_give_the_same_vector(photo: Path, tiny_engine: Path) -> None:
    with PhotoEmbedder(QueryRules(read_engine(tiny_engine), faces=NO_FACES)) as embedder:
        found = embedder.embed([str(photo), photo, photo.read_bytes(), pixels(photo), pixels(photo)[:, ::-1]])
    assert [embedding.photo for embedding in found] == [str(photo), str(photo), "<photo 2>", "<photo 3>", "<photo 4>"]
    vectors = [embedding.vector for embedding in found]
    for vector in vectors[1:4]:
        np.testing.assert_array_equal(vector, vectors[0])
    assert not np.array_equal(vectors[4], vectors[0])
    assert found[0].to_dict() == {"path": str(photo), "vector": vectors[0].tolist()}


def test_limits_hold_for_bytes_and_pixels(photo: Path, tiny_engine: Path) -> None:
    rules = QueryRules(read_engine(tiny_engine), faces=NO_FACES, limits=Limits(max_bytes=1000, max_pixels=100_000))
    with PhotoEmbedder(rules) as embedder:
        path, data, large, small = embedder.embed([photo, photo.read_bytes(), pixels(photo), pixels(photo)[:300, :300]])
    assert path.error == data.error == f"unsupported: {photo.stat().st_size} bytes, over the limit of 1000"
    assert large.error.startswith("unsupported: ")
    assert small.vector is not None  # 270,000 bytes: an array has no limit of bytes


@pytest.mark.parametrize(
    "photo", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), 7]
)
def test_what_is_no_photo_has_its_error(photo: object, tiny_engine: Path) -> None:
    with PhotoEmbedder(QueryRules(read_engine(tiny_engine), faces=NO_FACES)) as embedder:
        empty, other = embedder.embed([b"", photo])  # type: ignore[list-item]
    assert (empty.vector, other.vector) == (None, None)
    assert empty.error.startswith("corrupt: ")
    assert other.error.startswith("unsupported: ")


@pytest.fixture(scope="module")
def people(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("people") / "people.h5"
    process(Request((str(photos / "2"),), output, read_engine(tiny_engine), faces=NO_FACES))
    return output


def test_vectors_find_what_photos_find(people: Path, photos: Path) -> None:
    with Search(people) as search:
        names = search.file.names(range(search.file.rows))
        queries = [photos / "2" / name for name in names]
        answers = search.find(queries, k=3)
        by_vector = search.find_vectors(np.concatenate(list(search.file.blocks())), k=3)
        (alone,) = search.find(queries[5], k=3)
        (same,) = search.find_vectors(search.file.block(5, 6)[0], k=3)
        with pytest.raises(ConfigError):
            search.find_vectors(np.zeros((2, 5), np.float32))
    assert [answer.query for answer in by_vector[:2]] == ["<vector 0>", "<vector 1>"]
    for answer, other in zip(answers, by_vector, strict=True):
        assert [hit.row for hit in answer.hits] == [hit.row for hit in other.hits]
    assert alone == answers[5]
    assert same.hits == by_vector[5].hits


def test_one_search_answers_calls_of_all_kinds_as_new_ones_do(people: Path, photos: Path) -> None:
    queries = sorted((photos / "2").iterdir())[:9]
    calls = [
        {"k": 2},
        {"k": 1, "by_folder": True},
        {"k": 2000},
        {"k": 5, "threshold": 0.5},
        {"k": 2, "exclude_self": True},
    ]
    with Search(people) as search:
        together = [search.find(queries, **call) for call in [*calls, *reversed(calls)]]
    for call, first, again in zip(calls, together, reversed(together), strict=False):
        with Search(people) as other:
            assert other.find(queries, **call) == first == again


def test_several_threads_search_at_once(people: Path, photos: Path) -> None:
    queries = sorted((photos / "2").iterdir())[:40]

    def answer(number: int) -> list[tuple[int, ...]]:
        found = search.find(queries[number : number + 5], k=1 + number % 4)
        return [tuple(hit.row for hit in answer.hits) for answer in found]

    with Search(people) as search:
        alone = [answer(number) for number in range(30)]
    with Search(people) as search, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(answer, range(30))) == alone
