"""The pages Files, Models and Machine say what the commands say."""

from __future__ import annotations

import html
import os
import re
import shutil
from pathlib import Path

import h5py
import pytest

from runtime.modelspec import list_specs, load_spec
from tests.support.asking import ask
from tests.support.running_server import server
from tests.web.conftest import Browse

pytestmark = pytest.mark.slow


def test_a_file_is_verified_from_its_page(visit: Browse, url: str) -> None:
    with visit(url + "/files") as page:
        assert "60 rows" in page.locator("main").inner_text()
        page.get_by_text("Contract").click()
        contract = page.locator("details table").inner_text()
        assert "facemill-512" in contract
        assert "the main face of each photo" in contract
        page.get_by_role("button", name="Verify people").click()
        page.get_by_text(re.compile("Whole: verified")).wait_for()


def test_a_damaged_file_is_named_with_its_findings(visit: Browse, people: Path, tmp_path: Path) -> None:
    file = tmp_path / "<b>damaged.h5"
    shutil.copy(people, file)
    with server(file) as (_, port), visit(f"http://127.0.0.1:{port}/files") as page:
        # The bytes change in place and the time of the file stays, as by a bad sector.
        with h5py.File(file) as opened:
            offset = opened["embeddings"].id.get_chunk_info(0).byte_offset
        status = os.stat(file)
        with open(file, "r+b") as raw:
            raw.seek(offset + 100)
            raw.write(b"damage" * 10)
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
        page.get_by_role("button", name="Verify <b>damaged").click()
        page.get_by_text(re.compile("Damaged: verified")).wait_for()
        assert page.locator("main ul.error li").count()


def test_every_model_is_listed_with_its_licence(url: str) -> None:
    text = html.unescape(ask(url, "GET", "/models")[2].decode())
    for spec in list_specs():
        assert spec.name in text
        assert spec.licence in text
        assert spec.accuracy in text
    assert load_spec("facemill-512").title in text


def test_the_machine_is_examined(visit: Browse, url: str) -> None:
    with visit(url + "/machine") as page:
        text = page.locator("main").inner_text()
        assert "facemill runs on this machine" in text
        assert "onnxruntime" in text
        page.get_by_role("button", name="Examine again").click()
        page.get_by_text("facemill runs on this machine").wait_for()
