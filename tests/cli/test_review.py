"""The commands obey decisions, keep them when files are changed or joined, and erase those about removed photos."""

from __future__ import annotations

import csv
import json
from itertools import combinations
from pathlib import Path

import h5py
import numpy as np
import pytest

import runtime as facemill_library
from runtime.maintenance import remove as removal
from runtime.review.review import Review
from runtime.review.store import ReviewStore, review_path
from runtime.storage.verify import verify_file
from tests.support.clustered_files import people_rows, person_of_rows, write_file
from tests.support.errors import assert_names
from tests.support.extras import require_package
from tests.support.facemill_command import facemill
from tests.support.people_files import embed_folder, files_that_hold, make_people, paths_in

require_package("scipy", "cluster")
SIZES = [4, 3, 2, 1]
COMPARE = ("--device", "cpu")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows(SIZES, noise=0.3))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def listed(path: Path) -> dict[tuple[int, int], str]:
    """The decision about each pair of a list."""
    return {(int(line["row_a"]), int(line["row_b"])): line["decision"] for line in read_csv(path)}


@pytest.mark.slow
def test_decided_pairs_are_not_listed_again(file: Path, tmp_path: Path) -> None:
    pairs = ("pairs", file, "--threshold", 0.6, *COMPARE)
    assert facemill(*pairs, "-o", tmp_path / "all.csv").returncode == 0
    assert "decision" not in read_csv(tmp_path / "all.csv")[0]
    with Review(file) as review:
        review.decide(0, 1, "different")
        review.decide(1, 2, "same")
        review.decide(4, 5, "undecided")
    result = facemill(*pairs, "-o", tmp_path / "some.csv", "--review")
    assert "review: 2 decided pairs left out" in result.stdout.splitlines()  # that 0 is not 2 follows
    some = listed(tmp_path / "some.csv")
    everything = {(int(line["row_a"]), int(line["row_b"])) for line in read_csv(tmp_path / "all.csv")}
    assert everything - set(some) == {(0, 1), (0, 2)}
    assert {pair: decision for pair, decision in some.items() if decision} == {(1, 2): "same", (4, 5): "undecided"}
    assert facemill(*pairs, "-o", tmp_path / "left.csv", "--undecided").returncode == 0
    assert set(some) - set(listed(tmp_path / "left.csv")) == {(1, 2)}
    with Review(file) as review:
        assert [review.undo_pair() is None for _ in range(4)] == [False, False, False, True]
    assert facemill(*pairs, "-o", tmp_path / "again.csv", "--review").returncode == 0
    assert set(listed(tmp_path / "again.csv")) == everything


@pytest.mark.slow
def test_clusters_obey_decisions_and_forget_undone_ones(file: Path, tmp_path: Path) -> None:
    def clusters(*options: object) -> np.ndarray:
        result = facemill("cluster", file, *options, *COMPARE, "-o", tmp_path / "list.csv", "--force")
        assert result.returncode == 0, result.stderr
        with h5py.File(file) as opened:
            return np.array(opened["cluster"][:])

    how = ("--threshold", 0.6)
    plain = clusters(*how)
    assert plain.tolist() == (person_of_rows(SIZES) + 1).tolist()
    with Review(file) as review:
        review.decide(0, 4, "same")  # joins the first two people
        review.split([8], [7])
        review.decide(7, 9, "same")
        review.name([0, 1], "=Anna")
    for options in (how, ("-k", 4)):
        labels = clusters(*options)
        assert labels[0] == labels[4]
        assert labels[7] == labels[9] != labels[8]
        if options == how:
            assert len(set(labels[:7].tolist())) == 1
            names = {int(line["row"]): line["name"] for line in read_csv(tmp_path / "list.csv")}
            assert [name for _, name in sorted(names.items())] == ["=Anna"] * 7 + [""] * 3
            with h5py.File(file) as opened:
                assert opened["cluster_before_review"][:].tolist() == plain.tolist()
        assert verify_file(file).findings == ()
    assert clusters(*how, "--no-review").tolist() == plain.tolist()
    with h5py.File(file) as opened:
        assert "cluster_before_review" not in opened
    with Review(file) as review:
        while review.undo_pair() or review.undo_cluster():
            pass
    assert clusters(*how).tolist() == plain.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_no_decision_is_broken_by_any_clustering(seed: int, tmp_path: Path) -> None:
    sizes = [5, 4, 3, 2, 1]
    file = write_file(tmp_path / "people.h5", people_rows(sizes, noise=0.6, seed=seed))
    rng = np.random.default_rng(seed)
    with Review(file) as review:
        for _ in range(12):
            a, b = rng.choice(15, 2, replace=False).tolist()
            review.decide(a, b, "same" if rng.random() < 0.4 else "different")
        for threshold in (0.3, 0.5, 0.7):
            report = facemill_library.cluster(file, threshold=threshold, write_column=False, device="cpu")
            for a, b in combinations(range(15), 2):
                together = report.numbers[a] == report.numbers[b]
                assert together or review.state(a, b) != "same"
                assert not together or review.state(a, b) != "different"


@pytest.fixture
def people(tiny_engine: Path, tmp_path: Path) -> Path:
    """An embedding file of four people with four photos each."""
    make_people(tmp_path / "photos", range(4))
    return embed_folder(tmp_path / "photos", tmp_path / "people.h5", tiny_engine)


def row_of(file: Path, name: bytes) -> int:
    return paths_in(file).index(name)


@pytest.mark.slow
def test_removed_photos_are_erased_from_decisions(people: Path, tmp_path: Path) -> None:
    with Review(people) as review:
        review.decide(row_of(people, b"P01/0.jpg"), row_of(people, b"P02/0.jpg"), "different")
        review.name([row_of(people, b"P01/1.jpg")], "Secret")
        review.decide(row_of(people, b"P00/0.jpg"), row_of(people, b"P03/0.jpg"), "same")
    receipt = facemill("remove", people, "--path", "P01/", "--yes", "--json")
    assert receipt.returncode == 0, receipt.stderr
    assert json.loads(receipt.stdout)["faces_erased_from_decisions"] == 2
    assert files_that_hold(tmp_path, b"P01/", b"Secret") == []
    with Review(people) as review:
        assert review.state(row_of(people, b"P00/0.jpg"), row_of(people, b"P03/0.jpg")) == "same"
        assert len(review.rules.constraints.decisions) == 1
    # A photo that comes back is a new one.
    assert facemill("add", people, tmp_path / "photos").returncode == 0
    with Review(people) as review:
        assert review.state(row_of(people, b"P01/0.jpg"), row_of(people, b"P02/0.jpg")) == ""
        assert review.state(row_of(people, b"P00/0.jpg"), row_of(people, b"P03/0.jpg")) == "same"


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before the removal", "during the removal"])
def test_decisions_that_cannot_be_erased_are_named(when: str, people: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Review(people) as review:
        review.decide(row_of(people, b"P01/0.jpg"), row_of(people, b"P02/0.jpg"), "different")
    review_path(people).chmod(0o666)
    arguments = ("remove", people, "--path", "P01/", "--yes")
    with monkeypatch.context() as patch:
        if when == "during the removal":
            patch.setattr(removal, "check_stores", lambda file: None)  # they were good when it looked
        result = facemill(*arguments)
    refused = when == "before the removal"
    assert result.returncode == (1 if refused else 3)
    assert_names(result.stderr, "E-STORAGE" if refused else "E-UNFINISHED", review_path(people))
    assert any("P01/" in str(path) for path in paths_in(people)) == refused
    review_path(people).chmod(0o600)
    assert facemill(*arguments).returncode == 0
    assert b"P01/" not in review_path(people).read_bytes()


@pytest.mark.slow
def test_a_removal_finds_decisions_under_an_earlier_name(people: Path, tmp_path: Path) -> None:
    with Review(people) as review:
        review.decide(row_of(people, b"P01/0.jpg"), row_of(people, b"P02/0.jpg"), "different")
    renamed = people.rename(tmp_path / "staff.h5")
    assert facemill("remove", renamed, "--path", "P01/", "--yes").returncode == 0
    assert files_that_hold(tmp_path, b"P01/") == []


@pytest.mark.slow
def test_joined_files_keep_their_decisions(tiny_engine: Path, tmp_path: Path) -> None:
    files = []
    for name, first in (("north", 0), ("south", 2)):
        make_people(tmp_path / "photos" / name, range(first, first + 2))
        files.append(embed_folder(tmp_path / "photos" / name, tmp_path / f"{name}.h5", tiny_engine))
        with Review(files[-1]) as review:
            review.decide(0, 5, "different")
            review.name([1], name)
    both = tmp_path / "both.h5"
    assert facemill("merge", *files, "-o", both).returncode == 0
    with Review(both) as review:
        for name, first in (("north", "P00"), ("south", "P02")):
            a = row_of(both, f"{name}/{first}/0.jpg".encode())
            assert review.state(a, a + 5) == "different"
            assert review.name_of([a + 1]) == name
    assert len(ReviewStore(both).read().decisions) == 4
    assert facemill("merge", *files, "-o", both, "--force").returncode == 0
    assert len(ReviewStore(both).read().decisions) == 4
