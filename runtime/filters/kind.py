"""The kind of the folders that `facemill filter` fills."""

from __future__ import annotations

from ..receipts.kinds import FILTERED

KIND = FILTERED
PHOTOS, LIST = KIND.top, KIND.list
