"""List the steps of gpu_acceptance.py in order. Each step is independent of the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import gpu_checks
import gpu_jobs
from gpu_setting import Findings, Setting


@dataclass(frozen=True, slots=True)
class Step:
    """A step and its share of the time in seconds; time left over by earlier steps is added."""

    work: Callable[[Setting], Findings]
    share_s: float


STEPS: dict[str, Step] = {
    "device": Step(gpu_checks.device, 15),
    "contract": Step(gpu_checks.contract, 30),
    "kernels": Step(gpu_checks.kernels, 45),
    "dali": Step(gpu_checks.dali, 35),
    "engine": Step(gpu_checks.engine, 45),
    "runner": Step(gpu_checks.runner, 30),
    "detector": Step(gpu_checks.detector, 25),
    "end-to-end": Step(gpu_jobs.end_to_end, 50),
    "faces": Step(gpu_jobs.faces, 35),
    "search": Step(gpu_jobs.search, 75),
    "benchmark": Step(gpu_jobs.benchmark, 85),
}
