"""The frozen records that rooms exchange."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Versions of the embedding file, for writers and readers. In version 2 a photo may have several rows.
FORMAT_VERSION, FORMAT_VERSION_SEVERAL = FORMAT_VERSIONS = (1, 2)

# Start of the detail of a duplicate; the path of the earlier photo follows.
SAME_FILE = "the same file as "

# Maximum norm of a row of `/embeddings`: 1, plus rounding of an engine or of FP16.
MAX_NORM = 1.01

# A face with an embedding; coordinates and lengths in pixels of the upright original photo.
FACE = np.dtype(
    [
        ("box", np.float32, (4,)),  # left, top, right, bottom
        ("landmarks", np.float32, (5, 2)),  # x and y of eyes, nose, mouth corners, left first as seen in the image
        ("score", np.float32),  # the detector's, 0 to 1
        ("iod", np.float32),  # inter-ocular distance, between the centres of the eyes, pixels
        ("sharpness", np.float32),  # higher is sharper
        ("frontal", np.float32),  # 1: looks at the camera, 0: in profile
        ("brightness", np.float32),  # mean grey level of the face, 0 to 255; NaN in rows of older versions
        ("contrast", np.float32),  # range of its grey levels without the extreme twentieths; likewise
        ("fit", np.float32),  # mean distance of the landmarks from the template, in eye distances; likewise
        ("page", np.uint16),  # page of the file, from 1; 0 in files of main pages only
        ("face_index", np.uint16),  # rank among the faces of the photo; 0 for the main face
    ]
)
# Datasets that files and segments of older versions lack, by field of FACE; aligned with `/embeddings`.
LATER_DATASETS = {name: f"faces/{name}" for name in ("brightness", "contrast", "fit")}
PAGE_DATASET = "faces/page"  # only in files made with `--pages all`
# Datasets of the other fields, which every file with faces has.
FACE_DATASETS = {
    name: name if name == "face_index" else f"faces/{name}"
    for name in FACE.names or ()
    if name not in LATER_DATASETS and name != "page"
}
ALL_FACE_DATASETS = {**FACE_DATASETS, **LATER_DATASETS, "page": PAGE_DATASET}

# What a network reads from a face besides who it is. Only in files made with `--attributes`.
ATTRIBUTES = np.dtype(
    [
        ("age", np.float32),  # years; NaN if nobody has read it
        ("age_low", np.float32),  # the age is between these two with a probability of 80 %, by the network
        ("age_high", np.float32),
        ("gender", "S5"),  # one of GENDERS; empty if nobody has read it
        ("gender_score", np.float32),  # probability of that gender, by the network, 0.5 to 1; NaN likewise
    ]
)
GENDERS = ("man", "woman")
# Fields of ATTRIBUTES by the name that a user gives. Their datasets are aligned with `/embeddings`.
ATTRIBUTE_FIELDS = {"age": ("age", "age_low", "age_high"), "gender": ("gender", "gender_score")}
ATTRIBUTE_DATASETS = {name: f"attributes/{name}" for name in ATTRIBUTES.names or ()}


def attribute_datasets(names: Sequence[str]) -> dict[str, str]:
    """The datasets of attributes, by field of ATTRIBUTES.

    Args:
        names: keys of ATTRIBUTE_FIELDS.
    """
    return {each: ATTRIBUTE_DATASETS[each] for name in names for each in ATTRIBUTE_FIELDS[name]}


def unread_attributes(count: int) -> NDArray[np.void]:
    """(count,) ATTRIBUTES that nobody has read: NaN, and no gender."""
    attributes = np.zeros(count, ATTRIBUTES)
    for name in ("age", "age_low", "age_high", "gender_score"):
        attributes[name] = np.nan
    return attributes


class Status(enum.IntEnum):
    """The outcome of a photo. The numbers are stored in files; never renumber."""

    PENDING = 0
    EMBEDDED = 1
    CORRUPT = 2
    UNSUPPORTED = 3
    UNREADABLE = 4
    DUPLICATE = 5
    NO_FACE = 6
    LOW_QUALITY = 7
    MULTIPLE_FACES = 8

    @property
    def label(self) -> str:
        """The name in files and reports: `no-face` for NO_FACE."""
        return self.name.lower().replace("_", "-")

    @property
    def failed(self) -> bool:
        """Whether `--retry` processes the photo again."""
        return self not in (Status.PENDING, Status.EMBEDDED, Status.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one photo.

    Attributes:
        row: its row in the scan.
        status: its status.
        detail: the reason, for people; a note, mostly empty, if embedded.
    """

    row: int
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Photo:
    """A whole decoded photo, upright.

    Attributes:
        pixels: (H, W, 3) uint8; smaller than the original if the decoder reduced it.
        reduction: how many times smaller than the original: 1, 2, 4 or 8.
        height, width: size of the upright original, in square pixels.
        note: what the outcome should say of a good photo; empty for nothing.
    """

    pixels: NDArray[np.uint8]
    reduction: int
    height: int
    width: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch of scan rows that passes through the stages. A stage takes one type of batch and returns the next.

    This base type is the first batch of a run: rows to read.

    Attributes:
        rows: (n,) int64, ascending: the photos without an outcome so far. Crops and embeddings have one entry per face,
            so a photo may occur several times. A photo is never both here and in `outcomes`.
        outcomes: the photos that failed or were skipped.
        digests: file digest (BLAKE2b, 16 bytes) by scan row; empty unless duplicates are skipped.
        notes: what the outcome of a good photo says, by scan row: `page 1 of 2`. Most photos have none.
    """

    rows: NDArray[np.int64]
    outcomes: tuple[Outcome, ...] = ()
    digests: Mapping[int, bytes] = field(default_factory=dict)
    notes: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of photos in this batch, with or without an outcome, however many faces they have."""
        rows = self.rows  # np.unique would sort the ascending rows again, a twelfth of the time of all threads
        return (int(np.count_nonzero(rows[1:] != rows[:-1])) + 1 if len(rows) else 0) + len(self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded(Batch):
    """Encoded photos.

    Attributes:
        files: n encoded files.
        names: names of all photos of the source by scan row, for the log; empty if unknown.
    """

    files: tuple[bytes, ...]
    names: Sequence[bytes] = ()

    def names_of_rows(self) -> list[bytes]:
        """The name of each of the n photos; empty where it is unknown."""
        return _names(self.names, self.rows)

    def name_of(self, index: int) -> bytes:
        """The name of one of the n photos; empty if it is unknown."""
        return _names(self.names, self.rows[index : index + 1])[0]


@dataclass(frozen=True, slots=True)
class PagedFile:
    """An encoded photo of several pages, each of which is searched for faces.

    Attributes:
        row: its row in the scan.
        name: its name, for the log.
        data: the file.
        pages: number of pages.
    """

    row: int
    name: bytes
    data: bytes
    pages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos(Batch):
    """Whole decoded photos, for face detection.

    Attributes:
        photos: n decoded photos.
        files: their n encoded files, because a photo with a small face is decoded again, larger.
        names: see `Encoded`.
        paged: further photos, whose pages are decoded some at a time: all of them could fill the memory.
    """

    photos: tuple[Photo, ...]
    files: tuple[bytes, ...]
    names: Sequence[bytes] = ()
    paged: tuple[PagedFile, ...] = ()

    def names_of_rows(self) -> list[bytes]:
        """The name of each of the n photos; empty where it is unknown."""
        return _names(self.names, self.rows)


def _names(names: Sequence[bytes], rows: NDArray[np.int64]) -> list[bytes]:
    return [names[row] if len(names) else b"" for row in rows.tolist()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops(Batch):
    """Crops for an engine.

    Attributes:
        images: (n, S, S, 3) uint8, NHWC, the model's channel order.
        faces: (n,) FACE, those of a photo ordered by `face_index`; None if no faces are detected.
        face_counts: number of detected faces by scan row, whatever the outcome; empty if no faces are detected.
        attributes: (n,) ATTRIBUTES; None if they are not read.
    """

    images: NDArray[np.uint8]
    faces: NDArray[np.void] | None = None
    face_counts: Mapping[int, int] = field(default_factory=dict)
    attributes: NDArray[np.void] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded(Batch):
    """Embedded photos, for a segment.

    Attributes:
        embeddings: (n, D) float32, unit rows.
        faces, face_counts, attributes: see `Crops`.
    """

    embeddings: NDArray[np.float32]
    faces: NDArray[np.void] | None = None
    face_counts: Mapping[int, int] = field(default_factory=dict)
    attributes: NDArray[np.void] | None = None


Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels of the upright original photo


@dataclass(frozen=True, slots=True)
class FacePlace:
    """A face of a photo: its rank and box.

    Attributes:
        index: rank of the face, as in `/face_index`; 0 for the main face.
        box: the box around the face, in pixels of its page.
        page: page of the file, from 1; None for the main page, in a file that names no pages.
    """

    index: int
    box: Box
    page: int | None = None

    def __str__(self) -> str:
        """The face for people."""
        return f"face_index {self.index}" + ("" if self.page is None else f", page {self.page}")

    def to_dict(self) -> dict[str, Any]:
        """`face_index`, `page` if known, and `box` (left, top, right, bottom; pixels, one decimal), for JSON."""
        page = {} if self.page is None else {"page": self.page}
        return {"face_index": self.index, **page, "box": [round(edge, 1) for edge in self.box]}
