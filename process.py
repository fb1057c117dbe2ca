#!/usr/bin/env python3
"""The same as `facemill process`, from a checkout: python process.py --help."""

from runtime.cli.process import main

if __name__ == "__main__":
    main()
