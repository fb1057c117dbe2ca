"""The console command `facemill` as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.support.processes import ROOT


def facemill(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    """Run it in another process, with these environment variables on top."""
    env = {**os.environ, **{key: str(value) for key, value in environment.items()}}
    command = [sys.executable, "-m", "runtime.cli.app", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, timeout=120)
