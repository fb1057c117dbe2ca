"""Erase photos from an embedding file and from everything that was made from it, and write a receipt.

After a kill at any moment either the old or the new file is complete. A note beside the file, `<file>.removing`, lists
the remaining work, and the next removal completes it first.
"""

from __future__ import annotations

import glob
import logging
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from itertools import compress, count
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError, LockedError, StorageError, UnfinishedError
from ..fetch import sha256_of
from ..files import is_trusted
from ..review.upkeep import check_stores, forget_missing
from ..storage.dataset import assemble
from ..storage.derived import forget_pages
from ..storage.file import EmbeddingFile
from ..storage.format import stored_text
from ..storage.ledger import Part
from ..storage.nearby import is_reserved, place_of
from ..storage.opening import check_regular
from ..storage.pagelist import read_list
from ..storage.runfolder import RunFolder, utc_now
from .erase import derived_from, erase, is_there, was_in
from .note import Card, Note, drop_note, note_path, read_note, write_note
from .receipt import check_receipt, find_receipt, name_digest, new_key, taken_name, write_receipt
from .removal_plan import RemovalPlan
from .rewrite import metadata_after, rewriting
from .selection import below, count_shared, find_duplicates, names_of, paths_below, select_photos
from .unfinished import find_unfinished

logger = logging.getLogger(__name__)

_MOST_LOOKS = 5  # a writer that began before the removal gives its page a name once


class Removal:
    """A removal of photos from one embedding file, which it locks. Owned by `with`.

    Attributes:
        file: the path as given.
        path: the real path.
        unfinished: the note of an interrupted removal; None without one. Set when the `with` block starts.
    """

    def __init__(self, file: Path) -> None:
        self.file, self.path = file, Path(os.path.realpath(file))
        check_regular(self.path)
        self._folder = RunFolder(self.path)
        self.unfinished: Note | None = None
        self._interrupted: Note | None = None  # the same, once it is finished or starts over
        self._ignored: tuple[Path, str] | None = None  # a note that is not followed, and why
        self._noted = self.path  # the name of the file beside which the note is

    def finish_earlier(
        self, names: Sequence[bytes] = (), receipt: Path | None = None, *, keep_pages: bool = False
    ) -> dict[str, Any]:
        """Finish an interrupted removal.

        Args:
            names: the names of this removal.
            receipt: its receipt. If the interrupted removal had other names, it gets a receipt of its own.
            keep_pages: leave pages, lists and folders, even if the interrupted command was to delete them.
        Returns:
            Its receipt; empty if the removal must start over because its new file was never completed, or if nobody
            can say what it was to remove.
        Raises:
            UnfinishedError: something cannot be deleted; the same call goes on.
        """
        note, self.unfinished = self.unfinished, None
        if note is None:
            if self._ignored and is_trusted(self._ignored[0], beside=self.path):  # ours, and damaged
                self._clean_up(keep_pages=keep_pages)
            return {}
        note = replace(note, keep_pages=note.keep_pages or keep_pages)
        with EmbeddingFile(self.path) as current:
            run_id = current.metadata["run_id"]
            replaced = run_id not in (note.card.run_id_before, note.card.run_id_after)
            if not note.card.root and not replaced:  # earlier versions noted no root
                note = replace(note, card=replace(note.card, root=os.fsdecode(current.root)))
            done = run_id == note.card.run_id_after or (
                replaced and note.is_done(current.root, current.scanned_paths())
            )
            asked = {note.digest(os.path.join(current.root, name)) for name in paths_below(current.root, names)}
            self._interrupted = note if note.card.root else None
        if done:
            receipt = receipt if asked == {*note.card.asked_hmac} else None
            path = self._receipt_path(receipt, note.card.begun_utc, note.card.run_id_after, note.key)
            return self._finish(note, path, resumed=True)
        if replaced:
            logger.warning(
                "a removal from %s was interrupted, and the file may have removed photos again: no receipt is written",
                self.path,
            )
            self._clean_up(keep_pages=note.keep_pages)
        else:
            drop_note(self._noted)
        return {}

    def _clean_up(self, *, keep_pages: bool) -> None:
        """Erase what was made from the file before a removal of which no more is known."""
        with EmbeddingFile(self.path) as current:
            root = current.root
        derived = derived_from(self.file, root, keep_pages=keep_pages)
        erase(self.file, derived)
        forget_missing(self.file)
        forget_pages(self.file, keep=[Path(page) for page, _ in derived.kept])
        drop_note(self._noted)

    def find(self, names: Sequence[bytes], *, keep_pages: bool = False) -> RemovalPlan:
        """Find the photos that names select, and the files that a removal would erase. Nothing is changed.

        Args:
            names: photos and folders, below the root or absolute.
            keep_pages: leave pages, lists and folders that show photos.
        Raises:
            ConfigError: a name selects all photos.
            StorageError: the file is damaged, or the decisions about it cannot be read.
        """
        check_stores(self.file)
        with EmbeddingFile(self.path) as source:
            names = paths_below(source.root, names)
            selection = select_photos(source.scanned_paths(), names)
            rows = np.union1d(selection.rows, find_duplicates(source, selection.rows))
            chosen = np.zeros(len(source.status), bool)
            chosen[rows] = True
            removed = frozenset((*compress(source.scanned_paths(), chosen.tolist()), *selection.missing))
            runs = find_unfinished(self.path, source.root, names)
            known = runs.names | self._asked_before(source.root, selection.missing)
            return RemovalPlan(
                rows=rows,
                embeddings=int(source.vector_counts[rows].sum()),
                duplicates=len(rows) - len(selection.rows),
                same_stay=count_shared(source, rows),
                missing=tuple(name for name in selection.missing if name not in known),
                root=source.root,
                derived=derived_from(
                    self.file,
                    source.root,
                    keep_pages=keep_pages,
                    rows_stay=not len(rows),
                    runs=bool(len(rows) or runs.paths),
                    is_removed=lambda path: not removed.isdisjoint(names_of(below(source.root, path))),
                ),
                extras=tuple(source.foreign_datasets()),
                unfinished=runs.paths,
                file=self.file,
            )

    def _asked_before(self, root: bytes, names: Sequence[bytes]) -> set[bytes]:
        """The names below the root of the file that the interrupted removal was to remove."""
        note = self._interrupted
        if note is None:
            return set()
        asked = set(note.card.asked_hmac)
        return {name for name in names if note.digest(os.path.join(root, name)) in asked}

    def find_earlier(self, plan: RemovalPlan, receipt: Path | None = None) -> dict[str, Any]:
        """Find the receipt of an earlier removal of names that are not in the file.

        Args:
            plan: the plan of `find`.
            receipt: a further file that may be the receipt.
        Returns:
            The facts of the latest receipt that shows it; empty if none does.
        """
        beside = self.path.parent.glob(glob.escape(self.path.name) + ".removed-*.json")
        paths = [os.path.join(plan.root, name) for name in plan.missing]
        earlier = find_receipt(self.path, [*beside, *([receipt] if receipt else [])], paths)
        return {**earlier[1], "receipt": str(earlier[0])} if earlier else {}

    def erase(
        self,
        plan: RemovalPlan,
        names: Sequence[bytes],
        *,
        receipt: Path | None = None,
        keep_pages: bool = False,
        name_paths: bool = False,
    ) -> dict[str, Any]:
        """Erase the photos from the file, and the files that were made from it.

        Args:
            plan: the plan of `find`; not empty.
            names: the names given to `find`.
            receipt: the file to write; None for `<file>.removed-<time>.json`.
            keep_pages: leave pages, lists and folders that show photos.
            name_paths: put the removed paths into the receipt; else it holds only their digests.
        Returns:
            The receipt; `receipt` in it is its path.
        Raises:
            OutputExistsError: the receipt exists.
            UnfinishedError: the photos are removed from the file, and something made from it cannot be deleted.
            DiskFullError, StorageError: the file is unchanged.
        """
        assert not plan.is_empty
        now, key = utc_now(), new_key()
        if (self._folder.path / "plan.json").exists() and not plan.keeps_runs:
            logger.warning("the unfinished run on %s is discarded: it was started before this removal", self.path)
        with self._lock_pairs(), EmbeddingFile(self.path) as source:
            before = source.metadata["run_id"]
            run_id = secrets.token_hex(16) if len(plan.rows) else before
            receipt_path = self._receipt_path(receipt, now, run_id, key)
            keep = np.ones(len(source.status), bool)
            keep[plan.rows] = False
            removed = list(compress(source.scanned_paths(), (~keep).tolist()))
            card = Card(
                what="photos removed from an embedding file of facemill, and from all that was made from it",
                file=str(self.path),
                tool_version=__version__,
                begun_utc=now,
                asked_hmac=tuple(name_digest(key, name) for name in paths_below(source.root, names)),
                removed_hmac=tuple(name_digest(key, path) for path in removed),
                removed=tuple(stored_text(path).decode() for path in removed) if name_paths else None,
                removed_photographs=len(removed),
                removed_embeddings=plan.embeddings,
                removed_as_duplicates=plan.duplicates,
                same_files_stay=plan.same_stay,
                names_not_found=len(plan.missing),
                dropped_datasets=plan.extras if len(plan.rows) else (),
                other_names_of_file_before=self.path.stat().st_nlink - 1,
                photographs_before=len(keep),
                embeddings_before=int(source.vector_counts.sum()),
                run_id_before=before,
                run_id_after=run_id,
                root=os.fsdecode(source.root),
            )
            note = Note(card, keep_pages, key, tuple(map(str, plan.derived.absent)), keep_runs=plan.keeps_runs)
            write_note(self.path, note)
            self._noted = self.path
            if len(plan.rows):
                self._folder.clear()
                with rewriting(self._folder, [Part.of(source, keep)]) as new:
                    metadata = metadata_after(source.metadata, new.ledger, run_id=run_id)
                    assemble(self.path, new.ledger, new.paths, metadata, source.dtype)
        return self._finish(note, receipt_path)

    def _lock_pairs(self) -> RunFolder:
        """Take the lock of `facemill pairs`, which else would write a list from the old file after the removal."""
        try:
            return RunFolder(self.path.with_name(self.path.name + ".pairs"), like=self.path)
        except LockedError as err:
            raise LockedError(
                f"facemill pairs or cluster is reading {self.path}; expected: no other command uses it. Wait until "
                f"that command ends"
            ) from err

    def _receipt_path(self, receipt: Path | None, begun_utc: str, run_id: str, key: str) -> Path:
        """The path of the receipt: a new file, or the receipt of the same removal, which was killed after it.

        It comes from this command, never from a note.
        """
        short = re.sub("[^0-9TZ]", "", begun_utc.replace("+00:00", "Z"))[:20]
        names = (f"{self.path.name}.removed-{short}{'' if i == 1 else f'-{i}'}.json" for i in count(1))
        paths = map(self.path.with_name, names)
        free = (path for path in paths if taken_name(path, run_id, key) is None)
        path = Path(os.path.abspath(receipt or next(free)))
        if is_reserved(Path(os.path.realpath(path.parent), path.name), self.path):
            raise ConfigError(f"the receipt is {path}, a name that facemill uses beside the file. Name another file")
        check_receipt(path, run_id, key)
        if not path.parent.is_dir():
            raise ConfigError(
                f"the folder {path.parent} of the receipt does not exist. Create it, or name a different file with "
                f"--receipt"
            )
        return path

    def _finish(self, note: Note, receipt: Path, *, resumed: bool = False) -> dict[str, Any]:
        """Complete a removal after its new file exists: erase derived files, write the receipt, drop the note.

        Args:
            note, receipt: of the removal.
            resumed: an earlier command may have deleted files already.
        Raises:
            UnfinishedError: something failed; the note stays, and the next removal goes on.
        """
        try:
            return self._erase_derived(note, receipt, resumed=resumed)
        except UnfinishedError:
            raise
        except OSError as err:  # a StorageError is one
            reason = err.message if isinstance(err, StorageError) else str(err)
            raise UnfinishedError(
                f"the photos are removed from {self.path}, and the removal is not finished: {reason}. Fix that and run "
                f"the same command again"
            ) from err

    def _erase_derived(self, note: Note, receipt: Path, *, resumed: bool) -> dict[str, Any]:
        with EmbeddingFile(self.path) as new:
            root = new.root
            after = {"photographs_after": len(new.status), "embeddings_after": int(new.vector_counts.sum())}
        if not note.keep_runs:
            self._folder.clear()
        rows_stay = not note.card.removed_photographs
        absent, is_removed = [*map(Path, note.absent)], note.is_removed()
        deleted: dict[Path, None] = {}
        gone = self._gone_meanwhile(note, root) if resumed else {}
        kept: dict[str, str] = {}
        parts = 0
        for _ in range(_MOST_LOOKS):
            derived = derived_from(
                self.file,
                root,
                keep_pages=note.keep_pages,
                absent=absent,
                rows_stay=rows_stay,
                runs=not note.keep_runs,
                is_removed=is_removed,
            )
            try:
                erased = erase(self.file, derived, is_removed)
            finally:
                note = self._note_erased(note, derived.pages)
            deleted |= dict.fromkeys(erased.paths)
            kept = {path: why for path, why in (kept | dict(derived.kept)).items() if not was_in(path, erased.paths)}
            parts += erased.parts
            if not erased.paths:  # look again after deleting: a writer may have renamed its temporary file meanwhile
                break
        forgotten = forget_missing(self.file)
        stay = [page for page in read_list(self.file).pages() if page not in deleted] if rows_stay else []
        forget_pages(self.file, keep=[*stay, *map(Path, kept)])
        links = note.card.other_names_of_file_before if note.card.removed_photographs else 0
        hard_links = [("unknown", f"the old file has other names: {links} (hard links)")] if links else []
        places = gone | kept  # what is gone is named once, and not looked for again
        ignored = [(str(self._ignored[0]), self._ignored[1])] if self._ignored else []
        facts = {
            **note.card.facts(),
            **after,
            "sha256_after": sha256_of(self.path),
            "deleted": list(map(str, deleted)),
            **({"erased_in_folders_that_stay": parts} if parts else {}),
            **({"faces_erased_from_decisions": forgotten} if forgotten else {}),
            "may_still_show": [{"path": path, "why": why} for path, why in (*places.items(), *hard_links, *ignored)],
            "photographs": "not deleted: facemill deletes no photographs",
            "finished_utc": utc_now(),
        }
        write_receipt(receipt, facts, note.key, self.path)
        drop_note(self._noted)
        return {**facts, "receipt": str(receipt)}

    def _gone_meanwhile(self, note: Note, root: bytes) -> dict[str, str]:
        """Pages that are not there any more since the interrupted removal began, each with what may have happened."""
        now = derived_from(self.file, root, keep_pages=True, rows_stay=not note.card.removed_photographs).absent
        gone = [page for page in map(str, now) if page not in (*note.absent, *note.erased)]
        return dict.fromkeys(gone, "it is not there any more: deleted by the interrupted removal, or moved")

    def _note_erased(self, note: Note, pages: Sequence[Path]) -> Note:
        """Note which of these pages this command has deleted, so that the next one need not ask who did."""
        gone = [str(page) for page in pages if not is_there(page)]
        if gone:
            note = replace(note, erased=(*note.erased, *gone))
            write_note(self.path, note)
            if self._noted != self.path:
                drop_note(self._noted)
                self._noted = self.path
        return note

    def __enter__(self) -> Removal:
        try:
            self._find_note()
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        if self._ignored:
            logger.warning("%s: %s", *self._ignored)
        return self

    def _find_note(self) -> None:
        """Find the note of an interrupted removal, after which the file may have been renamed or replaced by a link."""
        for name in dict.fromkeys([self.path, place_of(self.file)]):
            self.unfinished, why = read_note(name)
            if self.unfinished or why:
                self._noted, self._ignored = name, (note_path(name), why) if why else None
                return
        suffix = note_path(self.path).name.removeprefix(self.path.name)
        others = [path for path in self.path.parent.glob(f"*{suffix}") if path != note_path(self.path)]
        for other in sorted(others):
            name = other.with_name(other.name.removesuffix(suffix))
            is_other = os.path.lexists(name) and os.path.realpath(name) != str(self.path)
            note, _ = (None, "") if is_other else read_note(name)
            if note is not None:
                with EmbeddingFile(self.path) as current:
                    if current.metadata["run_id"] == note.card.run_id_after:
                        self.unfinished, self._noted = note, name
                        return

    def __exit__(self, *exc: object) -> None:
        self._folder.__exit__(*exc)
