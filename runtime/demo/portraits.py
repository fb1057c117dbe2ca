"""Synthetic ID portraits: stylised people, several shots of each, the same bytes for the same seed.

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
    canvas = Canvas(*size, how, who.backdrop)
    draw_behind(canvas, who)
    draw_body(canvas, who)
    draw_head(canvas, who)
    for side in (-1, 1):
        draw_eye(canvas, who, side)
    draw_nose(canvas, who)
    draw_mouth(canvas, who)
    draw_hair(canvas, who)
    draw_glasses(canvas, who)
    return _expose(canvas, how, size, np.random.default_rng((seed, person, shot + 1, 1)))


def encode(seed: int, person: int, shot: int, size: tuple[int, int] = (300, 400)) -> bytes:
    """One photograph as a JPEG file."""
    import cv2

    quality = shot_of(seed, person, shot).quality
    done, data = cv2.imencode(".jpg", portrait(seed, person, shot, size), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def _expose(canvas: Canvas, how: Shot, size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The drawing as the camera sees it: soft shadows, light, colour cast, blur and noise."""
    import cv2

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
