"""Delete files that were made from an embedding file: indexes beside it, leftovers, pages that show photos.

Only unchanged files of facemill are deleted. Files that a user has changed or replaced are kept and reported.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import StorageError
from ..files import is_temporary, sync_folder
from ..sources.kinds import EXTENSIONS
from ..storage.derived import (
    Fingerprint,
    derived_nearby,
    distrusted_list,
    forget_pages,
    is_own_page,
    recorded_elsewhere,
    recorded_pages,
    take_fingerprint,
    written_pages,
)

# Suffixes of files that facemill writes for people; it does not write files of other kinds.
_PAGES = frozenset({".html", ".htm", ".csv", ".json", ".jsonl", ".parquet", ".npy"})
_PHOTOGRAPHS = frozenset(os.fsdecode(extension) for extension in EXTENSIONS)


@dataclass(frozen=True, slots=True)
class Derived:
    """Files that were made from an embedding file.

    Attributes:
        beside: indexes and leftovers.
        pages: pages, lists and folders that facemill wrote and may delete.
        kept: other recorded files and locations that may still show removed photos, each with the reason to keep it.
    """

    beside: tuple[Path, ...]
    pages: tuple[Path, ...]
    kept: tuple[tuple[str, str], ...]


def derived_from(file: Path, root: bytes, *, keep_pages: bool = False) -> Derived:
    """Find all existing files that were made from a file, beside its given name and its real path.

    Args:
        file: an embedding file.
        root: the folder of its photos, which are never deleted.
        keep_pages: keep all recorded pages.
    """
    beside = derived_nearby(file)
    pages: list[Path] = []
    links = [path for path in beside if path.is_symlink() and path.exists()]
    kept = [(os.path.realpath(link), f"the link {link} led to it") for link in links]
    kept += [
        (destination, "rows of the file were copied to it: remove them from it too")
        for destination in recorded_elsewhere(file)
    ]
    foreign_list = distrusted_list(file)
    if foreign_list:
        kept.append((str(foreign_list), "another user may have written this list of pages, so it was not followed"))
    written = written_pages(file)
    for page in recorded_pages(file):
        if os.path.lexists(page) and page not in beside:
            reason = "--keep-pages was given" if keep_pages else _not_ours(page, written.get(page, ()), file, root)
            if reason:
                kept.append((str(page), reason))
            else:
                pages.append(page)
    return Derived(tuple(beside), tuple(pages), tuple(kept))


def erase(file: Path, derived: Derived) -> Derived:
    """Delete derived files durably, and remove deleted pages from the record.

    Returns:
        The deleted files, and the kept ones, with pages that could not be deleted.
    Raises:
        StorageError: an index or leftover cannot be deleted.
    """
    for path in derived.beside:
        reason = _delete(path)
        if reason:
            raise StorageError(
                f"{path} holds removed rows and cannot be deleted: {reason}. Fix that and run the same command again"
            )
    reasons = {page: _delete(page) for page in derived.pages}
    pages = tuple(page for page, reason in reasons.items() if not reason)
    kept = (*derived.kept, *((str(page), reason) for page, reason in reasons.items() if reason))
    forget_pages(file, keep=[Path(page) for page, _ in kept])
    for folder in {file.parent, *(path.parent for path in (*derived.beside, *pages))}:
        with suppress(OSError):
            sync_folder(folder)
    return Derived(derived.beside, pages, kept)


def _not_ours(page: Path, fingerprints: tuple[Fingerprint, ...], file: Path, root: bytes) -> str:
    """Why a recorded page must not be deleted; empty if it may be.

    Args:
        fingerprints: its states when it was written; empty for a page whose writer was killed.
    """
    if not is_own_page(file, page):
        return "it is outside the folder of the file, and this user has not written it from the file here"
    reason = _not_our_kind(page, file, root, whole=bool(fingerprints))
    if not reason and fingerprints and take_fingerprint(page) not in fingerprints:
        return "it was changed since facemill wrote it: check it, and delete it yourself"
    return reason


def _not_our_kind(page: Path, file: Path, root: bytes, *, whole: bool) -> str:
    """The same by its content. Photos in a folder that was never `whole` may be the user's."""
    mode = page.lstat().st_mode
    if stat.S_ISREG(mode):
        if not whole and not is_temporary(page):
            return "the command that should write it was interrupted, so this may be an earlier file"
        kind = page.with_suffix("").suffix if is_temporary(page) else page.suffix  # a kill leaves a temporary file
        return "" if kind.lower() in _PAGES else "facemill writes no files of this kind"
    if not stat.S_ISDIR(mode):
        return "it is not a regular file or folder"
    top, photographs = os.path.realpath(page), os.path.realpath(os.fsdecode(root))
    if any(_is_in(inner, top) for inner in (photographs, os.path.realpath(file))):
        return "it contains the photos or the file"
    extensions = _PAGES | _PHOTOGRAPHS if whole and not _is_in(top, photographs) else _PAGES
    for folder, _, names in os.walk(page):  # follows no links
        for name in names:
            inner = os.path.join(folder, name)
            if not os.path.islink(inner) and os.path.splitext(name)[1].lower() not in extensions:
                return f"it contains another file: {os.path.relpath(inner, page)}"
    return ""


def _is_in(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _delete(path: Path) -> str:
    """Delete a file, a link itself, or a folder without following links. Return the reason of a failure, or empty."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return ""
    except OSError as err:
        return err.strerror or os.strerror(err.errno or errno.EIO)
    return ""
