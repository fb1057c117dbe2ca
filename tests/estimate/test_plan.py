"""The resources of a job, computed from known facts."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runtime.estimate.plan import Item, Job, Machine, Rate, format_duration, items_to_dict, plan_job
from runtime.index.kinds import build_s, index_bytes
from runtime.index.memoryplan import plan_memory
from runtime.pipeline.disk import disk_bytes_while_running
from tests.support.errors import assert_names

JOB = Job(5_000_000, 512)
LARGE = Machine(Rate(250.0, "measured", "250/s"), 10**12, 64 * 10**9, 10e9, 100e9, 24 * 10**9, "a GPU")


def plan_by_name(job: Job, machine: Machine) -> dict[tuple[str, str], Item]:
    items = plan_job(job, machine)
    by_key = {(item.section, item.name): item for item in items}
    assert len(by_key) == len(items)
    return by_key


def test_a_job_that_fits_the_machine_has_no_problems() -> None:
    plan = plan_by_name(JOB, LARGE)
    room = disk_bytes_while_running(5_000_000, 512, "float32", faces=True)
    expected = {
        ("embedding", "time"): 20_000.0,
        ("embedding", "disk while it runs"): room,
        ("embedding", "disk afterwards"): room // 2,
        ("embedding", "memory"): 145_000_000 + 194 * 5_000_000,
        **{("index", kind): index_bytes(kind, 5_000_000, 512) for kind in ("flat", "sq8", "ivf")},
        **{
            ("index", f"{kind}, making it"): build_s(kind, 5_000_000, 512, flops=100e9, write_bytes_s=200e6)
            for kind in ("flat", "sq8", "ivf")
        },
        ("search", "exact"): 1.024,
        ("pairs", "time"): 25e12 * 512 / 100e9,
        ("pairs", "memory"): 2_000_000_000,
        ("gpu", "search memory"): plan_memory(5_000_000, 512, 24 * 10**9, k=50, queries=256).device_bytes,
    }
    assert {key: item.value for key, item in plan.items()} == pytest.approx(expected)
    assert {key for key, item in plan.items() if item.problem} == {("pairs", "time")}
    assert "--budget" in plan["pairs", "time"].problem
    assert plan["embedding", "time"].basis == plan["search", "exact"].basis == "measured"


def test_a_job_that_does_not_fit_lists_the_next_steps() -> None:
    small = replace(LARGE, disk_bytes=15 * 10**9, memory_bytes=3 * 10**9, gpu_bytes=10**9)
    plan = plan_by_name(JOB, small)
    running = plan["embedding", "disk while it runs"].problem
    assert running.startswith("does not fit: ")
    assert_names(running, "22.5 GB needed", "15.0 GB free on the disk", "-o", "--dtype float16")
    assert (
        "--dtype float16"
        not in plan_by_name(replace(JOB, dtype="float16"), small)["embedding", "disk while it runs"].problem
    )
    assert plan["embedding", "disk afterwards"].problem == ""
    assert "10.2 GB needed, 3.7 GB free on the disk beside the embedding file" in plan["index", "flat"].problem
    assert "11.6 GB needed, 3.7 GB free" in plan["index", "ivf"].problem  # the exact rows are next to it
    tight = plan_by_name(JOB, replace(LARGE, memory_bytes=3 * 10**9))
    flat = tight["index", "flat"].problem
    assert "10.2 GB needed, 3.0 GB of memory available. Searches would read the disk" in flat
    tighter = plan_by_name(JOB, replace(LARGE, memory_bytes=2 * 10**9))
    assert [bool(tight["index", kind].problem) for kind in ("ivf", "sq8")] == [False, False]
    assert [bool(tighter["index", kind].problem) for kind in ("ivf", "sq8")] == [False, True]
    assert "if the rows were in memory" in plan["search", "exact"].words
    assert plan["gpu", "search memory"].value is None
    assert "1.00 GB free" in plan["gpu", "search memory"].problem
    poor = plan_by_name(JOB, replace(LARGE, memory_bytes=10**9))
    assert "Close other programs" in poor["pairs", "memory"].problem
    assert poor["embedding", "memory"].problem


def test_missing_measurements_are_unknown() -> None:
    plan = plan_by_name(JOB, replace(LARGE, rate=Rate(None, "guess", "nothing is known"), gpu_bytes=None))
    assert plan["embedding", "time"].amount() == "unknown"
    assert ("gpu", "search memory") not in plan


@pytest.mark.parametrize("gpu_gb", [4, 8, 24])
def test_gpu_memory_is_planned_in_the_same_way_as_in_a_search(gpu_gb: int) -> None:
    item = plan_by_name(JOB, replace(LARGE, gpu_bytes=gpu_gb * 10**9))["gpu", "search memory"]
    plan = plan_memory(5_000_000, 512, gpu_gb * 10**9, k=50, queries=256)
    assert {4: "streamed", 8: "fp16", 24: "fp32"}[gpu_gb] == plan.placement
    assert item.words == f"a GPU: {plan}"


def test_small_jobs() -> None:
    for photos in (1, 2, 49):
        assert not any(item.problem for item in plan_job(Job(photos, 128), LARGE))


@pytest.mark.parametrize(
    ("photographs", "read_bytes_s", "index"),
    [(500_000, 10e9, "ivf"), (480_000, 10e9, "exact"), (49_999, 1e8, "exact"), (50_000, 1e8, "ivf")],
)
def test_the_index_that_auto_selects(photographs: int, read_bytes_s: float, index: str) -> None:
    plan = plan_by_name(replace(JOB, photographs=photographs), replace(LARGE, read_bytes_s=read_bytes_s))
    assert f"--index auto uses {index}" in plan["search", "exact"].words


def test_json_has_sections() -> None:
    sections = json.loads(json.dumps(items_to_dict(plan_job(JOB, LARGE))))
    assert list(sections) == ["embedding", "index", "search", "pairs", "gpu"]
    detail = "one query at 10.0 GB/s; --index auto uses ivf, a few milliseconds per query"
    exact = {"value": pytest.approx(1.024), "unit": "s", "basis": "measured", "words": detail}
    assert sections["search"]["exact"] == {**exact, "problem": ""}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.00032, "0.32 ms"), (0.0254, "25 ms"), (0.0996, "100 ms"), (0.999, "999 ms"), (1.24, "1.2 s"), (9.96, "10 s"),
        (45.2, "45 s"), (59.6, "1 min"), (3569, "59 min"), (3571, "1 h 00 min"), (11_100, "3 h 05 min"),
        (172_800, "2 days"), (1e9, "11,574 days"),
    ],
)  # fmt: skip
def test_times_in_words(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
