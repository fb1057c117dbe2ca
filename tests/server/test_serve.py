"""The command: its start, its errors, and its end by a signal, in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill
from tests.support.photos_of_squares import squares
from tests.support.running_server import ask, engine_options, server

pytestmark = pytest.mark.slow


def test_a_signal_ends_a_server_after_it_has_answered(engines: dict[str, Any], embedded_people: Path) -> None:
    photo = squares(3)
    with server(embedded_people, *engine_options(engines)) as (process, port):
        assert ask(port, "GET", "/api/v1/health/ready") == (200, b'{"status":"ready"}')
        status, body = ask(port, "POST", "/api/v1/search", photo)
        assert (status, b"person" in body) == (200, True)

        # A request whose body is half sent when the signal comes is answered before the end.
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            head = "POST /api/v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
            connection.sendall(f"{head}Content-Length: {len(photo)}\r\n\r\n".encode() + photo[:1000])
            assert ask(port, "GET", "/api/v1/health/live")[0] == 200
            process.send_signal(signal.SIGTERM)
            while True:  # until it no longer listens
                try:
                    ask(port, "GET", "/api/v1/health/live")
                except OSError:
                    break
            connection.sendall(photo[1000:])
            answer = connection.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b'"faces"' in answer
        assert process.wait(60) == 0


def test_clients_that_break_off_do_not_disturb_others(engines: dict[str, Any]) -> None:
    photo = squares(3)
    with server(*engine_options(engines)) as (process, port):
        expected = ask(port, "POST", "/api/v1/recognition", photo)
        answers: list[tuple[int, bytes]] = []

        def stay() -> None:
            answers.append(ask(port, "POST", "/api/v1/recognition", photo))

        threads = [threading.Thread(target=stay) for _ in range(8)]
        for number, thread in enumerate(threads):
            thread.start()
            with socket.create_connection(("127.0.0.1", port), timeout=60) as leaving:
                head = b"POST /api/v1/recognition HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
                body = photo if number % 2 else photo[:500]
                leaving.sendall(head + f"Content-Length: {len(photo)}\r\n\r\n".encode() + body)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as nonsense:
            nonsense.sendall(b"\x16\x03\x01\x00\xa5\x01\r\n\r\n")
            assert b"400" in nonsense.recv(100)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as twofold:
            head = b"POST /api/v1/detect HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            inner = b"GET /api/v1/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
            twofold.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + inner)
            answer = twofold.makefile("rb").read()  # to the end of the connection
            assert answer.startswith(b"HTTP/1.1 400")
            assert b"HTTP/1.1 200" not in answer
        for thread in threads:
            thread.join()
        assert expected[0] == 200
        assert answers == [expected] * 8
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


def test_an_address_that_cannot_be_used_is_named(engines: dict[str, Any], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_refused(facemill("serve", *engine_options(engines), "--port", port), "E-MACHINE", port, "--port")
    result = facemill("serve", "--host", "0.0.0.0", "--port", 0)
    assert (result.returncode, "E-OPTION" in result.stderr) == (2, True)
    assert_refused(facemill("serve", "--port", 0, "--insecure", "--host", "no such host"), "E-MACHINE", "no such host")
    assert_refused(facemill("serve", *engine_options(engines), "--port", 0, tmp_path / "no.h5"), "E-STORAGE", "no.h5")


def test_a_missing_package_is_named_with_its_command(tmp_path: Path) -> None:
    (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('of the test', name='uvicorn')")
    command = [sys.executable, "-m", "runtime.cli.app", "serve", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    install = "pip install fastapi prometheus-client python-multipart uvicorn"
    assert_refused(result, "E-PACKAGE", "uvicorn", install)
