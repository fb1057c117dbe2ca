"""The kinds of folders that have a receipt."""

from __future__ import annotations

from .receipt import Kind

FILTERED = Kind(
    "filtered photos", ("facemill filter", "--folders"), r"photos|photos\.csv", top="photos", list="photos.csv"
)
CLUSTERS = Kind("cluster folders", ("facemill cluster", "--folders"), r"cluster-\d{5,}")
SHEETS = Kind("contact sheets", ("facemill cluster", "--sheets"), r"(index|sheet)(-\d{4,})?\.html")
KINDS = (FILTERED, CLUSTERS, SHEETS)
