"""The receipt of a removal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


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
