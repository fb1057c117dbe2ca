"""What an embedding file, or a segment of a run, may hold: one table, and the check of an open file against it.

A file may come from anybody. HDF5 follows links and mappings to other files, and reserves memory for whatever a file
declares. So every object is looked at before a byte of it is read: it must be in the file itself, of the right type
and shape, and no larger than what is stored of it.

Every check raises ValueError, which names the object, what it is, and what was expected.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..records import ALL_FACE_DATASETS, ATTRIBUTE_DATASETS, ATTRIBUTES, FACE, PAGE_DATASET

MAX_DIMENSION = 65_536  # numbers in an embedding
MAX_TEXT_BYTES = 1 << 16  # a path or a detail
_MAX_DEPTH = 8  # groups within groups
_MAX_OBJECTS = 10_000
_MAX_CHUNK_BYTES = 64 << 20
_MAX_AXES = 3
_SMALL_BYTES = 1 << 20  # so much may be declared without being stored
_MAX_DEFLATE_RATIO = 1032  # deflate cannot exceed it
_MAX_DENSE_RATIO = 16  # vectors and faces hardly compress
_SALVAGED_SHARE = 64  # of a damaged dataset, all but one in so many bytes may be lost
# The filters that HDF5 and h5py contain: deflate, shuffle, Fletcher-32, LZF. HDF5 looks for others in plug-ins.
_FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}


@dataclass(frozen=True, slots=True)
class Column:
    """A dataset of ours.

    Attributes:
        kinds: types of its numbers; empty for text of a fixed length, or for lists of bytes if `lists`.
        shape: lengths of its axes after the first; None for any from 1 to MAX_DIMENSION.
        axis: the first axis: "N" for embeddings, "M" for photos, "K" for paths that are not UTF-8.
        ratio: how many times larger than its stored bytes it may be.
        lists: whether each entry is a list of bytes.
    """

    kinds: tuple[str, ...]
    axis: str
    shape: tuple[int | None, ...] = ()
    ratio: int = _MAX_DEFLATE_RATIO
    lists: bool = False

    def expected(self) -> str:
        """The type and shape, for an error."""
        kinds = " or ".join(self.kinds) or ("lists of uint8" if self.lists else "text of fixed length")
        return f"{kinds}, ({', '.join([self.axis, *('D' if n is None else str(n) for n in self.shape)])})"


COLUMNS: dict[str, Column] = {
    "embeddings": Column(("float32", "float16"), "N", (None,), _MAX_DENSE_RATIO),
    "image_paths": Column((), "N"),
    **{
        dataset: Column((FACE[name].base.name,), "N", FACE[name].shape, _MAX_DENSE_RATIO)
        for name, dataset in ALL_FACE_DATASETS.items()
    },
    "face_index": Column(("uint16",), "N"),
    PAGE_DATASET: Column(("uint16",), "N"),
    **{
        dataset: Column(() if ATTRIBUTES[name].kind == "S" else (ATTRIBUTES[name].name,), "N")
        for name, dataset in ATTRIBUTE_DATASETS.items()
    },
    "cluster": Column(("int32",), "N"),
    "cluster_before_review": Column(("int32",), "N"),
    "outcomes/status": Column(("uint8",), "M"),
    "outcomes/path": Column((), "M"),
    "outcomes/detail": Column((), "M"),
    "outcomes/digest": Column(("uint8",), "M", (16,), _MAX_DENSE_RATIO),
    "outcomes/embeddings": Column(("uint16",), "M"),
    "outcomes/faces": Column(("uint16",), "M"),
    "outcomes/row": Column(("int64",), "M"),  # of a segment
    "outcomes/raw_paths/row": Column(("int64",), "K"),
    "outcomes/raw_paths/bytes": Column((), "K", lists=True),
}
_GROUPS = frozenset({"metadata", "outcomes", "outcomes/raw_paths", "faces", "attributes"})


def is_ours(name: str) -> bool:
    """Whether an object of this name, without a slash at its start, is one of facemill's."""
    return name in COLUMNS or name in _GROUPS


def check_layout(file: Any) -> None:
    """Check every object of an open file, and that columns with one entry per row, or per photo, are equally long.

    Raises:
        ValueError: an object is not what the table says, or refers to something outside the file.
    """
    lengths: dict[str, tuple[int, str]] = {}
    for name in check_objects(file):
        axis, rows = COLUMNS[name].axis, int(file[name].shape[0])
        expected, first = lengths.setdefault(axis, (rows, name))
        if rows != expected:
            raise ValueError(f"/{name} has {rows} rows; expected: {expected}, as many as /{first}")


def check_objects(file: Any) -> list[str]:
    """Check every object of an open file by itself, those of other programs too, without reading their content.

    Returns:
        The names of our datasets in it, /embeddings first.
    Raises:
        ValueError: see `check_layout`; also if the file has more objects than it may.
    """
    import h5py

    ours, seen, count = [], {h5py.h5o.get_info(file["/"].id).addr}, 1
    groups = [("", file["/"].id, 1)]
    while groups:
        parent, group, depth = groups.pop()
        count += group.get_num_objs()
        if count > _MAX_OBJECTS or depth > _MAX_DEPTH:
            raise ValueError(
                f"/{parent} holds too much; expected: at most {_MAX_OBJECTS} objects, {_MAX_DEPTH} groups deep"
            )
        for key in list(group):
            name = _text(parent + key.decode("utf-8", "surrogateescape"))
            info = _object_info(group, key, name)
            if info.addr in seen:
                raise ValueError(f"/{name} is another name of an object; expected: one name for each")
            seen.add(info.addr)
            if info.type == h5py.h5o.TYPE_GROUP and name not in COLUMNS:
                groups.append((f"{name}/", h5py.h5g.open(group, key), depth + 1))
            elif name in _GROUPS or (name in COLUMNS and info.type != h5py.h5o.TYPE_DATASET):
                raise ValueError(f"/{name} is no {'group' if name in _GROUPS else 'dataset'}; expected: one")
            elif info.type == h5py.h5o.TYPE_DATASET:
                _check_dataset(h5py.h5d.open(group, key), name, COLUMNS.get(name))
                ours += [name] if name in COLUMNS else []
    return sorted(ours, key=list(COLUMNS).index)


def check_item(where: Any, name: str, *, salvage: bool = False) -> Any:
    """Open a dataset or group of an open file or group, after the checks of `check_objects`.

    Args:
        where: an open file or group.
        name: one name, or several with slashes.
        salvage: accept a dataset of which most is missing, to read the rest.
    Raises:
        ValueError: it is missing, or not what the table says.
    """
    import h5py

    *parents, last = name.split("/")
    for parent in parents:
        where = check_item(where, parent, salvage=salvage)
    if not isinstance(where, h5py.Group):
        raise ValueError(f"{getattr(where, 'name', where)} is no group; expected: one with {last}")
    full, key = f"{where.name.rstrip('/')}/{last}"[1:], last.encode("utf-8", "surrogateescape")
    if key not in where.id:
        raise ValueError(f"/{full} is missing")
    info = _object_info(where.id, key, full)
    if info.type == h5py.h5o.TYPE_DATASET and full not in _GROUPS:
        _check_dataset(h5py.h5d.open(where.id, key), full, COLUMNS.get(full), salvage=salvage)
    elif info.type != h5py.h5o.TYPE_GROUP or full in COLUMNS:
        raise ValueError(f"/{full} is no {'group' if full in _GROUPS else 'dataset'}; expected: one")
    return where[last]


def _object_info(group: Any, key: bytes, name: str) -> Any:
    """The facts about the object of a name, which must be in the file itself."""
    import h5py

    kind = group.links.get_info(key).type
    if kind != h5py.h5l.TYPE_HARD:
        what = "the inside of another file" if kind == h5py.h5l.TYPE_EXTERNAL else "another name"
        raise ValueError(f"/{name} is a link to {what}; expected: an object of the file itself")
    return h5py.h5o.get_info(group, key)


def _check_dataset(dataset: Any, name: str, column: Column | None, *, salvage: bool = False) -> None:
    """Check a dataset, an h5py.h5d.DatasetID. Only links and storage matter for one of another program."""
    import h5py

    plan = dataset.get_create_plist()
    if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
        raise ValueError(f"/{name} keeps its content in another file; expected: all content in the file itself")
    filters = [plan.get_filter(number)[0] for number in range(plan.get_nfilters())]
    if not set(filters) <= set(_FILTERS) or len(set(filters)) < len(filters):
        raise ValueError(
            f"/{name} has the filters {filters}; expected: each at most once of {', '.join(_FILTERS.values())}"
        )
    shape = tuple(map(int, dataset.shape or ()))
    item_bytes = int(dataset.get_type().get_size())
    if column is not None:
        _check_type(dataset, name, column, shape)
    chunk = plan.get_chunk() if plan.get_layout() == h5py.h5d.CHUNKED else ()
    if item_bytes * math.prod(chunk) > _MAX_CHUNK_BYTES:
        raise ValueError(f"/{name} has chunks of {chunk}; expected: at most {_MAX_CHUNK_BYTES >> 20} MB each")
    declared, stored = item_bytes * math.prod(shape), int(dataset.get_storage_size())
    packed = bool({1, 32000} & set(filters))
    ratio = (column.ratio if packed and column else _MAX_DEFLATE_RATIO if packed else 1) * (
        _SALVAGED_SHARE if salvage else 1
    )
    if declared > _SMALL_BYTES + ratio * stored:
        raise ValueError(
            f"/{name} claims the shape {shape}, {declared:,} bytes, which is more than the file can hold: "
            f"{stored:,} bytes are stored"
        )


def _check_type(dataset: Any, name: str, column: Column, shape: tuple[int, ...]) -> None:
    """Check type and shape of a dataset of ours."""
    import h5py

    kind: Any
    try:
        kind = dataset.dtype
    except TypeError:  # a type that NumPy does not have
        kind = None
    if kind is None:
        right = False
    elif column.lists:
        right = h5py.check_vlen_dtype(kind) == np.uint8
    elif column.kinds:
        right = any(kind == np.dtype(each) for each in column.kinds)
    else:
        right = kind.kind == "S" and kind.itemsize <= MAX_TEXT_BYTES
    if column.lists:  # so that `heaps` can look at its places
        right &= dataset.get_create_plist().get_layout() != h5py.h5d.CHUNKED
    right &= len(shape) == 1 + len(column.shape) and all(
        1 <= length <= MAX_DIMENSION if expected is None else length == expected
        for length, expected in zip(shape[1:], column.shape, strict=False)
    )
    if not right:
        raise ValueError(f"/{name} is {kind}, {shape}; expected: {column.expected()}")


def _text(name: str) -> str:
    """A name for an error, which stays short."""
    return name if len(name) <= 100 else f"{name[:97]}..."


def require_relative(names: list[bytes], start: int, dataset: str) -> list[bytes]:
    """Return paths of a file, if all of them lead below its root.

    Args:
        names: paths, as stored.
        start: the row of the first.
        dataset: where they are stored, for the error.
    Raises:
        ValueError: one is absolute or empty, has a NUL byte, or leads upwards by `..`.
    """
    for row in _leading_outside(names):
        raise ValueError(f"row {start + row} of /{dataset} is {names[row][:100]!r}; expected: a path below the root")
    return names


def _leading_outside(names: list[bytes]) -> Iterator[int]:
    """Yield the positions of paths that do not lead below the root."""
    joined = b"\0".join(
        [b"", *names, b""]
    )  # looked at as a whole first: one name at a time would take ten times as long
    if names and (b".." in joined or b"\0/" in joined or b"\0\0" in joined or joined.count(b"\0") != len(names) + 1):
        for row, name in enumerate(names):
            if not is_relative(name):
                yield row


def is_relative(name: bytes) -> bool:
    """Whether a stored path leads below the root."""
    return bool(name) and not name.startswith(b"/") and b"\0" not in name and b".." not in name.split(b"/")
