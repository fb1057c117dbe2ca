"""Write synthetic ID portraits: stylised people, several shots of each, the same bytes for the same seed.

python -m facemill.demo.portraits photos/ --people 100 --shots 3
python -m facemill.demo.portraits crops/ --people 20000 --shots 5 --size 112x112
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .canvas import Canvas
from .drawing import draw_behind, draw_body, draw_eye, draw_glasses, draw_hair, draw_head, draw_mouth, draw_nose
from .people import Shot, person_of, shot_of


def portrait(seed: int, person: int, shot: int, size: tuple[int, int] = (300, 400)) -> NDArray[np.uint8]:
    """Draw one photo.

    Args:
        seed: random seed of the whole set.
        person: number of the person, from 0.
        shot: number of the photo of that person, from 0.
        size: width and height, pixels.
    Returns:
        (H, W, 3) uint8, BGR.
    """
    features, conditions = person_of(seed, person), shot_of(seed, person, shot)
    canvas = Canvas(*size, conditions, features.backdrop)
    draw_behind(canvas, features)
    draw_body(canvas, features)
    draw_head(canvas, features)
    for side in (-1, 1):
        draw_eye(canvas, features, side)
    draw_nose(canvas, features)
    draw_mouth(canvas, features)
    draw_hair(canvas, features)
    draw_glasses(canvas, features)
    return _expose(canvas, conditions, size, np.random.default_rng((seed, person, shot + 1, 1)))


def encode(seed: int, person: int, shot: int, size: tuple[int, int] = (300, 400)) -> bytes:
    """Draw one photo as a JPEG file."""
    import cv2

    quality = shot_of(seed, person, shot).quality
    encoded, data = cv2.imencode(".jpg", portrait(seed, person, shot, size), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert encoded
    return data.tobytes()


def _expose(canvas: Canvas, conditions: Shot, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn the drawing into a photo: add soft shadows, light, colour cast, blur and noise."""
    import cv2

    width, height = size
    drawn = cv2.resize(canvas.pixels, size, interpolation=cv2.INTER_AREA)
    image: NDArray[np.float32] = drawn.astype(np.float32)  # (H, W, 3)
    soft = cv2.GaussianBlur(canvas.soft, (0, 0), 0.024 * width)
    light: NDArray[np.float32] = cv2.resize(soft, size, interpolation=cv2.INTER_LINEAR).astype(np.float32)  # shares
    across = np.linspace(-conditions.light[0], conditions.light[0], width, dtype=np.float32)
    down = np.linspace(-conditions.light[1], conditions.light[1], height, dtype=np.float32)
    light += (across[None, :] + down[:, None] + 1)[..., None]
    light *= np.array([1 - conditions.warmth, 1.0, 1 + conditions.warmth], np.float32) * np.float32(
        conditions.gain * conditions.contrast
    )
    image *= light
    image += np.float32(118 * (1 - conditions.contrast))
    if conditions.blur > 0.1:
        image = cv2.GaussianBlur(image, (0, 0), conditions.blur * width / 112).astype(np.float32)
    image += rng.standard_normal(image.shape[:2], np.float32)[..., None] * np.float32(conditions.noise)
    return np.clip(image, 0, 255).astype(np.uint8)


def write_portraits(
    folder: Path | str,
    people: int,
    shots: int,
    size: tuple[int, int] = (300, 400),
    seed: int = 0,
    workers: int | None = None,
) -> list[Path]:
    """Write people x shots JPEG files, named `person-00012/shot-3.jpg` and so on.

    Args:
        folder: created if it does not exist; files of the same names are replaced.
        people: number of people.
        shots: number of photos of each.
        size: width and height, pixels.
        seed: the same seed gives the same bytes.
        workers: number of processes; None for one per core. This process alone writes a small set.
    Returns:
        Paths, by person and shot.
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
    person_folder = folder / f"person-{person:05d}"
    person_folder.mkdir(parents=True, exist_ok=True)
    paths = [person_folder / f"shot-{shot}.jpg" for shot in range(shots)]
    for shot, path in enumerate(paths):
        path.write_bytes(encode(seed, person, shot, size))
    return paths


def _size(text: str) -> tuple[int, int]:
    """Convert `112x112` to (112, 112)."""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and min(int(width), int(height)) >= 16):
        raise argparse.ArgumentTypeError(f"{text!r} is not WIDTHxHEIGHT; expected: at least 16x16, for example 112x112")
    return int(width), int(height)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Write synthetic ID portraits.")
    parser.add_argument("folder", type=Path, metavar="OUT")
    parser.add_argument("--people", type=int, default=40)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--size", type=_size, default=(300, 400), metavar="WxH")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int)
    args = parser.parse_args()
    paths = write_portraits(args.folder, args.people, args.shots, args.size, args.seed, args.workers)
    print(f"{len(paths):,} portraits in {args.folder}")


if __name__ == "__main__":
    main()
