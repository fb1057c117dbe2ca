"""Every file derived from an embedding file is as private as that file. The library ensures it, not the commands.

The umask of these tests makes new files readable for all users, and no command runs.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from runtime.clusters.clusters import number_clusters
from runtime.clusters.folders import write_folders
from runtime.clusters.outputs import write_column, write_list
from runtime.engines.engine import read_engine
from runtime.errors import ConfigError
from runtime.export.npy import export_npy
from runtime.export.parquet import export_parquet
from runtime.faces.rules import FaceRules
from runtime.index.approximate import ApproximateIndex
from runtime.index.flat import FlatIndex
from runtime.index.measure import IndexFacts
from runtime.maintenance.add import add
from runtime.maintenance.merge import merge
from runtime.maintenance.remove import Removal
from runtime.maintenance.repair import repair
from runtime.pages.map import draw_map
from runtime.pages.pairs_page import review_page, write_review
from runtime.pages.search_page import PageAnswers, write_page
from runtime.pages.sheets import write_sheets
from runtime.pairs.checkpoint import Checkpoint
from runtime.pairs.pairs import PairQuery, find_pairs
from runtime.pairs.table import PairTable, write_table
from runtime.pipeline.request import Request
from runtime.pipeline.run import process
from runtime.pipeline.work import DigestTable
from runtime.records import Embedded
from runtime.search.answers import Answer, SearchFacts
from runtime.sources.pathtable import write_paths
from runtime.storage.contract import EmbeddingContract
from runtime.storage.file import EmbeddingFile
from runtime.storage.runfolder import RunFolder, StoredPlan
from runtime.storage.segments import SegmentRules, SegmentWriter
from tests.support.clustered_files import people_rows, write_file, write_photos

SIZES = [20] * 20
MODES = [0o600, 0o640]


@pytest.fixture(autouse=True)
def _everybody_may_read_new_files() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture(scope="module")
def finished_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_file(tmp_path_factory.mktemp("private") / "people.h5", people_rows(SIZES))
    write_photos(path, [b"%04d.jpg" % row for row in range(40)])
    return path


@pytest.fixture(params=MODES, ids=oct)
def file(finished_file: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    path = Path(shutil.copy(finished_file, tmp_path / "people.h5"))
    path.chmod(request.param)
    return path


def assert_private(file: Path, *, least: int) -> None:
    """Check that nothing in the folder of a file is more readable than the file, except links and copied photos."""
    allowed = stat.S_IMODE(file.stat().st_mode) | 0o100
    allowed |= (allowed & 0o444) >> 2  # users who may read the file may enter a folder
    paths = [path for path in file.parent.rglob("*") if path != file and not path.is_symlink()]
    assert len(paths) >= least
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode & ~(allowed if path.is_dir() else allowed & ~0o111) & 0o777 == 0, f"{path} has {mode:o}"


def write_pairs(gallery: EmbeddingFile, folder: Path) -> None:
    with Checkpoint(gallery.path) as parts:
        pairs = find_pairs(gallery, parts, PairQuery(0.3, device="cpu", tile_rows=50, save_every_s=0))
        parts.save_arrays({"a": np.zeros(1)})
        assert_private(gallery.path, least=4)  # the search is not finished
        table = PairTable(gallery, pairs.pairs, None)
        write_table(folder / "o.csv", gallery, table)
        write_table(folder / "o.parquet", gallery, table)
        write_review(folder / "o.html", gallery, review_page(gallery, table, "exact", 0.3, 10))


def write_clusters(gallery: EmbeddingFile, folder: Path) -> None:
    scores = np.ones(sum(SIZES), np.float32)
    clusters = number_clusters(np.repeat(np.arange(20), SIZES), scores, method="whispers", threshold=0.5)
    write_list(folder / "o.csv", gallery, clusters)
    write_folders(folder / "links", gallery, clusters, mode="symlink")
    write_sheets(folder / "sheets", gallery, clusters)
    (folder / "open").mkdir(0o777)
    write_sheets(folder / "open", gallery, clusters)  # in a folder that the user made: the pages are private
    (folder / "open").chmod(0o700)


def write_indexes(gallery: EmbeddingFile, folder: Path) -> None:
    FlatIndex(gallery)
    ApproximateIndex(gallery, "sq8", 5)


def write_search_page(gallery: EmbeddingFile, folder: Path) -> None:
    shown = PageAnswers(1, 5)
    shown.add(Answer("0.jpg", SearchFacts(5, "m", "0" * 64, False, IndexFacts("flat")), search_ms=0.5))
    write_page(folder / "o.html", gallery, shown)


WRITERS: dict[str, tuple[int, Callable[[EmbeddingFile, Path], object]]] = {
    "indexes": (4, write_indexes),
    "pairs": (4, write_pairs),
    "clusters": (20, write_clusters),
    "search page": (2, write_search_page),
    "map": (2, lambda gallery, folder: draw_map(gallery, folder / "o.html")),
    "npy": (4, lambda gallery, folder: export_npy(gallery, folder / "npy")),
    "parquet": (2, lambda gallery, folder: export_parquet(gallery, folder / "o.parquet")),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_derived_files_are_as_private_as_their_source(file: Path, name: str) -> None:
    least, write = WRITERS[name]
    with EmbeddingFile(file) as gallery:
        write(gallery, file.parent)
    assert_private(file, least=least)


def test_a_changed_file_keeps_its_mode(file: Path) -> None:
    before = stat.S_IMODE(file.stat().st_mode)
    clusters = number_clusters(
        np.repeat(np.arange(20), SIZES), np.ones(400, np.float32), method="whispers", threshold=0.5
    )
    with EmbeddingFile(file) as gallery:
        run_id = str(gallery.metadata["run_id"])
    write_column(file, clusters, run_id)
    assert stat.S_IMODE(file.stat().st_mode) == before


@pytest.mark.parametrize("again", [False, True])
def test_an_unfinished_run_is_as_private_as_its_sources(file: Path, again: bool) -> None:
    output = file.with_name("other.h5")
    if again:  # created by an earlier run, before the sources were private
        output.with_name("other.h5.parts").mkdir(0o755)
    with RunFolder(output, like=file) as folder:
        folder.write_plan(StoredPlan(EmbeddingContract(), "/", 1, "2026"))
        write_paths(folder.paths_file, [b"a"])
        rules = SegmentRules()
        writer = SegmentWriter(folder.path, plan_id="p", dimension=2, dtype="float32", digests=True, rules=rules)
        writer.append(Embedded(np.arange(1), embeddings=np.ones((1, 2), np.float32)))
        try:
            with DigestTable(folder.path):
                assert len(list(folder.path.iterdir())) == 5  # including the segment under its temporary name
                assert_private(file, least=6)
        finally:
            writer.discard()
            folder.remove()


def test_an_unfinished_run_that_others_can_write_is_refused(file: Path, tmp_path: Path) -> None:
    output = file.with_name("other.h5")
    parts, elsewhere = output.with_name("other.h5.parts"), tmp_path / "elsewhere"
    parts.mkdir(0o777)
    with pytest.raises(ConfigError):
        RunFolder(output, like=file)
    parts.rmdir()
    elsewhere.mkdir(0o700)
    (elsewhere / "precious").write_text("mine")
    parts.symlink_to(elsewhere)
    with pytest.raises(ConfigError):
        RunFolder(output, like=file)
    assert os.listdir(elsewhere) == ["precious"]


@pytest.mark.parametrize("mode", [None, 0o640])
def test_the_requested_mode_applies_to_the_file_and_all_derived_files(
    photos: Path, tiny_engine: Path, tmp_path: Path, mode: int | None
) -> None:
    output = tmp_path / "people.h5"
    faces = FaceRules(align="none")
    process(Request((str(photos / "1"),), output, read_engine(tiny_engine), faces=faces, decoder="opencv", mode=mode))
    assert stat.S_IMODE(output.stat().st_mode) == (mode or 0o600)
    with EmbeddingFile(output) as gallery:
        FlatIndex(gallery)
    assert_private(output, least=2)
    assert not (tmp_path / "people.h5.parts").exists()
    with pytest.raises(ConfigError):
        Request((str(photos),), output, read_engine(tiny_engine), faces=faces, mode=0o4755)


@pytest.mark.slow
def test_merged_repaired_and_reduced_files_keep_their_privacy(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    engine = read_engine(tiny_engine)
    first, second = tmp_path / "1" / "people.h5", tmp_path / "2" / "people.h5"
    for path in (first, second):
        path.parent.mkdir(0o700)
        process(
            Request((str(photos / path.parent.name),), path, engine, faces=FaceRules(align="none"), decoder="opencv")
        )
        assert stat.S_IMODE(path.stat().st_mode) == 0o600  # for any umask, because faces are personal data
    first.chmod(0o640)
    second.chmod(0o604)
    merge([first, second], tmp_path / "both.h5")
    assert stat.S_IMODE((tmp_path / "both.h5").stat().st_mode) == 0o600

    first.chmod(0o600)
    add(first, [str(photos / "3")], engine=engine)
    with Removal(first) as removal:
        names = [os.fsencode(photos / "3")]
        removal.erase(removal.find(names), names)
    assert_private(first, least=1)  # the receipt
    with h5py.File(first, "r+") as damaged:
        damaged["metadata"].attrs["scanned"] = 12345
    assert repair(first, first.with_name("repaired.h5")).findings
    assert_private(first, least=2)
