"""Draw the parts of a portrait, back to front: background, body, head, eyes, nose, mouth, hair, glasses."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .canvas import Canvas, circle, curve, ellipse, mirror
from .people import Person, Points, mix

_WHITE = np.array([238.0, 236, 236])
_BLACK = np.array([14.0, 12, 12])
_GOLD = np.array([120.0, 205, 235])
_THROAT = np.array([40.0, 32, 70])
# Lower end of the hair at the sides.
_HAIR_ENDS = {
    "buzz": -0.16, "short": -0.08, "quiff": -0.12, "curly": -0.05, "bun": -0.05,
    "bob": 0.30, "long": 0.42, "fringe": 0.36,
}  # fmt: skip


# Outlines are rows of points; one point per line would hide their shape.
# fmt: off
def _face(person: Person) -> Points:
    w = person.wide
    right = [(0, -person.top), (0.56 * w, -0.93 * person.top), (0.93 * w, -0.6 * person.top), (w, -0.12),
        (person.cheek, 0.16), (person.jaw, 0.40), (person.chin_wide, person.chin - 0.05), (0, person.chin)]
    return curve(mirror(right))


def draw_behind(canvas: Canvas, person: Person) -> None:
    """Draw the hair behind the neck."""
    w, v, dark = person.wide, person.volume, person.hair * 0.82
    crown = -person.top - v
    if person.style in ("long", "fringe"):
        half = [(0, crown), (0.8 * w, crown + 0.08), (w + v, -0.2), (w + v + 0.06, 0.4), (w + v, 1.0), (0, 1.15)]
        canvas.fill(dark, curve(mirror(half)), lift=-0.5)
    elif person.style == "bob":
        half = [(0, crown), (0.8 * w, crown + 0.08), (w + v + 0.02, -0.1), (w + v + 0.05, 0.42), (0.7 * w, 0.52),
            (0, 0.5)]
        canvas.fill(dark, curve(mirror(half)), lift=-0.4)
    elif person.style == "bun":
        canvas.fill(dark, ellipse(0, -person.top - 0.13, 0.2, 0.17), lift=-0.5)
    elif person.style == "curly":
        for i, (dx, dy, dr) in enumerate(person.locks[:26]):
            angle = np.pi * (0.86 + 1.28 * i / 25)
            x, y = np.cos(angle) * (w + 0.05), np.sin(angle) * (person.top + 0.02) - 0.06
            lock = ellipse(x + 0.03 * dx, y + 0.03 * dy, 0.12 + v / 2, 0.12 + v / 2)
            canvas.fill(person.hair * (0.9 + 0.08 * dr), lock, lift=-0.3)


def draw_body(canvas: Canvas, person: Person) -> None:
    """Draw shoulders, clothes, neck and collar."""
    b, neck = person.build, 0.27 * person.build * (person.jaw / 0.4)
    top = person.chin + 0.14
    half = [(0, top), (neck + 0.05, top + 0.02), (0.62 * b, top + 0.17), (0.92 * b, top + 0.36), (1.02 * b, 2.2),
        (0, 2.3)]
    canvas.fill_body(person.clothes, curve(mirror(half)))
    throat = [(0, 0.3), (neck, 0.3), (neck * 0.96, person.chin + 0.05), (neck + 0.08, top + 0.06),
        (neck * 0.6, top + 0.2), (0, top + 0.26)]
    canvas.fill_body(person.skin * 0.86, curve(mirror(throat)))
    if person.collar == "turtle":
        roll = [(-neck - 0.05, top - 0.08), (neck + 0.05, top - 0.08), (neck + 0.1, top + 0.2), (0, top + 0.32),
            (-neck - 0.1, top + 0.2)]
        canvas.fill_body(person.clothes * 0.9, roll)
    elif person.collar == "crew":
        band = [(0, top + 0.2), (neck * 0.9, top + 0.1), (neck + 0.11, top), (neck, top + 0.2), (0, top + 0.33)]
        canvas.fill_body(person.clothes * 0.84, curve(mirror(band)))
    elif person.collar == "vneck":
        canvas.fill_body(person.skin * 0.93, [(-neck * 0.8, top + 0.1), (neck * 0.8, top + 0.1), (0, top + 0.52)])
    else:
        if person.collar == "suit":
            canvas.fill_body(_WHITE, [(-neck, top), (neck, top), (0, top + 1.0)])
            canvas.fill_body(person.trim, [(-0.06, top + 0.24), (0.06, top + 0.24), (0.085, 2.2), (-0.085, 2.2)])
        shade = _WHITE * 0.96 if person.collar == "suit" else person.clothes * 1.16
        flap = [(neck + 0.06, top - 0.05), (0.03, top + 0.24), (neck * 0.75, top + 0.42), (neck + 0.16, top + 0.1)]
        for side in (-1, 1):
            canvas.fill_body(shade, np.array(flap) * (side, 1))


def draw_head(canvas: Canvas, person: Person) -> None:
    """Draw the shadow on the neck, the ears, the skull, and beard, freckles and mole."""
    face = _face(person)
    canvas.fill(person.skin * 0.7, face * (0.8, 0.9) + (0.0, 0.13), lift=-0.2)
    for side in (-1, 1):
        x = side * (person.wide + 0.03)
        canvas.fill(person.skin * 0.92, ellipse(x, 0.03, 0.06 * person.ear, 0.115 * person.ear), lift=-0.12)
        canvas.fill(person.skin * 0.76, ellipse(x, 0.03, 0.028 * person.ear, 0.07 * person.ear), lift=-0.12)
        if person.earring:
            canvas.fill(_GOLD, ellipse(x, 0.16 * person.ear, 0.022, 0.022), lift=-0.1)
    canvas.fill(person.skin, face)
    canvas.tint((-0.17, -0.15, -0.12), face)  # the rim is darker than what faces the camera
    canvas.tint((0.04, 0.04, 0.04), face * (0.80, 0.86))
    for side in (-1, 1):
        canvas.tint((-0.10, -0.07, 0.05), ellipse(side * person.wide * 0.58, 0.2, 0.11, 0.08))
        canvas.tint((-0.14, -0.13, -0.10), ellipse(side * person.eye_gap, -0.075, 0.11, 0.05))
    canvas.tint((0.10, 0.10, 0.10), ellipse(0, 0.06, 0.03, 0.12), lift=0.08)
    if person.beard in ("full", "stubble", "goatee"):
        draw_beard(canvas, person, face)
    if person.freckles:
        for x, y, _ in person.locks[:18]:
            canvas.fill(person.skin * 0.84, ellipse(0.26 * x, 0.14 + 0.07 * y, 0.008, 0.008))
    if len(person.mole):
        canvas.fill(person.skin * 0.45, ellipse(person.mole[0], person.mole[1], 0.014, 0.014))


def draw_beard(canvas: Canvas, person: Person, face: Points) -> None:
    mouth = person.nose_long + person.mouth_drop
    colour = mix(person.skin, person.hair, 0.24 if person.beard == "stubble" else 0.88)
    if person.beard == "goatee":
        canvas.fill(colour, ellipse(0, mouth + 0.10, person.mouth_wide * 0.95, 0.19))
        canvas.fill(person.skin, ellipse(0, mouth, person.mouth_wide * 0.9, 0.06))
        return
    low = face[face[:, 1] > 0.02]
    low = low[np.argsort(np.arctan2(low[:, 0], -low[:, 1]) % (2 * np.pi))] * (1.01, 1.03)
    inner = [(-person.cheek * 0.9, 0.05), (-person.mouth_wide * 1.25, mouth - 0.08), (0, mouth - 0.11),
        (person.mouth_wide * 1.25, mouth - 0.08), (person.cheek * 0.9, 0.05)]
    canvas.fill(colour, np.concatenate([low, inner]))


def draw_eye(canvas: Canvas, person: Person, side: int) -> None:
    shot = canvas.shot
    x, y, wide, tall = person.eye_gap, 0.0, person.eye_wide, person.eye_tall * shot.eye_open
    rise = person.eye_tilt * wide

    def eye(points: ArrayLike) -> Points:
        return np.asarray(points, float) * (side, 1)

    upper = [(x - wide, y + rise), (x - wide * 0.4, y - tall), (x + wide * 0.4, y - tall - rise / 2),
        (x + wide, y - rise)]
    lower = [(x + wide * 0.4, y + tall * 0.72), (x - wide * 0.4, y + tall * 0.8)]
    almond = curve(eye(upper + lower))
    canvas.fill(person.skin * 0.86, almond - (0, 0.02))
    canvas.fill(_WHITE, almond)
    look, r = side * x + shot.gaze * 0.12, person.eye_wide * 0.47
    level = -0.1 * tall
    canvas.fill(person.iris * 0.7, ellipse(look, level, r, min(r, tall * 1.05)))
    canvas.fill(person.iris * 1.15, ellipse(look, level, r * 0.8, min(r * 0.8, tall * 0.95)))
    canvas.fill(_BLACK, ellipse(look, level, r * 0.42, min(r * 0.42, tall)))
    canvas.fill(_WHITE * 1.05, ellipse(look - 0.3 * r, level - 0.3 * r, r * 0.17, r * 0.17))
    lid = eye([(x - wide * 1.02, y + rise), *upper[1:3], (x + wide * 1.04, y - rise)])
    canvas.stroke(mix(person.skin * 0.35, person.hair * 0.3, 0.5), _open(lid), 0.024 if person.lashes else 0.015)
    if person.lashes:
        lash = eye([(x + wide * 0.8, y - rise - 0.005), (x + wide * 1.28, y - rise - 0.028)])
        canvas.stroke(person.hair * 0.25, lash, 0.016)
    if person.age > 0.5:
        bag = eye([(x - wide * 0.8, y + tall + 0.035), (x, y + tall + 0.055), (x + wide * 0.8, y + tall + 0.03)])
        canvas.stroke(person.skin * 0.86, _open(bag), 0.01)
    draw_brow(canvas, person, side)


def draw_brow(canvas: Canvas, person: Person, side: int) -> None:
    x, half = person.eye_gap + 0.005, person.eye_wide * 1.32
    y = -person.brow_gap - canvas.shot.brow_lift
    t, tilt, arch = person.brow_thick, person.brow_tilt * half, person.brow_arch
    outline = [(x - half, y + tilt - t / 2), (x + half * 0.25, y - arch - t), (x + half, y - tilt),
        (x + half * 0.25, y - arch + t * 0.4), (x - half, y + tilt + t)]
    colour = person.hair * 0.72 if person.hair.mean() < 150 else mix(person.hair, person.skin, 0.35) * 0.75
    canvas.fill(colour, curve(np.array(outline) * (side, 1)), lift=0.02)


def _open(points: Points) -> Points:
    """Return a smooth open line through control points."""
    round_trip = np.concatenate([points, points[-2:0:-1]])
    return curve(round_trip)[: 7 * (len(points) - 1) + 1]


def draw_nose(canvas: Canvas, person: Person) -> None:
    tip, w = person.nose_long, person.nose_wide
    lift = 0.12
    side = 1 if canvas.shot.light[0] < 0 else -1
    bridge = [(0.05, -0.06), (0.028, 0.06), (w * 0.62, tip - 0.08), (w, tip - 0.01), (0.02, tip - 0.03), (0.012, 0.02)]
    canvas.fill(person.skin * 0.9, curve(np.array(bridge) * (side, 1)), lift=lift / 2)
    canvas.fill(mix(person.skin, _WHITE, 0.10), ellipse(0, tip - 0.05, w * 0.42, 0.045), lift=lift)
    under = [(-w, tip - 0.035), (-w * 0.85, tip + 0.012), (-w * 0.3, tip + 0.002), (0, tip + 0.02),
        (w * 0.3, tip + 0.002), (w * 0.85, tip + 0.012), (w, tip - 0.035)]
    canvas.stroke(person.skin * 0.72, _open(np.array(under)), 0.014, lift=lift)
    for x in (-w * 0.5, w * 0.5):
        canvas.fill(person.skin * 0.5, ellipse(x, tip + 0.002, w * 0.22, 0.011), lift=lift)
    if person.age > 0.45:
        for s in (-1, 1):
            fold = np.array([(w + 0.02, tip), (w + 0.09, tip + 0.09), (person.mouth_wide + 0.05, tip + 0.17)]) * (s, 1)
            canvas.stroke(person.skin * (0.95 - 0.12 * person.age), _open(fold), 0.012, lift=0.04)


def draw_mouth(canvas: Canvas, person: Person) -> None:
    shot, y = canvas.shot, person.nose_long + person.mouth_drop
    w = person.mouth_wide * (1 + 0.16 * max(shot.smile, 0))
    corner, gape = y - 0.035 * shot.smile, 0.045 * shot.mouth_open
    up, low = y - person.lip_up - gape * 0.3, y + person.lip_low + gape
    outline = [(-w, corner), (-w * 0.4, up), (0, up + 0.012), (w * 0.4, up), (w, corner), (w * 0.45, low - 0.008),
        (0, low), (-w * 0.45, low - 0.008)]
    if person.beard in ("moustache", "full", "goatee"):
        m = w * 1.15
        whisker = [(-m, corner + 0.02), (-m * 0.5, up - 0.055), (0, up - 0.035), (m * 0.5, up - 0.055),
            (m, corner + 0.02), (m * 0.5, up - 0.002), (0, up + 0.005), (-m * 0.5, up - 0.002)]
        canvas.fill(mix(person.skin, person.hair, 0.92), curve(whisker), lift=0.06)
    canvas.fill(person.lip, curve(outline), lift=0.05)
    middle = np.array([(-w, corner), (-w * 0.4, y - 0.002), (0, y + 0.006), (w * 0.4, y - 0.002), (w, corner)])
    if gape > 0.008:
        roof = _open(middle - (0.0, gape * 0.3))
        floor, teeth = (_open(middle + np.array([0, gape * share])) for share in (0.8, 0.25))
        canvas.fill(_THROAT, np.concatenate([roof, floor[::-1]]) * (0.83, 1), lift=0.04)
        canvas.fill(_WHITE * 0.97, np.concatenate([roof, teeth[::-1]]) * (0.75, 1), lift=0.04)
    else:
        canvas.stroke(person.lip * 0.55, _open(middle) * (0.96, 1), 0.011, lift=0.05)
    canvas.tint((-0.10, -0.10, -0.08), ellipse(0, low + 0.045, w * 0.45, 0.018))


def draw_hair(canvas: Canvas, person: Person) -> None:
    """Draw the hair in front, or a scarf or bald head."""
    w, top = person.wide, person.top
    if person.style == "scarf":
        draw_scarf(canvas, person)
        return
    shine = ellipse(-w * 0.35 * np.sign(canvas.shot.light[0]), -top + 0.01, 0.22, 0.05)
    canvas.tint((0.16, 0.16, 0.16), shine - (0, -0.12) if person.style == "bald" else shine)
    if person.style == "bald":
        return
    colour = mix(person.hair, person.skin, 0.3) if person.style == "buzz" else person.hair
    canvas.fill(colour, _hair_outline(person), lift=-0.04)
    if person.style == "curly":
        for i, (dx, dy, dr) in enumerate(person.locks[26:44]):
            angle = np.pi * (1.08 + 0.84 * i / 17)
            x, y = np.cos(angle) * w * 0.92, np.sin(angle) * top * 0.86 - 0.06
            canvas.fill(person.hair * (1.0 + 0.14 * dr), ellipse(x + 0.04 * dx, y + 0.03 * dy, 0.1, 0.1), lift=-0.02)
    elif person.style != "buzz":
        draw_strands(canvas, person)


def draw_scarf(canvas: Canvas, person: Person) -> None:
    w, top, chin = person.wide, person.top, person.chin
    half = [(0, -top - 0.10), (0.75 * w, -top), (w + 0.13, -0.35), (w + 0.14, 0.2), (0.8 * w, chin + 0.05),
        (0.55 * w, chin + 0.3), (0, chin + 0.4)]
    hole = [(0, -top + 0.13), (0.62 * w, -top + 0.2), (0.93 * w, -0.2), (0.93 * w, 0.15), (0.76 * w, 0.42),
        (0.3 * w, chin - 0.03), (0, chin)]
    canvas.fill(person.trim, curve(mirror(half)), curve(mirror(hole)))
    for low in (chin + 0.16, chin + 0.26):
        fold = np.array([(-0.7 * w, low - 0.1), (0, low), (0.75 * w, low - 0.2)])
        canvas.stroke(person.trim * 0.8, _open(fold), 0.014)


def _hair_outline(person: Person) -> Points:
    """Return the outline of the hair, from the hairline to the skull."""
    w, top, part = person.wide, person.top, person.parting
    line = -top + person.hairline * 0.8
    thin = person.style in ("buzz", "bun")
    rise, edge = (0.035, w + 0.02) if thin else (person.volume, w + 0.045)
    low = _HAIR_ENDS[person.style]
    inner = w * (0.86 if low < 0 else 0.9)
    lean = part if person.style == "quiff" else part * 0.3
    outer = [(-edge, low), (-edge, -0.28), (-0.84 * w, -top * 0.85 - rise * 0.5), (lean - 0.2 * w, -top - rise),
        (lean + 0.25 * w, -top - rise), (0.84 * w, -top * 0.85 - rise * 0.5), (edge, -0.28), (edge, low)]
    if person.style == "fringe":
        under = [(inner, -0.1), (0.75 * w, -0.17), (0.3 * w, -0.2), (-0.3 * w, -0.2), (-0.75 * w, -0.17),
            (-inner, -0.1)]
    elif low > 0:
        under = [(inner, 0.0), (0.8 * w, -0.2), (part + 0.12, line - 0.02), (part, line - 0.08),
            (part - 0.12, line - 0.02), (-0.8 * w, -0.2), (-inner, 0.0)]
    else:
        under = [(inner, low - 0.06), (0.82 * w, line + 0.06), (0.4 * w, line - 0.02), (part * 0.4, line + 0.02),
            (-0.4 * w, line - 0.02), (-0.82 * w, line + 0.06), (-inner, low - 0.06)]
    return curve(outer + under)


def draw_strands(canvas: Canvas, person: Person) -> None:
    """Draw a few lighter and darker strands from the parting outwards."""
    loose = _HAIR_ENDS[person.style] > 0
    part = person.parting * (1.0 if person.style in ("long", "bob") else 0.3)
    edge, line = person.wide + 0.04, -person.top + person.hairline * 0.8
    for i, (a, b, c) in enumerate(person.locks[:9]):
        side = -1 if i % 2 else 1
        reach = 0.45 + 0.5 * abs(a)
        start = (part + 0.04 * side, -person.top - person.volume * 0.4 * (0.4 + abs(b)))
        middle = (part + side * edge * 0.5 * reach, -person.top * (0.86 + 0.1 * b))
        end = (side * edge * 0.9, -0.05 + 0.1 * b) if loose else (side * edge * (0.5 + 0.35 * reach), line - 0.03)
        colour = np.minimum(person.hair * (1.0 + 0.22 * c) + 4, 255)
        canvas.stroke(colour, _open(np.array([start, middle, end])), 0.012, lift=-0.04)


def draw_glasses(canvas: Canvas, person: Person) -> None:
    if person.glasses == "none":
        return
    wide, tall = person.eye_wide * 1.5, person.eye_wide * 1.05
    box = np.array([(-1, -0.9), (0, -1), (1, -0.9), (1.02, 0), (0.85, 0.9), (0, 1), (-0.85, 0.9), (-1.02, 0)])
    if person.glasses == "round":
        wide = tall = person.eye_wide * 1.32
        box = circle()
    rim = curve(box * (wide, tall) + (0, 0.015))
    above = rim[rim[:, 1] < 0.02]
    above = above[np.argsort(above[:, 0])]
    for side in (-1, 1):
        shift = (side * person.eye_gap, 0)
        if person.glasses == "half":
            canvas.stroke(person.frame, above + shift, 0.024, lift=0.1)
        else:
            canvas.stroke(person.frame, rim + shift, 0.024, closed=True, lift=0.1)
        temple = [(side * (person.eye_gap + wide), -0.02), (side * (person.wide + 0.02), -0.035)]
        canvas.stroke(person.frame, temple, 0.02)
        canvas.tint((0.05, 0.04, 0.03), rim + shift, lift=0.1)
    inner = person.eye_gap - wide
    canvas.stroke(person.frame, _open(np.array([(-inner, 0.0), (0, -0.025), (inner, 0.0)])), 0.022, lift=0.12)
# fmt: on
