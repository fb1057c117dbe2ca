#!/usr/bin/env python3
"""Run every command on embedding files that nobody should trust, and count what they do wrong.

    python benchmarks/hostile.py --members 300

The files are one of each kind in tests/support/hostile_files.py, and those that tests/support/hostile_members.py
makes up from seeds. No command may hang, crash, show a traceback or the content of another file, accept a file whose
content is elsewhere or of a wrong type, or write a file that `facemill verify` does not find whole.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import h5py
import material
from report import write_results

from tests.support import encoded_images as make
from tests.support.facemill_command import facemill
from tests.support.faults.laboratory import Laboratory
from tests.support.hostile_commands import prepare_folder, violations
from tests.support.hostile_files import KINDS
from tests.support.hostile_members import make_member


def make_good_file(folder: Path) -> Path:
    """Embed twelve drawings."""
    for number in range(12):
        photo = folder / "photos" / f"p{number % 3}" / f"{number:02}.jpg"
        photo.parent.mkdir(parents=True, exist_ok=True)
        photo.write_bytes(make.encode(make.scene(112, 112, seed=number), quality=80))
    good = folder / "good.h5"
    done = facemill("process", folder / "photos", "-o", good, "--model", "facemill-512", "--align", "none")
    assert done.returncode == 0, done.stderr
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=300, help="number of files made up from seeds; default: 300")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default: 0")
    options = parser.parse_args()
    runs, counts, wrong = Counter[str](), Counter[str](), []
    with tempfile.TemporaryDirectory() as scratch, Laboratory(Path(scratch)) as laboratory:
        folder = Path(scratch)
        good = make_good_file(folder)
        prepare_folder(folder, good)
        hostile = folder / "hostile.h5"

        def run_commands(text: str, *, refused: bool) -> None:
            for name, violation in violations(laboratory, folder, hostile, refused=refused):
                runs[name] += 1
                if violation:
                    counts[name] += 1
                    wrong.append(f"{text}: {name} {violation}")
                    print(wrong[-1], flush=True)

        for kind, change in KINDS.items():
            shutil.copy(good, hostile)
            with h5py.File(hostile, "r+") as file:
                change(file, folder)
            run_commands(kind, refused=False)
        for seed in range(options.first, options.first + options.members):
            shutil.copy(good, hostile)
            member = make_member(seed, hostile, folder)
            run_commands(f"seed {seed}, {member.text}", refused=member.refused)
    files = len(KINDS) + options.members
    write_results(
        "hostile",
        f"{sum(runs.values()):,} runs on {files} hostile embedding files: {len(wrong)} violations",
        [{"command": name, "runs": number, "violations": counts[name]} for name, number in sorted(runs.items())],
        [*wrong, f"{len(KINDS)} kinds, and {options.members} files made up from the seeds from {options.first} on"],
    )
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    os.environ.setdefault("FACEMILL_CACHE", str(material.ROOT / ".cache"))
    main()
