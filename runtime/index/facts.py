"""What is known of an index: how it was made, what it finds of what exact search finds, and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Measured:
    """An approximate index against exact search, on rows of the file itself.

    Attributes:
        k: hits that were asked for.
        recall: share of the k best other rows that were found, 0 to 1; a row that scores as the k-th best does counts.
        sample: rows that were asked for.
        effort: lists probed (ivf), or length of the queue (hnsw); 0 where every code is looked at (sq8).
        candidates: proposed by the codes and scored again by the exact rows.
        latency_ms: median time of one query, re-ranking included.
    """

    k: int
    recall: float
    sample: int
    effort: int
    candidates: int
    latency_ms: float

    @classmethod
    def of(cls, card: Mapping[str, Any]) -> Measured:
        """Read what `asdict` has written.

        Raises:
            KeyError, TypeError, ValueError: it is something else.
        """
        whole = [int(card[name]) for name in ("k", "sample", "effort", "candidates")]
        recall, latency_ms = float(card["recall"]), float(card["latency_ms"])
        if whole[0] < 1 or whole[3] < whole[0] or whole[2] < 0 or not 0 <= recall <= 1 or not latency_ms >= 0:
            raise ValueError(f"measured: {dict(card)}")
        return cls(whole[0], recall, whole[1], whole[2], whole[3], latency_ms)


@dataclass(frozen=True, slots=True)
class IndexFacts:
    """How the rows were searched.

    Attributes:
        kind: flat, sq8, ivf or hnsw.
        parameters: of an approximate index: how it was made.
        measured: what an approximate index finds; None for exact search.
        exact_ms: median time of one query by exact search, where it was measured.
    """

    kind: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    measured: Measured | None = None
    exact_ms: float | None = None

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        found: dict[str, object] = {"kind": self.kind, "exact": self.measured is None}
        if self.measured is not None:
            found |= {"parameters": dict(self.parameters), **asdict(self.measured)}
        return found if self.exact_ms is None else found | {"exact_ms": self.exact_ms}

    def __str__(self) -> str:
        measured = self.measured
        if measured is None:
            return "flat (exact)" if self.exact_ms is None else f"flat (exact): {self.exact_ms:.1f} ms"
        how = [f"{self.parameters['dimensions']} dimensions"]
        if self.kind == "ivf":
            how += [f"{self.parameters['lists']:,} lists", f"{measured.effort:,} probed"]
        if self.kind == "hnsw":
            how += [f"{self.parameters['links']} links", f"queue of {measured.effort:,}"]
        exact = "" if self.exact_ms is None else f"; exact: {self.exact_ms:.1f} ms"
        return (
            f"{self.kind} ({', '.join(how)}, {measured.candidates:,} re-ranked): recall@{measured.k} "
            f"{measured.recall:.3f} on {measured.sample} sampled rows, {measured.latency_ms:.1f} ms{exact}"
        )
