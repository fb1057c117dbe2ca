"""Check, before the work, that an output can be written, and that nothing else is lost by it.

An output never replaces one of the inputs of its command, nor what is plainly something else than the command writes:
`--force` is for the output of an earlier run, not for a photo whose name was typed in its place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from .contents import SNIFF_BYTES, TEXT, is_text, kind_of
from .errors import ConfigError, OutputExistsError
from .regular import AnyPath, NotRegular, read_start

SIDE_BYTES = 64  # more than any name beside an output adds, such as `.removed-20260101T000000Z-2.json.key.partial`
TEMPORARY_SUFFIX = ".partial"


def temporary_path(path: Path) -> Path:
    """The name of a file or folder until it is whole: `people.h5` -> `people.h5.partial`."""
    return path.with_name(path.name + TEMPORARY_SUFFIX)


def check_output(
    path: Path,
    what: str = "",
    endings: Sequence[str] = (),
    *,
    force: bool,
    kind: str = TEXT,
    inputs: Iterable[AnyPath] = (),
    other: str = "another file with -o",
) -> None:
    """Check an output file.

    Args:
        path: the output file.
        what: its name in messages, such as "the list".
        endings: the allowed file name endings, in lower case; empty to allow any.
        force: an existing file may be replaced.
        kind: what is written, see `contents.kind_of`.
        inputs: the files that the command reads.
        other: the alternative that messages suggest.
    Raises:
        ConfigError: the name has another ending or is too long, the folder does not exist, or the file is one of the
            inputs.
        OutputExistsError: the file exists, and `force` is not given; or it is no regular file, or of another kind.
    """
    label = what or "the output"
    if endings and path.suffix.lower() not in endings:
        raise ConfigError(f"{label} is {path}; expected: a name that ends in {' or '.join(endings)}")
    check_parent(path, label, other=other)
    check_name(path, other=other)
    refuse_special(path, other=other)
    refuse_blocked(path, other=other)
    refuse_inputs(path, inputs, other=other)
    refuse_other_kind(path, kind, other=other)
    if os.path.lexists(path) and not force:
        raise OutputExistsError(f"{path} exists. Name {other}, or replace it with --force")


def check_parent(path: Path, label: str = "the output", *, other: str = "another file with -o") -> None:
    """Refuse an output in a folder that does not exist: its name may have a typo, or its disk is not mounted.

    Raises:
        ConfigError: there is no such folder.
    """
    if not path.parent.is_dir():
        raise ConfigError(
            f"there is no folder {path.parent} for {label} {path.name}. Create it with mkdir -p, mount its disk, or "
            f"name {other}"
        )


def check_name(path: Path, *, other: str = "another file with -o") -> None:
    """Refuse an output whose name leaves no room for the names that facemill derives from it.

    Raises:
        ConfigError: its name is too long.
    """
    most = 255  # of nearly all file systems
    with suppress(OSError, ValueError):
        most = os.pathconf(path.parent, "PC_NAME_MAX")
    size = len(os.fsencode(path.name))
    if size > most - SIDE_BYTES:
        raise ConfigError(
            f"the name of the output {path.name} has {size} bytes; expected: at most {most - SIDE_BYTES}, because the "
            f"names of files beside it are longer. Name {other}"
        )


def refuse_special(path: Path, *, other: str = "another file") -> None:
    """Refuse to replace anything but a regular file or a symbolic link.

    Args:
        path: the output, which may be missing.
        other: the alternative that messages suggest.
    Raises:
        OutputExistsError: it is a folder, a device, a pipe or a socket; or a link to one.
    """
    for look in (os.lstat, os.stat):
        try:
            mode = look(path).st_mode
        except OSError:
            return  # missing, a link to nothing, or a folder that cannot be read: the writer says more
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode)):
            kind = "a folder" if stat.S_ISDIR(mode) else "a device, a pipe or a socket"
            raise OutputExistsError(f"{path} is {kind}; expected: the name of a regular file. Name {other}")


def refuse_blocked(path: Path, *, other: str = "another file") -> None:
    """Refuse an output while a folder has its temporary name: the work would be done, and could not be kept.

    Raises:
        OutputExistsError: there is such a folder.
    """
    temporary = temporary_path(path)
    if what_stands_at(temporary) == "a folder":
        raise OutputExistsError(
            f"{temporary} is a folder; expected: nothing, because {path.name} has that name until it is whole. Move "
            f"the folder away, or name {other}"
        )


def what_stands_at(path: Path) -> str:
    """What has a name, for messages: a folder, a link, a file, ...; empty for nothing. No link is followed."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return ""
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFLNK: "a link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a file" if stat.S_ISREG(mode) else "a device")


def refuse_inputs(path: Path, inputs: Iterable[AnyPath], *, other: str = "another file with -o") -> None:
    """Refuse an output that is one of the inputs of its command, whatever their names and links.

    Args:
        path: the output, which may be missing.
        inputs: paths of files; a missing one counts for nothing.
        other: the alternative that messages suggest.
    Raises:
        ConfigError: it is the same file as an input.
    """
    with suppress(OSError):  # a missing output is no input
        output = os.stat(path)
        for source in inputs:
            with suppress(OSError, ValueError):
                if os.path.samestat(output, os.stat(source)):
                    break
        else:
            return
        raise ConfigError(
            f"the output {path} is also an input of this command, {os.fsdecode(source)}, and would be lost; expected: "
            f"a different file. Name {other}"
        )


def refuse_other_kind(path: Path, kind: str, *, other: str = "another file with -o") -> None:
    """Refuse to replace a file that is plainly something else than what is written. Empty files may be replaced.

    Args:
        path: the output, which may be missing.
        kind: what is written, see `contents.kind_of`. Unknown bytes may be a damaged file of any kind but text.
        other: the alternative that messages suggest.
    Raises:
        OutputExistsError: it is something else.
    """
    start = b""
    with suppress(OSError):  # missing, or not readable: the writer says more
        start = read_start(path, SNIFF_BYTES)
    found = kind_of(start)
    if found in (kind, "") and not (kind == TEXT and b"\0" in start):
        return
    raise OutputExistsError(
        f"{path} is {found or 'no text'}; expected: {kind}, which this command writes. --force replaces nothing else. "
        f"Name {other}, or move that file away"
    )


def check_appended(path: Path, others: Iterable[AnyPath], *, option: str) -> None:
    """Check a file to which lines of text are to be appended: a new file, an empty one, text, or a device.

    Args:
        path: the file, which may be missing.
        others: the inputs and outputs of the command, which may be missing too.
        option: the option that names it.
    Raises:
        ConfigError: it is one of the others, or holds something else than text, or is a folder, a pipe or a socket.
    """
    real = os.path.realpath(path)
    same = next((os.fsdecode(other) for other in others if _is(real, other)), "")
    fault = f"is also {same}, which this command reads or writes" if same else ""
    if not fault:
        try:
            if not is_text(read_start(path, SNIFF_BYTES)):
                fault = "holds something else than text"
        except NotRegular as err:
            fault = "" if err.kind == "a device" else f"is {err.kind}"
        except OSError:
            pass  # missing, or not readable: the writer says more
    if fault:
        raise ConfigError(f"{option} is {path}, which {fault}; expected: a text file of its own. Name another one")


def _is(real: str, other: AnyPath) -> bool:
    """Whether a path leads to a file, which may be missing, or whether both are the same."""
    try:
        return os.path.samestat(os.stat(real), os.stat(other))
    except (OSError, ValueError):
        return real == os.path.realpath(os.fsdecode(other).replace("\0", ""))
