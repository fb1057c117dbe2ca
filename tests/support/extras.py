"""Packages of an extra that tests need. Looking for a package is cheaper than importing it in every test process."""

from __future__ import annotations

from importlib.util import find_spec

import pytest


def require_package(name: str, extra: str) -> None:
    """Skip the calling module if a package is not installed."""
    if find_spec(name) is None:
        pytest.skip(f"{name} is not installed: pip install '.[{extra}]'", allow_module_level=True)
