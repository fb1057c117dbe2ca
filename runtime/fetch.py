"""Downloads that resume after a broken connection, are checked, and appear only when complete.

A server is not trusted: a download ends at its stated size, keeps a minimum rate, and follows redirects to https only.
"""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .errors import FetchError
from .files import NewFile, temporary_path
from .progress import Listener, Reporter
from .regular import NOTE_BYTES, open_regular, read_regular

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 20.0
_TRIES = 4
_MAX_BYTES = 2_000_000_000  # of a file whose size nobody states
_PATIENCE_S = 60.0  # until the headers are here; and with the slowest rate, until the body is
_SLOWEST_BYTES_PER_S = 10_000


def fetch(
    url: str,
    path: Path,
    *,
    sha256: str | None = None,
    size_bytes: int | None = None,
    listener: Listener | None = None,
) -> None:
    """Download a file. A broken download is resumed, in this call or the next.

    Args:
        url: http or https address; redirects lead to https only.
        path: path of the file. It appears there complete and checked, or not at all.
        sha256: hexadecimal checksum; None to trust the address, with a warning.
        size_bytes: size of the file; None if unknown, and then at most 2 GB.
        listener: receives the progress; None logs a line every five seconds.
    Raises:
        FetchError: there is no connection, the server refuses or is too slow, the file is not the expected one, or the
            disk is full.
    """
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise FetchError(f"the address {url} is neither http nor https")
        if sha256 is None:
            logger.warning("no checksum is stated for %s: what this address sends is trusted", url)
        with NewFile(path, shared=True, wait=True, resume=True) as new:
            if path.exists():  # another process was faster
                return
            _receive_all(url, new, size_bytes, listener)
            _accept(url, new, sha256, size_bytes)
    except urllib.error.HTTPError as err:
        err.close()
        raise FetchError(f"{url} answered {err.code} {err.reason}") from err
    except urllib.error.URLError as err:
        raise FetchError(f"{url} cannot be reached ({err.reason})") from err
    except FetchError:
        raise
    except ValueError as err:
        raise FetchError(f"{url} is not a valid address: {err}") from err
    except OSError as err:
        raise FetchError(
            f"{temporary_path(path)} cannot be written ({err.strerror or err}). Fix that and run the same command "
            "again; the received bytes are kept"
        ) from err


def _receive_all(url: str, new: NewFile, size_bytes: int | None, listener: Listener | None) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _receive(url, new, size_bytes, listener)
            return
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as err:
            if attempt == _TRIES:
                raise FetchError(
                    f"the download of {url} broke off {_TRIES} times ({err}). Run the same command again to resume"
                ) from err


def _receive(url: str, new: NewFile, size_bytes: int | None, listener: Listener | None) -> None:
    """Append the missing bytes to the temporary file, or start over if the file at the address has changed."""
    tag = _tag_path(new)
    received = new.file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "facemill", "Accept-Encoding": "identity"})
    if received:
        request.add_header("Range", f"bytes={received}-")
        if tag.exists():
            request.add_header("If-Range", read_regular(tag, NOTE_BYTES).decode("ascii"))
    file, most = new.file, size_bytes or _MAX_BYTES
    try:
        response = _open(request)
    except urllib.error.HTTPError as err:
        if err.code != 416 or not received:
            raise
        err.close()
        if err.headers.get("Content-Range", f"bytes */{received}") != f"bytes */{received}":
            file.truncate(0)
            raise http.client.HTTPException("the received part is no part of the file") from err
        return  # no bytes are missing: the file is complete, or the checksum will fail
    with response:
        resumes = response.status == 206
        if resumes and not _continues(response.headers.get("Content-Range", ""), received):
            file.truncate(0)
            raise http.client.HTTPException("the server sent another part of the file than the one asked for")
        total = None if response.length is None else response.length + received * resumes
        if total is not None:
            _check_size(url, total, size_bytes)
            if total > most:
                raise FetchError(f"{url} has {total:,} bytes; expected: at most {most:,}")
        if not resumes:
            file.truncate(0)
            received = file.seek(0)
            _store_tag(tag, response.headers.get("ETag"))
        with Reporter(new.path.name, total or 0, done=received, unit="bytes", listener=listener) as reporter:
            start_s, resumed_from = time.monotonic(), received
            while block := response.read1(_BLOCK_BYTES):
                received += len(block)
                if received > most:
                    file.truncate(0)  # nothing to resume
                    raise FetchError(f"{url} sends more than the expected {most:,} bytes")
                file.write(block)
                reporter.advance(len(block))
                allowed_s = _PATIENCE_S + (received - resumed_from) / _SLOWEST_BYTES_PER_S
                if time.monotonic() - start_s > allowed_s:
                    raise FetchError(
                        f"{url} sends less than {_SLOWEST_BYTES_PER_S:,} bytes a second. Run the same command again to "
                        f"resume"
                    )
        if response.length:
            raise http.client.HTTPException(f"{response.length:,} bytes are missing")


def _continues(content_range: str, received: int) -> bool:
    """Whether a part of a file begins where the received part ends."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", content_range.strip(), re.ASCII)
    return match is not None and int(match[1]) == received


class _HttpsRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only: no other scheme, and nothing without encryption."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """See `urllib.request.HTTPRedirectHandler`."""
        if urlsplit(newurl).scheme != "https":
            fp.close()
            raise FetchError(f"{req.full_url} leads to {newurl[:200]}; expected: an https address")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request) -> Any:
    """Send a request, and read the headers of the answer within `_PATIENCE_S`, however slowly they come."""
    connections: list[http.client.HTTPConnection] = []

    def noted(kind: type[http.client.HTTPConnection]) -> Any:
        def connect(*args: Any, **options: Any) -> http.client.HTTPConnection:
            connections.append(kind(*args, **options))
            return connections[-1]

        return connect

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: Any) -> Any:
            return self.do_open(noted(http.client.HTTPConnection), req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: Any) -> Any:
            return self.do_open(noted(http.client.HTTPSConnection), req)

    opener = urllib.request.build_opener(_HttpsRedirects, Http, Https)
    with _deadline(connections):
        return opener.open(request, timeout=_TIMEOUT_S)


@contextmanager
def _deadline(connections: list[http.client.HTTPConnection]) -> Iterator[None]:
    """Break the connections of a block that takes longer than `_PATIENCE_S`."""

    def end() -> None:
        for connection in connections:
            if connection.sock is not None:
                connection.sock.shutdown(2)

    timer = threading.Timer(_PATIENCE_S, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _store_tag(tag: Path, etag: str | None) -> None:
    """Store the ETag of this version of the file. A weak ETag ("W/...") does not guarantee the same bytes."""
    if etag is not None and etag.startswith('"') and etag.isascii():
        with NewFile(tag, shared=True, wait=True) as new:
            new.file.write(etag.encode("ascii"))
            new.commit()
    else:
        tag.unlink(missing_ok=True)


def _check_size(url: str, actual: int, size_bytes: int | None) -> None:
    if size_bytes is not None and actual != size_bytes:
        raise FetchError(f"{url} is not the expected file: it has {actual:,} bytes; expected: {size_bytes:,}")


def _accept(url: str, new: NewFile, sha256: str | None, size_bytes: int | None) -> None:
    """Check the file. Give it its name if it is the expected one, else remove it."""
    new.file.flush()
    try:
        received = new.temporary.stat().st_size
        if not received:
            raise FetchError(f"{url} sent an empty file; expected: at least one byte. Try again later")
        _check_size(url, received, size_bytes)
        actual = sha256_of(new.temporary)
        if sha256 is not None and actual != sha256:
            raise FetchError(f"{url} is not the expected file: its sha256 is {actual}; expected: {sha256}")
    except FetchError:
        new.file.truncate(0)  # nothing to resume
        raise
    finally:
        _tag_path(new).unlink(missing_ok=True)
    new.commit()


def _tag_path(new: NewFile) -> Path:
    """The file that stores the ETag of an unfinished download."""
    return new.temporary.with_name(new.temporary.name + ".etag")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(open_regular(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
