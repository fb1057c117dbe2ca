"""Select the rows of a file by age and gender."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .. import defaults
from ..errors import ConfigError
from ..records import GENDERS
from ..storage.file import EmbeddingFile

OLDEST = 150  # years
SURE_GENDER = 0.9  # a gender with a lower probability is unsure


@dataclass(frozen=True, slots=True)
class AttributeFilter:
    """The people to select, by what a network read from their faces. A row of which nothing was read is never selected.

    Attributes:
        gender: "man" or "woman"; None for both.
        ages: youngest and oldest age in years, both included; None for all.
        unsure: "keep" to decide by the network's best guess alone; "drop" to leave out rows of which it is unsure: a
            gender with a probability below 0.9, or an interval of ages that reaches out of `ages`.
    Raises:
        ConfigError: a value is out of range.

    Example:
        >>> import facemill
        >>> str(facemill.AttributeFilter("woman", (18, 40)))
        'woman, 18-40 years'
    """

    gender: str | None = None
    ages: tuple[int, int] | None = None
    unsure: str = defaults.UNSURE

    def __post_init__(self) -> None:
        if self.gender not in (None, *GENDERS):
            raise ConfigError(f"the gender is {self.gender!r}; expected: {' or '.join(GENDERS)}")
        if self.ages is not None and not 0 <= self.ages[0] <= self.ages[1] <= OLDEST:
            raise ConfigError(f"the ages are {self.ages}; expected: two numbers of years like 18-40, the lower first")
        if self.unsure not in ("keep", "drop"):
            raise ConfigError(f"unsure is {self.unsure!r}; expected: keep or drop")

    @classmethod
    def of(cls, gender: str | None, age: str | tuple[int, int] | None, unsure: str) -> AttributeFilter:
        """Make the filter of a call.

        Args:
            gender, unsure: see the class.
            age: a range as text, see `parse_ages`, or two numbers of years; None for all.
        Raises:
            ConfigError: a value is out of range.
        """
        try:
            return cls(gender, parse_ages(age) if isinstance(age, str) else age, unsure)
        except ConfigError:
            raise
        except ValueError as err:
            raise ConfigError(f"age: {err}") from err

    def __bool__(self) -> bool:
        """Whether it selects anything less than all rows."""
        return self.gender is not None or self.ages is not None

    def __str__(self) -> str:
        """The filter for people: `woman, 18-40 years`."""
        ages = "" if self.ages is None else f"{self.ages[0]}-{self.ages[1]} years"
        sure = "without unsure ones" if self.unsure == "drop" else ""
        return ", ".join(filter(None, (self.gender, ages, sure))) or "everybody"

    @property
    def needed(self) -> tuple[str, ...]:
        """The attributes that a file must have."""
        return tuple(name for name, value in (("age", self.ages), ("gender", self.gender)) if value is not None)

    def rows(self, file: EmbeddingFile) -> NDArray[np.bool_]:
        """(N,) bool: the rows of a file that it selects.

        Raises:
            ConfigError: the file lacks what the filter needs.
            StorageError: the file is damaged.
        """
        lacking = [name for name in self.needed if name not in file.contract.attributes_read]
        if lacking:
            raise ConfigError(
                f"{file.path} has no {' and no '.join(lacking)} of its faces. Add them with: facemill attributes "
                f"{file.path}"
            )
        selected = np.ones(file.rows, np.bool_)
        attributes = file.attributes
        if attributes is None:
            return selected
        with np.errstate(invalid="ignore"):  # NaN where nothing was read
            if self.gender is not None:
                selected &= attributes["gender"] == self.gender.encode()
                selected &= (attributes["gender_score"] >= SURE_GENDER) | (self.unsure == "keep")
            if self.ages is not None:
                low, high = self.ages[0], self.ages[1] + 1  # somebody is 40 until the next birthday
                selected &= (attributes["age"] >= low) & (attributes["age"] < high)
                inside = (attributes["age_low"] >= low) & (attributes["age_high"] < high)
                selected &= inside | (self.unsure == "keep")
        return selected


def parse_ages(text: str) -> tuple[int, int]:
    """Parse a range of ages: `18-40`, `18-` (and older), `-12` (and younger) or `30`.

    Raises:
        ValueError: the text is no range of ages.
    """
    match = re.fullmatch(r"(\d{1,3})?(-)?(\d{1,3})?", text.strip())
    if match is None or not (match[1] or match[3]):
        raise ValueError(f"{text!r:.40} is no range of ages; expected: 18-40, 18- (and older), -12 or 30")
    low = int(match[1] or 0)
    high = int(match[3]) if match[3] else OLDEST if match[2] else low
    if max(low, high if match[3] else 0) > OLDEST:
        raise ValueError(f"{text!r} is beyond {OLDEST} years; expected: a range like 18-40")
    if low > high:
        raise ValueError(f"{text!r} is no range of ages; expected: the lower number first, as in 18-40")
    return low, high
