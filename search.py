#!/usr/bin/env python3
"""The same as `facemill search`, from a checkout: python search.py --help."""

import sys

from runtime.cli.start import main

if __name__ == "__main__":
    sys.argv.insert(1, "search")
    main(prog_name="facemill")
