"""Contact sheets show every photo of the larger clusters, load nothing and escape every name."""

from __future__ import annotations

import html.parser
import re
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from runtime.clusters.clusters import Clusters, number_clusters
from runtime.errors import OutputExistsError, StorageError
from runtime.pages import sheets
from runtime.pages.sheets import check_sheets, write_sheets
from runtime.storage.file import EmbeddingFile
from runtime.storage.pagelist import read_list
from runtime.text import printable
from tests.support.clustered_files import EVIL, people_rows, write_file, write_photos
from tests.support.errors import raises

SIZES = [5, 4, 3, 2, 2, 1]
NAMES = [b"%02d.jpg" % i for i in range(15)] + [b"x/" + EVIL, b"y.jpg"]


class Page(html.parser.HTMLParser):
    """Parse a page: links, pictures, anchors, policy and other attributes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.places: list[str] = []
        self.policy = ""
        self.tags: set[str] = set()
        self.names: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "a":
            self.links.append(str(attributes["href"]))
        elif tag == "img":
            self.images.append(attributes)
        elif tag == "section":
            self.places.append(str(attributes["id"]))
        elif tag == "meta" and "http-equiv" in attributes:
            self.policy = str(attributes["content"])
        elif attributes.get("class") == "name":
            self.names.append(str(attributes["title"]))

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_file(tmp_path_factory.mktemp("sheets") / "people.h5", people_rows(SIZES), NAMES)
    write_photos(path, [name for name in NAMES if name != b"03.jpg"])  # this photo is missing
    return path


@pytest.fixture
def clusters() -> Clusters:
    scores = np.random.default_rng(0).uniform(0.4, 0.8, 17).astype(np.float32)
    return number_clusters(np.repeat(np.arange(6), SIZES), scores, method="whispers", threshold=0.5)


def pages(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.html"))


def test_all_photos_of_all_large_clusters_are_shown(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    with EmbeddingFile(file) as gallery:
        assert write_sheets(tmp_path / "s", gallery, clusters) == 1
        names = gallery.names(range(17))
    assert pages(tmp_path / "s") == ["index.html", "sheet-0001.html"]
    page = Page(tmp_path / "s" / "sheet-0001.html")
    assert page.places == ["c1", "c2", "c3", "c4", "c5"]
    best_first = [row for c in range(1, 6) for row in sorted(clusters.rows(c), key=lambda row: -clusters.scores[row])]
    assert page.names == [printable(names[row]) for row in best_first]
    assert len(page.images) == 15
    assert page.text.count("cannot be shown") == 1
    assert f"mean score {clusters.scores[:5].mean():.3f}" in page.text
    index = Page(tmp_path / "s" / "index.html")
    assert index.links == [f"sheet-0001.html#c{i}" for i in range(1, 6)]
    assert "17 embeddings in 6 clusters, 5 of them on the sheets" in index.text
    assert "threshold 0.5" in index.text
    assert read_list(file).pages() == [tmp_path / "s"]
    for sheet in (page, index):
        assert "model planted (sha256 " in sheet.text
        assert "Warning: " not in sheet.text


def test_pages_warn_of_random_weights(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    random = shutil.copy(file, tmp_path / "random.h5")
    with h5py.File(random, "r+") as opened:
        opened["metadata"].attrs["trained"] = False
    with EmbeddingFile(random) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
    for name in pages(tmp_path / "s"):
        assert "random weights: these embeddings identify nobody" in Page(tmp_path / "s" / name).text


def test_pages_load_nothing_and_escape_names(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters, min_rows=1)
    for name in pages(tmp_path / "s"):
        page = Page(tmp_path / "s" / name)
        assert page.policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
        assert page.tags.isdisjoint({"script", "link", "iframe", "object", "form"})
        assert all(str(image["src"]).startswith("data:image/jpeg;base64,") for image in page.images)
        text = (tmp_path / "s" / name).read_text(encoding="utf-8")
        assert "<img src=x" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert not re.search(r"https?://", text)


@pytest.mark.parametrize(
    ("clusters_a_page", "pictures_a_page", "cards", "sheets_made", "indexes"),
    [(2, 1000, 1000, 3, 1), (100, 6, 2, 4, 3), (1, 1, 1, 5, 5), (100, 1000, 5, 1, 1)],
)
def test_pages_are_bounded_and_linked(
    file: Path,
    tmp_path: Path,
    clusters: Clusters,
    monkeypatch: pytest.MonkeyPatch,
    clusters_a_page: int,
    pictures_a_page: int,
    cards: int,
    sheets_made: int,
    indexes: int,
) -> None:
    monkeypatch.setattr(sheets, "_MAX_CLUSTERS", clusters_a_page)
    monkeypatch.setattr(sheets, "_MAX_PICTURES", pictures_a_page)
    monkeypatch.setattr(sheets, "_INDEX_CLUSTERS", cards)
    folder = tmp_path / "s"
    with EmbeddingFile(file) as gallery:
        assert write_sheets(folder, gallery, clusters) == sheets_made
    pages_by_name = {name: Page(folder / name) for name in pages(folder)}
    assert len(pages_by_name) == sheets_made + indexes
    places = [
        place for name in sorted(pages_by_name) if name.startswith("sheet") for place in pages_by_name[name].places
    ]
    assert places == ["c1", "c2", "c3", "c4", "c5"]
    for page in pages_by_name.values():
        assert len(page.places) <= max(1, clusters_a_page)
        for link in page.links:
            name, _, place = link.partition("#")
            assert name in pages_by_name
            assert not place or place in pages_by_name[name].places
    reached, todo = set(), ["index.html"]
    while todo:
        name = todo.pop()
        if name not in reached:
            reached.add(name)
            todo += [link.partition("#")[0] for link in pages_by_name[name].links]
    assert reached == set(pages_by_name)


def test_a_large_cluster_shows_the_best_and_counts_the_others(
    file: Path, tmp_path: Path, clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sheets, "_MAX_CLUSTER_PICTURES", 3)
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
    page = Page(tmp_path / "s" / "sheet-0001.html")
    assert len(page.names) == 3 + 3 + 3 + 2 + 2
    assert "2 more are not shown" in page.text
    assert page.names[:3] == [f"{row:02d}.jpg" for row in np.argsort(-clusters.scores[:5])[:3]]


def test_a_known_face_is_cropped_and_labelled(tmp_path: Path) -> None:
    path = write_file(tmp_path / "people.h5", people_rows([2]), ranks=[0, 3])
    write_photos(path, [b"0000.jpg", b"0001.jpg"])
    clusters = number_clusters(np.array([0, 0]), np.array([0.7, 0.6], np.float32), method="k-means", k=1)
    with EmbeddingFile(path) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
    text = Page(tmp_path / "s" / "sheet-0001.html").text
    assert "face_index 3" in text
    assert "face_index 0" not in text  # the main face of the photo
    assert "k-means, k = 1" in Page(tmp_path / "s" / "index.html").text


def test_without_a_large_cluster_the_index_says_so(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    with EmbeddingFile(file) as gallery:
        assert write_sheets(tmp_path / "s", gallery, clusters, min_rows=9) == 0
        assert "0 of them on the sheets" in Page(tmp_path / "s" / "index.html").text
        with raises(OutputExistsError, "--force"):
            write_sheets(tmp_path / "s", gallery, clusters)
        write_sheets(tmp_path / "s", gallery, clusters, force=True)
    assert pages(tmp_path / "s") == ["index.html", "sheet-0001.html"]


@pytest.mark.parametrize("name", ["note.txt", "sheet-0099.html", "index.html", "sheet-0001.html"])
def test_a_page_of_a_user_is_not_removed(file: Path, tmp_path: Path, clusters: Clusters, name: str) -> None:
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
        with (tmp_path / "s" / name).open("a") as stream:
            stream.write("mine")
        before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
        with raises(OutputExistsError, name):
            check_sheets(tmp_path / "s", force=True)
        with raises(OutputExistsError, name):
            write_sheets(tmp_path / "s", gallery, clusters, force=True)
    after = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    assert after.keys() == before.keys()
    assert all(after[name] == before[name] for name in before if name != ".facemill.json")


def test_after_a_kill_half_a_page_is_replaced(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
        expected = pages(tmp_path / "s")
        (tmp_path / "s" / "index.html").rename(tmp_path / "s" / "index.html.partial")
        mark = tmp_path / "s" / ".facemill.json"
        mark.write_text(mark.read_text().replace("true", "false"))
        write_sheets(tmp_path / "s", gallery, clusters)
    assert pages(tmp_path / "s") == expected
    assert not list((tmp_path / "s").glob("*.partial"))


def test_a_partial_page_of_a_user_is_not_removed(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    """The receipt names the page, and the page is there: no command has left a part of it."""
    note = tmp_path / "s" / "sheet-0001.html.partial"
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
        note.write_text("mine")
        for mark in (True, False):
            with raises(OutputExistsError, note.name):
                write_sheets(tmp_path / "s", gallery, clusters, force=mark)
            (tmp_path / "s" / ".facemill.json").write_text('{"kind": "contact sheets", "finished": false}')
    assert note.read_text() == "mine"


def test_sheets_without_a_receipt_are_not_replaced(file: Path, tmp_path: Path, clusters: Clusters) -> None:
    with EmbeddingFile(file) as gallery:
        write_sheets(tmp_path / "s", gallery, clusters)
        (tmp_path / "s" / "receipt.jsonl").unlink()
        with raises(OutputExistsError, "receipt.jsonl"):
            write_sheets(tmp_path / "s", gallery, clusters, force=True)
    assert pages(tmp_path / "s") == ["index.html", "sheet-0001.html"]


def test_sheets_are_not_written_through_a_link_in_the_place_of_their_folder(
    file: Path, tmp_path: Path, clusters: Clusters, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, other, thumbnails = tmp_path / "out", tmp_path / "other", sheets.thumbnails
    other.mkdir()

    def swap(*arguments: Any, **options: Any) -> list[bytes | None]:
        if not folder.is_symlink():
            folder.rename(tmp_path / "away")
            folder.symlink_to(other)
        return thumbnails(*arguments, **options)

    monkeypatch.setattr(sheets, "thumbnails", swap)
    with EmbeddingFile(file) as gallery, raises(StorageError, "out", "run the same command again"):
        write_sheets(folder, gallery, clusters)
    assert not list(other.iterdir())
