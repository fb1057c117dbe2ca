"""Search an embedding file: find the rows most similar to a photo."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..attributes.selection import AttributeFilter
from ..engines.engine import Engine, read_engine
from ..errors import StorageError
from ..index.approximate import ApproximateIndex
from ..index.check import discard_indexes
from ..index.flat import FlatIndex, check_queries
from ..index.open import MAX_APPROXIMATE_HITS, check_index_options, open_index
from ..storage.calibration import find_calibration
from ..storage.file import EmbeddingFile
from .answers import Answer, SearchFacts
from .embedder import Embedding, PhotoEmbedder, PhotoInput, photo_list
from .file_rules import rules_of
from .hits import MAX_ROWS_AT_ONCE, FindOptions, QueryHits, find_hits, wrong_hit
from .model_label import model_warning

logger = logging.getLogger(__name__)

_BATCH_QUERIES = 2048  # queries per search: enough to make the time of reading the rows negligible


class Search:
    """An embedding file, ready for any number of queries, also from several threads.

    Use it in a `with` block, or call `close()`. The first photo loads the engine. The first query opens the index, or
    builds it once beside the file. Vectors need no engine.

    Attributes:
        file: the open embedding file.
        calibration: the false-match rates of the file; None if it has no calibration.

    Example:
        >>> import facemill
        >>> with facemill.Search("people.h5") as search:
        ...     (answer,) = search.find("photos/person0/0.jpg", k=3)
        >>> answer.hits[0].path, round(answer.hits[0].score, 2)
        ('person0/0.jpg', 1.0)
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | EmbeddingFile,
        *,
        index: str = "auto",
        device: str = "auto",
        engine: str | os.PathLike[str] | Engine | None = None,
        latency_ms: float = 100.0,
        gender: str | None = None,
        age: str | tuple[int, int] | None = None,
        unsure: str = defaults.UNSURE,
    ) -> None:
        """Open the file.

        Args:
            file: a finished embedding file; an open one stays open when the search is closed.
            index: "flat" (exact), "ivf" or "sq8" (approximate); "auto" is exact if that is within `latency_ms`, else
                the smallest index that finds 99 % of the hits.
            device: device of the search: "cpu", "gpu" (the first one) or the number of a GPU; "auto" for the faster
                one. The answers are the same.
            engine: an engine file; None for the engine that the file names.
            latency_ms: maximum time of a query in milliseconds, above which "auto" tries an approximate index.
            gender, age, unsure: search only among these faces, exactly and on the CPU; see `facemill.filter`.
        Raises:
            StorageError: the file is not a finished embedding file.
            EngineError: the given engine is missing or damaged.
            ConfigError: index or device is unknown, or they cannot be combined; or the file has no age or gender.
        """
        chosen = AttributeFilter.of(gender, age, unsure)
        check_index_options(device, index, latency_ms)
        self._index_name, self._device, self._latency_ms = index, device, latency_ms
        self._engine = engine if engine is None or isinstance(engine, Engine) else read_engine(Path(engine))
        self._owned = ExitStack()
        self.file = file if isinstance(file, EmbeddingFile) else self._owned.enter_context(EmbeddingFile(Path(file)))
        self.calibration, self._warning = find_calibration(self.file), model_warning(self.file)
        self._chosen = str(chosen) if chosen else ""
        try:
            self._mask = chosen.rows(self.file) if chosen else None
        except BaseException:
            self._owned.close()
            raise
        self._lock = threading.RLock()
        self._embedder: PhotoEmbedder | None = None
        self._index: FlatIndex | ApproximateIndex | None = None
        self._opened_for = 0, 0  # k and queries

    def find(
        self,
        photos: PhotoInput | Sequence[PhotoInput],
        *,
        k: int = 10,
        threshold: float | None = None,
        exclude_self: bool = False,
        by_folder: bool = False,
    ) -> list[Answer]:
        """Find the rows most similar to each photo.

        Args:
            photos: a photo or several: paths, encoded bytes, or (H, W, 3) uint8 arrays, RGB.
            k: maximum number of hits for each photo.
            threshold: lowest score of a hit, -1 to 1; None for no threshold.
            exclude_self: leave out the rows of the query's own file, under any name; bytes and arrays have no file.
            by_folder: group hits by folder and return each folder's best; `k` counts folders.
        Returns:
            One answer for each photo, in the same order; a photo that cannot be embedded has an answer with its error.
        Raises:
            ConfigError: k is below 1.
            ContractError: the engine's embeddings cannot be compared with the rows.
            EngineError, MissingDependencyError: an engine or index cannot be loaded.
            StorageError: the file is damaged.
        """
        options = FindOptions(k, threshold, exclude_self, by_folder)
        return list(self.stream(photo_list(photos), options))

    def find_vectors(
        self, vectors: NDArray[np.float32], *, k: int = 10, threshold: float | None = None, by_folder: bool = False
    ) -> list[Answer]:
        """Find the rows most similar to each vector.

        Args:
            vectors: (q, D) float32, rows of length 1, or one (D,); made by the model of the file.
            k: maximum number of hits for each vector.
            threshold: lowest score of a hit, -1 to 1; None for no threshold.
            by_folder: group hits by folder and return each folder's best; `k` counts folders.
        Returns:
            One answer for each vector, in the same order.
        Raises:
            ConfigError: the vectors have a wrong shape or length, or k is below 1.
            StorageError: the file is damaged.
        """
        options = FindOptions(k, threshold, False, by_folder)
        rows = np.atleast_2d(np.asarray(vectors, np.float32))
        check_queries(rows, k, self.file.dimension)
        return self.find_embeddings([Embedding(f"<vector {i}>", vector) for i, vector in enumerate(rows)], options)

    def find_embeddings(self, queries: Sequence[Embedding], options: FindOptions) -> list[Answer]:
        """Find the rows most similar to each embedding, made by the rules of this file (`file_rules.rules_of`).

        Args:
            queries: embeddings; one with an error has an answer with that error.
            options: options that select hits; no query has a file of its own.
        Returns:
            One answer for each embedding, in the same order.
        Raises:
            ConfigError: k is above the limit of a GPU.
            StorageError: the file is damaged.
        """
        answers: list[Answer] = []
        for start in range(0, len(queries), self._queries_per_search(options)):
            answers += self._answers(queries[start : start + self._queries_per_search(options)], None, options)
        return answers

    def stream(self, photos: Sequence[PhotoInput], options: FindOptions) -> Iterator[Answer]:
        """Yield answers, searching some thousand photos at a time, so that memory does not grow with their number.

        Args:
            photos: any number.
            options: options that select hits.
        Raises:
            FacemillError: the same errors as `find`.
        """
        together = self._queries_per_search(options)
        for start in range(0, len(photos), together):
            part = photos[start : start + together]
            embeddings = self._photo_embedder().embed(part, total=len(photos), first=start)
            yield from self._answers(embeddings, part, options)
            if len(photos) > together:
                logger.info("%d of %d queries", min(start + together, len(photos)), len(photos))

    def _queries_per_search(self, options: FindOptions) -> int:
        """Number of queries for each search of the index."""
        return max(1, min(_BATCH_QUERIES, MAX_ROWS_AT_ONCE // options.depth))

    def _photo_embedder(self) -> PhotoEmbedder:
        with self._lock:
            if self._embedder is None:
                embedder = PhotoEmbedder(rules_of(self.file, self._engine))
                self._embedder = self._owned.enter_context(embedder)
            return self._embedder

    def _answers(
        self, embeddings: Sequence[Embedding], photos: Sequence[PhotoInput] | None, options: FindOptions
    ) -> list[Answer]:
        """Answer the queries of one batch."""
        searched = [i for i, embedding in enumerate(embeddings) if embedding.vector is not None]
        vectors = np.empty((len(searched), self.file.dimension), np.float32)  # (q, D)
        for row, i in enumerate(searched):
            vectors[row] = embeddings[i].vector
        paths = [_path_of(photos[i]) if photos is not None else None for i in searched]
        with self._lock:  # an index on a GPU runs one search at a time, and one on a CPU uses all cores
            index, hits, search_ms = self._find(vectors, paths, options, len(embeddings))
        by_query = dict(zip(searched, hits, strict=True))
        metadata = self.file.metadata
        facts = SearchFacts(
            rows=index.rows,
            model=str(metadata.get("model", "unknown")),
            model_sha256=str(metadata.get("model_sha256", "unknown")),
            has_faces=self.file.has_faces,
            has_pages=self.file.has_pages,
            index=index.facts,
            warning=self._warning,
            calibration=self.calibration,
            by_folder=options.by_folder,
            chosen=self._chosen,
        )
        none, share_ms = QueryHits(), search_ms / max(1, len(searched))
        return [
            Answer(
                embedding.photo,
                facts,
                by_query.get(i, none).hits,
                embedding.error,
                embedding.faces,
                embedding.face,
                by_query.get(i, none).cut,
                share_ms,
            )
            for i, embedding in enumerate(embeddings)
        ]

    def _find(
        self, vectors: NDArray[np.float32], paths: Sequence[str | None], options: FindOptions, queries: int
    ) -> tuple[FlatIndex | ApproximateIndex, list[QueryHits], float]:
        """Search with the best index. An index whose hits are not those of the file is built again, once."""
        for last in (False, True):
            index = self._index_for(options.depth, queries)
            hits, search_ms = find_hits(index, self.file, vectors, paths, options, self.calibration)
            flaw = wrong_hit(self.file, vectors, hits)
            if not flaw:
                break
            if last:
                raise StorageError(f"the index of {self.file.path} is wrong, even built again: {flaw}")
            self._close_index()
            discard_indexes(self.file.path, flaw)
        return index, hits, search_ms

    def _index_for(self, k: int, queries: int) -> FlatIndex | ApproximateIndex:
        """The best index for a call of this size: the open one, or a new one that replaces it."""
        index, (opened_k, opened_queries) = self._index, self._opened_for
        # An approximate index was measured for its k. Exact search was chosen for all usual k. With more queries at
        # once a GPU may be faster, and the plan of its memory depends on their number.
        if index is not None and (self._device == "cpu" or queries <= opened_queries):
            exact = index.facts.measured is None
            if k == opened_k or (exact and max(k, opened_k) <= MAX_APPROXIMATE_HITS):
                return index
        self._close_index()
        self._index = open_index(
            self.file,
            self._device,
            k=k,
            queries=queries,
            index=self._index_name,
            latency_ms=self._latency_ms,
            mask=self._mask,
        )
        self._opened_for = k, queries
        return self._index

    def _close_index(self) -> None:
        if self._index is not None:
            self._index.__exit__(None, None, None)
            self._index = None

    def close(self) -> None:
        """Release the engine, the index and the file."""
        with self._lock:
            self._close_index()
            self._embedder = None
            self._owned.close()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _path_of(photo: PhotoInput) -> str | None:
    """The file of a query; None for bytes and arrays."""
    return os.fspath(photo) if isinstance(photo, (str, os.PathLike)) else None
