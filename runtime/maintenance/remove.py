"""Erase photos from an embedding file and from everything that was made from it, and write a receipt.

After a kill at any moment either the old or the new file is complete. A note beside the file, `<file>.removing`, lists
the remaining work, and the next removal completes it first.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress, count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..errors import ConfigError, LockedError, OutputExistsError
from ..fetch import sha256_of
from ..files import is_trusted, write_durable
from ..schema import parse_json
from ..storage.dataset import assemble
from ..storage.file import EmbeddingFile
from ..storage.format import stored_text
from ..storage.ledger import Part
from ..storage.opening import check_regular
from ..storage.runfolder import RunFolder, utc_now
from .erase import Derived, derived_from, erase
from .note import Card, Note, drop_note, note_path, read_note, write_note
from .rewrite import metadata_after, rewriting
from .selection import count_shared, find_duplicates, paths_below, select_photos

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """The rows and files that a removal will erase.

    Attributes:
        rows: (n,) int64, rows of `/outcomes`.
        embeddings: number of their rows of `/embeddings`.
        duplicates: number of the n that were not named: they are byte for byte the same as named photos.
        same_stay: number of the n that are the same as photos that stay, with their embeddings.
        missing: names that select no photo in the file.
        root: absolute folder of its paths.
        derived: files that were made from the file.
        extras: datasets of other programs, which are dropped from the file.
    """

    rows: NDArray[np.int64]
    embeddings: int
    duplicates: int
    same_stay: int
    missing: tuple[bytes, ...]
    root: bytes
    derived: Derived
    extras: tuple[str, ...]


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
        self._ignored = ""  # why the note beside the file is not followed

    def finish_earlier(self, receipt: Path | None = None) -> dict[str, Any]:
        """Finish an interrupted removal.

        Args:
            receipt: the file to write; None for `<file>.removed-<time>.json`.
        Returns:
            Its receipt; empty if the removal must start over because its new file was never completed, or if a
            different file has replaced it.
        """
        note, self.unfinished = self.unfinished, None
        if note is None:
            return {}
        with EmbeddingFile(self.path) as current:
            run_id, root = current.metadata["run_id"], current.root
        if run_id == note.card.run_id_after:
            return self._finish(note, self._receipt_path(receipt, note.card.begun_utc, run_id))
        if run_id != note.card.run_id_before:
            logger.warning(
                "a removal from %s was interrupted, and the file was replaced since: no receipt is written",
                self.path,
            )
            erase(self.file, derived_from(self.file, root, keep_pages=note.keep_pages))
        drop_note(self.path)
        return {}

    def find(self, names: Sequence[bytes], *, keep_pages: bool = False) -> RemovalPlan:
        """Find the photos that names select, and the files that a removal would erase. Nothing is changed.

        Args:
            names: photos and folders, below the root or absolute.
            keep_pages: leave pages, lists and folders that show photos.
        Raises:
            ConfigError: a name selects all photos.
            StorageError: the file is damaged.
        """
        with EmbeddingFile(self.path) as source:
            selection = select_photos(source.scanned_paths(), paths_below(source.root, names))
            rows = np.union1d(selection.rows, find_duplicates(source, selection.rows))
            embeddings = int(source.vector_counts[rows].sum())
            derived = derived_from(self.file, source.root, keep_pages=keep_pages)
            extras = tuple(source.foreign_datasets())
            same_stay = count_shared(source, rows)
            return RemovalPlan(
                rows,
                embeddings,
                len(rows) - len(selection.rows),
                same_stay,
                selection.missing,
                source.root,
                derived,
                extras,
            )

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
            plan: the plan of `find`; at least one row.
            names: the names given to `find`.
            receipt: the file to write; None for `<file>.removed-<time>.json`.
            keep_pages: leave pages, lists and folders that show photos.
            name_paths: put the removed paths into the receipt; else it holds only their SHA-256 digests.
        Returns:
            The receipt; `receipt` in it is its path.
        Raises:
            OutputExistsError: the receipt exists.
            DiskFullError, StorageError: the file is unchanged, or the same command finishes the removal.
        """
        assert len(plan.rows)
        now, run_id = utc_now(), secrets.token_hex(16)
        receipt_path = self._receipt_path(receipt, now, run_id)
        if (self._folder.path / "plan.json").exists():
            logger.warning("the unfinished run on %s is discarded: it was started before this removal", self.path)
        self._folder.clear()
        with self._lock_pairs(), EmbeddingFile(self.path) as source:
            keep = np.ones(len(source.status), bool)
            keep[plan.rows] = False
            removed = list(compress(source.scanned_paths(), (~keep).tolist()))
            facts = {
                "what": "photos removed from an embedding file of facemill, and from all that was made from it",
                "file": str(self.path),
                "tool_version": __version__,
                "begun_utc": now,
                "asked_sha256": [hashlib.sha256(name).hexdigest() for name in paths_below(source.root, names)],
                "removed_sha256": [hashlib.sha256(path).hexdigest() for path in removed],
                **({"removed": [stored_text(path).decode() for path in removed]} if name_paths else {}),
                "removed_photographs": len(removed),
                "removed_embeddings": plan.embeddings,
                "removed_as_duplicates": plan.duplicates,
                "same_files_stay": plan.same_stay,
                "names_not_found": len(plan.missing),
                "dropped_datasets": list(plan.extras),
                "other_names_of_file_before": self.path.stat().st_nlink - 1,
                "photographs_before": len(keep),
                "embeddings_before": int(source.vector_counts.sum()),
                "run_id_before": source.metadata["run_id"],
                "run_id_after": run_id,
            }
            note = Note(Card(**facts), keep_pages)
            write_note(self.path, note)
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
                f"facemill pairs is reading {self.path}; expected: no other command uses it. Wait until pairs ends"
            ) from err

    def _receipt_path(self, receipt: Path | None, begun_utc: str, run_id: str) -> Path:
        """The path of the receipt: a new file, or the receipt of the same removal, which was killed after it.

        It comes from this command, never from a note.
        """
        short = re.sub("[^0-9TZ]", "", begun_utc.replace("+00:00", "Z"))[:20]
        names = (f"{self.path.name}.removed-{short}{'' if i == 1 else f'-{i}'}.json" for i in count(1))
        paths = map(self.path.with_name, names)
        free = (path for path in paths if not os.path.lexists(path) or _is_receipt_of(path, run_id))
        path = Path(os.path.abspath(receipt or next(free)))
        if os.path.lexists(path) and not _is_receipt_of(path, run_id):
            raise OutputExistsError(f"the receipt {path} exists. Name a new file with --receipt")
        if not path.parent.is_dir():
            raise ConfigError(
                f"the folder {path.parent} of the receipt does not exist. Create it, or name a different file with "
                f"--receipt"
            )
        return path

    def _finish(self, note: Note, receipt: Path) -> dict[str, Any]:
        """Complete a removal after its new file exists: erase derived files, write the receipt, drop the note."""
        with EmbeddingFile(self.path) as new:
            root = new.root
            after = {"photographs_after": len(new.status), "embeddings_after": int(new.vector_counts.sum())}
        erased = erase(self.file, derived_from(self.file, root, keep_pages=note.keep_pages))
        links = note.card.other_names_of_file_before
        hard_links = [("unknown", f"the old file has other names: {links} (hard links)")] if links else []
        ignored = [(str(note_path(self.path)), self._ignored)] if self._ignored else []
        card = {
            **note.card.facts(),
            **after,
            "sha256_after": sha256_of(self.path),
            "deleted": [str(path) for path in (*erased.beside, *erased.pages)],
            "may_still_show": [{"path": path, "why": why} for path, why in (*erased.kept, *hard_links, *ignored)],
            "photographs": "not deleted: facemill deletes no photographs",
            "finished_utc": utc_now(),
        }
        data = (json.dumps(card, indent=2) + "\n").encode()
        write_durable(receipt, data, "the receipt", like=self.path)
        drop_note(self.path)
        return {**card, "receipt": str(receipt)}

    def __enter__(self) -> Removal:
        try:
            self.unfinished, self._ignored = read_note(self.path)
        except BaseException:
            self._folder.__exit__(None, None, None)
            raise
        if self._ignored:
            logger.warning("%s: %s", note_path(self.path), self._ignored)
        return self

    def __exit__(self, *exc: object) -> None:
        self._folder.__exit__(*exc)


def _is_receipt_of(path: Path, run_id: str) -> bool:
    """Whether a file is the receipt of the removal that made the file with this `run_id`."""
    try:
        facts = parse_json(path.read_bytes()) if path.is_file() and is_trusted(path) else None
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and facts.get("run_id_after") == run_id
