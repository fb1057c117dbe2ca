"""Ctrl-C ends a command wherever it arrives, also in a finaliser, whose exceptions Python drops."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.facemill_command import ROOT

_CODE = """
import sys, time
sys.path.insert(0, sys.argv[1])
from runtime.cli.common import handle_errors

class Finalised:
    def __del__(self):
        raise KeyboardInterrupt

@handle_errors
def command():
    Finalised()
    time.sleep(20)
    print("not interrupted")

command()
"""


@pytest.mark.slow
def test_an_interrupt_that_python_drops_ends_the_command() -> None:
    result = subprocess.run([sys.executable, "-c", _CODE, str(ROOT)], capture_output=True, text=True, timeout=60)
    assert result.returncode == 130
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "interrupted" in result.stderr
