"""Compare two photos: score, threshold, and how often photos of two people score as high."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engines.engine import EngineInfo
from ..metrics.falsematch import Calibration, Expectation
from ..metrics.verification import USUAL_RATE, check_threshold, match_rate, threshold_at, verdict
from ..modelspec import list_specs
from ..pipeline.request import UNTRAINED_WARNING
from .embedder import Embedding, PhotoEmbedder, PhotoInput
from .model_label import label_model


@dataclass(frozen=True, slots=True)
class MatchThreshold:
    """The lowest score at which two photos count as the same person.

    Attributes:
        value: -1 to 1; None if no threshold is known.
        origin: the source of the value, or how to measure one, for people.
        stated: whether it is that of a model file, which says how many strangers reach this one score.
    """

    value: float | None
    origin: str
    stated: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """The comparison of two photos.

    Attributes:
        photographs: both embeddings, each with its error or the face that was used.
        score: cosine of the embeddings, -1 to 1; None if a photo could not be embedded.
        threshold: the lowest score that counts as the same person.
        model: name of the model that made the embeddings.
        model_sha256: checksum of its weights.
        warning: a warning about untrained weights; empty for trained ones.
        calibration: the false-match rates by score; None if they are unknown.
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
        """How often photos of two people score as high, per comparison; None if it is unknown."""
        if self.calibration is None or self.score is None:
            return None
        return match_rate(self.calibration, self.score)

    @property
    def model_label(self) -> str:
        """The model for people: its name and the start of its checksum."""
        return label_model(self.model, self.model_sha256)

    def explain_rate(self) -> str:
        """The meaning of the false match rate, for people; empty if the rate is unknown."""
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
        values: dict[str, Any] = {
            "photographs": [photo.to_dict(vector=False) for photo in self.photographs],
            "score": None if self.score is None else round(self.score, 6),
            "threshold": self.threshold.value,
            "threshold_origin": self.threshold.origin,
            "verdict": self.verdict,
        }
        rate = self.false_match_rate
        if rate is not None:
            values |= {"false_match_rate": float(f"{rate.hits:.6g}"), "at_most": rate.at_most}
        values |= {"model": self.model, "model_sha256": self.model_sha256}
        if self.warning:
            values["warning"] = self.warning
        return values


def compare(
    embedder: PhotoEmbedder,
    a: PhotoInput,
    b: PhotoInput,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Comparison:
    """Embed two photos and compare their score with a threshold.

    Args:
        embedder: makes the embeddings.
        a, b: the photos.
        threshold: the user's; None for the threshold of the calibration, or of the model file.
        calibration: false-match rates of scores of the same model and settings.
    Raises:
        EngineError, MissingDependencyError: an engine does not load.
        ModelError: a model file is damaged.
    """
    first, second = embedder.embed([a, b])
    return compare_embeddings(first, second, embedder.info, threshold=threshold, calibration=calibration)


def compare_embeddings(
    first: Embedding,
    second: Embedding,
    info: EngineInfo,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Comparison:
    """Compare the score of two embeddings with a threshold; see `compare`.

    Args:
        first, second: embeddings of one engine, or their errors.
        info: the facts of that engine.
        threshold, calibration: see `compare`.
    Raises:
        ConfigError: the threshold is no cosine.
        ModelError: a model file is damaged.
    """
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


def model_threshold(model_sha256: str) -> MatchThreshold | None:
    """The threshold for two photos that the model file of these weights states; None if none does.

    Raises:
        ModelError: a model file is damaged.
    """
    for spec in list_specs():
        if spec.threshold is not None and spec.sha256 == model_sha256:
            source = f": {spec.threshold_source}" if spec.threshold_source else ""
            return MatchThreshold(spec.threshold, f"of the model file of {spec.name}{source}", stated=True)
    return None


def find_threshold(
    given: float | None, calibration: Calibration | None, model: str, model_sha256: str
) -> MatchThreshold:
    """Find the threshold: the user's, else the calibration's, else the model file's; never another model's.

    Args:
        given: the user's threshold.
        calibration: the calibration of the file that the photos belong to.
        model, model_sha256: the model of the embeddings; a threshold is valid for these weights only.
    Raises:
        ConfigError: the user's threshold is no cosine.
        ModelError: a model file is damaged.
    """
    if given is not None:
        check_threshold(given)
        return MatchThreshold(given, "given")
    calibrated = None if calibration is None else threshold_at(calibration, USUAL_RATE)
    if calibrated is not None and calibration is not None:
        return MatchThreshold(
            calibrated,
            f"at most {100 * USUAL_RATE:g} % of the pairs of two people in {calibration.folder!r} score as high",
        )
    stated = model_threshold(model_sha256)
    if stated is not None:
        return stated
    few = f"the calibration's {calibration.pairs:,} pairs are too few, and " if calibration is not None else ""
    return MatchThreshold(
        None,
        f"{few}no threshold is known for {model}. Measure one on a folder with one sub-folder of photos per person: "
        f"facemill evaluate FOLDER --model {model}. Then pass it with --threshold",
    )
