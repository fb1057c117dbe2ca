"""Read a page as a browser does: parsed, or after its scripts have run in headless Chromium."""

from __future__ import annotations

import html.parser
import shutil
import subprocess
from pathlib import Path

import pytest


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


def open_in_browser(page: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Open a page in a new browser; stdout is the document after its scripts have run."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser: chromium or google-chrome")
    command = [browser, "--headless", "--no-sandbox", f"--user-data-dir={page.parent / 'profile'}", *options]
    command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{page}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)
