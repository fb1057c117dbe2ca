"""Listen on an address, serve until a signal, and answer what was accepted before the end."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from ..errors import MachineError
from .app import Routes, make_app
from .connections import BoundedServer, Connection, room_for_connections
from .problems import ProblemPage
from .service import Service
from .settings import ServerSettings

logger = logging.getLogger(__name__)

_DRAIN_S = 60  # seconds for requests in flight when a signal ends the server
_IDLE_S = 15  # seconds after which a connection without a head is closed


class _Server(BoundedServer):
    """A uvicorn server that tells its service when a signal ends it."""

    def __init__(self, config: uvicorn.Config, drain: Callable[[], None]) -> None:
        super().__init__(config)
        self._drain = drain

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if not self.should_exit:
            logger.info("%s: answering what was accepted; a second Ctrl+C ends at once", signal.Signals(sig).name)
        self._drain()
        super().handle_exit(sig, frame)


def serve(
    settings: ServerSettings,
    started: Callable[[str], None],
    others: Sequence[Routes] = (),
    show: ProblemPage | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        settings: what is served, and where.
        started: called with the URL when requests are answered.
        others: make the routes of other rooms, such as pages.
        show: makes the page of a problem for browsers; None for no pages.
    Raises:
        ConfigError, EngineError, ModelError, StorageError: a file or an engine cannot be used.
        MachineError: the address cannot be used.
    """
    connections, backlog = room_for_connections()
    listener = listen(settings.host, settings.port, backlog)
    with listener, Service(settings) as service:
        config = uvicorn.Config(
            make_app(service, others, show),
            http=Connection,
            loop="asyncio",
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=connections + 1,  # from this number on they are too many
            backlog=backlog,
            timeout_keep_alive=_IDLE_S,
            timeout_graceful_shutdown=_DRAIN_S,
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        server = _Server(config, service.drain)
        # uvicorn raises the signal again after it has drained; a drained server has done what was asked of it.
        before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            started(_url(listener))
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int, backlog: int) -> socket.socket:
    """Open a listening socket.

    Args:
        host, port: the address.
        backlog: connections that wait to be accepted.
    Raises:
        MachineError: the address is in use, or is none of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(backlog)
        except BaseException:
            listener.close()
            raise
    except OSError as err:
        reason = err.strerror or str(err)
        raise MachineError(
            f"{host}, port {port}, cannot be listened on: {reason}. Name another address with --host, or another port "
            f"with --port"
        ) from err
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
