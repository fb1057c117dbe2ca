"""Pictures without a face: drawn from a seed, and taken from packages and icons that may be installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from runtime.engines.backends import open_runner
from runtime.engines.engine import Engine
from runtime.faces.rules import FaceRules
from runtime.images.decode import Limits
from runtime.modelspec import load_spec
from runtime.pipeline.face_work import find_faces_with
from runtime.records import Photo, Photos

Picture = NDArray[np.uint8]  # (H, W, 3), RGB

SEEDS = 12  # pictures of each kind
_SIZES = ((400, 300), (300, 400), (256, 256), (640, 480))  # height, width
# Pictures of somebody, of a face on a coin, of a drawn face or of a cat's; and icons that are only an outline.
_LEFT_OUT = (
    "astronaut",
    "camera",
    "coins",
    "no_time",
    "lfw",
    "chelsea",
    "face-",
    "avatar",
    "users",
    "contact",
    "symbolic",
    "hopper",
)
_ICONS = Path("/usr/share/icons/Adwaita/512x512")
_PACKAGES = {"skimage": "data", "sklearn": "datasets/images", "matplotlib": "mpl-data/sample_data"}
_BATCH = 32
_LONG_SIDE = 1280  # pixels; larger pictures are halved, as the decoder does
_TILES = 2  # along the shorter side of an installed photo: its parts count as pictures of their own


def drawn_pictures() -> dict[str, Picture]:
    """SEEDS pictures of each kind, by name."""
    pictures = {}
    for number, (name, draw) in enumerate(_KINDS.items()):
        for seed in range(SEEDS):
            random = np.random.default_rng(1000 * number + seed)
            pictures[f"{name}-{seed}"] = draw(random, *_SIZES[seed % len(_SIZES)])
    return pictures


def installed_pictures() -> dict[str, Picture]:
    """Pictures of installed packages and icons, by name: photos whole and in tiles. Empty if nothing is installed."""
    pictures = {}
    for path in _installed_files():
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None or image.dtype != np.uint8 or min(image.shape[:2]) < 48:
            continue
        picture = _on_grey(image)
        while max(picture.shape[:2]) >= _LONG_SIDE:
            picture = np.ascontiguousarray(picture[::2, ::2])
        pictures[str(path)] = picture
        if path.is_relative_to(_ICONS):
            continue
        side = min(picture.shape[:2]) // _TILES
        for top in range(0, picture.shape[0] - side + 1, side):
            for left in range(0, picture.shape[1] - side + 1, side):
                tile = picture[top : top + side, left : left + side]
                pictures[f"{path} at {left}, {top}"] = np.ascontiguousarray(tile)
    return pictures


def pictures_with_rows(pictures: dict[str, Picture], detector: Engine, landmarks: Engine | None = None) -> list[str]:
    """Names of the pictures in which facemill would embed a face, with its default rules.

    Args:
        pictures: by name.
        detector: the engine of a detector.
        landmarks: the engine of a landmark network, for a second look.
    """
    spec, limits = load_spec("random-128"), Limits()
    with ExitStack() as stack:
        runners = [stack.enter_context(open_runner(engine, threads=1)) for engine in (detector, landmarks) if engine]
        find = find_faces_with(runners[0], FaceRules(), spec, limits, *runners[1:])
        rows: list[int] = []
        photos = [Photo(picture, 1, *picture.shape[:2]) for picture in pictures.values()]
        for start in range(0, len(photos), _BATCH):
            part = photos[start : start + _BATCH]
            numbers = np.arange(start, start + len(part))
            batch = Photos(numbers, photos=tuple(part), files=(b"",) * len(part), names=[b"picture"] * len(photos))
            rows += find(batch).rows.tolist()
    names = list(pictures)
    return [names[row] for row in rows]


def _installed_files() -> Iterator[Path]:
    folders: list[Path] = [_ICONS]
    for package, folder in _PACKAGES.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            folders.append(Path(spec.origin).parent / folder)
    for place in folders:
        for path in sorted(place.rglob("*")):
            if path.suffix in (".png", ".jpg", ".tif") and not any(word in path.name for word in _LEFT_OUT):
                yield path


def _on_grey(image: NDArray[np.uint8]) -> Picture:
    """(H, W, 3) RGB of a grey, coloured or partly transparent image, on grey."""
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)  # type: ignore[return-value]
    if image.shape[2] == 3:
        return np.ascontiguousarray(image[..., ::-1])
    alpha = image[..., 3:].astype(np.float32) / 255
    return np.ascontiguousarray((image[..., 2::-1] * alpha + 190 * (1 - alpha)).astype(np.uint8))


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = random.integers(0, 256, 3).tolist()
    return red, green, blue


def _plain(random: np.random.Generator, height: int, width: int) -> Picture:
    return np.full((height, width, 3), _colour(random), np.uint8)


def _noise(random: np.random.Generator, height: int, width: int) -> Picture:
    return random.integers(0, 256, (height, width, 3), np.uint8)


def _clouds(random: np.random.Generator, height: int, width: int) -> Picture:
    """Noise of several sizes, in colours from dark to light skin and others."""
    sky = np.zeros((height, width), np.float32)
    for octave in range(1, 7):
        coarse = random.random((2**octave, 2**octave), np.float32)
        sky += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    share = np.clip((sky - sky.min()) / np.ptp(sky), 0, 1)[..., None]
    return (share * np.array(_colour(random)) + (1 - share) * np.array(_colour(random))).astype(np.uint8)


def _gradient(random: np.random.Generator, height: int, width: int) -> Picture:
    y, x = np.mgrid[:height, :width] / max(height, width)
    angle = random.uniform(0, 2 * np.pi)
    share = ((x * np.cos(angle) + y * np.sin(angle) + 1) / 2)[..., None] % 1
    return (share * np.array(_colour(random)) + (1 - share) * np.array(_colour(random))).astype(np.uint8)


def _stripes(random: np.random.Generator, height: int, width: int) -> Picture:
    y, x = np.mgrid[:height, :width]
    wave = np.sin(x * random.uniform(0.02, 0.5) + y * random.uniform(0.02, 0.5)) > 0
    return np.where(wave[..., None], _colour(random), _colour(random)).astype(np.uint8)


def _checks(random: np.random.Generator, height: int, width: int) -> Picture:
    side = int(random.integers(6, 60))
    y, x = np.mgrid[:height, :width] // side
    return np.where(((x + y) % 2 == 0)[..., None], _colour(random), _colour(random)).astype(np.uint8)


def _discs(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = _clouds(random, height, width)
    for _ in range(int(random.integers(3, 40))):
        middle = int(random.integers(width)), int(random.integers(height))
        cv2.circle(picture, middle, int(random.integers(4, 60)), _colour(random), -1, cv2.LINE_AA)
    return picture


def _polygons(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = _gradient(random, height, width)
    for _ in range(int(random.integers(3, 30))):
        corners = random.integers(0, (width, height), (int(random.integers(3, 7)), 2)).astype(np.int32)
        cv2.fillPoly(picture, [corners], _colour(random), cv2.LINE_AA)
    return picture


def _text(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = np.full((height, width, 3), int(random.integers(200, 256)), np.uint8)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz    ABCDEFGH0123456789.,"))
    scale = random.uniform(0.3, 1.2)
    for y in range(20, height, round(34 * scale) + 4):
        line = "".join(random.choice(letters, 60))
        cv2.putText(picture, line, (10, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 40), 1, cv2.LINE_AA)
    return picture


def _landscape(random: np.random.Generator, height: int, width: int) -> Picture:
    y = np.linspace(0, 1, height)[:, None, None]
    picture = np.broadcast_to((1 - y) * (90, 140, 210) + y * (230, 225, 215), (height, width, 3)).astype(np.uint8)
    picture = np.ascontiguousarray(picture)
    cv2.circle(picture, (int(random.integers(width)), height // 5), height // 14, (250, 240, 180), -1, cv2.LINE_AA)
    x = np.arange(width)
    for depth in range(4):
        ridge = height * (0.4 + 0.14 * depth) + height * 0.08 * np.sin(x * random.uniform(0.005, 0.04) + depth)
        ridge += np.cumsum(random.normal(0, 1, width))
        outline = np.stack([x, ridge], axis=1).astype(np.int32)
        ground = np.concatenate([outline, [[width, height], [0, height]]]).astype(np.int32)
        cv2.fillPoly(picture, [ground], (60 + 20 * depth, 110 - 10 * depth, 70 - 8 * depth), cv2.LINE_AA)
    return _grained(random, picture)


def _animal(random: np.random.Generator, height: int, width: int) -> Picture:
    """A body on four legs with a tail, and a head from the side, without eyes."""
    picture, fur = _landscape(random, height, width), _colour(random)
    unit = min(height, width) // 10
    x, y = int(random.integers(3 * unit, width - 3 * unit)), int(random.integers(4 * unit, height - 3 * unit))
    for leg in (-2, -1, 1, 2):
        cv2.line(picture, (x + leg * unit * 2 // 3, y), (x + leg * unit * 2 // 3, y + 2 * unit), fur, unit // 3)
    cv2.ellipse(picture, (x, y), (2 * unit, unit), 0, 0, 360, fur, -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x - 2 * unit, y - unit), (unit, unit * 2 // 3), 30, 0, 360, fur, -1, cv2.LINE_AA)
    cv2.line(picture, (x + 2 * unit, y), (x + 3 * unit, y - unit), fur, unit // 4, cv2.LINE_AA)
    return _grained(random, picture)


def _houses(random: np.random.Generator, height: int, width: int) -> Picture:
    """Walls with windows and doors: dark rectangles side by side over another one."""
    picture, left = _landscape(random, height, width), 0
    while left < width:
        wide, tall = int(random.integers(50, 150)), int(random.integers(height // 3, height - 20))
        wall, top = _colour(random), height - tall
        cv2.rectangle(picture, (left, top), (left + wide, height), wall, -1)
        step = int(random.integers(20, 50))
        for y in range(top + 10, height - step, step):
            for x in range(left + 6, left + wide - step // 2, step):
                cv2.rectangle(picture, (x, y), (x + step // 2, y + step * 2 // 3), (40, 50, 70), -1)
        left += wide + int(random.integers(0, 20))
    return _grained(random, picture)


def _flowers(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = _grass(random, height, width)
    for _ in range(int(random.integers(1, 12))):
        x, y, size = int(random.integers(width)), int(random.integers(height)), int(random.integers(8, 70))
        petal, count = _colour(random), int(random.integers(4, 9))
        for turn in range(count):
            angle = 2 * np.pi * turn / count
            tip = round(x + size * np.cos(angle)), round(y + size * np.sin(angle))
            cv2.ellipse(picture, tip, (size * 2 // 3, size // 3), float(np.degrees(angle)), 0, 360, petal, -1, 16)
        cv2.circle(picture, (x, y), size // 3 + 1, _colour(random), -1, cv2.LINE_AA)
    return _grained(random, picture)


def _grass(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = np.full((height, width, 3), (70, 100, 50), np.uint8)
    for _ in range(600):
        x, y = int(random.integers(width)), int(random.integers(height))
        green = (int(random.integers(30, 140)), int(random.integers(80, 190)), int(random.integers(20, 90)))
        cv2.line(picture, (x, y), (x + int(random.integers(-15, 15)), y - int(random.integers(10, 50))), green, 2, 16)
    return picture


def _bricks(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = np.full((height, width, 3), 170, np.uint8)
    tall = int(random.integers(12, 40))
    for row, y in enumerate(range(0, height, tall)):
        for x in range(-tall * 2 * (row % 2), width, 4 * tall):
            red = (int(random.integers(130, 200)), int(random.integers(50, 100)), int(random.integers(40, 80)))
            cv2.rectangle(picture, (x + 2, y + 2), (x + 4 * tall - 2, y + tall - 2), red, -1)
    return _grained(random, picture)


def _chart(random: np.random.Generator, height: int, width: int) -> Picture:
    picture = np.full((height, width, 3), 255, np.uint8)
    for x in range(20, width - 30, 40):
        cv2.rectangle(picture, (x, int(random.integers(20, height - 20))), (x + 28, height - 10), _colour(random), -1)
    for _ in range(3):
        points = np.stack([np.arange(0, width, 10), random.integers(0, height, len(range(0, width, 10)))], axis=1)
        cv2.polylines(picture, [points.astype(np.int32)], False, _colour(random), 2, cv2.LINE_AA)
    return picture


def _body(random: np.random.Generator, height: int, width: int) -> Picture:
    """A blurred trunk with a neck and no head, in front of clouds: what a portrait shows below the face."""
    picture, skin = _clouds(random, height, width), (int(random.integers(120, 230)), 150, 120)
    x, cloth = int(width * random.uniform(0.4, 0.6)), _colour(random)
    cv2.rectangle(picture, (x - width // 12, 0), (x + width // 12, height // 3), skin, -1)
    cv2.ellipse(picture, (x, height), (width // 3, height * 3 // 4), 0, 180, 360, cloth, -1, cv2.LINE_AA)
    for y in range(height // 2, height, 40):
        cv2.circle(picture, (x, y), 5, _colour(random), -1, cv2.LINE_AA)
    return _grained(random, cv2.GaussianBlur(picture, (0, 0), 2).astype(np.uint8))


def _grained(random: np.random.Generator, picture: Picture) -> Picture:
    noisy = picture + random.normal(0, 8, picture.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


_KINDS: dict[str, Callable[[np.random.Generator, int, int], Picture]] = {
    "plain": _plain,
    "noise": _noise,
    "clouds": _clouds,
    "gradient": _gradient,
    "stripes": _stripes,
    "checks": _checks,
    "discs": _discs,
    "polygons": _polygons,
    "text": _text,
    "landscape": _landscape,
    "animal": _animal,
    "houses": _houses,
    "flowers": _flowers,
    "grass": _grass,
    "bricks": _bricks,
    "chart": _chart,
    "body": _body,
}
