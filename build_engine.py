#!/usr/bin/env python3
"""The same as `facemill build-engine`, from a checkout: python build_engine.py --help."""

from runtime.cli.build_engine import main

if __name__ == "__main__":
    main()
