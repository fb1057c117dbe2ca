#!/usr/bin/env python3
"""Damage photos, models, embedding files, indexes and unfinished runs at random, and count what is answered wrongly.

    python benchmarks/fuzz.py --photos 10000 --models 1000 --files 300

No damage may end in a traceback, a hang or a signal, and no answer may be silently wrong; see tests/support/fuzzing.py.
Every case follows from its seed, so that `--only "index" --first 17 --files 1` repeats one.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import time
from pathlib import Path

import material  # noqa: F401 (finds the packages of the checkout)
from report import write_results

from tests.support.faults.case import Templates
from tests.support.faults.laboratory import Laboratory
from tests.support.fuzzing import Case, FileCases, image_case, toml_case
from tests.support.model_files import write_tiny_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=10_000, help="number of damaged photos; default: 10,000")
    parser.add_argument("--models", type=int, default=1_000, help="number of damaged model files; default: 1,000")
    parser.add_argument("--files", type=int, default=300, help="number of cases of each kind of file; default: 300")
    parser.add_argument("--first", type=int, default=0, help="the first seed; default: 0")
    parser.add_argument("--only", default="", help="one kind of cases; default: all")
    options = parser.parse_args()
    rows, wrong = [], []

    def repeat(name: str, case: Case, number: int) -> None:
        if options.only not in ("", name):
            return
        began, before = time.perf_counter(), len(wrong)
        for seed in range(options.first, options.first + number):
            answer = case(random.Random(f"{name} {seed}"))
            if answer:
                wrong.append(f"{name} {seed}: {answer}")
                print(wrong[-1], flush=True)
        rows.append({"damaged": name, "cases": number, "wrong": len(wrong) - before})
        print(f"{name}: {number} cases in {time.perf_counter() - began:.0f} s", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["FACEMILL_CACHE"] = str(folder / "cache")  # damaged models leave engines there
        repeat("photo", image_case(), options.photos)
        repeat("model description", toml_case(folder), options.models)
        model = write_tiny_model(folder)
        with Laboratory(folder) as laboratory:
            (folder / "templates").mkdir()
            files = FileCases(laboratory, Templates(folder / "templates", model), folder / "case")
            for name, case in files.kinds.items():
                repeat(name, case, options.files)
    cases = sum(int(str(row["cases"])) for row in rows)
    if not options.only:
        write_results("fuzz", f"{cases:,} damaged inputs: {len(wrong)} wrong answers", rows, wrong)
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
