"""Make embedding files that nobody should trust, and run every command on each of them.

python -m tests.support.hostile_files FOLDER    # runs the commands; `test_hostile.py` starts and watches this
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import shutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

SECRET = b"CONTENT-OF-ANOTHER-FILE"

Change = Callable[[Any, Path], None]  # of an open file; the folder holds `secret`, `other.h5` and `fifo`


def replaced(name: str, data: Any, **options: Any) -> Change:
    """Replace a dataset by another."""

    def change(file: Any, _: Path) -> None:
        del file[name]
        file.create_dataset(name, data=data, **options)

    return change


def declared(name: str, shape: tuple[int, ...], chunks: tuple[int, ...], kind: Any = None, **options: Any) -> Change:
    """Replace a dataset by an empty one of any size."""

    def change(file: Any, _: Path) -> None:
        dtype = file[name].dtype if kind is None else kind
        del file[name]
        file.create_dataset(name, shape=shape, dtype=dtype, chunks=chunks, **options)

    return change


def attribute(name: str, value: Any, where: str = "metadata") -> Change:
    """Set an attribute."""

    def change(file: Any, _: Path) -> None:
        if name in file[where].attrs:
            del file[where].attrs[name]
        file[where].attrs[name] = value

    return change


def contract(**values: Any) -> Change:
    """Change values of the contract."""

    def change(file: Any, folder: Path) -> None:
        known = json.loads(file["metadata"].attrs["contract"])
        attribute("contract", json.dumps({**known, **values}))(file, folder)

    return change


def external(name: str, source: str) -> Change:
    """Keep a dataset in another file."""

    def change(file: Any, folder: Path) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        size = int(np.prod(shape)) * dtype.itemsize
        del file[name]
        file.create_dataset(name, shape=shape, dtype=dtype, external=[(str(folder / source), 0, size)])

    return change


def linked(name: str, link: Callable[[Path], Any]) -> Change:
    """Replace an object by a link."""

    def change(file: Any, folder: Path) -> None:
        del file[name]
        file[name] = link(folder)

    return change


def virtual(source: str) -> Change:
    """Map the embeddings from another file, or from the dataset itself."""

    def change(file: Any, folder: Path) -> None:
        shape, dtype = file["embeddings"].shape, file["embeddings"].dtype
        del file["embeddings"]
        layout = h5py.VirtualLayout(shape, dtype)
        path = source if source == "." else str(folder / source)
        layout[:] = h5py.VirtualSource(path, "embeddings", shape)
        file.create_virtual_dataset("embeddings", layout)

    return change


def compressed_zeros(file: Any, _: Path) -> None:
    """Declare 40 GB of rows, which deflate stores in 40 MB."""
    import zlib

    rows, block = 2_000_000, 8192
    width = file["embeddings"].shape[1]
    del file["embeddings"]
    new = file.create_dataset("embeddings", (rows, width), "f4", chunks=(block, width), compression="gzip")
    packed = zlib.compress(bytes(block * width * 4), 9)
    for start in range(0, rows - block, block):
        new.id.write_direct_chunk((start, 0), packed)


def unknown_filter(file: Any, _: Path) -> None:
    rows = file["embeddings"][:]
    del file["embeddings"]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk(rows.shape)
    plan.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2, 3))
    space = h5py.h5s.create_simple(rows.shape)
    dataset = h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, plan)
    dataset.write_direct_chunk((0, 0), rows.tobytes(), filter_mask=0)


def deep(file: Any, _: Path) -> None:
    group = file
    for _ in range(1500):
        group = group.create_group("d")


def many(file: Any, _: Path) -> None:
    group = file.create_group("many")
    for number in range(12_000):
        group.create_group(str(number))


def loop(file: Any, _: Path) -> None:
    file["outcomes/again"] = file["outcomes"]
    file["x"] = file["/"]


def references(file: Any, _: Path) -> None:
    file["metadata"].attrs["theirs"] = file["embeddings"].ref


def lists(rows: Any, entries: list[bytes]) -> Change:
    """Exact paths that are not UTF-8."""

    def change(file: Any, _: Path) -> None:
        raw = file["outcomes"].require_group("raw_paths")
        raw["row"] = np.array(rows, np.int64)
        exact = raw.create_dataset("bytes", shape=(len(entries),), dtype=h5py.vlen_dtype(np.uint8))
        for number, entry in enumerate(entries):
            exact[number] = np.frombuffer(entry, np.uint8)

    return change


def named(name: bytes, dataset: str = "image_paths") -> Change:
    return replaced(dataset, np.array([name] * 12))


KINDS: dict[str, Change] = {
    # content of other files
    "external storage": external("image_paths", "secret"),
    "external storage of a pipe": external("embeddings", "fifo"),
    "external link": linked("embeddings", lambda folder: h5py.ExternalLink(folder / "other.h5", "/embeddings")),
    "external link to a pipe": linked("outcomes", lambda folder: h5py.ExternalLink(folder / "fifo", "/outcomes")),
    "soft link to itself": linked("embeddings", lambda _: h5py.SoftLink("/embeddings")),
    "soft link of another program": lambda file, _: file.__setitem__("extra", h5py.SoftLink("/nowhere")),
    "virtual": virtual("other.h5"),
    "virtual of itself": virtual("."),
    # sizes and numbers
    "huge embeddings": declared("embeddings", (10**12, 16), (128, 16)),
    "huge outcomes": declared("outcomes/status", (10**12,), (4096,)),
    "huge chunk": declared("embeddings", (12, 16), (10**7, 16), maxshape=(None, 16)),
    "huge text": declared("image_paths", (12,), (1,), h5py.string_dtype("utf-8", 2**30)),
    "compressed zeros": compressed_zeros,
    "deep groups": deep,
    "many groups": many,
    "loop of groups": loop,
    "unknown filter": unknown_filter,
    # types and shapes
    "embeddings a group": lambda file, _: (file.__delitem__("embeddings"), file.create_group("embeddings"))[0],
    "embeddings a type": lambda file, _: (
        file.__delitem__("embeddings"),
        file.__setitem__("embeddings", np.dtype("f4")),
    )[0],
    "embeddings a number": replaced("embeddings", np.float32(1)),
    "embeddings nothing": replaced("embeddings", h5py.Empty("f4")),
    "embeddings of no column": replaced("embeddings", np.zeros((12, 0), "f4")),
    "embeddings whole numbers": replaced("embeddings", np.zeros((12, 16), "i4")),
    "embeddings compound": replaced("embeddings", np.zeros(12, [("a", "f4")])),
    "embeddings not finite": replaced("embeddings", np.full((12, 16), np.nan, "f4")),
    "metadata a dataset": replaced("metadata", 1),
    "outcomes a dataset": replaced("outcomes", 1),
    "outcomes missing": lambda file, _: file.__delitem__("outcomes"),
    "details missing": lambda file, _: file.__delitem__("outcomes/detail"),
    "status of text": replaced("outcomes/status", np.array([b"x"] * 12)),
    "status unknown": replaced("outcomes/status", np.full(12, 99, np.uint8)),
    "rows of failed photos": replaced("outcomes/status", np.arange(12, dtype=np.uint8) % 2 + 1),
    "details numbers": replaced("outcomes/detail", np.arange(12)),
    "paths of any length": replaced("image_paths", ["x.jpg"] * 12, dtype=h5py.string_dtype()),
    "paths void": replaced("image_paths", np.zeros(12, "V9")),
    "clusters negative": lambda file, _: file.create_dataset("cluster", data=np.full(12, -(2**31), "i4")),
    "clusters huge": lambda file, _: file.create_dataset("cluster", data=np.full(12, 2**31 - 1, "i4")),
    "rank of text": lambda file, _: file.create_dataset("face_index", data=np.array([b"q"] * 12)),
    "page of text": lambda file, _: file.create_dataset("faces/page", data=np.array([b"q"] * 12)),
    "exact paths of no row": lists([10**12, -5], [b"a", b"b"]),
    "exact paths upwards": lists([0], [b"../\xff.jpg"]),
    # paths
    "paths absolute": named(b"/etc/passwd"),
    "paths upwards": named(b"a/../../secret"),
    "paths with a NUL": named(b"a\0b"),
    "scanned paths absolute": named(b"/etc/passwd", "outcomes/path"),
    # attributes
    "contract deep": attribute("contract", "[" * 30_000 + "]" * 30_000),
    "contract a number": attribute("contract", "5"),
    "contract bytes": attribute("contract", np.void(b"\xff\xfe")),
    "run id a list": attribute("run_id", np.arange(4)),
    "dimension text": attribute("dimension", "16"),
    "dimension negative": attribute("dimension", -1),
    "version a list": attribute("format_version", np.array([1, 1])),
    "engine with a NUL": attribute("engine", np.bytes_(b"a\0b")),
    "model empty": attribute("model", h5py.Empty("S1")),
    "attribute of another program a reference": references,
    "calibration a list": attribute("score_calibration", np.arange(5)),
    "calibration deep": attribute("score_calibration", "[" * 30_000 + "]" * 30_000),
    "calibration of impossible numbers": attribute(
        "score_calibration", '{"contract": {}, "at_least": [1e999], "first": "x"}'
    ),
    "control characters": attribute("warning", "\x1b[31mred\x1b]0;title\x07"),
    "root a number": contract(root=5),
    "root relative": contract(root="../.."),
    "root with a NUL": contract(root="/a\0b"),
    "root missing": contract(root=None),
    "dtype an object": contract(dtype="O"),
    "limits of text": contract(max_bytes="x", max_pixels="y"),
    "limits missing": contract(max_bytes=None, max_pixels=None, skip_duplicates=None, dtype=None),
    "limits huge": contract(max_bytes=10**30, max_pixels=10**30),
}


def make_all(good: Path, folder: Path) -> None:
    """Make a file of every kind in `folder`/made from a good one of 12 rows with 16 columns."""
    (folder / "made").mkdir()
    (folder / "secret").write_bytes(SECRET * 500)
    os.mkfifo(folder / "fifo")
    shutil.copy(good, folder / "other.h5")
    for kind, change in KINDS.items():
        path = Path(shutil.copy(good, folder / "made" / f"{kind}.h5"))
        with h5py.File(path, "r+") as file:
            change(file, folder)


def commands(file: Path, photos: Path, out: Path) -> dict[str, list[object]]:
    """Every command that reads an embedding file, by name."""
    photo = min(photos.rglob("*.jpg"))
    return {
        "verify": ["verify", file],
        "outcomes": ["outcomes", file, "--json"],
        "search": ["search", file, photo, "--json", "-k", 80, "--html", out / "s.html"],
        "compare": ["compare", photo, photo, "--file", file],
        "repair": ["repair", file, "-o", out / "repaired.h5"],
        "merge": ["merge", file, photos.parent / "other.h5", "-o", out / "merged.h5", "--prefer", "first"],
        "export npy": ["export", file, "--npy", out / "npy"],
        "export parquet": ["export", file, "--parquet", out / "x.parquet"],
        "pairs": ["pairs", file, "--threshold", 0.9, "-o", out / "p.csv", "--html", out / "p.html"],
        "cluster": ["cluster", file, "--threshold", 0.9, "-o", out / "c.csv", "--folders", out / "f", "--mode", "copy"],
        "map": ["map", file, "-o", out / "m.html"],
        "filter": ["filter", file, "--gender", "woman", "--folders", out / "women", "--mode", "copy"],
        "attributes": ["attributes", file, "--from", "embeddings"],
        "process": ["process", photos, "-o", file],
        "retry": ["process", photos, "-o", file, "--retry"],
        "add": ["add", file, photos],
        "remove": ["remove", file, "--path", photo.relative_to(photos), "--yes"],
    }


def run_all(folder: Path) -> None:
    """Run every command on every file of `make_all`; print a line of JSON before and after each."""
    from runtime.cli.app import main

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
    say = sys.stdout
    for made in sorted((folder / "made").iterdir()):
        for name in commands(made, folder / "photos", folder):
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            file = Path(shutil.copy(made, out / "x.h5"))
            print(json.dumps([made.stem, name]), file=say, flush=True)
            stdout, stderr, code = io.StringIO(), io.StringIO(), 0
            with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
                try:
                    main([*map(str, commands(file, folder / "photos", out)[name])], prog_name="facemill")
                except SystemExit as end:
                    code = end.code if isinstance(end.code, int) else int(end.code is not None)
                except BaseException:
                    traceback.print_exc()
            written = [path for path in out.rglob("*") if path != file and path.is_file() and not path.is_symlink()]
            content = b"".join(path.read_bytes() for path in written if path.stat().st_size < 50 << 20)
            leaks = SECRET in content or b"root:x:0" in content or SECRET.decode() in stdout.getvalue()
            result = {"kind": made.stem, "command": name, "code": code, "stderr": stderr.getvalue(), "leaks": leaks}
            print(json.dumps(result), file=say, flush=True)


if __name__ == "__main__":
    run_all(Path(sys.argv[1]))
