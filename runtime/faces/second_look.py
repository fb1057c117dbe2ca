"""Look once more at each face alone: in its square, turned upright by the landmarks of a first look.

A detector sees a face some dozen pixels wide in a view of the whole photo, and heads that are tilted by 30 degrees
mislead it. A landmark network sees nothing but the face, as large as in the crop. Its answer for one square is 15
numbers: x and y of the five landmarks in pixels of the square, and for each landmark the natural logarithm of its
expected error in distances between the eyes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .align import align_crops, inverse_transforms, transform_points
from .detectors import Faces
from .quality import fit, interocular

MARGIN = 1.25  # side of the square in sides of the aligned crop, as in the training of facemill-landmarks

# Mean distance between the landmarks of two looks, in distances between the eyes, from which a third look is worth it.
# 10 % of upright portraits move so far, and nearly all heads that are tilted by 30 degrees.
_FAR = 0.15
# Doubt above which a face is looked at upside down too: about one upright face of LFW in a hundred, and nearly all
# whose eyes a detector has put at their mouth.
_MAYBE_UPSIDE_DOWN = 0.06
_LARGEST_DOUBT = 0.5  # expected error of a landmark, in distances between the eyes, above which an answer is a guess
# Misfit of an answer, see `quality.fit`, above which it counts only if the first look fits even worse.
_ABSURD_FIT = 0.3

See = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
"""Answer for some faces: their indices (n,) and their landmarks (n, 5, 2) so far -> (n, 15) float32."""


def refine(landmarks: NDArray[np.float32], side: int, see: See) -> NDArray[np.float32]:
    """Look at faces once more, and from the new place again where it is far from the first.

    A detector may see an upside-down face with its eyes at the mouth. So a face of which the network is unsure is
    looked at upside down too.

    Args:
        landmarks: (F, 5, 2) float32, pixels of the photos: the first look.
        side: side of a square, pixels.
        see: cuts the squares of some faces and runs the network.
    Returns:
        (F, 5, 2) float32, a new array. The landmarks of the first look stay where the network is unsure.
    """
    return refine_and_doubt(landmarks, side, see)[0]


def refine_and_doubt(
    landmarks: NDArray[np.float32], side: int, see: See
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Look at faces once more as `refine` does, and tell how unsure the last look was.

    Returns:
        The landmarks of `refine`; and (F,) float32 the expected error of a landmark, in distances between the eyes:
        0.03 for most faces, below 0.2 for nearly all, and often more where there is none.
    """
    refined, doubts = _look(np.arange(len(landmarks)), landmarks, side, see)
    far = np.flatnonzero(_distance(landmarks, refined) > _FAR)
    if len(far):
        refined[far], doubts[far] = _look(far, refined[far], side, see)
    unsure = np.flatnonzero(doubts > _MAYBE_UPSIDE_DOWN)
    if len(unsure):
        upside_down = 2 * refined[unsure].mean(axis=1, keepdims=True) - refined[unsure]
        places, _ = _look(unsure, upside_down, side, see)  # rough, because the middle of the face was rough
        places, doubts_turned = _look(unsure, places, side, see)
        surer = doubts_turned < doubts[unsure]
        refined[unsure[surer]] = places[surer]
        sure = doubts_turned < _MAYBE_UPSIDE_DOWN  # else it may be no face, and a second look is no proof
        doubts[unsure[sure]] = doubts_turned[sure]
    return refined, doubts


def _look(
    faces: NDArray[np.int64], landmarks: NDArray[np.float32], side: int, see: See
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, 5, 2): the landmarks in the squares that these landmarks (n, 5, 2) place, or these if the answer is bad.

    And (n,) the doubt of the answers.
    """
    answers = see(faces, landmarks)  # (n, 15)
    back = inverse_transforms(landmarks, side, MARGIN).astype(np.float64)  # NaN where no square can be placed
    places = transform_points(answers[:, :10].reshape(-1, 5, 2), back)
    doubts = np.exp(answers[:, 10:]).mean(axis=1)  # (n,)
    absurd = fit(places) > np.maximum(_ABSURD_FIT, fit(landmarks))
    bad = (doubts > _LARGEST_DOUBT) | absurd | ~np.isfinite(places).all(axis=(1, 2))
    doubts = np.where(bad, np.maximum(doubts, _LARGEST_DOUBT), doubts)
    return np.where(bad[:, None, None], landmarks, places).astype(np.float32), doubts.astype(np.float32)


def _distance(before: NDArray[np.float32], after: NDArray[np.float32]) -> NDArray[np.float32]:
    """(F,) mean distance between landmarks (F, 5, 2), in distances between the eyes."""
    moved = np.linalg.norm(after - before, axis=2).mean(axis=1)
    return np.asarray(moved / np.maximum(interocular(after), 1e-6), np.float32)


class SecondLook:
    """Looks once more at faces of photos in memory.

    Args:
        infer: (n, S, S, 3) uint8, C-contiguous, in the photos' channel order -> (n, 15) float32; n is at most `batch`.
        side: side S of a square, pixels.
        batch: maximum number of squares in one call.
    """

    def __init__(self, infer: Callable[[NDArray[np.uint8]], NDArray[np.float32]], side: int, batch: int) -> None:
        self._infer, self._side, self._batch = infer, side, batch

    def improve(self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]) -> list[Faces]:
        """The faces of each photo with better landmarks. The face of an aligned crop, which has no score, stays.

        Args:
            photos: N arrays, (H, W, 3) uint8.
            faces: the faces of each photo, in its pixels.
        """
        return [
            photo_faces.with_landmarks(landmarks)
            for photo_faces, (landmarks, _) in zip(faces, self._look(photos, faces), strict=True)
        ]

    def doubts(self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]) -> list[NDArray[np.float32]]:
        """The doubt about each face of each photo, (F,) float32, see `refine_and_doubt`; 0 for an aligned crop.

        Args:
            photos, faces: see `improve`.
        """
        return [doubts for _, doubts in self._look(photos, faces)]

    def _look(
        self, photos: Sequence[NDArray[np.uint8]], faces: Sequence[Faces]
    ) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """For each photo (F, 5, 2) landmarks and (F,) doubts."""
        photo_of_face = np.repeat(np.arange(len(photos)), [len(photo_faces) for photo_faces in faces])  # (F,)
        landmarks = np.concatenate([np.empty((0, 5, 2), np.float32), *(each.landmarks for each in faces)])
        detected = np.flatnonzero(~np.isnan(np.concatenate([np.empty(0), *(each.scores for each in faces)])))

        def see(chosen: NDArray[np.int64], places: NDArray[np.float32]) -> NDArray[np.float32]:
            answers = [np.empty((0, 15), np.float32)]
            for start in range(0, len(chosen), self._batch):
                part = slice(start, start + self._batch)
                images = [photos[i] for i in photo_of_face[detected[chosen[part]]]]
                answers.append(self._infer(align_crops(images, places[part], size=self._side, margin=MARGIN)))
            return np.concatenate(answers)

        doubts = np.zeros(len(landmarks), np.float32)
        landmarks[detected], doubts[detected] = refine_and_doubt(landmarks[detected], self._side, see)
        cuts = np.cumsum([len(photo_faces) for photo_faces in faces])[:-1]
        return list(zip(np.split(landmarks, cuts), np.split(doubts, cuts), strict=True)) if len(photos) else []
