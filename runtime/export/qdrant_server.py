"""Connect to a Qdrant server, or to the local store of qdrant-client; translate its errors and retry."""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import ConfigError, FacemillError, Interrupted, StorageError
from ..extras import require

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOCAL = "path:"
_TIMEOUT_S = 60
_MAX_ANSWER_BYTES = 64 << 20  # of one answer; the points of a request are 3 MB
_MAX_ANSWER_S = 300.0
_WAITS_S = (1.0, 5.0, 20.0)  # before the second, third and fourth attempt
_EXPECTED = "expected: http://HOST:6333, https://HOST:6333, or path:FOLDER for a trial without a server"


@contextmanager
def connect(url: str, key: str = "") -> Iterator[Any]:
    """Open a `QdrantClient` for a `with` block. Errors of Qdrant within the block become StorageError.

    Args:
        url: http://HOST:PORT, https://HOST:PORT or path:FOLDER.
        key: API key; empty for none.
    Raises:
        ConfigError: the URL is not valid.
        MissingDependencyError: qdrant-client is not installed.
        StorageError: the server does not answer or refuses, or the folder cannot be used.
    """
    location = _location(url)
    require("qdrant_client", extra="qdrant", purpose="writing into Qdrant")
    from qdrant_client import QdrantClient
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    if key and urlsplit(url).scheme == "http":
        logger.warning("the API key is sent to %s without encryption; expected beyond this machine: https", url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # large local stores and unencrypted keys: we warn ourselves
        try:
            if not is_local(url):
                location["transport"] = _bounded_transport()
            client = QdrantClient(**location, api_key=key or None, timeout=_TIMEOUT_S, check_compatibility=False)
            try:
                yield client
            finally:
                client.close()
        except FacemillError:
            raise
        except (ApiException, QdrantException, ValueError, sqlite3.Error, OSError, RuntimeError) as err:
            source = getattr(err, "source", None) or err
            reason = " ".join((source.message if isinstance(source, FacemillError) else str(source)).split())
            raise StorageError(
                f"Qdrant at {url} cannot be written to: {reason}. Check that it runs there and, if it needs a key, "
                f"that QDRANT_API_KEY is set. Run the same command again to resume"
            ) from err


def _bounded_transport() -> Any:
    """A transport of HTTP whose answers have a limited size and time, and are not compressed."""
    import httpx

    class Bounded(httpx.SyncByteStream):
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size, end = 0, time.monotonic() + _MAX_ANSWER_S
            for block in self._stream:
                size += len(block)
                if size > _MAX_ANSWER_BYTES:
                    raise StorageError(f"Qdrant answers with more than {_MAX_ANSWER_BYTES >> 20} MB; expected: less")
                if time.monotonic() > end:
                    raise StorageError(f"Qdrant takes more than {_MAX_ANSWER_S:.0f} s for one answer; expected: less")
                yield block

        def close(self) -> None:
            self._stream.close()

    class Transport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.headers["Accept-Encoding"] = "identity"
            response = super().handle_request(request)
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                response.close()
                raise StorageError("Qdrant sends a compressed answer; expected: one as it was asked for, uncompressed")
            response.stream = Bounded(response.stream)
            return response

    return Transport()


def is_local(url: str) -> bool:
    """Whether the URL names a local folder instead of a server."""
    return url.startswith(_LOCAL)


def with_retries(call: Callable[[], T]) -> T:
    """Make a request; while the server is unavailable, retry after 1, 5 and 20 seconds."""
    for wait in _WAITS_S:
        try:
            return call()
        except Interrupted:  # raised by a signal, wherever the program is
            raise
        except Exception as err:
            if not _is_temporary(err):
                raise
            logger.warning("Qdrant does not answer; retrying in %.0f s", wait)
            time.sleep(wait)
    return call()


def _is_temporary(err: Exception) -> bool:
    """Whether a retry may succeed: the server did not answer, or is busy."""
    if isinstance(getattr(err, "source", None), FacemillError):
        return False  # it did answer
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(err, UnexpectedResponse):
        return err.status_code in (429, 500, 502, 503, 504)
    return isinstance(err, (ResourceExhaustedResponse, ResponseHandlingException))


def local_folder(url: str) -> str:
    """Return FOLDER of path:FOLDER."""
    return url.removeprefix(_LOCAL)


def _location(url: str) -> dict[str, Any]:
    """Return the arguments of QdrantClient for a URL."""
    if is_local(url) and len(url) > len(_LOCAL):
        return {"path": local_folder(url)}
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:  # the port is not a number
        valid = False
    if not valid:
        raise ConfigError(f"{url!r} is not a URL of Qdrant; {_EXPECTED}")
    if parts.username or parts.password:
        raise ConfigError(
            f"the URL of Qdrant contains a user name or password; {_EXPECTED}, with the key in QDRANT_API_KEY"
        )
    return {"url": url}
