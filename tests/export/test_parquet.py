"""Export to a Parquet file: pyarrow reads back all data of the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.errors import ConfigError, MissingDependencyError, OutputExistsError
from runtime.export.parquet import export_parquet
from runtime.storage.derived import take_fingerprint
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from tests.support.errors import raises
from tests.support.export_files import ODD, write_file
from tests.support.facemill_command import ROOT

pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed: pip install '.[parquet]'")
pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install '.[parquet]'")


def export(file: Path, output: Path, *, force: bool = False) -> Path:
    with EmbeddingFile(file) as gallery:
        export_parquet(gallery, output, force=force)
    return output


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("faces", [False, True])
def test_the_export_has_all_data_of_the_file(
    tmp_path: Path, dtype: str, faces: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.storage.file._BLOCK_BYTES", 7 * 16 * 4)  # seven rows at a time
    file, vectors, paths = write_file(tmp_path / "people.h5", dtype=dtype, faces=faces, cluster=faces)
    output = export(file, tmp_path / "people.parquet")
    table = pq.read_table(output)
    kind = pa.float32() if dtype == "float32" else pa.float16()
    assert table.schema.field("embedding").type == pa.list_(kind, 16)
    array = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 16)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, vectors)
    assert table["row"].to_pylist() == list(range(len(vectors)))
    texts = [path.decode("utf-8", "backslashreplace") for path in paths]
    assert table["path"].to_pylist() == texts
    exact = [raw or text.encode() for raw, text in zip(table["path_bytes"].to_pylist(), texts, strict=True)]
    assert exact == paths
    assert table["path_bytes"].null_count == len(paths) - paths.count(ODD[2])
    if not faces:
        assert table.column_names == ["row", "path", "path_bytes", "embedding"]
        return
    with h5py.File(file) as source:
        box = np.stack([table[edge].to_numpy() for edge in ("left", "top", "right", "bottom")], axis=1)
        np.testing.assert_array_equal(box, source["faces/box"][:])
        landmarks = table["landmarks"].combine_chunks().flatten().to_numpy().reshape(-1, 5, 2)
        np.testing.assert_array_equal(landmarks, source["faces/landmarks"][:])
        for name in ("score", "iod", "sharpness", "frontal"):
            np.testing.assert_array_equal(table[name].to_numpy(), source[f"faces/{name}"][:])
        for name in ("face_index", "cluster"):
            assert table.schema.field(name).type == pa.from_numpy_dtype(source[name].dtype)
            np.testing.assert_array_equal(table[name].to_numpy(), source[name][:])


def test_the_schema_has_the_metadata_of_the_file(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    metadata = pq.read_schema(export(file, tmp_path / "o.parquet")).metadata
    assert metadata[b"model"] == b"net"
    assert metadata[b"model_sha256"] == b"ab" * 32
    assert json.loads(metadata[b"contract"])["dimension"] == 16
    all_metadata = json.loads(metadata[b"facemill"])
    assert bytes.fromhex(all_metadata["root_hex"]) == b"/photos/\xfe"
    with h5py.File(file) as source:
        assert all_metadata["run_id"] == source["metadata"].attrs["run_id"]


@pytest.mark.slow
def test_row_groups_have_a_bounded_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=70_000, dimension=4)
    with pq.ParquetFile(export(file, tmp_path / "o.parquet")) as parquet_file:
        sizes = [parquet_file.metadata.row_group(i).num_rows for i in range(parquet_file.num_row_groups)]
        last = parquet_file.read_row_group(2, ["embedding"])["embedding"].to_pylist()
    assert sizes == [32_768, 32_768, 4464]
    np.testing.assert_array_equal(np.array(last, np.float32), vectors[65_536:])


def test_a_file_without_embeddings_is_a_table_without_rows(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5", count=0, faces=True)
    table = pq.read_table(export(file, tmp_path / "o.parquet"))
    assert table.num_rows == 0
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 16)


def test_an_existing_file_is_replaced_only_with_force(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    output = tmp_path / "o.parquet"
    output.write_bytes(b"PAR1mine")
    with raises(OutputExistsError, "--force"):
        export(file, output)
    assert output.read_bytes() == b"PAR1mine"
    file.chmod(0o600)
    export(file, output, force=True)
    assert pq.read_table(output).num_rows == 60
    assert take_fingerprint(output) in read_list(file).written[output]
    assert output.stat().st_mode & 0o077 == 0  # the export is as private as the file
    assert read_list(file).pages() == [output]


def test_the_embedding_file_is_never_replaced(tmp_path: Path) -> None:
    file, _, _ = write_file(tmp_path / "people.parquet")
    before = file.read_bytes()
    (tmp_path / "link.parquet").symlink_to(file)
    for output in (file, tmp_path / "link.parquet", tmp_path / "people.txt"):
        with raises(ConfigError):
            export(file, output, force=True)
    assert file.read_bytes() == before


def test_a_missing_package_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, _, _ = write_file(tmp_path / "people.h5")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with raises(MissingDependencyError, "pip install pyarrow"):
        export(file, tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


MEMORY_CODE = """
import sys, tracemalloc
sys.path.insert(0, {root!r})
from pathlib import Path
import pyarrow as pa
import runtime.export.parquet, runtime.storage.file
runtime.storage.file._BLOCK_BYTES = 1 << 19
with runtime.storage.file.EmbeddingFile(Path({file!r})) as gallery:
    tracemalloc.start()
    runtime.export.parquet.export_parquet(gallery, Path({output!r}))
    print(tracemalloc.get_traced_memory()[1] + pa.default_memory_pool().max_memory())
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    file, vectors, _ = write_file(tmp_path / "people.h5", count=100_000, dimension=64)
    code = MEMORY_CODE.format(root=str(ROOT), file=str(file), output=str(tmp_path / "o.parquet"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < vectors.nbytes / 2, f"{int(result.stdout):,} of {vectors.nbytes:,} bytes"
    assert pq.read_metadata(tmp_path / "o.parquet").num_rows == 100_000
