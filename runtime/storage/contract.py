"""The contract of an embedding file: settings that all rows share, and the operations that need each to agree."""

from __future__ import annotations

import enum
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..records import ATTRIBUTE_FIELDS
from .format import display_text


class Guard(enum.IntEnum):
    """The operation that a field of a contract guards. Each level also needs the fields of all levels before it."""

    VECTORS = 1  # the embeddings of two rows may be compared
    SCORES = 2  # scores of some photos may calibrate scores of others
    FILE = 3  # two rows may be in one file
    RUN = 4  # an unfinished run may be resumed


def _guards(guard: Guard, join: Callable[[Sequence[Any]], Any] | None = None) -> Any:
    """Declare a field of the contract.

    Args:
        guard: the first level that needs the field to agree.
        join: computes the value for a joined file from values that may differ; None to take the first.
    """
    return field(default=None, metadata={"guard": guard, "join": join or (lambda values: values[0])})


def _largest(values: Sequence[int | None]) -> int:
    return max(value or 0 for value in values)


@dataclass(frozen=True, slots=True)
class EmbeddingContract:
    """The settings that all rows of an embedding file share. A new option of a run is one field here.

    It is stored as JSON in `/metadata`. A value is None if the file does not state it: in an old file, and for the face
    fields in a file of aligned crops. Unknown fields of a newer version are kept, and guard VECTORS.

    Example:
        >>> old, new = EmbeddingContract(model_sha256="ab", dtype="float32"), EmbeddingContract(model_sha256="cd")
        >>> old.differences(new, Guard.VECTORS)
        ["model_sha256: 'ab' in the file, 'cd' now"]
        >>> old.to_json()
        '{"model_sha256": "ab", "dtype": "float32"}'
    """

    root: str = _guards(Guard.RUN)  # absolute folder of all paths, as text (surrogateescape)
    limit: int = _guards(Guard.RUN, join=lambda values: 0)  # only the first so many photos; 0 for all
    model: str = _guards(Guard.RUN)  # names may differ: the digest of the weights must agree
    model_sha256: str = _guards(Guard.VECTORS)
    recipe: str = _guards(Guard.VECTORS)
    dimension: int = _guards(Guard.VECTORS)
    crop: str = _guards(Guard.VECTORS)
    alignment: str = _guards(Guard.VECTORS)
    channel_order: str = _guards(Guard.VECTORS)
    exif: str = _guards(Guard.VECTORS)
    decode: str = _guards(Guard.VECTORS)
    decoder: str = _guards(Guard.RUN)  # moves a crop by less than a pixel
    precision: str = _guards(Guard.VECTORS)
    calibration: str = _guards(Guard.VECTORS)  # the crops that an INT8 engine was calibrated on
    dtype: str = _guards(Guard.FILE)
    skip_duplicates: bool = _guards(Guard.RUN, join=all)
    max_bytes: int = _guards(Guard.RUN, join=_largest)
    max_pixels: int = _guards(Guard.RUN, join=_largest)

    # None unless faces are detected. The detector determines the position of a crop, so its digest must agree.
    detector: str = _guards(Guard.RUN)
    detector_sha256: str = _guards(Guard.VECTORS)
    detector_precision: str = _guards(Guard.VECTORS)
    # None without a second look: the landmarks are the detector's. Like the detector, it determines a crop's position.
    landmarks: str = _guards(Guard.RUN)
    landmarks_sha256: str = _guards(Guard.VECTORS)
    landmarks_precision: str = _guards(Guard.VECTORS)
    # Views move a crop by some pixels (cosine mostly 0.95 to 0.98): a query uses the file's, a calibration must agree.
    detector_views: str = _guards(Guard.SCORES)
    align: str = _guards(Guard.FILE)
    faces: str = _guards(Guard.FILE)
    min_score: float = _guards(Guard.FILE)
    min_iod: float = _guards(Guard.FILE)
    min_sharpness: float = _guards(Guard.FILE)
    min_frontal: float = _guards(Guard.FILE)
    # None if they accept all faces, so that such files are equal to those of older versions, which lack them.
    min_brightness: float = _guards(Guard.FILE)
    min_contrast: float = _guards(Guard.FILE)
    max_fit: float = _guards(Guard.FILE)
    pages: str = _guards(Guard.FILE)  # None for the main pages, likewise

    # None unless age or gender is read: what is read, by which network, and "embeddings" if no photo is read for it.
    attribute_names: str = _guards(Guard.FILE)
    attribute_model: str = _guards(Guard.RUN)
    attribute_sha256: str = _guards(Guard.FILE)
    attribute_source: str = _guards(Guard.FILE)

    unknown: Mapping[str, Any] = field(default_factory=dict)  # fields of a newer version

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EmbeddingContract:
        """Read a contract from a JSON object.

        Raises:
            ValueError: a value has the wrong type.
        """
        fields = {name: values[name] for name in GUARDS if name in values}
        for name, value in fields.items():
            if value is not None and not _is_right(name, value):
                raise ValueError(f"{name} of the contract is {value!r:.100}; expected: {_EXPECTED[_TYPES[name]]}")
        return cls(**fields, unknown={name: value for name, value in values.items() if name not in GUARDS})

    @classmethod
    def from_json(cls, text: str) -> EmbeddingContract:
        """Read a contract from the JSON in `/metadata`.

        Raises:
            ValueError: the text is not a JSON object.
        """
        try:
            values = json.loads(text)
        except json.JSONDecodeError as err:
            raise ValueError(f"the contract is {text!r:.60}, which is no JSON; expected: a JSON object") from err
        except RecursionError as err:
            raise ValueError("the contract is nested too deeply; expected: a JSON object of plain values") from err
        if not isinstance(values, dict):
            raise ValueError(f"the contract is {values!r}; expected: a JSON object")
        return cls.from_dict(values)

    @classmethod
    def from_attributes(cls, metadata: Mapping[str, Any]) -> EmbeddingContract:
        """Restore the contract of a file whose JSON is lost from the other attributes of its `/metadata`."""
        return cls.from_dict({name: metadata[name] for name in GUARDS if name in metadata})

    def require_root(self) -> None:
        """Raise ValueError unless the root is an absolute folder."""
        if self.root is None or not os.path.isabs(os.fsencode(self.root)):
            raise ValueError(f"root of the contract is {self.root!r}; expected: an absolute folder")

    def lost_fields(self, metadata: Mapping[str, Any]) -> list[str]:
        """The fields that other attributes of `/metadata` state, and this contract does not: it lost them."""
        return [name for name in GUARDS if getattr(self, name) is None and metadata.get(name) is not None]

    def require_whole(self, metadata: Mapping[str, Any]) -> None:
        """Raise ValueError unless the contract has a root, and every field that other attributes state.

        Old files state dtype and dimension there alone; see `completed`.
        """
        self.require_root()
        lost = [name for name in self.lost_fields(metadata) if name not in ("dtype", "dimension")]
        if lost:
            more = f" and {len(lost) - 1} more fields" if len(lost) > 1 else ""
            raise ValueError(f"the contract lacks {lost[0]}{more}; expected: the fields that /metadata has")

    def completed(self, dtype: str, dimension: int) -> EmbeddingContract:
        """Add the dtype and the dimension of the rows, which older files may not state.

        Raises:
            ValueError: the contract states others.
        """
        for name, value in (("dtype", dtype), ("dimension", dimension)):
            if getattr(self, name) not in (value, None):
                raise ValueError(f"{name} of the contract is {getattr(self, name)!r:.40}; expected: {value}")
        return replace(self, dtype=dtype, dimension=dimension)

    @property
    def all_pages(self) -> bool:
        """Whether every page of a photo has rows, which name their pages; else only the main page has."""
        return self.pages == "all"

    @property
    def attributes_read(self) -> tuple[str, ...]:
        """The attributes that each row has: some of "age" and "gender", in this order."""
        named = (self.attribute_names or "").split(",")
        return tuple(name for name in ATTRIBUTE_FIELDS if name in named)

    @property
    def detects_faces(self) -> bool:
        """Whether a detector found the faces; else the photos are aligned crops."""
        return self.detector is not None

    @property
    def landmark_option(self) -> str:
        """The option by which the faces get the landmarks of these rows."""
        return f"--landmarks {self.landmarks or 'none'}"

    def select(self, guard: Guard) -> dict[str, Any]:
        """The fields that must agree at a level, without those that the file does not state."""
        values = {name: getattr(self, name) for name, level in GUARDS.items() if level <= guard}
        return {**{name: value for name, value in values.items() if value is not None}, **self.unknown}

    def to_dict(self) -> dict[str, Any]:
        """All fields that the file states, as a JSON object."""
        return self.select(Guard.RUN)

    def to_json(self) -> str:
        """The text of the attribute `contract` of `/metadata`."""
        return json.dumps(self.to_dict())

    def attributes(self) -> dict[str, Any]:
        """The attributes of `/metadata`: each field, the root as text for people, and the JSON."""
        root = display_text(os.fsencode(self.root))
        return {**self.to_dict(), "root": root, "contract": self.to_json()}

    def differences(
        self,
        other: EmbeddingContract,
        guard: Guard,
        *,
        both: bool = False,
        labels: tuple[str, str] = ("in the file", "now"),
    ) -> list[str]:
        """List the fields that must agree at a level but differ, each with both values.

        Args:
            other: the expected contract.
            guard: the level.
            both: also compare fields that only this contract has; else only those of `other`.
            labels: labels of this contract and of `other`.
        """
        with_faces = self.detects_faces and other.detects_faces
        assumed = {name: value for name, value in _ASSUMED.items() if with_faces and GUARDS[name] <= guard}
        ours, theirs = ({**assumed, **contract.select(guard)} for contract in (self, other))
        names = [name for name in ({**ours, **theirs} if both else theirs) if ours.get(name) != theirs.get(name)]
        lines = []
        if with_faces and "landmarks_sha256" in names and not (self.landmarks and other.landmarks):
            # Only one of them had a second look, which is one fact for people: the other fields follow from it.
            lines = [f"{labels[0]}: made with `{self.landmark_option}`, {labels[1]}: `{other.landmark_option}`"]
            names = [name for name in names if not name.startswith("landmarks") and name != "detector_views"]
        return lines + [f"{name}: {ours.get(name)!r} {labels[0]}, {theirs.get(name)!r} {labels[1]}" for name in names]


# What a contract with faces means that does not state these.
_ASSUMED = {
    "landmarks": "none",
    "landmarks_sha256": "none",
    "min_brightness": 0.0,
    "min_contrast": 0.0,
    "max_fit": 1.0,
    "pages": "main",
}

# Every field by name, with the first level that needs it to agree.
GUARDS: dict[str, Guard] = {
    each.name: each.metadata["guard"] for each in fields(EmbeddingContract) if "guard" in each.metadata
}

_TYPES: dict[str, str] = {each.name: str(each.type) for each in fields(EmbeddingContract)}
_EXPECTED = {
    "str": "text, and an absolute folder for root",
    "int": "a whole number from 0",
    "bool": "true or false",
    "float": "a number",
}
_MAX_TEXT = 65_536


def _is_right(name: str, value: Any) -> bool:
    """Whether a value of a contract has the type of its field."""
    kind = _TYPES[name]
    if kind == "str":
        return isinstance(value, str) and len(value) <= _MAX_TEXT and "\0" not in value and _is_encodable(name, value)
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    if kind == "int":
        return isinstance(value, int) and 0 <= value < 1 << 63
    return isinstance(value, (int, float)) and math.isfinite(value)


def _is_encodable(name: str, value: str) -> bool:
    """Whether text can be stored; only the root, a path, may hold bytes that are not UTF-8."""
    try:
        value.encode("utf-8", "surrogateescape" if name == "root" else "strict")
    except UnicodeEncodeError:
        return False
    return True


def join_contracts(contracts: Sequence[EmbeddingContract], root: bytes) -> EmbeddingContract:
    """Make the contract of a file joined from several whose contracts agree at level FILE.

    Settings of a whole run are valid for the joined file only if all files have them: it has no limit, and skipped
    duplicates only if all files did.

    Args:
        contracts: two or more; settings that need not agree are those of the first.
        root: the folder that all paths are below.
    """
    joined = {
        each.name: each.metadata["join"]([getattr(contract, each.name) for contract in contracts])
        for each in fields(EmbeddingContract)
        if each.name in GUARDS
    }
    return replace(contracts[0], **{**joined, "root": os.fsdecode(root)})
