"""`facemill serve`: answer for photos and files over HTTP, and show pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from . import options
from .common import handle_errors, setup_logging
from .serving import say_where, serve_until_signal, server_options


@click.command(name="serve")
@server_options
@options.log_option
@handle_errors
def main(log_file: Path | None, **given: Any) -> None:
    """Answer over HTTP: find, embed and compare faces, and search FILEs, under their names without .h5.

    A browser gets pages at this address; `facemill ui` opens one. Programs use the routes that /docs of the server
    lists. Photos that clients send stay in memory. Only this machine can reach the default address. Another --host
    needs --token-file, or --insecure.

    With --photos and --output, clients may start jobs, which embed photos into new files. A job runs in a process of
    its own: the end of the server does not stop it, and a crash only interrupts it.

    SIGTERM and Ctrl+C end the server: it answers what it has accepted, and refuses the rest. It needs the packages of
    the extra `server`.

    \b
    Examples:
      facemill serve people.h5
      facemill serve people.h5 --photos /photos --token-file tokens.txt --host 0.0.0.0
      facemill serve --photos /photos --output /files
      curl --data-binary @somebody.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8420/api/v1/search

    Exit codes: 0 ended by a signal, 1 failure, 2 usage.
    """
    setup_logging(log_file=log_file)
    serve_until_signal(say_where, purpose="facemill serve", **given)
