"""Durable files, their locks and their permissions."""

from __future__ import annotations

import doctest
import errno
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime import files
from runtime.errors import ConfigError, DiskFullError, LockedError, OutputExistsError, StorageError
from runtime.files import (
    NewFile,
    create_empty,
    durable_file,
    is_temporary,
    make_folder,
    restrict_folder,
    sweep_temporary,
    synced_file,
    temporary_path,
    write_durable,
)
from runtime.locks import Lock
from runtime.outputs import check_output
from tests.support.errors import raises
from tests.support.facemill_command import ROOT


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask_022() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def holder(code: str) -> subprocess.Popen[str]:
    """Start a process that runs some code, prints a line and sleeps."""
    text = (
        f"import sys, time; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom runtime.files import *\n"
        "from runtime.locks import Lock\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"{text}{code}\nprint('ready', flush=True)\ntime.sleep(60)"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(files).failed == 0


def test_temporary_names_are_recognised(tmp_path: Path) -> None:
    path = tmp_path / "people.h5"
    assert temporary_path(path) == tmp_path / "people.h5.partial"
    assert is_temporary(temporary_path(path))
    assert not is_temporary(path)


def test_a_complete_file_appears_at_the_end_of_the_block(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")
    with durable_file(path, "the list") as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
        assert temporary_path(path).read_bytes() == b"new"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (KeyboardInterrupt("ours"), KeyboardInterrupt, None),
        (ValueError("ours"), ValueError, None),
        (StorageError("ours"), StorageError, "E-STORAGE"),
        (OSError(28, "full"), DiskFullError, "E-DISK-FULL"),
        (OSError(5, "input/output"), StorageError, "E-STORAGE"),
    ],
)
def test_a_block_that_fails_leaves_the_old_file(
    tmp_path: Path, error: BaseException, kind: type[BaseException], code: str | None
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"old")

    def write() -> None:
        with durable_file(path, "the list") as file:
            file.write(b"new")
            raise error

    with pytest.raises(kind) as raised:
        write()
    assert getattr(raised.value, "code", None) == code
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_does_not_exist_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        write_durable(tmp_path / "no" / "a", b"", "the list")


FULL = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for path in (Path({path!r}), Path({path!r})):
    try:
        write_durable(path, bytes(size), "the file")
    except Exception as err:
        print(err.code)
"""


@pytest.mark.parametrize("size", [1001, 10_000_000])
def test_a_full_disk_leaves_no_file(tmp_path: Path, size: int) -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom pathlib import Path\nfrom runtime.files import *\n"
    code += f"size = {size}\n" + FULL.format(path=str(tmp_path / "a"))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["E-DISK-FULL"] * 2, result.stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_writer_leaves_the_old_file_and_does_not_block_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = f"new = NewFile(Path({str(path)!r})); new.file.write(b'half and more'); new.file.flush()"
    with holder(code) as process:
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    assert temporary_path(path).read_bytes() == b"half and more"
    write_durable(path, b"new", "the file")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_temporary_file_of_a_killed_writer_is_swept_and_one_that_is_being_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    sweep_temporary(path)
    temporary_path(path).write_bytes(b"half")
    sweep_temporary(path)
    assert list(tmp_path.iterdir()) == []
    with NewFile(path) as new:
        sweep_temporary(path)
        new.commit()
    assert list(tmp_path.iterdir()) == [path]


def test_a_second_writer_is_refused_with_the_name_of_the_first(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with holder(f"new = NewFile(Path({str(path)!r})); new.file.write(b'half'); new.file.flush()") as process:
        with pytest.raises(LockedError) as raised:
            write_durable(path, b"mine", "the file")
        if Path("/proc/locks").exists():
            assert f"process {process.pid}" in raised.value.message
        assert temporary_path(path).read_bytes() == b"half"
        process.kill()


def test_a_waiting_writer_writes_last(tmp_path: Path) -> None:
    path = tmp_path / "a"
    code = f"""
import threading
new = NewFile(Path({str(path)!r}))
new.file.write(b'first')
threading.Timer(0.5, new.commit).start()
"""
    with holder(code) as process:
        write_durable(path, b"second", "the file", wait=True)
        assert path.read_bytes() == b"second"
        process.kill()
    assert list(tmp_path.iterdir()) == [path]


def test_many_waiting_threads_lose_no_update(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_bytes(b"0")

    def count() -> None:
        for _ in range(10):
            with NewFile(path, wait=True) as new:
                new.file.write(b"%d" % (int(path.read_bytes()) + 1))
                new.commit()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() == b"40"
    assert list(tmp_path.iterdir()) == [path]


def test_a_symbolic_link_under_the_temporary_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"mine")
    temporary_path(tmp_path / "a").symlink_to(tmp_path / "precious")
    write_durable(tmp_path / "a", b"new", "the file")
    assert (tmp_path / "precious").read_bytes() == b"mine"
    assert (tmp_path / "a").read_bytes() == b"new"
    assert sorted(os.listdir(tmp_path)) == ["a", "precious"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link to a pipe"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "a", tmp_path / "target"
    if kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        os.mkfifo(path if kind == "pipe" else target)
        if kind != "pipe":
            path.symlink_to(target)
    before = path.lstat()
    with pytest.raises(OutputExistsError):
        check_output(path, force=True)
    with pytest.raises(OutputExistsError):
        write_durable(path, b"new", "the file")
    assert path.lstat().st_ino == before.st_ino


def test_a_file_system_that_cannot_sync_folders_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    for name in "abc":
        write_durable(tmp_path / name, b"new", "the file")
    assert [record.message for record in caplog.records if str(tmp_path) in record.message] == [caplog.messages[0]]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EIO])
def test_a_file_that_cannot_be_synced_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fsync(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(StorageError):
        write_durable(tmp_path / "a", b"new", "the file")
    assert not os.listdir(tmp_path)


def test_a_file_whose_permissions_cannot_be_set_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fchmod", refuse)
    with pytest.raises(StorageError):
        write_durable(tmp_path / "list.csv", b"a,b", "the list")
    assert list(tmp_path.iterdir()) == []


def test_without_commit_only_a_resumable_file_remains(tmp_path: Path) -> None:
    with NewFile(tmp_path / "a") as new:
        new.file.write(b"half")
    assert not list(tmp_path.iterdir())
    with NewFile(tmp_path / "a", resume=True):
        pass
    assert not list(tmp_path.iterdir())  # an empty file is useless
    with NewFile(tmp_path / "a", resume=True) as new:
        new.file.write(b"half")
        new.file.flush()
    with NewFile(tmp_path / "a", resume=True) as new:
        assert new.file.read() == b"half"
        new.file.write(b", whole")
        new.commit()
    assert (tmp_path / "a").read_bytes() == b"half, whole"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize(
    ("sources", "mode"), [((), 0o600), ((0o600,), 0o600), ((0o640,), 0o640), ((0o666,), 0o644), ((0o640, 0o604), 0o600)]
)
def test_a_derived_file_is_not_more_readable_than_its_sources(
    tmp_path: Path, umask_022: None, sources: tuple[int, ...], mode: int
) -> None:
    like = [tmp_path / f"source{i}" for i in range(len(sources))]
    for path, bits in zip(like, sources, strict=True):
        path.touch()
        path.chmod(bits)
    with durable_file(tmp_path / "a", "the list", like=like) as file:
        assert mode_of(temporary_path(tmp_path / "a")) == mode  # from the first byte
        file.write(b"new")
    assert mode_of(tmp_path / "a") == mode
    with synced_file(tmp_path / "b", like=like) as file:
        assert mode_of(tmp_path / "b") == mode
    create_empty(tmp_path / "c", like=like)
    assert mode_of(tmp_path / "c") == mode


@pytest.mark.parametrize(
    ("old", "source", "mode"), [(0o600, 0o644, 0o600), (0o664, 0o664, 0o664), (0o644, 0o640, 0o640)]
)
def test_a_replaced_file_passes_on_its_mode(tmp_path: Path, umask_022: None, old: int, source: int, mode: int) -> None:
    (tmp_path / "a").touch()
    (tmp_path / "a").chmod(old)
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(source)
    write_durable(tmp_path / "a", b"new", "the list", like=tmp_path / "source")
    assert mode_of(tmp_path / "a") == mode


def test_a_file_of_a_killed_writer_does_not_pass_on_its_mode(tmp_path: Path, umask_022: None) -> None:
    temporary_path(tmp_path / "a").write_bytes(b"left")
    temporary_path(tmp_path / "a").chmod(0o666)
    before = temporary_path(tmp_path / "a").stat().st_ino
    (tmp_path / "source").touch(0o600)
    with temporary_path(tmp_path / "a").open("rb") as spy:  # opened while it could be read
        with durable_file(tmp_path / "a", "the list", like=tmp_path / "source") as file:
            file.write(b"secret")
        assert spy.read() == b"left"
    assert mode_of(tmp_path / "a") == 0o600
    assert (tmp_path / "a").stat().st_ino != before


@pytest.mark.parametrize(("source", "mode"), [(0o600, 0o700), (0o640, 0o750), (0o644, 0o755)])
def test_a_folder_is_accessible_to_the_readers_of_its_sources(
    tmp_path: Path, umask_022: None, source: int, mode: int
) -> None:
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(source)
    with raises(ConfigError, tmp_path / "deep"):  # a chain of folders is a typo, or a disk that is not mounted
        make_folder(tmp_path / "deep" / "folder")
    (tmp_path / "deep").mkdir()
    make_folder(tmp_path / "deep" / "folder", like=tmp_path / "source")
    assert mode_of(tmp_path / "deep" / "folder") == mode
    make_folder(tmp_path / "deep" / "folder")  # it exists
    create_empty(tmp_path / "deep" / "folder" / "a", like=tmp_path / "deep" / "folder")
    assert mode_of(tmp_path / "deep" / "folder" / "a") == source
    (tmp_path / "open").mkdir(0o755)
    restrict_folder(tmp_path / "open", like=tmp_path / "source")
    assert mode_of(tmp_path / "open") == mode
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")


@pytest.mark.slow
def test_a_lock_excludes_others_until_its_process_is_killed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    for name in ("folder", "link", "lock"):
        with holder(f"lock = Lock(Path({str(tmp_path / name)!r}), 'busy', folder={name != 'lock'})") as process:
            with pytest.raises(LockedError) as raised:
                Lock(tmp_path / name, "another run is writing it", folder=name != "lock")
            assert raised.value.message.startswith("another run is writing it")
            if Path("/proc/locks").exists():
                assert f"process {process.pid}" in raised.value.message
            process.kill()
        with (
            Lock(tmp_path / name, "busy", folder=name != "lock"),
            pytest.raises(LockedError),
        ):  # another thread would also be refused
            Lock(tmp_path / name, "busy", folder=name != "lock")
        Lock(tmp_path / name, "busy", folder=name != "lock").release()


def test_a_waiting_lock_is_acquired_when_the_other_process_ends(tmp_path: Path) -> None:
    with holder(f"lock = Lock(Path({str(tmp_path)!r}), 'busy', folder=True)") as process:
        killed: list[int] = []

        def kill() -> None:
            killed.append(process.pid)
            process.kill()

        killer = threading.Timer(0.5, kill)
        killer.start()
        with Lock(tmp_path, "busy", folder=True, wait=True):
            assert killed == [process.pid]
        killer.join()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EBADF])
def test_a_file_system_without_locks_supports_files_but_no_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(fd: int, how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)
    temporary_path(tmp_path / "a").write_bytes(b"left")
    write_durable(tmp_path / "a", b"new", "the file")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]
    Lock(tmp_path, "busy", folder=True).release()
    with pytest.raises(OSError, match=os.strerror(number)):
        Lock(tmp_path / "lock", "busy")


def test_unusable_paths_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "there.csv").touch()
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone")
    check_output(tmp_path / "new.csv", "the list", (".csv",), force=False)
    check_output(tmp_path / "there.csv", "the list", (".csv",), force=True)
    with raises(ConfigError, "new.txt", ".csv", ".parquet"):
        check_output(tmp_path / "new.txt", "the list", (".csv", ".parquet"), force=False)
    with raises(ConfigError, tmp_path / "no"):
        check_output(tmp_path / "no" / "new.csv", "the list", force=False)
    for name in ("there.csv", "link.csv"):
        with pytest.raises(OutputExistsError):
            check_output(tmp_path / name, "the list", force=False)
    with pytest.raises(OutputExistsError):
        check_output(tmp_path, "the list", force=True)


def test_a_left_file_that_cannot_be_removed_is_not_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a stranger's file in a folder like /tmp: the next try must not meet a lock of this process."""
    left = temporary_path(tmp_path / "people.h5")
    left.write_bytes(b"left")

    def refuse(self: Path, missing_ok: bool = False) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(self))

    monkeypatch.setattr(Path, "unlink", refuse)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        with pytest.raises(PermissionError):
            NewFile(tmp_path / "people.h5")
    assert len(os.listdir("/proc/self/fd")) == before
