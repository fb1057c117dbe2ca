"""The summary of a run, in numbers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

from ..records import Status
from .stages import StageClock


@dataclass(frozen=True, slots=True)
class Summary:
    """The summary of a run.

    Attributes:
        scanned: number of scanned photos.
        embedded: photos with at least one row in the file; with --faces all a photo may have several.
        outcomes: number of photos by outcome.
        processed: photos that this run processed.
        images_per_s: rate of this run, without start-up, tuning and warm-up.
        elapsed_s: duration of this run, everything included.
        stages: for each stage the photos per second that its workers can do, the share of time in which they were busy,
            and their number.
        verdict: the slowest stage, for example "infer-bound".
        warning: a warning about untrained weights; empty for trained weights.
        model, model_sha256: the model of the embeddings, and the checksum of its weights.
        output: the embedding file, as the caller named it.
        crops: photos that were taken as aligned crops, because of their size.
        passed_over: number of files and folders that the scan left out, by ending or pattern.
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
    crops: int = 0
    passed_over: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The summary for JSON."""
        return asdict(self)

    @property
    def failed(self) -> int:
        """Number of photos that `--retry` processes again."""
        return sum(self.outcomes.get(s.label, 0) for s in Status if s.failed)


def bottleneck(clocks: Collection[StageClock], elapsed_s: float) -> str:
    """The stage whose workers waited least, for example "infer-bound"; "idle" before any work."""
    busiest = max(clocks, key=lambda clock: clock.busy_s / clock.workers)
    return f"{busiest.name}-bound" if busiest.busy_s > 0 and elapsed_s > 0 else "idle"


def summarise(rows: int, done: int, elapsed_s: float, clocks: Collection[StageClock]) -> Summary:
    """Summarise the work of the stages, without the outcomes of the file.

    Args:
        rows: number of scanned photos.
        done: photos that this run processed.
        elapsed_s: seconds that the stages ran.
        clocks: the clock of each stage.
    """
    stages = {
        clock.name: {
            "images_per_s": round(clock.photos * clock.workers / clock.busy_s, 1) if clock.busy_s else 0.0,
            "busy": round(clock.busy_s / (clock.workers * elapsed_s), 3) if elapsed_s else 0.0,
            "workers": clock.workers,
        }
        for clock in clocks
    }
    rate = done / elapsed_s if elapsed_s else 0.0
    return Summary(rows, 0, {}, done, round(rate, 1), stages=stages, verdict=bottleneck(clocks, elapsed_s))
