"""The boundary around the work on one photo: whatever goes wrong inside is a property of that photo.

A photo comes from strangers, and the libraries that decode and warp it raise errors of many kinds. None of them may
end a run. What is raised on purpose, or says something about the machine, passes.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TypeVar

import numpy as np

from ..errors import FacemillError, MachineError
from ..records import Status

logger = logging.getLogger(__name__)

In = TypeVar("In")
Out = TypeVar("Out")

# Errors of the engine, the disk and the installation: no photo causes them.
MACHINE_FAULTS = (FacemillError, OSError, ImportError)

_PROBE_BYTES = 64 << 20  # a machine that cannot give so much has no memory; else the photo asked for too much
_CV2_NO_MEMORY = -4  # cv2.Error.STS_NO_MEM

_lock = threading.Lock()
_logged: set[tuple[str, str, int]] = set()  # kind of exception, file and line: one traceback each


class ImageError(FacemillError, ValueError):
    """The work on one photo failed. It becomes the outcome of that photo.

    Attributes:
        status: CORRUPT, UNSUPPORTED, or UNREADABLE if memory runs out.
        detail: why, for the outcome.
    """

    def __init__(self, status: Status, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@contextmanager
def one_photo(step: str, name: bytes = b"") -> Iterator[None]:
    """Turn any exception of the block into an ImageError, and log one traceback for each place that raises.

    Args:
        step: what the block does with the photo, a verb.
        name: name of the photo, for the log; empty if unknown.
    Raises:
        ImageError: the block failed.
        MachineError: the machine has no memory left, for any photo.
        FacemillError, OSError, ImportError: a fault of the machine, unchanged.
    """
    try:
        yield
    except MACHINE_FAULTS:
        raise
    except Exception as err:
        if _is_out_of_memory(err):
            raise _no_memory(step, name, err) from err
        _log_once(step, name, err)
        reason = " ".join(f"{type(err).__name__}: {err}".split())
        raise ImageError(Status.CORRUPT, f"internal error: cannot {step} it: {reason}") from err


def each_photo(
    step: str, work: Callable[[Sequence[In]], Sequence[Out]], photos: Sequence[In], names: Sequence[bytes]
) -> list[Out | ImageError]:
    """Work on many photos at once. If that fails, work on each alone, so that only the photo that fails is lost.

    Args:
        step: what `work` does with a photo, a verb.
        work: n photos to n results, in the same order.
        photos: the photos.
        names: their names, for the log; empty if unknown.
    Raises:
        FacemillError, OSError, ImportError: a fault of the machine.
    """
    try:
        return list(work(photos))
    except MACHINE_FAULTS:
        raise
    except Exception:  # a photo caused it; the next lines find out which
        results: list[Out | ImageError] = []
    for photo, name in zip(photos, names, strict=True):
        try:
            with one_photo(step, name):
                results.extend(work([photo]))
        except ImageError as err:
            results.append(err)
    return results


def _is_out_of_memory(err: Exception) -> bool:
    """Whether Python, NumPy or OpenCV could not allocate memory."""
    of_opencv = type(err).__module__ == "cv2" and getattr(err, "code", None) == _CV2_NO_MEMORY
    return isinstance(err, MemoryError) or of_opencv


def _no_memory(step: str, name: bytes, err: Exception) -> ImageError | MachineError:
    """Whose fault it is that there is no memory: that of a photo that asks for too much, or of the machine."""
    traceback.clear_frames(err.__traceback__)  # the arrays of the failed work
    try:
        np.empty(_PROBE_BYTES, np.uint8)
    except MemoryError:
        photo = name.decode("utf-8", "backslashreplace") or "a photo"
        return MachineError(
            f"there is no memory to {step} {photo}; expected: {_PROBE_BYTES >> 20} MB that are free. Nothing is "
            f"recorded for it. Close other programs or raise the limit (ulimit -v), then run the same command again "
            f"to go on"
        )
    reason = " ".join(str(getattr(err, "err", "") or err).split())
    return ImageError(Status.UNREADABLE, f"no memory to {step} it{f': {reason}' if reason else ''}")


def _log_once(step: str, name: bytes, err: Exception) -> None:
    """Log the traceback of the first exception of each kind and place; others only at the level DEBUG."""
    place = (type(err).__name__, *_raised_at(err.__traceback__))
    with _lock:
        level = logging.DEBUG if place in _logged else logging.WARNING
        _logged.add(place)
    photo = name.decode("utf-8", "backslashreplace") or "a photo"
    logger.log(level, "cannot %s %s; it gets an outcome, and the run goes on", step, photo, exc_info=err)


def _raised_at(trace: TracebackType | None) -> tuple[str, int]:
    """File and line of the innermost frame."""
    where = "", 0
    while trace is not None:
        where, trace = (trace.tb_frame.f_code.co_filename, trace.tb_lineno), trace.tb_next
    return where
