"""`facemill ui`: serve as `facemill serve` does, and open the pages in a browser or in a window."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Any

import click

from . import options
from .common import handle_errors, setup_logging
from .serving import say_where, serve_until_signal, server_options

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # what a browser opens if the server listens everywhere
# The window has a process of its own, because both a window and a server want the main thread.
_WINDOW = "import sys, webview; webview.create_window('facemill', sys.argv[1], width=1280, height=900); webview.start()"


@click.command(name="ui")
@server_options
@click.option("--window", is_flag=True, help="Open a window instead of the browser; needs the extra `window`.")
@options.log_option
@handle_errors
def main(window: bool, log_file: Path | None, **given: Any) -> None:
    """Open pages in the browser: recognise people, see files, models and this machine. FILEs are searched.

    The pages come from a server with the options of `facemill serve`, which only this machine can reach by default.
    Ctrl+C ends it, and so does closing the window of --window. It needs the packages of the extra `server`.

    \b
    Examples:
      facemill ui people.h5
      facemill ui people.h5 --window

    Exit codes: 0 ended by a signal or with the window, 1 failure, 2 usage.
    """
    setup_logging(log_file=log_file)
    if window:
        from ..extras import require

        require("webview", extra="window", purpose="facemill ui --window")
    show = _show_window if window else _show_browser

    def started(url: str) -> None:
        say_where(url)
        # The port accepts connections already, and answers them as soon as the server runs.
        threading.Thread(target=show, args=(_address(url),), daemon=True).start()

    serve_until_signal(started, purpose="facemill ui", **given)


def _address(url: str) -> str:
    """The address that a browser of this machine opens."""
    host = url.removeprefix("http://").rpartition(":")[0]
    return url.replace(host, _EVERYWHERE.get(host, host), 1)


def _show_browser(url: str) -> None:
    if not webbrowser.open(url):
        click.echo(f"no browser could be opened on this machine. Open {url} yourself.", err=True)


def _show_window(url: str) -> None:
    """Show the window, and end the server when the user closes it."""
    result = subprocess.run([sys.executable, "-c", _WINDOW, url], stdin=subprocess.DEVNULL)
    if result.returncode:
        click.echo(f"no window could be opened; the server goes on. Open {url} in a browser.", err=True)
    else:
        os.kill(os.getpid(), signal.SIGTERM)
