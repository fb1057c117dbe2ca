"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.facemill_command import ROOT


@contextmanager
def server(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on a free port, and that port."""
    command = [sys.executable, "-m", "runtime.cli.app", "serve", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://[\w.:\[\]]+:(\d+) ", line)
            assert match, line + (process.stderr.read() if process.stderr and not line else "")
            yield process, int(match[1])
        finally:
            process.kill()
