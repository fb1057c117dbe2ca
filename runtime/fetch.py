"""Downloads that survive a cut line: resumed where they stopped, checked, and there only when whole."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import FetchError

if TYPE_CHECKING:
    from rich.progress import Progress

_BLOCK_BYTES = 1 << 18
_TIMEOUT_S = 20.0
_TRIES = 4


def fetch(url: str, path: Path, *, sha256: str | None = None, size_bytes: int | None = None) -> None:
    """Download a file. A line that breaks is taken up again, now or by the next call.

    Args:
        url: http or https address.
        path: where the file is to be; it appears there whole and checked, or not at all.
        sha256: hexadecimal checksum, None to trust the address.
        size_bytes: expected size, for the progress and a full disk; None where unknown.
    Raises:
        FetchError: no connection, a refusal, another file than expected, no room.
    """
    if not url.startswith(("http://", "https://")):
        raise FetchError(f"the address {url} is neither http nor https")
    partial = path.with_name(path.name + ".partial")
    try:
        with _locked(partial), _progress(path.name, size_bytes) as report:
            if path.exists():  # another process was faster
                return
            for attempt in range(1, _TRIES + 1):
                try:
                    _receive(url, partial, report)
                    break
                except (http.client.HTTPException, ConnectionError, TimeoutError) as err:
                    if attempt == _TRIES:
                        raise FetchError(
                            f"{url} broke off {_TRIES} times ({err}); run the same command to go on"
                        ) from err
            _accept(url, partial, path, sha256)
    except urllib.error.HTTPError as err:
        raise FetchError(f"{url} answered {err.code} {err.reason}") from err
    except urllib.error.URLError as err:
        raise FetchError(f"{url} cannot be reached ({err.reason})") from err
    except FetchError:
        raise
    except OSError as err:
        raise FetchError(f"{partial} cannot be written ({err.strerror or err})") from err


def _receive(url: str, partial: Path, report: _Report) -> None:
    """Add what is missing to the partial file."""
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "facemill", "Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as err:
        if err.code != 416:
            raise
        err.close()  # nothing lies beyond what is here: it is whole, or the checksum will say so
        return
    with answer, partial.open("ab") as file:
        if answer.status != 206:  # the server sends everything: start over
            file.truncate(0)
            have = 0
        expected = answer.length
        report.at(have, have + expected if expected is not None else None)
        while block := answer.read(_BLOCK_BYTES):
            file.write(block)
            have += len(block)
            report.at(have, None)
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
        file.flush()
        os.fsync(file.fileno())


def _accept(url: str, partial: Path, path: Path, sha256: str | None) -> None:
    """Give the file its name when it is the right one."""
    digest = hashlib.sha256()
    with partial.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if sha256 is not None and digest.hexdigest() != sha256:
        partial.unlink()
        raise FetchError(f"{url} gave another file: its sha256 is {digest.hexdigest()}; wanted: {sha256}")
    partial.replace(path)


@contextmanager
def _locked(partial: Path) -> Iterator[None]:
    """One download of a file at a time; a kill releases the lock."""
    with partial.with_name(partial.name + ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _Report:
    """Bytes so far, on a terminal; silent on a pipe."""

    def __init__(self, progress: Progress | None, task: Any) -> None:
        self._progress = progress
        self._task = task

    def at(self, done: int, total: int | None) -> None:
        """Say how far it is, and how far it goes; None leaves that as it was."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)


@contextmanager
def _progress(name: str, size_bytes: int | None) -> Iterator[_Report]:
    if not sys.stderr.isatty():
        yield _Report(None, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        yield _Report(progress, progress.add_task(name, total=size_bytes))
