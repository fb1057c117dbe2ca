"""The ONNX files of models: search order, checksums, downloads from a real server, and errors for missing files."""

from __future__ import annotations

import hashlib
import http.server
import logging
import resource
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.errors import FetchError, ModelError, ModelUnavailableError
from runtime.fetch import fetch
from runtime.modelspec import ModelSpec, load_spec
from runtime.modelstore import (
    BETTER,
    BETTER_DETECTOR,
    SHIPPED,
    SHIPPED_DETECTOR,
    default_detector,
    default_model,
    find_weights,
    resolve_weights,
)
from tests.support.errors import Values, assert_names, raises

DATA = bytes(range(256)) * 4000  # 1 MB
SHA256 = hashlib.sha256(DATA).hexdigest()


class Server(http.server.ThreadingHTTPServer):
    """Sends `data`. `ranges`: supports Range; `cut`: breaks the connection after so many bytes, so many times."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges = True
        self.cut: list[int] = []
        self.asked: list[str | None] = []
        self.data = DATA
        self.etag: str | None = '"one"'

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/m.onnx"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        header = self.headers.get("Range")
        self.server.asked.append(header)
        if self.path == "/gone":
            self.send_error(404)
            return
        data = self.server.data
        valid = self.headers.get("If-Range") in (None, self.server.etag)
        start = int(header.removeprefix("bytes=").removesuffix("-")) if header and self.server.ranges and valid else 0
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if self.server.etag is not None:
            self.send_header("ETag", self.server.etag)
        self.end_headers()
        end = start + self.server.cut.pop(0) if self.server.cut else len(data)
        self.wfile.write(data[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as instance:
        thread = threading.Thread(target=instance.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield instance
        instance.shutdown()
        thread.join()


def test_a_download_is_checked_and_appears_complete(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    fetch(server.url, path, sha256=SHA256, size_bytes=len(DATA))
    assert path.read_bytes() == DATA
    assert {p.name for p in tmp_path.iterdir()} == {"m.onnx"}


def test_a_broken_download_resumes_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cut = [300_000, 200_000]
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_download_that_keeps_breaking_keeps_its_data_for_the_next_call(server: Server, tmp_path: Path) -> None:
    server.cut = [1000] * 4
    with raises(FetchError, server.url, 4):
        fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert (tmp_path / "m.onnx.partial").stat().st_size == 4000
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert server.asked[-1] == "bytes=4000-"
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_a_server_that_ignores_ranges_sends_the_file_again(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.cut = [300_000]
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert (tmp_path / "m.onnx").read_bytes() == DATA


@pytest.mark.parametrize(("first", "second"), [('"one"', '"two"'), ('"one"', None)])
def test_a_file_that_changed_during_a_download_is_not_mixed(
    server: Server, tmp_path: Path, first: str, second: str | None
) -> None:
    server.etag, server.cut = first, [1000] * 4
    with raises(FetchError, server.url, 4):
        fetch(server.url, tmp_path / "m.onnx")
    server.data, server.etag = DATA[::-1], second
    fetch(server.url, tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == DATA[::-1]


def test_without_an_etag_the_checksum_refuses_a_mixed_file(server: Server, tmp_path: Path) -> None:
    server.etag, server.cut = 'W/"weak"', [1000] * 4
    with raises(FetchError, server.url, 4):
        fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert not (tmp_path / "m.onnx.partial.etag").exists()
    (tmp_path / "m.onnx.partial").write_bytes(b"another version")
    with raises(FetchError, server.url, SHA256):
        fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)  # from the start
    assert server.asked[-1] is None


def test_a_different_size_is_refused_before_the_download(server: Server, tmp_path: Path) -> None:
    with raises(FetchError, "1,024,000", 5):
        fetch(server.url, tmp_path / "m.onnx", size_bytes=5)
    assert not (tmp_path / "m.onnx").exists()


def test_a_full_disk_keeps_the_downloaded_data(server: Server, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (600_000, limits[1])
    )  # a write beyond this limit fails, as on a full disk
    try:
        with raises(FetchError, "m.onnx", "File too large"):
            fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    assert server.asked == [None, "bytes=600000-"]


def test_a_complete_partial_file_is_only_renamed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "m.onnx.partial").write_bytes(DATA)
    fetch(server.url, tmp_path / "m.onnx", sha256=SHA256)
    assert (tmp_path / "m.onnx").read_bytes() == DATA


def test_a_different_file_is_refused_and_removed(server: Server, tmp_path: Path) -> None:
    with raises(FetchError, SHA256, "0" * 64):
        fetch(server.url, tmp_path / "m.onnx", sha256="0" * 64)
    assert not (tmp_path / "m.onnx").exists()
    assert not (tmp_path / "m.onnx.partial").exists()


@pytest.mark.parametrize(
    ("url", "values"),
    [("http://127.0.0.1:9/x", ()), ("http://[", ()), ("file:///etc/passwd", ("http", "https"))],
)
def test_an_invalid_address_is_an_error(url: str, values: Values, tmp_path: Path) -> None:
    with raises(FetchError, url, *values):
        fetch(url, tmp_path / "m.onnx")


def test_a_refused_download_and_an_unwritable_folder_are_errors(server: Server, tmp_path: Path) -> None:
    with raises(FetchError, 404):
        fetch(server.url.replace("m.onnx", "gone"), tmp_path / "m.onnx")
    with raises(FetchError, "no-folder"):
        fetch(server.url, tmp_path / "no-folder" / "m.onnx")


def test_two_concurrent_downloads_give_one_file(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    threads = [threading.Thread(target=fetch, args=(server.url, path), kwargs={"sha256": SHA256}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == DATA
    assert server.asked == [None]


@pytest.fixture
def spec(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model without an ONNX file."""
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "toml"
    folder.mkdir()
    return replace(load_spec(str(tiny_model)), file="m.onnx", sha256=SHA256, folder=folder)


def test_files_are_searched_next_to_the_toml_then_in_the_users_folder_then_in_the_cache(
    spec: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("FACEMILL_MODELS", str(own))
    assert find_weights(spec) is None
    for folder in (tmp_path / "cache" / "models", own, spec.folder):
        (folder / "m.onnx").write_bytes(DATA)
        assert find_weights(spec) == folder / "m.onnx"
    assert resolve_weights(spec) == spec.folder / "m.onnx"


def test_a_file_with_another_checksum_is_refused_with_both(spec: ModelSpec) -> None:
    (spec.folder / "m.onnx").write_bytes(b"other")
    with raises(ModelError, hashlib.sha256(b"other").hexdigest(), SHA256):
        resolve_weights(spec)


def test_a_missing_file_is_fetched_into_the_cache_and_its_licence_named(
    spec: ModelSpec, server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = resolve_weights(replace(spec, url=server.url, licence="ask Anna"))
    assert path == tmp_path / "cache" / "models" / "m.onnx"
    assert "ask Anna" in caplog.text


@pytest.mark.parametrize("url", [None, "http://127.0.0.1:9/m.onnx"])
def test_without_file_and_network_the_error_lists_the_next_steps(spec: ModelSpec, url: str | None) -> None:
    with pytest.raises(ModelUnavailableError) as caught:
        resolve_weights(replace(spec, url=url))
    for part in (url or "none", SHA256, "cache/models", "FACEMILL_MODELS", "m.onnx"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("default", "shipped", "better", "option"),
    [(default_model, SHIPPED, BETTER, "--model"), (default_detector, SHIPPED_DETECTOR, BETTER_DETECTOR, "--detector")],
)
def test_the_default_model_is_the_better_one_only_if_its_file_exists(
    default: Callable[[], str],
    shipped: str,
    better: str,
    option: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = load_spec(better).file
    caplog.set_level(logging.INFO)
    cache, own = tmp_path / "cache", tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("FACEMILL_CACHE", str(cache))
    assert default() == shipped
    assert_names(caplog.text, f"facemill models fetch {better}")
    caplog.clear()
    assert default() == shipped
    assert caplog.text == ""  # it was logged once
    (cache / "models" / f"{file}.partial").write_bytes(DATA)  # an incomplete download
    assert default() == shipped
    for folder in (own, cache / "models"):
        (folder / file).write_bytes(DATA)
        monkeypatch.setenv("FACEMILL_MODELS", str(own))
        assert default() == better
        (folder / file).unlink()
    assert_names(caplog.text, f"{option} {shipped}")
