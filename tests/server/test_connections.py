"""Clients that connect and are silent take the server from nobody, and their connections end."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from runtime.server.connections import BoundedServer, Connection
from tests.support.photos_of_squares import squares
from tests.support.running_server import ask, engine_options, server

HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"


@contextmanager
def silent_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60)) for _ in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "hard", "silent"), [(256, 256, 400), (128, 4096, 300)], ids=["bounded", "raised"])
def test_silent_connections_do_not_stop_the_server(engines: dict[str, Any], soft: int, hard: int, silent: int) -> None:
    with server(*engine_options(engines), open_files=(soft, hard)) as (process, port):
        with silent_connections(port, silent) as connections:
            for _ in range(3):
                assert ask(port, "GET", "/api/v1/health/live")[0] == 200
            held = len(os.listdir(f"/proc/{process.pid}/fd"))
            assert held < soft if soft == hard else held > silent
            connections[-1].sendall(b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connections[-1].recv(100).startswith(b"HTTP/1.1 200")
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.slow
def test_clients_that_wait_for_answers_keep_their_connections_and_another_gets_503(engines: dict[str, Any]) -> None:
    photo = squares(3)
    head = f"POST /api/v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(photo)}\r\n"
    with server(*engine_options(engines), open_files=(128, 128)) as (process, port):
        with ExitStack() as stack:
            connections: list[socket.socket] = []
            while ask(port, "GET", "/api/v1/health/live")[0] == 200:
                connections += stack.enter_context(silent_connections(port, 1))
                connections[-1].sendall(f"{head}Content-Type: image/png\r\n\r\n".encode() + photo[:100])
                assert len(connections) < 80
            assert len(connections) >= 64
            with silent_connections(port, 100):
                assert ask(port, "GET", "/api/v1/health/live")[0] == 503
            connections[0].sendall(photo[100:])
            assert connections[0].recv(100).startswith(b"HTTP/1.1 200")
            assert ask(port, "GET", "/api/v1/health/live")[0] == 200  # the first client is silent again, and goes
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


async def _answer(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@pytest.mark.parametrize(
    "pieces",
    [[], [HEAD], [HEAD, b"a: "], [HEAD + b"\r\n"], [HEAD + b"\r\n", b"GET"]],
    ids=["nothing", "half a head", "two pieces of a head", "one request", "half of a second head"],
)
def test_a_client_must_send_each_head_in_time(pieces: list[bytes]) -> None:
    async def check() -> tuple[bytes, float]:
        config, state = uvicorn.Config(_answer, timeout_keep_alive=1, log_config=None), ServerState()
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(config, state, {}), "127.0.0.1", 0)
        async with listener:
            begin_s = time.monotonic()
            reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.4)
            answer = await asyncio.wait_for(reader.read(), 10)
            writer.close()
            return answer, time.monotonic() - begin_s

    answer, seconds = asyncio.run(check())
    assert (b"204" in answer) == any(piece.endswith(b"\r\n\r\n") for piece in pieces)
    assert 0.9 < seconds < 1.5


def test_the_log_has_one_line_a_second_of_connections_that_find_no_descriptor(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The loop of asyncio reports each failure to accept; all descriptors of this process are taken meanwhile."""

    async def check() -> None:
        instance = BoundedServer(uvicorn.Config(_answer, http=Connection, backlog=50, log_config=None))
        listener = socket.create_server(("127.0.0.1", 0))
        serving = asyncio.create_task(instance.serve(sockets=[listener]))
        while not instance.started:
            await asyncio.sleep(0.01)
        client = socket.socket()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        with client:
            resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, before[1]))
            spare = []
            try:
                while True:
                    spare.append(os.dup(client.fileno()))
            except OSError:
                pass
            try:
                client.connect(listener.getsockname())
                await asyncio.sleep(0.3)
            finally:
                for descriptor in spare:
                    os.close(descriptor)
                resource.setrlimit(resource.RLIMIT_NOFILE, before)
        instance.should_exit = True
        await serving

    with caplog.at_level(logging.ERROR):
        asyncio.run(check())
    (record,) = caplog.records
    assert "cannot be accepted" in record.getMessage()
    assert record.exc_info is None
