"""A token is given once by a form; the browser keeps a cookie that works from pages of the server alone."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from runtime.server.guard import COOKIE
from tests.support.asking import ask
from tests.support.browser import WIDTHS_OF, assert_accessible
from tests.web.conftest import TOKEN, Browse

pytestmark = pytest.mark.slow
HTML = {"Accept": "text/html,*/*"}


def log_in(url: str) -> str:
    """Log in; returns the header `Cookie`."""
    form = urlencode({"token": TOKEN, "next": "/files"})
    status, headers, _ = ask(url, "POST", "/login", {"Content-Type": "application/x-www-form-urlencoded"}, form)
    assert (status, headers["location"]) == (303, "/files")
    return headers["set-cookie"].partition(";")[0]


def test_the_keyboard_logs_in_and_out(visit: Browse, guarded_url: str) -> None:
    with visit(guarded_url + "/files") as page:
        assert page.url == guarded_url + "/login?next=/files"
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_url(guarded_url + "/files")
        assert page.evaluate("document.cookie") == ""
        (cookie,) = page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["sameSite"]) == (COOKIE, True, "Strict")
        assert TOKEN not in cookie["value"]
        page.get_by_role("button", name="Log out").press("Enter")
        page.wait_for_url(guarded_url + "/login")
        page.goto(guarded_url + "/files")
        assert page.url == guarded_url + "/login?next=/files"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_login_page_is_accessible(visit: Browse, guarded_url: str, scheme: str) -> None:
    for width in WIDTHS_OF[scheme]:
        with visit(guarded_url + "/login", width=width, scheme=scheme) as page:
            assert_accessible(page)


def test_a_wrong_token_is_refused_and_not_repeated(guarded_url: str) -> None:
    status, headers, text = ask(guarded_url, "POST", "/login", body=urlencode({"token": "<b>wrong"}))
    assert status == 401
    assert "set-cookie" not in headers
    assert b"wrong" not in text
    assert ask(guarded_url, "POST", "/login", body="token=" + "x" * 5000)[0] == 413


def test_a_session_changes_something_only_from_pages_of_the_server(guarded_url: str) -> None:
    cookie = {"Cookie": log_in(guarded_url)}
    assert ask(guarded_url, "GET", "/api/v1/files", cookie)[0] == 200
    assert ask(guarded_url, "POST", "/api/v1/detect", cookie)[0] == 401
    assert ask(guarded_url, "POST", "/api/v1/detect", {**cookie, "Origin": "http://evil.example.org"})[0] == 403
    assert ask(guarded_url, "POST", "/api/v1/detect", {**cookie, "Origin": guarded_url})[0] == 415
    assert ask(guarded_url, "POST", "/logout", {**cookie, "Origin": guarded_url})[0] == 303
    assert ask(guarded_url, "GET", "/api/v1/files", cookie)[0] == 401


def test_only_pages_lead_to_the_login(guarded_url: str) -> None:
    status, headers, _ = ask(guarded_url, "GET", "/files", HTML)
    assert (status, headers["location"]) == (303, "/login?next=/files")
    assert ask(guarded_url, "GET", "/api/v1/files")[0] == 401
    assert ask(guarded_url, "GET", "/api/v1/files", {"Cookie": f"{COOKIE}=wrong"})[0] == 401
    assert ask(guarded_url, "GET", "/static/page.css")[0] == 200


@pytest.mark.parametrize("target", ["//evil.example.org", "https://evil.example.org", "/logout", "\\evil"])
def test_the_login_leads_to_no_other_site(guarded_url: str, target: str) -> None:
    status, headers, _ = ask(guarded_url, "POST", "/login", body=urlencode({"token": TOKEN, "next": target}))
    assert (status, headers["location"]) == (303, "/")


def test_a_browser_asks_whether_a_style_has_changed(url: str) -> None:
    status, headers, text = ask(url, "GET", "/static/page.css")
    assert (status, headers["content-type"], b"--ink" in text) == (200, "text/css; charset=utf-8", True)
    assert headers["cache-control"] == "no-cache"
    assert ask(url, "GET", "/static/page.css", {"If-None-Match": headers["etag"]})[::2] == (304, b"")
    assert ask(url, "GET", "/static/page.css", {"If-None-Match": '"other"'})[0] == 200
    for name in ("no.css", "..%2f__init__.py", "%2e%2e/layout.py"):
        assert ask(url, "GET", f"/static/{name}")[0] == 404
