#!/usr/bin/env python3
"""The same as `facemill evaluate`, from a checkout: python evaluate.py --help."""

from runtime.cli.evaluate import main

if __name__ == "__main__":
    main()
