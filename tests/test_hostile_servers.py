"""Servers that send false data, never end, or redirect: each transfer ends with one error, in bounded time and size."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from runtime import fetch as fetching
from runtime.errors import FetchError, StorageError
from runtime.export import qdrant_server
from runtime.fetch import fetch
from tests.support.clustered_files import people_rows, write_file
from tests.support.errors import raises, warnings_in

DATA = bytes(range(256)) * 100


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.close_connection = True
        expected = self.headers.get("Range")
        try:
            match unquote(self.path).strip("/"):
                case "empty":
                    self.answer(200, [("Content-Length", 0)])
                case "good":
                    self.answer(200, [("Content-Length", len(DATA))], DATA)
                case "endless":
                    self.answer(200, [("Connection", "close")])
                    while True:
                        self.wfile.write(bytes(65536))
                case "chunks":
                    self.answer(200, [("Transfer-Encoding", "chunked")])
                    while True:
                        self.wfile.write(b"10000\r\n" + bytes(65536) + b"\r\n")
                case "drip":
                    self.answer(200, [("Content-Length", len(DATA))])
                    for byte in DATA:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.05)
                case "slow headers":
                    while True:
                        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                        time.sleep(0.05)
                case "huge":
                    self.answer(200, [("Content-Length", "9" * 30)], DATA)
                case "other part":
                    if expected:
                        heads = [
                            ("Content-Length", len(DATA)),
                            ("Content-Range", f"bytes 0-{len(DATA) - 1}/{len(DATA)}"),
                        ]
                        self.answer(206, heads, DATA)
                    else:
                        self.answer(200, [("Content-Length", len(DATA))], DATA[:1000])
                case "no such part":
                    self.answer(416, [("Content-Length", 0)])
                case path:
                    targets = {
                        "to http": f"http://127.0.0.1:{self.server.server_address[1]}/good",
                        "to file": "file:///etc/passwd",
                    }
                    target = targets.get(path.replace("-", " "), "ftp://127.0.0.1/x")
                    self.answer(302, [("Location", target), ("Content-Length", 0)])
        except OSError:
            pass

    def answer(self, code: int, headers: list[tuple[str, object]], body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in headers:
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("path", ["endless", "chunks"])
def test_a_download_ends_at_the_stated_size(path: str, address: str, tmp_path: Path) -> None:
    with raises(FetchError, address + path, "200,000"):
        fetch(address + path, tmp_path / "m.onnx", size_bytes=200_000)
    assert list(tmp_path.iterdir()) == []  # nothing to resume


def test_a_file_of_unknown_size_has_a_limit(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_MAX_BYTES", 300_000)
    for path in ("endless", "huge"):
        with raises(FetchError, "300,000"):
            fetch(address + path, tmp_path / "m.onnx")


def test_the_scheme_of_an_address_may_have_capitals(address: str, tmp_path: Path) -> None:
    fetch(address.replace("http", "HTTP") + "good", tmp_path / "m.onnx", size_bytes=len(DATA))
    assert (tmp_path / "m.onnx").read_bytes() == DATA


@pytest.mark.parametrize("path", ["drip", "slow%20headers"])
def test_a_server_that_sends_too_slowly_is_abandoned(
    path: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(fetching, "_SLOWEST_BYTES_PER_S", 1_000_000)
    with pytest.raises(FetchError):
        fetch(address + path, tmp_path / "m.onnx")


@pytest.mark.parametrize("path", ["to-http", "to-file", "to-ftp"])
def test_a_redirect_leads_to_https_only(path: str, address: str, tmp_path: Path) -> None:
    with raises(FetchError, address + path, *([] if path == "to-file" else ["https"])):
        fetch(address + path, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_different_range_than_requested_is_never_appended(address: str, tmp_path: Path) -> None:
    with raises(FetchError, 4):
        fetch(address + "other%20part", tmp_path / "m.onnx")
    partial = tmp_path / "m.onnx.partial"
    assert not partial.exists() or partial.read_bytes() in (b"", DATA[:1000])


def test_a_range_of_a_missing_file_is_an_error_and_creates_no_file(address: str, tmp_path: Path) -> None:
    with raises(FetchError, 416):
        fetch(address + "no%20such%20part", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_an_empty_file_is_no_download(address: str, tmp_path: Path) -> None:
    with raises(FetchError, address + "empty"):
        fetch(address + "empty", tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_a_download_without_a_checksum_is_logged(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fetch(address + "good", tmp_path / "m.onnx")
    assert (tmp_path / "m.onnx").read_bytes() == DATA
    (warning,) = warnings_in(caplog)
    assert address + "good" in warning


class Qdrant(http.server.BaseHTTPRequestHandler):
    """A server that stores nothing, or misbehaves as `mode` says."""

    protocol_version = "HTTP/1.1"
    mode = ""

    def reply(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        end = '"status":"ok","time":0.0}'
        try:
            if self.mode == "huge":
                self.send_response(200)
                self.send_header("Connection", "close")
                self.end_headers()
                while True:
                    self.wfile.write(b" " * 1_000_000)
            if self.mode == "drip":
                self.send_response(200)
                self.send_header("Content-Length", "100000")
                self.end_headers()
                while True:
                    self.wfile.write(b" ")
                    time.sleep(0.05)
            if self.mode == "integer":
                end = '"status":"ok","time":' + "9" * 5000 + "}"
            if self.path.endswith("/exists"):
                text = '{"result":{"exists":false},' + end
            elif self.path.endswith("/count"):
                text = '{"result":{"count":1000000000},' + end
            elif "points" in self.path:
                text = '{"result":{"operation_id":1,"status":"completed"},' + end
            else:
                text = '{"result":true,' + end
            self.send_response(200)
            if self.mode == "gzip":
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass

    do_GET = do_PUT = do_POST = do_DELETE = reply  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["liar", "huge", "drip", "integer", "gzip"])
def test_an_upload_trusts_no_answer(mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install '.[qdrant]'")
    from runtime.export.qdrant import export_qdrant
    from runtime.storage.file import EmbeddingFile

    monkeypatch.setattr(qdrant_server, "_MAX_ANSWER_BYTES", 3_000_000)
    monkeypatch.setattr(qdrant_server, "_MAX_ANSWER_S", 0.5)
    people = write_file(tmp_path / "people.h5", people_rows([3, 2], noise=0.1))
    kind: Any = type("Mode", (Qdrant,), {"mode": mode})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), kind) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        values = ("1,000,000,000", 5) if mode == "liar" else ()
        with EmbeddingFile(people) as gallery, raises(StorageError, *values):
            export_qdrant(gallery, f"http://127.0.0.1:{server.server_address[1]}", "people")
        server.shutdown()
