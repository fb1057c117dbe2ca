"""Run a typical day of facemill on a few small photos, and record the contents of its files and answers.

    python -m tests.golden.scenario --write    # replaces expected.json and expected.npz

`test_golden.py` compares a run of the present code with these two files. Write them again only when a change of results
is intended, and list the change in CHANGELOG.md.

The photos are synthetic (`benchmarks/portraits.py`, seed 17: portraits of 150x200 pixels, crops of 112x112). They
are stored as files so that neither another generator, nor another encoder, nor another processor changes their bytes.
"""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
FACTS, ARRAYS = HERE / "expected.json", HERE / "expected.npz"

# These values differ from run to run or from machine to machine. Only their presence and their type are compared.
VARIES = {
    **dict.fromkeys(("run_id", "plan_id", "run_id_before", "run_id_after"), "drawn at random"),
    **dict.fromkeys(("asked_hmac", "removed_hmac"), "digests of names with a random key"),
    **dict.fromkeys(("started_utc", "finished_utc", "begun_utc", "made_utc"), "times"),
    **dict.fromkeys(("tool_version", "backend_version"), "versions of facemill and of ONNX Runtime"),
    **dict.fromkeys(("engine", "detector_engine"), "paths in the cache"),
    **dict.fromkeys(("engine_sha256", "sha256_after", "content_sha256"), "checksums of bytes that hold the above"),
    **dict.fromkeys(("images_per_s", "elapsed_s", "search_ms", "stages"), "rates of this machine"),
}
# These values are sentences for people, which may be rewritten. Only whether there is a sentence is compared.
PROSE = ("detail", "warning", "threshold_origin", "what", "photographs")
# `plan` computes these values; it measures or guesses the others.
PLANNED = (
    *(("embedding", name) for name in ("disk while it runs", "disk afterwards", "memory")),
    *(("index", name) for name in ("flat", "ivf", "sq8")),
    ("pairs", "memory"),
)
# A GPU rounds differently, so that all steps run on the CPU.
# No second look: its weights are replaced more often than these files. tests/pipeline/test_second_look.py has runs with
# it.
EMBED_ON_CPU = ("--backend", "cpu", "--landmarks", "none")
COMPARE_ON_CPU = ("--device", "cpu")
JSON_ATTRIBUTES = ("contract", "score_calibration")


def facemill(*arguments: object) -> str:
    """Run a command as a user types it, and return what it prints on stdout."""
    from click.testing import CliRunner

    from runtime.cli.app import main

    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"facemill {' '.join(map(str, arguments))}\n{result.output}{result.exception!r}"
    return result.stdout


class Scenario:
    """The steps of the day, in a folder.

    Attributes:
        folder: empty at first; contains photos, embedding files and answers later.
        facts: by kind ("files", "answers") and name: what JSON can hold.
        arrays: the datasets of floating-point numbers, by "FILE/DATASET".
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.facts: dict[str, dict[str, Any]] = {"files": {}, "answers": {}}
        self.arrays: dict[str, NDArray[np.floating[Any]]] = {}

    def run(self) -> Scenario:
        """Run all steps with a private cache, so that the models on this machine do not change the defaults."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FACEMILL_CACHE", str(self.folder / "cache"))
            patch.delenv("FACEMILL_MODELS", raising=False)
            self.make_photos()
            self.embed_crops()
            self.embed_photos()
            self.search_and_compare()
            self.find_pairs_and_clusters()
            self.evaluate_and_plan()
            self.add_merge_remove()
            self.export()
        return self

    def make_photos(self) -> None:
        """Copy the stored photos, and make damaged files, copies, and a photo of two people."""
        crops, photos, party = (self.folder / name for name in ("crops", "photos", "party"))
        shutil.copytree(HERE / "photographs" / "crops", crops)
        shutil.copytree(HERE / "photographs" / "portraits", photos)
        photo_bytes = (crops / "Ada_Stone" / "Ada_Stone_0001.jpg").read_bytes()
        (crops / "cut_short.jpg").write_bytes(photo_bytes[: len(photo_bytes) // 2])
        (crops / "letter.jpg").write_text("not a photograph\n")
        (crops / "notes.txt").write_text("not scanned\n")
        shutil.copy(crops / "Dan_Ford" / "Dan_Ford_0001.jpg", os.path.join(os.fsencode(crops), b"not_utf8_\xff.jpg"))

        shutil.copytree(crops / "Ben_Reed", self.folder / "copies" / "b")
        shutil.copytree(crops / "Ben_Reed", self.folder / "copies" / "a", ignore=shutil.ignore_patterns("*_0002.jpg"))
        shutil.copytree(crops / "Dan_Ford", self.folder / "copies" / "c")
        shutil.copytree(crops / "Cleo_Marsh", self.folder / "damaged")
        (self.folder / "damaged" / "Cleo_Marsh_0002.jpg").write_bytes(photo_bytes[:900])

        y, x = np.mgrid[:160, :120]
        cv2.imwrite(str(photos / "wall.png"), np.stack([x, y, 120 - x // 2], axis=-1).astype(np.uint8))
        shutil.copy(crops / "Cleo_Marsh" / "Cleo_Marsh_0001.jpg", photos / "aligned.jpg")
        names = ("Ada_Stone/Ada_Stone_0002.jpg", "Dan_Ford/Dan_Ford_0001.jpg")
        party.mkdir()
        cv2.imwrite(str(party / "two.png"), np.hstack([cv2.imread(str(photos / name)) for name in names]))

    def embed_crops(self) -> None:
        """Embed aligned crops with random weights: both types of numbers, duplicates, a retry."""
        options = ("--align", "none", "--model", "random-128")
        self.process("crops.h5", ["crops"], *options)
        self.process("half.h5", ["crops"], *options, "--dtype", "float16", "--limit", 5)
        self.process("unique.h5", ["copies"], *options, "--skip-duplicates")
        self.process("retried.h5", ["damaged"], *options, name="retried.h5 before the retry")
        shutil.copy(self.folder / "crops" / "Cleo_Marsh" / "Cleo_Marsh_0002.jpg", self.folder / "damaged")
        self.process("retried.h5", ["damaged"], *options, "--retry")

    def embed_photos(self) -> None:
        """Embed portraits with the shipped model and detector: the defaults, and the other rules for faces."""
        self.process("photos.h5", ["photos"])
        self.process("everyone.h5", ["photos", "party"], "--faces", "all")
        self.process("choosy.h5", ["photos", "party"], "--faces", "one", "--min-frontal", 0.75)

    def search_and_compare(self) -> None:
        """Search with one photo and with several, and compare two photos."""
        photos, file, everyone = (self.folder / name for name in ("photos", "photos.h5", "everyone.h5"))
        ben = photos / "Ben_Reed"
        best = ben / "Ben_Reed_0001.jpg"
        exact = (*COMPARE_ON_CPU, "--index", "flat")
        self.answer("search json", facemill("search", file, best, "-k", 5, "--json", *exact))
        self.answer("search csv", facemill("search", file, ben, "-k", 4, "--csv", *exact))
        grouped = ("--group-by", "folder", "--exclude-self", "--threshold", 0.45, *exact)
        self.answer("search grouped json", facemill("search", file, ben, "-k", 3, "--json", *grouped))
        self.answer("search grouped csv", facemill("search", file, ben, "-k", 3, "--csv", *grouped))
        two = self.folder / "party" / "two.png"
        self.answer("search everyone", facemill("search", everyone, two, "-k", 6, "--exclude-self", "--json", *exact))

        second_photo = photos / "Dan_Ford" / "Dan_Ford_0002.jpg"
        self.answer("compare one person", facemill("compare", best, ben / "Ben_Reed_0003.jpg", "--json", *EMBED_ON_CPU))
        as_file = ("--file", file, "--threshold", 0.7)
        self.answer("compare two people", facemill("compare", best, second_photo, "--json", *as_file))

    def find_pairs_and_clusters(self) -> None:
        """Compare all rows, and write /cluster into photos.h5."""
        from pyarrow import parquet

        file, everyone = self.folder / "photos.h5", self.folder / "everyone.h5"
        pairs, table, clusters = (self.folder / name for name in ("pairs.csv", "pairs.parquet", "clusters.csv"))
        facemill("pairs", file, "--threshold", 0.8, "-o", pairs, *COMPARE_ON_CPU)
        self.answer("pairs csv", pairs.read_text())
        facemill("pairs", everyone, "--threshold", 0.8, "-o", table, *COMPARE_ON_CPU)
        rows = parquet.read_table(table)
        columns = {column.name: str(column.type) for column in rows.schema}
        self.answer("pairs parquet", json.dumps({"columns": columns, "rows": rows.to_pylist()}))
        facemill("cluster", file, "-k", 4, "--no-column", "-o", clusters, *COMPARE_ON_CPU)
        self.answer("clusters by k-means", clusters.read_text())
        facemill("cluster", file, "--threshold", 0.64, "-o", clusters, "--force", *COMPARE_ON_CPU)
        self.answer("clusters by threshold", clusters.read_text())

    def evaluate_and_plan(self) -> None:
        """Measure accuracy on photos/, calibrate photos.h5, and plan for a large job."""
        photos, file, pairs = (self.folder / name for name in ("photos", "photos.h5", "pairs.txt"))
        pairs.write_text(
            "2\t2\n"
            "Ada_Stone\t1\t2\nBen_Reed\t1\t3\nAda_Stone\t1\tBen_Reed\t2\nBen_Reed\t1\tCleo_Marsh\t2\n"
            "Cleo_Marsh\t1\t2\nDan_Ford\t1\t3\nDan_Ford\t1\tBen_Reed\t2\nDan_Ford\t1\tCleo_Marsh\t2\n"
        )
        report = json.loads(
            facemill("evaluate", photos, "--pairs", pairs, "--calibrate", file, "--json", *EMBED_ON_CPU)
        )
        # The points of this curve are scores rounded to 0.0001: on another processor two of them may coincide.
        del report["evaluations"][0]["all_pairs"]["roc"]
        self.answer("evaluate", json.dumps(report))
        self.add_file("photos.h5", name="photos.h5 with clusters and calibration")
        query = photos / "Ben_Reed" / "Ben_Reed_0001.jpg"
        self.answer("search calibrated", facemill("search", file, query, "-k", 3, "--json", *COMPARE_ON_CPU))

        with h5py.File(file, "r") as content:
            engine = content["metadata"].attrs["engine"]
        plan = json.loads(facemill("plan", "--count", 5_000_000, "--engine", engine, "--json"))
        self.answer("plan", json.dumps({f"{part}: {name}": plan[part][name]["value"] for part, name in PLANNED}))

    def add_merge_remove(self) -> None:
        """Change finished files: add one person, merge two files, remove one person."""
        file, first, second, merged = (self.folder / f"{name}.h5" for name in ("photos", "first", "second", "merged"))
        self.process("first.h5", ["photos/Ada_Stone", "photos/Ben_Reed"], name="first.h5 before the add")
        self.answer("add", facemill("add", first, self.folder / "photos" / "Cleo_Marsh", "--json"), ("verdict",))
        self.add_file("first.h5")
        self.process("second.h5", ["photos/Dan_Ford", "photos/wall.png"])
        self.answer("merge", facemill("merge", first, second, "-o", merged, "--json"))
        self.add_file("merged.h5")
        receipt = ("--receipt", self.folder / "receipt.json", "--json")
        self.answer("remove", facemill("remove", file, "--path", "Ben_Reed/", "--yes", *receipt))
        self.add_file("photos.h5", name="photos.h5 after the remove")
        self.answer("verify", facemill("verify", file, "--json"))

    def export(self) -> None:
        """Export the merged file to NumPy arrays."""
        folder = self.folder / "merged_npy"
        facemill("export", self.folder / "merged.h5", "--npy", folder)
        listing: dict[str, Any] = {}
        for path in sorted(folder.iterdir()):
            if path.suffix == ".npy":
                listing[path.name] = self.describe(np.load(path), f"{folder.name}/{path.name}")
            else:
                text = path.read_text()
                listing[path.name] = json.loads(text) if path.suffix == ".json" else _json_lines(text)
        self.answer("export", json.dumps(listing))

    def process(self, output: str, photos: Iterable[str], *options: object, name: str = "") -> None:
        """Embed photos, and record the summary and the file."""
        inputs = [self.folder / folder for folder in photos]
        summary = facemill("process", *inputs, "-o", self.folder / output, *options, *EMBED_ON_CPU, "--json")
        self.answer(f"process {name or output}", summary, ("verdict",))
        self.add_file(output, name=name)

    def answer(self, name: str, text: str, varies: Iterable[str] = ()) -> None:
        """Record an answer.

        Args:
            name: of the question.
            text: lines of JSON, or CSV with a header.
            varies: names of values that vary in this answer alone.
        """
        value = _json_lines(text) if text[:1] in "{[" else _csv(text)
        self.facts["answers"][name] = self._without_variation(value, varies=(*VARIES, *varies))

    def add_file(self, file_name: str, *, name: str = "") -> None:
        """Record all attributes and datasets of an embedding file."""
        name = name or file_name
        content: dict[str, Any] = {"attributes": {}, "datasets": {}}

        def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
            content["attributes"][path] = {key: self._attribute(key, value) for key, value in item.attrs.items()}
            if isinstance(item, h5py.Dataset):
                content["datasets"][path] = self._dataset(item, f"{name}/{path}")

        with h5py.File(self.folder / file_name, "r") as file:
            visit("/", file)
            file.visititems(visit)
        self.facts["files"][name] = content

    def describe(self, values: NDArray[Any], name: str) -> dict[str, Any]:
        """Record type, shape and values; floating-point values go to `arrays`."""
        facts: dict[str, Any] = {"dtype": str(values.dtype), "shape": list(values.shape)}
        if values.dtype.kind == "f":
            self.arrays[name] = values
        elif values.dtype.kind == "S":
            facts["values"] = [value.decode() for value in values.tolist()]
        else:
            facts["values"] = [np.asarray(value).tolist() for value in values]
        return facts

    def _dataset(self, dataset: h5py.Dataset, name: str) -> dict[str, Any]:
        facts = self.describe(dataset[()], name)
        stored = ("maxshape", "chunks", "compression", "compression_opts", "fletcher32", "shuffle")
        facts.update((key, getattr(dataset, key)) for key in stored)
        if dataset.name.rpartition("/")[2] in PROSE:
            facts["dtype"], facts["chunks"] = "S", "<as wide as the longest sentence>"
            facts["values"] = ["<words>" if value else "" for value in facts["values"]]
        result: dict[str, Any] = json.loads(json.dumps(facts))  # tuples become lists, as in the stored file
        return result

    def _attribute(self, key: str, value: Any) -> list[Any]:
        """The type and the value."""
        kind = "text" if isinstance(value, str) else str(np.asarray(value).dtype)
        value = json.loads(value) if key in JSON_ATTRIBUTES else np.asarray(value).tolist()
        return [kind, self._without_variation(value, key)]

    def _without_variation(self, value: Any, key: str = "", varies: Iterable[str] = VARIES) -> Any:
        """Replace what differs from run to run, sentences, and the path of the folder."""
        if key in varies:
            return f"<{type(value).__name__}>"
        if isinstance(value, dict):
            return {name: self._without_variation(inner, name, varies) for name, inner in value.items()}
        if isinstance(value, list):
            return [self._without_variation(inner, key, varies) for inner in value]
        if isinstance(value, str):
            text = "<words>" if value and key in PROSE else value
            return text.replace(str(self.folder), "<ROOT>")
        return value


def _json_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def _csv(text: str) -> dict[str, Any]:
    """Parse the header, and a row for each line: integers, floats and text."""
    lines = list(csv.DictReader(io.StringIO(text)))
    return {"columns": list(lines[0]), "rows": [{key: _number(value) for key, value in line.items()} for line in lines]}


def _number(text: str) -> int | float | str:
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text


def main() -> None:
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.golden.scenario --write")
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(Path(folder)).run()
    FACTS.write_text(json.dumps(scenario.facts, indent=1) + "\n")
    np.savez_compressed(ARRAYS, **scenario.arrays)
    print(f"{FACTS}: {FACTS.stat().st_size:,} bytes\n{ARRAYS}: {ARRAYS.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
