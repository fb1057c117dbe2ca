"""Generate the people of the synthetic portraits, and their shots.

A person is a set of identity parameters (bone structure, skin, hair, eyes, brows, nose, mouth, beard, glasses, clothes,
background). A shot adds light, pose, expression, framing, blur, noise and JPEG quality. No real person is shown.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (n, 2)
Colour = NDArray[np.float64]  # (3,) BGR, 0..255


def _palette(codes: str) -> list[Colour]:
    """Convert RGB hex codes to BGR."""
    return [np.array([int(code[i : i + 2], 16) for i in (4, 2, 0)], float) for code in codes.split()]


_SKINS = _palette("f8dfd0 f2cdb2 eabd9a e0a981 cf9468 b87b50 9c6440 80502f 623b22 4a2c1a")
_HAIRS = _palette("17120f 17120f 2a1c14 3c2718 5a3a21 7a4e2a a06a35 c99a55 dcc07f 8c3d1e b0aca6 e4e2de")
_IRISES = _palette("3b2412 4e3219 6b4a25 7a6a35 4f6b4a 5a7d92 7f9db5 6b7278")
_CLOTHES = _palette("1f2a44 2f2f33 7a1f2b 245c4a d9d4c7 4a6fa5 8c6a4f e8e8ea 5b3f73 c28a3a 2e7d86 b5485d")
_BACKDROPS = _palette("dfe6ea c9d6df e9e4da d3d3d1 b9c7c4 e6dde3 f1f1ef c4cad6 d8d0bf")
_FRAMES = _palette("1b1b1e 5a3a21 8a8d93 7a1f2b 2b3f5c")
STYLES = ("bald", "buzz", "short", "quiff", "curly", "bob", "long", "fringe", "bun", "scarf")


def mix(a: Colour, b: Colour, t: float) -> Colour:
    return a + (b - a) * t


@dataclass(frozen=True, slots=True)
class Person:
    """Features that all shots of a person share. Lengths are in units of half the picture's width."""

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
    """Features that change from photo to photo of a person."""

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
    """Generate the person with this number."""
    rng = np.random.default_rng((seed, person, 0))
    u = rng.uniform
    man = bool(u() < 0.5)
    weights = [8, 13, 26, 18, 12, 1, 4, 2, 2, 0] if man else [1, 2, 6, 3, 14, 18, 24, 14, 12, 6]
    style = str(rng.choice(STYLES, p=np.array(weights) / sum(weights)))
    tone = u(0, len(_SKINS) - 1.001)
    skin = mix(_SKINS[int(tone)], _SKINS[int(tone) + 1], tone % 1) * u(0.97, 1.03, 3)
    age = float(rng.beta(1.6, 2.2))
    dark = tone > 5
    hair = _HAIRS[int(rng.integers(0, 4 if dark else 10))]
    hair = mix(hair, _HAIRS[int(rng.integers(10, 12))], float(np.clip((age - 0.55) * 3, 0, 1)))
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
        lip=mix(skin * np.array([0.72, 0.62, 0.84]), np.array([70, 55, 175.0]), 0.08 if man else u(0.1, 0.5)),
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
    """Generate the shot of a person with this number."""
    rng = np.random.default_rng((seed, person, shot + 1))
    n, u = rng.normal, rng.uniform
    return Shot(
        yaw=float(np.clip(n(0, 0.14), -0.34, 0.34)), pitch=float(np.clip(n(0, 0.08), -0.18, 0.18)),
        roll=float(np.clip(n(0, 0.035), -0.1, 0.1)), zoom=u(0.97, 1.10), shift=n(0, (0.025, 0.025)),
        smile=u(-0.2, 1.0), mouth_open=max(0.0, u(-0.9, 0.8)), eye_open=u(0.78, 1.1), brow_lift=n(0, 0.012),
        gaze=n(0, 0.12), light=u((-0.17, -0.14), (0.17, 0.06)), gain=u(0.86, 1.05), warmth=u(-0.05, 0.06),
        contrast=u(0.88, 1.12), blur=max(0.0, u(-0.5, 0.5)), noise=u(0.5, 4.5), quality=int(rng.integers(68, 96)),
    )  # fmt: skip
