#!/usr/bin/env python3
"""The same as `facemill search`, from a checkout: python search.py --help."""

from runtime.cli.search import main

if __name__ == "__main__":
    main()
