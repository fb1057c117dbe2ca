"""Shared by the steps of gpu_acceptance.py: the setting of a step, its requirements, and the commands that it runs."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import material

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"crops": (112, 112), "portraits": (300, 400)}
CORRUPT = 0.01  # share of damaged photos
DETECTOR = "facemill-det"  # ships with facemill

Findings = dict[str, Any]


class SkipStep(Exception):
    """A requirement of the step is missing; the message names it."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a step runs.

    Attributes:
        name: name of the step.
        out: folder for results.
        data: folder for photos and engines.
        model: registered name of the embedding model.
        rehearse: run on the CPU with few photos, to try the script.
        deadline: time of time.monotonic() at which the step is stopped.
    """

    name: str
    out: Path
    data: Path
    model: str
    rehearse: bool
    deadline: float

    @property
    def count(self) -> int:
        """Number of photos of each size."""
        return 200 if self.rehearse else 20_000

    @property
    def backend(self) -> str:
        """Backend that the step uses as the GPU."""
        return "cpu" if self.rehearse else "tensorrt"

    @property
    def seconds_left(self) -> float:
        """Seconds until the step is stopped."""
        return self.deadline - time.monotonic()

    def photo_folder(self, kind: str) -> Path:
        """Return the folder of "crops" or "portraits"; draws them if they are missing."""
        return material.draw_portraits(self.data, self.count, SIZES[kind], corrupt=CORRUPT)

    def save_findings(self, findings: Findings) -> None:
        """Write the findings so far; they count if the step is stopped."""
        write_json(self.out / "steps" / f"{self.name}.json", findings)


def write_json(path: Path, content: Findings) -> None:
    """Write a JSON file; a failure leaves the old one."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    os.replace(new, path)


def require(setting: Setting, *modules: str) -> None:
    """Skip the step unless there is a GPU and these modules are installed."""
    from runtime.cuda.device import find_gpu

    missing = [module for module in modules if not is_installed(module)]
    if missing:
        raise SkipStep(f"not installed: {', '.join(missing)}")
    if find_gpu() is None and not setting.rehearse:
        raise SkipStep("no NVIDIA GPU with a driver")


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def start_drawing(setting: Setting) -> subprocess.Popen[bytes]:
    """Draw the photos in a process while the first steps run, which use the GPU and few cores."""
    code = (
        "import material, sys; from pathlib import Path\n"
        f"for size in {tuple(SIZES.values())}:\n"
        f"    material.draw_portraits(Path(sys.argv[1]), {setting.count}, size, corrupt={CORRUPT})\n"
    )
    command = [sys.executable, "-c", code, str(setting.data)]
    return subprocess.Popen(command, cwd=ROOT / "benchmarks", stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_photos(setting: Setting) -> None:
    """Wait until both sets of photos are complete.

    Raises:
        SkipStep: a set is incomplete and less than 10 s are left.
    """
    while len(list(setting.data.glob(f"portraits-*-{setting.count}-0-{CORRUPT}/.complete"))) < len(SIZES):
        if setting.seconds_left < 10:
            raise SkipStep("the photos were not drawn in time")
        time.sleep(0.5)


def run_tests(setting: Setting, *arguments: str) -> Findings:
    """Run pytest in its own process and name the failed tests. Skipped if pytest is not installed."""
    missing = [module for module in ("pytest", "hypothesis", "PIL") if not is_installed(module)]
    if missing:
        return {"outcome": "skipped", "summary": f"tests need {', '.join(missing)}", "notes": []}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rfEs"]
    # A warning of a package that only GPU machines have must not fail the tests.
    output, code = run_command(setting, *command, "-W", "default", *arguments)
    last = (output.strip().splitlines() or ["no output"])[-1].strip("= ")
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", output, re.MULTILINE)
    ran = int((re.findall(r"(\d+) passed", last) or ["0"])[0])
    outcome = "failed" if code not in (0, 5) or failed else "passed" if ran else "skipped"
    return {
        "outcome": outcome,
        "summary": last if code is not None else "tests stopped: out of time",
        "notes": failed[:20],
    }


def run_command(setting: Setting, *command: str) -> tuple[str, int | None]:
    """Run a command; returns its output and exit code, None if it was stopped shortly before the deadline."""
    try:
        result = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            timeout=max(1.0, setting.seconds_left - 3),
        )
        output, code = result.stdout, result.returncode
    except subprocess.TimeoutExpired as err:
        output: Any = err.stdout or b""
        output, code = output if isinstance(output, str) else output.decode(errors="replace"), None
    print(output[-20_000:], flush=True)
    return output, code


def run_benchmark(setting: Setting, script: str, *arguments: str) -> Findings:
    """Run a benchmark of this folder that writes results as it goes; returns its rows, and its table as notes."""
    results = setting.out / f"{Path(script).stem}.json"
    results.unlink(missing_ok=True)
    seconds = str(max(1, int(setting.seconds_left - 15)))
    command = [sys.executable, f"benchmarks/{script}", "--out", str(setting.out), "--seconds", seconds, *arguments]
    output, code = run_command(setting, *command)
    written = sorted(setting.out.glob(f"{Path(script).stem}*.json"), key=lambda path: path.stat().st_mtime)
    findings: Findings = json.loads(written[-1].read_text()) if written else {"rows": [], "notes": []}
    notes = [", ".join(f"{key} {_format(value)}" for key, value in row.items()) for row in findings["rows"]]
    if code != 0:
        last = (output.strip().splitlines() or ["no output"])[-1]
        notes.append(f"{script} {'was stopped' if code is None else f'ended with {code}: {last[:300]}'}")
    return {
        "outcome": "passed"
        if code in (0, None) and findings["rows"]
        else "failed",  # a stopped benchmark keeps its rows
        "rows": findings["rows"],
        "notes": [*notes, *findings["notes"]],
    }


def _format(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def combine(tests: Findings, measured: Findings) -> Findings:
    """Combine tests and a measurement into one step: failed if one failed, skipped if both were skipped."""
    outcomes = {tests["outcome"], measured["outcome"]}
    outcome = next(word for word in ("failed", "passed", "skipped") if word in outcomes)
    summary = "; ".join(part["summary"] for part in (tests, measured) if part.get("summary"))
    return {**measured, "outcome": outcome, "summary": summary, "notes": [*tests["notes"], *measured.get("notes", [])]}


def build_detector(setting: Setting, backend: str) -> Engine:
    """Build the detector's engine."""
    return material.build(DETECTOR, setting.data, backend)


def require_tensorrt(setting: Setting) -> None:
    """Skip the step unless an engine can be built and run."""
    require(setting, *([] if setting.rehearse else ["cupy"]))
    if not (setting.rehearse or is_installed("tensorrt") or is_installed("tensorrt_rtx")):
        raise SkipStep("not installed: tensorrt, tensorrt_rtx")
