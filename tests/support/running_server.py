"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.facemill_command import ROOT


@contextmanager
def server(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on a free port, and that port. Its log goes to a file, because a full pipe would stop it."""
    command = [sys.executable, "-m", "runtime.cli.app", "serve", "--port", "0", *map(str, arguments)]
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            process.stderr = open(log.name)  # noqa: SIM115  (the process closes it)
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"http://[\w.:\[\]]+:(\d+) ", line)
            assert match, line + ("" if line else process.stderr.read())
            yield process, int(match[1])
        finally:
            process.kill()
