"""Draw the shapes of a portrait in face coordinates, turned and framed as in its shot.

The origin is between eyes and nose, y points down, and the picture is 2 units wide.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .people import Colour, Points, Shot

_BULGE = np.array([-1.1, -0.35])  # how the face curves away from its centre


@lru_cache(maxsize=32)
def _spline(count: int, steps: int = 7) -> NDArray[np.float64]:
    """Return the (count * steps, count) weights of a closed Catmull-Rom curve."""
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2], axis=1
    )
    weights = np.zeros((count, steps, count))
    for i in range(count):
        for k in range(4):
            weights[i, :, (i + k - 1) % count] += basis[:, k]
    return weights.reshape(count * steps, count)


def curve(points: ArrayLike) -> Points:
    """Return a smooth closed outline through control points."""
    control = np.asarray(points, float)
    smooth: Points = _spline(len(control)) @ control
    return smooth


def mirror(right: ArrayLike) -> Points:
    """Return a symmetric outline from its right half; the first and last point are on the axis."""
    half = np.asarray(right, float)
    return np.concatenate([half, half[-2:0:-1] * (-1, 1)])


class Canvas:
    """A drawing of shapes in face coordinates, turned and framed as in its shot; 8 bits, twice the final size.

    Attributes:
        pixels: (2H, 2W, 3) uint8, BGR: the flat drawing.
        soft: (H / 2, W / 2, 3) float32, shares to add to the light; blurred at the end.
        shot: the shot.
    """

    def __init__(self, width: int, height: int, shot: Shot, backdrop: Colour) -> None:
        import cv2

        self.pixels = np.empty((2 * height, 2 * width, 3), np.uint8)
        self.soft = np.zeros((height // 2, width // 2, 3), np.float32)
        self.shot = shot
        aspect = height / width
        zoom = shot.zoom * (1 + 0.6 * (aspect - 1))  # a tall picture shows shoulders, at the same distance
        shift = shot.shift + np.array([1, aspect - 0.24 * (aspect - 1)])
        cos, sin = np.cos(shot.roll) * zoom, np.sin(shot.roll) * zoom
        neck = np.array([0, 0.55])  # the head turns about the neck
        self._head = np.array([[cos, sin], [-sin, cos]])
        self._head_shift = neck * zoom + shift - neck @ self._head
        self._body, self._body_shift = np.eye(2) * zoom, shift
        self._lean = np.array([shot.yaw, shot.pitch])
        cv2.rectangle(self.pixels, (0, 0), (2 * width, 2 * height), _scalar(backdrop), cv2.FILLED)

    def _grid(self, points: Points, lift: float, image: NDArray[np.generic]) -> NDArray[np.int32]:
        """Convert face coordinates to sixteenths of a pixel; `lift` is the height above the face's surface."""
        bulge = (points * points) @ _BULGE + (lift + 0.42)
        transformed = (points + bulge[:, None] * self._lean) @ self._head + self._head_shift
        grid: NDArray[np.int32] = (transformed * (8 * image.shape[1])).astype(np.int32)
        return grid

    def fill(self, colour: Colour, *outlines: Points, lift: float = 0.0) -> None:
        """Fill a shape of the head; a second outline is a hole."""
        import cv2

        grid = [self._grid(outline, lift, self.pixels) for outline in outlines]
        cv2.fillPoly(self.pixels, grid, _scalar(colour), cv2.LINE_AA, 4)

    def fill_body(self, colour: Colour, outline: ArrayLike) -> None:
        """Fill a shape that does not turn with the head."""
        import cv2

        transformed = np.asarray(outline, float) @ self._body + self._body_shift
        grid = (transformed * (8 * self.pixels.shape[1])).astype(np.int32)
        cv2.fillPoly(self.pixels, [grid], _scalar(colour), cv2.LINE_AA, 4)

    def stroke(
        self, colour: Colour, points: ArrayLike, width: float, *, closed: bool = False, lift: float = 0.0
    ) -> None:
        """Draw a line; its width is in face coordinates."""
        import cv2

        grid = self._grid(np.asarray(points, float), lift, self.pixels)
        thick = max(1, round(width * self.pixels.shape[1] / 2))
        cv2.polylines(self.pixels, [grid], closed, _scalar(colour), thick, cv2.LINE_AA, 4)

    def tint(self, change: ArrayLike, outline: Points, lift: float = 0.0) -> None:
        """Add a soft shadow or blush: shares to add to blue, green and red after blurring."""
        import cv2

        cv2.fillPoly(self.soft, [self._grid(outline, lift, self.soft)], _scalar(change), cv2.LINE_8, 4)


def _scalar(values: ArrayLike) -> tuple[float, ...]:
    return tuple(values.tolist() if isinstance(values, np.ndarray) else values)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def circle() -> Points:
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return circle() * (rx, ry) + (x, y)
