"""From impostor scores to the false hits that a search must expect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import ConfigError
from .curve import STEPS, Curve, Point

FORMAT = 1
EXPECTED = (0.01, 0.1, 1.0)  # false hits a query, for which a threshold is looked up
FEW = 30  # false matches: with fewer, the true rate may be off by more than 30 % (Doddington et al. 2000, rule of 30)
_COARSE = 1000  # steps of a calibration from 0 to 1: every tenth of the grid, so that it takes some kilobytes


@dataclass(frozen=True, slots=True)
class Expectation:
    """False hits that a query of somebody who is not in the file has on average, at a score or above.

    Attributes:
        hits: how many.
        at_most: no impostor pair scored as high, so `hits` is a bound and no estimate; see `Calibration`.
    """

    hits: float
    at_most: bool

    def __str__(self) -> str:
        number = f"{self.hits:,.0f}" if self.hits >= 100 else f"{self.hits:.2g}"
        return f"<{number}" if self.at_most else number


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often two people's photographs reach a score, as it was counted; it can be kept in an embedding file.

    Counts, and nothing fitted to them: a distribution that fits the bulk of impostor scores says nothing of its tail,
    where twins, doubles and wrong names are, and the tail is all that a large gallery asks about. So the false match
    rate at a score is (pairs at that score or above) / (all pairs). It assumes only that the searched photographs are
    like the counted ones: an average stays right although pairs share photographs.

    Where no pair scored as high, the rate is said to be below 3 / pairs. This rule of three is the 95 % bound of
    independent pairs (Hanley and Lippman-Hand 1983, JAMA 249). These are not independent, so it is the order of
    magnitude of what could not be seen, and labelled as such. A bound that holds whatever the dependence, 6 / people
    (from disjoint pairs), is so far above that it tells nothing.

    Attributes:
        contract: what decides an embedding, of the file that the scores come from.
        folder: the name of the folder of photographs.
        photographs, people: that formed pairs.
        pairs: of photographs of two people.
        first: thousandths; the threshold of the first count.
        at_least: pairs that score at least first/1000, (first + 1)/1000 ...; the last count is 0.
        made_utc: ISO 8601.
        tool_version: facemill's.
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
        """What a search among `rows` embeddings must expect at a score; rounded up, to the next thousandth below it."""
        place = int(score * _COARSE // 1) - self.first
        count = self.pairs if place < 0 else self.at_least[min(place, len(self.at_least) - 1)]
        return Expectation(rows * (count or 3) / self.pairs, at_most=count == 0)

    def lowest(self, hits: float, rows: int) -> float | None:
        """The lowest score, in thousandths, at which at most `hits` are expected; None where the pairs are too few."""
        scores = (place / _COARSE for place in range(self.first, min(self.first + len(self.at_least), _COARSE + 1)))
        return next((score for score in scores if self.expected(score, rows).hits <= hits), None)

    @property
    def beyond(self) -> float:
        """The lowest score, in thousandths, that no impostor pair reached."""
        return (self.first + len(self.at_least) - 1) / _COARSE

    def explain(self) -> str:
        """What the expectation beside a score means, for a person."""
        return (
            f"expected: false hits at this score or above for somebody who is not in the file, by {self.pairs:,} "
            f"pairs of {self.people:,} people in {self.folder!r}; with a <, a bound: no pair scored as high"
        )

    def to_json(self) -> str:
        """One line, for `calibration_from_json`."""
        return json.dumps(asdict(self))


def calibrate(curve: Curve, **origin: Any) -> Calibration:
    """The calibration of a curve on the grid.

    Args:
        curve: from `curve_of_counts`.
        origin: `contract`, `folder`, `photographs`, `people`, `made_utc` and `tool_version` of the calibration.
    Raises:
        ConfigError: there is no impostor pair.
    """
    if not curve.impostors:
        raise ConfigError(
            "there are no two people to calibrate with; wanted: one sub-folder a person, with photographs of two "
            "people and more that can be embedded. See /outcomes in the embedding file for why others could not"
        )
    counts = curve.false_accepts[:: STEPS // _COARSE].tolist()  # at -1, -0.999 ... 1
    start = max(i for i, count in enumerate(counts) if count == curve.impostors)
    counts = [*counts[start:], 0]  # above 1
    stop = counts.index(0) + 1
    return Calibration(pairs=curve.impostors, first=start - _COARSE, at_least=tuple(counts[:stop]), **origin)


def calibration_from_json(text: str) -> Calibration:
    """What `to_json` wrote.

    Raises:
        ConfigError: it is damaged, or of another format.
    """
    try:
        raw = json.loads(text)
        if raw["format"] != FORMAT:
            raise ValueError(f"its format is {raw['format']}; wanted: {FORMAT}")
        raw["at_least"] = tuple(map(int, raw["at_least"]))
        found = Calibration(**{field.name: raw[field.name] for field in fields(Calibration)})
        if found.pairs < 1 or not found.at_least or found.at_least[-1] != 0:
            raise ValueError("its counts do not end in 0")
    except (KeyError, TypeError, ValueError) as err:
        raise ConfigError(
            f"the calibration cannot be used ({type(err).__name__}: {err}). Make it again with: "
            f"facemill evaluate FOLDER --calibrate FILE.h5"
        ) from err
    return found


@dataclass(frozen=True, slots=True)
class GalleryThreshold:
    """What a gallery's size asks of the threshold.

    Attributes:
        expected: false hits a query.
        point: the lowest threshold of the grid that keeps to it; None where the pairs are too few to show it.
    """

    expected: float
    point: Point | None


def thresholds_for(curve: Curve, rows: int) -> tuple[GalleryThreshold, ...]:
    """The thresholds for EXPECTED false hits a query in a gallery of `rows` photographs."""
    return tuple(GalleryThreshold(expected, curve.at_far(min(1.0, expected / rows))) for expected in EXPECTED)
