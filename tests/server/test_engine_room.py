"""The queue before the engines: bounded, without waiting, without the work of clients that hung up, same answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest

import runtime as facemill
from runtime.errors import BusyError
from runtime.server.engine_room import EngineRoom, Work
from tests.server.conftest import Client
from tests.support.errors import raises
from tests.support.photos_of_squares import squares

PNG = {"Content-Type": "image/png"}


class Lengths:
    """A task that answers with the length of each photo, and waits until it may go on."""

    def __init__(self, together: int = 1) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.may_go_on = threading.Event()
        self._together = together

    def together(self) -> int:
        return self._together

    def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[int]:
        self.calls.append((len(photos), one_core))
        assert self.may_go_on.wait(60)
        return [len(photo) for photo in photos]


async def until(condition: Any) -> None:
    """Wait until a condition holds."""
    while not condition():
        await asyncio.sleep(0.001)


async def all_of(works: Sequence[Work]) -> list[list[int]]:
    return list(await asyncio.gather(*(work.answers for work in works)))


def test_requests_that_wait_share_a_call_and_each_gets_its_own_answers() -> None:
    async def check() -> None:
        room, task, other = EngineRoom(threads=1, places=20), Lengths(8), Lengths(8)
        first = room.submit(task, [b"1"])
        await until(lambda: task.calls)
        works = [room.submit(task, [b"x" * n, b"y" * (n + 1)]) for n in range(2, 8)]
        last = room.submit(other, [b"z"])
        other.may_go_on.set()
        task.may_go_on.set()
        assert await all_of([first, *works]) == [[1], *([n, n + 1] for n in range(2, 8))]
        assert await last.answers == [1]
        assert task.calls == [(1, False), (8, True), (4, True)]  # alone it had all cores, and it did not wait
        room.close()

    asyncio.run(check())


def test_requests_that_may_not_share_a_call_have_one_core_each() -> None:
    async def check() -> None:
        room, task = EngineRoom(threads=2, places=20), Lengths()
        works = [room.submit(task, [b"a" * n, b"b"]) for n in range(6)]
        task.may_go_on.set()
        assert await all_of(works) == [[n, 1] for n in range(6)]
        assert task.calls == [(2, True)] * 6
        room.close()

    asyncio.run(check())


def test_a_full_queue_refuses_at_once_and_a_client_that_left_makes_room() -> None:
    async def check() -> None:
        room, task = EngineRoom(threads=1, places=2), Lengths()
        first = room.submit(task, [b"1"])
        await until(lambda: task.calls)
        waiting = [room.submit(task, [b"22"]), room.submit(task, [b"333"])]
        with raises(BusyError, 2):
            room.submit(task, [b"4444"])
        room.drop(waiting[0])
        room.drop(waiting[0])  # a second time it does no harm
        last = room.submit(task, [b"55555"])
        assert (room.state.dropped, room.state.waiting) == (1, 2)
        task.may_go_on.set()
        assert await all_of([first, waiting[1], last]) == [[1], [3], [5]]
        assert not waiting[0].answers.done()
        assert len(task.calls) == 3
        room.close()

    asyncio.run(check())


def test_an_error_of_a_call_is_the_answer_and_the_thread_goes_on() -> None:
    class Fail(Lengths):
        def __call__(self, photos: Sequence[bytes], *, one_core: bool) -> Sequence[int]:
            raise MemoryError("of the test")

    async def check() -> None:
        room, task = EngineRoom(threads=1, places=2), Lengths()
        with pytest.raises(MemoryError, match="of the test"):
            await room.submit(Fail(), [b""]).answers
        task.may_go_on.set()
        assert await room.submit(task, [b"ok"]).answers == [2]
        room.close()

    asyncio.run(check())


def test_closing_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def check() -> None:
        room, task = EngineRoom(threads=1, places=5), Lengths()
        works = [room.submit(task, [b"a" * n]) for n in range(4)]
        closing = asyncio.ensure_future(asyncio.to_thread(room.close))
        await asyncio.sleep(0.05)
        with pytest.raises(BusyError):
            room.submit(task, [b"late"])
        task.may_go_on.set()
        assert await all_of(works) == [[n] for n in range(4)]
        await closing

    asyncio.run(check())


@pytest.mark.slow
def test_many_requests_at_once_have_the_bits_of_the_library_and_some_hang_up(
    client: Client, engines: dict[str, Any]
) -> None:
    photos = [squares(3, seed=seed) for seed in range(40)]
    with facemill.FaceEmbedder(**engines) as embedder:
        expected = [embedder.embed_faces(photo)[0].to_dict() for photo in photos]
        rival = [embedder.compare(photos[0], photo).to_dict() for photo in photos]

    async def check() -> None:
        async with client(places=200) as http:

            async def recognise(number: int) -> dict[str, Any]:
                response = await http.post("/api/v1/recognition", content=photos[number], headers=PNG)
                return dict(response.json())

            async def compare(number: int) -> dict[str, Any]:
                body = {"a": photos[0], "b": photos[number]}
                return dict((await http.post("/api/v1/compare", files=body)).json())

            leaving = [asyncio.ensure_future(recognise(number)) for number in range(40)]
            asked = [asyncio.ensure_future(recognise(number)) for number in range(40)]
            compared = [asyncio.ensure_future(compare(number)) for number in range(40)]
            await asyncio.sleep(0.2)
            for request in leaving:
                request.cancel()
            assert await asyncio.gather(*asked) == expected
            assert await asyncio.gather(*compared) == rival

    asyncio.run(check())


@pytest.mark.slow
def test_a_full_server_answers_429_before_it_reads_the_body(client: Client) -> None:
    async def check() -> None:
        services: list[Any] = []
        async with client(places=1, on_service=services.append) as http:
            room, task = services[0].room, Lengths()
            threads = len(room._threads)
            works = [room.submit(task, [b"busy"])]
            for _ in range(threads - 1):
                await until(lambda: room.state.waiting == 0)
                works.append(room.submit(task, [b"busy"]))
            await until(lambda: len(task.calls) == threads)
            works.append(room.submit(task, [b"waits"]))
            read = []

            async def body() -> Any:
                read.append(True)
                yield squares(3)

            response = await http.post("/api/v1/recognition", content=body(), headers=PNG)
            assert (response.status_code, response.json()["code"], read) == (429, "E-BUSY", [])
            assert int(response.headers["retry-after"]) >= 1
            task.may_go_on.set()
            await all_of(works)
            assert (await http.post("/api/v1/recognition", content=squares(3), headers=PNG)).status_code == 200

    asyncio.run(check())


@pytest.mark.slow
def test_an_answer_that_takes_too_long_is_given_up(client: Client) -> None:
    async def check() -> None:
        services: list[Any] = []
        async with client(seconds=0.2, on_service=services.append) as http:
            room, task = services[0].room, Lengths()
            works = []
            for number in range(len(room._threads)):
                works.append(room.submit(task, [b"busy"]))
                await until(lambda number=number: len(task.calls) == number + 1)
            response = await http.post("/api/v1/recognition", content=squares(3), headers=PNG)
            assert (response.status_code, response.json()["code"]) == (503, "E-BUSY")
            assert "retry-after" in response.headers
            assert (room.state.waiting, room.state.dropped) == (0, 1)
            task.may_go_on.set()
            await all_of(works)

    asyncio.run(check())
