"""What every benchmark runs on: photographs, an engine, and the checkout on the import path."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def photographs(folder: Path, count: int, size: tuple[int, int], seed: int = 0, corrupt: float = 0.0) -> Path:
    """A folder of `count` synthetic portraits, five shots a person; made once, then found again.

    Args:
        folder: where the sets are kept.
        count: a multiple of five.
        size: width and height, pixels.
        seed: of the generator.
        corrupt: this part of them is damaged: cut short, emptied or overwritten with text, in turns.
    """
    from runtime.demo.portraits import write_portraits

    place = folder / f"portraits-{size[0]}x{size[1]}-{count}-{seed}{f'-{corrupt}' if corrupt else ''}"
    complete = place / ".complete"
    if not complete.exists():
        print(f"drawing {count:,} portraits into {place}", file=sys.stderr)
        write_portraits(place, people=count // 5, shots=5, size=size, seed=seed)
        if corrupt:
            damage(place, corrupt)
        complete.touch()
    return place


def damage(folder: Path, part: float) -> None:
    """Spoil every n-th JPEG below a folder, for good."""
    paths = sorted(folder.rglob("*.jpg"))
    for turn, path in enumerate(paths[:: round(1 / part)]):
        data = path.read_bytes()
        path.write_bytes((data[: len(data) // 2], b"", b"no photograph")[turn % 3])


def build(
    model: str, folder: Path, backend: str = "cpu", precision: str = "auto", calibration: Path | None = None
) -> Engine:
    """An engine of a model, built by the product.

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
