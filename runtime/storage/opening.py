"""Open an HDF5 file that anybody may have made: the one way for all readers.

`open_hdf5` opens it and looks at the places where HDF5 itself could hang. `layout.check_layout` then looks at every
object, before any content is read. The attributes of `/metadata` have a table of their own here.
"""

from __future__ import annotations

import errno
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import FacemillError, LockedError, StorageError
from ..extras import require
from ..regular import NotRegular, open_regular
from .child import Alive, run_in_child
from .heaps import check_attribute_texts
from .layout import check_item
from .steady import DAMAGE_ERRNO, SteadyFile, steady_file_of

# Errors that h5py raises for a damaged file, depending on the position of the damage. Damage that makes a file
# another valid file raises what Python raises for a wrong value.
DAMAGE = (
    OSError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    IndexError,
    OverflowError,
    MemoryError,
)
# File systems without locks. Nobody can lock a file there, so that nothing is lost by reading without a lock.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)

_MAX_ATTRIBUTES = 1000
_MAX_ATTRIBUTE_BYTES = 1 << 20
_INTEGERS = frozenset({"format_version", "dimension", "limit", "max_bytes", "max_pixels", "scanned", "embedded"})
_NUMBERS = frozenset(
    {"min_score", "min_iod", "min_sharpness", "min_frontal", "min_brightness", "min_contrast", "max_fit"}
)
_FLAGS = frozenset({"trained", "skip_duplicates"})
_TEXTS = frozenset(
    [
        *("run_id", "plan_id", "root", "model", "model_sha256", "recipe", "warning", "crop", "alignment", "exif"),
        *("channel_order", "decode", "decoder", "align", "faces", "detector", "detector_sha256", "detector_precision"),
        *("landmarks", "landmarks_sha256", "landmarks_precision", "landmarks_engine"),
        *("detector_views", "detector_engine", "precision", "calibration", "dtype", "backend", "backend_version"),
        *(
            "content_sha256",
            "pages",
            "engine",
            "engine_sha256",
            "score_calibration",
            "contract",
            "started_utc",
            "finished_utc",
            "tool_version",
        ),
    ]
)


def open_hdf5(path: Path) -> Any:
    """Open an HDF5 file for reading, as an h5py file.

    It holds a shared lock, as HDF5 does, where the file system has locks.

    Raises:
        StorageError: there is no such file, it is no regular file, or the system prevents reading it.
        LockedError: another program has opened it for writing.
        OSError, RuntimeError, ValueError: it is no HDF5 file, or its first objects are damaged.
    """
    check_regular(path)
    file = _open(path)
    try:
        _require_regular(file.id.get_vfd_handle(), path)
        _check_texts(file, path)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def open_steadily(path: Path) -> Iterator[Any]:
    """Open an HDF5 file like `open_hdf5`, to judge its content or to save it: no error of the machine counts as damage.

    Raises:
        StorageError: see `open_hdf5`; also at the end of the block, instead of its own error, if the machine could not
            read a part of the file in the block.
        LockedError, OSError, RuntimeError, ValueError: see `open_hdf5`.
    """
    h5py = require("h5py")
    check_regular(path)
    try:
        steady = SteadyFile(path)
    except OSError as err:
        refuse_system_error(err, path)
        raise
    with steady:
        _require_regular(steady.fileno(), path)
        try:
            with h5py.File(steady, "r") as file:
                _check_texts(file, path)
                yield file
        finally:
            if steady.failure is not None:
                refuse_system_error(steady.failure, path)


def refuse_failed_reads(file: Any) -> None:
    """Raise if the machine could not read a part of a file of `open_steadily` so far: call it before any conclusion.

    Raises:
        StorageError: it could not.
    """
    steady = steady_file_of(file)
    if steady is not None and steady.failure is not None:
        refuse_system_error(steady.failure, steady.path)


def _require_regular(descriptor: int, path: Path) -> None:
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise StorageError(f"{path} was replaced by something that is no regular file")


def _open(path: Path) -> Any:
    """Open a regular file with HDF5."""
    h5py = require("h5py")  # first: what its import raises says nothing about the file
    try:
        return h5py.File(path, "r")
    except OSError as err:
        # HDF5 opens a file twice in one process only with the same rule for locks.
        if err.errno not in _NO_LOCKS and "locking flag" not in str(err):
            refuse_system_error(err, path)
            raise
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as err:
        refuse_system_error(err, path)
        raise


def _check_texts(file: Any, path: Path) -> None:
    """Check the heaps of the attributes that every reader reads; HDF5 tries in a child what `heaps` cannot follow."""
    items = [file, check_item(file, "metadata")] if b"metadata" in file["/"].id else [file]
    if not all([check_attribute_texts(item) for item in items]):
        run_in_child("attributes", path)


def read_all_attributes(path: Path, alive: Alive) -> None:
    """Read the attributes that every reader reads, in a child."""
    with _open(path) as file:
        for item in (file, check_item(file, "metadata")):
            for name in item.attrs:
                alive()
                item.attrs[name]


def check_regular(path: Path) -> None:
    """Refuse what is not a regular file; a FIFO would keep its reader waiting for ever.

    Raises:
        StorageError: it does not exist, is a folder, a device, a pipe or a socket, or cannot be opened.
    """
    wanted = "a finished file of `facemill process`"
    try:
        os.close(open_regular(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError: a NUL byte in the name
        parts = f"{path}.parts"  # see `runfolder.folder_of`
        if os.path.isdir(parts) and os.path.exists(os.path.join(parts, "plan.json")):
            raise StorageError(
                f"there is no file {path} yet: a run is writing it, or was stopped ({parts}). Wait until it has "
                f"finished, or resume it with the command that started it"
            ) from None
        raise StorageError(
            f"there is no file {path}; expected: {wanted}. Create it with: facemill process PHOTOS -o {path}"
        ) from None
    except NotRegular as err:
        raise StorageError(f"{path} is {err.kind}; expected: {wanted}") from err
    except OSError as err:
        refuse_system_error(err, path)
        raise


def refuse_system_error(err: Exception, path: Path) -> None:
    """Raise if a file could not be read for a reason outside it: another program, no permission, a bad disk.

    Raises:
        LockedError: another program writes it.
        StorageError: another reason outside the file.
        FacemillError: the error itself, if it is one: it says what is wrong.
    """
    if isinstance(err, FacemillError):
        raise err
    if isinstance(err, MemoryError):
        raise StorageError(f"{path} cannot be read: not enough memory. Close other programs and try again") from err
    number = _errno_of(err)
    if not number or number in DAMAGE_ERRNO:
        return
    if number in (errno.EAGAIN, errno.EWOULDBLOCK):
        raise LockedError(
            f"{path} is in use by another program, which has opened it for writing. Wait until that program has "
            f"closed it; the file may be intact"
        ) from err
    reason = "permission denied" if number in (errno.EACCES, errno.EPERM) else os.strerror(number)
    raise StorageError(
        f"{path} cannot be read: {reason}. The file itself may be intact. Fix that and run the same command again"
    ) from err


def _errno_of(err: BaseException | None) -> int:
    """The system's error number behind an exception of h5py, which may only name it in its text; 0 for none."""
    number = getattr(err, "errno", None)
    if number:
        return int(number)
    named = re.search(r"\berrno = (\d+)", str(err)) if isinstance(err, DAMAGE) else None
    return int(named[1]) if named else 0


def is_system_error(err: StorageError) -> bool:
    """Whether an error of opening a file says nothing about its content."""
    return _errno_of(err.__cause__) not in (0, *DAMAGE_ERRNO)


def read_attributes(hdf5: Any, findings: list[str] | None = None) -> dict[str, Any]:
    """Read the attributes of `/metadata` of an open file, as Python text, numbers and bools.

    Args:
        hdf5: an open file.
        findings: receives a sentence for each wrong attribute, which is left out; None to raise instead.
    Raises:
        ValueError: an attribute is not a single text or number, is too large, or has the wrong type for its name; or
            there is no `/metadata`.
    """
    import h5py

    group = check_item(hdf5, "metadata")
    values: dict[str, Any] = {}
    for number in range(_bounded(h5py.h5a.get_num_attrs(group.id))):
        attribute = h5py.h5a.open(group.id, index=number)
        try:
            name = attribute.name.decode()
        except UnicodeDecodeError:
            continue  # a damaged name
        try:
            values[name] = read_attribute(group, name)
        except ValueError as err:
            if findings is None:
                raise
            findings.append(str(err))
    return values


def _bounded(count: int) -> int:
    if count > _MAX_ATTRIBUTES:
        raise ValueError(f"/metadata has {count:,} attributes; expected: at most {_MAX_ATTRIBUTES:,}")
    return int(count)


def read_attribute(item: Any, name: str) -> Any:
    """Read one attribute of an open object: text, a number or a bool.

    Raises:
        ValueError: it is missing, is not a single text or number, is too large, or has the wrong type for its name.
    """
    import h5py

    if name not in item.attrs:
        raise ValueError(f"the attribute {name} of {item.name} is missing")
    attribute = h5py.h5a.open(item.id, name.encode())
    kind, what = attribute.get_type(), f"the attribute {name[:100]} of {item.name}"
    single = attribute.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
    known = kind.get_class() in (h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM)
    if not single or not known or kind.get_size() > _MAX_ATTRIBUTE_BYTES:
        raise ValueError(f"{what} is a list, a reference or empty; expected: {_expected(name)}")
    value = item.attrs[name]
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bytes):
        value = value.decode("utf-8", "surrogateescape")
    if not _is_right(name, value):
        raise ValueError(f"{what} is {value!r:.100}; expected: {_expected(name)}")
    return value


def _is_right(name: str, value: object) -> bool:
    """Whether the value of an attribute of `/metadata` has the type of its name."""
    if isinstance(value, str):
        return (
            len(value) <= _MAX_ATTRIBUTE_BYTES
            and not any(character == "\0" or "\udc80" <= character <= "\udcff" for character in value)  # no text
            and not name.startswith("count_")
            and name not in (_INTEGERS | _NUMBERS | _FLAGS)
        )
    if name in _TEXTS or not isinstance(value, (bool, int, float)):
        return False
    if name in _FLAGS:
        return isinstance(value, bool)
    if name in _INTEGERS or name.startswith("count_"):
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63
    return math.isfinite(value)


def _expected(name: str) -> str:
    """What an attribute must be, for an error."""
    if name in _INTEGERS or name.startswith("count_"):
        return "a whole number from 0"
    if name in _NUMBERS:
        return "a number"
    if name in _FLAGS:
        return "true or false"
    return "text" if name in _TEXTS else f"text of at most {_MAX_ATTRIBUTE_BYTES:,} bytes, or a number"
