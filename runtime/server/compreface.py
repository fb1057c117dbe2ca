"""Routes for clients of CompreFace, where they mean the same: detect, verify, recognise.

A subject is the folder of a photo, because `facemill process` takes one folder for each person. Routes that change
subjects are not here: photos are added and removed through `/api/v1/files`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ..errors import PhotoError
from ..search.faces import DetectedFace, EmbeddedFace, PhotoFaces
from ..search.hits import FindOptions
from .openapi import answers, lists, objects, photo_body
from .problems import json_response
from .service import Service

_PLUGINS = ("age", "gender", "landmarks", "calculator")
_RESULT = objects({"result": lists({"type": "object"})}, "result")

Limit = Annotated[int, Query(description="Maximum number of faces; 0 for all.", ge=0, le=1000)]
Probability = Annotated[float, Query(description="Minimum confidence of a face, 0 to 1.", ge=0, le=1)]
Plugins = Annotated[str, Query(description="age, gender, landmarks, calculator; others are ignored.", max_length=200)]
Count = Annotated[int, Query(description="Maximum number of subjects for each face.", ge=1, le=100)]
Status = Annotated[bool, Query(description="Accepted; facemill has no versions of plugins to tell.")]


def compreface_routes(service: Service) -> APIRouter:
    """The routes below `/compat/compreface`."""
    router = APIRouter(prefix="/compat/compreface/api/v1", tags=["CompreFace"])

    async def faces_of(
        request: Request, photo: bytes, plugins: str, min_score: float, limit: int
    ) -> list[EmbeddedFace]:
        """The faces of a photo that a client asks for, largest first."""
        attributes, file = _attributes(plugins), _only(service)
        embedded = await service.recognise(request, photo, every=True, attributes=attributes, file=file)
        return [embedded.faces[i] for i in _choose(embedded, min_score, limit)]

    @router.post("/detection/detect", responses=answers(_RESULT), openapi_extra=photo_body("file"))
    async def detect(
        request: Request,
        limit: Limit = 0,
        det_prob_threshold: Probability = 0.0,
        face_plugins: Plugins = "",
        status: Status = False,
    ) -> Response:
        """Find the faces of a photo, as CompreFace's detection service does."""
        with service.reading("file") as reading:
            (photo,) = await reading.read(request)
            faces = await faces_of(request, photo, face_plugins, det_prob_threshold, limit)
        return json_response({"result": [_face(face, face_plugins) for face in faces]})

    @router.post(
        "/verification/verify", responses=answers(_RESULT), openapi_extra=photo_body("source_image", "target_image")
    )
    async def verify(
        request: Request,
        limit: Limit = 0,
        det_prob_threshold: Probability = 0.0,
        face_plugins: Plugins = "",
        status: Status = False,
    ) -> Response:
        """Compare the largest face of a source image with every face of a target image."""
        with service.reading("source_image", "target_image") as reading:
            source_photo, target_photo = await reading.read(request)
            (source, *_) = await faces_of(request, source_photo, face_plugins, det_prob_threshold, 1)
            targets = await faces_of(request, target_photo, face_plugins, det_prob_threshold, limit)
        matches = [
            {**_face(face, face_plugins), "similarity": round(float(source.vector @ face.vector), 6)}
            for face in targets
        ]
        return json_response({"result": [{"source_image_face": _face(source, face_plugins), "face_matches": matches}]})

    @router.post("/recognition/recognize", responses=answers(_RESULT), openapi_extra=photo_body("file"))
    async def recognize(
        request: Request,
        limit: Limit = 0,
        det_prob_threshold: Probability = 0.0,
        prediction_count: Count = 1,
        face_plugins: Plugins = "",
        status: Status = False,
    ) -> Response:
        """Name the folders whose photos are most like each face of a photo. The server has exactly one file."""
        file = service.file(None)
        request.scope["facemill.file"] = file.name
        with service.reading("file") as reading:
            (photo,) = await reading.read(request)
            embedded, hits = await service.recognise_in(
                request, photo, file, FindOptions(prediction_count, by_folder=True), _attributes(face_plugins)
            )
        result = []
        for i in _choose(embedded, det_prob_threshold, limit):
            subjects = [{"subject": hit.folder, "similarity": round(hit.score, 6)} for hit in hits[i].hits]
            result.append({**_face(embedded.faces[i], face_plugins), "subjects": subjects})
        return json_response({"result": result})

    return router


def _only(service: Service) -> str | None:
    """The only file of the server, whose engines make vectors comparable with its rows; None if there are several."""
    return next(iter(service.files)) if len(service.files) == 1 else None


def _choose(embedded: PhotoFaces, min_score: float, limit: int) -> list[int]:
    """The numbers of the faces with this confidence, largest first.

    Raises:
        PhotoError: there is none.
    """
    faces = [face.face for face in embedded.faces]
    numbers = [i for i, face in enumerate(faces) if face is None or face.score >= min_score]
    if not numbers:
        raise PhotoError("no-face: No face is found in the given image")
    return sorted(numbers, key=lambda i: -_area(faces[i]))[: limit or None]


def _attributes(plugins: str) -> tuple[str, ...]:
    """The plugins that read attributes, as facemill names them."""
    return tuple(name for name in ("age", "gender") if name in _named(plugins))


def _named(plugins: str) -> set[str]:
    return {name.strip() for name in plugins.split(",")} & set(_PLUGINS)


def _area(face: DetectedFace | None) -> float:
    if face is None:
        return 0.0
    left, top, right, bottom = face.box
    return (right - left) * (bottom - top)


def _face(embedded: EmbeddedFace, plugins: str) -> dict[str, Any]:
    """A face as CompreFace writes it, with what its plugins would add."""
    face, names, read = embedded.face, _named(plugins), embedded.attributes
    values: dict[str, Any] = {}
    if face is not None:
        left, top, right, bottom = (round(side) for side in face.box)
        values["box"] = {
            "probability": round(face.score, 5),
            "x_max": right,
            "y_max": bottom,
            "x_min": left,
            "y_min": top,
        }
        if "landmarks" in names:
            values["landmarks"] = [[round(x), round(y)] for x, y in face.landmarks]
    if "age" in read:  # 80 %: what the interval of facemill holds
        values["age"] = {"probability": 0.8, "low": round(read["age_low"]), "high": round(read["age_high"])}
    if "gender" in read:
        gender = {"man": "male", "woman": "female"}[read["gender"]]
        values["gender"] = {"probability": read["gender_score"], "value": gender}
    if "calculator" in names:
        values["embedding"] = embedded.vector.tolist()
    return values
