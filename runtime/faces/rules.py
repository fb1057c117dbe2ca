"""What is done with the faces of a photograph: how they are looked for, which of them count, which are too poor."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import defaults
from ..errors import ConfigError
from .finder import FindRules, View

ALIGN_MODES = ("auto", "detect", "none")
POLICIES = ("largest", "all", "one")


@dataclass(frozen=True, slots=True)
class FaceRules:
    """The part of a request that is about faces; all of it is in the embedding contract.

    Attributes:
        align: "detect" looks for faces in every photograph; "auto" takes those of exactly the crop's size as aligned
            crops; "none" takes every photograph whole.
        policy: "largest" embeds the face that the photograph is of (large, near the middle), "all" every face in a row
            of its own, "one" refuses photographs of several.
        threshold: lowest score of a face.
        min_iod: distance between the eyes, pixels of the original, 0 and more; faces below are too small.
        min_sharpness, min_frontal: see faces/quality.py, 0 and more, 0 to 1; faces below are too blurred, or turned
            too far.
    Raises:
        ConfigError: a value is outside its range, or no number.
    """

    align: str = defaults.ALIGN
    policy: str = defaults.FACES
    threshold: float = defaults.MIN_SCORE
    min_iod: float = defaults.MIN_IOD_PX
    min_sharpness: float = defaults.MIN_SHARPNESS
    min_frontal: float = defaults.MIN_FRONTAL

    def __post_init__(self) -> None:
        if self.align not in ALIGN_MODES:
            raise ConfigError(f"--align is {self.align!r}; expected: {', '.join(ALIGN_MODES)}")
        if self.policy not in POLICIES:
            raise ConfigError(f"--faces is {self.policy!r}; expected: {', '.join(POLICIES)}")
        if not 0 < self.threshold < 1:
            raise ConfigError(f"--min-score is {self.threshold}; expected: above 0 and below 1")
        for option, value in (("--min-iod", self.min_iod), ("--min-sharpness", self.min_sharpness)):
            if not 0 <= value < math.inf:  # NaN is refused too: no face meets it, and it equals no stored rule
                raise ConfigError(f"{option} is {value}; expected: a number from 0, which takes all faces")
        if not 0 <= self.min_frontal <= 1:
            raise ConfigError(
                f"--min-frontal is {self.min_frontal}; expected: 0, which takes all faces, to 1, for those that look "
                f"straight into the camera"
            )

    @property
    def detects(self) -> bool:
        """Whether a detector is needed."""
        return self.align != "none"

    @property
    def find(self) -> FindRules:
        """How to look: where every face counts, at larger sizes, so that small ones are seen too."""
        if self.policy == "largest":
            return FindRules(threshold=self.threshold)
        views, retries = (View(224), View(448)), (View(160, 0.5), View(960))
        return FindRules(views, retries, closer=(View(960),), threshold=self.threshold)
