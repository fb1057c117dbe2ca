"""The kind of the folders that `facemill filter` fills."""

from __future__ import annotations

from ..receipts.receipt import Kind

PHOTOS, LIST = "photos", "photos.csv"
KIND = Kind("filtered photos", ("facemill filter", "--folders"), r"photos|photos\.csv", top=PHOTOS, list=LIST)
