#!/usr/bin/env python3
"""The same as `facemill process`, from a checkout: python process.py --help."""

import sys

from runtime.cli.start import main

if __name__ == "__main__":
    sys.argv.insert(1, "process")
    main(prog_name="facemill")
