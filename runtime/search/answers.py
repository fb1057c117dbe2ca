"""The answers of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..index.measure import IndexFacts
from ..metrics.falsematch import Calibration, Expectation
from ..records import FacePlace
from ..text import utf8
from .embedder import describe_choice
from .model_label import label_model


@dataclass(frozen=True, slots=True)
class SearchFacts:
    """Facts that the answers of one call share.

    Attributes:
        rows: number of embeddings that were searched.
        model: name of the model that made them.
        model_sha256: checksum of its weights, as stored in the file.
        has_faces, has_pages: whether hits name the face in the photo, and its page.
        index: the index of the search, with its recall if it is approximate.
        warning: a warning about untrained weights; empty for trained ones.
        calibration: the false-match rates of the file; None if it has no calibration.
        by_folder: whether hits are folders.
        chosen: the faces among which was searched, by age and gender, for people; empty for all.
    """

    rows: int
    model: str
    model_sha256: str
    has_faces: bool
    index: IndexFacts
    warning: str = ""
    calibration: Calibration | None = None
    by_folder: bool = False
    has_pages: bool = False
    chosen: str = ""

    @property
    def model_label(self) -> str:
        """The model for people: its name and the start of its checksum."""
        return label_model(self.model, self.model_sha256)


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the file that is similar to the query.

    Attributes:
        rank: 1 for the best hit.
        score: cosine of the two embeddings, -1 to 1.
        row: row in `/embeddings`.
        path: the photo, as in `/image_paths`.
        face: the face in that photo; None if the file does not name faces.
        expected: expected number of hits at this score or above for a person who is not in the file; None if the file
            has no calibration.
        folder: the folder that the hit represents, with its best photo; None if hits are photos.
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
        values: dict[str, Any] = {"rank": self.rank, "score": round(self.score, 6), "row": self.row, "path": self.path}
        if self.face is not None:
            values |= self.face.to_dict()
        if self.expected is not None:
            values |= {"expected_false_hits": float(f"{self.expected.hits:.6g}"), "at_most": self.expected.at_most}
        if self.folder is not None:
            values |= {"folder": self.folder, "photographs": self.photographs}
        return values


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one query.

    Attributes:
        query: path of the photo; `<photo N>` for bytes and arrays, `<vector N>` for vectors.
        facts: facts that all answers of the call share.
        hits: best first.
        error: why the query could not be embedded; empty if it was.
        faces: number of faces in the photo; None if faces were not detected.
        face: the face that was searched for; None if faces were not detected or the photo has none.
        cut: whether more hits may exist, because only `hits.MAX_RANKED_ROWS` rows were ranked.
        search_ms: time of the index search, without embedding; queries of one batch share its time equally.
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
        """Notes for people: which of several faces was used, and whether more hits may exist."""
        hits = "folders" if self.facts.by_folder else "photos"
        more = f"more {hits} may match: only the best rows were ranked" if self.cut else ""
        return list(filter(None, (describe_choice(self.faces, self.face), more)))

    def to_dict(self) -> dict[str, Any]:
        """The answer for JSON: what `facemill search --json` prints."""
        values: dict[str, Any] = {"query": utf8(self.query)}
        if self.error:
            values["error"] = utf8(self.error)
        values |= {"model": self.facts.model, "model_sha256": self.facts.model_sha256}
        if self.faces is not None:
            values |= {"faces": self.faces, **(self.face.to_dict() if self.face else {})}
        values["search_ms"] = round(self.search_ms, 3)
        values["index"] = self.facts.index.as_dict()
        values["hits"] = [hit.to_dict() for hit in self.hits]
        if self.cut:
            values["cut"] = True
        if self.facts.chosen:
            values["among"] = self.facts.chosen
        if self.facts.warning:
            values["warning"] = self.facts.warning
        return values
