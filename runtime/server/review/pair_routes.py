"""The routes about pairs: list them, decide, undo, redo."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request, Response

from ...review.review import PairVerdict
from ...review.rows import STATES
from ..openapi import INTEGER, NUMBER, TEXT, answers, json_body, lists, objects
from ..photo_routes import FileName, Key, Score, check_parameters
from ..problems import json_response
from .background import Waiting
from .reviewed_file import ReviewedFile
from .reviews import (
    Cursor,
    Limit,
    Reviews,
    checked,
    place_of,
    refuse_other_version,
    setting_aside,
    still_working,
)

_MAX_DECISIONS = 1000
_ROW = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_VERDICT = {"enum": ["same", "different", "undecided"]}
_DECISION = {**objects({"row_a": _ROW, "row_b": _ROW, "decision": _VERDICT}, "row_a", "row_b", "decision")}
_DECISION["additionalProperties"] = False
PAIR = objects(
    {
        **{name: TEXT for name in ("path_a", "path_b")},
        "score": NUMBER,
        "expected_false": NUMBER,
        "at_most": {"type": "boolean"},
        "decision": {"enum": list(STATES)},
        **{f"{name}_{side}": INTEGER for name in ("row", "face_index", "page") for side in "ab"},
    },
    *("path_a", "path_b", "score", "decision", "row_a", "row_b"),
)
PAIRS = objects(
    {
        "file": TEXT,
        "version": TEXT,
        "pictures": TEXT,
        "threshold": NUMBER,
        "total": INTEGER,
        "counts": {"type": "object", "description": "Number of pairs by what is decided; open: nothing."},
        "pairs": lists(PAIR),
        "next": {"type": ["string", "null"]},
    },
    *("file", "version", "pictures", "threshold", "total", "counts", "pairs", "next"),
)
WORKING = objects({"state": {"enum": ["working"]}, "done": NUMBER}, "state", "done")
DECIDED = objects(
    {
        "decisions": lists(INTEGER),
        "set_aside": {**lists(INTEGER), "description": "Earlier decisions that these contradict."},
    },
    "decisions",
    "set_aside",
)
UNDONE = objects(
    {
        "decision": {"type": ["integer", "null"]},
        "kind": TEXT,
        "rows": lists(INTEGER),
        "others": lists(INTEGER),
        "now": {"enum": list(STATES), "description": "What is decided about the pair now."},
    },
    "decision",
)
_SHOWN = {"open": "", "same": "same", "different": "different", "undecided": "undecided"}


class OneDecision(msgspec.Struct, forbid_unknown_fields=True):
    """A decision about a pair."""

    row_a: int
    row_b: int
    decision: Literal["same", "different", "undecided"]


class Decisions(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/pairs/decisions`."""

    version: str
    decisions: Annotated[list[OneDecision], msgspec.Meta(min_length=1, max_length=_MAX_DECISIONS)]


def working(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """The responses of a route that may have to compute its answer first."""
    content = {"application/json": {"schema": WORKING}}
    return {**answers(schema), 202: {"description": "It is being computed: ask again.", "content": content}}


def pair_routes(reviews: Reviews) -> APIRouter:
    """The routes below `/api/v1/pairs`."""
    router = APIRouter(prefix="/api/v1/pairs", tags=["Review"])

    @router.get("", responses=working(PAIRS))
    def pairs(
        request: Request,
        file: FileName = None,
        threshold: Score = None,
        show: Annotated[
            Literal["open", "undecided", "same", "different", "all"], Query(description="Which pairs, by decision.")
        ] = "open",
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """List pairs of photos that may show the same person, best first, with what is decided about each.

        All pairs of the file are compared before the first answer; until then the answer is 202 and the finished share.
        Without a threshold, the calibration of the file gives it. `version` goes with decisions about these pairs.
        """
        check_parameters(request, {"file", "threshold", "show", "limit", "cursor"})
        reviewed = reviews.of(request, file)
        found = checked(lambda: reviewed.pairs(threshold))
        if isinstance(found, Waiting):
            return still_working(found)
        lowest = found.lowest if threshold is None else threshold
        total = found.count_above(lowest)
        with reviewed.review() as review:
            if found.version != reviewed.version:  # the file was replaced just now
                return still_working(Waiting(0.0))
            states = review.rules.states(found.pairs.first[:total], found.pairs.second[:total])
            start = place_of(cursor, found.key)
            chosen = np.ones(total, bool) if show == "all" else states == STATES.index(_SHOWN[show])
            places = start + np.flatnonzero(chosen[start:])[: limit + 1]
            listed = places[:limit].tolist()
            shown = found.at(listed, review.embeddings, states[listed])
        counts = np.bincount(states, minlength=len(STATES)).tolist()
        return json_response(
            {
                "file": reviewed.file.name,
                "version": found.version,
                "pictures": reviewed.pictures,
                "threshold": lowest,
                "total": total,
                "counts": {name: counts[STATES.index(state)] for name, state in _SHOWN.items()},
                "pairs": [pair.to_dict() for pair in shown],
                "next": f"{found.key}.{places[limit]}" if len(places) > limit else None,
            }
        )

    @router.post(
        "/decisions",
        responses=answers(DECIDED),
        openapi_extra=json_body(
            {"version": TEXT, "decisions": {**lists(_DECISION), "minItems": 1, "maxItems": _MAX_DECISIONS}},
            *("version", "decisions"),
        ),
    )
    async def decide(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Decide about pairs: same person, different people who are never put together again, or undecided.

        All decisions are stored, or none. Decisions that they contradict are set aside; undo brings them back.
        """
        reviewed = reviews.of(request, file)
        body = await reviews.body(request, Decisions)
        verdicts = [PairVerdict(each.row_a, each.row_b, each.decision) for each in body.decisions]

        def work(reviewed: ReviewedFile, who: str) -> dict[str, Any]:
            with reviewed.review(who) as review:
                refuse_other_version(reviewed, body.version)
                numbers, set_aside = setting_aside(review, lambda: review.decide_pairs(verdicts))
            return {"decisions": numbers, "set_aside": set_aside}

        return await reviews.change(request, reviewed, body, work, key)

    @router.post("/undo", responses=answers(UNDONE), openapi_extra=json_body({}))
    async def undo(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Take back the latest decision of this client about a pair; `decision` is null if there is none."""
        return await reviews.step(request, file, key, lambda review: review.undo_pair())

    @router.post("/redo", responses=answers(UNDONE), openapi_extra=json_body({}))
    async def redo(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Take back the latest undo of this client, unless the client has decided about a pair since."""
        return await reviews.step(request, file, key, lambda review: review.redo_pair())

    return router
