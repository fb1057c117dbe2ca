"""The routes for photos answer what the library answers, whatever form the photo has."""

from __future__ import annotations

import asyncio
import base64
from pathlib import Path
from typing import Any

import pytest

import runtime as facemill
from runtime.engines.engine import Engine
from runtime.faces.rules import FaceRules
from runtime.index import open as choice
from runtime.index.indexfile import index_path
from runtime.index.sidecar import sidecar_path
from runtime.search.detector import PhotoDetector
from tests.server.conftest import Client
from tests.support import encoded_images as make
from tests.support.photos_of_squares import squares

PNG = {"Content-Type": "image/png"}


def run(coroutine: Any) -> None:
    asyncio.run(coroutine)


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in ("search_ms", "query")}


@pytest.mark.slow
def test_every_form_of_a_body_has_the_answer_of_the_library(client: Client, engines: dict[str, Any]) -> None:
    photo = squares(3, seed=7)
    with facemill.FaceEmbedder(**engines) as embedder:
        (every,), (main,) = embedder.embed_faces(photo), embedder.embed_faces(photo, faces="largest")

    async def check() -> None:
        async with client() as http:
            encoded = base64.b64encode(photo).decode()
            forms: list[dict[str, Any]] = [
                {"content": photo, "headers": PNG},
                {"content": photo, "headers": {"Content-Type": "application/octet-stream"}},
                {"files": {"photo": ("a name.png", photo, "image/png")}},
                {"json": {"photo": encoded}},
                {"json": {"photo": f"data:image/png;base64,{encoded}"}},
            ]
            for form in forms:
                response = await http.post("/api/v1/recognition", **form)
                assert (response.status_code, response.json()) == (200, every.to_dict())
            response = await http.post("/api/v1/recognition?faces=largest", content=photo, headers=PNG)
            assert response.json() == main.to_dict()

    run(check())


@pytest.mark.slow
def test_faces_are_detected_as_by_the_library(client: Client, square_detector: Engine) -> None:
    with PhotoDetector(square_detector, min_score=0.6) as detector:
        several, none = (detection.to_dict() for detection in detector.detect([squares(3), squares(0)]))

    async def check() -> None:
        async with client() as http:
            assert (await http.post("/api/v1/detect", content=squares(3), headers=PNG)).json() == several
            response = await http.post("/api/v1/detect", content=squares(0), headers=PNG)
            assert (response.status_code, response.json()["faces"]) == (200, none["faces"])

    run(check())


@pytest.mark.slow
def test_two_photos_are_compared_as_by_the_library(
    client: Client, engines: dict[str, Any], embedded_people: Path
) -> None:
    a, b = squares(3, seed=1), squares(3, seed=2)
    with facemill.FaceEmbedder(**engines) as embedder:
        expected = embedder.compare(a, b, threshold=0.3).to_dict()
    of_file = facemill.compare(a, b, file=embedded_people).to_dict()

    async def check() -> None:
        async with client() as http:
            files = {"a": a, "b": b}
            assert (await http.post("/api/v1/compare?threshold=0.3", files=files)).json() == expected
            assert (await http.post("/api/v1/compare?file=people", files=files)).json() == of_file
            nobody = (await http.post("/api/v1/compare", files={"a": a, "b": squares(0)})).json()
            assert (nobody["verdict"], nobody["score"]) == ("unknown", None)
            assert nobody["photographs"][1]["error"].startswith("no-face: ")

    run(check())


@pytest.mark.slow
def test_a_file_is_searched_as_by_the_library(client: Client, embedded_people: Path) -> None:
    photo = squares(3, seed=11)
    with facemill.Search(embedded_people) as search:
        (best,), (folders,) = search.find(photo, k=3), search.find(photo, k=2, by_folder=True)

    async def check() -> None:
        async with client() as http:
            response = await http.post("/api/v1/search?k=3&file=people", content=photo, headers=PNG)
            assert without_times(response.json()) == without_times(best.to_dict())
            response = await http.post("/api/v1/search?k=2&by_folder=true", content=photo, headers=PNG)
            assert without_times(response.json()) == without_times(folders.to_dict())
            response = await http.post("/api/v1/search?threshold=1", content=squares(0), headers=PNG)
            assert (response.json()["hits"], response.json()["error"][:7]) == ([], "no-face")
            response = await http.post("/api/v1/search?gender=woman", content=photo, headers=PNG)
            assert (response.status_code, response.json()["code"]) == (422, "E-CONFIG")
            response = await http.post("/api/v1/search?file=nobody", content=photo, headers=PNG)
            assert response.status_code == 404

    run(check())


@pytest.mark.slow
def test_a_server_looks_for_an_index_where_an_exact_search_takes_longer_than_its_latency(
    client: Client, folder_of_people: Path, engines: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MIN_APPROXIMATE_ROWS", 1)
    monkeypatch.setattr(choice, "APPROXIMATE", ())  # which index it is depends on the load of the machine
    path = tmp_path / "people.h5"
    options = {name: value for name, value in engines.items() if name != "align"}
    facemill.process(folder_of_people, path, faces=FaceRules("detect", min_iod=0.0, max_fit=1.0), **options)

    async def check() -> None:
        for latency_ms, measured in ((1000.0, False), (1e-6, True)):
            async with client(files=(path,), latency_ms=latency_ms) as http:
                await http.post("/api/v1/search", content=squares(3, seed=11), headers=PNG)
            assert ("exact_ms" in sidecar_path(index_path(path)).read_text()) == measured

    run(check())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/recognition?faces=some", 422),
        ("/api/v1/recognition?face=all", 422),
        ("/api/v1/search?k=0", 422),
        ("/api/v1/search?k=1001", 422),
        ("/api/v1/search?threshold=nan", 422),
        ("/api/v1/search?age=40-18", 422),
        ("/api/v1/nothing", 404),
        ("/api/v1/search/", 404),
    ],
)
def test_a_wrong_parameter_is_a_problem(client: Client, path: str, status: int) -> None:
    async def check() -> None:
        async with client() as http:
            response = await http.post(path, content=squares(3), headers=PNG)
            assert response.headers["content-type"] == "application/problem+json"
            values = response.json()
            assert (response.status_code, values["status"]) == (status, status)
            assert values["type"] == f"urn:facemill:{values['code']}"
            assert set(values) == {"type", "title", "status", "detail", "code"}

    run(check())


@pytest.mark.slow
def test_clients_of_compreface_get_its_forms(client: Client) -> None:
    photo = squares(3, seed=1)

    async def check() -> None:
        async with client() as http:
            root = "/compat/compreface/api/v1"
            query = "?face_plugins=landmarks,calculator,mask&limit=2"
            faces = (await http.post(f"{root}/detection/detect{query}", files={"file": photo})).json()["result"]
            assert len(faces) == 2
            assert set(faces[0]) == {"box", "landmarks", "embedding"}
            assert all(isinstance(faces[0]["box"][side], int) for side in ("x_min", "y_min", "x_max", "y_max"))
            body = {"source_image": photo, "target_image": photo}
            (verified,) = (await http.post(f"{root}/verification/verify", files=body)).json()["result"]
            assert max(match["similarity"] for match in verified["face_matches"]) == pytest.approx(1, abs=1e-5)
            assert len(verified["face_matches"]) == 3
            url = f"{root}/recognition/recognize?prediction_count=2"
            encoded = base64.b64encode(photo).decode()
            named = (await http.post(url, json={"file": encoded})).json()["result"]
            assert {len(face["subjects"]) for face in named} == {2}
            response = await http.post(f"{root}/detection/detect", files={"file": squares(0)})
            assert (response.status_code, response.json()["code"]) == (422, "E-PHOTO")

    run(check())


@pytest.mark.slow
def test_photos_over_a_limit_are_refused(client: Client) -> None:
    async def check() -> None:
        async with client(limits=facemill.Limits(max_bytes=300_000, max_pixels=100_000), max_faces=3) as http:
            for photo, status, text in (
                (squares(1), 422, "6 faces, over the limit of 3"),
                (make.png_bomb(20_000, 20_000), 422, "20000x20000 pixels, over the limit of 100000"),
                (b"\xff\xd8" + bytes(400_000), 413, "over the limit of 300000"),
                (squares(3)[:500], 422, "corrupt"),
                (b"", 400, "no photo"),
            ):
                response = await http.post("/api/v1/recognition", content=photo, headers=PNG)
                assert (response.status_code, text in response.json()["detail"]) == (status, True), response.text
            assert (await http.post("/api/v1/recognition", content=squares(3), headers=PNG)).status_code == 200

    run(check())
