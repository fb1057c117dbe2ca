"""`facemill ui`: the browser opens when the server answers; a window that cannot be had is named."""

from __future__ import annotations

import os
import re
import signal
import stat
import sys
import urllib.request
from pathlib import Path

import pytest

from runtime.cli.ui import _address
from tests.support.errors import assert_refused
from tests.support.facemill_command import facemill, start_facemill

pytestmark = pytest.mark.slow


def test_the_browser_gets_an_address_that_answers(tmp_path: Path) -> None:
    visited = tmp_path / "visited"
    browser = tmp_path / "browser.py"
    browser.write_text(
        f"#!{sys.executable}\nimport sys, urllib.request\n"
        f"page = urllib.request.urlopen(sys.argv[1], timeout=100).read()\n"
        f"open({str(visited)!r} + '.part', 'wb').write(sys.argv[1].encode() + b'\\n' + page)\n"
        f"import os; os.rename({str(visited)!r} + '.part', {str(visited)!r})\n"
    )
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    with start_facemill("ui", "--port", 0, env=environment) as process:
        assert process.stdout is not None
        match = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert match
        assert urllib.request.urlopen(match[0], timeout=100).status == 200
        while not visited.exists():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    address, _, page = visited.read_bytes().partition(b"\n")
    assert address.decode() == match[0]
    assert b"<h1>" in page


def test_a_missing_package_of_the_window_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webview", None)
    assert_refused(facemill("ui", "--port", 0, "--window"), "E-PACKAGE", "pip install pywebview")


def test_a_browser_opens_an_address_of_this_machine() -> None:
    assert _address("http://0.0.0.0:8420") == "http://127.0.0.1:8420"
    assert _address("http://[::]:8420") == "http://[::1]:8420"
    assert _address("http://192.168.1.5:8420") == "http://192.168.1.5:8420"
