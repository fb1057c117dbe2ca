"""facemill: millions of face photos to a searchable set of embeddings, overnight, on one machine.

From pictures to answers:

    >>> import facemill
    >>> summary = facemill.process("photos/", "people.h5")
    >>> with facemill.Search("people.h5") as search:
    ...     (answer,) = search.find("photos/person0/0.jpg", k=2)
    ...     for hit in answer.hits:
    ...         print(f"{hit.rank}: {hit.path}")
    1: person0/0.jpg
    2: person0/2.jpg

Photos are paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB; `process` takes paths, or a source such as
`MemorySource`. Results are frozen dataclasses, and `to_dict()` gives
what the commands print as JSON. Names are imported when they are used, so that `import facemill` is quick.
"""

from __future__ import annotations

import importlib

TYPE_CHECKING = False  # as in `typing`, whose import takes longer than the rest of this module

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from .api.attributes import FilterReport as FilterReport
    from .api.attributes import Match as Match
    from .api.attributes import add_attributes as add_attributes
    from .api.attributes import filter as filter
    from .api.attributes import undo_filter as undo_filter
    from .api.jobs import add as add
    from .api.jobs import open as open
    from .api.jobs import outcomes as outcomes
    from .api.jobs import process as process
    from .api.jobs import remove as remove
    from .api.pairs import PairReport as PairReport
    from .api.pairs import find_pairs as find_pairs
    from .api.people import Cluster as Cluster
    from .api.people import ClusterReport as ClusterReport
    from .api.people import cluster as cluster
    from .api.photos import FaceEmbedder as FaceEmbedder
    from .api.photos import compare as compare
    from .api.photos import detect as detect
    from .api.photos import embed as embed
    from .attributes.selection import AttributeFilter as AttributeFilter
    from .errors import FacemillError as FacemillError
    from .faces.rules import FaceRules as FaceRules
    from .filters.undo import Undone as Undone
    from .images.decode import Limits as Limits
    from .interrupt import RunControl as RunControl
    from .maintenance.add import Added as Added
    from .maintenance.attributes import Attributed as Attributed
    from .maintenance.receipt import Receipt as Receipt
    from .pairs.table import Pair as Pair
    from .pipeline.summary import Summary as Summary
    from .records import Status as Status
    from .review.review import PairVerdict as PairVerdict
    from .review.review import Review as Review
    from .search.answers import Answer as Answer
    from .search.answers import Hit as Hit
    from .search.compare import Comparison as Comparison
    from .search.detector import Detection as Detection
    from .search.embedder import Embedding as Embedding
    from .search.faces import DetectedFace as DetectedFace
    from .search.faces import EmbeddedFace as EmbeddedFace
    from .search.faces import PhotoFaces as PhotoFaces
    from .search.search import Search as Search
    from .sources.kinds import Patterns as Patterns
    from .sources.reader import ReadError as ReadError
    from .sources.source import MemorySource as MemorySource
    from .sources.source import Source as Source
    from .storage.file import EmbeddingFile as EmbeddingFile
    from .storage.outcomes import PhotoOutcome as PhotoOutcome

# Where each name is defined: the same list as above, for use.
_MODULES = {
    "api.attributes": ("FilterReport", "Match", "add_attributes", "filter", "undo_filter"),
    "api.jobs": ("add", "open", "outcomes", "process", "remove"),
    "api.pairs": ("PairReport", "find_pairs"),
    "api.people": ("Cluster", "ClusterReport", "cluster"),
    "api.photos": ("FaceEmbedder", "compare", "detect", "embed"),
    "attributes.selection": ("AttributeFilter",),
    "errors": ("FacemillError",),
    "faces.rules": ("FaceRules",),
    "images.decode": ("Limits",),
    "interrupt": ("RunControl",),
    "filters.undo": ("Undone",),
    "maintenance.add": ("Added",),
    "maintenance.attributes": ("Attributed",),
    "maintenance.receipt": ("Receipt",),
    "pairs.table": ("Pair",),
    "pipeline.summary": ("Summary",),
    "records": ("Status",),
    "review.review": ("PairVerdict", "Review"),
    "search.answers": ("Answer", "Hit"),
    "search.compare": ("Comparison",),
    "search.detector": ("Detection",),
    "search.embedder": ("Embedding",),
    "search.faces": ("DetectedFace", "EmbeddedFace", "PhotoFaces"),
    "search.search": ("Search",),
    "sources.kinds": ("Patterns",),
    "sources.reader": ("ReadError",),
    "sources.source": ("MemorySource", "Source"),
    "storage.file": ("EmbeddingFile",),
    "storage.outcomes": ("PhotoOutcome",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Added", "Answer", "AttributeFilter", "Attributed", "Cluster", "ClusterReport", "Comparison", "DetectedFace",
    "Detection", "EmbeddedFace", "Embedding", "EmbeddingFile", "FaceEmbedder", "FaceRules", "FacemillError",
    "FilterReport", "Hit", "Limits", "Match", "MemorySource", "Pair", "PairReport", "PairVerdict", "Patterns",
    "PhotoFaces", "PhotoOutcome", "ReadError", "Receipt", "Review", "RunControl", "Search",
    "Source", "Status", "Summary", "Undone", "add", "add_attributes", "cluster", "compare",
    "detect", "embed", "filter", "find_pairs", "open", "outcomes", "process", "remove", "undo_filter",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first used (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
