"""Make up embedding files that nobody should trust, from a seed: any kind of change, of any object of a file.

`hostile_files.KINDS` names one file of each kind that was ever wrong. These are their relatives: each seed chooses a
change and an object for it. A change says whether a command may accept the file.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from runtime.records import FACE
from runtime.storage.digest import seal
from runtime.storage.format import append_faces, create_faces

TEXT = h5py.string_dtype()
_OUTSIDE = ("secret", "other.h5", "fifo", "/dev/zero", "/etc/passwd", "missing")
_NAMES = ("ä", "\u202egnp", "a\nb", "\x1b[31m", "x" * 5000, "\U0001f600", "a b", ".", "..", "-rf", "%s{0}")


@dataclass(frozen=True, slots=True)
class Member:
    """One hostile file.

    Attributes:
        text: what was changed, for people.
        refused: every command must refuse it.
    """

    text: str
    refused: bool


# A change of the open file, which says what it did and whether the file must be refused from then on.
_Change = Callable[[random.Random, h5py.File, Path], Member]


def make_member(seed: int, file: Path, folder: Path) -> Member:
    """Change an embedding file in the way of a seed.

    Args:
        seed: any number.
        file: a finished file, which is changed.
        folder: holds `secret`, `other.h5` and `fifo`.
    """
    rng = random.Random(seed)
    with h5py.File(file, "r+", libver=rng.choice(["earliest", "latest"])) as opened:
        if rng.random() < 0.5:
            _add_faces(opened)
        member = _CHANGES[seed % len(_CHANGES)](rng, opened, folder)
        if not member.refused:
            with suppress(OSError, RuntimeError, TypeError, ValueError, KeyError):
                seal(opened)  # whoever makes a file can make its digest
    return member


def _add_faces(file: h5py.File) -> None:
    """Give each row of a file of aligned crops a face."""
    rows = len(file["embeddings"])
    faces = np.zeros(rows, FACE)
    faces["box"] = (5, 5, 80, 80)
    create_faces(file)
    append_faces(file, faces)
    for name in ("embeddings", "faces"):
        file[f"outcomes/{name}"] = np.ones(rows, np.uint16)


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return names


def _objects(file: h5py.File) -> list[str]:
    return [*(name for name in ("metadata", "outcomes", "faces") if name in file), *_datasets(file)]


def _outside(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Keep the content of a dataset elsewhere: one of ours, or one of another program."""
    name, source = rng.choice(_datasets(file)), rng.choice(_OUTSIDE)
    path, data = str(folder / source), file[name][()]
    size = max(1, data.nbytes)
    target = name if rng.random() < 0.7 else rng.choice(["theirs", "outcomes/theirs", "metadata/theirs"])
    if target == name:
        del file[name]
    if rng.random() < 0.6:
        pieces = [(path, 0, size // 2), (path, size // 2, size)] if rng.random() < 0.3 else [(path, 0, size)]
        file.create_dataset(target, shape=data.shape, dtype=data.dtype, external=pieces)
        return Member(f"/{target} in the external storage {source}", True)
    source = rng.choice([".", path])
    layout = h5py.VirtualLayout(data.shape, data.dtype)
    part = slice(0, max(1, len(data) // 2)) if rng.random() < 0.3 else slice(None)
    shape = (len(range(*part.indices(len(data)))), *data.shape[1:])
    layout[part] = h5py.VirtualSource(source, rng.choice([name, target, "missing"]), shape)
    file.create_virtual_dataset(target, layout, fillvalue=0 if data.dtype.kind != "S" else None)
    return Member(f"/{target} virtual from {source}", True)


def _link(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Replace an object by a link, or add one."""
    name = rng.choice(_objects(file))
    target = name if rng.random() < 0.7 else rng.choice(["theirs", "outcomes/theirs", "metadata/theirs"])
    kind = rng.choice(["external", "soft", "hard"])
    if kind == "external":
        link: Any = h5py.ExternalLink(rng.choice([str(folder / rng.choice(_OUTSIDE)), "other.h5"]), f"/{name}")
    elif kind == "soft":
        link = h5py.SoftLink(rng.choice([f"/{name}", "/", "/nowhere", "embeddings", "x/../y", f"/{target}"]))
    else:
        link = file[rng.choice(["/", name, rng.choice(_objects(file))])]
        target = f"again{rng.randrange(9)}"
    if target == name:
        del file[name]
    file[target] = link
    return Member(f"/{target} a {kind} link ({getattr(link, 'path', link)})", True)


def _other_object(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Replace an object by one of another kind."""
    name = rng.choice(_objects(file))
    is_group = isinstance(file[name], h5py.Group)
    del file[name]
    kind = rng.choice(["dataset" if is_group else "group", "type", "missing"])
    if kind == "dataset":
        file[name] = np.arange(3)
    elif kind == "group":
        file.create_group(name)["inside"] = 1
    elif kind == "type":
        file[name] = np.dtype(rng.choice(["f4", "S9", "u1"]))
    optional = kind == "missing" and name.startswith(("outcomes", "faces"))  # some commands need none of them
    return Member(f"/{name} is now: {kind}", not optional)


_TYPES: tuple[Any, ...] = (
    *("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4", ">u2", "longdouble", "c8", "?", "V7"),
    *("S1", "S400", "S70000"),
    np.dtype([("a", "f4"), ("b", "S3")]),
    np.dtype(("f4", (3,))),
    TEXT,
    h5py.string_dtype("ascii"),
    h5py.vlen_dtype(np.float32),
    h5py.vlen_dtype(np.uint8),
    h5py.ref_dtype,
    h5py.regionref_dtype,
    h5py.enum_dtype({"A": 0, "B": 1}, basetype="u1"),
    h5py.opaque_dtype(np.dtype("M8[ns]")),
)


def _other_type(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Give a dataset another type, and no content of its own."""
    name, kind = rng.choice(_datasets(file)), np.dtype(rng.choice(_TYPES))
    old = file[name]
    same = old.dtype == kind or (old.dtype.kind == "S" and kind.kind == "S" and kind.itemsize <= 1 << 16)
    shape = old.shape
    del file[name]
    file.create_dataset(name, shape=shape, dtype=kind)
    accepts = {"embeddings": ("float32", "float16")}.get(name, ())
    return Member(f"/{name} of the type {kind}", not (same or str(kind) in accepts))


def _other_shape(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Give a dataset another shape, a huge one too."""
    name = rng.choice(_datasets(file))
    old = file[name]
    shape: tuple[int, ...] = old.shape
    kind = rng.choice(["scalar", "null", "rank", "flat", "empty", "longer", "shorter", "huge", "no columns", "rank 32"])
    dtype, chunks = old.dtype, None
    new: Any = {
        "scalar": (),
        "rank": (*shape, 2),
        "flat": shape[:-1] if len(shape) > 1 else (shape[0] // 2, 2),
        "empty": (0, *shape[1:]),
        "longer": (shape[0] + 1, *shape[1:]),
        "shorter": (shape[0] - 1, *shape[1:]),
        "huge": (10 ** rng.randint(8, 15), *shape[1:]),
        "no columns": (*shape[:-1], 0),
        "rank 32": (1,) * 32,
    }.get(kind)
    chunks = (1024, *shape[1:]) if kind == "huge" else None
    del file[name]
    if kind == "null":
        file.create_dataset(name, data=h5py.Empty(dtype))
    else:
        file.create_dataset(name, shape=new, dtype=dtype, chunks=chunks)
    return Member(f"/{name}: {kind} {new}", True)


def _storage(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Store a dataset in chunks, filters and filling values that facemill does not write."""
    name = rng.choice([name for name in _datasets(file) if file[name].dtype.kind in "fuiS"])
    data = file[name][()]
    del file[name]
    kinds = ("filter", "double", "huge chunk", "short chunk", "bomb", "garbage", "no chunk", "mask", "compact")
    kind = rng.choice(kinds)
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    rows, row_bytes = data.shape[0], max(1, data.nbytes // max(1, len(data)))
    chunk, packed, mask, refused = data.shape, data.tobytes(), 0, True
    if kind == "huge chunk":
        chunk = ((1 << 31) // row_bytes, *data.shape[1:])
    if kind != "compact":
        plan.set_chunk(chunk)
    if kind == "filter":
        plan.set_filter(rng.choice([4, 5, 6, 305, 32001, 32015, 65535]), rng.choice([0, 1]), (1, 2, 3, 4))
    elif kind == "double":
        plan.set_deflate(9)
        plan.set_deflate(9)
    elif kind in ("bomb", "garbage", "mask"):
        plan.set_deflate(9)
        refused = kind == "bomb"
    if kind == "compact":
        plan.set_layout(h5py.h5d.COMPACT)
        refused = False
    elif kind == "no chunk":
        plan.set_fill_value(np.array(rng.choice([0, 1]), data.dtype))
        refused = False
    else:
        refused = refused and kind != "short chunk"
    shape, most = data.shape, data.shape
    if kind == "bomb":
        import zlib

        packed = zlib.compress(bytes(data.nbytes * 5000), 9)
        shape = most = (rows * 5000, *data.shape[1:])
        plan.set_chunk(shape)
    elif kind == "short chunk":
        packed = packed[: max(1, len(packed) // 3)]
    elif kind == "garbage":
        packed = rng.randbytes(50)
    elif kind == "mask":
        mask = rng.choice([1, 2, 0xFFFFFFFF])
    elif kind == "huge chunk":
        most = (h5py.h5s.UNLIMITED, *data.shape[1:])
    space = h5py.h5s.create_simple(shape, most)
    parent, _, last = name.rpartition("/")
    dataset = h5py.h5d.create(file[parent or "/"].id, last.encode(), h5py.h5t.py_create(data.dtype), space, plan)
    if kind == "compact":
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
    elif kind not in ("no chunk", "huge chunk"):
        dataset.write_direct_chunk((0,) * data.ndim, packed, filter_mask=mask)
    return Member(f"/{name} stored with: {kind}", refused and kind != "garbage")


_VALUES: tuple[Any, ...] = (
    *("", "x", "\x1b[31m\x07", "</script>", "x" * 70_000, "[" * 30_000, "{}", "null", "5", "NaN", '"a"', "/", "../.."),
    *(0, -1, 1 << 62, 1.5, float("nan"), float("inf"), True),
    np.uint64(2**64 - 1), np.float16(1), np.longdouble(1), np.void(b"\xff\xfe"), np.bytes_(b"a\0b"), np.bytes_(b"\xff"),
    np.arange(4), np.zeros(0), np.array(["a", "b"], object), np.zeros(2, [("a", "f4")]), np.arange(2 << 14),
    h5py.Empty("f4"), h5py.Empty("S1"), h5py.Empty(TEXT),
)  # fmt: skip


def _attribute(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Set an attribute of any object to a value of any type."""
    where = rng.choice(["metadata"] * 6 + ["/", *_objects(file)])
    attributes = file[where].attrs
    names = [*attributes] if where == "metadata" and rng.random() < 0.9 else ["theirs", "clusters", *_NAMES]
    name, value = rng.choice(names), rng.choice([*_VALUES, "reference", "region", "missing", "many"])
    if name in attributes:
        del attributes[name]
    if isinstance(value, str) and value in ("reference", "region"):
        target = file["embeddings"]
        attributes[name] = target.ref if value == "reference" else target.regionref[0:1]
    elif isinstance(value, str) and value == "many":
        for number in range(1500):
            attributes[f"{name[:50]} {number}"] = "x"
    elif not (isinstance(value, str) and value == "missing"):
        dtype = TEXT if isinstance(value, np.ndarray) and value.dtype == object else None
        with suppress(OSError):  # too large for the older way of HDF5
            attributes.create(name, value, dtype=dtype)
    return Member(f"the attribute {name[:40]!r} of /{where} = {value!r:.60}", False)


_JSON: tuple[Any, ...] = (
    *(None, True, 0, -1, 1.5, 1 << 70, 1e308, "", "x", "a\0b", "\ud800", "/", "../..", [], {}, [[[]]], {"a": 1}),
    *("float64", "int8", "O", "\x1b[31m", "x" * 70_000, float("nan"), float("inf")),
)


def _contract(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Change values of the contract, or of the calibration."""
    attributes = file["metadata"].attrs
    contract = json.loads(attributes["contract"])
    changed = rng.sample([*contract, "newer", "\x1b"], rng.randint(1, 3))
    for name in changed:
        value = rng.choice(_JSON)
        contract[name] = value
        if rng.random() < 0.3:
            contract.pop(name)
    attributes["contract"] = json.dumps(contract)
    if rng.random() < 0.3:
        calibration = {name: rng.choice(_JSON) for name in ("contract", "at_least", "first", "step", "pairs", "scores")}
        attributes["score_calibration"] = json.dumps(calibration)
    return Member(f"contract: {changed}", False)


_PATHS = (
    *(b"", b"/", b"/etc/passwd", b"..", b"../secret", b"a/../../secret", b"./x", b"a//b", b"a\0b", b"\xff", b"a\nb"),
    *(b"p0/00.jpg", b"x" * 300, b"\x1b[31m", b"secret", b"CON", "ä".encode(), b"=1+1"),
)


def _values(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Put impossible values into a dataset."""
    name = rng.choice(_datasets(file))
    data = file[name][()]
    raw = np.frombuffer(rng.randbytes(data.nbytes), np.uint8)
    if data.dtype.kind == "S":
        texts = np.array([rng.choice(_PATHS) for _ in data])
        whole = rng.random() < 0.5
        new = texts if whole else np.where(np.arange(len(data)) == rng.randrange(len(data)), texts, data)
    elif data.dtype.kind == "f":
        value = rng.choice([np.nan, np.inf, -np.inf, 3e38, -1, 0, 1e-45, 5e9])
        new = np.full_like(data, value) if rng.random() < 0.5 else data.copy()
        new.reshape(-1)[rng.randrange(data.size)] = value
    else:
        new = raw.copy().view(data.dtype).reshape(data.shape) if rng.random() < 0.5 else data.copy()
        new.reshape(-1)[rng.randrange(data.size)] = rng.choice([0, 1, 99, 200, 255])
    del file[name]
    file.create_dataset(name, data=new)
    return Member(f"values of /{name}", False)


def _more(rng: random.Random, file: h5py.File, folder: Path) -> Member:
    """Add columns, exact paths, and objects of other programs."""
    kind = rng.choice(["cluster", "raw paths", "deep", "many", "names", "theirs", "user types", "comment"])
    if kind == "cluster":
        file["cluster"] = np.array([rng.choice([-1, 0, 1, 5, 2**31 - 1, -(2**31)]) for _ in range(12)], "i4")
        if rng.random() < 0.7:
            file["cluster"].attrs["clusters"] = rng.choice([0, 1, -5, 1 << 40, "x", 1.5])
    elif kind == "raw paths":
        raw = file["outcomes"].require_group("raw_paths")
        paths = [rng.choice(_PATHS) for _ in range(rng.randint(0, 4))]
        raw["row"] = np.array([rng.choice([0, 1, 11, 12, -1, 1 << 60]) for _ in paths], np.int64)
        lists = (len(paths) + rng.choice([0, 0, 1]),)
        exact = raw.create_dataset("bytes", shape=lists, dtype=h5py.vlen_dtype(np.uint8))
        for number, entry in enumerate(paths):
            exact[number] = np.frombuffer(entry, np.uint8)
    elif kind in ("deep", "many"):
        group = file[rng.choice(["/", "metadata", "outcomes", "faces"])]
        for number in range(400 if kind == "deep" else 11_000):
            made = group.create_group(str(number))
            group = made if kind == "deep" else group
        return Member(f"groups: {kind}", True)
    elif kind == "names":
        for name in rng.sample(_NAMES[:6], 3):
            file[rng.choice(["", "outcomes/", "metadata/", "faces/"]) + name] = 5
    elif kind == "theirs":
        for number, dtype in enumerate(_TYPES):
            file.create_dataset(f"theirs/{number}", shape=(2,), dtype=dtype)
    elif kind == "user types":
        file["type"] = np.dtype("f4")
        rows = file["embeddings"][:]
        del file["embeddings"]
        file.create_dataset("embeddings", data=rows, dtype=file["type"])
    else:
        for name in _objects(file):
            h5py.h5o.set_comment(file[name].id, b"\x1b[31m" * 50)
    return Member(f"added: {kind}", False)


_CHANGES: tuple[_Change, ...] = (
    _outside, _link, _other_object, _other_type, _other_shape, _storage, _attribute, _contract, _values, _more,
)  # fmt: skip
