"""`facemill serve`: answer for photos and files over HTTP, and show pages. `facemill ui` shares its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from .. import defaults
from . import groups, options
from .common import handle_errors, one_opencv_thread, setup_logging

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("files", nargs=-1, type=options.PATH, metavar="[FILE...]"),
    click.option("--photos", "roots", type=options.PATH, multiple=True, help="Folder of photos to add; repeatable."),
    click.option("--host", default=defaults.HOST, show_default=True, help="Address to listen on."),
    click.option(
        "--port", type=click.IntRange(0, 65535), default=defaults.PORT, show_default=True, help="Port; 0: any."
    ),
    click.option("--token-file", type=options.PATH, help="File with a line NAME TOKEN for each client."),
    click.option("--insecure", is_flag=True, help="Let everybody in who reaches an address of other machines."),
    click.option("--name", "names", multiple=True, help="Host name of a reverse proxy before this server; repeatable."),
    groups.engine_options,
    groups.detector_options,
    groups.limit_options,
    options.count_option("--max-faces", defaults.MAX_FACES, "Refuse photos with more faces than this."),
    click.option(
        "--seconds",
        type=click.FloatRange(min=0.1),
        default=defaults.REQUEST_SECONDS,
        show_default=True,
        help="Longest time for a body to arrive, and for its answer.",
    ),
    options.count_option(
        "--places", defaults.PLACES, "Requests that may wait for an engine; more are refused at once."
    ),
    click.option(
        "--rate",
        type=click.FloatRange(min=0),
        default=0.0,
        show_default=True,
        help="Requests per second of one client; 0 for no limit.",
    ),
    click.option(
        "--audit", type=options.PATH, help="Append who asked for what and when to this file, as lines of JSON."
    ),
)


def server_options(function: F) -> F:
    """The arguments and options of a server, as parameters of a command."""
    decorated: Any = function
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


@click.command(name="serve")
@server_options
@options.log_option
@handle_errors
def main(log_file: Path | None, **given: Any) -> None:
    """Answer over HTTP: find, embed and compare faces, and search FILEs, under their names without .h5.

    A browser gets pages at this address; `facemill ui` opens one. Programs use the routes that /docs of the server
    lists. Photos that clients send stay in memory. Only this machine can reach the default address. Another --host
    needs --token-file, or --insecure.

    SIGTERM and Ctrl+C end the server: it answers what it has accepted, and refuses the rest. It needs the packages of
    the extra `server`.

    \b
    Examples:
      facemill serve people.h5
      facemill serve people.h5 --photos /photos --token-file tokens.txt --host 0.0.0.0
      curl --data-binary @somebody.jpg -H 'Content-Type: image/jpeg' http://127.0.0.1:8420/api/v1/search

    Exit codes: 0 ended by a signal, 1 failure, 2 usage.
    """
    setup_logging(log_file=log_file)
    serve_until_signal(say_where, purpose="facemill serve", **given)


def serve_until_signal(
    started: Callable[[str], None],
    *,
    purpose: str,
    engine: groups.EngineOptions,
    detection: groups.DetectorOptions,
    limits: groups.LimitOptions,
    **given: Any,
) -> None:
    """Start a server with its pages, and return when a signal has ended it.

    Args:
        started: called with the address when the server answers.
        purpose: the command, for the error that names missing packages.
        engine, detection, limits, given: the values of `server_options`.
    """
    from ..extras import require

    for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        require(module, extra="server", purpose=purpose)
    from ..server.run import serve
    from ..server.settings import ServerSettings
    from ..web.routes import page_routes

    settings = ServerSettings(engines={**engine.values(), **detection.values()}, limits=limits.limits(), **given)
    with one_opencv_thread():
        serve(settings, started, [page_routes])


def say_where(url: str) -> None:
    """Print the address of the server."""
    click.echo(f"facemill answers at {url} (routes: {url}/docs). Ctrl+C ends it.")
