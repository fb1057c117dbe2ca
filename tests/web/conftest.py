"""A server of portraits of people who do not exist, with the models of facemill, and a browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import runtime as facemill
from tests.support.browser import browse, start_browser
from tests.support.facemill_command import facemill as run
from tests.support.portrait_people import write_people_photos
from tests.support.running_server import server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TOKEN = "0123456789abcdef0123456789abcdef"
Browse = Callable[..., "AbstractContextManager[Page]"]


@pytest.fixture(scope="session")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photos/person0/0.jpg` and so on, and `somebody.jpg`. Tests must not change it."""
    folder = tmp_path_factory.mktemp("portraits")
    write_people_photos(folder, 12, 5)
    return folder


@pytest.fixture(scope="session")
def people(portraits: Path) -> Path:
    """An embedding file of these portraits, with age, gender and a calibration. Tests must not change it."""
    file = portraits / "people.h5"
    facemill.process(portraits / "photos", file, attributes="age,gender")
    result = run("evaluate", portraits / "photos", "--calibrate", file)
    assert result.returncode == 0, result.stderr
    return file


@pytest.fixture(scope="session")
def url(people: Path) -> Iterator[str]:
    """The address of a server of this file."""
    with server(people) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def guarded_url(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of such a server that wants a token."""
    tokens = tmp_path_factory.mktemp("tokens") / "tokens.txt"
    tokens.write_text(f"desk {TOKEN}\n")
    tokens.chmod(0o600)
    with server(people, "--token-file", tokens) as (_, port):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with start_browser() as browser:
        yield browser


@pytest.fixture
def visit(browser: Browser) -> Browse:
    """Open a page: `with visit(url, width=320, scheme="dark") as page: ...`; see `browse`."""
    return partial(browse, browser)
