"""Downloads that survive a cut line: resumed where they stopped, checked, and there only when whole."""

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
    """Download a file. A line that breaks is taken up again, now or by the next call.

    Args:
        url: http or https address.
        path: where the file is to be; it appears there whole and checked, or not at all.
        sha256: hexadecimal checksum, None to trust the address.
        size_bytes: size of the file; None where unknown.
        listener: shows the progress; None logs a line every five seconds.
    Raises:
        FetchError: no connection, a refusal, another file than expected, no room.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"the address {url} is neither http nor https")
    try:
        with NewFile(path, wait=True, resume=True) as new:
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
        raise FetchError(f"{url} is no address: {err}") from err
    except OSError as err:
        raise FetchError(
            f"{temporary_path(path)} cannot be written ({err.strerror or err}). Fix that and run the same command "
            "again: the received bytes are kept"
        ) from err


def _receive_all(url: str, new: NewFile, size_bytes: int | None, listener: Listener | None) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _receive(url, new, size_bytes, listener)
            return
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as err:
            if attempt == _TRIES:
                raise FetchError(f"{url} broke off {_TRIES} times ({err}); run the same command to go on") from err


def _receive(url: str, new: NewFile, size_bytes: int | None, listener: Listener | None) -> None:
    """Append the missing bytes to the temporary file, or start over if the file at the address has changed."""
    tag = _tag_path(new)
    have = new.file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={"User-Agent": "facemill", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
        if tag.exists():
            request.add_header("If-Range", tag.read_text(encoding="ascii"))
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as err:
        if err.code != 416:
            raise
        err.close()  # nothing lies beyond what is here: it is whole, or the checksum will say so
        return
    file = new.file
    with answer:
        goes_on = answer.status == 206
        total = None if answer.length is None else answer.length + have * goes_on
        if total is not None:
            _check_size(url, total, size_bytes)
        if not goes_on:
            file.truncate(0)
            have = file.seek(0)
            _remember(tag, answer.headers.get("ETag"))
        with Reporter(new.path.name, total or 0, done=have, unit="bytes", listener=listener) as reporter:
            while block := answer.read(_BLOCK_BYTES):
                file.write(block)
                reporter.advance(len(block))
        if answer.length:
            raise http.client.HTTPException(f"{answer.length:,} bytes did not come")


def _remember(tag: Path, etag: str | None) -> None:
    """Keep the server's name for this version of the file; a weak one ("W/...") does not promise the same bytes."""
    if etag is not None and etag.startswith('"') and etag.isascii():
        with NewFile(tag, wait=True) as new:
            new.file.write(etag.encode("ascii"))
            new.commit()
    else:
        tag.unlink(missing_ok=True)


def _check_size(url: str, seen: int, size_bytes: int | None) -> None:
    if size_bytes is not None and seen != size_bytes:
        raise FetchError(f"{url} gave another file: it has {seen:,} bytes; expected: {size_bytes:,}")


def _accept(url: str, new: NewFile, sha256: str | None, size_bytes: int | None) -> None:
    """Give the file its name when it is the expected one, and remove it when it is not."""
    new.file.flush()
    try:
        _check_size(url, new.temporary.stat().st_size, size_bytes)
        actual = sha256_of(new.temporary)
        if sha256 is not None and actual != sha256:
            raise FetchError(f"{url} gave another file: its sha256 is {actual}; expected: {sha256}")
    except FetchError:
        new.file.truncate(0)  # nothing to resume
        raise
    finally:
        _tag_path(new).unlink(missing_ok=True)
    new.commit()


def _tag_path(new: NewFile) -> Path:
    """Where the server's name for the version of an unfinished download is kept."""
    return new.temporary.with_name(new.temporary.name + ".etag")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
