"""All faces of a photo with their embeddings; each equals the embedding of the same face made in another way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runtime as facemill
from runtime.engines.engine import Engine, read_engine
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.search.detector import PhotoDetector
from runtime.search.embedder import PhotoEmbedder, QueryRules
from runtime.search.faces import PhotoFaces
from tests.support.errors import raises
from tests.support.photos_of_squares import squares
from tests.support.red_square_detector import build_red_squares


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build_red_squares(tmp_path_factory.mktemp("detector"))


@pytest.fixture(scope="module")
def rules(tiny_engine: Path, detector: Engine) -> QueryRules:
    return QueryRules(read_engine(tiny_engine), detector, FaceRules("detect", min_iod=0.0, max_fit=1.0))


def vectors(photo: PhotoFaces) -> list[bytes]:
    return [face.vector.tobytes() for face in photo.faces]


@pytest.mark.slow
def test_every_face_has_its_place_and_its_embedding(rules: QueryRules, detector: Engine) -> None:
    with PhotoEmbedder(rules) as embedder, PhotoDetector(detector, min_score=0.6) as photo_detector:
        (photo,) = embedder.embed_faces([squares(3)])
        (detection,) = photo_detector.detect([squares(3)])
    assert (photo.photo, photo.error, photo.detected) == ("<photo 0>", "", 3)
    for face, detected in zip(photo.faces, detection.faces, strict=True):
        assert face.face is not None  # in the model's order of channels the measures of the crop round otherwise
        assert (face.face.index, face.face.box, face.face.landmarks) == (
            detected.index,
            detected.box,
            detected.landmarks,
        )
    assert len(set(vectors(photo))) == 3
    for face, as_json in zip(photo.faces, photo.to_dict()["faces"], strict=True):
        assert face.face is not None
        assert as_json == {**face.face.to_dict(), "vector": face.vector.tolist()}
        np.testing.assert_allclose(np.linalg.norm(face.vector), 1, atol=1e-5)


@pytest.mark.slow
def test_the_main_face_is_the_one_that_embed_takes(rules: QueryRules) -> None:
    photos = [squares(3), squares(1, seed=4), squares(0)]
    with PhotoEmbedder(rules) as embedder:
        main, embeddings = embedder.embed_faces(photos, every=False), embedder.embed(photos)
    for photo, embedding in zip(main, embeddings, strict=True):
        assert photo.error == embedding.error
        assert vectors(photo) == ([] if embedding.vector is None else [embedding.vector.tobytes()])
    assert main[2].error.startswith("no-face: ")
    assert main[2].to_dict() == {"path": "<photo 2>", "error": main[2].error, "faces": []}


@pytest.mark.slow
def test_photos_embedded_on_one_core_alone_or_together_have_the_same_bits(rules: QueryRules) -> None:
    photos = [squares(1 + i % 3, seed=i) for i in range(20)]
    with PhotoEmbedder(rules) as embedder, ThreadPoolExecutor(4) as pool:
        alone = [vectors(photo) for photo in embedder.embed_faces(photos)]
        one_core = [vectors(embedder.embed_faces([photo], one_core=True)[0]) for photo in photos]
        at_once = list(pool.map(lambda photo: vectors(embedder.embed_faces([photo])[0]), photos))
    assert one_core == alone
    assert at_once == alone


def test_a_photo_with_too_many_faces_is_refused_before_they_are_cropped(rules: QueryRules, detector: Engine) -> None:
    crowd = squares(1)  # one large square is six faces to this detector, and each of three small ones is one face
    with PhotoEmbedder(replace(rules, max_faces=3)) as embedder:
        few, many, broken = embedder.embed_faces([squares(3), crowd, b"no photo"])
        (main,) = embedder.embed_faces([crowd], every=False)
    with PhotoDetector(detector, min_score=0.6, max_faces=3) as photo_detector:
        (detection,) = photo_detector.detect([crowd], one_core=True)
    assert (few.error, len(few.faces), len(main.faces)) == ("", 3, 1)
    assert many.error == detection.error == "unsupported: 6 faces, over the limit of 3"
    assert many.faces == detection.faces == ()
    assert broken.error.startswith("unsupported: ")


@pytest.mark.slow
def test_ages_and_genders_are_read_where_they_are_asked_for(tiny_engine: Path, detector: Engine) -> None:
    with facemill.FaceEmbedder(engine=tiny_engine, detector=detector, landmarks="none", align="detect") as embedder:
        (plain,) = embedder.embed_faces(squares(2))
        (both,) = embedder.embed_faces(squares(2), attributes="age,gender")
        (age,) = embedder.embed_faces(squares(2), faces="largest", attributes=["age"])
        with raises(ConfigError, "all or largest", "some"):
            embedder.embed_faces(squares(1), faces="some")
        with raises(ConfigError, "height"):
            embedder.embed_faces(squares(1), attributes="height")
    assert vectors(plain) == vectors(both)
    assert {len(face.attributes) for face in plain.faces} == {0}
    for face in both.faces:
        assert face.attributes["age_low"] <= face.attributes["age"] <= face.attributes["age_high"]
        assert face.attributes["gender"] in ("man", "woman")
    assert [set(face.attributes) for face in age.faces] == [{"age", "age_low", "age_high"}]
