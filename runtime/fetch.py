"""Downloads that survive a cut line: resumed where they stopped, checked, and there only when whole."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import FetchError
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
    partial = path.with_name(path.name + ".partial")
    try:
        with _locked(partial):
            if path.exists():  # another process was faster
                return
            _receive_all(url, partial, size_bytes, listener)
            _accept(url, partial, path, sha256, size_bytes)
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
            f"{partial} cannot be written ({err.strerror or err}). Mend that and run the same command: "
            "what has arrived is kept"
        ) from err


def _receive_all(url: str, partial: Path, size_bytes: int | None, listener: Listener | None) -> None:
    for attempt in range(1, _TRIES + 1):
        try:
            _receive(url, partial, size_bytes, listener)
            return
        except (http.client.HTTPException, ConnectionError, TimeoutError, ssl.SSLError) as err:
            if attempt == _TRIES:
                raise FetchError(f"{url} broke off {_TRIES} times ({err}); run the same command to go on") from err


def _receive(url: str, partial: Path, size_bytes: int | None, listener: Listener | None) -> None:
    """Add what is missing to the partial file, or start over if the file at the address is another one by now."""
    tag = partial.with_name(partial.name + ".etag")
    have = partial.stat().st_size if partial.exists() else 0
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
    with answer, partial.open("ab") as file:
        goes_on = answer.status == 206
        total = None if answer.length is None else answer.length + have * goes_on
        if total is not None:
            _check_size(url, total, size_bytes)
        if not goes_on:
            file.truncate(0)
            have = 0
            _remember(tag, answer.headers.get("ETag"))
        with Reporter(partial.stem, total or 0, done=have, unit="bytes", listener=listener) as reporter:
            while block := answer.read(_BLOCK_BYTES):
                file.write(block)
                reporter.advance(len(block))
        if answer.length:
            raise http.client.HTTPException(f"{answer.length:,} bytes did not come")
        file.flush()
        os.fsync(file.fileno())


def _remember(tag: Path, etag: str | None) -> None:
    """Keep the server's name for this version of the file; a weak one ("W/...") does not promise the same bytes."""
    if etag is not None and etag.startswith('"') and etag.isascii():
        tag.write_text(etag, encoding="ascii")
    else:
        tag.unlink(missing_ok=True)


def _check_size(url: str, seen: int, size_bytes: int | None) -> None:
    if size_bytes is not None and seen != size_bytes:
        raise FetchError(f"{url} gave another file: it has {seen:,} bytes; expected: {size_bytes:,}")


def _accept(url: str, partial: Path, path: Path, sha256: str | None, size_bytes: int | None) -> None:
    """Give the file its name when it is the right one, and remove it when it is not."""
    try:
        _check_size(url, partial.stat().st_size, size_bytes)
        seen = sha256_of(partial)
        if sha256 is not None and seen != sha256:
            raise FetchError(f"{url} gave another file: its sha256 is {seen}; expected: {sha256}")
    except FetchError:
        partial.unlink()
        raise
    finally:
        partial.with_name(partial.name + ".etag").unlink(missing_ok=True)
    partial.replace(path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """One download of a file at a time; a kill releases the lock."""
    with partial.with_name(partial.name + ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning("another process is fetching %s: waiting for it", partial.with_suffix(""))
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
