"""The routes that answer for photos: recognition, detection, comparison, search."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response

from .. import defaults
from ..api.jobs import parse_attributes
from ..api.photos import every_face
from ..attributes.selection import AttributeFilter
from ..errors import RequestError
from ..search.hits import FindOptions
from .openapi import ANSWER, COMPARISON, FACES, RECOGNITION, answers, photo_body
from .problems import Refusal, json_response
from .service import Service

_MAX_HITS = 1000  # of a query
_AGES = "^([0-9]{1,3}(-([0-9]{1,3})?)?|-[0-9]{1,3})$"

FileName = Annotated[str | None, Query(description="Name of an embedding file.", min_length=1, max_length=255)]
Key = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        description="A key of your own: a repeated request with it gets the first answer.",
        max_length=255,
    ),
]
Score = Annotated[float | None, Query(description="Lowest score, -1 to 1.", ge=-1, le=1)]


def photo_routes(service: Service) -> APIRouter:
    """The routes below `/api/v1`."""
    router = APIRouter(prefix="/api/v1", tags=["Photos"])

    @router.post("/recognition", responses=answers(RECOGNITION), openapi_extra=photo_body("photo"))
    async def recognition(
        request: Request,
        faces: Annotated[
            Literal["all", "largest"], Query(description="Every face, or the main one: large and near the middle.")
        ] = "all",
        attributes: Annotated[
            Literal["age", "gender", "age,gender"] | None, Query(description="What to read from each face.")
        ] = None,
        file: FileName = None,
    ) -> Response:
        """Embed the faces of a photo: box, landmarks, measures and embedding of each.

        The engines are those of the server, or with `file` those of that file.
        """
        check_parameters(request, {"faces", "attributes", "file"})
        names = parse_attributes(attributes) if attributes else ()
        with service.reading("photo") as reading:
            (photo,) = await reading.read(request)
            embedded = await service.recognise(request, photo, every=every_face(faces), attributes=names, file=file)
        return json_response(embedded.to_dict())

    @router.post("/detect", responses=answers(FACES), openapi_extra=photo_body("photo"))
    async def detect(request: Request) -> Response:
        """Find the faces of a photo: box, landmarks and measures of each, the main face first."""
        check_parameters(request, set())
        with service.reading("photo") as reading:
            (photo,) = await reading.read(request)
            detection = await service.detect(request, photo)
        return json_response(detection.to_dict())

    @router.post("/compare", responses=answers(COMPARISON), openapi_extra=photo_body("a", "b"))
    async def compare(request: Request, threshold: Score = None, file: FileName = None) -> Response:
        """Say whether two photos show the same person: score, threshold, verdict and false match rate.

        With `file`, the engines and the calibration of that file are used.
        """
        check_parameters(request, {"threshold", "file"})
        with service.reading("a", "b") as reading:
            photos = await reading.read(request)
            comparison = await service.compare(request, photos, threshold=threshold, file=file)
        return json_response(comparison.to_dict())

    @router.post("/search", responses=answers(ANSWER), openapi_extra=photo_body("photo"))
    async def search(
        request: Request,
        file: FileName = None,
        k: Annotated[int, Query(description="Maximum number of hits.", ge=1, le=_MAX_HITS)] = defaults.K,
        threshold: Score = None,
        by_folder: Annotated[bool, Query(description="Show the best hit of each folder; k counts folders.")] = False,
        gender: Annotated[Literal["man", "woman"] | None, Query(description="Search among these faces.")] = None,
        age: Annotated[
            str | None, Query(description="Search among these ages: 18-40, 18-, -12 or 30.", pattern=_AGES)
        ] = None,
        unsure: Annotated[
            Literal["keep", "drop"], Query(description="Keep or drop faces of unsure age or gender.")
        ] = "keep",
    ) -> Response:
        """Find the photos of a file that are most like the main face of a photo."""
        check_parameters(request, {"file", "k", "threshold", "by_folder", "gender", "age", "unsure"})
        options = FindOptions(k, threshold, by_folder=by_folder)
        chosen = AttributeFilter.of(gender, age, unsure)
        request.scope["facemill.file"] = service.file(file).name
        with service.reading("photo") as reading:
            (photo,) = await reading.read(request)
            answer = await service.search(request, photo, file=file, options=options, chosen=chosen)
        return json_response(answer.to_dict())

    return router


def check_parameters(request: Request, names: set[str]) -> None:
    """Refuse parameters that a route does not have, such as a misspelt one.

    Raises:
        Refusal: there is one.
    """
    others = sorted(set(request.query_params) - names)
    if others:
        expected = ", ".join(sorted(names)) or "none"
        raise Refusal(422, RequestError(f"the request has a parameter {others[0]!r:.60}; expected: {expected}"))
