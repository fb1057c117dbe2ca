"""A Qdrant server, or qdrant-client's own store in a folder: where it is, how it fails, what is tried again."""

from __future__ import annotations

import logging
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ..errors import ConfigError, FacemillError, StorageError
from ..extras import require

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LOCAL = "path:"
_TIMEOUT_S = 60
_WAITS_S = (1.0, 5.0, 20.0)  # before the second try, the third, the fourth
_FORMS = "wanted: http://HOST:6333, https://HOST:6333, or path:FOLDER for a trial without a server"


@contextmanager
def connect(url: str, key: str = "") -> Iterator[Any]:
    """A `QdrantClient`, closed with the block; what fails within the block is said in words.

    Args:
        url: http://HOST:PORT, https://HOST:PORT or path:FOLDER.
        key: the API key; empty for none.
    Raises:
        ConfigError: the URL is of another form.
        MissingDependencyError: qdrant-client is not installed.
        StorageError: the server does not answer or refuses, or the folder cannot be used.
    """
    place = _place(url)
    require("qdrant_client", extra="qdrant", purpose="writing into Qdrant")
    from qdrant_client import QdrantClient
    from qdrant_client.common.client_exceptions import QdrantException
    from qdrant_client.http.exceptions import ApiException

    if key and urlsplit(url).scheme == "http":
        logger.warning("the API key goes to %s without encryption; wanted, beyond this machine: https", url)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of large local stores and open keys: told in our words
        try:
            client = QdrantClient(**place, api_key=key or None, timeout=_TIMEOUT_S, check_compatibility=False)
            try:
                yield client
            finally:
                client.close()
        except FacemillError:
            raise
        except (ApiException, QdrantException, JSONDecodeError, sqlite3.Error, OSError, RuntimeError) as err:
            reason = " ".join(str(getattr(err, "source", None) or err).split())
            raise StorageError(
                f"Qdrant at {url} cannot be written to: {reason}. See that it runs there and, if it wants a key, that "
                f"QDRANT_API_KEY holds it; the same command goes on where this one stopped"
            ) from err


def is_local(url: str) -> bool:
    """Whether it is a folder, without a server."""
    return url.startswith(_LOCAL)


def tried(call: Callable[[], T]) -> T:
    """The answer to a request; a server that is away for a moment is asked again, after 1, 5 and 20 seconds."""
    for wait in _WAITS_S:
        try:
            return call()
        except Exception as err:
            if not _passing(err):
                raise
            logger.warning("Qdrant does not answer; asking again in %.0f s", wait)
            time.sleep(wait)
    return call()


def _passing(err: Exception) -> bool:
    """Whether it may go away by itself: no answer, or one that says that the server is busy."""
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

    if isinstance(err, UnexpectedResponse):
        return err.status_code in (429, 500, 502, 503, 504)
    return isinstance(err, (ResourceExhaustedResponse, ResponseHandlingException))


def local_folder(url: str) -> str:
    """FOLDER of path:FOLDER."""
    return url.removeprefix(_LOCAL)


def _place(url: str) -> dict[str, Any]:
    """What QdrantClient is to be given."""
    if is_local(url) and len(url) > len(_LOCAL):
        return {"path": local_folder(url)}
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port)
    except ValueError:  # a port that is none
        usable = False
    if not usable:
        raise ConfigError(f"{url!r} is no address of Qdrant; {_FORMS}")
    if parts.username or parts.password:
        raise ConfigError(f"the address of Qdrant holds a name or password; {_FORMS}, and the key in QDRANT_API_KEY")
    return {"url": url}
