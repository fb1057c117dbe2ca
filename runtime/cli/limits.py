"""The limits of the process that a command needs."""

from __future__ import annotations

import resource

from ..errors import MachineError

_LEAST, _USUAL = 64, 4096  # open files


def allow_open_files() -> None:
    """Raise a limit of open files that is too low for the packages, before they fail one by one.

    Raises:
        MachineError: the system does not allow it.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= _LEAST:
        return
    if most == resource.RLIM_INFINITY or most >= _LEAST:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (_USUAL if most == resource.RLIM_INFINITY else min(most, _USUAL), most)
        )
        return
    raise MachineError(
        f"this process may open {now} files at once; expected: at least {_LEAST}. Raise the limit: ulimit -n {_USUAL}, "
        f"and run the same command again"
    )
