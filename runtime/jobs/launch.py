"""Start the process of a job: in a session of its own, without terminal, holding the lock of the job from its birth."""

from __future__ import annotations

import json
import os
import sys

from ..errors import LockedError, StorageError
from .job import Job

# The process gets the import path of this one: the package need not be installed.
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); import importlib; " + (
    "importlib.import_module(sys.argv[2]).main(*sys.argv[3:])"
)
_LOCK_FD = 3
_WORK = f"{__name__.rpartition('.')[0]}.work"


def launch(job: Job) -> int | None:
    """Start the process of a job, unless it has one.

    The lock goes to the process without a gap: whoever looks sees the job alive from here on until that process ends.

    Returns:
        The number of the process, for its parent to wait for; None if the job has a process.
    Raises:
        StorageError: no process can be started.
    """
    command = [sys.executable, "-c", START, json.dumps(sys.path), _WORK, os.fspath(job.path), str(_LOCK_FD)]
    try:
        with job.take_lock() as lock:
            job.clear_end()
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            return os.posix_spawn(
                sys.executable,
                command,
                os.environ,
                setsid=True,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, lock.fileno(), _LOCK_FD),
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.fspath(job.log_file), flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
            )
    except LockedError:
        return None
    except OSError as err:
        raise StorageError(f"the process of the job {job.id} cannot be started: {err.strerror or err}") from err
