#!/usr/bin/env python3
"""Synthetic ID portraits: stylised people, several shots of each, the same bytes for the same seed.

    python benchmarks/portraits.py photos/ --people 100 --shots 3
    python benchmarks/portraits.py crops/ --people 20000 --shots 5 --size 112x112

A person is a set of identity parameters (bone structure, skin, hair, eyes, brows, nose, mouth, beard, glasses, clothes,
background); a shot adds light, pose, expression, framing, blur, noise and JPEG quality. No real person is shown.
Coordinates: the origin lies between eyes and nose, y points down, the picture is 2 units wide.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]  # (n, 2)
Colour = NDArray[np.float64]  # (3,) BGR, 0..255


def _palette(codes: str) -> list[Colour]:
    """RGB hex, as people look colours up, to BGR."""
    return [np.array([int(code[i : i + 2], 16) for i in (4, 2, 0)], float) for code in codes.split()]


_SKINS = _palette("f8dfd0 f2cdb2 eabd9a e0a981 cf9468 b87b50 9c6440 80502f 623b22 4a2c1a")
_HAIRS = _palette("17120f 17120f 2a1c14 3c2718 5a3a21 7a4e2a a06a35 c99a55 dcc07f 8c3d1e b0aca6 e4e2de")
_IRISES = _palette("3b2412 4e3219 6b4a25 7a6a35 4f6b4a 5a7d92 7f9db5 6b7278")
_CLOTHES = _palette("1f2a44 2f2f33 7a1f2b 245c4a d9d4c7 4a6fa5 8c6a4f e8e8ea 5b3f73 c28a3a 2e7d86 b5485d")
_BACKDROPS = _palette("dfe6ea c9d6df e9e4da d3d3d1 b9c7c4 e6dde3 f1f1ef c4cad6 d8d0bf")
_FRAMES = _palette("1b1b1e 5a3a21 8a8d93 7a1f2b 2b3f5c")
_BULGE = np.array([-1.1, -0.35])  # how the face falls away from its middle
_WHITE = np.array([238.0, 236, 236])
_BLACK = np.array([14.0, 12, 12])
_GOLD = np.array([120.0, 205, 235])
_THROAT = np.array([40.0, 32, 70])
_STYLES = ("bald", "buzz", "short", "quiff", "curly", "bob", "long", "fringe", "bun", "scarf")
# How far down the sides hair reaches.
_HAIR_ENDS = {
    "buzz": -0.16, "short": -0.08, "quiff": -0.12, "curly": -0.05, "bun": -0.05,
    "bob": 0.30, "long": 0.42, "fringe": 0.36,
}  # fmt: skip


def _mix(a: Colour, b: Colour, t: float) -> Colour:
    return a + (b - a) * t


@dataclass(frozen=True, slots=True)
class Person:
    """What all shots of one person share. Lengths in units of half a picture's width."""

    top: float
    wide: float
    cheek: float
    jaw: float
    chin: float
    chin_wide: float
    ear: float
    skin: Colour
    hair: Colour
    style: str
    volume: float
    hairline: float
    parting: float
    locks: NDArray[np.float64]
    eye_gap: float
    eye_wide: float
    eye_tall: float
    eye_tilt: float
    iris: Colour
    lashes: bool
    brow_gap: float
    brow_thick: float
    brow_arch: float
    brow_tilt: float
    nose_long: float
    nose_wide: float
    mouth_wide: float
    mouth_drop: float
    lip_up: float
    lip_low: float
    lip: Colour
    beard: str
    glasses: str
    frame: Colour
    earring: bool
    mole: Points
    freckles: bool
    age: float
    clothes: Colour
    trim: Colour
    collar: str
    backdrop: Colour
    build: float


@dataclass(frozen=True, slots=True)
class Shot:
    """What changes from one photograph of a person to the next."""

    yaw: float
    pitch: float
    roll: float
    zoom: float
    shift: Points
    smile: float
    mouth_open: float
    eye_open: float
    brow_lift: float
    gaze: float
    light: Points
    gain: float
    warmth: float
    contrast: float
    blur: float
    noise: float
    quality: int


@lru_cache(maxsize=2)
def person_of(seed: int, person: int) -> Person:
    """The identity with this number."""
    rng = np.random.default_rng((seed, person, 0))
    u = rng.uniform
    man = bool(u() < 0.5)
    weights = [8, 13, 26, 18, 12, 1, 4, 2, 2, 0] if man else [1, 2, 6, 3, 14, 18, 24, 14, 12, 6]
    style = str(rng.choice(_STYLES, p=np.array(weights) / sum(weights)))
    tone = u(0, len(_SKINS) - 1.001)
    skin = _mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1) * u(0.97, 1.03, 3)
    age = float(rng.beta(1.6, 2.2))
    dark = tone > 5
    hair = _HAIRS[int(rng.integers(0, 4 if dark else 10))]
    hair = _mix(hair, _HAIRS[int(rng.integers(10, 12))], float(np.clip((age - 0.55) * 3, 0, 1)))
    beards = ["none", "none", "none", "stubble", "full", "goatee", "moustache"]
    wide = u(0.45, 0.55)
    return Person(
        top=u(0.60, 0.72), wide=wide, cheek=wide * u(0.92, 1.0), jaw=wide * (u(0.74, 0.92) if man else u(0.66, 0.82)),
        chin=u(0.60, 0.74), chin_wide=wide * (u(0.34, 0.52) if man else u(0.24, 0.40)), ear=u(0.8, 1.25), skin=skin,
        hair=hair * u(0.9, 1.1), style=style, volume=u(0.06, 0.17), hairline=u(0.20, 0.36), parting=u(-0.3, 0.3),
        locks=u(-1, 1, (64, 3)), eye_gap=u(0.205, 0.265), eye_wide=u(0.090, 0.122), eye_tall=u(0.042, 0.066),
        eye_tilt=u(-0.14, 0.16), iris=_IRISES[int(rng.integers(0, 3 if dark else len(_IRISES)))],
        lashes=not man, brow_gap=u(0.10, 0.16), brow_thick=u(0.020, 0.048) if man else u(0.012, 0.030),
        brow_arch=u(0.0, 0.055), brow_tilt=u(-0.13, 0.05), nose_long=u(0.19, 0.29), nose_wide=u(0.075, 0.135),
        mouth_wide=u(0.135, 0.205), mouth_drop=u(0.13, 0.18), lip_up=u(0.016, 0.044), lip_low=u(0.026, 0.060),
        lip=_mix(skin * np.array([0.72, 0.62, 0.84]), np.array([70, 55, 175.0]), 0.08 if man else u(0.1, 0.5)),
        beard=str(rng.choice(beards)) if man else "none",
        glasses=str(rng.choice(["none", "none", "none", "round", "square", "half"])),
        frame=_FRAMES[int(rng.integers(len(_FRAMES)))], earring=not man and u() < 0.5,
        mole=u((-0.30, 0.08), (0.30, 0.45)) if u() < 0.3 else np.empty(0), freckles=tone < 3 and bool(u() < 0.25),
        age=age, clothes=_CLOTHES[int(rng.integers(len(_CLOTHES)))], trim=_CLOTHES[int(rng.integers(len(_CLOTHES)))],
        collar=str(rng.choice(["crew", "vneck", "shirt", "suit", "turtle"])),
        backdrop=_BACKDROPS[int(rng.integers(len(_BACKDROPS)))] * u(0.88, 0.97, 3),
        build=u(0.88, 1.15) * (1.06 if man else 0.94),
    )  # fmt: skip


@lru_cache(maxsize=2)
def shot_of(seed: int, person: int, shot: int) -> Shot:
    """How one photograph of a person was taken."""
    rng = np.random.default_rng((seed, person, shot + 1))
    n, u = rng.normal, rng.uniform
    return Shot(
        yaw=float(np.clip(n(0, 0.14), -0.34, 0.34)), pitch=float(np.clip(n(0, 0.08), -0.18, 0.18)),
        roll=float(np.clip(n(0, 0.035), -0.1, 0.1)), zoom=u(0.97, 1.10), shift=n(0, (0.025, 0.025)),
        smile=u(-0.2, 1.0), mouth_open=max(0.0, u(-0.9, 0.8)), eye_open=u(0.78, 1.1), brow_lift=n(0, 0.012),
        gaze=n(0, 0.12), light=u((-0.17, -0.14), (0.17, 0.06)), gain=u(0.86, 1.05), warmth=u(-0.05, 0.06),
        contrast=u(0.88, 1.12), blur=max(0.0, u(-0.5, 0.5)), noise=u(0.5, 4.5), quality=int(rng.integers(68, 96)),
    )  # fmt: skip


@lru_cache(maxsize=32)
def _spline(count: int, steps: int = 7) -> NDArray[np.float64]:
    """(count * steps, count) weights of a closed Catmull-Rom curve."""
    t = np.arange(steps) / steps
    basis = 0.5 * np.stack(
        [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2], axis=1
    )
    weights = np.zeros((count, steps, count))
    for i in range(count):
        for k in range(4):
            weights[i, :, (i + k - 1) % count] += basis[:, k]
    return weights.reshape(count * steps, count)


def _curve(points: ArrayLike) -> Points:
    """A smooth closed outline through control points."""
    control = np.asarray(points, float)
    smooth: Points = _spline(len(control)) @ control
    return smooth


def _mirror(right: ArrayLike) -> Points:
    """A symmetric outline from its right half; the first and last point lie on the axis."""
    half = np.asarray(right, float)
    return np.concatenate([half, half[-2:0:-1] * (-1, 1)])


class _Canvas:
    """Draws shapes given in face coordinates, turned and framed as the shot says; 8 bits, twice the final size.

    Attributes:
        pixels: (2H, 2W, 3) uint8, BGR: the flat drawing.
        soft: (H / 2, W / 2, 3) float32: shares to add to the light, blurred at the end.
        how: the shot.
    """

    def __init__(self, width: int, height: int, how: Shot, backdrop: Colour) -> None:
        self.pixels = np.empty((2 * height, 2 * width, 3), np.uint8)
        self.soft = np.zeros((height // 2, width // 2, 3), np.float32)
        self.how = how
        aspect = height / width
        zoom = how.zoom * (1 + 0.6 * (aspect - 1))  # a tall picture shows shoulders, but not from farther away
        shift = how.shift + np.array([1, aspect - 0.24 * (aspect - 1)])
        cos, sin = np.cos(how.roll) * zoom, np.sin(how.roll) * zoom
        neck = np.array([0, 0.55])  # the head turns about the neck
        self._head = np.array([[cos, sin], [-sin, cos]])
        self._head_shift = neck * zoom + shift - neck @ self._head
        self._body, self._body_shift = np.eye(2) * zoom, shift
        self._lean = np.array([how.yaw, how.pitch])
        cv2.rectangle(self.pixels, (0, 0), (2 * width, 2 * height), _scalar(backdrop), cv2.FILLED)

    def _grid(self, points: Points, lift: float, image: NDArray[np.generic]) -> NDArray[np.int32]:
        """Face coordinates to sixteenths of a pixel; `lift` is height above the face's surface."""
        bulge = (points * points) @ _BULGE + (lift + 0.42)
        placed = (points + bulge[:, None] * self._lean) @ self._head + self._head_shift
        grid: NDArray[np.int32] = (placed * (8 * image.shape[1])).astype(np.int32)
        return grid

    def fill(self, colour: Colour, *outlines: Points, lift: float = 0.0) -> None:
        """A filled shape of the head; a second outline is a hole."""
        grid = [self._grid(outline, lift, self.pixels) for outline in outlines]
        cv2.fillPoly(self.pixels, grid, _scalar(colour), cv2.LINE_AA, 4)

    def fill_body(self, colour: Colour, outline: ArrayLike) -> None:
        """A filled shape that stays where it is when the head turns."""
        placed = np.asarray(outline, float) @ self._body + self._body_shift
        grid = (placed * (8 * self.pixels.shape[1])).astype(np.int32)
        cv2.fillPoly(self.pixels, [grid], _scalar(colour), cv2.LINE_AA, 4)

    def stroke(
        self, colour: Colour, points: ArrayLike, width: float, *, closed: bool = False, lift: float = 0.0
    ) -> None:
        """A line; its width is in units."""
        grid = self._grid(np.asarray(points, float), lift, self.pixels)
        thick = max(1, round(width * self.pixels.shape[1] / 2))
        cv2.polylines(self.pixels, [grid], closed, _scalar(colour), thick, cv2.LINE_AA, 4)

    def tint(self, change: ArrayLike, outline: Points, lift: float = 0.0) -> None:
        """A soft shadow or blush: a share to add to blue, green and red once blurred."""
        cv2.fillPoly(self.soft, [self._grid(outline, lift, self.soft)], _scalar(change), cv2.LINE_8, 4)


def _scalar(values: ArrayLike) -> tuple[float, ...]:
    return tuple(values.tolist() if isinstance(values, np.ndarray) else values)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def _circle() -> Points:
    angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    return _circle() * (rx, ry) + (x, y)


def portrait(seed: int, person: int, shot: int, size: tuple[int, int] = (300, 400)) -> NDArray[np.uint8]:
    """One photograph.

    Args:
        seed: of the whole set.
        person: identity, from 0.
        shot: number of the photograph of that person, from 0.
        size: width and height, pixels.
    Returns:
        (H, W, 3) uint8, BGR.
    """
    who, how = person_of(seed, person), shot_of(seed, person, shot)
    canvas = _Canvas(*size, how, who.backdrop)
    _draw_behind(canvas, who)
    _draw_body(canvas, who)
    _draw_head(canvas, who)
    for side in (-1, 1):
        _draw_eye(canvas, who, side)
    _draw_nose(canvas, who)
    _draw_mouth(canvas, who)
    _draw_hair(canvas, who)
    _draw_glasses(canvas, who)
    return _expose(canvas, how, size, np.random.default_rng((seed, person, shot + 1, 1)))


def encode(seed: int, person: int, shot: int, size: tuple[int, int] = (300, 400)) -> bytes:
    """One photograph as a JPEG file."""
    quality = shot_of(seed, person, shot).quality
    done, data = cv2.imencode(".jpg", portrait(seed, person, shot, size), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


# Outlines are rows of points: one point a line would hide their shape.
# fmt: off
def _face(who: Person) -> Points:
    w = who.wide
    right = [(0, -who.top), (0.56 * w, -0.93 * who.top), (0.93 * w, -0.6 * who.top), (w, -0.12), (who.cheek, 0.16),
        (who.jaw, 0.40), (who.chin_wide, who.chin - 0.05), (0, who.chin)]
    return _curve(_mirror(right))


def _draw_behind(canvas: _Canvas, who: Person) -> None:
    """Hair that hangs behind the neck."""
    w, v, dark = who.wide, who.volume, who.hair * 0.82
    crown = -who.top - v
    if who.style in ("long", "fringe"):
        half = [(0, crown), (0.8 * w, crown + 0.08), (w + v, -0.2), (w + v + 0.06, 0.4), (w + v, 1.0), (0, 1.15)]
        canvas.fill(dark, _curve(_mirror(half)), lift=-0.5)
    elif who.style == "bob":
        half = [(0, crown), (0.8 * w, crown + 0.08), (w + v + 0.02, -0.1), (w + v + 0.05, 0.42), (0.7 * w, 0.52),
            (0, 0.5)]
        canvas.fill(dark, _curve(_mirror(half)), lift=-0.4)
    elif who.style == "bun":
        canvas.fill(dark, _ellipse(0, -who.top - 0.13, 0.2, 0.17), lift=-0.5)
    elif who.style == "curly":
        for i, (dx, dy, dr) in enumerate(who.locks[:26]):
            angle = np.pi * (0.86 + 1.28 * i / 25)
            x, y = np.cos(angle) * (w + 0.05), np.sin(angle) * (who.top + 0.02) - 0.06
            lock = _ellipse(x + 0.03 * dx, y + 0.03 * dy, 0.12 + v / 2, 0.12 + v / 2)
            canvas.fill(who.hair * (0.9 + 0.08 * dr), lock, lift=-0.3)


def _draw_body(canvas: _Canvas, who: Person) -> None:
    """Shoulders, clothes, neck and collar."""
    b, neck = who.build, 0.27 * who.build * (who.jaw / 0.4)
    top = who.chin + 0.14
    half = [(0, top), (neck + 0.05, top + 0.02), (0.62 * b, top + 0.17), (0.92 * b, top + 0.36), (1.02 * b, 2.2),
        (0, 2.3)]
    canvas.fill_body(who.clothes, _curve(_mirror(half)))
    throat = [(0, 0.3), (neck, 0.3), (neck * 0.96, who.chin + 0.05), (neck + 0.08, top + 0.06),
        (neck * 0.6, top + 0.2), (0, top + 0.26)]
    canvas.fill_body(who.skin * 0.86, _curve(_mirror(throat)))
    if who.collar == "turtle":
        roll = [(-neck - 0.05, top - 0.08), (neck + 0.05, top - 0.08), (neck + 0.1, top + 0.2), (0, top + 0.32),
            (-neck - 0.1, top + 0.2)]
        canvas.fill_body(who.clothes * 0.9, roll)
    elif who.collar == "crew":
        band = [(0, top + 0.2), (neck * 0.9, top + 0.1), (neck + 0.11, top), (neck, top + 0.2), (0, top + 0.33)]
        canvas.fill_body(who.clothes * 0.84, _curve(_mirror(band)))
    elif who.collar == "vneck":
        canvas.fill_body(who.skin * 0.93, [(-neck * 0.8, top + 0.1), (neck * 0.8, top + 0.1), (0, top + 0.52)])
    else:
        if who.collar == "suit":
            canvas.fill_body(_WHITE, [(-neck, top), (neck, top), (0, top + 1.0)])
            canvas.fill_body(who.trim, [(-0.06, top + 0.24), (0.06, top + 0.24), (0.085, 2.2), (-0.085, 2.2)])
        shade = _WHITE * 0.96 if who.collar == "suit" else who.clothes * 1.16
        flap = [(neck + 0.06, top - 0.05), (0.03, top + 0.24), (neck * 0.75, top + 0.42), (neck + 0.16, top + 0.1)]
        for side in (-1, 1):
            canvas.fill_body(shade, np.array(flap) * (side, 1))


def _draw_head(canvas: _Canvas, who: Person) -> None:
    """Shadow on the neck, ears, skull, and what lies on the skin."""
    face = _face(who)
    canvas.fill(who.skin * 0.7, face * (0.8, 0.9) + (0.0, 0.13), lift=-0.2)
    for side in (-1, 1):
        x = side * (who.wide + 0.03)
        canvas.fill(who.skin * 0.92, _ellipse(x, 0.03, 0.06 * who.ear, 0.115 * who.ear), lift=-0.12)
        canvas.fill(who.skin * 0.76, _ellipse(x, 0.03, 0.028 * who.ear, 0.07 * who.ear), lift=-0.12)
        if who.earring:
            canvas.fill(_GOLD, _ellipse(x, 0.16 * who.ear, 0.022, 0.022), lift=-0.1)
    canvas.fill(who.skin, face)
    canvas.tint((-0.17, -0.15, -0.12), face)  # the rim is darker than what faces the camera
    canvas.tint((0.04, 0.04, 0.04), face * (0.80, 0.86))
    for side in (-1, 1):
        canvas.tint((-0.10, -0.07, 0.05), _ellipse(side * who.wide * 0.58, 0.2, 0.11, 0.08))
        canvas.tint((-0.14, -0.13, -0.10), _ellipse(side * who.eye_gap, -0.075, 0.11, 0.05))
    canvas.tint((0.10, 0.10, 0.10), _ellipse(0, 0.06, 0.03, 0.12), lift=0.08)
    if who.beard in ("full", "stubble", "goatee"):
        _draw_beard(canvas, who, face)
    if who.freckles:
        for x, y, _ in who.locks[:18]:
            canvas.fill(who.skin * 0.84, _ellipse(0.26 * x, 0.14 + 0.07 * y, 0.008, 0.008))
    if len(who.mole):
        canvas.fill(who.skin * 0.45, _ellipse(who.mole[0], who.mole[1], 0.014, 0.014))


def _draw_beard(canvas: _Canvas, who: Person, face: Points) -> None:
    mouth = who.nose_long + who.mouth_drop
    colour = _mix(who.skin, who.hair, 0.24 if who.beard == "stubble" else 0.88)
    if who.beard == "goatee":
        canvas.fill(colour, _ellipse(0, mouth + 0.10, who.mouth_wide * 0.95, 0.19))
        canvas.fill(who.skin, _ellipse(0, mouth, who.mouth_wide * 0.9, 0.06))
        return
    low = face[face[:, 1] > 0.02]
    low = low[np.argsort(np.arctan2(low[:, 0], -low[:, 1]) % (2 * np.pi))] * (1.01, 1.03)
    inner = [(-who.cheek * 0.9, 0.05), (-who.mouth_wide * 1.25, mouth - 0.08), (0, mouth - 0.11),
        (who.mouth_wide * 1.25, mouth - 0.08), (who.cheek * 0.9, 0.05)]
    canvas.fill(colour, np.concatenate([low, inner]))


def _draw_eye(canvas: _Canvas, who: Person, side: int) -> None:
    how = canvas.how
    x, y, wide, tall = who.eye_gap, 0.0, who.eye_wide, who.eye_tall * how.eye_open
    rise = who.eye_tilt * wide

    def eye(points: ArrayLike) -> Points:
        return np.asarray(points, float) * (side, 1)

    upper = [(x - wide, y + rise), (x - wide * 0.4, y - tall), (x + wide * 0.4, y - tall - rise / 2),
        (x + wide, y - rise)]
    lower = [(x + wide * 0.4, y + tall * 0.72), (x - wide * 0.4, y + tall * 0.8)]
    almond = _curve(eye(upper + lower))
    canvas.fill(who.skin * 0.86, almond - (0, 0.02))
    canvas.fill(_WHITE, almond)
    look, r = side * x + how.gaze * 0.12, who.eye_wide * 0.47
    level = -0.1 * tall
    canvas.fill(who.iris * 0.7, _ellipse(look, level, r, min(r, tall * 1.05)))
    canvas.fill(who.iris * 1.15, _ellipse(look, level, r * 0.8, min(r * 0.8, tall * 0.95)))
    canvas.fill(_BLACK, _ellipse(look, level, r * 0.42, min(r * 0.42, tall)))
    canvas.fill(_WHITE * 1.05, _ellipse(look - 0.3 * r, level - 0.3 * r, r * 0.17, r * 0.17))
    lid = eye([(x - wide * 1.02, y + rise), *upper[1:3], (x + wide * 1.04, y - rise)])
    canvas.stroke(_mix(who.skin * 0.35, who.hair * 0.3, 0.5), _open(lid), 0.024 if who.lashes else 0.015)
    if who.lashes:
        lash = eye([(x + wide * 0.8, y - rise - 0.005), (x + wide * 1.28, y - rise - 0.028)])
        canvas.stroke(who.hair * 0.25, lash, 0.016)
    if who.age > 0.5:
        bag = eye([(x - wide * 0.8, y + tall + 0.035), (x, y + tall + 0.055), (x + wide * 0.8, y + tall + 0.03)])
        canvas.stroke(who.skin * 0.86, _open(bag), 0.01)
    _draw_brow(canvas, who, side)


def _draw_brow(canvas: _Canvas, who: Person, side: int) -> None:
    x, half = who.eye_gap + 0.005, who.eye_wide * 1.32
    y = -who.brow_gap - canvas.how.brow_lift
    t, tilt, arch = who.brow_thick, who.brow_tilt * half, who.brow_arch
    outline = [(x - half, y + tilt - t / 2), (x + half * 0.25, y - arch - t), (x + half, y - tilt),
        (x + half * 0.25, y - arch + t * 0.4), (x - half, y + tilt + t)]
    colour = who.hair * 0.72 if who.hair.mean() < 150 else _mix(who.hair, who.skin, 0.35) * 0.75
    canvas.fill(colour, _curve(np.array(outline) * (side, 1)), lift=0.02)


def _open(points: Points) -> Points:
    """A smooth open line through control points."""
    there_and_back = np.concatenate([points, points[-2:0:-1]])
    return _curve(there_and_back)[: 7 * (len(points) - 1) + 1]


def _draw_nose(canvas: _Canvas, who: Person) -> None:
    tip, w = who.nose_long, who.nose_wide
    lift = 0.12
    side = 1 if canvas.how.light[0] < 0 else -1
    bridge = [(0.05, -0.06), (0.028, 0.06), (w * 0.62, tip - 0.08), (w, tip - 0.01), (0.02, tip - 0.03), (0.012, 0.02)]
    canvas.fill(who.skin * 0.9, _curve(np.array(bridge) * (side, 1)), lift=lift / 2)
    canvas.fill(_mix(who.skin, _WHITE, 0.10), _ellipse(0, tip - 0.05, w * 0.42, 0.045), lift=lift)
    under = [(-w, tip - 0.035), (-w * 0.85, tip + 0.012), (-w * 0.3, tip + 0.002), (0, tip + 0.02),
        (w * 0.3, tip + 0.002), (w * 0.85, tip + 0.012), (w, tip - 0.035)]
    canvas.stroke(who.skin * 0.72, _open(np.array(under)), 0.014, lift=lift)
    for x in (-w * 0.5, w * 0.5):
        canvas.fill(who.skin * 0.5, _ellipse(x, tip + 0.002, w * 0.22, 0.011), lift=lift)
    if who.age > 0.45:
        for s in (-1, 1):
            fold = np.array([(w + 0.02, tip), (w + 0.09, tip + 0.09), (who.mouth_wide + 0.05, tip + 0.17)]) * (s, 1)
            canvas.stroke(who.skin * (0.95 - 0.12 * who.age), _open(fold), 0.012, lift=0.04)


def _draw_mouth(canvas: _Canvas, who: Person) -> None:
    how, y = canvas.how, who.nose_long + who.mouth_drop
    w = who.mouth_wide * (1 + 0.16 * max(how.smile, 0))
    corner, gape = y - 0.035 * how.smile, 0.045 * how.mouth_open
    up, low = y - who.lip_up - gape * 0.3, y + who.lip_low + gape
    outline = [(-w, corner), (-w * 0.4, up), (0, up + 0.012), (w * 0.4, up), (w, corner), (w * 0.45, low - 0.008),
        (0, low), (-w * 0.45, low - 0.008)]
    if who.beard in ("moustache", "full", "goatee"):
        m = w * 1.15
        whisker = [(-m, corner + 0.02), (-m * 0.5, up - 0.055), (0, up - 0.035), (m * 0.5, up - 0.055),
            (m, corner + 0.02), (m * 0.5, up - 0.002), (0, up + 0.005), (-m * 0.5, up - 0.002)]
        canvas.fill(_mix(who.skin, who.hair, 0.92), _curve(whisker), lift=0.06)
    canvas.fill(who.lip, _curve(outline), lift=0.05)
    middle = np.array([(-w, corner), (-w * 0.4, y - 0.002), (0, y + 0.006), (w * 0.4, y - 0.002), (w, corner)])
    if gape > 0.008:
        roof = _open(middle - (0.0, gape * 0.3))
        floor, teeth = (_open(middle + np.array([0, gape * share])) for share in (0.8, 0.25))
        canvas.fill(_THROAT, np.concatenate([roof, floor[::-1]]) * (0.83, 1), lift=0.04)
        canvas.fill(_WHITE * 0.97, np.concatenate([roof, teeth[::-1]]) * (0.75, 1), lift=0.04)
    else:
        canvas.stroke(who.lip * 0.55, _open(middle) * (0.96, 1), 0.011, lift=0.05)
    canvas.tint((-0.10, -0.10, -0.08), _ellipse(0, low + 0.045, w * 0.45, 0.018))


def _draw_hair(canvas: _Canvas, who: Person) -> None:
    """Hair in front, or what covers or replaces it."""
    w, top = who.wide, who.top
    if who.style == "scarf":
        _draw_scarf(canvas, who)
        return
    shine = _ellipse(-w * 0.35 * np.sign(canvas.how.light[0]), -top + 0.01, 0.22, 0.05)
    canvas.tint((0.16, 0.16, 0.16), shine - (0, -0.12) if who.style == "bald" else shine)
    if who.style == "bald":
        return
    colour = _mix(who.hair, who.skin, 0.3) if who.style == "buzz" else who.hair
    canvas.fill(colour, _hair_outline(who), lift=-0.04)
    if who.style == "curly":
        for i, (dx, dy, dr) in enumerate(who.locks[26:44]):
            angle = np.pi * (1.08 + 0.84 * i / 17)
            x, y = np.cos(angle) * w * 0.92, np.sin(angle) * top * 0.86 - 0.06
            canvas.fill(who.hair * (1.0 + 0.14 * dr), _ellipse(x + 0.04 * dx, y + 0.03 * dy, 0.1, 0.1), lift=-0.02)
    elif who.style != "buzz":
        _draw_strands(canvas, who)


def _draw_scarf(canvas: _Canvas, who: Person) -> None:
    w, top, chin = who.wide, who.top, who.chin
    half = [(0, -top - 0.10), (0.75 * w, -top), (w + 0.13, -0.35), (w + 0.14, 0.2), (0.8 * w, chin + 0.05),
        (0.55 * w, chin + 0.3), (0, chin + 0.4)]
    hole = [(0, -top + 0.13), (0.62 * w, -top + 0.2), (0.93 * w, -0.2), (0.93 * w, 0.15), (0.76 * w, 0.42),
        (0.3 * w, chin - 0.03), (0, chin)]
    canvas.fill(who.trim, _curve(_mirror(half)), _curve(_mirror(hole)))
    for low in (chin + 0.16, chin + 0.26):
        canvas.stroke(who.trim * 0.8, _open(np.array([(-0.7 * w, low - 0.1), (0, low), (0.75 * w, low - 0.2)])), 0.014)


def _hair_outline(who: Person) -> Points:
    """Between the hairline and the outline of the skull."""
    w, top, part = who.wide, who.top, who.parting
    line = -top + who.hairline * 0.8
    thin = who.style in ("buzz", "bun")
    rise, edge = (0.035, w + 0.02) if thin else (who.volume, w + 0.045)
    low = _HAIR_ENDS[who.style]
    inner = w * (0.86 if low < 0 else 0.9)
    lean = part if who.style == "quiff" else part * 0.3
    outer = [(-edge, low), (-edge, -0.28), (-0.84 * w, -top * 0.85 - rise * 0.5), (lean - 0.2 * w, -top - rise),
        (lean + 0.25 * w, -top - rise), (0.84 * w, -top * 0.85 - rise * 0.5), (edge, -0.28), (edge, low)]
    if who.style == "fringe":
        under = [(inner, -0.1), (0.75 * w, -0.17), (0.3 * w, -0.2), (-0.3 * w, -0.2), (-0.75 * w, -0.17),
            (-inner, -0.1)]
    elif low > 0:
        under = [(inner, 0.0), (0.8 * w, -0.2), (part + 0.12, line - 0.02), (part, line - 0.08),
            (part - 0.12, line - 0.02), (-0.8 * w, -0.2), (-inner, 0.0)]
    else:
        under = [(inner, low - 0.06), (0.82 * w, line + 0.06), (0.4 * w, line - 0.02), (part * 0.4, line + 0.02),
            (-0.4 * w, line - 0.02), (-0.82 * w, line + 0.06), (-inner, low - 0.06)]
    return _curve(outer + under)


def _draw_strands(canvas: _Canvas, who: Person) -> None:
    """A few lighter and darker strands from the parting outwards."""
    loose = _HAIR_ENDS[who.style] > 0
    part = who.parting * (1.0 if who.style in ("long", "bob") else 0.3)
    edge, line = who.wide + 0.04, -who.top + who.hairline * 0.8
    for i, (a, b, c) in enumerate(who.locks[:9]):
        side = -1 if i % 2 else 1
        reach = 0.45 + 0.5 * abs(a)
        start = (part + 0.04 * side, -who.top - who.volume * 0.4 * (0.4 + abs(b)))
        middle = (part + side * edge * 0.5 * reach, -who.top * (0.86 + 0.1 * b))
        end = (side * edge * 0.9, -0.05 + 0.1 * b) if loose else (side * edge * (0.5 + 0.35 * reach), line - 0.03)
        colour = np.minimum(who.hair * (1.0 + 0.22 * c) + 4, 255)
        canvas.stroke(colour, _open(np.array([start, middle, end])), 0.012, lift=-0.04)


def _draw_glasses(canvas: _Canvas, who: Person) -> None:
    if who.glasses == "none":
        return
    wide, tall = who.eye_wide * 1.5, who.eye_wide * 1.05
    box = np.array([(-1, -0.9), (0, -1), (1, -0.9), (1.02, 0), (0.85, 0.9), (0, 1), (-0.85, 0.9), (-1.02, 0)])
    if who.glasses == "round":
        wide = tall = who.eye_wide * 1.32
        box = _circle()
    rim = _curve(box * (wide, tall) + (0, 0.015))
    above = rim[rim[:, 1] < 0.02]
    above = above[np.argsort(above[:, 0])]
    for side in (-1, 1):
        shift = (side * who.eye_gap, 0)
        if who.glasses == "half":
            canvas.stroke(who.frame, above + shift, 0.024, lift=0.1)
        else:
            canvas.stroke(who.frame, rim + shift, 0.024, closed=True, lift=0.1)
        canvas.stroke(who.frame, [(side * (who.eye_gap + wide), -0.02), (side * (who.wide + 0.02), -0.035)], 0.02)
        canvas.tint((0.05, 0.04, 0.03), rim + shift, lift=0.1)
    inner = who.eye_gap - wide
    canvas.stroke(who.frame, _open(np.array([(-inner, 0.0), (0, -0.025), (inner, 0.0)])), 0.022, lift=0.12)
# fmt: on


def _expose(canvas: _Canvas, how: Shot, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The drawing as the camera sees it: soft shadows, light, colour cast, blur and noise."""
    width, height = size
    drawn = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)
    image: NDArray[np.float32] = drawn.astype(np.float32)  # (H, W, 3)
    soft = cv2.GaussianBlur(canvas.soft, (0, 0), 0.024 * width)
    light: NDArray[np.float32] = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)  # shares
    across = np.linspace(-how.light[0], how.light[0], width, dtype=np.float32)
    down = np.linspace(-how.light[1], how.light[1], height, dtype=np.float32)
    light += (across[None, :] + down[:, None] + 1)[..., None]
    light *= np.array([1 - how.warmth, 1.0, 1 + how.warmth], np.float32) * np.float32(how.gain * how.contrast)
    image *= light
    image += np.float32(118 * (1 - how.contrast))
    if how.blur > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), how.blur * width / 112).astype(np.float32)
    image += rng.standard_normal(image.shape[:2], np.float32)[..., None] * np.float32(how.noise)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_portraits(
    folder: Path | str,
    people: int,
    shots: int,
    size: tuple[int, int] = (300, 400),
    seed: int = 0,
    workers: int | None = None,
) -> list[Path]:
    """Write people x shots JPEG files, named like `person-00012/shot-3.jpg`.

    Args:
        folder: created when missing; files of the same names are replaced.
        people: number of identities.
        shots: photographs of each.
        size: width and height, pixels.
        seed: the same seed gives the same bytes.
        workers: processes; None for one a core. A small set is written by this process alone.
    Returns:
        The paths, by person and shot.
    """
    folder = Path(folder)
    workers = workers or os.cpu_count() or 1
    write = partial(_write_person, folder, shots, size, seed)
    if workers == 1 or people * shots < 500:
        return [path for person in range(people) for path in write(person)]
    # Spawned, not forked: the caller may run threads.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        return [path for paths in pool.map(write, range(people), chunksize=32) for path in paths]


def _write_person(folder: Path, shots: int, size: tuple[int, int], seed: int, person: int) -> list[Path]:
    home = folder / f"person-{person:05d}"
    home.mkdir(parents=True, exist_ok=True)
    paths = [home / f"shot-{shot}.jpg" for shot in range(shots)]
    for shot, path in enumerate(paths):
        path.write_bytes(encode(seed, person, shot, size))
    return paths


def _size(text: str) -> tuple[int, int]:
    """`112x112` to (112, 112)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT of at least 16x16, such as 112x112")
    return int(width), int(height)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write synthetic ID portraits.")
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--size", type=_size, default=(300, 400), metavar="WxH")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args()
    paths = write_portraits(given.folder, given.people, given.shots, given.size, given.seed, given.workers)
    print(f"{len(paths):,} portraits in {given.folder}")


if __name__ == "__main__":
    main()
