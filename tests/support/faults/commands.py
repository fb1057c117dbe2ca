"""All commands that write, each as a Case."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from runtime.engines.engine import read_engine
from runtime.maintenance.attribute_parts import AttributeParts
from runtime.records import unread_attributes
from runtime.storage.calibration import ATTRIBUTE
from runtime.storage.file import EmbeddingFile
from tests.support.facemill_command import facemill
from tests.support.people_files import make_people
from tests.support.red_square_detector import picture, save_red_squares
from tests.support.tiff_files import pages_tiff

from .case import (
    PEOPLE,
    PERSON,
    PHOTOS_EACH,
    TEST_OPTIONS,
    Case,
    Templates,
    copy_to,
    needles,
    one_of,
    page_is_whole,
    run,
    same_file,
    traces,
)

if TYPE_CHECKING:
    from tests.support.qdrant_stand_in import QdrantStandIn

_TRAINING_ROWS = 260  # an approximate index is trained on so many
_INDEX = {"o.h5.faiss", "o.h5.faiss.json"}


def writing_commands(templates: Templates) -> dict[str, Case]:
    """All commands that write, by name."""
    t = templates

    cases = [
        Case(
            "process",
            lambda folder: None,
            lambda folder: t.process(t.photos, folder / "o.h5"),
            lambda folder: same_file(folder / "o.h5", t.full),
            lambda folder: same_file(folder / "o.h5", t.full) if (folder / "o.h5").exists() else "",
        ),
        _process_pages(t),
        _retry(t),
        _add(t),
        _remove(t),
        _merge(t),
        _repair(t),
        _cluster(t),
        _cluster_again(t),
        _attributes(t),
        _attributes_of_embeddings(t),
        _filter(t),
        _pairs(t),
        _numpy(t),
        _numpy_again(t),
        _parquet(t),
        *(_index(t, kind) for kind in ("flat", "ivf", "sq8")),
        _map(t),
        _search_page(t),
        _evaluate(t),
        _build_engine(t),
        *([_qdrant(t, t.qdrant)] if t.qdrant else []),
    ]
    return {case.name: case for case in cases}


def _process_pages(t: Templates) -> Case:
    """Pages of TIFF files with a face each: a photo has several rows, which a segment must keep together."""
    paged = t.folder / "paged"
    (paged / "photos").mkdir(parents=True)
    detector = save_red_squares(paged)
    pages = [picture(400, 300, (100, 120, 90), seed=seed) for seed in range(6)]
    for number in range(9):
        faces = [pages[number % 6], picture(400, 300), pages[(number + 1) % 6]]
        (paged / "photos" / f"{number}.tif").write_bytes(pages_tiff(*faces))

    def arguments(output: Path) -> list[str]:
        words = ("process", paged / "photos", "-o", output, "--engine", t.engine, "--detector", detector)
        options = ("--align", "detect", "--pages", "all", "--decoder", "opencv", "--batch-size", 4, "--workers", 2)
        return [*map(str, (*words, *options, "--segment-rows", 4))]

    expected = t.made("paged.h5", lambda path: run(*arguments(path)))
    with h5py.File(expected) as file:
        assert file["faces/page"][:].tolist() == 9 * [1, 3]
    return Case(
        "process-pages",
        lambda folder: None,
        lambda folder: arguments(folder / "o.h5"),
        lambda folder: same_file(folder / "o.h5", expected),
        lambda folder: same_file(folder / "o.h5", expected) if (folder / "o.h5").exists() else "",
    )


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
        copy_to(failed),
        lambda folder: t.process(f"@{t.folder / 'half.txt'}", folder / "o.h5", "--retry"),
        lambda folder: same_file(folder / "o.h5", t.half),
        lambda folder: one_of(folder / "o.h5", failed, t.half),
    )


def _add(t: Templates) -> Case:
    def add(path: Path) -> None:
        shutil.copy(t.half, path)
        run("add", path, t.photos)

    added = t.made("added.h5", add)
    return Case(
        "add",
        copy_to(t.half),
        lambda folder: ["add", str(folder / "o.h5"), str(t.photos)],
        lambda folder: same_file(folder / "o.h5", added),
        lambda folder: one_of(folder / "o.h5", t.half, added),
    )


def _remove(t: Templates) -> Case:
    def remove(path: Path) -> None:
        shutil.copy(t.full, path)
        run("remove", path, "--path", PERSON + "/", "--yes", "--receipt", t.folder / "receipt.json")

    removed, person = t.made("removed.h5", remove), needles(t.full, PERSON)

    prepared: dict[Path, Path] = {}  # copies of each folder, with its times: notes hold absolute paths and times

    def prepare(folder: Path) -> None:
        if folder in prepared:
            shutil.copytree(prepared[folder], folder, symlinks=True, dirs_exist_ok=True)
            return
        file = shutil.copy(t.full, folder / "o.h5")
        query = t.photos / PERSON / "0.jpg"
        run("search", file, query, "--html", folder / "page.html", "--engine", t.engine)
        run("pairs", file, "--threshold", "0.1", "-o", folder / "pairs.csv", "--html", folder / "review.html")
        run("cluster", file, "--threshold", "0.05", "--min-photos", "1", "--no-column", "-o", folder / "list.csv",
            "--folders", folder / "folders", "--mode", "copy", "--sheets", folder / "sheets")  # fmt: skip
        run("export", file, "--npy", folder / "npy")
        run("export", file, "--parquet", folder / "o.parquet")
        prepared[folder] = t.folder / f"prepared-{len(prepared)}"
        shutil.copytree(folder, prepared[folder], symlinks=True)

    def ends(folder: Path) -> str:
        places = traces(folder, person)
        return same_file(folder / "o.h5", removed) or (f"the person is still in {places}" if places else "")

    return Case(
        "remove",
        prepare,
        lambda folder: [
            *("remove", str(folder / "o.h5"), "--path", f"{PERSON}/"),
            *("--yes", "--receipt", str(folder / "receipt.json")),
        ],
        ends,
        lambda folder: one_of(folder / "o.h5", t.full, removed),
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
        copy_to(damaged),
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
        copy_to(t.full),
        lambda folder: [
            *("cluster", str(folder / "o.h5"), "--threshold", "0.05", "--min-photos", "1"),
            *("-o", str(folder / "list.csv"), "--sheets", str(folder / "sheets")),
            *("--folders", str(folder / "folders"), "--mode", "copy"),
        ],
        ends,
        between,
        frozenset({"o.h5", "list.csv", "folders", "sheets", "o.h5.pages", *_INDEX}),
    )  # fmt: skip


def _cluster_again(t: Templates) -> Case:
    """Folders and sheets take the place of earlier ones, whose photos are removed by their receipt."""
    clusters = ("--min-photos", "1", "--no-column")

    def prepare(folder: Path) -> None:
        file = shutil.copy(t.full, folder / "o.h5")
        places = ("--folders", folder / "folders", "--mode", "copy", "--sheets", folder / "sheets")
        run("cluster", file, "--threshold", "0.99", *clusters, *places)

    def ends(folder: Path) -> str:
        lines = (folder / "folders" / "receipt.jsonl").read_text().splitlines()
        photos = {path for path in (folder / "folders").rglob("*.jpg") if path.stat().st_size}
        named = {folder / "folders" / json.loads(line)["photo"] for line in lines if '"photo"' in line}
        if photos != named or len(photos) != PEOPLE * PHOTOS_EACH:
            return f"the receipt names {len(named)} photos, and {len(photos)} are there"
        return same_file(folder / "o.h5", t.full) or page_is_whole(folder / "sheets" / "index.html")

    return Case(
        "cluster-again",
        prepare,
        lambda folder: [
            *("cluster", str(folder / "o.h5"), "--threshold", "0.05", "--force", *clusters),
            *("--folders", str(folder / "folders"), "--mode", "copy", "--sheets", str(folder / "sheets")),
        ],
        ends,
        lambda folder: same_file(folder / "o.h5", t.full),
        frozenset({"o.h5", "folders", "sheets", "o.h5.pages", *_INDEX}),
    )


def _attributed(t: Templates) -> Path:
    def add_attributes(path: Path) -> None:
        shutil.copy(t.full, path)
        run("attributes", path)

    return t.made("attributed.h5", add_attributes)


def _attributes(t: Templates) -> Case:
    """From the photos. Beside the file is an index, which stays valid: its card is replaced after the file."""
    attributed, indexed = _attributed(t), t.folder / "indexed"
    indexed.mkdir()
    copy_to(t.full)(indexed)
    run("search", indexed / "o.h5", t.photos / "P00" / "1.jpg", "--engine", t.engine)
    return Case(
        "attributes",
        lambda folder: shutil.copytree(indexed, folder, dirs_exist_ok=True) and None,
        lambda folder: ["attributes", str(folder / "o.h5")],
        lambda folder: same_file(folder / "o.h5", attributed),
        lambda folder: one_of(folder / "o.h5", t.full, attributed),
        frozenset({"o.h5", *_INDEX}),
    )


def _attributes_of_embeddings(t: Templates) -> Case:
    """From the embeddings of facemill-512, whose head ships, after an interrupted job that read the photos."""
    options = ("--model", "facemill-512", *TEST_OPTIONS)
    plain = t.made("plain-512.h5", lambda path: run("process", t.photos, "-o", path, *options))

    def attributes(path: Path) -> list[str]:
        return ["attributes", str(path), "--from", "embeddings"]

    def add_attributes(path: Path) -> None:
        shutil.copy(plain, path)
        run(*attributes(path))

    def prepare(folder: Path) -> None:
        copy_to(plain)(folder)
        with AttributeParts(folder / "o.h5") as parts:
            parts.resume({"another": "job"})
            parts.begin([])
            parts.save(unread_attributes(3))

    attributed = t.made("attributed-512.h5", add_attributes)
    return Case(
        "attributes-embeddings",
        prepare,
        lambda folder: attributes(folder / "o.h5"),
        lambda folder: same_file(folder / "o.h5", attributed),
        lambda folder: one_of(folder / "o.h5", plain, attributed),
    )


def _filter(t: Templates) -> Case:
    attributed = _attributed(t)

    def ends(folder: Path) -> str:
        photos = [path for path in (folder / "folder" / "photos").rglob("*.jpg") if path.stat().st_size]
        if len(photos) != PEOPLE * PHOTOS_EACH:
            return f"the folder holds {len(photos)} photos"
        lines = (folder / "folder" / "receipt.jsonl").read_text().splitlines()
        if len([line for line in lines if '"photo"' in line]) != len(photos):
            return "the receipt does not name all photos"
        return same_file(folder / "o.h5", attributed)

    return Case(
        "filter",
        copy_to(attributed),
        lambda folder: [
            *("filter", str(folder / "o.h5"), "--age", "0-150", "--force"),
            *("--folders", str(folder / "folder"), "--mode", "copy"),
        ],
        ends,
        lambda folder: same_file(folder / "o.h5", attributed),
        frozenset({"o.h5", "folder", "o.h5.pages"}),
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
        copy_to(t.full),
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
        copy_to(t.full),
        lambda folder: ["export", str(folder / "o.h5"), "--npy", str(folder / "npy")],
        lambda folder: between(folder) or ("" if (folder / "npy").exists() else "the arrays are missing"),
        between,
        frozenset({"o.h5", "npy", "o.h5.pages"}),
    )


def _numpy_again(t: Templates) -> Case:
    """An export that takes the place of one of another file."""

    def prepare(folder: Path) -> None:
        copy_to(t.half)(folder)
        run("export", folder / "o.h5", "--npy", folder / "npy")
        copy_to(t.full)(folder)

    def between(folder: Path) -> str:
        path = folder / "npy" / "embeddings.npy"
        rows = len(np.load(path)) if path.exists() else 0
        return "" if rows in (0, PEOPLE * PHOTOS_EACH // 2, PEOPLE * PHOTOS_EACH) else f"the array has {rows} rows"

    def ends(folder: Path) -> str:
        rows = len(np.load(folder / "npy" / "embeddings.npy"))
        extra = "an earlier export is inside" if (folder / "npy" / "replaced").exists() else ""
        return extra if rows == PEOPLE * PHOTOS_EACH else f"the array has {rows} rows"

    return Case(
        "export-npy-again",
        prepare,
        lambda folder: ["export", str(folder / "o.h5"), "--npy", str(folder / "npy"), "--force"],
        ends,
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
        copy_to(t.full),
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

    indexed = t.folder / f"indexed-{kind}"
    indexed.mkdir()
    copy_to(source)(indexed)
    expected = answer(indexed / "o.h5")
    return Case(
        f"index-{kind}",
        copy_to(source),
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
        copy_to(t.full),
        lambda folder: ["map", str(folder / "o.h5"), "-o", str(folder / "map.html")],
        lambda folder: page_is_whole(folder / "map.html"),
        between,
        frozenset({"o.h5", "map.html", "o.h5.pages"}),
    )


def _search_page(t: Templates) -> Case:
    def between(folder: Path) -> str:
        return page_is_whole(folder / "page.html") if (folder / "page.html").exists() else ""

    return Case(
        "search-page",
        copy_to(t.full),
        lambda folder: [
            *("search", str(folder / "o.h5"), str(t.photos / "P00" / "1.jpg"), "--engine", str(t.engine)),
            *("--html", str(folder / "page.html")),
        ],
        lambda folder: page_is_whole(folder / "page.html"),
        between,
        frozenset({"o.h5", "page.html", "o.h5.pages", *_INDEX}),
    )


def _evaluate(t: Templates) -> Case:
    report = {"report.json", "report.md", "roc.png", "scores.png", "embeddings.h5"}
    speed = "embeddings.speed.json"  # is lost if the file was embedded before the fault
    last_bytes = {".json": b"}", ".md": b".", ".png": b"IEND\xaeB`\x82", ".h5": b""}

    def between(folder: Path) -> str:
        for path in sorted((folder / "report").glob("*.*")):
            if path.name in {*report, speed} and not path.read_bytes().rstrip(b"\n").endswith(last_bytes[path.suffix]):
                return f"{path.name} is not whole"
        files = [path for path in (folder / "o.h5", folder / "report" / "embeddings.h5") if path.exists()]
        return next(filter(None, (same_file(path, t.full, besides=f"@{ATTRIBUTE}") for path in files)), "")

    def ends(folder: Path) -> str:
        with h5py.File(folder / "o.h5") as file:
            if ATTRIBUTE not in file["metadata"].attrs:
                return "the file has no calibration"
        names = set(os.listdir(folder / "report")) - {speed}
        return between(folder) or (f"the report is {sorted(names)}" if names != report else "")

    return Case(
        "evaluate",
        copy_to(t.full),
        lambda folder: [
            *("evaluate", str(t.photos), "--engine", str(t.engine), "--align", "none"),
            *("-o", str(folder / "report"), "--calibrate", str(folder / "o.h5")),
        ],
        ends,
        between,
        frozenset({"o.h5", "report"}),
    )


def _build_engine(t: Templates) -> Case:
    def between(folder: Path) -> str:
        for path in sorted(folder.glob("engines/*.onnx")):
            if path.read_bytes() != t.engine.read_bytes():
                return f"{path.name} differs"
        return ""

    def ends(folder: Path) -> str:
        read_engine(folder / "engines" / t.engine.name)
        names, expected = sorted(os.listdir(folder / "engines")), [t.engine.name, f"{t.engine.name}.json"]
        return between(folder) or (f"the folder holds {names}" if names != expected else "")

    return Case(
        "build-engine",
        lambda folder: None,
        lambda folder: [
            *("build-engine", "--model", str(t.model), "--backend", "cpu"),
            *("--output", str(folder / "engines")),
        ],
        ends,
        between,
        frozenset({"engines"}),
    )


def _qdrant(t: Templates, server: QdrantStandIn) -> Case:
    def prepare(folder: Path) -> None:
        copy_to(t.full)(folder)
        server.store.delete_collection("people")

    def ends(folder: Path) -> str:
        points = server.store.count("people").count
        return "" if points == PEOPLE * PHOTOS_EACH else f"the collection holds {points} points"

    return Case(
        "export-qdrant",
        prepare,
        lambda folder: ["export", str(folder / "o.h5"), "--qdrant", server.url, "--collection", "people"],
        ends,
        lambda folder: same_file(folder / "o.h5", t.full),
        frozenset({"o.h5", "o.h5.pages"}),
    )
