"""The old name of `files.check_output`, until every caller has changed."""

from __future__ import annotations

from ..files import check_output as check_new_file

__all__ = ["check_new_file"]
