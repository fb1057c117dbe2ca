"""What `facemill serve` and `facemill ui` share: their options, and a server that runs until a signal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from .. import defaults
from . import groups, options
from .common import one_opencv_thread
from .limits import USUAL, allow_open_files

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.argument("files", nargs=-1, type=options.PATH, metavar="[FILE...]"),
    click.option("--photos", "roots", type=options.PATH, multiple=True, help="Folder of photos to add; repeatable."),
    click.option("--output", type=options.PATH, help="Folder in which jobs of clients may make embedding files."),
    click.option("--jobs", type=options.PATH, help="Folder that keeps jobs.  [default: .facemill-jobs in --output]"),
    click.option("--host", default=defaults.HOST, show_default=True, help="Address to listen on."),
    click.option(
        "--port", type=options.Count(0, 65535), default=defaults.PORT, show_default=True, help="Port; 0: any."
    ),
    click.option("--token-file", type=options.PATH, help="File with a line NAME TOKEN for each client."),
    click.option("--insecure", is_flag=True, help="Let everybody in who reaches an address of other machines."),
    click.option("--name", "names", multiple=True, help="Host name of a reverse proxy before this server; repeatable."),
    groups.engine_options,
    groups.detector_options,
    options.latency_option,
    groups.limit_options,
    options.count_option("--max-faces", defaults.MAX_FACES, "Refuse photos with more faces than this."),
    click.option(
        "--seconds",
        type=options.Number(min=0.1),
        default=defaults.REQUEST_SECONDS,
        show_default=True,
        help="Longest time for a body to arrive, and for its answer.",
    ),
    options.count_option(
        "--places", defaults.PLACES, "Requests that may wait for an engine; more are refused at once."
    ),
    click.option(
        "--rate",
        type=options.Number(min=0),
        default=0.0,
        show_default=True,
        help="Requests per second of one client; 0 for no limit.",
    ),
    click.option(
        "--audit", type=options.PATH, help="Append who asked for what and when to this file, as lines of JSON."
    ),
    groups.segment_options,
)


def server_options(function: F) -> F:
    """The arguments and options of a server, as parameters of a command."""
    decorated: Any = function
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated  # type: ignore[no-any-return]


def serve_until_signal(
    started: Callable[[str], None],
    *,
    purpose: str,
    engine: groups.EngineOptions,
    detection: groups.DetectorOptions,
    limits: groups.LimitOptions,
    segments: groups.SegmentOptions,
    **given: Any,
) -> None:
    """Start a server with its pages, and return when a signal has ended it.

    Args:
        started: called with the address when the server answers.
        purpose: the command, for the error that names missing packages.
        engine, detection, limits, segments, given: the values of `server_options`.
    """
    from ..extras import require

    for module in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        require(module, extra="server", purpose=purpose)
    allow_open_files(USUAL)  # each client needs one
    from ..server.run import serve
    from ..server.settings import ServerSettings
    from ..web.problem_page import problem_page
    from ..web.routes import page_routes

    given |= {"limits": limits.limits(), "segments": segments.rules()}
    settings = ServerSettings(engines={**engine.values(), **detection.values()}, **given)
    with one_opencv_thread():
        serve(settings, started, [page_routes], problem_page)


def say_where(url: str) -> None:
    """Print the address of the server."""
    click.echo(f"facemill answers at {url} (routes: {url}/docs). Ctrl+C ends it.")
