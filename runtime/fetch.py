"""Downloads that resume after a broken connection, are checked, and appear only when complete."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import ssl
import urllib.error
import urllib.request
from pathlib import Path

from .errors import FetchError
from .files import NewFile, temporary_path
from .progress import Listener, Reporter

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 20.0
_TRIES = 4


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
        url: http or https address.
        path: path of the file. It appears there complete and checked, or not at all.
        sha256: hexadecimal checksum; None to trust the address.
        size_bytes: size of the file; None if unknown.
        listener: receives the progress; None logs a line every five seconds.
    Raises:
        FetchError: there is no connection, the server refuses, the file is not the expected one, or the disk is full.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"the address {url} is neither http nor https")
    try:
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
            request.add_header("If-Range", tag.read_text(encoding="ascii"))
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as err:
        if err.code != 416:
            raise
        err.close()  # no bytes are missing: the file is complete, or the checksum will fail
        return
    file = new.file
    with response:
        resumes = response.status == 206
        total = None if response.length is None else response.length + received * resumes
        if total is not None:
            _check_size(url, total, size_bytes)
        if not resumes:
            file.truncate(0)
            received = file.seek(0)
            _store_tag(tag, response.headers.get("ETag"))
        with Reporter(new.path.name, total or 0, done=received, unit="bytes", listener=listener) as reporter:
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                reporter.advance(len(block))
        if response.length:
            raise http.client.HTTPException(f"{response.length:,} bytes are missing")


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
        _check_size(url, new.temporary.stat().st_size, size_bytes)
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
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
