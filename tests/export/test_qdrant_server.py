"""Over HTTP: servers that do all that is asked, are not there, refuse, or are away for a moment."""

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

pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install '.[qdrant]'")


class Stranger(BaseHTTPRequestHandler):
    """Wants a key; whoever has it gets a page that is no answer of Qdrant."""

    def do_GET(self) -> None:
        known = self.headers.get("api-key") == "secret"
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b"<h1>hello</h1>" if known else b"Must provide an API key")

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def ask(url: str, key: str = "") -> None:
    with connect(url, key) as client:
        client.collection_exists("people")


def test_nobody_there() -> None:
    with raises(StorageError, "http://127.0.0.1:1", "refused"):
        ask("http://127.0.0.1:1")


def test_no_key(stranger: str) -> None:
    with raises(StorageError, 401, "Must provide an API key", "QDRANT_API_KEY"):
        ask(stranger)


def test_no_qdrant(stranger: str, caplog: pytest.LogCaptureFixture) -> None:
    with raises(StorageError, "QDRANT_API_KEY") as caught:
        ask(stranger, "secret")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value) + caplog.text
    (warning,) = warnings_in(caplog)
    assert_names(warning, stranger, "https")


@pytest.mark.parametrize(
    "url",
    ["", "localhost:6333", "ftp://localhost", "http://", "http://host:port", "https://host:99999", "path:", "/folder"],
)
def test_addresses_of_another_form(url: str) -> None:
    with raises(ConfigError, repr(url)):
        ask(url)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with raises(ConfigError, "QDRANT_API_KEY") as caught:
        ask("http://me:secret@localhost")
    assert "secret" not in str(caught.value)


def test_a_folder_is_local() -> None:
    assert is_local("path:x")
    assert not is_local("http://x")


def failing(times: int, error: Exception) -> tuple[list[int], object]:
    calls: list[int] = []

    def call() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    return calls, call


def test_what_passes_is_tried_again_and_what_does_not_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    monkeypatch.setattr("runtime.export.qdrant_server._WAITS_S", (0.0, 0.0, 0.0))
    away = ResponseHandlingException(ConnectionError("refused"))
    busy = UnexpectedResponse(503, "busy", b"", httpx.Headers())
    for error in (away, busy, ResourceExhaustedResponse("slow down", 1)):
        calls, call = failing(3, error)
        assert with_retries(call) == "done"  # type: ignore[arg-type]
        assert len(calls) == 4
        calls, call = failing(4, error)
        with pytest.raises(type(error)):
            with_retries(call)  # type: ignore[arg-type]
    calls, call = failing(1, UnexpectedResponse(400, "wrong", b"", httpx.Headers()))
    with pytest.raises(UnexpectedResponse):
        with_retries(call)  # type: ignore[arg-type]
    assert len(calls) == 1


def test_an_export_over_http_goes_on_after_a_break_and_sends_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from tests.support.qdrant_stand_in import qdrant_stand_in

    monkeypatch.setattr("runtime.export.qdrant_server._WAITS_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr("runtime.export.qdrant._BATCH_POINTS", 16)
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    other, _, _ = write_file(tmp_path / "wide.h5", count=6, dimension=32)
    with qdrant_stand_in() as server, EmbeddingFile(file) as gallery, EmbeddingFile(other) as wide:

        def export(of: EmbeddingFile = gallery, *, recreate: bool = False) -> UploadCounts:
            return export_qdrant(of, server.url, "people", recreate=recreate, key="secret")

        def upserts() -> int:
            return server.asked.count(("PUT", "/collections/people/points"))

        server.busy = 100
        with raises(StorageError, 503):
            export()
        assert server.busy == 96  # it was asked four times
        server.busy = 2
        done = export()
        assert (done.sent, done.kept, done.points) == (60, 0, 60)
        assert upserts() == 4
        found = server.store.scroll("people", limit=100, with_vectors=True)[0]
        rows = {point.payload["row"]: point.vector for point in found}
        np.testing.assert_array_equal(np.array([rows[row] for row in range(60)], np.float32), vectors)
        again = export()
        assert (again.sent, again.kept, again.points, upserts()) == (0, 60, 60, 4)
        with raises(ContractError, 16, "Dot", 32):
            export(wide)
        assert export(wide, recreate=True).points == 6
    assert len(warnings_in(caplog)) >= 3 + 2  # a line for each time that it was asked again
