"""What a removal did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of a removal; the same facts are in the file that it was written to.

    Attributes:
        path: the file that holds it.
        removed_photographs: photos that were erased, duplicates of named ones among them.
        removed_embeddings: their embeddings.
        photographs_after, embeddings_after: those that the file has now.
        same_files_stay: erased photos that are the same files, to the byte, as photos that stay.
        deleted: files that were deleted with them: indexes, pages, lists.
        may_still_show: files and places that may still show them, each with the reason.
        facts: all of it, as the file holds it.
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
        """From what `Removal` returns."""
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
