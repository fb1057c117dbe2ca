"""The page *Recognise*: the faces of a photo, and the photos of a file that are most like one of them.

The browser sends a photo to `/api/v1/recognition`, keeps the vectors of its faces, and asks here for the hits of one of
them. So a slider that moves costs a search, and no photo is embedded twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request, Response

from ..attributes.selection import AttributeFilter
from ..errors import RequestError
from ..metrics.falsematch import Calibration
from ..pages.search_page import describe_hit
from ..schema import convert
from ..search.answers import Answer
from ..search.hits import FindOptions
from ..server.open_files import OpenFile, facts_of_each
from ..server.problems import Refusal
from ..server.service import Service
from .layout import fragment, page

MAX_HITS = 200  # of a search of the page; each is a picture


@dataclass(frozen=True)
class Question:
    """What the page asks for.

    Attributes:
        file: name of the file.
        model_sha256: checksum of the model that made the vector.
        vector: the embedding of a face.
        k: maximum number of hits.
        threshold: lowest score of a hit; 0 for no threshold.
        by_folder: show the best hit of each folder.
        gender: "man", "woman", or "" for both.
        age: such as "18-40"; "" for all ages.
        unsure: keep or drop faces of unsure age or gender.
    """

    file: str
    model_sha256: str
    vector: tuple[float, ...]
    k: int = 50
    threshold: float = 0.0
    by_folder: bool = False
    gender: Literal["man", "woman", ""] = ""
    age: str = ""
    unsure: Literal["keep", "drop"] = "keep"

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MAX_HITS:
            raise ValueError(f"k is {self.k}; expected: 1 to {MAX_HITS}")


def recognise_page(service: Service) -> APIRouter:
    """The page `/recognise`, and the hits that it shows."""
    router = APIRouter(include_in_schema=False)

    @router.get("/recognise")
    def recognise(request: Request) -> Response:
        return page(
            request,
            "recognise",
            title="Recognise",
            styles=["recognise"],
            modules=["recognise"],
            files=facts_of_each(service.files, OpenFile.to_dict),
            max_hits=MAX_HITS,
        )

    @router.post("/recognise/hits")
    async def hits(request: Request) -> Response:
        values = await service.bodies.json(request, list(Question.__dataclass_fields__))
        try:
            asked = convert(values, Question)
        except ValueError as err:
            raise Refusal(422, RequestError(str(err))) from err
        file = service.file(asked.file)
        request.scope["facemill.file"] = file.name
        state, answer = await service.find_vector(
            request,
            np.array(asked.vector, np.float32),
            asked.model_sha256,
            file=file,
            options=FindOptions(asked.k, asked.threshold or None, by_folder=asked.by_folder),
            chosen=AttributeFilter.of(asked.gender or None, asked.age or None, asked.unsure),
        )
        return fragment("hits", file=file.name, state=state, **_describe(answer, asked.threshold))

    return router


def _describe(answer: Answer, threshold: float) -> dict[str, Any]:
    """The answer for its template."""
    facts = answer.facts
    return {
        "warning": facts.warning,
        "summary": [
            f"among {facts.rows:,} rows" + (f": {facts.chosen}" if facts.chosen else ""),
            f"search {answer.search_ms:,.1f} ms",
            f"model {facts.model_label}",
            f"index {facts.index}",
        ],
        "expected": _expected(facts.calibration, threshold, facts.rows),
        "notes": answer.notes,
        "hits": [{"row": hit.row, **describe_hit(hit)} for hit in answer.hits],
    }


def _expected(calibration: Calibration | None, threshold: float, rows: int) -> str:
    """Say how many false hits a threshold lets through."""
    if calibration is None:
        return (
            "False hits cannot be estimated: the file has no calibration. "
            "Make one with: facemill evaluate FOLDER --calibrate FILE"
        )
    if not threshold:
        return calibration.explain()
    expected = calibration.expected(threshold, rows)
    return f"At {threshold:.2f} and above, a person who is not in the file has {expected} false hits on average."
