"""Write the rows that a filter selects as a CSV list."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..csvtable import CsvTable
from ..outputs import check_output
from ..records import attribute_datasets
from ..storage.derived import derived_file
from ..storage.file import EmbeddingFile

_ROWS_PER_READ = 100_000


def check_list_path(path: Path, *, force: bool) -> None:
    """Check, before the work, that the list can be written.

    Raises:
        ConfigError: the name does not end in .csv, or the folder does not exist.
        OutputExistsError: the file exists and `force` is false.
    """
    check_output(path, "the list", (".csv",), force=force)


def write_list(path: Path, gallery: EmbeddingFile, rows: NDArray[np.int64], *, csv_safe: bool = False) -> None:
    """Write a list of rows; see `write_rows`.

    Args:
        path: replaced atomically.
        gallery: the open file.
        rows: (n,) ascending rows.
        csv_safe: write no text that a spreadsheet takes for a formula.
    Raises:
        StorageError, DiskFullError: the list cannot be written; an existing file is unchanged.
    """
    with derived_file(gallery, path, "the list") as file:
        write_rows(file, gallery, rows, csv_safe=csv_safe)


def write_rows(file: IO[bytes], gallery: EmbeddingFile, rows: NDArray[np.int64], *, csv_safe: bool) -> None:
    """Write `row,path`, then `face_index`, `page` and the attributes as far as the file has them."""
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    table = CsvTable(text, safe=csv_safe)
    places = ["face_index", *(["page"] if gallery.has_pages else [])] if gallery.has_faces else []
    names = list(attribute_datasets(gallery.contract.attributes_read))
    table.row(("row", "path", *places, *names))
    for start in range(0, len(rows), _ROWS_PER_READ):
        table.rows(_lines(gallery, rows[start : start + _ROWS_PER_READ].tolist(), places, names))
    text.detach()


def _lines(gallery: EmbeddingFile, rows: list[int], places: list[str], names: list[str]) -> Iterator[tuple[Any, ...]]:
    attributes = gallery.attributes
    for row, path, place in zip(rows, gallery.names(rows), gallery.face_places(rows), strict=True):
        where = map((place.to_dict() if place else {}).get, places)
        read = (attribute_text(attributes[name][row]) for name in names) if attributes is not None else ()
        yield row, path, *where, *read


def attribute_text(value: Any) -> str:
    """An attribute for people and tables: text as it is, numbers with as many digits as they are worth, or nothing."""
    if isinstance(value, bytes):
        return value.decode()
    return "" if np.isnan(value) else f"{value:.2f}" if value < 1 else f"{value:.1f}"
