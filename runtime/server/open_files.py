"""The embedding files that a server answers for. A file that was replaced is opened again by the next request."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from .. import defaults
from ..attributes.selection import AttributeFilter
from ..errors import FacemillError, StorageError
from ..images.decode import Limits
from ..search.answers import Answer
from ..search.embedder import Embedding, PhotoEmbedder, QueryRules
from ..search.file_rules import rules_of
from ..search.hits import FindOptions
from ..search.search import Search

E = TypeVar("E")
F = TypeVar("F")

_FILTERED_SEARCHES = 4  # kept open for each file; each holds a mask of its rows


class SharedEmbedders:
    """One embedder for each set of rules, so that files of one model share its engines. Owned by `with`."""

    def __init__(self, limits: Limits, max_faces: int) -> None:
        """Store the limits of the server, which apply besides those of a file."""
        self._limits, self._max_faces = limits, max_faces
        self._embedders: dict[QueryRules, PhotoEmbedder] = {}
        self._lock = threading.Lock()

    def get(self, rules: QueryRules) -> PhotoEmbedder:
        """The embedder of the rules of a file; its engines are loaded by the first photo."""
        own, server = rules.limits, self._limits
        limits = Limits(min(own.max_bytes, server.max_bytes), min(own.max_pixels, server.max_pixels))
        rules = replace(rules, limits=limits, max_faces=self._max_faces)
        with self._lock:
            if rules not in self._embedders:
                self._embedders[rules] = PhotoEmbedder(rules)
            return self._embedders[rules]

    def __enter__(self) -> SharedEmbedders:
        return self

    def __exit__(self, *exc: object) -> None:
        for embedder in self._embedders.values():
            embedder.close()


@dataclass(eq=False)
class Opened:
    """One state of a file: what it was when it was opened.

    Attributes:
        search: searches all rows.
        embedder: embeds queries as the rows were.
        stamp: tells this state of the file from others.
        users: requests that use it.
    """

    search: Search
    embedder: PhotoEmbedder
    stamp: tuple[int, ...]
    users: int = 0
    _filtered: OrderedDict[AttributeFilter, Search] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def state(self) -> str:
        """The stamp for URLs, so that a picture of a row is never that of another state's row."""
        return hashlib.sha256(repr(self.stamp).encode()).hexdigest()[:16]

    def find(self, queries: Sequence[Embedding], options: FindOptions, chosen: AttributeFilter) -> list[Answer]:
        """Find the rows most similar to each query, among all rows or among those that a filter selects.

        Raises:
            ConfigError: the file has no age or gender.
            StorageError: the file is damaged.
        """
        if not chosen:
            return self.search.find_embeddings(queries, options)
        with self._lock:  # few searches have a filter, and an index uses all cores
            if chosen not in self._filtered:
                while len(self._filtered) >= _FILTERED_SEARCHES:
                    self._filtered.popitem(last=False)[1].close()
                self._filtered[chosen] = Search(
                    self.search.file.path, gender=chosen.gender, age=chosen.ages, unsure=chosen.unsure
                )
            self._filtered.move_to_end(chosen)
            return self._filtered[chosen].find_embeddings(queries, options)

    def to_dict(self) -> dict[str, Any]:
        """The facts of the file besides its name, for JSON."""
        file = self.search.file
        return {
            "rows": file.rows,
            "dimension": file.dimension,
            "model": str(file.metadata.get("model", "unknown")),
            "model_sha256": str(file.metadata.get("model_sha256", "unknown")),
            "has_faces": file.has_faces,
            "attributes": list(file.contract.attributes_read),
            "calibrated": self.search.calibration is not None,
        }

    def close(self) -> None:
        """Close the file."""
        for search in self._filtered.values():
            search.close()
        self.search.close()


class OpenFile:
    """A file under its name. Owned by `with`.

    Attributes:
        name: its name in routes.
        path: the file.
    """

    def __init__(self, path: Path, embedders: SharedEmbedders, *, latency_ms: float = defaults.LATENCY_MS) -> None:
        """Open the file.

        Args:
            path: the file.
            embedders: gives the embedder of its rules.
            latency_ms: milliseconds of a search, as for `Search`.
        Raises:
            StorageError: it is not a finished embedding file.
            EngineError, ContractError: its engine is missing, or does not fit.
        """
        self.name, self.path = path.stem, path
        self._embedders, self._latency_ms = embedders, latency_ms
        self._lock = threading.Lock()
        self._current = self._open()

    @property
    def embedder(self) -> PhotoEmbedder:
        """The embedder of the file as it was opened last."""
        return self._current.embedder

    @contextmanager
    def use(self) -> Iterator[Opened]:
        """The file as it is now, for the time of the block.

        Raises:
            StorageError, EngineError, ContractError: the file was replaced by one that cannot be used.
        """
        with self._lock:
            if _stamp(self.path) != self._current.stamp:
                before, self._current = self._current, self._open()
                if not before.users:
                    before.close()
            opened = self._current
            opened.users += 1
        try:
            yield opened
        finally:
            with self._lock:
                opened.users -= 1
                if opened is not self._current and not opened.users:
                    opened.close()

    def to_dict(self) -> dict[str, Any]:
        """The facts of the file as it is now, for JSON.

        Raises:
            StorageError, EngineError, ContractError: see `use`.
        """
        with self.use() as opened:
            return opened.to_dict()

    def embed_and_find(self, embed: Callable[[PhotoEmbedder], E], find: Callable[[Opened, E], Iterable[F]]) -> list[F]:
        """Embed queries, then search the file as it is after that.

        The file is held for the search alone: a removal that ends meanwhile is seen by every search that begins later.

        Args:
            embed: makes queries with an embedder.
            find: answers them.
        """
        while True:
            with self.use() as opened:
                embedder = opened.embedder
            queries = embed(embedder)
            with self.use() as opened:
                if opened.embedder is embedder:  # else the file was replaced by one of another model
                    return list(find(opened, queries))

    def _open(self) -> Opened:
        stamp = _stamp(self.path)
        with ExitStack() as stack:
            search = stack.enter_context(Search(self.path, latency_ms=self._latency_ms))
            embedder = self._embedders.get(rules_of(search.file))
            embedder.photos_together()  # loads the engines
            if search.file.rows:  # opens the index, or builds it, before a request waits for it
                search.find_vectors(search.file.vectors_at([0]))
            stack.pop_all()
        return Opened(search, embedder, stamp)

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *exc: object) -> None:
        self._current.close()


def facts_of_each(
    files: Mapping[str, OpenFile], facts_of: Callable[[OpenFile], dict[str, Any]]
) -> list[dict[str, Any]]:
    """The facts of each file, with its `name`; of one that cannot be used its `name` and why, as `error`.

    Args:
        files: the files by their names.
        facts_of: reads the facts of one.
    """

    def facts(file: OpenFile) -> dict[str, Any]:
        try:
            return facts_of(file)
        except FacemillError as err:
            return {"error": str(err)}
        except OSError as err:
            return {"error": str(StorageError(f"{file.path} cannot be read: {err.strerror}"))}

    return [{"name": name, **facts(file)} for name, file in files.items()]


def _stamp(path: Path) -> tuple[int, ...]:
    """What differs between two files under one name."""
    try:
        status = os.stat(path)
    except OSError as err:
        raise StorageError(f"{path} cannot be read: {err.strerror}. Put it back, or start the server again") from err
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
