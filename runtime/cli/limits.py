"""The limits of the process that a command needs."""

from __future__ import annotations

import resource

from ..errors import MachineError

_LEAST, USUAL = 64, 4096  # open files


def allow_open_files(least: int = _LEAST) -> None:
    """Raise a limit of open files that is too low for the packages, before they fail one by one.

    Args:
        least: a limit that is not raised. One that the system does not allow is no error if the packages need less.
    Raises:
        MachineError: the system does not allow what the packages need.
    """
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now == resource.RLIM_INFINITY or now >= least:
        return
    if most == resource.RLIM_INFINITY or most >= _LEAST:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (USUAL if most == resource.RLIM_INFINITY else min(most, USUAL), most)
        )
        return
    raise MachineError(
        f"this process may open {now} files at once; expected: at least {_LEAST}. Raise the limit: ulimit -n {USUAL}, "
        f"and run the same command again"
    )
