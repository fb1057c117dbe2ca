"""The routes about clusters: list them, name, merge, split, undo, redo, and group the photos again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import numpy as np
from fastapi import APIRouter, Query, Request, Response
from numpy.typing import NDArray

from ...clusters.clusters import Clusters
from ...errors import ConfigError, ContractError
from ...review.review import MAX_NAME, Review
from ..openapi import INTEGER, NUMBER, TEXT, answers, json_body, lists, objects
from ..photo_routes import FileName, Key, check_parameters
from ..problems import Refusal, json_response
from .pair_routes import UNDONE, working
from .reviewed_file import ReviewedFile, cluster_id, face_dicts
from .reviews import Cursor, Limit, Reviews, checked, place_of, refuse_other_version, setting_aside, still_working

_MAX_MERGED = 1000  # clusters, or rows of a split
_SAMPLE = 6  # faces of a cluster in the list of clusters
_ID = {"type": "string", "minLength": 1, "maxLength": 40}
_NAME = {"type": "string", "maxLength": MAX_NAME}
_FACE = objects(
    {"row": INTEGER, "path": TEXT, "face_index": INTEGER, "page": INTEGER, "box": lists(NUMBER)}, "row", "path"
)
CLUSTER = objects(
    {"id": TEXT, "cluster": INTEGER, "size": INTEGER, "name": TEXT, "faces": lists(_FACE)},
    *("id", "cluster", "size", "name", "faces"),
)
_LIST = {"file": TEXT, "version": TEXT, "pictures": TEXT, "next": {"type": ["string", "null"]}}
CLUSTERS = objects(
    {**_LIST, "grouped": {"type": "boolean"}, "total": INTEGER, "photos": INTEGER, "clusters": lists(CLUSTER)},
    *(*_LIST, "grouped", "total", "photos", "clusters"),
)
FACES_OF = objects({**_LIST, **CLUSTER["properties"]}, *_LIST, *CLUSTER["required"])
CHANGED = objects({"decision": INTEGER, "set_aside": lists(INTEGER)}, "decision", "set_aside")
GROUPED = objects({"state": {"enum": ["done"]}}, "state")

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]


class Naming(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/clusters/name`."""

    version: str
    cluster: Id
    name: str


class Merging(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/clusters/merge`."""

    version: str
    clusters: Annotated[list[Id], msgspec.Meta(min_length=2, max_length=_MAX_MERGED)]
    name: str | None = None


class Splitting(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/clusters/split`."""

    version: str
    cluster: Id
    rows: Annotated[list[int], msgspec.Meta(min_length=1, max_length=_MAX_MERGED)]


class Grouping(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `/clusters/group`."""

    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    people: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = None


def cluster_routes(reviews: Reviews) -> APIRouter:
    """The routes below `/api/v1/clusters`."""
    router = APIRouter(prefix="/api/v1/clusters", tags=["Review"])

    @router.get("", responses=answers(CLUSTERS))
    def clusters(
        request: Request,
        file: FileName = None,
        min_photos: Annotated[int, Query(description="Fewest faces of a cluster.", ge=1, le=2**31 - 1)] = 1,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> Response:
        """List the clusters of the file as decisions have changed them, the largest first, with some faces of each.

        `id` names a cluster with exactly these faces, and `version` the rows of the file; both go with changes. A file
        that is not `grouped` yet has no clusters: group it with `/clusters/group`.
        """
        check_parameters(request, {"file", "min_photos", "limit", "cursor"})
        reviewed = reviews.of(request, file)
        with reviewed.review() as review:
            facts = {"file": reviewed.file.name, "version": reviewed.version, "pictures": reviewed.pictures}
            if not reviewed.is_grouped:
                place_of(cursor, "")
                none = {"grouped": False, "total": 0, "photos": 0, "clusters": [], "next": None}
                return json_response({**facts, **none})
            found = _clusters(reviewed)
            key = _key(found)
            start, total = place_of(cursor, key), found.count_at_least(min_photos)
            names = review.rules.cluster_names(found.labels)
            numbers = range(start + 1, min(start + limit, total) + 1)
            listed = [_cluster(review, found, number, names, found.rows(number)[:_SAMPLE]) for number in numbers]
            last = start + len(listed)
            return json_response(
                {
                    **facts,
                    "grouped": True,
                    "total": total,
                    "photos": int(found.sizes[:total].sum()),
                    "clusters": listed,
                    "next": f"{key}.{last}" if last < total else None,
                }
            )

    @router.get("/faces", responses=answers(FACES_OF))
    def faces(
        request: Request,
        cluster: Annotated[str, Query(description="`id` of a cluster.", min_length=1, max_length=40)],
        file: FileName = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Response:
        """List the faces of a cluster."""
        check_parameters(request, {"file", "cluster", "limit", "cursor"})
        reviewed = reviews.of(request, file)
        with reviewed.review() as review:
            found = _clusters(reviewed)
            number = _number_of(found, cluster)
            key, rows = _key(found), found.rows(number)
            start = place_of(cursor, key)
            names = review.rules.cluster_names(found.labels)
            shown = _cluster(review, found, number, names, rows[start : start + limit])
            last = start + len(shown["faces"])
            following = f"{key}.{last}" if last < len(rows) else None
            facts = {"file": reviewed.file.name, "version": reviewed.version, "pictures": reviewed.pictures}
            return json_response({**facts, "next": following, **shown})

    async def change(
        request: Request, file: str | None, kind: type[Any], key: str, decide: Callable[[Review, Clusters, Any], int]
    ) -> Response:
        """Store a decision about clusters that the client has seen as they are."""
        reviewed = reviews.of(request, file)
        body = await reviews.body(request, kind)

        def work(reviewed: ReviewedFile, who: str) -> dict[str, Any]:
            with reviewed.review(who) as review:
                refuse_other_version(reviewed, body.version)
                found = _clusters(reviewed)
                number, set_aside = setting_aside(review, lambda: decide(review, found, body))
            return {"decision": number, "set_aside": set_aside}

        return await reviews.change(request, reviewed, body, work, key)

    @router.post(
        "/name",
        responses=answers(CHANGED),
        openapi_extra=json_body({"version": TEXT, "cluster": _ID, "name": _NAME}, "version", "cluster", "name"),
    )
    async def name(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Name the person of a cluster; an empty name takes the name away."""

        def decide(review: Review, found: Clusters, body: Naming) -> int:
            return review.name(found.rows(_number_of(found, body.cluster)).tolist(), body.name)

        return await change(request, file, Naming, key, decide)

    @router.post(
        "/merge",
        responses=answers(CHANGED),
        openapi_extra=json_body(
            {
                "version": TEXT,
                "clusters": {**lists(_ID), "minItems": 2, "maxItems": _MAX_MERGED},
                "name": {"type": ["string", "null"], "maxLength": MAX_NAME},
            },
            *("version", "clusters"),
        ),
    )
    async def merge(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Decide that clusters show one person. Without `name`, it is called as the first of them that has a name."""

        def decide(review: Review, found: Clusters, body: Merging) -> int:
            parts = [found.rows(_number_of(found, each)) for each in dict.fromkeys(body.clusters)]
            names = [name for part in parts if (name := review.name_of(part.tolist()))]
            chosen = body.name if body.name is not None else names[0] if names else None
            return review.merge(np.concatenate(parts).tolist(), chosen)

        return await change(request, file, Merging, key, decide)

    @router.post(
        "/split",
        responses=answers(CHANGED),
        openapi_extra=json_body(
            {
                "version": TEXT,
                "cluster": _ID,
                "rows": {
                    **lists({"type": "integer", "minimum": 0, "maximum": 2**31 - 1}),
                    "minItems": 1,
                    "maxItems": _MAX_MERGED,
                },
            },
            *("version", "cluster", "rows"),
        ),
    )
    async def split(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Decide that faces of a cluster are not the person of its other faces, and never will be."""

        def decide(review: Review, found: Clusters, body: Splitting) -> int:
            rows = found.rows(_number_of(found, body.cluster)).tolist()
            strange = set(body.rows) - set(rows)
            if strange:
                raise ConfigError(f"row {min(strange)} is not in the cluster; expected: rows of it")
            return review.split(body.rows, [row for row in rows if row not in set(body.rows)])

        return await change(request, file, Splitting, key, decide)

    @router.post("/undo", responses=answers(UNDONE), openapi_extra=json_body({}))
    async def undo(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Take back the latest merge, split or name of this client; `decision` is null if there is none."""
        return await reviews.step(request, file, key, lambda review: review.undo_cluster())

    @router.post("/redo", responses=answers(UNDONE), openapi_extra=json_body({}))
    async def redo(request: Request, file: FileName = None, key: Key = "") -> Response:
        """Take back the latest undo of this client, unless the client has changed a cluster since."""
        return await reviews.step(request, file, key, lambda review: review.redo_cluster())

    @router.post(
        "/group",
        responses=working(GROUPED),
        openapi_extra=json_body(
            {
                "threshold": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
                "people": {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1},
            }
        ),
    )
    async def group(request: Request, file: FileName = None) -> Response:
        """Group the photos of the file by person again, by a threshold or into a number of people, and keep decisions.

        The answer is 202 until it is done: send the same request again.
        """
        reviewed = reviews.of(request, file)
        body = await reviews.body(request, Grouping)
        waiting = await reviews.in_thread(lambda: checked(lambda: reviewed.group(body.threshold, body.people)))
        return json_response({"state": "done"}) if waiting is None else still_working(waiting)

    return router


def _clusters(reviewed: ReviewedFile) -> Clusters:
    try:
        return reviewed.clusters()
    except ConfigError as err:
        raise Refusal(409, err) from err


def _key(found: Clusters) -> str:
    """Tells this state of the clusters from others."""
    return hashlib.sha256(found.labels.tobytes()).hexdigest()[:16]


def _number_of(found: Clusters, name: str) -> int:
    """The number of a cluster that still has the faces that its id names.

    Raises:
        Refusal: it has changed.
    """
    first = name.partition("-")[0]
    row = int(first) if first.isascii() and first.isdigit() and len(first) < 12 else -1
    number = int(found.labels[row]) if 0 <= row < len(found.labels) else 0
    if not number or cluster_id(found.rows(number)) != name:
        reason = f"no cluster is {name!r:.60} any more: its faces have changed, or it never was one"
        raise Refusal(409, ContractError(f"{reason}. Load the clusters again, and decide about what they show now"))
    return number


def _cluster(
    review: Review, found: Clusters, number: int, names: dict[int, str], rows: NDArray[np.int64]
) -> dict[str, Any]:
    """A cluster with some of its faces, for JSON."""
    return {
        "id": cluster_id(found.rows(number)),
        "cluster": number,
        "size": int(found.sizes[number - 1]),
        "name": names.get(number, ""),
        "faces": face_dicts(review.embeddings, rows.tolist()),
    }
