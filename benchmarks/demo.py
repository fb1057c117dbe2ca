#!/usr/bin/env python3
"""The tour that `make demo` gives: sample photographs, the main job, a search. Everything lands in demo/."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys

import material
from portraits import write_portraits

DEMO = material.ROOT / "demo"
PEOPLE, SHOTS = 60, 4


def facemill(*arguments: str) -> None:
    """Show a command and run it as a user would."""
    print(f"\n$ facemill {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", "runtime.cli.app", *arguments], cwd=material.ROOT)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    shutil.rmtree(DEMO, ignore_errors=True)
    photos = DEMO / "photos"
    print(f"drawing {PEOPLE * SHOTS} portraits of {PEOPLE} people who do not exist", flush=True)
    files = write_portraits(photos, people=PEOPLE, shots=SHOTS)
    (photos / "cut-short.jpg").write_bytes(files[0].read_bytes()[:5000])
    (photos / "not-a-photograph.jpg").write_text("this is text\n")
    output = "demo/facial_embeddings.h5"
    facemill("process", "demo/photos", "-o", output)
    queries = [str(path.relative_to(material.ROOT)) for path in (files[0], files[5 * SHOTS + 1], files[11 * SHOTS + 2])]
    facemill("search", output, *queries, "-k", "5", "--html", "demo/search.html")
    print(
        f"\nThe results are in {DEMO}:\n"
        "  facial_embeddings.h5   embeddings, paths, and what became of every photograph (docs/format.md)\n"
        "  search.html            the search above as a page with the photographs\n"
        "  photos/                the portraits\n"
        "Your own:  .venv/bin/facemill process YOUR_PHOTOS -o people.h5"
    )


if __name__ == "__main__":
    main()
