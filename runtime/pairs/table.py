"""Write pairs as a table with names, CSV or Parquet: atomically, and in bounded memory."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..contents import PARQUET, TEXT
from ..csvtable import CsvTable
from ..extras import require
from ..metrics.falsematch import Calibration, Expectation
from ..outputs import check_output
from ..records import FACE_DATASETS, PAGE_DATASET
from ..review.rows import STATES
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile
from .all_pairs import ScoredPairs
from .outputs import Ready

_PAIRS_PER_WRITE = 50_000
_NAMES_PER_READ = 100_000


@dataclass(frozen=True, slots=True)
class Pair:
    """Two photos that may show the same person.

    Attributes:
        rows: rows of `/embeddings`, the lower one first.
        paths: photos as the file names them.
        score: cosine.
        expected: pairs of two people to expect at this score or above in the whole file; None without a calibration.
        faces: face_index of each row; None if the file holds no faces.
        pages: page of the photo that each row is from, from 1; None if the file names no pages.
        decision: what people decided: "same", "undecided" or ""; None if decisions were not asked for.
    """

    rows: tuple[int, int]
    paths: tuple[str, str]
    score: float
    expected: Expectation | None
    faces: tuple[int, int] | None
    pages: tuple[int, int] | None = None
    decision: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the pair as JSON-ready data; the keys are the columns of the table."""
        pair: dict[str, Any] = {"path_a": self.paths[0], "path_b": self.paths[1], "score": round(self.score, 6)}
        if self.expected is not None:
            pair |= {"expected_false": float(f"{self.expected.hits:.6g}"), "at_most": self.expected.at_most}
        if self.decision is not None:
            pair["decision"] = self.decision
        pair |= {"row_a": self.rows[0], "row_b": self.rows[1]}
        if self.faces is not None:
            pair |= {"face_index_a": self.faces[0], "face_index_b": self.faces[1]}
        if self.pages is not None:
            pair |= {"page_a": self.pages[0], "page_b": self.pages[1]}
        return pair


class PairTable:
    """Pairs with their names and faces. Holds the names of the rows in pairs, and no others."""

    def __init__(
        self,
        embeddings: EmbeddingFile,
        pairs: ScoredPairs,
        calibration: Calibration | None,
        states: NDArray[np.uint8] | None = None,
    ) -> None:
        """Read the names.

        Args:
            embeddings: an open embedding file.
            pairs: pairs of the file, in the order of the table.
            calibration: gives the expected false pairs; None for an empty column.
            states: (n,) what is decided about each pair, places in `review.rows.STATES`; None for no such column.
        Raises:
            StorageError: the file is damaged.
        """
        self.pairs, self.has_faces, self.has_pages = pairs, embeddings.has_faces, embeddings.has_pages
        self.states = states
        self._calibration, self._all_pairs = calibration, embeddings.rows * (embeddings.rows - 1) // 2
        self._rows = np.unique(np.concatenate([pairs.first, pairs.second]))
        self._text, self._ends = self._read_names(embeddings)
        faces = embeddings.column(FACE_DATASETS["face_index"], 0, embeddings.rows) if self.has_faces else None
        self._faces: NDArray[Any] | None = faces
        self._pages = embeddings.column(PAGE_DATASET, 0, embeddings.rows) if self.has_pages else None

    def _read_names(self, embeddings: EmbeddingFile) -> tuple[bytes, NDArray[np.int64]]:
        """Read all names into one string, and the end of each."""
        texts, lengths = [], [np.zeros(1, np.int64)]
        for start in range(0, embeddings.rows, _NAMES_PER_READ):
            low, high = np.searchsorted(self._rows, (start, start + _NAMES_PER_READ))
            if low < high:
                names = embeddings.column("image_paths", start, min(start + _NAMES_PER_READ, embeddings.rows))
                selected = [bytes(name) for name in names[self._rows[low:high] - start]]
                texts.append(b"".join(selected))
                lengths.append(np.array([len(name) for name in selected], np.int64))
        return b"".join(texts), np.cumsum(np.concatenate(lengths))

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[Pair]:
        for start in range(0, len(self), _PAIRS_PER_WRITE):
            yield from self.rows(start, start + _PAIRS_PER_WRITE)

    def rows(self, start: int, stop: int) -> Iterator[Pair]:
        """Yield pairs `start` to `stop`."""
        first, second = self.pairs.first[start:stop], self.pairs.second[start:stop]
        names = (np.searchsorted(self._rows, side).tolist() for side in (first, second))
        pairs = zip(first.tolist(), second.tolist(), self.pairs.scores[start:stop].tolist(), *names, strict=True)
        states = [None] * len(first) if self.states is None else [STATES[i] for i in self.states[start:stop].tolist()]
        for (a, b, score, name_a, name_b), state in zip(pairs, states, strict=True):
            faces, pages = (
                None if column is None else (int(column[a]), int(column[b])) for column in (self._faces, self._pages)
            )
            paths = self._name(name_a), self._name(name_b)
            yield Pair((a, b), paths, score, self.expected(score), faces, pages, state)

    def expected(self, score: float) -> Expectation | None:
        """Return the pairs of two people to expect at a score or above in the whole file."""
        return None if self._calibration is None else self._calibration.expected(score, self._all_pairs)

    def _name(self, index: int) -> str:
        return self._text[self._ends[index] : self._ends[index + 1]].decode("utf-8", "backslashreplace")


def check_table_path(path: Path, *, force: bool) -> None:
    """Check, before the search, that the table can be written.

    Raises:
        ConfigError: the name ends in neither .csv nor .parquet, or the folder does not exist.
        OutputExistsError: the file exists and `force` is false.
        MissingDependencyError: the package for Parquet is not installed.
    """
    parquet = path.suffix.lower() == ".parquet"
    check_output(path, "the pairs", (".csv", ".parquet"), force=force, kind=PARQUET if parquet else TEXT)
    if parquet:
        _arrow()


def write_table(
    path: Path,
    embeddings: EmbeddingFile,
    table: PairTable,
    *,
    csv_safe: bool = False,
    ready: Ready = lambda status: None,
) -> None:
    """Write all pairs, atomically.

    Args:
        path: ends in .csv or .parquet; replaced if it exists.
        embeddings: the file that was searched.
        table: its pairs.
        csv_safe: write no text into a .csv that a spreadsheet takes for a formula.
        ready: see `storage.derived.derived_file`.
    Raises:
        StorageError: the table cannot be written; an existing file is unchanged.
        MissingDependencyError: the package for Parquet is not installed.
    """
    with derived_file(embeddings, path, "the pairs", ready=ready) as file:
        if path.suffix.lower() == ".csv":
            _write_csv(file, table, safe=csv_safe)
        else:
            _write_parquet(file, table)


def _columns(table: PairTable) -> list[str]:
    faces = ["face_index_a", "face_index_b"] if table.has_faces else []
    pages = ["page_a", "page_b"] if table.has_pages else []
    decision = [] if table.states is None else ["decision"]
    return ["path_a", "path_b", "score", "expected_false", "at_most", *decision, "row_a", "row_b", *faces, *pages]


def _values(row: Pair) -> Iterator[Any]:
    yield from row.paths
    yield row.score
    yield None if row.expected is None else row.expected.hits
    yield None if row.expected is None else row.expected.at_most
    if row.decision is not None:
        yield row.decision
    yield from row.rows
    yield from row.faces or ()
    yield from row.pages or ()


def _pieces(table: PairTable) -> Iterator[list[list[Any]]]:
    for start in range(0, len(table.pairs), _PAIRS_PER_WRITE):
        yield [list(_values(row)) for row in table.rows(start, start + _PAIRS_PER_WRITE)]


def _write_csv(file: IO[bytes], table: PairTable, *, safe: bool) -> None:
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = CsvTable(text, safe=safe)
    writer.row(_columns(table))
    for piece in _pieces(table):
        for values in piece:
            values[2] = f"{values[2]:.6f}"
            if values[3] is not None:
                values[3], values[4] = f"{values[3]:.6g}", str(values[4]).lower()  # true, as JSON writes it
        writer.rows(piece)
    text.detach()


def _write_parquet(file: IO[bytes], table: PairTable) -> None:
    arrow = _arrow()
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Parquet")
    kinds = [*2 * [arrow.string()], arrow.float32(), arrow.float64(), arrow.bool_()]
    kinds += [*([] if table.states is None else [arrow.string()]), *2 * [arrow.int64()]]
    kinds += 2 * (table.has_faces + table.has_pages) * [arrow.int32()]
    schema = arrow.schema(list(zip(_columns(table), kinds, strict=True)))
    with parquet.ParquetWriter(file, schema) as writer:
        for piece in _pieces(table):
            columns = [arrow.array(values, kind) for values, kind in zip(zip(*piece, strict=True), kinds, strict=True)]
            writer.write_batch(arrow.RecordBatch.from_arrays(columns, schema=schema))


def _arrow() -> Any:
    return require("pyarrow", extra="parquet", purpose="writing Parquet")
