"""Stages keep the order, forward failures, leave no thread waiting and bound the memory."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from runtime.pipeline.stages import Chain, ChannelFailed, OrderedChannel, Pipeline, Stage, StageClock
from runtime.records import Batch
from tests.support.errors import raises


def batches(n: int) -> Iterator[Batch]:
    for i in range(n):
        yield Batch(np.array([i], np.int64))


def chain_of(*stages: tuple[str, int, Callable[[Batch], Batch]]) -> Chain[Batch, Batch]:
    """Make a chain from the name, number of threads and work of each stage."""
    first, *further_stages = (Stage(StageClock(name, workers), work, 2) for name, workers, work in stages)
    return functools.reduce(Chain.then, further_stages, Chain.of(first))


def delay_every_third(batch: Batch) -> Batch:
    time.sleep(0.002 if batch.rows[0] % 3 == 0 else 0)
    return batch


def test_batches_come_out_in_order_through_stages_of_several_workers() -> None:
    chain = chain_of(("a", 4, delay_every_third), ("b", 1, delay_every_third), ("c", 3, delay_every_third))
    with Pipeline(batches(200), chain) as pipeline:
        assert [int(batch.rows[0]) for batch in pipeline] == list(range(200))
    assert [stage.clock.photos for stage in chain.stages] == [200, 200, 200]
    assert all(stage.clock.busy_s > 0 for stage in chain.stages)


def test_a_pipeline_may_have_no_batches() -> None:
    with Pipeline(batches(0), chain_of(("a", 2, delay_every_third))) as pipeline:
        assert list(pipeline) == []


@pytest.mark.parametrize("location", ["feed", "first", "last"])
def test_a_failure_reaches_the_consumer_and_every_thread_ends(location: str) -> None:
    def fail_at_20(batch: Batch) -> Batch:
        if batch.rows[0] == 20:
            raise RuntimeError("broken")
        return batch

    def failing_feed() -> Iterator[Batch]:
        yield from batches(20)
        raise RuntimeError("broken")

    chain = chain_of(
        ("a", 2, fail_at_20 if location == "first" else delay_every_third),
        ("b", 2, fail_at_20 if location == "last" else delay_every_third),
    )
    thread_count = threading.active_count()

    def drain() -> None:
        with Pipeline(failing_feed() if location == "feed" else batches(1000), chain) as pipeline:
            for _ in pipeline:
                pass

    with raises(RuntimeError, "broken"):
        drain()
    assert threading.active_count() == thread_count


def test_leaving_early_stops_every_thread() -> None:
    thread_count = threading.active_count()
    with Pipeline(batches(1_000_000), chain_of(("a", 2, delay_every_third))) as pipeline:
        next(iter(pipeline))
    assert threading.active_count() == thread_count


def test_no_more_batches_are_alive_than_the_channels_hold() -> None:
    alive, max_alive = set(), 0
    lock = threading.Lock()

    def feed() -> Iterator[Batch]:
        nonlocal max_alive
        for batch in batches(300):
            with lock:
                alive.add(int(batch.rows[0]))
                max_alive = max(max_alive, len(alive))
            yield batch

    with Pipeline(feed(), chain_of(("a", 2, copy_batch), ("b", 2, copy_batch))) as pipeline:
        for batch in pipeline:
            time.sleep(0.001)  # a slow consumer
            with lock:
                alive.discard(int(batch.rows[0]))
    assert max_alive <= 2 + 2 + 2 + 4 + 2  # channels, workers, feeder and consumer


def copy_batch(batch: Batch) -> Batch:
    return replace(batch)


def test_a_full_channel_accepts_the_next_item_in_order() -> None:
    channel = OrderedChannel[str](2)
    channel.put(1, "b")
    channel.put(0, "a")
    channel.close(2)
    assert [channel.get(), channel.get(), channel.get()] == [(0, "a"), (1, "b"), None]


def test_ready_yields_none_when_no_batch_is_ready() -> None:
    def slow(batch: Batch) -> Batch:
        time.sleep(0.3)
        return batch

    with Pipeline(batches(2), chain_of(("a", 1, slow))) as pipeline:
        rows = [None if batch is None else int(batch.rows[0]) for batch in pipeline.ready(every_s=0.05)]
    assert rows[0] is None
    assert [row for row in rows if row is not None] == [0, 1]


def test_a_failed_channel_wakes_waiting_threads() -> None:
    channel = OrderedChannel[str](1)
    caught: list[type[BaseException]] = []

    def wait() -> None:
        try:
            channel.get()
        except ChannelFailed as err:
            caught.append(type(err))

    thread = threading.Thread(target=wait)
    thread.start()
    channel.fail()
    thread.join(timeout=10)
    assert caught == [ChannelFailed]
    with pytest.raises(ChannelFailed):
        channel.put(5, "x")
