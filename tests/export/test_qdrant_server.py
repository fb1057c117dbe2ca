"""Export over HTTP: working, missing, refusing and temporarily unavailable servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest

from runtime.errors import ConfigError, ContractError, StorageError
from runtime.export.qdrant import UploadCounts, export_qdrant
from runtime.export.qdrant_server import connect, is_local, with_retries
from runtime.storage.file import EmbeddingFile
from tests.support.errors import assert_names, raises, warnings_in
from tests.support.export_files import write_file
from tests.support.extras import require_package

require_package("qdrant_client", "qdrant")


class ForeignServer(BaseHTTPRequestHandler):
    """A server that requires a key and answers with a page that is not Qdrant's."""

    def do_GET(self) -> None:
        authorised = self.headers.get("api-key") == "secret"
        self.send_response(200 if authorised else 401)
        self.end_headers()
        self.wfile.write(b"<h1>hello</h1>" if authorised else b"Must provide an API key")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def foreign_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), ForeignServer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(url: str, key: str = "") -> None:
    with connect(url, key) as client:
        client.collection_exists("people")


def test_a_refused_connection_is_an_error() -> None:
    with raises(StorageError, "http://127.0.0.1:1", "refused"):
        ask("http://127.0.0.1:1")


def test_a_missing_key_is_an_error(foreign_url: str) -> None:
    with raises(StorageError, 401, "Must provide an API key", "QDRANT_API_KEY"):
        ask(foreign_url)


def test_a_server_that_is_not_qdrant_is_an_error(foreign_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with raises(StorageError, "QDRANT_API_KEY") as caught:
        ask(foreign_url, "secret")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text
    (warning,) = warnings_in(caplog)
    assert_names(warning, foreign_url, "https")


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6333", "ftp://localhost", "http://", "http://host:port", "https://host:99999", "path:", "/folder"],
)
def test_invalid_addresses_are_refused(url: str) -> None:
    with raises(ConfigError, repr(url)):
        ask(url)


def test_a_password_in_the_address_is_refused_and_not_printed() -> None:
    with raises(ConfigError, "QDRANT_API_KEY") as caught:
        ask("http://me:secret@localhost")
    assert "secret" not in str(caught.value)


def test_a_folder_is_local() -> None:
    assert is_local("path:x")
    assert not is_local("http://x")


def make_failing(times: int, error: Exception) -> tuple[list[int], object]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return calls, call


def test_only_temporary_errors_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    monkeypatch.setattr("runtime.export.qdrant_server._WAITS_S", (0.0, 0.0, 0.0))
    unavailable = ResponseHandlingException(ConnectionError("refused"))
    busy = UnexpectedResponse(503, "busy", b"", httpx.Headers())
    for error in (unavailable, busy, ResourceExhaustedResponse("slow down", 1)):
        calls, call = make_failing(3, error)
        assert with_retries(call) == "done"  # type: ignore[arg-type]
        assert len(calls) == 4
        calls, call = make_failing(4, error)
        with pytest.raises(type(error)):
            with_retries(call)  # type: ignore[arg-type]
    calls, call = make_failing(1, UnexpectedResponse(400, "wrong", b"", httpx.Headers()))
    with pytest.raises(UnexpectedResponse):
        with_retries(call)  # type: ignore[arg-type]
    assert len(calls) == 1


@pytest.mark.slow
def test_an_export_over_http_resumes_and_sends_no_point_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.qdrant_stand_in import qdrant_stand_in

    monkeypatch.setattr("runtime.export.qdrant_server._WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr("runtime.export.qdrant._BATCH_POINTS", 16)
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    wide_file, _, _ = write_file(tmp_path / "wide.h5", count=6, dimension=32)
    with qdrant_stand_in() as server, EmbeddingFile(file) as gallery, EmbeddingFile(wide_file) as wide:

        def export(source: EmbeddingFile = gallery, *, recreate: bool = False) -> UploadCounts:
            return export_qdrant(source, server.url, "people", recreate=recreate, key="secret")

        def upserts() -> int:
            return server.requests.count(("PUT", "/collections/people/points"))

        server.busy = 100
        with raises(StorageError, 503):
            export()
        assert server.busy == 96  # four requests
        server.busy = 2
        counts = export()
        assert (counts.sent, counts.kept, counts.points) == (60, 0, 60)
        assert upserts() == 4
        points = server.store.scroll("people", limit=100, with_vectors=True)[0]
        rows = {point.payload["row"]: point.vector for point in points}
        np.testing.assert_array_equal(np.array([rows[row] for row in range(60)], np.float32), vectors)
        repeated = export()
        assert (repeated.sent, repeated.kept, repeated.points, upserts()) == (0, 60, 60, 4)
        with raises(ContractError, 16, "Dot", 32):
            export(wide)
        assert export(wide, recreate=True).points == 6
    assert len(warnings_in(caplog)) >= 3 + 2  # one warning per retry
