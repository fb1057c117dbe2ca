"""The commands that write: what they start from, and what must hold after a fault and after the same command again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from runtime.storage.file import EmbeddingFile
from tests.support.embedding_files import differences
from tests.support.facemill_command import facemill
from tests.support.people_files import make_people

PEOPLE, PHOTOS_EACH = 6, 3
PERSON = "P02"
SMALL_SEGMENTS = ("--segment-rows", "7")  # several segments in a run of 18 photos
TEST_OPTIONS = ("--align", "none", "--decoder", "opencv", "--batch-size", "4", "--workers", "2")
_TRAINING_ROWS = 260  # an approximate index is trained on so many
_INDEX = {"o.h5.faiss", "o.h5.faiss.json"}


def run(*arguments: object) -> None:
    """Run a command in this process; it must succeed."""
    result = facemill(*arguments)
    assert result.returncode == 0, result.stderr


class Templates:
    """The files from which the commands start, and those that they end with.

    Attributes:
        photos: a folder for each person.
        engine: a small engine.
        full, half, rest: embedding files of all people, and of the first and second half.
    """

    def __init__(self, folder: Path, engine: Path) -> None:
        self.folder, self.engine, self.photos = folder, engine, folder / "photos"
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


def same_file(path: Path, expected: Path) -> str:
    if not path.exists():
        return f"{path.name} is missing"
    try:
        names = differences(path, expected)
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


def writing_commands(templates: Templates) -> dict[str, Case]:
    """All commands that write, by name."""
    t = templates

    def copy_of(source: Path) -> Callable[[Path], None]:
        return lambda folder: shutil.copy(source, folder / "o.h5") and None

    def whole_or_missing(expected: Path) -> Callable[[Path], str]:
        return lambda folder: same_file(folder / "o.h5", expected) if (folder / "o.h5").exists() else ""

    def same(expected: Path) -> Callable[[Path], str]:
        return lambda folder: same_file(folder / "o.h5", expected)

    def before_or_after(*files: Path) -> Callable[[Path], str]:
        return lambda folder: one_of(folder / "o.h5", *files)

    cases = [
        Case(
            "process",
            lambda folder: None,
            lambda folder: t.process(t.photos, folder / "o.h5"),
            same(t.full),
            whole_or_missing(t.full),
        ),
        _retry(t),
        _add(t, copy_of(t.half), before_or_after),
        _remove(t, before_or_after),
        _merge(t),
        _repair(t),
        _cluster(t),
        _pairs(t),
        _numpy(t),
        _parquet(t),
        *(_index(t, kind) for kind in ("flat", "ivf", "sq8")),
        _map(t),
    ]
    return {case.name: case for case in cases}


def _retry(t: Templates) -> Case:
    def embed_with_a_missing_photo(path: Path) -> None:
        photo, hidden = t.photos / "P01" / "1.jpg", t.folder / "hidden.jpg"
        photo.rename(hidden)
        try:
            run(*t.process(f"@{t.folder / 'half.txt'}", path))
        finally:
            hidden.rename(photo)

    failed = t.made("failed.h5", embed_with_a_missing_photo)
    return Case(
        "retry",
        lambda folder: shutil.copy(failed, folder / "o.h5") and None,
        lambda folder: t.process(f"@{t.folder / 'half.txt'}", folder / "o.h5", "--retry"),
        lambda folder: same_file(folder / "o.h5", t.half),
        lambda folder: one_of(folder / "o.h5", failed, t.half),
    )


def _add(t: Templates, prepare: Callable[[Path], None], between: Callable[..., Callable[[Path], str]]) -> Case:
    def add(path: Path) -> None:
        shutil.copy(t.half, path)
        run("add", path, t.photos)

    added = t.made("added.h5", add)
    return Case(
        "add",
        prepare,
        lambda folder: ["add", str(folder / "o.h5"), str(t.photos)],
        lambda folder: same_file(folder / "o.h5", added),
        between(t.half, added),
    )


def _remove(t: Templates, between: Callable[..., Callable[[Path], str]]) -> Case:
    def remove(path: Path) -> None:
        shutil.copy(t.full, path)
        run("remove", path, "--path", PERSON + "/", "--yes", "--receipt", t.folder / "receipt.json")

    removed, person = t.made("removed.h5", remove), needles(t.full, PERSON)

    def prepare(folder: Path) -> None:
        file = shutil.copy(t.full, folder / "o.h5")
        query = t.photos / PERSON / "0.jpg"
        run("search", file, query, "--html", folder / "page.html", "--engine", t.engine)
        run("pairs", file, "--threshold", "0.1", "-o", folder / "pairs.csv", "--html", folder / "review.html")
        run("cluster", file, "--threshold", "0.05", "--min-photos", "1", "--no-column", "-o", folder / "list.csv",
            "--folders", folder / "folders", "--mode", "copy", "--sheets", folder / "sheets")  # fmt: skip
        run("export", file, "--npy", folder / "npy")
        run("export", file, "--parquet", folder / "o.parquet")

    def ends(folder: Path) -> str:
        places = traces(folder, person)
        return same_file(folder / "o.h5", removed) or (f"the person is still in {places}" if places else "")

    return Case(
        "remove",
        prepare,
        lambda folder: [
            *(
                "remove",
                str(folder / "o.h5"),
                "--path",
                PERSON + "/",
                "--yes",
                "--receipt",
                str(folder / "receipt.json"),
            )
        ],
        ends,
        between(t.full, removed),
        frozenset({"o.h5", "receipt.json", "receipt.json.key"}),
    )


def _merge(t: Templates) -> Case:
    def merge(path: Path) -> None:
        run("merge", t.half, t.rest, "-o", path)

    merged = t.made("merged.h5", merge)

    def prepare(folder: Path) -> None:
        shutil.copy(t.half, folder / "a.h5")
        shutil.copy(t.rest, folder / "b.h5")

    def between(folder: Path) -> str:
        output = folder / "o.h5"
        inputs = same_file(folder / "a.h5", t.half) or same_file(folder / "b.h5", t.rest)
        return inputs or (same_file(output, merged) if output.exists() else "")

    return Case(
        "merge",
        prepare,
        lambda folder: ["merge", str(folder / "a.h5"), str(folder / "b.h5"), "-o", str(folder / "o.h5")],
        lambda folder: between(folder) or same_file(folder / "o.h5", merged),
        between,
        frozenset({"a.h5", "b.h5", "o.h5", "a.h5.pages", "b.h5.pages"}),
    )


def _repair(t: Templates) -> Case:
    def damage(path: Path) -> None:
        shutil.copy(t.full, path)
        with h5py.File(path, "r+") as file:
            rows = file["embeddings"][:]
            del file["embeddings"]
            chunks = (4, rows.shape[1])
            file.create_dataset("embeddings", data=rows, maxshape=(None, rows.shape[1]), chunks=chunks, fletcher32=True)
        with h5py.File(path) as file:
            offset = file["embeddings"].id.get_chunk_info(1).byte_offset
        with path.open("r+b") as raw:
            raw.seek(offset + 8)
            raw.write(b"\x00\x01\x02\x03")

    damaged = t.made("damaged.h5", damage)

    def repair(path: Path) -> None:
        shutil.copy(damaged, path)
        run("repair", path)

    repaired = t.made("repaired.h5", repair)

    def ends(folder: Path) -> str:
        kept = folder / "o.h5.damaged-1"
        lost = "" if kept.exists() and kept.read_bytes() == damaged.read_bytes() else "the damaged file is not kept"
        return same_file(folder / "o.h5", repaired) or lost

    def between(folder: Path) -> str:
        path = folder / "o.h5"
        unchanged = path.exists() and path.read_bytes() == damaged.read_bytes()
        return "" if unchanged else same_file(path, repaired)

    return Case(
        "repair",
        lambda folder: shutil.copy(damaged, folder / "o.h5") and None,
        lambda folder: ["repair", str(folder / "o.h5")],
        ends,
        between,
        frozenset({"o.h5", "o.h5.damaged-1"}),
    )


def _cluster(t: Templates) -> Case:
    def rows(path: Path) -> tuple[bytes, bytes, bytes]:
        with h5py.File(path) as file:
            return (
                file["embeddings"][:].tobytes(),
                file["image_paths"][:].tobytes(),
                file["outcomes/status"][:].tobytes(),
            )

    def between(folder: Path) -> str:
        return "" if rows(folder / "o.h5") == rows(t.full) else "rows changed"

    def ends(folder: Path) -> str:
        with h5py.File(folder / "o.h5") as file:
            if "cluster" not in file:
                return "the file has no column"
        photos = [path for path in (folder / "folders").rglob("*.jpg") if path.stat().st_size]
        if len(photos) != PEOPLE * PHOTOS_EACH:
            return f"the folders hold {len(photos)} photos"
        table = folder / "list.csv"
        if not table.exists() or len(table.read_text().splitlines()) != 1 + PEOPLE * PHOTOS_EACH:
            return "the list is missing or not whole"
        return between(folder) or page_is_whole(folder / "sheets" / "index.html")

    return Case(
        "cluster",
        lambda folder: shutil.copy(t.full, folder / "o.h5") and None,
        lambda folder: [
            *("cluster", str(folder / "o.h5"), "--threshold", "0.05", "--min-photos", "1"),
            *("-o", str(folder / "list.csv"), "--sheets", str(folder / "sheets")),
            *("--folders", str(folder / "folders"), "--mode", "copy"),
        ],
        ends,
        between,
        frozenset({"o.h5", "list.csv", "folders", "sheets", "o.h5.pages", *_INDEX}),
    )  # fmt: skip


def _pairs(t: Templates) -> Case:
    expected = t.made("pairs.csv", lambda path: run("pairs", t.full, "--threshold", "0.1", "-o", path))

    def between(folder: Path) -> str:
        table = folder / "pairs.csv"
        if table.exists() and table.read_bytes() != expected.read_bytes():
            return "the list of pairs differs"
        return same_file(folder / "o.h5", t.full)

    def ends(folder: Path) -> str:
        missing = "" if (folder / "pairs.csv").exists() else "the list of pairs is missing"
        return between(folder) or missing or page_is_whole(folder / "review.html")

    return Case(
        "pairs",
        lambda folder: shutil.copy(t.full, folder / "o.h5") and None,
        lambda folder: [
            *("pairs", str(folder / "o.h5"), "--threshold", "0.1", "-o", str(folder / "pairs.csv")),
            *("--html", str(folder / "review.html")),
        ],
        ends,
        between,
        frozenset({"o.h5", "pairs.csv", "review.html", "o.h5.pages", *_INDEX}),
    )


def _numpy(t: Templates) -> Case:
    def between(folder: Path) -> str:
        if not (folder / "npy").exists():
            return ""
        with EmbeddingFile(t.full) as embeddings, h5py.File(embeddings.path) as file:
            same = np.array_equal(np.load(folder / "npy" / "embeddings.npy"), file["embeddings"][:])
        return "" if same else "the arrays differ"

    return Case(
        "export-npy",
        lambda folder: shutil.copy(t.full, folder / "o.h5") and None,
        lambda folder: ["export", str(folder / "o.h5"), "--npy", str(folder / "npy")],
        lambda folder: between(folder) or ("" if (folder / "npy").exists() else "the arrays are missing"),
        between,
        frozenset({"o.h5", "npy", "o.h5.pages"}),
    )


def _parquet(t: Templates) -> Case:
    def between(folder: Path) -> str:
        import pyarrow.parquet as pq

        path = folder / "o.parquet"
        return "" if not path.exists() or pq.read_table(path).num_rows == PEOPLE * PHOTOS_EACH else "rows are missing"

    return Case(
        "export-parquet",
        lambda folder: shutil.copy(t.full, folder / "o.h5") and None,
        lambda folder: ["export", str(folder / "o.h5"), "--parquet", str(folder / "o.parquet")],
        lambda folder: between(folder) or ("" if (folder / "o.parquet").exists() else "the table is missing"),
        between,
        frozenset({"o.h5", "o.parquet", "o.h5.pages"}),
    )


def _index(t: Templates, kind: str) -> Case:
    def embed_many(path: Path) -> None:
        folder = t.folder / "many"
        make_people(folder, range(100, 100 + _TRAINING_ROWS // 2), 2)
        run(*t.process(folder, path, "--segment-rows", "1000"))

    source = t.full if kind == "flat" else t.made("many.h5", embed_many)
    index = "o.h5.faiss" if kind == "flat" else f"o.h5.faiss-{kind}"

    def arguments(file: Path) -> list[str]:
        query = str(t.photos / "P00" / "1.jpg")
        return ["search", str(file), query, "-k", "5", "--index", kind, "--csv", "--engine", str(t.engine)]

    def answer(file: Path) -> list[list[str]]:
        result = facemill(*arguments(file))
        assert result.returncode == 0, result.stderr
        return [line.split(",")[:5] for line in result.stdout.splitlines()]

    plain = t.made(f"{kind}.h5", lambda path: shutil.copy(source, path) and None)
    expected = answer(plain)
    return Case(
        f"index-{kind}",
        lambda folder: shutil.copy(source, folder / "o.h5") and None,
        lambda folder: arguments(folder / "o.h5"),
        lambda folder: "" if answer(folder / "o.h5") == expected else "the answer differs",
        lambda folder: same_file(folder / "o.h5", source),
        frozenset({"o.h5", *_INDEX, index, f"{index}.json"}),
    )


def _map(t: Templates) -> Case:
    def between(folder: Path) -> str:
        return page_is_whole(folder / "map.html") if (folder / "map.html").exists() else ""

    return Case(
        "map",
        lambda folder: shutil.copy(t.full, folder / "o.h5") and None,
        lambda folder: ["map", str(folder / "o.h5"), "-o", str(folder / "map.html")],
        lambda folder: page_is_whole(folder / "map.html"),
        between,
        frozenset({"o.h5", "map.html", "o.h5.pages"}),
    )
