"""A server in a process of its own, as a user starts it."""

from __future__ import annotations

import http.client
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from tests.support.facemill_command import ROOT


@contextmanager
def server(
    *arguments: object, open_files: tuple[int, int] | None = None
) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server on a free port, and that port. Its log goes to a file, because a full pipe would stop it.

    Args:
        arguments: of the command.
        open_files: the soft and the hard limit of its open files; None for those of this process.
    """

    def limit() -> None:
        if open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, open_files)

    command = [sys.executable, "-m", "runtime.cli.app", "serve", "--port", "0", *map(str, arguments)]
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=log, preexec_fn=limit) as process,
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


def engine_options(engines: dict[str, Any]) -> list[object]:
    """The options of a command for the engines of a fixture."""
    return [word for name, value in engines.items() for word in (f"--{name}", value)]


def ask(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send a request, with a picture if it has a body; returns status and body of the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        connection.request(method, path, body, {"Content-Type": "image/png"})
        response = connection.getresponse()
        return response.status, response.read()


def ask_json(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    """Send a request, with JSON if it has a body; returns the status and the JSON of the answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=300)) as connection:
        content = None if body is None else json.dumps(body).encode()
        connection.request(method, path, content, {"Content-Type": "application/json", **headers})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
