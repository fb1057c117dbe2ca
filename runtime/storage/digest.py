"""One digest of all that facemill wrote to an embedding file: every dataset, attribute and name.

HDF5 has checksums for the chunks of some datasets, and none for names, attributes and small datasets. The digest covers
all of them. It is over the values and not over the bytes on the disk, so that a file that was copied object by object
has the same digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from .child import Alive
from .layout import is_ours
from .salvage import read_stored

DIGEST_ATTRIBUTE = "content_sha256"  # of /metadata
_BLOCK_BYTES = 1 << 20


def content_digest(file: Any, alive: Alive = lambda: None) -> str:
    """The SHA-256 of all datasets, attributes and names of an open file, in hexadecimal digits.

    What other programs added does not count: objects with other names, and attributes of the root. Reading checks the
    checksums of all chunks, too.

    Args:
        file: an open h5py file. The attribute `content_sha256` of its `/metadata` does not count.
        alive: is called between the pieces of the work.
    Raises:
        OSError, RuntimeError: a chunk cannot be read, or is missing.
    """
    digest = hashlib.sha256()
    for part in _parts("", file):
        alive()
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


def seal(file: Any) -> None:
    """Read back all that was written to a new file, and store its digest.

    Raises:
        OSError, RuntimeError: it cannot be read back.
    """
    file.flush()
    file["metadata"].attrs[DIGEST_ATTRIBUTE] = content_digest(file)


def _parts(name: str, item: Any) -> Iterator[bytes | memoryview]:
    """The content of a group or dataset, and of all below a group, in the order of names."""
    yield name.encode("utf-8", "surrogateescape")
    for attribute in sorted(item.attrs) if name else ():
        if (name, attribute) != ("/metadata", DIGEST_ATTRIBUTE):
            yield attribute.encode("utf-8", "surrogateescape")
            yield from _values(item.attrs[attribute])
    if hasattr(item, "shape"):
        yield repr((item.dtype.str, item.shape)).encode()
        step = max(1, _BLOCK_BYTES // max(1, item.dtype.itemsize * int(np.prod(item.shape[1:], dtype=np.int64))))
        for start in range(0, item.shape[0], step):
            yield from _values(read_stored(item, start, start + step))
    else:
        for child in sorted(item):
            if is_ours(f"{name}/{child}"[1:]):
                yield from _parts(f"{name}/{child}", item[child])


def _values(values: Any) -> Iterator[bytes | memoryview]:
    if isinstance(values, str):
        yield values.encode("utf-8", "surrogateescape")
        return
    array = np.asarray(values)
    if array.dtype == object:  # of variable length
        for value in array.ravel():
            yield from _values(value)
    else:
        yield np.ascontiguousarray(array).tobytes()
