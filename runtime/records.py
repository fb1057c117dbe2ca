"""The frozen records that travel between rooms."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of the embedding file: what writes it and what reads it agree on them. In one of 2, some photo has several rows.
FORMAT_VERSION, FORMAT_VERSION_SEVERAL = FORMAT_VERSIONS = (1, 2)

# How the detail of a duplicate begins; the path of the photo that it is the same as follows.
SAME_FILE = "the same file as "

# Longest row of `/embeddings`: a unit vector, with room for the rounding of an engine or of FP16.
MAX_NORM = 1.01

# What is known of a face that has an embedding; lengths and places in pixels of the original photo, upright.
FACE = np.dtype(
    [
        ("box", np.float32, (4,)),  # left, top, right, bottom
        ("landmarks", np.float32, (5, 2)),  # x and y of eyes, nose, mouth corners, left first as seen in the picture
        ("score", np.float32),  # the detector's, 0 to 1
        ("iod", np.float32),  # inter-ocular distance: between the middles of the eyes, pixels
        ("sharpness", np.float32),  # higher is sharper
        ("frontal", np.float32),  # 1 looks into the camera, 0 is a profile
        ("face_index", np.uint16),  # rank among the faces found in the photo: 0 for the one that it is of
    ]
)
# Where a file keeps each field of FACE, aligned with `/embeddings`.
FACE_DATASETS = {name: name if name == "face_index" else f"faces/{name}" for name in FACE.names or ()}


class Status(enum.IntEnum):
    """What became of a photo. The numbers are stored; never renumber."""

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
        """Whether `--retry` runs the photo again."""
        return self not in (Status.PENDING, Status.EMBEDDED, Status.DUPLICATE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one photo's journey.

    Attributes:
        row: its row in the scan.
        status: what became of it.
        detail: why, in words for a person; empty when embedded.
    """

    row: int
    status: Status
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Photo:
    """A whole photo, decoded, upright.

    Attributes:
        pixels: (H, W, 3) uint8; smaller than the original where the JPEG decoder has reduced it.
        reduction: how many times smaller: 1, 2, 4 or 8.
        height, width: of the original, upright.
    """

    pixels: NDArray[np.uint8]
    reduction: int
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A run of scan rows on its way through the stages. A stage takes one kind of batch and returns the next kind.

    By itself it is what a run begins with: rows to read.

    Attributes:
        rows: (n,) int64, ascending: the photos still on their way. Crops and embeddings have one entry a face, so that
            a photo may be there several times. A photo is never both here and in `outcomes`.
        outcomes: the photos that left the journey early.
        digests: file digest (BLAKE2b, 16 bytes) by scan row; empty unless duplicates are skipped.
    """

    rows: NDArray[np.int64]
    outcomes: tuple[Outcome, ...] = ()
    digests: Mapping[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """Photos of this batch, whatever became of them and however many faces they have."""
        rows = self.rows  # they ascend; np.unique would sort them again, which cost a twelfth of all threads' work
        return (int(np.count_nonzero(rows[1:] != rows[:-1])) + 1 if len(rows) else 0) + len(self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded(Batch):
    """Photos as their files hold them.

    Attributes:
        files: n encoded files.
    """

    files: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Photos(Batch):
    """Whole photos, decoded, to look for faces in.

    Attributes:
        photos: n decoded photos.
        files: their n encoded files: a photo with a small face is decoded again, larger.
    """

    photos: tuple[Photo, ...]
    files: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Crops(Batch):
    """What an engine embeds.

    Attributes:
        images: (n, S, S, 3) uint8, NHWC, the model's channel order.
        faces: (n,) FACE, those of a photo ordered by `face_index`; None if faces are not looked for.
        face_counts: faces found by scan row, whatever became of the photo; empty if faces are not looked for.
    """

    images: NDArray[np.uint8]
    faces: NDArray[np.void] | None = None
    face_counts: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded(Batch):
    """What a segment stores.

    Attributes:
        embeddings: (n, D) float32, unit rows.
        faces, face_counts: as in Crops.
    """

    embeddings: NDArray[np.float32]
    faces: NDArray[np.void] | None = None
    face_counts: Mapping[int, int] = field(default_factory=dict)


Box = tuple[float, float, float, float]  # left, top, right, bottom; pixels of the original photo, upright


@dataclass(frozen=True, slots=True)
class FacePlace:
    """Which face of a photo, and where in it.

    Attributes:
        index: its rank, as in `/face_index`: 0 for the one that the photo is of.
        box: around it.
    """

    index: int
    box: Box

    def to_dict(self) -> dict[str, Any]:
        """`face_index` and `box` (left, top, right, bottom; pixels, one decimal), for JSON."""
        return {"face_index": self.index, "box": [round(edge, 1) for edge in self.box]}
