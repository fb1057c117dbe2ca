"""Do two photos show the same person? A score, a threshold, and how often two people score as high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics.falsematch import Calibration, Expectation
from ..metrics.verification import USUAL_RATE, match_rate, threshold_at, verdict
from ..modelspec import list_specs
from ..pipeline.request import UNTRAINED_WARNING
from .embedder import Embedding, PhotoEmbedder, PhotoInput
from .model_label import named


@dataclass(frozen=True, slots=True)
class MatchThreshold:
    """The score from which two photos are said to show the same person.

    Attributes:
        value: -1 to 1; None if no threshold is known.
        origin: where it comes from, or how to get one, for people.
    """

    value: float | None
    origin: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two photos compared.

    Attributes:
        photographs: both embeddings, each with its error or with the face that was taken.
        score: cosine of the embeddings, -1 to 1; None if a photo could not be embedded.
        threshold: the score from which they show the same person.
        model: name of the model that made the embeddings.
        model_sha256: checksum of its weights.
        warning: what a user must know about the weights; empty for trained ones.
        calibration: what is known of false matches; None for nothing.
    """

    photographs: tuple[Embedding, Embedding]
    score: float | None
    threshold: MatchThreshold
    model: str
    model_sha256: str
    warning: str = ""
    calibration: Calibration | None = None

    @property
    def verdict(self) -> str:
        """`same`, `different` or `unknown`."""
        return "unknown" if self.score is None else verdict(self.score, self.threshold.value)

    @property
    def false_match_rate(self) -> Expectation | None:
        """How often photos of two people score as high, in one comparison; None if nothing is known."""
        if self.calibration is None or self.score is None:
            return None
        return match_rate(self.calibration, self.score)

    @property
    def model_label(self) -> str:
        """The model for people: its name and the start of its checksum."""
        return named(self.model, self.model_sha256)

    def explain_rate(self) -> str:
        """The meaning of the false match rate, for people; empty if nothing is known."""
        calibration = self.calibration
        if calibration is None:
            return ""
        return (
            f"share of comparisons of two different people with this score or a higher one, from {calibration.pairs:,} "
            f"pairs of {calibration.people:,} people in {calibration.folder!r}; < marks an upper bound: no pair scored "
            f"as high. A search in N photos makes N comparisons"
        )

    def to_dict(self) -> dict[str, Any]:
        """The comparison for JSON: what `facemill compare --json` prints."""
        found: dict[str, Any] = {
            "photographs": [photo.to_dict(vector=False) for photo in self.photographs],
            "score": None if self.score is None else round(self.score, 6),
            "threshold": self.threshold.value,
            "threshold_origin": self.threshold.origin,
            "verdict": self.verdict,
        }
        rate = self.false_match_rate
        if rate is not None:
            found |= {"false_match_rate": float(f"{rate.hits:.6g}"), "at_most": rate.at_most}
        found |= {"model": self.model, "model_sha256": self.model_sha256}
        if self.warning:
            found["warning"] = self.warning
        return found


def compare(
    embedder: PhotoEmbedder,
    a: PhotoInput,
    b: PhotoInput,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Comparison:
    """Embed two photos and hold their score against a threshold.

    Args:
        embedder: makes the embeddings.
        a, b: the photos.
        threshold: given by the user; None for the threshold of the calibration, or of the model file.
        calibration: of scores of vectors that were made alike.
    Raises:
        EngineError, MissingDependencyError: an engine does not load.
        ModelError: a model file is damaged.
    """
    info = embedder.info
    first, second = embedder.embed([a, b])
    score = None
    if first.vector is not None and second.vector is not None:
        score = float(first.vector.astype(np.float64) @ second.vector.astype(np.float64))
    return Comparison(
        photographs=(first, second),
        score=score,
        threshold=find_threshold(threshold, calibration, info.model, info.model_sha256),
        model=info.model,
        model_sha256=info.model_sha256,
        warning="" if info.trained else UNTRAINED_WARNING,
        calibration=calibration,
    )


def find_threshold(
    given: float | None, calibration: Calibration | None, model: str, model_sha256: str
) -> MatchThreshold:
    """The threshold given, else the calibration's, else the one that the model file states; never another model's.

    Args:
        given: by the user.
        calibration: of the file that the photos are compared for.
        model, model_sha256: the model of the embeddings; a threshold holds for these weights alone.
    Raises:
        ModelError: a model file is damaged.
    """
    if given is not None:
        return MatchThreshold(given, "given")
    calibrated = None if calibration is None else threshold_at(calibration, USUAL_RATE)
    if calibrated is not None and calibration is not None:
        return MatchThreshold(
            calibrated,
            f"at most {100 * USUAL_RATE:g} % of the pairs of two people in {calibration.folder!r} score as high",
        )
    for spec in list_specs():
        if spec.threshold is not None and spec.sha256 == model_sha256:
            return MatchThreshold(spec.threshold, spec.threshold_source or f"the model file of {spec.name}")
    few = f"the calibration's {calibration.pairs:,} pairs are too few, and " if calibration is not None else ""
    return MatchThreshold(
        None,
        f"{few}no threshold is known for {model}. Measure one on photos of people that you know, in one "
        f"sub-folder each: facemill evaluate FOLDER --model {model}; and give it with --threshold",
    )
