"""Who may read a new file: owner, group, mode and access list, seen by other users of the machine."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.access import access_like
from runtime.files import make_folder, write_durable
from runtime.storage.runfolder import RunFolder
from tests.support.errors import assert_names

OWNER, MEMBER, STRANGER = 12345, 12346, 54321  # user ids without accounts
BIOMETRICS, STAFF = 777, 888  # group ids
ACL = "system.posix_acl_access"

as_root = pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs root and setpriv")


def read_as(user: int, group: int, path: Path) -> bool:
    """Return whether a user can read a file."""
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "cat", str(path)]
    return subprocess.run(command, capture_output=True).returncode == 0


def write_as(user: int, groups: list[int], path: Path, like: Path) -> subprocess.CompletedProcess[str]:
    """Write a file made from another one, as a user whose first group is the primary one."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from runtime.files import write_durable\n"
        f"os.setgroups({groups[1:]!r}); os.setgid({groups[0]}); os.setuid({user})\n"
        f"write_durable(Path({str(path)!r}), b'new', 'the file', like=Path({str(like)!r}))"
    )
    root = Path(__file__).parents[1]
    return subprocess.run(["python3", "-c", code], capture_output=True, text=True, cwd=root)


def run_as(user: int, group: int, statement: str) -> subprocess.CompletedProcess[str]:
    """Run a statement on run folders as another user."""
    code = (
        "import os, sys; from pathlib import Path\n"
        "from runtime.storage.runfolder import RunFolder\n"
        "import runtime.storage.dataset, h5py\n"
        f"os.setgroups([]); os.setgid({group}); os.setuid({user})\n"
        f"{statement}"
    )
    root = Path(__file__).parents[1]
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder in which every user can write. Pytest closes its own to others whenever it starts."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o777)
        yield Path(name)


def source(folder: Path, mode: int, user: int = 0, group: int = BIOMETRICS) -> Path:
    path = folder / "people.h5"
    path.write_bytes(b"rows")
    os.chown(path, user, group)
    path.chmod(mode)
    return path


def entry(tag: int, bits: int, number: int = 0xFFFFFFFF) -> bytes:
    return struct.pack("<HHI", tag, bits, number)


def access_list(group_bits: int) -> bytes:
    """owner rw, MEMBER r, group, mask r, others none; the form of Linux (posix_acl_xattr.h)."""
    entries = [entry(1, 6), entry(2, 4, MEMBER), entry(4, group_bits), entry(0x10, 4), entry(0x20, 0)]
    return struct.pack("<I", 2) + b"".join(entries)


@as_root
def test_a_file_made_by_root_belongs_to_the_owner_and_group_of_its_source(folder: Path) -> None:
    people = source(folder, 0o640, OWNER)
    write_durable(folder / "list", b"new", "the list", like=people)
    make_folder(folder / "npy", like=people)
    for path in (folder / "list", folder / "npy"):
        assert (path.stat().st_uid, path.stat().st_gid) == (OWNER, BIOMETRICS)
    assert stat.S_IMODE((folder / "npy").stat().st_mode) == 0o750
    assert read_as(MEMBER, BIOMETRICS, folder / "list")
    assert not read_as(STRANGER, STAFF, folder / "list")


@pytest.mark.slow
@as_root
def test_a_member_of_the_group_passes_on_the_group_of_the_source(folder: Path) -> None:
    people = source(folder, 0o640)
    result = write_as(MEMBER, [STAFF, BIOMETRICS], folder / "list", people)
    assert result.returncode == 0, result.stderr
    assert ((folder / "list").stat().st_uid, (folder / "list").stat().st_gid) == (MEMBER, BIOMETRICS)
    assert read_as(OWNER, BIOMETRICS, folder / "list")
    assert not read_as(STRANGER, STAFF, folder / "list")


@pytest.mark.slow
@as_root
def test_a_group_that_cannot_be_set_gets_the_rights_of_all_users(folder: Path) -> None:
    people = source(folder, 0o640, OWNER)  # the owner is no member of its group
    result = write_as(OWNER, [STAFF], folder / "list", people)
    assert result.returncode == 0, result.stderr
    assert stat.S_IMODE((folder / "list").stat().st_mode) == 0o600
    people.chmod(0o644)
    result = write_as(OWNER, [STAFF], folder / "table", people)
    assert stat.S_IMODE((folder / "table").stat().st_mode) == 0o644, result.stderr


@as_root
def test_two_sources_of_two_groups_give_no_group(folder: Path) -> None:
    first = source(folder, 0o640)
    second = folder / "more.h5"
    second.write_bytes(b"rows")
    os.chown(second, 0, STAFF)
    second.chmod(0o640)
    write_durable(folder / "all.h5", b"new", "the file", like=[first, second])
    assert not read_as(MEMBER, BIOMETRICS, folder / "all.h5")
    assert not read_as(MEMBER, STAFF, folder / "all.h5")


@as_root
@pytest.mark.parametrize("group_bits", [0, 4])
def test_a_new_file_gets_the_access_list_of_its_source(folder: Path, group_bits: int) -> None:
    people = source(folder, 0o640)
    try:
        os.setxattr(people, ACL, access_list(group_bits))
    except OSError as err:
        pytest.skip(f"the file system of {folder} has no access lists: {err}")
    write_durable(folder / "list", b"new", "the list", like=people)
    assert os.getxattr(folder / "list", ACL) == access_list(group_bits)
    assert read_as(MEMBER, STAFF, folder / "list")
    assert read_as(STRANGER, BIOMETRICS, folder / "list") == bool(group_bits)
    second_source = folder / "more.h5"
    second_source.write_bytes(b"rows")
    os.chown(second_source, 0, BIOMETRICS)
    second_source.chmod(0o644)
    write_durable(
        folder / "all.h5", b"new", "the file", like=[second_source, people]
    )  # the lists of two sources cannot be combined
    assert not read_as(MEMBER, STAFF, folder / "all.h5")
    assert not read_as(STRANGER, BIOMETRICS, folder / "all.h5")


@as_root
def test_the_default_access_list_of_a_folder_is_not_applied(folder: Path) -> None:
    people = source(folder, 0o640)
    try:
        os.setxattr(folder, "system.posix_acl_default", access_list(4))
    except OSError as err:
        pytest.skip(f"the file system of {folder} has no access lists: {err}")
    write_durable(folder / "list", b"new", "the list", like=people)
    make_folder(folder / "npy", like=people)
    assert not read_as(MEMBER, STAFF, folder / "list")
    for path in (folder / "list", folder / "npy"):
        with pytest.raises(OSError, match="No data"):
            os.getxattr(path, ACL)


def test_a_new_file_is_private_unless_the_user_says_otherwise_or_it_is_not_personal(tmp_path: Path) -> None:
    assert access_like([]).mode == 0o600
    assert access_like([], mode=0o644).mode == 0o644
    assert access_like([], shared=True).mode & 0o600 == 0o600
    (tmp_path / "old").touch()
    (tmp_path / "old").chmod(0o664)
    assert access_like([], replaced=tmp_path / "old").mode == 0o664
    assert access_like([], replaced=tmp_path / "old", mode=0o600).mode == 0o600
    (tmp_path / "source").touch()
    (tmp_path / "source").chmod(0o640)
    assert access_like([tmp_path / "source"], mode=0o666).mode == 0o640
    with pytest.raises(FileNotFoundError):
        access_like([tmp_path / "none"])


@pytest.mark.parametrize("mode", [0o400, 0o444, 0o440, 0o600, 0o644, 0o755])
def test_a_replaced_file_passes_on_exactly_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "people.h5"
    path.touch()
    path.chmod(mode)
    (tmp_path / "people.h5.partial").touch(0o600)  # of a killed writer
    write_durable(path, b"new", "the file", like=path)
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_new_file_can_be_written_by_its_owner_whatever_it_is_made_from(tmp_path: Path) -> None:
    (tmp_path / "people.h5").touch(0o444)
    write_durable(tmp_path / "list.csv", b"new", "the list", like=tmp_path / "people.h5")
    assert stat.S_IMODE((tmp_path / "list.csv").stat().st_mode) & 0o600 == 0o600


@pytest.mark.slow
@as_root
def test_the_owner_of_a_file_goes_on_after_a_run_of_root_that_was_broken_off(folder: Path) -> None:
    people = source(folder, 0o640, OWNER)
    run_folder = RunFolder(people)
    (run_folder.path / "plan.json").write_text("{}")  # unfinished, so that its folder stays
    run_folder.__exit__(None, None, None)
    lock = run_folder.path / "lock"
    assert (lock.stat().st_uid, lock.stat().st_gid) == (OWNER, BIOMETRICS)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    result = run_as(OWNER, BIOMETRICS, f"RunFolder(Path({str(people)!r})).__enter__()")
    assert result.returncode == 0, result.stderr


@pytest.mark.slow
@as_root
def test_a_lock_or_temporary_file_of_another_user_is_named_with_its_owner(folder: Path) -> None:
    people = source(folder, 0o640, OWNER)
    parts = folder / "people.h5.parts"
    parts.mkdir(0o700)
    (parts / "lock").touch(0o600)
    os.chown(parts, OWNER, BIOMETRICS)  # as an earlier version left it: the lock belongs to root
    result = run_as(OWNER, BIOMETRICS, f"RunFolder(Path({str(people)!r}))")
    assert_names(result.stderr, "E-STORAGE", "Permission denied", parts / "lock", "root", "delete it")
    folder.chmod(0o1777)
    (folder / "list.partial").touch(0o600)
    os.chown(folder / "list.partial", STRANGER, STAFF)
    result = write_as(OWNER, [BIOMETRICS], folder / "list", people)
    assert_names(result.stderr, "E-STORAGE", folder / "list.partial", STRANGER, "delete it")
