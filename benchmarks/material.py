"""Prepare what every benchmark needs: synthetic photos, engines, and the checkout on the import path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def draw_portraits(folder: Path, count: int, size: tuple[int, int], seed: int = 0, corrupt: float = 0.0) -> Path:
    """Return a folder of `count` synthetic portraits, five per person. It is drawn once and then reused.

    Args:
        folder: keeps the sets of portraits.
        count: number of portraits, a multiple of five.
        size: width and height, pixels.
        seed: random seed.
        corrupt: share of the files to damage, 0 to 1: truncated, emptied or overwritten with text, in turn.
    """
    from runtime.demo.portraits import write_portraits

    target = folder / f"portraits-{size[0]}x{size[1]}-{count}-{seed}{f'-{corrupt}' if corrupt else ''}"
    complete = target / ".complete"
    if not complete.exists():
        print(f"drawing {count:,} portraits into {target}", file=sys.stderr)
        write_portraits(target, people=count // 5, shots=5, size=size, seed=seed)
        if corrupt:
            damage_files(target, corrupt)
        complete.touch()
    return target


def damage_files(folder: Path, share: float) -> None:
    """Damage every n-th JPEG below a folder in place."""
    paths = sorted(folder.rglob("*.jpg"))
    for turn, path in enumerate(paths[:: round(1 / share)]):
        data = path.read_bytes()
        path.write_bytes((data[: len(data) // 2], b"", b"no photograph")[turn % 3])


def build(
    model: str, folder: Path, backend: str = "cpu", precision: str = "auto", calibration: Path | None = None
) -> Engine:
    """Build an engine of a model as `facemill build` does.

    Args:
        calibration: aligned crops, for the precision "int8".
    """
    from runtime.api.calibration import gather_calibration
    from runtime.engines.build import build_engine
    from runtime.engines.weights import weights_for
    from runtime.modelspec import load_spec

    spec = load_spec(model)
    crops = gather_calibration([str(calibration)], spec) if calibration else None
    return build_engine(
        spec, weights_for(spec), backend=backend, precision=precision, output=folder, calibration=crops
    ).engine
