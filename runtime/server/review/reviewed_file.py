"""One embedding file under review: its pairs, its clusters, and the decisions about them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from ...api.people import cluster
from ...clusters.clusters import Clusters, number_clusters, obey_decisions
from ...clusters.outputs import COLUMN, COLUMN_BEFORE_REVIEW
from ...errors import ConfigError
from ...interrupt import RunControl
from ...metrics.falsematch import Calibration
from ...pairs.all_pairs import ScoredPairs
from ...pairs.checkpoint import Checkpoint
from ...pairs.pairs import PairQuery, find_pairs
from ...pairs.table import Pair
from ...pairs.threshold import choose_threshold
from ...progress import Listener
from ...review.review import Review
from ...review.rows import STATES
from ...storage.calibration import find_calibration
from ...storage.file import EmbeddingFile
from ..open_files import OpenFile
from .background import Background, Waiting

_MAX_PAIRS = 1_000_000  # in memory: 20 MB


@dataclass(frozen=True, slots=True, eq=False)
class PairList:
    """All pairs of one state of a file above a threshold.

    Attributes:
        version: the `run_id` of the file.
        lowest: the threshold.
        pairs: the pairs, best first.
        calibration: gives the expected false pairs; None without one.
    """

    version: str
    lowest: float
    pairs: ScoredPairs
    calibration: Calibration | None

    @property
    def key(self) -> str:
        """Tells this list from others."""
        return hashlib.sha256(f"{self.version} {self.lowest!r}".encode()).hexdigest()[:16]

    def count_above(self, threshold: float) -> int:
        """The number of pairs that reach a higher threshold; they come first."""
        return int(np.searchsorted(-self.pairs.scores, -np.float32(threshold), side="right"))

    def at(self, places: Sequence[int], embeddings: EmbeddingFile, states: NDArray[np.uint8]) -> list[Pair]:
        """Pairs of the list with the names of their photos.

        Args:
            places: n places in the list.
            embeddings: the open file.
            states: (n,) uint8, what is decided about each; places in `STATES`.
        Raises:
            StorageError: the file is damaged.
        """
        first, second = (side[list(places)].tolist() for side in (self.pairs.first, self.pairs.second))
        names, faces = embeddings.names(first + second), embeddings.face_places(first + second)
        total, pairs = embeddings.rows * (embeddings.rows - 1) // 2, []
        for i, (a, b, score) in enumerate(zip(first, second, self.pairs.scores[list(places)].tolist(), strict=True)):
            expected = None if self.calibration is None else self.calibration.expected(score, total)
            face_a, face_b = faces[i], faces[i + len(first)]
            both = face_a is not None and face_b is not None
            indexes = (face_a.index, face_b.index) if face_a is not None and face_b is not None else None
            pages = (face_a.page, face_b.page) if both and face_a is not None and face_b is not None else (None, None)
            shown = (pages[0], pages[1]) if pages[0] is not None and pages[1] is not None else None
            state = STATES[int(states[i])]
            pairs.append(Pair((a, b), (names[i], names[i + len(first)]), score, expected, indexes, shown, state))
        return pairs


class ReviewedFile:
    """The review of one file. All methods may be called by several threads."""

    def __init__(self, file: OpenFile) -> None:
        """Take a file of the server; nothing is read before a request."""
        self.file = file
        self._lock = threading.RLock()
        self._review: Review | None = None
        self._stamp: tuple[int, ...] = ()
        self._search, self._grouping = Background(), Background()
        self._list: PairList | None = None
        self._clusters: tuple[int, Clusters] | None = None  # and the clock of the decisions that they obey

    @contextmanager
    def review(self, who: str | None = None) -> Iterator[Review]:
        """The decisions about the file as it is now, for one thread at a time.

        Args:
            who: the client who decides; None for a block that decides nothing.
        Raises:
            StorageError: the file or its decisions cannot be read.
        """
        with self._lock:
            with self.file.use() as opened:
                stamp = opened.stamp
            if self._review is None or stamp != self._stamp:
                if self._review is not None:
                    self._review.close()
                self._review, self._clusters = None, None
                self._review, self._stamp = Review(self.file.path), stamp
            if who is not None:
                self._review.who = who
            yield self._review

    @property
    def version(self) -> str:
        """Differs between two files with different rows."""
        with self.review() as review:
            return str(review.embeddings.metadata["run_id"])

    @property
    def pictures(self) -> str:
        """Where pages find pictures of the rows of this state of the file: `<pictures>/<row>`."""
        with self.file.use() as opened:
            return f"/pictures/{quote(self.file.name)}/{opened.state}"

    def pairs(self, threshold: float | None) -> PairList | Waiting:
        """All pairs above a threshold; the first request for them starts the search.

        Args:
            threshold: lowest score; None for that of the calibration.
        Raises:
            ConfigError: the threshold is no cosine, or there is no calibration; or there are too many pairs.
            LockedError: another search of the file runs.
        """
        with self.review() as review:
            version = str(review.embeddings.metadata["run_id"])
            known = self._list
            if threshold is None:
                calibration = find_calibration(review.embeddings)
                threshold = choose_threshold(review.embeddings, calibration, None, None)
        if known is not None and known.version == version and known.lowest <= threshold:
            return known
        lowest = threshold
        result = self._search.ask((version, lowest), lambda listener, control: self._find(lowest, listener, control))
        if isinstance(result, PairList):
            self._list = result
        assert isinstance(result, PairList | Waiting)
        return result

    def _find(self, lowest: float, listener: Listener, control: RunControl) -> PairList:
        query = PairQuery(lowest, max_pairs=_MAX_PAIRS)
        with EmbeddingFile(self.file.path) as embeddings, Checkpoint(self.file.path) as checkpoint:
            version, calibration = str(embeddings.metadata["run_id"]), find_calibration(embeddings)
            found = find_pairs(embeddings, checkpoint, query, listener=listener, control=control)
            checkpoint.remove()
        return PairList(version, lowest, found.pairs, calibration)

    @property
    def is_grouped(self) -> bool:
        """Whether the file has clusters."""
        with self.review() as review:
            return _cluster_column(review.embeddings) is not None

    def clusters(self) -> Clusters:
        """The clusters in the file, changed so that they obey all decisions.

        Raises:
            ConfigError: the file has no clusters.
            StorageError: the file or its decisions cannot be read.
        """
        with self.review() as review:
            rules = review.rules
            if self._clusters is None or self._clusters[0] != rules.clock:
                found = obey_decisions(_read_clusters(review.embeddings), rules, review.embeddings)
                self._clusters = rules.clock, found
            return self._clusters[1]

    def group(self, threshold: float | None, people: int | None) -> Waiting | None:
        """Group the photos of the file by person again, and write the clusters into it; see `facemill.cluster`.

        Returns:
            None when it is done.
        Raises:
            FacemillError: see `facemill.cluster`.
        """

        def work(listener: Listener, control: RunControl) -> bool:
            cluster(self.file.path, threshold=threshold, people=people, listener=listener, control=control)
            return True

        result = self._grouping.ask((self.version, threshold, people), work)
        if isinstance(result, Waiting):
            return result
        self._grouping = Background()  # the next request groups again
        return None

    def stop(self) -> None:
        """Stop long work; see `Background.stop`."""
        self._search.stop()
        self._grouping.stop()

    def close(self) -> None:
        """Wait for long work, and close the file."""
        self._search.close()
        self._grouping.close()
        if self._review is not None:
            self._review.close()


def _read_clusters(embeddings: EmbeddingFile) -> Clusters:
    """The clusters in a file without the decisions of people.

    Raises:
        ConfigError: there are none.
    """
    column = _cluster_column(embeddings)
    if column is None:
        raise ConfigError(
            f"the photos of {embeddings.path.name} are not grouped by person yet. Group them with: "
            f"facemill cluster {embeddings.path.name}"
        )
    labels = embeddings.column(column, 0, embeddings.rows).astype(np.int64) - 1
    return number_clusters(labels, np.ones(len(labels), np.float32), method="whispers")


def _cluster_column(embeddings: EmbeddingFile) -> str | None:
    """The column with the clusters without the decisions of people; None if the file has no clusters."""
    return next((name for name in (COLUMN_BEFORE_REVIEW, COLUMN) if embeddings.has_column(name)), None)


def cluster_id(rows: NDArray[np.int64]) -> str:
    """A name for a cluster that changes when its rows do."""
    return f"{int(rows[0])}-{hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()[:12]}"


def face_dicts(embeddings: EmbeddingFile, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Rows with their photos and faces, for JSON."""
    places = zip(rows, embeddings.names(rows), embeddings.face_places(rows), strict=True)
    return [{"row": row, "path": path, **({} if face is None else face.to_dict())} for row, path, face in places]
