"""What `/openapi.json` says about bodies and answers, and the page `/docs`, which is made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2

from .bodies import IMAGE_TYPES
from .problems import MEDIA_TYPE

_ROOM = Path(__file__).parent

Schema = dict[str, Any]

NUMBER: Schema = {"type": "number"}
INTEGER: Schema = {"type": "integer"}
TEXT: Schema = {"type": "string"}
_NUMBER_OR_NULL: Schema = {"type": ["number", "null"]}
_BOX: Schema = {
    "type": "array",
    "items": NUMBER,
    "minItems": 4,
    "maxItems": 4,
    "description": "left, top, right, bottom in pixels",
}
_VECTOR: Schema = {"type": "array", "items": NUMBER, "description": "the embedding, length 1"}
_PLACE = {"face_index": INTEGER, "box": _BOX}
_FACE_FIELDS: Schema = {
    **_PLACE,
    "landmarks": {"type": "array", "items": {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}},
    **{name: _NUMBER_OR_NULL for name in ("score", "iod", "sharpness", "brightness", "contrast", "frontal", "fit")},
}


def objects(properties: Mapping[str, Any], *required: str) -> Schema:
    """The schema of an object, of which these properties are always there."""
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def lists(items: Schema) -> Schema:
    """The schema of a list."""
    return {"type": "array", "items": items}


FACES = objects({"path": TEXT, "error": TEXT, "faces": lists(objects(_FACE_FIELDS))}, "path", "faces")
RECOGNITION = objects(
    {
        "path": TEXT,
        "error": TEXT,
        "faces": lists(
            objects(
                {
                    **_FACE_FIELDS,
                    **{name: NUMBER for name in ("age", "age_low", "age_high", "gender_score")},
                    "gender": {"enum": ["man", "woman"]},
                    "vector": _VECTOR,
                },
                "vector",
            )
        ),
    },
    "path",
    "faces",
)
COMPARISON = objects(
    {
        "photographs": lists(objects({"path": TEXT, "error": TEXT, "faces": INTEGER, **_PLACE}, "path")),
        "score": _NUMBER_OR_NULL,
        "threshold": _NUMBER_OR_NULL,
        "threshold_origin": TEXT,
        "verdict": {"enum": ["same", "different", "unknown"]},
        "false_match_rate": NUMBER,
        "at_most": {"type": "boolean"},
        "model": TEXT,
        "model_sha256": TEXT,
        "warning": TEXT,
    },
    "photographs",
    "score",
    "threshold",
    "threshold_origin",
    "verdict",
    "model",
    "model_sha256",
)
HIT = objects(
    {
        "rank": INTEGER,
        "score": NUMBER,
        "row": INTEGER,
        "path": TEXT,
        **_PLACE,
        "expected_false_hits": NUMBER,
        "at_most": {"type": "boolean"},
        "folder": TEXT,
        "photographs": INTEGER,
    },
    "rank",
    "score",
    "row",
    "path",
)
ANSWER = objects(
    {
        "query": TEXT,
        "error": TEXT,
        "model": TEXT,
        "model_sha256": TEXT,
        "faces": INTEGER,
        **_PLACE,
        "search_ms": NUMBER,
        "index": {"type": "object"},
        "hits": lists(HIT),
        "cut": {"type": "boolean"},
        "among": TEXT,
        "warning": TEXT,
    },
    "query",
    "model",
    "model_sha256",
    "search_ms",
    "index",
    "hits",
)
FILE = objects(
    {
        "name": TEXT,
        "rows": INTEGER,
        "dimension": INTEGER,
        "model": TEXT,
        "model_sha256": TEXT,
        "has_faces": {"type": "boolean"},
        "attributes": lists(TEXT),
        "calibrated": {"type": "boolean"},
        "error": TEXT,
    },
    "name",
)
FILES = objects({"files": lists(FILE)}, "files")
ADDED = objects({"file": TEXT, "added": INTEGER, "known": INTEGER, "scanned": INTEGER}, "file", "added", "known")
REMOVED = objects({"file": TEXT, "receipt": {"type": ["object", "null"]}}, "file", "receipt")
STATE = objects({"status": {"enum": ["live", "ready"]}}, "status")
PROBLEM = objects(
    {"type": TEXT, "title": TEXT, "status": INTEGER, "detail": TEXT, "code": TEXT},
    "type",
    "title",
    "status",
    "detail",
    "code",
)

_IMAGE: Schema = {"type": "string", "format": "binary"}
_BASE64: Schema = {"type": "string", "contentEncoding": "base64", "format": "byte", "minLength": 4}


def answers(schema: Schema) -> dict[int | str, dict[str, Any]]:
    """The responses of a route: its answer, and a problem for everything else."""
    return {
        200: {"description": "The answer.", "content": {"application/json": {"schema": schema}}},
        "default": {"description": "A problem (RFC 9457).", "content": {MEDIA_TYPE: {"schema": PROBLEM}}},
    }


def photo_body(*names: str) -> dict[str, Any]:
    """The body of a route that takes photos, in all forms that `bodies` reads."""
    parts = {
        **objects({name: _IMAGE for name in names}, *names),
        "additionalProperties": False,
    }
    base64 = {**objects({name: _BASE64 for name in names}, *names), "additionalProperties": False}
    encoding = {name: {"contentType": ", ".join(IMAGE_TYPES)} for name in names}
    content: dict[str, Any] = {
        "multipart/form-data": {"schema": parts, "encoding": encoding},
        "application/json": {"schema": base64},
    }
    if len(names) == 1:
        content |= {kind: {"schema": _IMAGE} for kind in IMAGE_TYPES}
    return {"requestBody": {"required": True, "content": content}}


def json_body(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """The body of a route that takes JSON."""
    schema = {**objects(properties, *required), "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def with_tokens(schema: dict[str, Any], open_routes: Sequence[str]) -> dict[str, Any]:
    """Add to a schema that all routes but the open ones need a token."""
    schemes = {
        "token": {"type": "http", "scheme": "bearer"},
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    schema.setdefault("components", {})["securitySchemes"] = schemes
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            operation["security"] = [] if path in open_routes else [{"token": []}, {"key": []}]
    return schema


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (_ROOM / "templates" / name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("docs.html")


def docs_page(schema: Mapping[str, Any]) -> str:
    """The page `/docs`: every route with its parameters, bodies and answers."""
    routes = [
        (method.upper(), path, operation)
        for path, operations in schema["paths"].items()
        for method, operation in operations.items()
    ]
    return _template().render(info=schema["info"], routes=routes)


def docs_style() -> str:
    """The style of that page."""
    return (_ROOM / "assets" / "docs.css").read_text("utf-8")
