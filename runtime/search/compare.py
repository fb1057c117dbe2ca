"""Do two photographs show one person? A score, and what is known of scores as high."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..metrics.falsematch import Calibration, Expectation
from ..metrics.verification import USUAL_RATE, match_rate, threshold_at, verdict
from ..modelspec import list_specs
from ..pipeline.request import UNTRAINED_WARNING
from .embedder import QueryEmbedder, QueryRules
from .model_label import named
from .search import Answer


@dataclass(frozen=True, slots=True)
class Threshold:
    """From which score on two photographs are said to show one person.

    Attributes:
        value: -1 to 1; None where nobody knows it.
        origin: where it comes from, or how to get one, for a person.
    """

    value: float | None
    origin: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found.

    Attributes:
        photographs: both, as answers without hits: what went wrong, or which of several faces was taken.
        score: cosine of their embeddings; None where one could not be embedded.
        threshold: what it is held against.
        model, model_sha256: who made the embeddings.
        warning: what a user must know of the weights; empty for trained ones.
        calibration: what is known of false matches; None for nothing.
    """

    photographs: tuple[Answer, Answer]
    score: float | None
    threshold: Threshold
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
        """How often two people reach the score, in one comparison; None where nothing is known."""
        if self.calibration is None or self.score is None:
            return None
        return match_rate(self.calibration, self.score)

    def explain_rate(self) -> str:
        """What the rate beside a score means, for a person; empty where nothing is known."""
        if self.calibration is None:
            return ""
        known = self.calibration
        return (
            f"photographs of two people score as high or higher in this share of comparisons, by {known.pairs:,} pairs "
            f"of {known.people:,} people in {known.folder!r}; with a <, a bound: no pair scored as high. A search in N "
            f"photographs makes N comparisons"
        )

    def made_by(self) -> str:
        """The model, for a person."""
        return named(self.model, self.model_sha256)


def compare(
    photographs: Sequence[str],
    rules: QueryRules,
    *,
    threshold: float | None = None,
    calibration: Calibration | None = None,
) -> Comparison:
    """Embed two photographs and hold their score against a threshold.

    Args:
        photographs: two paths.
        rules: how they become vectors.
        threshold: given by the user; None for that of the calibration, or of the model file.
        calibration: of scores of vectors made by such rules.
    Raises:
        EngineError, MissingDependencyError: an engine does not load.
        ModelError: a model file is not what it should be.
    """
    with QueryEmbedder(rules) as embedder:
        info, embedded = embedder.info, embedder.embed(photographs)
    errors = embedded.errors()
    one, other = (
        Answer(path, (), errors.get(i, ""), embedded.face_counts.get(i), embedded.places.get(i))
        for i, path in enumerate(photographs)
    )
    score = None
    if not errors:
        first, second = embedded.vectors.astype(np.float64)  # (2, D)
        score = float(first @ second)
    return Comparison(
        photographs=(one, other),
        score=score,
        threshold=find_threshold(threshold, calibration, info.model, info.model_sha256),
        model=info.model,
        model_sha256=info.model_sha256,
        warning="" if info.trained else UNTRAINED_WARNING,
        calibration=calibration,
    )


def find_threshold(given: float | None, calibration: Calibration | None, model: str, model_sha256: str) -> Threshold:
    """The threshold given, else the calibration's, else the one that the model file states; never another.

    Args:
        given: by the user.
        calibration: of the file that the photographs are compared for.
        model, model_sha256: who makes the embeddings; a threshold is of these very weights.
    Raises:
        ModelError: a model file is not what it should be.
    """
    if given is not None:
        return Threshold(given, "given")
    found = None if calibration is None else threshold_at(calibration, USUAL_RATE)
    if found is not None and calibration is not None:
        return Threshold(
            found, f"at most {100 * USUAL_RATE:g} % of the pairs of two people in {calibration.folder!r} score as high"
        )
    for spec in list_specs():
        if spec.threshold is not None and spec.sha256 == model_sha256:
            return Threshold(spec.threshold, spec.threshold_source or f"the model file of {spec.name}")
    few = f"the calibration's {calibration.pairs:,} pairs are too few, and " if calibration is not None else ""
    return Threshold(
        None,
        f"{few}no threshold is known for {model}. Measure one on photographs of people that you know, in one "
        f"sub-folder each: facemill evaluate FOLDER --model {model}; and give it with --threshold",
    )
