"""What the steps of gpu_acceptance.py share: where they run, how long they may, and the commands that they run."""

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
CORRUPT = 0.01
DETECTOR = "facemill-det"  # which is in this folder

Findings = dict[str, Any]


class SkipStep(Exception):
    """What the step needs is not here."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where a step runs.

    Attributes:
        name: of the step.
        out: folder for results.
        data: folder for photographs and engines.
        model: registered name.
        rehearse: on the CPU, small: to try the script.
        deadline: on the clock of time.monotonic; the step is stopped then.
    """

    name: str
    out: Path
    data: Path
    model: str
    rehearse: bool
    deadline: float

    @property
    def count(self) -> int:
        """Photographs of each size."""
        return 200 if self.rehearse else 20_000

    @property
    def backend(self) -> str:
        """What stands for the GPU."""
        return "cpu" if self.rehearse else "tensorrt"

    @property
    def seconds_left(self) -> float:
        """Until the step is stopped."""
        return self.deadline - time.monotonic()

    def photographs(self, kind: str) -> Path:
        """The folder of "crops" or "portraits"; drawn by now or waited for."""
        return material.photographs(self.data, self.count, SIZES[kind], corrupt=CORRUPT)

    def keep(self, found: Findings) -> None:
        """Write down what is found so far: it counts if the step is stopped."""
        write_json(self.out / "steps" / f"{self.name}.json", found)


def write_json(path: Path, content: Findings) -> None:
    """Whole or not at all."""
    new = path.with_suffix(".new")
    new.write_text(json.dumps(content))
    os.replace(new, path)


def need(setting: Setting, *modules: str) -> None:
    """Skip unless there is a GPU, and these modules."""
    from runtime.cuda.device import find_gpu

    missing = [module for module in modules if not installed(module)]
    if missing:
        raise SkipStep(f"not installed: {', '.join(missing)}")
    if find_gpu() is None and not setting.rehearse:
        raise SkipStep("no NVIDIA GPU with a driver")


def installed(module: str) -> bool:
    """Whether it could be imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False


def start_drawing(setting: Setting) -> subprocess.Popen[bytes]:
    """Draw the photographs beside the first steps, which need the GPU and few cores."""
    code = (
        "import material, sys; from pathlib import Path\n"
        f"for size in {tuple(SIZES.values())}:\n"
        f"    material.photographs(Path(sys.argv[1]), {setting.count}, size, corrupt={CORRUPT})\n"
    )
    command = [sys.executable, "-c", code, str(setting.data)]
    return subprocess.Popen(command, cwd=ROOT / "benchmarks", stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_photographs(setting: Setting) -> None:
    """Until both sets are complete.

    Raises:
        SkipStep: they are not, with little time left.
    """
    while len(list(setting.data.glob(f"portraits-*-{setting.count}-0-{CORRUPT}/.complete"))) < len(SIZES):
        if setting.seconds_left < 10:
            raise SkipStep("the photographs were not drawn in time")
        time.sleep(0.5)


def run_tests(setting: Setting, *arguments: str) -> Findings:
    """pytest in a process of its own; failed ones are named. Skipped where it is not installed."""
    missing = [module for module in ("pytest", "hypothesis", "PIL") if not installed(module)]
    if missing:
        return {"outcome": "skipped", "summary": f"tests need {', '.join(missing)}", "notes": []}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rfEs"]
    # A warning of a package that only a GPU brings is no failure of ours.
    words, code = run_command(setting, *command, "-W", "default", *arguments)
    last = (words.strip().splitlines() or ["no output"])[-1].strip("= ")
    bad = re.findall(r"^(?:FAILED|ERROR) (\S+)", words, re.MULTILINE)
    ran = int((re.findall(r"(\d+) passed", last) or ["0"])[0])
    outcome = "failed" if code not in (0, 5) or bad else "passed" if ran else "skipped"
    return {"outcome": outcome, "summary": last if code is not None else "tests stopped: no time", "notes": bad[:20]}


def run_command(setting: Setting, *command: str) -> tuple[str, int | None]:
    """What a command prints, and its exit code; None: it was stopped, shortly before the step would be."""
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=ROOT,
            timeout=max(1.0, setting.seconds_left - 3),
        )
        words, code = done.stdout, done.returncode
    except subprocess.TimeoutExpired as err:
        output: Any = err.stdout or b""
        words, code = output if isinstance(output, str) else output.decode(errors="replace"), None
    print(words[-20_000:], flush=True)
    return words, code


def run_benchmark(setting: Setting, script: str, *arguments: str) -> Findings:
    """A script of this folder that writes its results as it goes: its table as notes, its rows as they are."""
    results = setting.out / f"{Path(script).stem}.json"
    results.unlink(missing_ok=True)
    seconds = str(max(1, int(setting.seconds_left - 15)))
    command = [sys.executable, f"benchmarks/{script}", "--out", str(setting.out), "--seconds", seconds, *arguments]
    words, code = run_command(setting, *command)
    written = sorted(setting.out.glob(f"{Path(script).stem}*.json"), key=lambda path: path.stat().st_mtime)
    found: Findings = json.loads(written[-1].read_text()) if written else {"rows": [], "notes": []}
    notes = [", ".join(f"{key} {_short(value)}" for key, value in row.items()) for row in found["rows"]]
    if code != 0:
        last = (words.strip().splitlines() or ["no output"])[-1]
        notes.append(f"{script} {'was stopped' if code is None else f'ended with {code}: {last[:300]}'}")
    return {
        "outcome": "passed" if code in (0, None) and found["rows"] else "failed",  # what was stopped has what it has
        "rows": found["rows"],
        "notes": [*notes, *found["notes"]],
    }


def _short(value: object) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def both(tests: Findings, measured: Findings) -> Findings:
    """Tests and a measurement as one step: failed if one failed, skipped if both were."""
    outcomes = {tests["outcome"], measured["outcome"]}
    outcome = next(word for word in ("failed", "passed", "skipped") if word in outcomes)
    summary = "; ".join(found["summary"] for found in (tests, measured) if found.get("summary"))
    return {**measured, "outcome": outcome, "summary": summary, "notes": [*tests["notes"], *measured.get("notes", [])]}


def build_detector(setting: Setting, backend: str) -> Engine:
    """The detector's engine."""
    return material.build(DETECTOR, setting.data, backend)


def need_tensorrt(setting: Setting) -> None:
    """Skip unless an engine can be built and run."""
    need(setting, *([] if setting.rehearse else ["cupy"]))
    if not (setting.rehearse or installed("tensorrt") or installed("tensorrt_rtx")):
        raise SkipStep("not installed: tensorrt, tensorrt_rtx")
