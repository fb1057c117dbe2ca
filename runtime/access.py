"""Decide who may read a new file or folder, and set it on the open file before its first byte.

Embeddings and photos of faces are biometric data. So a new file is private (mode 0600) unless it is made from existing
files: then nobody may read it who may not read all of those. Access is more than a mode: the same 0640 means something
else for another group. Owner, group, mode and access control list (ACL) are therefore taken over together, and what
cannot be taken over is not granted:

- The owner can only be set by root. A file of another user then belongs to the user who made it.
- A group that cannot be set gets no more than all users have.
- An ACL that cannot be set leaves the file to its owner.

Example:
    >>> import tempfile
    >>> source = Path(tempfile.mkdtemp()) / "people.h5"
    >>> source.touch(0o640)
    >>> oct(access_like([source]).mode)
    '0o640'
    >>> oct(access_like([]).mode)
    '0o600'
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

PRIVATE = 0o600
SHARED = 0o666  # before the umask, as for any new file

_ACL = "system.posix_acl_access"  # Linux: acl(5), as an extended attribute
_ANY_FILE, _ANY_MODE = 0o666, 0o777  # of a new file, and of the file that it replaces
_OWNER, _GROUP, _OTHERS, _EXECUTE = 0o700, 0o070, 0o007, 0o111
_NO_MODES = frozenset({errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP})  # FAT, some network and FUSE file systems

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may read and write a file.

    Attributes:
        mode: permission bits of a file; `folder_mode` derives those of a folder.
        owner: user and group ids; None to leave those that the system gives to a new file.
        acl: access control list as Linux stores it; empty for none.
    """

    mode: int
    owner: tuple[int, int] | None = None
    acl: bytes = b""

    @property
    def folder_mode(self) -> int:
        """Permission bits of a folder: users who can read the files can enter it; not all users may add files to it."""
        return (self.mode | (self.mode & 0o444) >> 2 | 0o700) & ~0o002

    @property
    def until_finished(self) -> Access:
        """The access while the file is written: after a kill its next writer must be able to open it."""
        return replace(self, mode=self.mode | PRIVATE)

    def finish(self, fd: int) -> None:
        """Set the access of a whole file that has had `until_finished`."""
        if self.mode & PRIVATE != PRIVATE:  # it replaces a file that its owner may not write
            self.set_on(fd)

    def set_on(self, fd: int) -> None:
        """Set the access of an open file or folder, which only its creator can read so far.

        Nothing is wider at any moment than it is at the end. A file system without permissions is left as it is.
        """
        folder = stat.S_ISDIR(os.fstat(fd).st_mode)
        access = self._own(fd)
        try:
            if not access.acl or folder:  # entries of a folder would need other bits
                _drop_acl(fd)
            os.fchmod(fd, access.folder_mode if folder else access.mode)
            if access.acl and not folder:
                os.setxattr(fd, _ACL, access.acl)
        except OSError as err:
            if err.errno not in _NO_MODES:
                raise
            with suppress(OSError):
                os.fchmod(fd, 0o700 if folder else PRIVATE)
            logger.debug("the file system keeps no permissions: %s", err)

    def _own(self, fd: int) -> Access:
        """Set the owner and group as far as this user can; returns the access without what could not be set."""
        status = os.fstat(fd)
        if self.owner is None:
            return self
        user, group = self.owner
        if user != status.st_uid and os.geteuid() == 0:
            with suppress(OSError):
                os.fchown(fd, user, -1)
        if group != status.st_gid:
            try:
                os.fchown(fd, -1, group)
            except OSError:
                return replace(self, mode=_group_as_others(self.mode), acl=b"")
        return self


def access_like(
    sources: Sequence[Path], *, replaced: Path | None = None, mode: int | None = None, shared: bool = False
) -> Access:
    """The access of a new file.

    Args:
        sources: files or folders from which the content is made. The first one gives owner and group.
        replaced: an existing file whose place the new file takes, and which gives owner, group and mode instead. Its
            owner may do with the new file exactly what the old one allowed: read it only, for instance.
        mode: permission bits that the user named; None for none. They hold for every file that has no sources.
        shared: the content is not personal, like a model: without sources, the umask alone decides.
    Raises:
        OSError: a source does not exist.
    """
    files = list(dict.fromkeys([*([] if replaced is None else [replaced]), *sources]))
    if not files:
        return Access(_under_umask(SHARED) if shared else PRIVATE if mode is None else mode)
    accesses = [_access_of(path, _ANY_MODE if path == replaced else _ANY_FILE) for path in files]
    model = accesses[0]
    allowed = _ANY_FILE if replaced is None else _ANY_MODE
    for access in accesses:
        allowed &= _as_seen_by(model, access)
    if replaced is not None:
        allowed &= model.mode
    else:
        allowed = _under_umask(allowed)
    if mode is not None:
        allowed = mode & allowed if sources else mode
    acl = model.acl if all(access.acl == model.acl for access in accesses) else b""
    own = PRIVATE if replaced is None or mode is not None else model.mode & _OWNER
    return Access(allowed & ~_OWNER | own, model.owner, acl)


def _drop_acl(fd: int) -> None:
    """Remove the list that a new file inherits from its folder: the sources did not grant it."""
    try:
        os.removexattr(fd, _ACL)
    except AttributeError:
        pass  # a system without
    except OSError as err:
        if err.errno not in (*_NO_MODES, errno.ENODATA):
            raise


def _access_of(path: Path, bits: int) -> Access:
    """The access of an existing file, or of a folder as of the files in it."""
    status = path.stat()
    acl = b""
    with suppress(OSError, AttributeError):  # none, or a system without
        acl = os.getxattr(path, _ACL)
    return Access(status.st_mode & bits, (status.st_uid, status.st_gid), acl)


def _as_seen_by(model: Access, access: Access) -> int:
    """The bits that a file with the owner and ACL of the model may have without being wider than another file."""
    if model.acl != access.acl:
        return PRIVATE  # its group bits are a mask, and its list may shut users out
    same_group = model.owner is not None and access.owner is not None and model.owner[1] == access.owner[1]
    return access.mode if same_group else _group_as_others(access.mode)


def _group_as_others(mode: int) -> int:
    """Permission bits whose group may do no more than all users may."""
    others = mode & _OTHERS
    return mode & ~_GROUP | mode & others << 3


def _under_umask(mode: int) -> int:
    """Permission bits that the umask leaves. The umask is read and never changed: that would concern all threads."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_bytes().splitlines()
        return mode & ~int(next(line for line in lines if line.startswith(b"Umask:")).split()[1], 8)
    return mode & ~(_OTHERS | _GROUP)  # unknown
