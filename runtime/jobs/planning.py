"""Estimate a job before its start, in a process of its own: the list of millions of photos goes with it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from .. import errors
from ..errors import BusyError, FacemillError, MachineError
from .launch import START
from .request import JobRequest

_MAX_S = 600.0  # a scan of millions of photos on a slow disk
_LOOK_EVERY_S = 0.5


def plan(request: JobRequest, is_ending: Callable[[], bool]) -> dict[str, Any]:
    """Estimate the photos, time, disk and memory of a job, on this machine. Nothing is written.

    Args:
        request: the job.
        is_ending: whether the server ends and waits for nothing.
    Returns:
        For JSON: number of photos, model, what is passed over, and for time, disk and memory the value, its basis and
        what does not fit.
    Raises:
        FacemillError: there are no photos, or an engine cannot be used.
        BusyError: the server ends.
        MachineError: the process ended without a word, or takes too long.
    """
    command = [sys.executable, "-c", START, json.dumps(sys.path), __name__]
    pipe = subprocess.PIPE
    try:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL) as child:
            try:
                said = json.loads(_answer(child, request.encode(), is_ending))
            finally:
                child.kill()
    except (OSError, ValueError) as err:
        raise MachineError(f"the process that plans the job ended without an answer: {err}") from err
    if "error" in said:
        raise getattr(errors, said["class"])(said["error"])
    result: dict[str, Any] = said["plan"]
    return result


def _answer(child: subprocess.Popen[bytes], question: bytes, is_ending: Callable[[], bool]) -> bytes:
    until_s = time.monotonic() + _MAX_S
    rest: bytes | None = question
    while time.monotonic() < until_s:
        try:
            return child.communicate(rest, timeout=_LOOK_EVERY_S)[0]
        except subprocess.TimeoutExpired:
            rest = None  # it is on its way
            if is_ending():
                raise BusyError("the server is ending; expected: a server that runs. Send the request again") from None
    raise MachineError(f"there is no plan after {_MAX_S:.0f} s. Look at the disk of the photos")


def main() -> None:
    """Read a request from stdin, and print its plan."""
    try:
        with redirect_stdout(sys.stderr):  # a library that prints must not disturb the answer
            said: dict[str, Any] = {"plan": _plan(JobRequest.decode(sys.stdin.buffer.read()))}
    except FacemillError as err:
        said = {"class": type(err).__name__, "error": err.message}
    print(json.dumps(said))


def _plan(request: JobRequest) -> dict[str, Any]:
    from ..engines.choose import choose_engine
    from ..engines.engine import read_engine
    from ..estimate.estimate import estimate
    from ..sources.kinds import Patterns

    choice, options = request.engine_choice(), request.options
    engine = None if choice.get("engine") is None else read_engine(Path(choice["engine"]))
    if engine is None and choice.get("backend", "auto") != "auto":
        engine = choose_engine(None, model=choice.get("model"), backend=choice["backend"])
    facts = estimate(
        request.photos,
        patterns=Patterns(options.include, options.exclude),
        engine=engine,
        model=None if engine is not None else choice.get("model"),
        align=request.align,
        dtype=options.dtype,
        output=Path(request.output),
        within=request.within,
        limit=options.limit,
    ).to_dict()
    items = facts["embedding"]
    names = {"time": "time", "disk_running": "disk while it runs", "disk": "disk afterwards", "memory": "memory"}
    return {
        "photographs": facts["photographs"],
        "model": facts["model"],
        "dimension": facts["dimension"],
        "passed_over": facts["passed_over"],
        "fits": not any(item["problem"] for item in items.values()),
        **{name: items[item] for name, item in names.items()},
    }
