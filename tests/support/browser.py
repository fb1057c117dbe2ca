"""Read a page as a browser does: parsed, after its scripts have run, or used by hand in headless Chromium."""

from __future__ import annotations

import html.parser
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

WIDTHS = (320, 768, 1440)  # pixels: a phone, a tablet, a screen
# Widths at which a scheme is looked at: dark colours differ, the layout does not.
WIDTHS_OF = {"light": WIDTHS, "dark": WIDTHS[-1:]}


class ParsedPage(html.parser.HTMLParser):
    """The tags and scripts of a page, parsed as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "script" and data.strip():
            self.scripts[-1] += data


def find_browser() -> str:
    """The path of the browser of this machine; without one the test is skipped."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: install chromium, such as by apt-get install chromium")
    return browser


def open_in_browser(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a new browser; stdout is the document after its scripts have run."""
    command = [find_browser(), "--headless", "--no-sandbox", f"--user-data-dir={page.parent / 'profile'}", *options]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{page}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A headless browser to drive.

    Playwright keeps an event loop in this thread, so start it for a module at most: other tests run loops of their own.
    """
    from playwright.sync_api import sync_playwright

    executable = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def browse(
    browser: Browser, url: str, *, width: int = 1440, scheme: str = "light", refused: bool = False
) -> Iterator[Page]:
    """Open a page in a window of its own. At the end no script has failed, and nothing was asked of other hosts.

    Args:
        browser: the browser.
        url: the address of the page.
        width: width of the window in pixels.
        scheme: "light" or "dark".
        refused: whether the server refuses something, which the console of the browser repeats.
    """
    faults: list[str] = []
    host = urlsplit(url).netloc

    def check_host(request: Request) -> None:
        if urlsplit(request.url).netloc != host:
            faults.append(f"asked another host: {request.url}")

    def note(line: ConsoleMessage) -> None:
        if line.type == "error" and not (refused and "the server responded with a status of" in line.text):
            faults.append(f"console: {line.text}")

    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    try:
        page = context.new_page()
        page.on("request", check_host)
        page.on("pageerror", lambda error: faults.append(f"error: {error}"))
        page.on("console", note)
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not faults


def assert_accessible(page: Page) -> None:
    """Assert that axe-core finds no violation, and that the page needs no scrolling to the side."""
    from axe_playwright_python.sync_playwright import Axe

    results = Axe().run(page)
    assert not results.violations_count, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")


def assert_accessible_in_all(page: Page) -> None:
    """Assert the same in light and dark, at all widths; the window is changed."""
    for scheme, widths in WIDTHS_OF.items():
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        for width in widths:
            page.set_viewport_size({"width": width, "height": 900})
            assert_accessible(page)
