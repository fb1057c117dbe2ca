"""What a command that writes starts from, and what must hold after a fault and after the same command again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import h5py

from tests.support.embedding_files import differences
from tests.support.facemill_command import facemill
from tests.support.model_files import build_tiny_engine
from tests.support.people_files import make_people

if TYPE_CHECKING:
    from tests.support.qdrant_stand_in import QdrantStandIn

PEOPLE, PHOTOS_EACH = 6, 3
PERSON = "P02"
SMALL_SEGMENTS = ("--segment-rows", "7")  # several segments in a run of 18 photos
TEST_OPTIONS = ("--align", "none", "--decoder", "opencv", "--batch-size", "4", "--workers", "2")


def run(*arguments: object) -> None:
    """Run a command in this process; it must succeed."""
    result = facemill(*arguments)
    assert result.returncode == 0, result.stderr


class Templates:
    """The files from which the commands start, and those that they end with.

    Attributes:
        photos: a folder for each person.
        model: the file of a small model.
        engine: its engine.
        qdrant: a server for the export; None without qdrant-client.
        full, half, rest: embedding files of all people, and of the first and second half.
    """

    def __init__(self, folder: Path, model: Path, qdrant: QdrantStandIn | None = None) -> None:
        self.folder, self.model, self.qdrant, self.photos = folder, model, qdrant, folder / "photos"
        self.engine = build_tiny_engine(model, folder)
        make_people(self.photos, range(PEOPLE), PHOTOS_EACH)
        halves = [range(0, PEOPLE // 2), range(PEOPLE // 2, PEOPLE)]
        for name, people in zip(("half", "rest"), halves, strict=True):
            lines = [f"photos/P{i:02d}/{j}.jpg" for i in people for j in range(PHOTOS_EACH)]
            (folder / f"{name}.txt").write_text("".join(line + "\n" for line in lines))
        self.full = self._embed("full", self.photos)
        self.half = self._embed("half", f"@{folder / 'half.txt'}")
        self.rest = self._embed("rest", f"@{folder / 'rest.txt'}")

    def process(self, photos: object, output: Path, *options: object) -> list[str]:
        """The arguments that embed photos."""
        return [
            *map(str, ("process", photos, "-o", output, "--engine", self.engine)),
            *TEST_OPTIONS, *SMALL_SEGMENTS, *map(str, options),
        ]  # fmt: skip

    def _embed(self, name: str, photos: object) -> Path:
        output = self.folder / f"{name}.h5"
        run(*self.process(photos, output))
        return output

    def made(self, name: str, make: Callable[[Path], None]) -> Path:
        """A file that is made once."""
        path = self.folder / name
        if not path.exists():
            make(path)
        return path


@dataclass(frozen=True, slots=True)
class Case:
    """One command, in a folder of its own.

    Attributes:
        name: its name in reports.
        prepare: fills the folder before the command.
        arguments: of the command.
        ends: what is wrong with the folder after the command has succeeded; empty if nothing is.
        between: what is wrong after a fault: files that are neither as before nor as after.
        leftovers: names that may be in the folder at the end.
    """

    name: str
    prepare: Callable[[Path], None]
    arguments: Callable[[Path], list[str]]
    ends: Callable[[Path], str]
    between: Callable[[Path], str] = field(default=lambda folder: "")
    leftovers: frozenset[str] = frozenset({"o.h5"})

    def wrong_at_end(self, folder: Path) -> str:
        extra = sorted(set(os.listdir(folder)) - self.leftovers)
        return self.ends(folder) or (f"left behind: {extra}" if extra else "")


def copy_to(source: Path) -> Callable[[Path], None]:
    """A preparation: a copy of a file, under the name that the commands use."""

    def prepare(folder: Path) -> None:
        shutil.copy(source, folder / "o.h5")

    return prepare


def same_file(path: Path, expected: Path, *, besides: str = "") -> str:
    if not path.exists():
        return f"{path.name} is missing"
    try:
        names = [name for name in differences(path, expected) if name != besides]
    except Exception as err:
        return f"{path.name} cannot be read: {err!r}"
    return f"{path.name} differs in {names}" if names else ""


def one_of(path: Path, *expected: Path) -> str:
    """Whether a file is as before or as after, whole."""
    reasons = [same_file(path, file) for file in expected]
    return "" if "" in reasons else f"neither as before nor as after: {reasons}"


def needles(file: Path, person: str) -> list[bytes]:
    """Bytes that name a person or are part of the person's embeddings."""
    with h5py.File(file) as opened:
        names, rows = opened["image_paths"][:], opened["embeddings"][:]
    vectors = [row.tobytes() for name, row in zip(names, rows, strict=True) if name.startswith(person.encode())]
    assert len(vectors) == PHOTOS_EACH
    return [person.encode(), *vectors]


def traces(folder: Path, bytes_of_person: list[bytes]) -> list[str]:
    """Files, names and links below a folder that still hold something of a person."""
    places = []
    for path in sorted(folder.rglob("*")):
        texts = [os.fsencode(path.relative_to(folder))]
        if path.is_symlink():
            texts.append(os.fsencode(os.readlink(path)))
        elif path.is_file():
            texts.append(path.read_bytes())
        if any(needle in text for needle in bytes_of_person for text in texts):
            places.append(str(path.relative_to(folder)))
    return places


def page_is_whole(path: Path) -> str:
    if not path.exists():
        return f"{path.name} is missing"
    return "" if path.read_text(encoding="utf-8").rstrip().endswith("</html>") else f"{path.name} is half a page"
