"""Decisions are durable, private, undone and redone one by one, and erased without a trace."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.errors import DiskFullError, StorageError
from runtime.review.constraints import CLUSTER_KINDS, PAIR_KINDS, Decision, Kind
from runtime.review.store import Face, NewDecision, ReviewStore, review_path

ANNA, BEA, CLEO = (Face(b"/photos/" + name, 0) for name in (b"anna.jpg", b"caf\xe9.jpg", b"line\nbreak.jpg"))
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "people.h5"
    path.touch(0o640)
    return path


def pair(kind: Kind, a: Face = ANNA, b: Face = BEA) -> NewDecision:
    return NewDecision(kind, (a,), (b,))


def kinds_in(store: ReviewStore) -> list[Kind]:
    return [decision.kind for decision in store.read().decisions]


def test_a_store_that_does_not_exist_is_empty_and_is_not_created_by_reading(file: Path) -> None:
    store = ReviewStore(file)
    assert (store.clock(), store.read().decisions, store.paths()) == (0, (), [])
    assert store.undo(PAIR_KINDS) is store.redo(PAIR_KINDS) is None
    assert not store.path.exists()


def test_decisions_come_back_with_their_faces(file: Path) -> None:
    store = ReviewStore(file)
    numbers = store.add([pair("same"), NewDecision("split", (ANNA, BEA), (Face(CLEO.path, 3, 2),), name="Ännchen 😀")])
    stored = ReviewStore(file).read()
    faces = {face: number for number, face in stored.faces.items()}
    assert stored.decisions == (
        Decision(numbers[0], "same", (faces[ANNA],), (faces[BEA],)),
        Decision(numbers[1], "split", (faces[ANNA], faces[BEA]), (faces[Face(CLEO.path, 3, 2)],), "Ännchen 😀"),
    )
    assert stored.clock == store.clock() > 0


def test_the_store_is_as_private_as_the_file_and_beside_its_real_path(file: Path, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "link.h5"
    link.symlink_to(file)
    ReviewStore(link).add([pair("same")])
    assert review_path(link) == file.with_name("people.h5.review")
    assert stat.S_IMODE(review_path(file).stat().st_mode) == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["links", "people.h5", "people.h5.review"]


def test_undo_and_redo_walk_through_the_decisions(file: Path) -> None:
    store = ReviewStore(file)
    store.add([pair("same")])
    store.add([pair("different", BEA, CLEO)])
    second, first = store.undo(PAIR_KINDS), store.undo(PAIR_KINDS)
    assert (kinds_in(store), store.undo(PAIR_KINDS)) == ([], None)
    assert (store.redo(PAIR_KINDS), kinds_in(store)) == (first, ["same"])
    assert (store.redo(PAIR_KINDS), kinds_in(store)) == (second, ["same", "different"])
    assert store.redo(PAIR_KINDS) is None
    store.undo(PAIR_KINDS)
    store.add([pair("undecided", ANNA, CLEO)])
    assert store.redo(PAIR_KINDS) is None  # something was decided since
    assert kinds_in(store) == ["same", "undecided"]


def test_people_and_pages_undo_their_own_decisions(file: Path) -> None:
    store = ReviewStore(file)
    store.add([pair("same")], "desk")
    store.add([pair("different", BEA, CLEO)], "gate")
    store.add([NewDecision("name", (ANNA,), name="Anna")], "desk")
    store.undo(PAIR_KINDS, "desk")
    assert kinds_in(store) == ["different", "name"]
    assert store.undo(CLUSTER_KINDS, "gate") is None
    store.add([pair("same", ANNA, CLEO)], "gate")
    assert store.redo(PAIR_KINDS, "desk") is not None


def test_erased_faces_leave_no_byte_and_no_decision_about_nobody(file: Path) -> None:
    store = ReviewStore(file)
    store.add([pair("same"), pair("different", BEA, CLEO), NewDecision("merge", (ANNA, BEA, CLEO), name="Secret")])
    store.add([NewDecision("name", (ANNA,), name="Annabella"), NewDecision("merge", (ANNA, BEA))])
    store.add([pair("same", ANNA, CLEO)])
    store.undo(PAIR_KINDS)  # undone decisions name people too
    assert store.forget([ANNA.path, b"/photos/nobody.jpg"]) == 1
    assert kinds_in(store) == ["different", "merge"]
    assert sorted(store.paths()) == sorted([BEA.path, CLEO.path])
    data = store.path.read_bytes()
    assert b"anna.jpg" not in data
    assert b"Annabella" not in data
    assert BEA.path in data
    assert store.redo(PAIR_KINDS) is None
    store.forget([BEA.path])
    assert kinds_in(store) == []
    assert b"Secret" not in store.path.read_bytes()
    assert not store.path.with_name(store.path.name + "-journal").exists()


def test_stores_are_joined_in_the_order_of_time(tmp_path: Path) -> None:
    stores = []
    for name in ("north", "south", "both"):
        (tmp_path / f"{name}.h5").touch()
        stores.append(ReviewStore(tmp_path / f"{name}.h5"))
    north, south, both = stores
    north.add([pair("same")])
    south.add([pair("different", BEA, CLEO)], "desk")
    south.undo(PAIR_KINDS, "desk")
    both.include([north, south, ReviewStore(tmp_path / "missing.h5")])
    assert kinds_in(both) == ["same"]
    assert both.redo(PAIR_KINDS, "desk") is not None
    assert kinds_in(both) == ["same", "different"]
    assert set(both.read().faces.values()) == {ANNA, BEA, CLEO}


def _add_many(file: Path, who: str) -> None:
    for _ in range(40):
        ReviewStore(file).add([pair("same"), pair("different")], who)


@pytest.mark.slow
def test_processes_and_threads_add_at_once(file: Path) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_add_many, args=(file, f"process {i}")) for i in range(2)]
    for process in others:
        process.start()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda i: _add_many(file, f"thread {i}"), range(4)))
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert len(ReviewStore(file).read().decisions) == 6 * 80


KILLED = """
import sys
from pathlib import Path
from runtime.review.store import Face, NewDecision, ReviewStore
store = ReviewStore(Path(sys.argv[1]))
for number in range(100_000):
    store.add([NewDecision("same", (Face(b"/a/%d" % number),), (Face(b"/b/%d" % number),)) for _ in range(3)])
    print(number, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("lines", [1, 7, 30])
def test_what_was_acknowledged_survives_a_kill(file: Path, lines: int) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED, file], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(lines)][-1]
        process.kill()
        rest = [int(line) for line in process.stdout if line.endswith("\n")]
    last = rest[-1] if rest else last
    decisions = ReviewStore(file).read().decisions
    assert len(decisions) % 3 == 0  # all of a call, or none
    assert len(decisions) // 3 in (last + 1, last + 2)
    ReviewStore(file).add([pair("same")])
    with sqlite3.connect(review_path(file)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


@pytest.mark.parametrize("damage", ["text", "other", "version", "kind", "face", "cut"])
def test_a_store_that_cannot_be_used_is_named_and_kept(file: Path, damage: str) -> None:
    store = ReviewStore(file)
    store.add([pair("same")] * 200)
    if damage == "text":
        store.path.write_bytes(b"decisions of people\n" * 500)
    elif damage == "cut":
        os.truncate(store.path, 4096 * 2 + 100)
    else:
        statements = {
            "other": "PRAGMA application_id = 7",
            "version": "PRAGMA user_version = 99",
            "kind": "UPDATE decisions SET kind = 'no such' WHERE number = 7",
            "face": "DELETE FROM faces WHERE face = 2",
        }
        with sqlite3.connect(store.path) as db:
            db.execute(statements[damage])
        db.close()
    before = store.path.read_bytes()
    with pytest.raises(StorageError, match=r"people\.h5\.review"):
        store.read()
    assert store.path.read_bytes() == before


def test_a_store_that_another_user_may_have_written_is_not_read(file: Path, tmp_path: Path) -> None:
    store = ReviewStore(file)
    store.add([pair("same")])
    store.path.chmod(0o666)
    with pytest.raises(StorageError, match="another user"):
        store.read()
    store.path.chmod(0o600)
    target = tmp_path / "elsewhere"
    store.path.rename(target)
    store.path.symlink_to(target)
    with pytest.raises(StorageError, match="link"):
        store.add([pair("same")])


def test_a_full_disk_stores_all_or_nothing(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ReviewStore(file)
    store.add([pair("same")])
    connect = sqlite3.connect

    def small(*args: object, **options: object) -> sqlite3.Connection:
        db: sqlite3.Connection = connect(*args, **options)  # type: ignore[call-overload]
        db.execute("PRAGMA max_page_count = 8")  # SQLite answers as on a full disk
        return db

    monkeypatch.setattr(sqlite3, "connect", small)
    with pytest.raises(DiskFullError, match="no space left"):
        store.add([NewDecision("same", (Face(b"/x/%d" % i),), (ANNA,)) for i in range(2000)])
    monkeypatch.undo()
    assert kinds_in(store) == ["same"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_decisions_in_a_folder_that_may_only_be_read_are_read(file: Path) -> None:
    ReviewStore(file).add([pair("same")])
    file.parent.chmod(0o500)
    try:
        assert kinds_in(ReviewStore(file)) == ["same"]
    finally:
        file.parent.chmod(0o700)
