"""Crop the faces of a finished file once more from their photos, at the places that the file names."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..faces.align import align_crops
from ..faces.selection import LONG_SIDE
from ..images.decode import ImageError, Limits, decode_crop, decode_photo
from ..images.header import take_page
from ..images.one_photo import one_photo
from ..pipeline.face_work import large_enough
from ..pipeline.work import ReadAttributes
from ..records import FACE_DATASETS, PAGE_DATASET, Batch, Crops, unread_attributes
from ..sources.reader import ReadError
from ..sources.source import Source
from ..storage.file import EmbeddingFile

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFaces(Batch):
    """Faces of a finished file. Their `rows` are rows of the source; the faces of a photo are neighbours.

    Attributes:
        landmarks: (F, 5, 2) float32, pixels of the upright original; None in a file of aligned crops.
        pages: (F,) uint16, page of each face; None where the main page has them all.
    """

    landmarks: NDArray[np.float32] | None
    pages: NDArray[np.uint16] | None

    @classmethod
    def of(cls, gallery: EmbeddingFile, rows: NDArray[np.int64], photos: NDArray[np.int64]) -> StoredFaces:
        """Read faces of an open file.

        Args:
            gallery: the file.
            rows: (F,) ascending rows of `/embeddings`.
            photos: (F,) the row of each face's photo in the source.
        """
        start, stop, at = int(rows[0]), int(rows[-1]) + 1, rows - rows[0]
        landmarks = pages = None
        if gallery.has_faces:
            landmarks = gallery.column(FACE_DATASETS["landmarks"], start, stop)[at]
        if gallery.has_pages:
            pages = gallery.column(PAGE_DATASET, start, stop)[at]
        return cls(photos, landmarks=landmarks, pages=pages)


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
                    crops[first:stop] = self._crop(self.source.read(row), batch, slice(first, stop))
                good[first:stop] = True
            except (ReadError, ImageError) as err:
                logger.debug("%r: %s", name, err)
        attributes = unread_attributes(len(crops))
        attributes[good] = self.read.read(crops[good])
        return Crops(batch.rows, images=crops, attributes=attributes)

    def _crop(self, data: bytes, batch: StoredFaces, faces: slice) -> NDArray[np.uint8]:
        """(F, S, S, 3): the crops of some faces of one photo."""
        if batch.landmarks is None:
            crop = decode_crop(data, size=self.size, channel_order=self.channel_order, limits=self.limits)
            return crop.pixels[None]
        landmarks = batch.landmarks[faces]
        if batch.pages is None:
            return self._align(data, landmarks)
        pages, crops = batch.pages[faces], np.empty((len(landmarks), self.size, self.size, 3), np.uint8)
        for page in np.unique(pages).tolist():
            crops[pages == page] = self._align(take_page(data, page), landmarks[pages == page])
        return crops

    def _align(self, data: bytes, landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
        """(F, S, S, 3): crops at landmarks in pixels of the original."""
        photo = decode_photo(data, long_side=LONG_SIDE, channel_order=self.channel_order, limits=self.limits)
        places = _reduce(landmarks, photo.reduction)
        photo = large_enough(photo, data, places, self.channel_order, self.limits)
        places = _reduce(landmarks, photo.reduction)
        return align_crops([photo.pixels] * len(places), places, size=self.size)


def _reduce(landmarks: NDArray[np.float32], reduction: int) -> NDArray[np.float32]:
    """Landmarks in pixels of a reduced photo; see `Faces.scale`."""
    return np.asarray((landmarks + np.float32(0.5)) / np.float32(reduction) - np.float32(0.5), np.float32)
