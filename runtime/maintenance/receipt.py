"""The receipt of a removal, and the key without which nobody can check whether a name is in it.

A receipt holds HMAC-SHA256 digests of names (RFC 2104). Plain digests would tell the names, because names of photos can
be guessed. The key is random for each removal and has a file of its own beside the receipt.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OutputExistsError
from ..files import is_trusted, write_durable
from ..regular import read_regular
from ..schema import parse_json
from .selection import below

_MAX_BYTES = 1 << 30  # the digests of ten million names


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of a removal; the receipt file holds the same facts.

    Attributes:
        path: the receipt file.
        removed_photographs: number of erased photos, including duplicates of named photos.
        removed_embeddings: number of their embeddings.
        photographs_after, embeddings_after: numbers in the file after the removal.
        same_files_stay: erased photos that are byte for byte the same as photos that stay.
        deleted: files that were deleted with them: indexes, pages, lists.
        may_still_show: files and locations that may still show them, each with the reason.
        facts: all facts, as the receipt file holds them.
    """

    path: str
    removed_photographs: int
    removed_embeddings: int
    photographs_after: int
    embeddings_after: int
    same_files_stay: int
    deleted: tuple[str, ...]
    may_still_show: tuple[tuple[str, str], ...]
    facts: Mapping[str, Any]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Receipt:
        """Make a receipt from the facts that `Removal` returns."""
        return cls(
            path=facts["receipt"],
            removed_photographs=facts["removed_photographs"],
            removed_embeddings=facts["removed_embeddings"],
            photographs_after=facts["photographs_after"],
            embeddings_after=facts["embeddings_after"],
            same_files_stay=facts["same_files_stay"],
            deleted=tuple(facts["deleted"]),
            may_still_show=tuple((entry["path"], entry["why"]) for entry in facts["may_still_show"]),
            facts=facts,
        )

    def to_dict(self) -> dict[str, Any]:
        """The receipt for JSON."""
        return dict(self.facts)


def new_key() -> str:
    """A random key for the names of one removal, 64 hexadecimal digits."""
    return secrets.token_hex(32)


def name_digest(key: str, name: bytes) -> str:
    """The digest of a name in a receipt, 64 hexadecimal digits."""
    return hmac.new(bytes.fromhex(key), name, hashlib.sha256).hexdigest()


def key_path(receipt: Path) -> Path:
    """`receipt.json` -> `receipt.json.key`."""
    return receipt.with_name(receipt.name + ".key")


def taken_name(path: Path, run_id: str, key: str) -> Path | None:
    """The file that a receipt, or its key, would replace; None if there is none but those of the same removal.

    Args:
        path: the receipt. A removal that was killed after it had written its receipt or key writes both again.
        run_id: of the file after the removal.
        key: of the removal.
    """
    if os.path.lexists(path) and _read(path).get("run_id_after") != run_id:
        return path
    return key_path(path) if os.path.lexists(key_path(path)) and _read_key(key_path(path)) != key else None


def check_receipt(path: Path, run_id: str, key: str) -> None:
    """Refuse a receipt, or a key, that would replace another file; see `taken_name`.

    Raises:
        OutputExistsError: the receipt or the key exists.
    """
    taken = taken_name(path, run_id, key)
    if taken is not None:
        raise OutputExistsError(f"the receipt {taken} exists. Name a new file with --receipt")


def write_receipt(path: Path, facts: Mapping[str, Any], key: str, file: Path) -> None:
    """Write the key and then the receipt, both as private as the embedding file.

    Raises:
        DiskFullError, StorageError: one of them cannot be written.
    """
    write_durable(key_path(path), (key + "\n").encode(), "the key of the receipt", like=file)
    write_durable(path, (json.dumps(facts, indent=2) + "\n").encode(), "the receipt", like=file)


def find_receipt(file: Path, receipts: Iterable[Path], names: Sequence[bytes]) -> tuple[Path, dict[str, Any]] | None:
    """Find a receipt that shows that names were removed before.

    Args:
        file: the embedding file.
        receipts: files that may be receipts. Those that strangers may have written, and those without their key, are
            ignored.
        names: absolute paths of photos and folders: the file may have another root now than a receipt.
    Returns:
        The latest receipt, and its facts, if all of the names were removed; else None.
    """
    left, latest = set(names), None
    readable = _readable(file, receipts)
    for path, facts, key in sorted(readable, key=lambda entry: str(entry[1].get("begun_utc")), reverse=True):
        removed = _names_in(facts, key, left) if facts.get("root") else set()  # earlier versions told no root
        if removed:
            latest = latest or (path, facts)
            left -= removed
        if not left:
            return latest
    return None


def _names_in(facts: Mapping[str, Any], key: str, names: Iterable[bytes]) -> set[bytes]:
    """The names that were asked for, with or without a slash at the end, or that are those of removed photos."""
    asked, removed, root = set(facts["asked_hmac"]), set(facts["removed_hmac"]), os.fsencode(str(facts["root"]))

    def is_in(path: bytes) -> bool:
        name = below(root, path)
        plain = name.rstrip(b"/")
        digests = {name_digest(key, form) for form in (plain, plain + b"/")}
        return not digests.isdisjoint(asked) or name_digest(key, name) in removed

    return {name for name in names if is_in(name)}


def _readable(file: Path, receipts: Iterable[Path]) -> Iterator[tuple[Path, dict[str, Any], str]]:
    for path in receipts:
        facts, key = _read(path, file), _read_key(key_path(path), file)
        if facts and key:
            yield path, facts, key


def _read(path: Path, file: Path | None = None) -> dict[str, Any]:
    """The facts of a receipt; empty if it is none, or if others than the writers of a file may have written it."""
    try:
        if not path.is_file() or not is_trusted(path, beside=file) or path.stat().st_size > _MAX_BYTES:
            return {}
        facts = parse_json(read_regular(path, _MAX_BYTES))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) and _has_digests(facts) else {}


def _has_digests(facts: dict[str, Any]) -> bool:
    lists = (facts.get(name) for name in ("asked_hmac", "removed_hmac"))
    return all(isinstance(digests, list) and all(isinstance(digest, str) for digest in digests) for digests in lists)


def _read_key(path: Path, file: Path | None = None) -> str:
    """The key in a file; empty if it holds none, or if others than the writers of a file may have written it."""
    try:
        if not path.is_file() or not is_trusted(path, beside=file) or path.stat().st_size > 100:
            return ""
        key = read_regular(path, 100).decode("ascii").strip()
        return key if len(bytes.fromhex(key)) == 32 else ""
    except (OSError, ValueError):
        return ""
