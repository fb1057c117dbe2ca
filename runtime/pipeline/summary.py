"""The end of a run, in numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from ..records import Status
from .stages import StageClock


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a run.

    Attributes:
        scanned: paths of the plan.
        embedded: photographs that have rows in the file, several of them where all faces count.
        outcomes: paths by outcome.
        processed: photographs that this run handled.
        images_per_s: over this run, less start-up, tuning and warm-up.
        elapsed_s: of this run, everything included.
        stages: by stage: photographs a second that its workers could do, share of the time that they worked, workers.
        verdict: "infer-bound" and the like.
        warning: what a user must know of the weights; empty for trained ones.
        model, model_sha256: the model of the embeddings, and the checksum of its weights.
        output: the embedding file, as it was named.
    """

    scanned: int
    embedded: int
    outcomes: dict[str, int]
    processed: int = 0
    images_per_s: float = 0.0
    elapsed_s: float = 0.0
    stages: dict[str, dict[str, float]] = field(default_factory=dict)
    verdict: str = "nothing to do"
    warning: str = ""
    model: str = ""
    model_sha256: str = ""
    output: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)

    @property
    def failed(self) -> int:
        """Photographs that `--retry` would run again."""
        return sum(self.outcomes.get(s.label, 0) for s in Status if s.failed)


def bottleneck(clocks: Collection[StageClock], elapsed_s: float) -> str:
    """The stage whose workers waited least, such as "infer-bound"; "idle" before any work."""
    busiest = max(clocks, key=lambda clock: clock.busy_s / clock.workers)
    return f"{busiest.name}-bound" if busiest.busy_s > 0 and elapsed_s > 0 else "idle"


def summarise(rows: int, done: int, elapsed_s: float, clocks: Collection[StageClock]) -> Summary:
    """The summary of what the stages did, without the outcomes of the file.

    Args:
        rows: paths of the plan.
        done: photographs of this run.
        elapsed_s: seconds that the stages ran.
        clocks: one a stage.
    """
    stages = {
        clock.name: {
            "images_per_s": round(clock.photographs * clock.workers / clock.busy_s, 1) if clock.busy_s else 0.0,
            "busy": round(clock.busy_s / (clock.workers * elapsed_s), 3) if elapsed_s else 0.0,
            "workers": clock.workers,
        }
        for clock in clocks
    }
    rate = done / elapsed_s if elapsed_s else 0.0
    return Summary(rows, 0, {}, done, round(rate, 1), stages=stages, verdict=bottleneck(clocks, elapsed_s))
