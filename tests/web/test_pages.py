"""Every page: for people who cannot see, in light and dark, on narrow and wide screens, without foreign requests."""

from __future__ import annotations

import json

import pytest

from runtime.web.layout import PLACES
from tests.support.asking import ask
from tests.support.browser import WIDTHS_OF, assert_accessible
from tests.web.conftest import Browse

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.label)
def test_every_page_is_accessible(visit: Browse, url: str, place: object, scheme: str) -> None:
    for width in WIDTHS_OF[scheme]:
        with visit(url + place.path, width=width, scheme=scheme) as page:  # type: ignore[attr-defined]
            assert page.locator("h1").count() == 1
            assert page.locator("nav a[aria-current=page]").inner_text() == place.label  # type: ignore[attr-defined]
            if place.path == "/machine":  # type: ignore[attr-defined]
                page.get_by_text("Examined").wait_for(timeout=200_000)
                page.get_by_text("being examined").wait_for(state="detached", timeout=200_000)
            assert_accessible(page)


def test_an_address_without_a_page_is_a_page_for_people_and_json_for_programs(visit: Browse, url: str) -> None:
    with visit(url + "/nowhere", refused=True) as page:
        assert page.locator("h1").inner_text() == "Not found"
        assert "/nowhere" in page.get_by_role("alert").inner_text()
        assert_accessible(page)
        page.get_by_role("link", name="Recognise").click()
        assert page.url == url + "/recognise"
    status, headers, body = ask(url, "GET", "/nowhere")
    assert (status, headers["content-type"]) == (404, "application/problem+json")
    assert json.loads(body)["status"] == 404


def test_the_first_page_is_a_place_and_the_keyboard_reaches_its_content(visit: Browse, url: str) -> None:
    with visit(url) as page:
        assert page.url == url + "/recognise"
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.locator("main:focus").count() == 1
