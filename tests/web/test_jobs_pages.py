"""*Create dataset* and *Jobs* in a browser: with the keyboard alone, over reloads, two windows and a killed server."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.browser import assert_accessible_in_all
from tests.support.running_jobs import held, kill_jobs
from tests.support.running_server import ask_json, server
from tests.web.conftest import Browse

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow

PATIENCE_MS = 120_000  # the machine of the tests may be busy


@pytest.fixture(scope="module")
def root(portraits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with many portraits, and with names that must not become part of a page."""
    root = tmp_path_factory.mktemp("root")
    for copy in range(8):
        for path in (portraits / "photos").rglob("*.jpg"):
            link = root / "2026" / f"copy{copy}" / path.relative_to(portraits / "photos")
            link.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, link)
    hostile = root / "2026" / "<img src=x onerror=alert(1)>"
    hostile.mkdir()
    (hostile / "<b>.jpg").write_bytes(b"\xff\xd8\xff no photo")
    (root / "other").mkdir()
    return root


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "files"
    folder.mkdir()
    yield folder
    kill_jobs(folder)


@contextmanager
def serving(root: Path, output: Path, *more: object) -> Iterator[tuple[Any, int]]:
    small = ("--segment-rows", 16, "--segment-seconds", 0.2, "--audit", os.devnull)
    with server("--photos", root, "--output", output, *small, *more) as (process, port):
        yield process, port


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(80):
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab does not reach {selector}")


def start(port: int, **options: Any) -> str:
    body = {"photos": ["2026"], "output": "people", "options": {"batch_size": 4, "workers": 1, **options}}
    status, job = ask_json(port, "POST", "/api/v1/jobs", body)
    assert status == 201, job
    return str(job["id"])


def wait_for_state(page: Page, words: str) -> None:
    page.locator("#state", has_text=re.compile(words)).wait_for(timeout=PATIENCE_MS)


def test_a_dataset_is_created_with_the_keyboard_alone(visit: Browse, root: Path, output: Path) -> None:
    with serving(root, output) as (_, port), visit(f"http://127.0.0.1:{port}/create") as page:
        page.locator("#folders button", has_text="2026").wait_for()
        assert str(root) in page.locator("#here").inner_text()
        tab_to(page, "#folders button:not(:disabled)")
        page.keyboard.press("Enter")  # 2026, the first of them
        page.locator("#here", has_text=str(root / "2026")).wait_for()
        names = page.locator("#folders button").all_inner_texts()
        assert names == ["Up", "<img src=x onerror=alert(1)>", *(f"copy{copy}" for copy in range(8))]
        tab_to(page, "#output")
        page.keyboard.press("Control+a")
        page.keyboard.type("made here")
        page.keyboard.press("Enter")
        page.locator("#start").wait_for(timeout=PATIENCE_MS)
        plan = page.locator("#plan").inner_text()
        assert "481" in plan
        assert all(name in plan for name in ("photos", "time", "disk while it runs", "disk afterwards", "memory"))
        assert page.locator("#start:focus").count() == 1
        assert_accessible_in_all(page)
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("/jobs"), timeout=PATIENCE_MS)
        wait_for_state(page, "Finished")
        page.locator("#failures tbody tr").wait_for(timeout=PATIENCE_MS)
        cells = page.locator("#failures td").all_inner_texts()
        assert cells[:2] == ["<img src=x onerror=alert(1)>/<b>.jpg", "corrupt"]
        assert "embedded\n480" in page.locator("#outcomes").inner_text()
        assert page.locator("#open").is_visible()
        assert [page.locator(f"#{action}").is_visible() for action in ("pause", "resume", "cancel")] == [False] * 3
        assert (output / "made here.h5").exists()


def test_a_folder_without_photos_is_named_before_the_start(root: Path, output: Path, browser: Any) -> None:
    with serving(root, output) as (_, port):
        page = browser.new_page()  # not `visit`: the browser reports the refused request on its console
        try:
            page.goto(f"http://127.0.0.1:{port}/create")
            page.locator("#folders button", has_text="other").click()
            page.locator("#here", has_text=str(root / "other")).wait_for()
            page.locator("#make-plan").click()
            page.locator("#error", has_text=str(root / "other")).wait_for(timeout=PATIENCE_MS)
            assert page.locator("#start").is_hidden()
        finally:
            page.close()


def test_a_job_is_seen_by_every_window_and_over_a_killed_server(visit: Browse, root: Path, output: Path) -> None:
    with serving(root, output) as (process, port):
        job = start(port)
        folder, url = output / ".facemill-jobs" / job, f"http://127.0.0.1:{port}/jobs?id={job}"
        with held(folder, output / "people.h5"), visit(url) as page, visit(url) as second:
            for window in (page, second):
                wait_for_state(window, "Running")
            page.reload()
            wait_for_state(page, "Running")
            assert_accessible_in_all(page)
            tab_to(page, "#pause")
            page.keyboard.press("Enter")
            for window in (page, second):
                wait_for_state(window, "Pausing")
        with visit(url) as page, visit(url) as second:
            wait_for_state(page, "Paused")
            done = float(page.locator("#done").inner_text().split()[0])
            assert 0 < done < 100
            second.locator("#resume").click()
            for window in (page, second):
                wait_for_state(window, "Running|Waiting|Finished")
                wait_for_state(window, "Finished")
                assert window.locator("#done").inner_text() == "100.0 %"
                assert "embedded\n480" in window.locator("#outcomes").inner_text()
        process.kill()


def test_a_page_waits_for_a_killed_server_and_goes_on(visit: Browse, root: Path, output: Path, browser: Any) -> None:
    with serving(root, output) as (process, port):
        job = start(port)
        folder = output / ".facemill-jobs" / job
        # Not `visit`: the browser rightly reports that the server does not answer.
        page = browser.new_page()
        try:
            with held(folder, output / "people.h5"):
                page.goto(f"http://127.0.0.1:{port}/jobs?id={job}")
                wait_for_state(page, "Running")
                process.send_signal(signal.SIGKILL)
                process.wait()
                page.get_by_text("server does not answer").wait_for(timeout=PATIENCE_MS)
            with serving(root, output, "--port", port):
                wait_for_state(page, "Finished")
                assert page.locator("#connection").is_hidden()
                assert page.locator("#done").inner_text() == "100.0 %"
        finally:
            page.close()


def test_a_job_is_stopped_and_forgotten(visit: Browse, root: Path, output: Path) -> None:
    with serving(root, output) as (_, port):
        job = start(port)
        with visit(f"http://127.0.0.1:{port}/jobs") as page:
            with held(output / ".facemill-jobs" / job, output / "people.h5"):
                page.reload()
                page.locator("#cancel").click()
                wait_for_state(page, "Stopping")
            wait_for_state(page, "Stopped: photos")
            assert page.locator("#resume").is_visible()
            page.locator("#delete").click()
            page.locator("h2", has_text="No jobs yet").wait_for(timeout=PATIENCE_MS)
        assert [path.name for path in output.iterdir()] == [".facemill-jobs"]
        assert ask_json(port, "GET", "/api/v1/jobs") == (200, {"jobs": []})
