"""Ask a server without a browser."""

from __future__ import annotations

import http.client
from contextlib import closing
from urllib.parse import urlsplit


def ask(
    url: str, method: str, path: str, headers: dict[str, str] | None = None, body: str | bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    """Send a request; returns the status, the headers by their names in small letters, and the body."""
    address = urlsplit(url)
    with closing(http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)) as connection:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
