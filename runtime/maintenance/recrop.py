"""Crop the faces of a finished file once more from their photos, at the places that the file names."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces.align import align_crops
from ..faces.selection import LONG_SIDE
from ..images.decode import ImageError, Limits, decode_crop, decode_photo
from ..images.header import take_page
from ..images.one_photo import one_photo
from ..pipeline.face_work import large_enough
from ..pipeline.work import ReadAttributes, file_digest
from ..records import FACE_DATASETS, PAGE_DATASET, Batch, Crops, unread_attributes
from ..sources.reader import ReadError
from ..sources.source import Source
from ..storage.file import EmbeddingFile

_DIGESTS = "outcomes/digest"  # only in files made with `--skip-duplicates`

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFaces(Batch):
    """Faces of a finished file. Their `rows` are rows of the source; the faces of a photo are neighbours.

    Attributes:
        landmarks: (F, 5, 2) float32, pixels of the upright original; None in a file of aligned crops.
        pages: (F,) uint16, page of each face; None where the main page has them all.
        photo_digests: (F, 16) uint8, `file_digest` of the photo of each face; zeros, or None, where the file has none.
    """

    landmarks: NDArray[np.float32] | None
    pages: NDArray[np.uint16] | None
    photo_digests: NDArray[np.uint8] | None


class FacesOfFile:
    """What an open file tells about its faces and their photos."""

    def __init__(self, gallery: EmbeddingFile) -> None:
        self._gallery = gallery
        # The outcome of each row's photo, (N,); only needed for the digests.
        self._outcomes: NDArray[np.int64] | None = None
        if _DIGESTS in gallery.hdf5:
            self._outcomes = np.repeat(np.arange(len(gallery.vector_counts)), gallery.vector_counts)

    def read(self, rows: NDArray[np.int64], photos: NDArray[np.int64]) -> StoredFaces:
        """Read some faces.

        Args:
            rows: (F,) ascending rows of `/embeddings`.
            photos: (F,) the row of each face's photo in the source.
        Raises:
            StorageError: the file is damaged.
        """
        gallery, landmarks, pages, digests = self._gallery, None, None, None
        if gallery.has_faces:
            landmarks = self._column(FACE_DATASETS["landmarks"], rows)
        if gallery.has_pages:
            pages = self._column(PAGE_DATASET, rows)
        if self._outcomes is not None:
            digests = self._column(_DIGESTS, self._outcomes[rows])
        return StoredFaces(photos, landmarks=landmarks, pages=pages, photo_digests=digests)

    def _column(self, dataset: str, entries: NDArray[np.int64]) -> NDArray[Any]:
        """Ascending entries of a dataset."""
        first = int(entries[0])
        return self._gallery.column(dataset, first, int(entries[-1]) + 1)[entries - first]


@dataclass(frozen=True, slots=True)
class CropAgain:
    """Crop faces again, and read their attributes. The attributes of a photo that cannot be read stay unread.

    Attributes:
        source: the photos.
        limits: size limits of photos.
        size, channel_order: of the crops.
        read: reads the attributes of crops.
    """

    source: Source
    limits: Limits
    size: int
    channel_order: str
    read: ReadAttributes

    def __call__(self, batch: StoredFaces) -> Crops:
        crops = np.zeros((len(batch.rows), self.size, self.size, 3), np.uint8)
        good = np.zeros(len(batch.rows), np.bool_)
        starts = np.flatnonzero(np.diff(batch.rows, prepend=-1))
        for first, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(batch.rows)], strict=True):
            row = int(batch.rows[first])
            name = self.source.names[row]
            try:
                with one_photo("crop the faces of", name):
                    data = self.source.read(row)
                    if _is_another(data, batch, first):
                        logger.debug("%r: it was replaced by another photo", name)
                        continue
                    crops[first:stop], good[first:stop] = self._crop(data, batch, slice(first, stop))
            except (ReadError, ImageError) as err:
                logger.debug("%r: %s", name, err)
        attributes = unread_attributes(len(crops))
        attributes[good] = self.read.read(crops[good])
        return Crops(batch.rows, images=crops, attributes=attributes)

    def _crop(self, data: bytes, batch: StoredFaces, faces: slice) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(F, S, S, 3) and (F,): the crops of some faces of one photo, and whether each face is in it."""
        if batch.landmarks is None:
            crop = decode_crop(data, size=self.size, channel_order=self.channel_order, limits=self.limits)
            return crop.pixels[None], np.ones(1, np.bool_)
        landmarks = batch.landmarks[faces]
        if batch.pages is None:
            return self._align(data, landmarks)
        pages = batch.pages[faces]
        crops = np.zeros((len(landmarks), self.size, self.size, 3), np.uint8)
        inside = np.zeros(len(landmarks), np.bool_)
        for page in np.unique(pages).tolist():
            on_page = pages == page
            crops[on_page], inside[on_page] = self._align(take_page(data, page), landmarks[on_page])
        return crops, inside

    def _align(self, data: bytes, landmarks: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(F, S, S, 3) and (F,): crops at landmarks in pixels of the original, and whether they are in the photo."""
        photo = decode_photo(data, long_side=LONG_SIDE, channel_order=self.channel_order, limits=self.limits)
        inside = _inside(landmarks, photo.height, photo.width)
        crops = np.zeros((len(landmarks), self.size, self.size, 3), np.uint8)
        if inside.any():
            landmarks = landmarks[inside]
            places = _reduce(landmarks, photo.reduction)
            photo = large_enough(photo, data, places, self.channel_order, self.limits)
            places = _reduce(landmarks, photo.reduction)
            crops[inside] = align_crops([photo.pixels] * len(places), places, size=self.size)
        return crops, inside


def _is_another(data: bytes, batch: StoredFaces, face: int) -> bool:
    """Whether a photo has other bytes than the photo that was embedded, as far as the file can tell."""
    if batch.photo_digests is None:
        return False
    digest = batch.photo_digests[face]
    return bool(digest.any()) and file_digest(data) != digest.tobytes()


def _inside(landmarks: NDArray[np.float32], height: int, width: int) -> NDArray[np.bool_]:
    """(F,): whether (F, 5, 2) landmarks can be a face of a photo of this size.

    A landmark may lie outside a photo that cuts the face off, the middle of the face may not. NaN is nowhere.
    """
    size = np.array([width, height])
    near = (landmarks > -size) & (landmarks < 2 * size)  # (F, 5, 2)
    middle = np.where(near, landmarks, np.nan).mean(axis=1)  # (F, 2)
    return np.asarray(((middle >= 0) & (middle <= size)).all(axis=1))


def _reduce(landmarks: NDArray[np.float32], reduction: int) -> NDArray[np.float32]:
    """Landmarks in pixels of a reduced photo; see `Faces.scale`."""
    return np.asarray((landmarks + np.float32(0.5)) / np.float32(reduction) - np.float32(0.5), np.float32)
