"""Estimate the false hits of a search from impostor scores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError
from .curve import STEPS, Curve, Point

FORMAT = 1
EXPECTED = (0.01, 0.1, 1.0)  # false hits per query to give thresholds for
# With fewer false matches, the true rate may be off by more than 30 % (Doddington et al. 2000, rule of 30).
MIN_FALSE_MATCHES = 30
_STEPS = 1000  # per unit of score in a calibration: a tenth of the grid, so that it takes a few kilobytes
_MAX_COUNT = 1 << 62


@dataclass(frozen=True, slots=True)
class Expectation:
    """Mean number of false hits at a score or above, for a query of a person who is not in the file.

    Attributes:
        hits: number of false hits.
        at_most: whether `hits` is an upper bound, because no impostor pair scored as high; see `Calibration`.
    """

    hits: float
    at_most: bool

    def __str__(self) -> str:
        number = f"{self.hits:,.0f}" if self.hits >= 100 else f"{self.hits:.2g}"
        return f"<{number}" if self.at_most else number


@dataclass(frozen=True, slots=True)
class Calibration:
    """Counts of impostor pairs by score. An embedding file can hold one.

    The false match rate at a score is (pairs at that score or above) / (all pairs). Nothing is fitted: a distribution
    that fits the bulk of impostor scores says nothing of their tail, where twins, doubles and wrong names are, and a
    large gallery depends on the tail alone. The one assumption is that the searched photos are like the counted ones.
    The average stays right although pairs share photos.

    If no pair scored as high, the rate is given as below 3 / pairs. This rule of three is the 95 % bound of independent
    pairs (Hanley and Lippman-Hand 1983, JAMA 249). Our pairs are not independent, so it is an order of magnitude, and
    labelled so. A bound that holds under any dependence, 6 / people (from disjoint pairs), is too high to be useful.

    Attributes:
        contract: settings that decide an embedding, of the file with the scores.
        folder: name of the folder of photos.
        photographs, people: photos and people that formed pairs.
        pairs: number of impostor pairs.
        first: threshold of the first count, in thousandths.
        at_least: pairs that score at least first/1000, (first + 1)/1000 ...; the last count is 0.
        made_utc: ISO 8601.
        tool_version: version of facemill.
    """

    contract: Mapping[str, Any]
    folder: str
    photographs: int
    people: int
    pairs: int
    first: int
    at_least: tuple[int, ...]
    made_utc: str
    tool_version: str
    format: int = FORMAT

    def expected(self, score: float, rows: int) -> Expectation:
        """Return the false hits to expect at a score among `rows` embeddings; rounds up."""
        index = int(score * _STEPS // 1) - self.first
        count = self.pairs if index < 0 else self.at_least[min(index, len(self.at_least) - 1)]
        return Expectation(rows * (count or 3) / self.pairs, at_most=count == 0)

    def lowest(self, hits: float, rows: int) -> float | None:
        """Return the lowest score, to a thousandth, with at most `hits` expected; None if the pairs are too few."""
        scores = (step / _STEPS for step in range(self.first, min(self.first + len(self.at_least), _STEPS + 1)))
        return next((score for score in scores if self.expected(score, rows).hits <= hits), None)

    @property
    def beyond(self) -> float:
        """The lowest score, to a thousandth, that no impostor pair reached."""
        return (self.first + len(self.at_least) - 1) / _STEPS

    def explain(self) -> str:
        """Explain the expectation beside a score, for people."""
        return (
            f"expected: false hits at this score or above for a person who is not in the file, estimated from "
            f"{self.pairs:,} pairs of {self.people:,} people in {self.folder!r}; < marks an upper bound: no pair "
            f"scored as high"
        )

    def to_json(self) -> str:
        """Return one line of JSON, for `calibration_from_json`."""
        return json.dumps(asdict(self))


def calibrate(curve: Curve, **origin: Any) -> Calibration:
    """Make a calibration from a curve on the grid.

    Args:
        curve: from `curve_of_counts`.
        origin: `contract`, `folder`, `photographs`, `people`, `made_utc` and `tool_version` of the calibration.
    Raises:
        ConfigError: the curve has no impostor pair.
    """
    if not curve.impostors:
        raise ConfigError(
            "no impostor pair to calibrate with; expected: one sub-folder per person, and embedded photos of at least "
            "two people. /outcomes in the embedding file says why photos could not be embedded"
        )
    counts = curve.false_accepts[:: STEPS // _STEPS].tolist()  # at -1, -0.999 ... 1
    start = max(i for i, count in enumerate(counts) if count == curve.impostors)
    counts = [*counts[start:], 0]  # above 1
    stop = counts.index(0) + 1
    return Calibration(pairs=curve.impostors, first=start - _STEPS, at_least=tuple(counts[:stop]), **origin)


def calibration_from_json(text: str) -> Calibration:
    """Read what `to_json` wrote.

    Raises:
        ConfigError: the text is damaged, or has another format.
    """
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']}; expected: {FORMAT}")
        raw["at_least"] = tuple(raw["at_least"])
        calibration = Calibration(**{field.name: raw[field.name] for field in fields(Calibration)})
        _check_types(calibration)
        if calibration.pairs < 1 or not calibration.at_least or calibration.at_least[-1] != 0:
            raise ValueError("its counts do not end in 0")
    except (KeyError, TypeError, ValueError, RecursionError) as err:
        raise ConfigError(
            f"the calibration cannot be used ({type(err).__name__}: {err}). Make it again with: "
            f"facemill evaluate FOLDER --calibrate FILE.h5"
        ) from err
    return calibration


def _check_types(calibration: Calibration) -> None:
    """Raise ValueError unless the values of a calibration, which may come from anybody, have their types."""
    counts = calibration.photographs, calibration.people, calibration.pairs, *calibration.at_least
    for number in (calibration.first, *counts):
        if type(number) is not int or not -_MAX_COUNT <= number <= _MAX_COUNT:
            raise ValueError(f"one of its numbers is {number!r:.40}; expected: whole numbers")
    texts = calibration.folder, calibration.made_utc, calibration.tool_version
    if min(counts) < 0 or not isinstance(calibration.contract, Mapping) or not all(isinstance(t, str) for t in texts):
        raise ValueError("its contract, folder, time or version has the wrong type, or a count is negative")


@dataclass(frozen=True, slots=True)
class GalleryThreshold:
    """The threshold for a gallery of some size.

    Attributes:
        expected: false hits per query.
        point: the lowest threshold of the grid that keeps to it; None if the pairs are too few to show it.
    """

    expected: float
    point: Point | None


def thresholds_for(curve: Curve, rows: int) -> tuple[GalleryThreshold, ...]:
    """Return the thresholds for EXPECTED false hits per query in a gallery of `rows` photos."""
    return tuple(GalleryThreshold(expected, curve.at_far(min(1.0, expected / rows))) for expected in EXPECTED)
