"""The answers of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..index.measure import IndexFacts
from ..metrics.falsematch import Calibration, Expectation
from ..records import FacePlace
from ..text import utf8
from .embedder import describe_choice
from .model_label import named


@dataclass(frozen=True, slots=True)
class SearchFacts:
    """What the answers of one call have in common.

    Attributes:
        rows: number of embeddings that were searched.
        model: name of the model that made them.
        model_sha256: checksum of its weights, as the file names it.
        has_faces: whether hits name the face in the photo.
        index: the index that answered; for an approximate one, the share of the true hits that it finds.
        warning: what a user must know about the weights; empty for trained ones.
        calibration: the false matches that the file knows of; None if it carries no calibration.
        by_folder: whether hits are folders.
    """

    rows: int
    model: str
    model_sha256: str
    has_faces: bool
    index: IndexFacts
    warning: str = ""
    calibration: Calibration | None = None
    by_folder: bool = False

    @property
    def model_label(self) -> str:
        """The model for people: its name and the start of its checksum."""
        return named(self.model, self.model_sha256)


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the file that is like the query.

    Attributes:
        rank: 1 for the best hit.
        score: cosine of the two embeddings, -1 to 1.
        row: row in `/embeddings`.
        path: the photo, as in `/image_paths`.
        face: the face in that photo; None if the file does not name faces.
        expected: false hits that a query of somebody who is not in the file has at this score or above; None if the
            file carries no calibration.
        folder: the folder that the hit stands for, with its best photo; None if hits are photos.
        photographs: photos of that folder that rank before the first folder left out; 0 if hits are photos.
    """

    rank: int
    score: float
    row: int
    path: str
    face: FacePlace | None = None
    expected: Expectation | None = None
    folder: str | None = None
    photographs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The hit for JSON: the score with six decimals, the box with one."""
        found: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6), "row": self.row, "path": self.path}
        if self.face is not None:
            found |= self.face.to_dict()
        if self.expected is not None:
            found |= {"expected_false_hits": float(f"{self.expected.hits:.6g}"), "at_most": self.expected.at_most}
        if self.folder is not None:
            found |= {"folder": self.folder, "photographs": self.photographs}
        return found


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query.

    Attributes:
        query: path of the photo; `<photo N>` for bytes and arrays, `<vector N>` for vectors.
        facts: what all answers of the call have in common.
        hits: best first.
        error: why the query could not be embedded; empty if it was.
        faces: number of faces in the photo; None if faces were not looked for.
        face: the face that was searched for; None if faces were not looked for or none was found.
        cut: whether there may be more hits: no more than `hits.DEEPEST` rows were looked at.
        search_ms: time of the index search, without embedding; the query's share of those that were searched together.
    """

    query: str
    facts: SearchFacts = field(compare=False)
    hits: tuple[Hit, ...] = ()
    error: str = ""
    faces: int | None = None
    face: FacePlace | None = None
    cut: bool = False
    search_ms: float = field(default=0.0, compare=False)

    @property
    def notes(self) -> list[str]:
        """Notes for people: which of several faces was taken, that there may be more hits."""
        hits = "folders" if self.facts.by_folder else "photographs"
        more = f"there may be more {hits}: only the best rows were looked at" if self.cut else ""
        return list(filter(None, (describe_choice(self.faces, self.face), more)))

    def to_dict(self) -> dict[str, Any]:
        """The answer for JSON: what `facemill search --json` prints."""
        found: dict[str, Any] = {"query": utf8(self.query)}
        if self.error:
            found["error"] = utf8(self.error)
        found |= {"model": self.facts.model, "model_sha256": self.facts.model_sha256}
        if self.faces is not None:
            found |= {"faces": self.faces, **(self.face.to_dict() if self.face else {})}
        found["search_ms"] = round(self.search_ms, 3)
        found["index"] = self.facts.index.as_dict()
        found["hits"] = [hit.to_dict() for hit in self.hits]
        if self.cut:
            found["cut"] = True
        if self.facts.warning:
            found["warning"] = self.facts.warning
        return found
