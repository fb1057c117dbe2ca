"""Measure ages and genders of an embedding file against known ones."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..metrics.intervals import wilson
from ..records import FACE_DATASETS, GENDERS
from ..regular import LIST_BYTES, read_regular
from ..storage.file import EmbeddingFile
from ..storage.format import display_text
from ..text import printable
from .tables import Table

BANDS = ((0, 3), (4, 12), (13, 17), (18, 29), (30, 44), (45, 59), (60, 74), (75, 150))  # years, both included
ADULT = 18  # years
_MAX_AGE = 150
_EXAMPLES = 5  # paths that a report names
_NEEDED = {"path"}
_USED = ("age", "gender", "group")


@dataclass(frozen=True, slots=True)
class KnownPerson:
    """What is known about a photo.

    Attributes:
        age: years; None if unknown.
        gender: "man" or "woman"; None if unknown.
        group: a group of people to report on its own; empty for none.
    """

    age: float | None = None
    gender: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class AttributeErrors:
    """The errors over some photos.

    Attributes:
        who: the photos: "all", "adults", a band of ages, a gender or a group.
        ages: photos with a known and an estimated age.
        error: mean absolute error of the age, years; None without ages.
        bias: mean of estimated minus known age, years; above 0 if people are taken for older.
        inside: share of known ages within the interval that should hold 80 %.
        genders: photos with a known and an estimated gender.
        right: share of right genders; None without genders.
        right_low, right_high: 95 % interval of that share (Wilson).
    """

    who: str
    ages: int
    error: float | None
    bias: float | None
    inside: float | None
    genders: int
    right: float | None
    right_low: float | None
    right_high: float | None


@dataclass(frozen=True, slots=True)
class AttributeReport:
    """The errors of the ages and genders of a folder.

    Attributes:
        folder, labels: as the user named them.
        model: the network that read them.
        labelled: photos with labels.
        unread: labelled photos without attributes: without a face, or not in the folder.
        unread_paths: the first of their paths, at most five.
        errors: over all photos, and over parts of them.
    """

    folder: str
    labels: str
    model: str
    labelled: int
    unread: int
    unread_paths: tuple[str, ...]
    errors: tuple[AttributeErrors, ...]

    def to_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        return asdict(self)

    def tables(self) -> list[Table]:
        """The report for people."""
        facts = (("folder", self.folder), ("labels", self.labels), ("network", self.model))
        more = ", ..." if self.unread > len(self.unread_paths) else ""
        unread = f"{self.unread:,}" + (f": {', '.join(map(printable, self.unread_paths))}{more}" if self.unread else "")
        counts = (("photos with labels", f"{self.labelled:,}"), ("without a face or missing", unread))
        heads = ("photos", "ages", "error", "bias", "in interval", "genders", "right", "95 % interval")
        return [
            Table("Measured", ("", ""), (*facts, *counts)),
            Table("Age (years) and gender", heads, tuple(map(_row, self.errors))),
        ]


def _row(errors: AttributeErrors) -> tuple[str, ...]:
    age = ["-", "-", "-"]
    if errors.error is not None:
        age = [f"{errors.error:.2f}", f"{errors.bias:+.2f}", f"{errors.inside:.1%}"]
    gender = ["-", "-"]
    if errors.right is not None:
        gender = [f"{errors.right:.2%}", f"{errors.right_low:.2%} to {errors.right_high:.2%}"]
    return errors.who, f"{errors.ages:,}", *age, f"{errors.genders:,}", *gender


def read_known(path: Path) -> dict[bytes, KnownPerson]:
    """Read the known ages and genders of photos, by path.

    Args:
        path: CSV with the column `path`, and `age` (years), `gender` (man, woman) or both; `group` may name a group of
            people to report on its own. A field may be empty.
    Raises:
        ConfigError: the file cannot be read, lacks a column, or a value is impossible.
    """
    known: dict[bytes, KnownPerson] = {}
    try:
        table = csv.DictReader(io.StringIO(read_regular(path, LIST_BYTES).decode("utf-8-sig"), newline=""))
        columns = set(table.fieldnames or ())
        if not columns >= _NEEDED or not columns & {"age", "gender"}:
            raise ValueError(f"it has the columns {', '.join(columns)}; expected: path, and age, gender or both")
        for number, line in enumerate(table, 2):
            try:
                known[os.fsencode(line["path"] or "")] = _known(line)
            except ValueError as err:
                raise ValueError(f"line {number}: {err}") from err
    except (OSError, ValueError, csv.Error) as err:
        reason = err.strerror if isinstance(err, OSError) else err
        raise ConfigError(f"the labels {path} cannot be used: {reason}") from err
    if not known:
        raise ConfigError(f"the labels {path} have no lines; expected: one for each photo")
    return known


def _known(line: Mapping[str, str | None]) -> KnownPerson:
    age, gender, group = ((line.get(name) or "").strip() for name in _USED)
    try:
        years = float(age) if age else None
    except ValueError:
        years = math.nan
    if years is not None and not 0 <= years <= _MAX_AGE:
        raise ValueError(f"the age is {age!r:.40}; expected: years, 0 to {_MAX_AGE}")
    if gender and gender not in GENDERS:
        raise ValueError(f"the gender is {gender!r}; expected: {' or '.join(GENDERS)}, or nothing")
    return KnownPerson(years, gender or None, group)


def measure_attributes(
    file: EmbeddingFile, known: Mapping[bytes, KnownPerson], folder: str, labels: str
) -> AttributeReport:
    """Compare the attributes of a file with known ones. Of a photo with several faces the main one counts.

    Args:
        file: an open file with attributes.
        known: what is known, by path below the root of the file.
        folder, labels: as the user named them.
    Raises:
        ConfigError: no photo of the file has a label.
    """
    attributes = file.attributes
    assert attributes is not None
    main = np.ones(file.rows, np.bool_)
    if file.has_faces:
        main = file.column(FACE_DATASETS["face_index"], 0, file.rows) == 0
    rows = [row for row in np.flatnonzero(main).tolist()]
    paths = dict(zip(file.photo_names(rows), rows, strict=True))
    pairs = [(person, paths[path]) for path, person in known.items() if path in paths]
    if not pairs:
        raise ConfigError(
            f"none of the {len(known):,} paths in {labels} is a photo with a face below {os.fsdecode(file.root)}; "
            f"expected: paths below it, such as {os.fsdecode(next(iter(paths), b'person/1.jpg'))}"
        )
    people, found = [person for person, _ in pairs], attributes[[row for _, row in pairs]]
    ages = np.array([np.nan if person.age is None else person.age for person in people])
    genders = np.array([(person.gender or "").encode() for person in people], "S5")
    groups = np.array([person.group for person in people])
    parts = {"all": np.ones(len(people), np.bool_), f"adults ({ADULT} and older)": ages >= ADULT, "below 13": ages < 13}
    for low, high in BANDS:
        parts[f"{low} to {high}" if high < _MAX_AGE else f"{low} and older"] = (ages >= low) & (ages < high + 1)
    parts |= {{"man": "men", "woman": "women"}[gender]: genders == gender.encode() for gender in GENDERS}
    parts |= {group: groups == group for group in sorted(set(groups.tolist()) - {""})}
    errors = (_errors(who, found[part], ages[part], genders[part]) for who, part in parts.items() if part.any())
    model = file.contract.attribute_model or "unknown"
    unread = len(known) - len(pairs)
    missing = tuple(display_text(path) for path in islice((path for path in known if path not in paths), _EXAMPLES))
    return AttributeReport(folder, labels, model, len(known), unread, missing, tuple(errors))


def _errors(
    who: str, found: NDArray[np.void], ages: NDArray[np.float64], genders: NDArray[np.bytes_]
) -> AttributeErrors:
    aged = ~np.isnan(ages) & ~np.isnan(found["age"])
    difference = found["age"][aged] - ages[aged]
    inside = (ages[aged] >= found["age_low"][aged]) & (ages[aged] <= found["age_high"][aged])
    judged = (genders != b"") & (found["gender"] != b"")
    right = int((found["gender"][judged] == genders[judged]).sum())
    count = int(judged.sum())
    low, high = wilson(right, count) if count else (None, None)
    has_ages = bool(aged.any())
    return AttributeErrors(
        who,
        int(aged.sum()),
        float(np.abs(difference).mean()) if has_ages else None,
        float(difference.mean()) if has_ages else None,
        float(inside.mean()) if has_ages else None,
        count,
        right / count if count else None,
        low,
        high,
    )
