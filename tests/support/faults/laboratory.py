"""Run commands with faults at chosen file operations."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.support.facemill_command import ROOT
from tests.support.qdrant_stand_in import KEY

from .operations import Fault, Operation, build_library, read_record, record

TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit code, or minus the number of the signal.
        hang: it did not end in time and was killed.
        stdout, stderr: what it printed.
        cpu_s: processor time, with that of its children.
    """

    code: int
    hang: bool
    stdout: str
    stderr: str
    cpu_s: float


class Laboratory:
    """A process that forks commands. Used in a `with` block.

    Attributes:
        folder: the folder of the streams and records, apart from those that the commands change.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        environment = {**os.environ, "LD_PRELOAD": str(build_library()), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
        environment["QDRANT_API_KEY"] = KEY
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.support.faults.fork_server"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment,
        )  # fmt: skip

    def run(self, arguments: list[str], folder: Path, fault: Fault | None = None, record_to: str = "") -> Outcome:
        """Run a command in a folder, with a fault among its operations below that folder."""
        fault = fault or Fault(0, frozenset())
        output = self.folder / "stream"
        request = {
            "arguments": arguments,
            "folder": str(folder),
            "output": str(output),
            "timeout_s": TIMEOUT_S,
            "fault": {"bits": fault.bits, "mode": fault.mode, "number": fault.number, "code": fault.code},
            "record": record_to,
        }
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        texts = [output.with_suffix(suffix).read_text(errors="replace") for suffix in (".out", ".err")]
        return Outcome(answer["code"], answer["hang"], texts[0], texts[1], answer["cpu_s"])

    def record(self, arguments: list[str], folder: Path) -> tuple[Outcome, list[Operation]]:
        """Run a command undisturbed and record its operations below the folder."""
        path = self.folder / "record"
        outcome = self.run(arguments, folder, record(), str(path))
        return outcome, list(read_record(path))

    def __enter__(self) -> Laboratory:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(timeout=30)
