"""Run every command on hostile files, and say which of them trusts the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from .faults.laboratory import Laboratory, Outcome
from .hostile_files import SECRET, commands

SECONDS = 6.0  # of processor time; the slowest command takes two
_SECRETS = (SECRET, b"root:x:0")
_BUG = ("Traceback", "this is a bug")
# The file that a command writes from the rows of the hostile one.
_IN_PLACE = ("process", "retry", "add", "remove")
_OUTPUTS = {"merge": "merged.h5", "repair": "repaired.h5", **dict.fromkeys(_IN_PLACE, "x.h5")}


def prepare_folder(folder: Path, good: Path) -> None:
    """Put what hostile files refer to into a folder."""
    (folder / "secret").write_bytes(SECRET * 500)
    os.mkfifo(folder / "fifo")
    shutil.copy(good, folder / "other.h5")


def violations(laboratory: Laboratory, folder: Path, hostile: Path, *, refused: bool) -> Iterator[tuple[str, str]]:
    """Run every command on a copy of a hostile file.

    Args:
        laboratory: runs the commands.
        folder: holds `photos`, and what `prepare_folder` put there.
        hostile: the file.
        refused: whether all commands but `repair` must refuse it.
    Yields:
        For each command its name, and what it did wrong; empty if nothing.
    """
    out = folder / "out"
    for name, arguments in commands(out / "x.h5", folder / "photos", out).items():
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        shutil.copy(hostile, out / "x.h5")
        outcome = laboratory.run([*map(str, arguments)], out)
        wrong = _wrong(name, outcome, out)
        if outcome.cpu_s > SECONDS:
            wrong = wrong or f"takes {outcome.cpu_s:.1f} s of processor time"
        elif refused and outcome.code == 0 and name != "repair":
            wrong = wrong or "accepts the file"
        yield name, wrong or _wrong_file(laboratory, name, outcome, out, hostile)


def _wrong(name: str, outcome: Outcome, out: Path) -> str:
    if outcome.hang:
        return "hangs"
    if outcome.code < 0:
        return f"is ended by the signal {-outcome.code}"
    if any(text in outcome.stderr for text in _BUG):
        return f"shows a traceback: {outcome.stderr[-800:]}"
    if outcome.code and name != "verify" and "E-" not in outcome.stderr:
        return f"gives an error without a code: {outcome.stderr[-300:]}"
    written = [path for path in out.rglob("*") if path.is_file() and not path.is_symlink() and path.name != "x.h5"]
    content = [outcome.stdout.encode(), *(path.read_bytes() for path in written if path.stat().st_size < 50 << 20)]
    if any(secret in text for text in content for secret in _SECRETS):
        return "shows the content of another file"
    return ""


def _wrong_file(laboratory: Laboratory, name: str, outcome: Outcome, out: Path, hostile: Path) -> str:
    """What `verify` finds in the file that a command wrote from a hostile one."""
    output = out / _OUTPUTS.get(name, "")
    if outcome.code or name not in _OUTPUTS or not output.exists() or output.read_bytes() == hostile.read_bytes():
        return ""
    verified = laboratory.run(["verify", str(output)], out)
    return f"writes a file that is not whole: {verified.stdout[-300:]}" if verified.code else ""
