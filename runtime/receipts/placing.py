"""Place a photo of an embedding file in a folder: a link to it, or a copy of it."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from enum import Enum
from pathlib import Path

from ..access import access_like
from ..errors import ConfigError, FacemillError
from ..files import storage_error
from ..images.header import SNIFF_BYTES, is_image
from ..sources.reader import ReadError, open_below
from ..storage.file import EmbeddingFile
from ..tree import Tree

MODES = ("symlink", "hardlink", "copy")
_NO_HARDLINK_ERRORS = {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}


class Placed(Enum):
    """What became of a photo."""

    WRITTEN = "written"
    MISSING = "missing"
    REFUSED = "refused"


# Puts a photo (its name below the root) under a name below a folder, which must be free.
Place = Callable[[bytes, str], Placed]


def placer(mode: str, embeddings: EmbeddingFile, tree: Tree) -> Place:
    """The function that places the photos of a file in a mode, below a folder."""
    root = embeddings.root

    def symlink(photo: bytes, target: str) -> Placed:
        path = os.path.join(root, photo)
        if not os.path.isfile(path):
            return Placed.MISSING
        tree.symlink(os.path.realpath(path), target)  # a link to a link breaks when the first one moves
        return Placed.WRITTEN

    def with_open(write: Callable[[int, str], None]) -> Place:
        def place(photo: bytes, target: str) -> Placed:
            try:
                fd = open_below(root, photo)
            except ReadError:
                return Placed.REFUSED if os.path.lexists(os.path.join(root, photo)) else Placed.MISSING
            try:
                if not is_image(os.pread(fd, SNIFF_BYTES, 0)):
                    return Placed.REFUSED
                write(fd, target)
            finally:
                os.close(fd)
            return Placed.WRITTEN

        return place

    def copy(fd: int, target: str) -> None:
        # The photo may be more private than the embedding file: nobody may read the copy who may not read both.
        both = (embeddings.path, Path(f"/proc/self/fd/{fd}"))
        with tree.new_file(target, access_like(both)) as output:
            with open(fd, "rb", closefd=False) as source:
                shutil.copyfileobj(source, output, 1 << 20)
            output.flush()
            status = os.fstat(fd)
            os.utime(output.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))

    return {"symlink": symlink, "hardlink": with_open(tree.link), "copy": with_open(copy)}[mode]


def placing_error(err: OSError, what: str, folder: Path, mode: str) -> FacemillError:
    """The error to raise for a failure of the system while photos are placed in a folder."""
    if mode == "hardlink" and err.errno in _NO_HARDLINK_ERRORS:
        return ConfigError(
            f"hard links to the photos cannot be created in {folder} ({err.strerror}); expected: one file system. Use "
            f"--mode copy, or --mode symlink"
        )
    return err if isinstance(err, FacemillError) else storage_error(err, what, folder)
