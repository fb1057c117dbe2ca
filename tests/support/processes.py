"""The command as its users run it: another process, whose files and exit code are all that counts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from compare import differences

ROOT = Path(__file__).resolve().parents[2]
# A run that makes a durable piece several times a second: one that can be disturbed between two of them.
SMALL_SEGMENTS = ("--segment-rows", 256, "--segment-seconds", 0.2, "--batch-size", 4)


def command(script: str, *arguments: object) -> list[str]:
    """A script of the checkout; whoever says nothing of faces wants none looked for, so that no detector is needed."""
    if script in ("process.py", "evaluate.py", "build_engine.py") and "--align" not in arguments:
        arguments = ("--align", "none", *arguments)
    return [sys.executable, str(ROOT / script), *map(str, arguments)]


def run(script: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(script, *arguments), capture_output=True, text=True, timeout=120, **options)


def start(script: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(script, *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def summary(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The line that --json printed."""
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def assert_same_file(one: Path, other: Path) -> None:
    assert differences(one, other) == []


def segments(output: Path) -> list[Path]:
    return sorted(output.parent.glob("o.h5.parts/segment-*.h5"))


def wait_for_segment(output: Path) -> None:
    """Until the run has made its first segment durable."""
    for _ in range(3000):
        if segments(output):
            return
        time.sleep(0.01)
    raise AssertionError("no segment appeared in 30 s")
