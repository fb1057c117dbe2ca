#!/usr/bin/env python3
"""The same as `facemill build-engine`, from a checkout: python build_engine.py --help."""

import sys

from runtime.cli.start import main

if __name__ == "__main__":
    sys.argv.insert(1, "build-engine")
    main(prog_name="facemill")
