"""Write a folder of synthetic people in LFW's layout, with damaged and missing photos, and pairs to verify."""

from __future__ import annotations

from pathlib import Path

from runtime.demo import portraits

PEOPLE, SHOTS = 12, 3
SIZE = (112, 112)
LOST = "P03/P03_0002"  # truncated
PAIRS = (
    "2\t4\n"
    + "P00\t1\t2\nP01\t1\t3\nP02\t2\t3\nP03\t1\t2\n"  # the last pair has the truncated photo
    + "P00\t1\tP01\t1\nP02\t1\tP03\t1\nP04\t1\tP05\t1\nP06\t1\tP99\t1\n"  # there is no photo of P99
    + "P04\t1\t2\nP05\t1\t2\nP06\t1\t3\nP07\t1\t2\n"
    + "P07\t1\tP08\t1\nP09\t1\tP10\t2\nP08\t3\tP11\t3\nP00\t3\tP11\t2\n"
)


def write_people(folder: Path) -> Path:
    """Write 12 people with 3 photos each, one truncated; a person with one photo; and a photo without a person."""
    for person in range(PEOPLE):
        for shot in range(SHOTS):
            write_portrait(folder, person, shot)
    write_portrait(folder, PEOPLE, 0)
    (folder / "stray.jpg").write_bytes(portraits.encode(1, 50, 0, SIZE))
    truncated = folder / f"{LOST}.jpg"
    truncated.write_bytes(truncated.read_bytes()[:900])
    return folder


def write_portrait(folder: Path, person: int, shot: int) -> None:
    """Write a portrait, such as `P05/P05_0002.jpg` for person 5, shot 1."""
    path = folder / f"P{person:02d}" / f"P{person:02d}_{shot + 1:04d}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(portraits.encode(1, person, shot, SIZE))


def write_pairs(path: Path) -> Path:
    """Write two folds, each with four pairs of one person and four of two people."""
    path.write_text(PAIRS)
    return path
