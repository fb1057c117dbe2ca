"""Serve the part of Qdrant's HTTP interface that an export uses, from qdrant-client's local store."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from qdrant_client import QdrantClient, models

KEY = "secret"


class QdrantStandIn(ThreadingHTTPServer):
    """A server on a free port.

    Attributes:
        store: store behind the server.
        requests: (method, path) of each answered request.
        busy: number of next upserts to answer with 503.
    """

    def __init__(self) -> None:
        self.store = QdrantClient(":memory:", force_disable_check_same_thread=True)
        self.requests: list[tuple[str, str]] = []
        self.busy = 0
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def answer(self, method: str, path: str, body: Any) -> Any:
        """Compute the `result` of a response."""
        _, _, name, *subpath = path.split("/")
        if "with_vector" in body:  # the name in the HTTP interface
            body["with_vectors"] = body.pop("with_vector")
        match method, subpath:
            case "GET", ["exists"]:
                return {"exists": self.store.collection_exists(name)}
            case "GET", []:
                return self.store.get_collection(name)
            case "PUT", []:
                vectors = models.VectorParams(**body.pop("vectors"))
                return self.store.create_collection(name, vectors, **body)
            case "DELETE", []:
                return self.store.delete_collection(name)
            case "PUT", ["points"]:
                return self.store.upsert(name, models.Batch(**body["batch"]))
            case "POST", ["points"]:
                return self.store.retrieve(name, **body)
            case "POST", ["points", "scroll"]:
                points, more = self.store.scroll(name, **body)
                return {"points": points, "next_page_offset": more}
            case "POST", ["points", "count"]:
                return self.store.count(name, models.Filter(**body["filter"]) if body.get("filter") else None)
        raise AssertionError(f"{method} {path} is not a request of an export")


class _Handler(BaseHTTPRequestHandler):
    server: QdrantStandIn

    def _reply(self) -> None:
        size = int(self.headers.get("content-length", 0))
        body = json.loads(self.rfile.read(size)) if size else {}
        path = urlsplit(self.path).path
        with self.server.lock:
            if self.headers.get("api-key") != KEY:
                self._send(401, b"Must provide an API key")
            elif self.server.busy and self.command == "PUT" and path.endswith("/points"):
                self.server.busy -= 1
                self._send(503, b"busy")
            else:
                self.server.requests.append((self.command, path))
                result = _plain(self.server.answer(self.command, path, body))
                self._send(200, json.dumps({"result": result, "status": "ok", "time": 0.0}).encode())

    do_GET = do_PUT = do_POST = do_DELETE = _reply  # noqa: N815

    def _send(self, code: int, data: bytes) -> None:
        self.send_response(code)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: object) -> None:
        pass


def _plain(result: Any) -> Any:
    """Convert a result to plain JSON types."""
    if isinstance(result, list):
        return [_plain(item) for item in result]
    if isinstance(result, dict):
        return {key: _plain(value) for key, value in result.items()}
    return result.model_dump(mode="json") if hasattr(result, "model_dump") else result


@contextmanager
def qdrant_stand_in() -> Iterator[QdrantStandIn]:
    """Run the server during the block."""
    with QdrantStandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
            server.store.close()
