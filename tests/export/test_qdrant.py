"""A collection of Qdrant that holds what the file holds, in the store that qdrant-client brings."""

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
from runtime.storage.derived import recorded_elsewhere
from runtime.storage.file import EmbeddingFile
from tests.support.errors import assert_names, raises, warnings_in
from tests.support.export_files import ODD, write_file
from tests.support.facemill_command import ROOT

qdrant_client = pytest.importorskip("qdrant_client", reason="qdrant-client is not installed: pip install '.[qdrant]'")
ROOT_OF_PHOTOS = b"/photos/\xfe"


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.export.qdrant._BATCH_POINTS", 16)


def exported(file: Path, store: Path, collection: str = "people", *, recreate: bool = False) -> UploadCounts:
    with EmbeddingFile(file) as gallery:
        return export_qdrant(gallery, f"path:{store}", collection, recreate=recreate)


@contextmanager
def opened(store: Path) -> Iterator[Any]:
    client = qdrant_client.QdrantClient(path=str(store))
    try:
        yield client
    finally:
        client.close()


def points_in(store: Path, collection: str = "people") -> dict[str, Any]:
    with opened(store) as client:
        points, more = client.scroll(collection, limit=1000, with_payload=True, with_vectors=True)
    assert more is None
    return {str(point.id): point for point in points}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_each_row_is_a_point_with_its_vector_and_payload(tmp_path: Path, dtype: str) -> None:
    file, vectors, paths = write_file(tmp_path / "people.h5", count=40, dtype=dtype, faces=True, cluster=True)
    done = exported(file, tmp_path / "store")
    assert (done.sent, done.kept, done.points) == (40, 0, 40)
    assert recorded_elsewhere(file) == [f"the collection people of Qdrant, folder {tmp_path / 'store'}"]
    points = points_in(tmp_path / "store")
    assert len(points) == 40
    with h5py.File(file) as source:
        ranks, boxes, clusters = (source[name][:] for name in ("face_index", "faces/box", "cluster"))
    for row, path in enumerate(paths):
        photograph = os.path.join(ROOT_OF_PHOTOS, path)
        point = points[point_id(photograph, int(ranks[row]))]
        np.testing.assert_array_equal(np.array(point.vector, np.float32), vectors[row].astype(np.float32))
        payload = dict(point.payload)
        assert bytes.fromhex(payload.pop("path_hex")) == photograph  # the root is not UTF-8, so none of them is
        assert payload.pop("path") == photograph.decode("utf-8", "backslashreplace")
        assert payload.pop("contract")
        assert payload == {
            "row": row,
            "face_index": ranks[row],
            "box": boxes[row].tolist(),
            "cluster": clusters[row],
            "model": "net",
            "revision": done.revision,
        }


def test_a_search_there_gives_the_order_and_the_scores_of_exact_search(tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    exported(file, tmp_path / "store")
    exact = vectors.astype(np.float64)
    with opened(tmp_path / "store") as client:
        for query in range(0, 60, 7):
            scores = exact @ exact[query]
            hits = client.query_points("people", query=vectors[query].tolist(), limit=20).points
            assert [hit.payload["row"] for hit in hits] == np.argsort(-scores)[:20].tolist()
            np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:20], atol=1e-6)


def test_paths_that_are_utf8_need_no_bytes(tmp_path: Path) -> None:
    file, _, paths = write_file(tmp_path / "people.h5", count=6, root=b"/photos")
    exported(file, tmp_path / "store")
    found = {point.payload["path"]: point.payload for point in points_in(tmp_path / "store").values()}
    for path in paths:
        payload = found["/photos/" + path.decode("utf-8", "backslashreplace")]
        assert ("path_hex" in payload) == (path == ODD[2])


def test_ids_are_uuids_of_photograph_and_face() -> None:
    ids = {point_id(b"/a/b.jpg", 0), point_id(b"/a/b.jpg", 1), point_id(b"/a/b.jpg\xff", 0), point_id(b"/a/c.jpg", 0)}
    assert len(ids) == 4
    assert all(uuid.UUID(one).version == 5 for one in ids)
    assert (
        point_id(b"/a/b.jpg", 0) == "18abc1fa-873d-5760-8afb-7cd507b63302"
    )  # another one would double every collection


def test_the_same_command_sends_nothing_twice(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=40)
    first = exported(file, tmp_path / "store")
    again = exported(file, tmp_path / "store")
    assert (again.sent, again.kept, again.points) == (0, 40, 40)
    assert again.revision == first.revision


KILLED = """
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


def test_killed_on_the_way_it_goes_on_where_it_stopped(tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=60)
    code = KILLED.format(root=str(ROOT), file=str(file), store=str(tmp_path / "store"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9, done.stderr
    assert len(points_in(tmp_path / "store")) == 32
    again = exported(file, tmp_path / "store")
    assert (again.sent, again.kept, again.points) == (28, 32, 60)
    rows = {point.payload["row"]: point.vector for point in points_in(tmp_path / "store").values()}
    np.testing.assert_array_equal(np.array([rows[row] for row in range(60)], np.float32), vectors)


def test_a_file_that_has_changed_updates_the_points_of_the_same_faces(tmp_path: Path) -> None:
    """After a removal all rows have moved; the points stay, and know their new rows."""
    file, _, _ = write_file(tmp_path / "people.h5", count=40, seed=3)
    later, vectors, paths = write_file(tmp_path / "later.h5", count=40, seed=3, skip=2)
    first = exported(file, tmp_path / "store")
    second = exported(later, tmp_path / "store")
    assert (second.sent, second.points) == (38, 40)
    assert first.revision != second.revision
    points = points_in(tmp_path / "store")
    for row, path in enumerate(paths):
        point = points[point_id(os.path.join(ROOT_OF_PHOTOS, path), 0)]
        assert (point.payload["row"], point.payload["revision"]) == (row, second.revision)
        np.testing.assert_array_equal(np.array(point.vector, np.float32), vectors[row])
    stale = {name for name, point in points.items() if point.payload["revision"] != second.revision}
    assert stale == {point_id(os.path.join(ROOT_OF_PHOTOS, path), 0) for path in ODD[:2]}  # for the documents' filter


def test_other_clusters_are_sent_again(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20, cluster=True)
    exported(file, tmp_path / "store")
    with h5py.File(file, "r+") as source:
        source["cluster"][3] = 77  # the run_id stays
    assert exported(file, tmp_path / "store").sent == 20
    assert 77 in {point.payload["cluster"] for point in points_in(tmp_path / "store").values()}


def test_a_photograph_that_was_named_twice_is_one_point(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    with h5py.File(file, "r+") as source:
        source["image_paths"][11] = source["image_paths"][10]
    done = exported(file, tmp_path / "store")
    assert (done.sent, done.kept, done.points) == (19, 1, 19)
    assert exported(file, tmp_path / "store").sent == 0


def test_a_collection_of_another_kind_is_refused_and_stays(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    others = {
        "other_dimension": write_file(tmp_path / "wide.h5", count=6, dimension=32)[0],
        "other_model": write_file(tmp_path / "model.h5", count=6, sha256="cd" * 32)[0],
    }
    for name, other in others.items():
        exported(other, tmp_path / "store", name)
    from qdrant_client import models

    with opened(tmp_path / "store") as client:
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
            exported(file, tmp_path / "store", name)
    assert len(points_in(tmp_path / "store", "other_model")) == 6
    assert len(points_in(tmp_path / "store", "foreign")) == 1


def test_recreate_begins_anew(tmp_path: Path) -> None:
    other, _, _ = write_file(tmp_path / "wide.h5", count=6, dimension=32)
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    exported(other, tmp_path / "store")
    done = exported(file, tmp_path / "store", recreate=True)
    assert (done.sent, done.points) == (20, 20)


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".x", "a b", "caf\u00e9", "a" * 256])
def test_names_that_are_no_collection_are_refused(tmp_path: Path, name: str) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=6)
    with raises(ConfigError, repr(name)):
        exported(file, tmp_path / "store", name)
    assert not (tmp_path / "store").exists()


def test_a_large_store_without_a_server_is_warned_of_once_in_our_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With warnings as errors, qdrant-client's own would end the export."""
    monkeypatch.setattr("runtime.export.qdrant._MAX_LOCAL_POINTS", 10)
    monkeypatch.setattr("qdrant_client.local.local_collection.LocalCollection.LARGE_DATA_THRESHOLD", 10)
    file, _, _ = write_file(tmp_path / "people.h5", count=20)
    assert exported(file, tmp_path / "store").points == 20
    (warning,) = warnings_in(caplog)
    assert_names(warning, 20)
