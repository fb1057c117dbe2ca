"""Encode difficult image files with Pillow, which shares no code with the decoder under test."""

from __future__ import annotations

import io
import struct

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# What a file of each EXIF orientation stores, given the upright image.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: a.transpose(1, 0, 2)[::-1],
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],
}


def scene(height: int = 160, width: int = 120, seed: int = 0) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: smooth and without symmetry, so that every rotation and channel swap shows."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([255 * x / width, 255 * y / height, 128 + 0 * x], axis=-1)
    for _ in range(6):
        cy, cx, r = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(10, 50)
        blob = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))[..., None]
        base = base * (1 - blob) + blob * rng.uniform(0, 255, 3)
    return base.astype(np.uint8)


def encode(pixels: NDArray[np.uint8], kind: str = "JPEG", orientation: int = 1, **options: object) -> bytes:
    """Encode an RGB, RGBA, L or LA array as a file."""
    out = io.BytesIO()
    if orientation != 1:
        exif = Image.Exif()
        exif[0x0112] = orientation
        options["exif"] = exif
    if kind == "JPEG":
        options.setdefault("quality", 95)
        options.setdefault("subsampling", 0)
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, kind, **options)
    return out.getvalue()


def cmyk_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Encode a CMYK JPEG as Pillow does (Adobe marker, inverted)."""
    out = io.BytesIO()
    Image.fromarray(pixels).convert("CMYK").save(out, "JPEG", quality=95, subsampling=0)
    return out.getvalue()


def png16(grey: NDArray[np.uint16]) -> bytes:
    """Encode a 16-bit grey PNG."""
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    return out.getvalue()


def png_bomb(width: int, height: int) -> bytes:
    """Make a small PNG whose header states a huge size."""
    small = encode(np.zeros((8, 8, 3), np.uint8), "PNG")
    return small[:16] + struct.pack(">II", width, height) + small[24:]
