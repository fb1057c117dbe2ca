"""Tell photos from other files: by their endings, else by their first bytes, and by patterns for names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .. import contents
from ..errors import MachineError
from ..regular import NotRegular, read_start

EXTENSIONS = frozenset({b".jpg", b".jpeg", b".png", b".bmp", b".webp", b".tif", b".tiff", b".jp2", b".avif"})
# Thumbnails and notes of NAS boxes and operating systems: copies of photos, or no photos in spite of their names.
LEFT_OUT = (
    "@eaDir", "#recycle", "#snapshot", ".@__thumb", "@Recycle", ".thumbnails", "._*", ".AppleDouble", "__MACOSX",
    ".Trash*", "$RECYCLE.BIN", ".Spotlight-V100", ".fseventsd", ".picasaoriginals", ".DS_Store", "Thumbs.db",
)  # fmt: skip
FIRST_LEFT_OUT = bytes({ord(pattern[0]) for pattern in LEFT_OUT})  # the first letters of these names
_SNIFF_BYTES = 32
# A raw file of a camera is a TIFF file by its first bytes, and its first picture is a thumbnail.
_RAW = frozenset({b".3fr", b".arw", b".cr2", b".dng", b".erf", b".nef", b".nrw", b".orf", b".pef", b".rw2", b".srw"})


@dataclass(frozen=True, slots=True)
class Patterns:
    """Globs for the names of files and folders, as on the command line.

    A pattern without a slash is compared with every name in a path, one with a slash with the end of the path.

    Attributes:
        include: if not empty, only files below a matching name are taken; a name of LEFT_OUT that matches is taken too.
        exclude: what matches is left out, and a folder with all below it.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def usual_only(self) -> bool:
        """Whether there are no patterns but those of LEFT_OUT."""
        return not self.include and not self.exclude

    def excluding(self, name: bytes, path: bytes, *, usual: bool) -> str:
        """The pattern that leaves out a file or folder; empty for none.

        Args:
            name: its name.
            path: its whole path.
            usual: whether LEFT_OUT counts too.
        """
        pattern = _first_match(self.exclude, name, path)
        if not pattern and usual and not _first_match(self.include, name, path):
            pattern = _first_match(LEFT_OUT, name, path)
        return pattern

    def excluding_path(self, path: bytes) -> str:
        """The pattern of --exclude that leaves out a file or a folder above it; empty for none."""
        parts = path.split(b"/")
        return next(
            filter(
                None,
                (
                    self.excluding(parts[i], b"/".join(parts[: i + 1]), usual=False)
                    for i in range(len(parts) - 1, 0, -1)
                ),
            ),
            "",
        )

    def including(self, path: bytes) -> bool:
        """Whether a file is to be taken, by its path below the named folder."""
        if not self.include:
            return True
        parts = path.split(b"/")
        return any(
            _first_match(self.include, parts[i], b"/".join(parts[: i + 1])) for i in range(len(parts) - 1, -1, -1)
        )


def _first_match(patterns: Sequence[str], name: bytes, path: bytes) -> str:
    for pattern in patterns:
        glob = os.fsencode(pattern.rstrip("/"))
        if fnmatchcase(name, glob) if b"/" not in glob else fnmatchcase(path, b"*/" + glob.lstrip(b"/")):
            return pattern
    return ""


def is_photo_name(name: bytes) -> bool:
    """Whether a name has the ending of a photo, in any case."""
    return name[name.rfind(b".") :].lower() in EXTENSIONS


def is_photo(path: bytes) -> bool:
    """Whether a file is a photo by its first bytes, whatever its name. Never blocks; False if it cannot be read.

    Raises:
        MachineError: the machine cannot read it now.
    """
    return os.path.splitext(path)[1].lower() not in _RAW and contents.is_photo(_first_bytes(path))


def describe_file(path: bytes) -> str:
    """What a file that is no photo is, for a message."""
    kind = contents.kind_of(_first_bytes(path, contents.SNIFF_BYTES))
    return kind if kind not in ("", contents.TEXT) else "no photo that facemill reads"


def kind_of(name: bytes) -> str:
    """The ending of a name, as the kind of what was passed over: `heic`, or `without ending`."""
    return os.path.splitext(name)[1][1:].lower().decode("utf-8", "backslashreplace") or "without ending"


def passed_over_text(passed_over: Sequence[tuple[str, int]]) -> str:
    """What was passed over, for people; empty for nothing: `passed over: heic 12, @eaDir 3`."""
    most = sorted(passed_over, key=lambda pair: (-pair[1], pair[0]))
    text = ", ".join(f"{kind} {count:,}" for kind, count in most[:12])
    others = f", {len(most) - 12:,} more kinds" if len(most) > 12 else ""
    return f"passed over: {text}{others}" if most else ""


def _first_bytes(path: bytes, count: int = _SNIFF_BYTES) -> bytes:
    try:
        return read_start(path, count)
    except NotRegular:
        return b""
    except OSError as err:
        return _nothing(err, path)


def _nothing(err: OSError, path: bytes) -> bytes:
    """No bytes of a file that cannot be read; raises if the machine is the reason."""
    from .reader import read_error  # it imports numpy, for which `--help` would wait

    error = read_error(err, path)
    if isinstance(error, MachineError):
        raise error from err
    return b""
