"""The settings of a server, and the checks that need no engine."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import defaults
from ..errors import ConfigError, OptionError
from ..images.decode import Limits
from ..storage.segments import SegmentRules


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server answers for, to whom, and how much.

    Attributes:
        files: embedding files, each under its name without the extension.
        roots: folders below which `add` may read photos.
        host, port: the address to listen on; port 0 for a free one.
        token_file: a file with a line `NAME TOKEN` for each client; None for no tokens.
        insecure: serve without tokens on an address that other machines reach.
        names: host names of this server besides its addresses, such as that of a reverse proxy.
        engines: options of `facemill.FaceEmbedder`: engine, model, backend, detector, landmarks, align.
        latency_ms: milliseconds of a search, above which an index is made, as for `facemill.Search`.
        limits: limits of one photo, in bytes and pixels.
        max_faces: photos with more faces are refused.
        seconds: longest time of a request, from its first byte to its answer.
        places: requests that may wait for an engine.
        rate: requests of a client in a second; 0 for no limit.
        audit: file of the audit log; None for the log of the process.
        output: the folder in which jobs make embedding files; None for no jobs.
        jobs: the folder of the jobs; None for `.facemill-jobs` in the folder of their files.
        segments: limits of the segments of a job.
    Raises:
        ConfigError: two files have one name, or a root or the folder of outputs is no folder.
        OptionError: other machines reach the address, and there are no tokens.
    """

    files: tuple[Path, ...] = ()
    roots: tuple[Path, ...] = ()
    host: str = defaults.HOST
    port: int = defaults.PORT
    token_file: Path | None = None
    insecure: bool = False
    names: tuple[str, ...] = ()
    engines: Mapping[str, Any] = field(default_factory=dict)
    latency_ms: float = defaults.LATENCY_MS
    limits: Limits = field(default_factory=Limits)
    max_faces: int = defaults.MAX_FACES
    seconds: float = defaults.REQUEST_SECONDS
    places: int = defaults.PLACES
    rate: float = 0.0
    audit: Path | None = None
    output: Path | None = None
    jobs: Path | None = None
    segments: SegmentRules = field(default_factory=SegmentRules)

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and self.token_file is None and not self.insecure:
            raise OptionError(
                f"--host is {self.host}, which other machines reach, and there are no tokens. Name a file of tokens "
                f"with --token-file, or add --insecure to let everybody in who reaches this address"
            )
        names = [path.stem for path in self.files]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"two files are named {twice!r}; expected: files of different names, which routes use")
        for root in self.roots:
            if not root.is_dir():
                raise ConfigError(f"--photos is {root}; expected: a folder that exists")
        if self.output is not None and not self.output.is_dir():
            raise ConfigError(f"--output is {self.output}; expected: a folder that exists. Create it with mkdir -p")
        if self.jobs is not None and self.output is None:
            raise OptionError("--jobs was given without --output; expected: the folder in which jobs make files")

    @property
    def named_files(self) -> tuple[Path, ...]:
        """The files that the settings name, but for the audit log."""
        engines = (Path(name) for name in self.engines.values() if isinstance(name, (str, Path)))
        return (*self.files, *engines, *([] if self.token_file is None else [self.token_file]))

    @property
    def max_body(self) -> int:
        """Maximum size of a request in bytes: two photos in Base64, and what surrounds them."""
        return 2 * (4 * self.limits.max_bytes // 3) + (64 << 10)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def path_below(roots: tuple[Path, ...], name: str) -> Path | None:
    """The real path of a file or folder below one of the roots; None if it leads elsewhere, or does not exist.

    Args:
        roots: the folders.
        name: an absolute path, or one relative to a root.
    """
    if "\0" in name:
        return None
    for root in roots:
        top = os.path.realpath(root)
        path = os.path.realpath(os.path.join(top, name))
        if (path == top or path.startswith(os.path.join(top, ""))) and os.path.lexists(path):
            return Path(path)
    return None
