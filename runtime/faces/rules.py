"""The face rules of a run: how faces are detected, which are embedded, which are rejected."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import defaults
from ..errors import ConfigError
from .finder import FindRules, View

ALIGN_MODES = ("auto", "detect", "none")
POLICIES = ("largest", "all", "one")
PAGES = ("main", "all")


@dataclass(frozen=True, slots=True)
class FaceRules:
    """The face rules of a request. All of them are part of the embedding contract.

    Attributes:
        align: "detect" detects faces in every photo; "auto" takes photos of exactly the crop's size as aligned
            crops, unless a face stands elsewhere than on the template;
            "none" takes every photo whole.
        policy: "largest" embeds the largest face, "all" embeds every face in its own row, "one"
            rejects photos with several faces.
        threshold: minimum score of a face, between 0 and 1.
        min_iod: minimum distance between the eyes, pixels of the original, at least 0.
        min_sharpness: minimum `quality.sharpness`, at least 0.
        min_frontal: minimum `quality.frontal`, 0 to 1.
        min_brightness, min_contrast: minimum `quality.exposure`: mean and range, 0 to 255.
        max_fit: maximum `quality.fit`, 0 to 1; 1 accepts all faces. None for the default, or for the limit of the file
            that is resumed.
        pages: "main" takes the main page of a file of several pages, "all" embeds the faces of every page.
    Raises:
        ConfigError: a value is outside its range or is not a number, or two values contradict each other.
    """

    align: str = defaults.ALIGN
    policy: str = defaults.FACES
    threshold: float = defaults.MIN_SCORE
    min_iod: float = defaults.MIN_IOD_PX
    min_sharpness: float = defaults.MIN_SHARPNESS
    min_frontal: float = defaults.MIN_FRONTAL
    min_brightness: float = defaults.MIN_BRIGHTNESS
    min_contrast: float = defaults.MIN_CONTRAST
    pages: str = defaults.PAGES
    max_fit: float | None = None

    def __post_init__(self) -> None:
        if self.align not in ALIGN_MODES:
            raise ConfigError(f"--align is {self.align!r}; expected: {', '.join(ALIGN_MODES)}")
        if self.policy not in POLICIES:
            raise ConfigError(f"--faces is {self.policy!r}; expected: {', '.join(POLICIES)}")
        if self.pages not in PAGES:
            raise ConfigError(f"--pages is {self.pages!r}; expected: {', '.join(PAGES)}")
        if self.pages == "all" and not self.detects:
            raise ConfigError(
                "--pages is all and --align is none; expected: --pages main, or an --align that detects faces, because "
                "only the row of a face can name its page"
            )
        if not 0 < self.threshold < 1:
            raise ConfigError(f"--min-score is {self.threshold}; expected: above 0 and below 1")
        for option, value in (("--min-iod", self.min_iod), ("--min-sharpness", self.min_sharpness)):
            if not 0 <= value < math.inf:  # this rejects NaN too, which no face meets and which equals no stored rule
                raise ConfigError(f"{option} is {value}; expected: a number of at least 0; 0 accepts all faces")
        for option, value in (("--min-brightness", self.min_brightness), ("--min-contrast", self.min_contrast)):
            if not 0 <= value <= 255:
                raise ConfigError(f"{option} is {value}; expected: grey levels, 0 to 255; 0 accepts all faces")
        if not 0 <= self.min_frontal <= 1:
            raise ConfigError(
                f"--min-frontal is {self.min_frontal}; expected: 0 to 1; 0 accepts all faces, 1 only faces that look "
                f"straight into the camera"
            )
        if not 0 <= self.fit_limit <= 1:
            raise ConfigError(
                f"--max-fit is {self.max_fit}; expected: 0 to 1, the distance of the landmarks from the template in "
                f"distances between the eyes; 1 accepts all faces"
            )

    @property
    def fit_limit(self) -> float:
        """Maximum `quality.fit` of a face."""
        return defaults.MAX_FIT if self.max_fit is None else self.max_fit

    @property
    def detects(self) -> bool:
        """Whether a detector is needed."""
        return self.align != "none"

    @property
    def find(self) -> FindRules:
        """How faces are detected. If every face matters, views are larger, so that small faces are detected too."""
        if self.policy == "largest":
            return FindRules(threshold=self.threshold)
        views, retries = (View(224), View(448)), (View(160, 0.5), View(960))
        return FindRules(views, retries, closer=(View(960),), threshold=self.threshold)
