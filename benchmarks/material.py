"""What every benchmark runs on: photographs, an engine, and the checkout on the import path."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def photographs(folder: Path, count: int, size: tuple[int, int], seed: int = 0) -> Path:
    """A folder of `count` synthetic portraits, five shots a person; made once, then found again.

    Args:
        folder: where the sets are kept.
        count: a multiple of five.
        size: width and height, pixels.
        seed: of the generator.
    """
    from portraits import write_portraits

    place = folder / f"portraits-{size[0]}x{size[1]}-{count}-{seed}"
    complete = place / ".complete"
    if not complete.exists():
        print(f"drawing {count:,} portraits into {place}", file=sys.stderr)
        write_portraits(place, people=count // 5, shots=5, size=size, seed=seed)
        complete.touch()
    return place


def cpu_engine(model: str, folder: Path) -> Path:
    """The FP32 CPU engine of a model, built by the product."""
    from runtime.engines.build import build_engine
    from runtime.engines.weights import weights_for
    from runtime.modelspec import load_spec

    spec = load_spec(model)
    return build_engine(spec, weights_for(spec), backend="cpu", precision="fp32", output=folder).path
