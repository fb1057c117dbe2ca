"""Write synthetic portraits by person, with the names that the examples of the library and docs use."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from runtime.demo.portraits import write_portraits


def write_people_photos(folder: Path, people: int, shots: int) -> None:
    """Write `photos/person0/0.jpg` and so on, and `somebody.jpg`, a copy of the first photo."""
    for path in write_portraits(folder / "drawn", people, shots):
        person, shot = int(path.parent.name.split("-")[1]), int(path.stem.split("-")[1])
        person_folder = folder / "photos" / f"person{person}"
        person_folder.mkdir(parents=True, exist_ok=True)
        path.rename(person_folder / f"{shot}.jpg")
    shutil.copy(folder / "photos" / "person0" / "0.jpg", folder / "somebody.jpg")


def join_photos(path: Path, *photos: Path) -> Path:
    """Write one photo with several photos side by side, without loss."""
    import cv2

    pictures: list[Any] = [cv2.imread(str(photo)) for photo in photos]
    height = min(picture.shape[0] for picture in pictures)
    cv2.imwrite(str(path), cv2.hconcat([picture[:height] for picture in pictures]))
    return path
