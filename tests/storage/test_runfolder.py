"""The folder of a run: one run per output, and a plan that survives a kill."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.errors import ConfigError, LockedError, StorageError
from runtime.storage.contract import EmbeddingContract
from runtime.storage.runfolder import RunFolder, StoredPlan, folder_of, sweep_leftovers
from tests.support.errors import raises

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
ROOT = Path(__file__).resolve().parents[2]
PLAN = StoredPlan(
    EmbeddingContract(model="m", limit=0), "/photos", 3, "2026-01-01T00:00:00+00:00", settings={"batch_size": 8}
)


def test_a_written_plan_can_be_read(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "o.h5") as folder:
        assert folder.read_plan() is None
        folder.write_plan(PLAN)
    with RunFolder(tmp_path / "o.h5") as folder:
        assert folder.read_plan() == PLAN
        folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_without_a_plan_is_removed(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "o.h5"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_writer_killed_after_its_file_was_whole_leaves_a_folder_that_is_swept(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "o.h5")
    sweep_leftovers(tmp_path / "o.h5")
    for name in ("lock", "paths", "segment-0-7.h5.partial"):
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / name).touch(0o600)
        sweep_leftovers(tmp_path / "o.h5")
        assert not folder.exists()


def test_an_unfinished_run_and_a_foreign_file_are_not_swept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "o.h5") as unfinished:
        unfinished.write_plan(PLAN)
    foreign = folder_of(tmp_path / "other.h5")
    foreign.mkdir(mode=0o700)
    (foreign / "notes.txt").touch()
    for name in ("o.h5", "other.h5"):
        sweep_leftovers(tmp_path / name)
    assert (unfinished.path / "plan.json").exists()
    assert (foreign / "notes.txt").exists()


def test_a_folder_that_a_run_holds_is_not_swept(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "o.h5") as folder:
        sweep_leftovers(tmp_path / "o.h5")
        assert (folder.path / "lock").exists()


@pytest.mark.slow
def test_a_second_run_is_refused_until_the_first_dies(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom runtime.storage.runfolder import RunFolder\n"
        f"with RunFolder(Path({str(tmp_path / 'o.h5')!r})):\n    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with raises(LockedError, tmp_path / "o.h5"):
            RunFolder(tmp_path / "o.h5")
        holder.kill()
        holder.wait()
    with RunFolder(tmp_path / "o.h5") as folder:
        assert folder.read_plan() is None


def test_a_damaged_plan_is_refused_with_a_fix(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "o.h5") as folder:
        (folder.path / "plan.json").write_text("{half")
        with raises(StorageError, "--force"):
            folder.read_plan()


def test_a_plan_that_the_machine_cannot_read_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RunFolder(tmp_path / "o.h5") as folder:
        folder.write_plan(PLAN)
        monkeypatch.setattr(os, "read", refuse)
        with raises(StorageError, folder.path / "plan.json", "Input/output error") as caught:
            folder.read_plan()
    assert "--force" not in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_a_missing_source_is_an_error(tmp_path: Path) -> None:
    with raises(StorageError, "No such file"):
        RunFolder(tmp_path / "o.h5", like=tmp_path / "none.h5")
    assert list(tmp_path.iterdir()) == []


def test_an_output_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for place in ("file", "nowhere"):
        with raises(ConfigError, tmp_path / place, "mkdir"):
            RunFolder(tmp_path / place / "o.h5")


@as_root
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_root_and_the_group_of_a_file_use_its_run_folder(mode: int, tmp_path: Path) -> None:
    """The folder of a run gets the owner and group of the file, whose users may also resume it."""
    output = tmp_path / "o.h5"
    output.touch()
    output.chmod(mode)
    os.chown(output, 1234, 1234)
    umask = os.umask(0)
    try:
        for _ in range(2):  # made, then resumed
            with RunFolder(output) as folder:
                folder.write_plan(PLAN)
                status = folder.path.stat()
                assert (status.st_uid, status.st_gid) == (1234, 1234)
                assert status.st_mode & 0o777 == {0o600: 0o700, 0o660: 0o770, 0o666: 0o775}[mode]
    finally:
        os.umask(umask)


@as_root
def test_a_run_folder_of_a_third_user_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    output.touch()
    output.chmod(0o660)
    os.chown(output, 1234, 1234)
    planted = folder_of(output)
    planted.mkdir(mode=0o700)
    for owner, group, mode in ((4321, 1234, 0o700), (1234, 4321, 0o770), (1234, 1234, 0o772)):
        planted.chmod(mode)
        os.chown(planted, owner, group)
        with raises(ConfigError, planted):
            RunFolder(output)
        assert list(planted.iterdir()) == []
    os.chown(output, 0, 0)
    planted.chmod(0o700)
    with raises(ConfigError, planted):
        RunFolder(output)


def test_a_refused_run_leaves_nothing_in_a_folder_of_another_program(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "o.h5")
    folder.mkdir(mode=0o700)
    (folder / "notes.txt").touch()
    with raises(ConfigError, "notes.txt"):
        RunFolder(tmp_path / "o.h5")
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("command", ["sweep", "lock"])
def test_the_old_name_that_a_power_cut_kept_is_removed(command: str, tmp_path: Path) -> None:
    """The disk may keep the new name of a renamed file without dropping the old one: both are the finished file."""
    output, temporary = tmp_path / "o.h5", tmp_path / "o.h5.partial"
    output.write_bytes(b"rows")
    os.link(output, temporary)
    if command == "sweep":
        sweep_leftovers(output)
    else:
        with RunFolder(output):
            assert temporary.exists()
    assert os.listdir(tmp_path) == ["o.h5"]
    assert output.read_bytes() == b"rows"
