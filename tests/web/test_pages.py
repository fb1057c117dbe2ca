"""Every page: for people who cannot see, in light and dark, on narrow and wide screens, without foreign requests."""

from __future__ import annotations

import pytest

from runtime.web.layout import PLACES
from tests.support.browser import WIDTHS, assert_accessible
from tests.web.conftest import Browse

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.label)
def test_every_page_is_accessible(visit: Browse, url: str, place: object, scheme: str) -> None:
    for width in WIDTHS:
        with visit(url + place.path, width=width, scheme=scheme) as page:  # type: ignore[attr-defined]
            assert page.locator("h1").count() == 1
            assert page.locator("nav a[aria-current=page]").inner_text() == place.label  # type: ignore[attr-defined]
            assert_accessible(page)


def test_the_first_page_is_a_place_and_the_keyboard_reaches_its_content(visit: Browse, url: str) -> None:
    with visit(url) as page:
        assert page.url == url + PLACES[0].path
        page.keyboard.press("Tab")
        assert page.locator(":focus").inner_text() == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.locator("main:focus").count() == 1
