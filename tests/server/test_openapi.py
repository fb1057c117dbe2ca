"""The description of the routes, the page that shows it, and requests that are made from it."""

from __future__ import annotations

import asyncio
import base64
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from runtime.server.app import make_app
from runtime.server.bodies import IMAGE_TYPES
from runtime.server.guard import OPEN_ROUTES
from runtime.server.service import Service
from runtime.server.settings import ServerSettings
from tests.server.conftest import TOKEN, Client
from tests.support.browser import ParsedPage
from tests.support.photos_of_squares import squares


@pytest.mark.slow
def test_the_description_names_every_route_its_problems_and_its_token(client: Client, token_file: Path) -> None:
    async def check() -> None:
        async with client(token_file=token_file) as http:
            schema = (await http.get("/openapi.json")).json()
            page = await http.get("/docs")
            style = await http.get("/docs.css")
        assert schema["openapi"].startswith("3.1")
        assert {"/api/v1/recognition", "/api/v1/files/{name}/add", "/api/v1/jobs", "/metrics"} <= set(schema["paths"])
        shown = ParsedPage(page.text)
        links = {attributes.get("href") for tag, attributes in shown.tags if tag == "a"}
        for path, operations in schema["paths"].items():
            for operation in operations.values():
                assert "application/problem+json" in operation["responses"]["default"]["content"]
                assert operation["security"] == ([] if path in OPEN_ROUTES else [{"token": []}, {"key": []}])
                assert operation["description"]
                assert f"#{operation['operationId']}" in links
        # Nothing on the page is foreign, and nothing needs an exception from the policy.
        names = {tag for tag, _ in shown.tags}
        assert names.isdisjoint({"script", "style", "iframe", "img"})
        assert not [tag for tag, attributes in shown.tags if "style" in attributes or "onclick" in attributes]
        assert [a["href"] for tag, a in shown.tags if tag == "link"] == ["/docs.css"]
        assert style.headers["content-type"].startswith("text/css")
        assert "http" not in style.text

    asyncio.run(check())


@pytest.mark.slow
def test_requests_made_from_the_description_have_the_answers_that_it_states(
    settings: ServerSettings, folder_of_people: Path, token_file: Path, tmp_path: Path
) -> None:
    own = Path(shutil.copy(settings.files[0], tmp_path / "people.h5"))  # decisions and clusters are written to it
    photo = squares(3)
    schemathesis.openapi.format("binary", st.just(photo))
    schemathesis.openapi.format("byte", st.just(base64.b64encode(photo).decode()))
    for kind in IMAGE_TYPES:
        schemathesis.openapi.media_type(kind, st.just(photo))
    few = hypothesis.settings(
        max_examples=4,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    changes = {
        "files": (own,),
        "token_file": token_file,
        "roots": (folder_of_people,),
        "names": ("testserver",),
        "seconds": 60.0,
        "output": tmp_path,
    }
    with Service(replace(settings, **changes)) as service:
        schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(service))
        operations = [result.ok() for result in schema.get_all_operations()]
        assert len(operations) > 10
        for operation in operations:
            for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:

                @few
                @hypothesis.given(operation.as_strategy(generation_mode=mode))
                def check(case: Any) -> None:
                    headers = {"Authorization": f"Bearer {TOKEN}"}
                    # What the file holds, and which photos and jobs there are, decides too.
                    parts = ("/search", "/files/", "/jobs", "/folders", "/pairs", "/clusters")
                    depends = any(part in case.path for part in parts)
                    case.call_and_validate(
                        headers=headers, excluded_checks=[positive_data_acceptance] if depends else []
                    )

                try:
                    check()
                except hypothesis.errors.Unsatisfiable:
                    assert mode is GenerationMode.NEGATIVE  # of a route without parameters every request is right
