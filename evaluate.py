#!/usr/bin/env python3
"""The same as `facemill evaluate`, from a checkout: python evaluate.py --help."""

import sys

from runtime.cli.start import main

if __name__ == "__main__":
    sys.argv.insert(1, "evaluate")
    main(prog_name="facemill")
