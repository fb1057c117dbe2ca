"""Delete files that were made from an embedding file: indexes beside it, leftovers, pages that show photos.

Only unchanged files of facemill are deleted. Files that a user has changed or replaced are kept and reported. From a
folder that stays, what its receipt proves to be unchanged is deleted: the copies of removed photos, and all pages.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UnfinishedError
from ..files import is_temporary, sync_folder
from ..receipts.receipt import RECEIPT
from ..receipts.whole import IsRemoved, changed_parts, erase_parts, why_not_whole
from ..sources.kinds import EXTENSIONS
from ..storage.deletion import delete, is_renamed, renamed_remains
from ..storage.derived import is_own_page, record_page, take_fingerprint
from ..storage.nearby import derived_nearby, is_index_of_others
from ..storage.pagelist import PageList, read_list
from .copies import sweep_copies
from .unfinished import is_unfinished

# Suffixes of files that facemill writes for people; it does not write files of other kinds.
_PAGES = frozenset({".html", ".htm", ".csv", ".json", ".jsonl", ".parquet", ".npy"})
_PARTLY = "Copies of removed photos and pages that nobody changed are erased from it"
_PART_STAYS = "it shows a removed photo, or is a page, and was changed since facemill put it there"
_PHOTOGRAPHS = frozenset(os.fsdecode(extension) for extension in EXTENSIONS)


@dataclass(frozen=True, slots=True)
class Derived:
    """Files that were made from an embedding file.

    Attributes:
        beside: indexes and leftovers.
        pages: pages, lists and folders that facemill wrote and may delete.
        kept: other recorded files and locations that may still show removed photos, each with the reason to keep it.
        absent: recorded pages that are not where facemill wrote them; `kept` names them too.
        unreachable: recorded pages that cannot be looked at, each with the reason: their disk does not answer.
        copies: other embedding files into which rows were copied, or were to be copied.
        partly: folders of `kept` from which removed photos and pages are erased, each with whether it is as facemill
            wrote it.
    """

    beside: tuple[Path, ...]
    pages: tuple[Path, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    absent: tuple[Path, ...] = ()
    unreachable: tuple[tuple[Path, str], ...] = ()
    copies: tuple[Path, ...] = ()
    partly: tuple[tuple[Path, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Erased:
    """What was deleted.

    Attributes:
        paths: files and folders.
        parts: number of photos and pages that were erased from folders that stay.
    """

    paths: tuple[Path, ...]
    parts: int


def derived_from(
    file: Path,
    root: bytes,
    *,
    keep_pages: bool = False,
    absent: Sequence[Path] | None = None,
    rows_stay: bool = False,
    runs: bool = True,
    is_removed: IsRemoved = lambda path: False,
) -> Derived:
    """Find all files that were made from a file, beside its given name and its real path.

    Args:
        file: an embedding file.
        root: the folder of its photos, which are never deleted.
        keep_pages: keep all recorded pages.
        absent: pages that were not where facemill wrote them before a removal deleted any; None to look now.
        rows_stay: no row is removed from the file. Find only unfinished runs, and what was made from rows that it had
            before another file replaced it, as `process --force` does.
        runs: find unfinished runs too; without it only where rows stay.
        is_removed: whether a photo, by its absolute path, is removed: the receipt of a folder may have another root
            than the file has now. A folder with the last copy of another photo stays.
    """
    known = read_list(file)
    beside = sorted([*derived_nearby(file, known.names.earlier), *known.names.indexes(file)])
    recorded, elsewhere = known.pages(), known.elsewhere
    if rows_stay:
        identity = known.names.identity
        beside = [
            path for path in beside if (runs and is_unfinished(path, file)) or is_index_of_others(path, file, identity)
        ]
        recorded = [page for page in recorded if known.is_of_others(page)]
        elsewhere = tuple(place for place in elsewhere if known.is_of_others(place))
    links = [path for path in beside if path.is_symlink() and path.exists()]
    kept = [(os.path.realpath(link), f"the link {link} led to it") for link in links]
    kept += [(destination, "rows of the file were copied to it: remove them from it too") for destination in elsewhere]
    if not rows_stay:
        if known.distrusted:
            reason = "another user may have written this list of pages, so it was not followed"
            kept.append((str(known.distrusted), reason))
        kept += [
            (str(path), "this list of pages may be that of another file, so it was not followed")
            for path in known.foreign
        ]
    pages: list[Path] = []
    partly: list[tuple[Path, bool]] = []
    unreachable: list[tuple[Path, str]] = []
    written, missing = known.written, []
    for page in recorded:
        if page in beside:
            continue
        try:
            if not is_there(page):
                missing += [page] if written.get(page) and not renamed_remains(page) else []
                continue
            reason = "--keep-pages was given" if keep_pages else _reason_to_keep(page, known, file, root, is_removed)
            if reason and not keep_pages and _has_parts(page, file, known):
                partly.append((page, take_fingerprint(page) in written.get(page, ())))
                reason += f". {_PARTLY}"
                kept += [(str(page / name), _PART_STAYS) for name in changed_parts(page, is_removed)]
        except OSError as err:
            if not keep_pages:
                unreachable.append((page, err.strerror or str(err)))
                continue
            reason = f"--keep-pages was given, and it cannot be looked at ({err.strerror or err})"
        if reason:
            kept.append((str(page), reason))
        else:
            pages.append(page)
    gone = missing if absent is None else absent
    kept += [(str(page), "it is not there any more: if you moved it, delete it in its new place") for page in gone]
    copies = tuple(dict.fromkeys(Path(text) for text in (*known.copies, *known.elsewhere) if text.startswith("/")))
    return Derived(tuple(beside), tuple(pages), tuple(kept), tuple(gone), tuple(unreachable), copies, tuple(partly))


def _has_parts(page: Path, file: Path, known: PageList) -> bool:
    """Whether parts of a page that stays may be erased: it is a folder with a receipt, which this user wrote."""
    return not page.is_symlink() and os.path.lexists(page / RECEIPT) and is_own_page(file, page, known)


def is_there(page: Path) -> bool:
    """Whether a page is there.

    Raises:
        OSError: nobody can tell, because a folder above it cannot be read or its disk does not answer.
    """
    try:
        os.lstat(page)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def erase(file: Path, derived: Derived, is_removed: IsRemoved = lambda path: False) -> Erased:
    """Delete derived files durably, and what killed commands left of copies. A failure does not stop it.

    Args:
        file, is_removed: see `derived_from`.
        derived: what it found.
    Raises:
        UnfinishedError: something could not be deleted.
    """
    deleted = {**sweep_copies(derived.copies), **{path: delete(path) for path in (*derived.beside, *derived.pages)}}
    reasons, parts = {**dict(derived.unreachable), **deleted}, 0
    for page, as_written in derived.partly:
        try:
            erased = erase_parts(page, is_removed)
        except OSError as err:
            reasons[page] = f"photos in it cannot be erased: {err.strerror or err}"
            continue
        parts += erased
        if erased and as_written:  # it still is as facemill wrote it, for the next removal
            record_page(file, page)
    for folder in {file.parent, *(path.parent for path in deleted)}:
        try:
            sync_folder(folder)
        except FileNotFoundError:
            continue  # it was in another one of them
        except OSError as err:
            reasons[folder] = f"its names cannot be written to the disk: {err.strerror or err}"
    failures = [f"  {path}: {reason}" for path, reason in reasons.items() if reason]
    if failures:
        listed = "\n".join(failures)
        raise UnfinishedError(
            f"the photos are removed from {file}, but these may still show them and could not be deleted:\n{listed}\n"
            f"Fix that and run the same command again. To leave pages, lists and folders as they are: --keep-pages"
        )
    return Erased(tuple(deleted), parts)


def _reason_to_keep(page: Path, known: PageList, file: Path, root: bytes, is_removed: IsRemoved) -> str:
    """Why an existing recorded page must not be deleted; empty if it may be.

    Raises:
        OSError: a part of it cannot be looked at.
    """
    if is_renamed(page) and is_own_page(file, page, known):
        return ""  # whatever it holds: its deletion has begun
    return _not_ours(page, known, file, root) or why_not_whole(page, is_removed)


def _not_ours(page: Path, known: PageList, file: Path, root: bytes) -> str:
    """Why a recorded page must not be deleted; empty if it may be."""
    fingerprints = known.written.get(page, ())  # none for a page whose writer was killed
    if not is_own_page(file, page, known):
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
            if not os.path.islink(inner) and os.path.splitext(f"x{name}")[1].lower() not in extensions:
                return f"it contains another file: {os.path.relpath(inner, page)}"
    return ""


def _is_in(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def was_in(path: str, deleted: Sequence[Path]) -> bool:
    """Whether a path that a look kept was deleted with others: a disk may not have answered that look."""
    return not {Path(path), *Path(path).parents}.isdisjoint(deleted)
