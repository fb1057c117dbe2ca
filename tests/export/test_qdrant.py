"""Export to a Qdrant collection, in the local store of qdrant-client."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.errors import ConfigError, ContractError
from runtime.export.qdrant import UploadCounts, export_qdrant, point_id
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.errors import assert_names, raises, warnings_in
from tests.support.export_files import ODD, write_file
from tests.support.extras import require_package
from tests.support.facemill_command import ROOT

require_package("qdrant_client", "qdrant")
ROOT_OF_PHOTOS = b"/photos/\xfe"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.export.qdrant._BATCH_POINTS", 16)


def export(file: Path, store: Path, collection: str = "people", *, recreate: bool = False) -> UploadCounts:
    with EmbeddingFile(file) as gallery:
        return export_qdrant(gallery, f"path:{store}", collection, recreate=recreate)


@contextmanager
def open_store(store: Path) -> Iterator[Any]:
    import qdrant_client

    client = qdrant_client.QdrantClient(path=str(store))
    try:
        yield client
    finally:
        client.close()


def read_points(store: Path, collection: str = "people") -> dict[str, Any]:
    with open_store(store) as client:
        points, more = client.scroll(collection, limit=1000, with_payload=True, with_vectors=True)
    assert more is None
    return {str(point.id): point for point in points}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_row_is_a_point_with_its_vector_and_payload(tmp_path: Path, dtype: str) -> None:
    file, vectors, paths = write_file(tmp_path / "people.h5", count=40, dtype=dtype, faces=True, cluster=True)
    counts = export(file, tmp_path / "store")
    assert (counts.sent, counts.kept, counts.points) == (40, 0, 40)
    assert list(read_list(file).elsewhere) == [f"the collection people of Qdrant, folder {tmp_path / 'store'}"]
    points = read_points(tmp_path / "store")
    assert len(points) == 40
    with h5py.File(file) as source:
        ranks, boxes, clusters = (source[name][:] for name in ("face_index", "faces/box", "cluster"))
    for row, path in enumerate(paths):
        photo = os.path.join(ROOT_OF_PHOTOS, path)
        point = points[point_id(photo, int(ranks[row]))]
        np.testing.assert_array_equal(np.array(point.vector, np.float32), vectors[row].astype(np.float32))
        payload = dict(point.payload)
        assert bytes.fromhex(payload.pop("path_hex")) == photo  # no full path is UTF-8, because the root is not
        assert payload.pop("path") == photo.decode("utf-8", "backslashreplace")
        assert payload.pop("contract")
        assert payload == {
            "row": row,
            "face_index": ranks[row],
            "box": boxes[row].tolist(),
            "cluster": clusters[row],
            "model": "net",
            "revision": counts.revision,
        }


def test_a_search_in_qdrant_equals_exact_search(tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    export(file, tmp_path / "store")
    exact = vectors.astype(np.float64)
    with open_store(tmp_path / "store") as client:
        for query in range(0, 60, 7):
            scores = exact @ exact[query]
            hits = client.query_points("people", query=vectors[query].tolist(), limit=20).points
            assert [hit.payload["row"] for hit in hits] == np.argsort(-scores)[:20].tolist()
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:20], atol=1e-6)


def test_utf8_paths_have_no_path_hex(tmp_path: Path) -> None:
    file, _, paths = write_file(tmp_path / "people.h5", count=6, root=b"/photos")
    export(file, tmp_path / "store")
    payloads = {point.payload["path"]: point.payload for point in read_points(tmp_path / "store").values()}
    for path in paths:
        payload = payloads["/photos/" + path.decode("utf-8", "backslashreplace")]
        assert ("path_hex" in payload) == (path == ODD[2])


def test_ids_are_uuids_of_photo_and_face() -> None:
    ids = {point_id(b"/a/b.jpg", 0), point_id(b"/a/b.jpg", 1), point_id(b"/a/b.jpg\xff", 0), point_id(b"/a/c.jpg", 0)}
    assert len(ids) == 4
    assert all(uuid.UUID(identifier).version == 5 for identifier in ids)
    assert (
        point_id(b"/a/b.jpg", 0) == "18abc1fa-873d-5760-8afb-7cd507b63302"
    )  # a different id would duplicate every collection


def test_a_repeated_export_sends_no_points(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=40)
    first = export(file, tmp_path / "store")
    repeated = export(file, tmp_path / "store")
    assert (repeated.sent, repeated.kept, repeated.points) == (0, 40, 40)
    assert repeated.revision == first.revision


KILL_CODE = """
import os, signal, sys
sys.path.insert(0, {root!r})
from pathlib import Path
import runtime.export.qdrant as q
from runtime.storage.file import EmbeddingFile
q._BATCH_POINTS = 16
send, calls = q._Upload.send, []
def counted(self, block):
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    calls.append(1)
    return send(self, block)
q._Upload.send = counted
with EmbeddingFile(Path({file!r})) as gallery:
    q.export_qdrant(gallery, "path:" + {store!r}, "people")
"""


@pytest.mark.slow
def test_a_killed_export_resumes(tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    code = KILL_CODE.format(root=str(ROOT), file=str(file), store=str(tmp_path / "store"))
    counts = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert counts.returncode == -9, counts.stderr
    assert len(read_points(tmp_path / "store")) == 32
    repeated = export(file, tmp_path / "store")
    assert (repeated.sent, repeated.kept, repeated.points) == (28, 32, 60)
    rows = {point.payload["row"]: point.vector for point in read_points(tmp_path / "store").values()}
    np.testing.assert_array_equal(np.array([rows[row] for row in range(60)], np.float32), vectors)


@pytest.mark.slow
def test_a_changed_file_updates_the_points_of_the_same_faces(tmp_path: Path) -> None:
    """A removal changes row numbers. The points stay and get their new rows."""
    file, _, _ = write_file(tmp_path / "people.h5", count=40, seed=3)
    changed_file, vectors, paths = write_file(tmp_path / "later.h5", count=40, seed=3, skip=2)
    first = export(file, tmp_path / "store")
    second = export(changed_file, tmp_path / "store")
    assert (second.sent, second.points) == (38, 40)
    assert first.revision != second.revision
    points = read_points(tmp_path / "store")
    for row, path in enumerate(paths):
        point = points[point_id(os.path.join(ROOT_OF_PHOTOS, path), 0)]
        assert (point.payload["row"], point.payload["revision"]) == (row, second.revision)
        np.testing.assert_array_equal(np.array(point.vector, np.float32), vectors[row])
    stale = {name for name, point in points.items() if point.payload["revision"] != second.revision}
    assert stale == {
        point_id(os.path.join(ROOT_OF_PHOTOS, path), 0) for path in ODD[:2]
    }  # the filter of the documentation deletes these


def test_changed_clusters_are_sent_again(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20, cluster=True)
    export(file, tmp_path / "store")
    with h5py.File(file, "r+") as source:
        source["cluster"][3] = 77  # the run_id stays
    assert export(file, tmp_path / "store").sent == 20
    assert 77 in {point.payload["cluster"] for point in read_points(tmp_path / "store").values()}


def test_a_photo_listed_twice_is_one_point(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    with h5py.File(file, "r+") as source:
        source["image_paths"][11] = source["image_paths"][10]
    counts = export(file, tmp_path / "store")
    assert (counts.sent, counts.kept, counts.points) == (19, 1, 19)
    assert export(file, tmp_path / "store").sent == 0


@pytest.mark.slow
def test_an_incompatible_collection_is_refused_and_kept(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    other_files = {
        "other_dimension": write_file(tmp_path / "wide.h5", count=6, dimension=32)[0],
        "other_model": write_file(tmp_path / "model.h5", count=6, sha256="cd" * 32)[0],
    }
    for name, other_file in other_files.items():
        export(other_file, tmp_path / "store", name)
    from qdrant_client import models

    with open_store(tmp_path / "store") as client:
        euclid = models.VectorParams(size=16, distance=models.Distance.EUCLID)
        client.create_collection("other_distance", euclid)
        client.create_collection("named", {"a": euclid})
        client.create_collection("foreign", models.VectorParams(size=16, distance=models.Distance.DOT))
        client.upsert("foreign", [models.PointStruct(id=1, vector=[1.0] + [0.0] * 15, payload={"theirs": 1})])
    for name, values in {
        "other_dimension": (32, "Dot", 16),
        "other_model": ("net",),
        "other_distance": (16, "Euclid", "Dot"),
        "named": ("16", "Dot"),
        "foreign": ("None", "net"),
    }.items():
        with raises(ContractError, *values):
            export(file, tmp_path / "store", name)
    assert len(read_points(tmp_path / "store", "other_model")) == 6
    assert len(read_points(tmp_path / "store", "foreign")) == 1


def test_recreate_replaces_the_collection(tmp_path: Path) -> None:
    wide_file, _, _ = write_file(tmp_path / "wide.h5", count=6, dimension=32)
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    export(wide_file, tmp_path / "store")
    counts = export(file, tmp_path / "store", recreate=True)
    assert (counts.sent, counts.points) == (20, 20)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a b", "caf\u00e9", "a" * 256])
def test_invalid_collection_names_are_refused(tmp_path: Path, name: str) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=6)
    with raises(ConfigError, repr(name)):
        export(file, tmp_path / "store", name)
    assert not (tmp_path / "store").exists()


def test_a_large_local_store_gives_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning of qdrant-client must not appear: as an error it would end the export."""
    monkeypatch.setattr("runtime.export.qdrant._MAX_LOCAL_POINTS", 10)
    monkeypatch.setattr("qdrant_client.local.local_collection.LocalCollection.LARGE_DATA_THRESHOLD", 10)
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    assert export(file, tmp_path / "store").points == 20
    (warning,) = warnings_in(caplog)
    assert_names(warning, 20)
