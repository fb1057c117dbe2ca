"""What `/openapi.json` says about jobs."""

from __future__ import annotations

from typing import Any

from ... import defaults
from ...jobs.job import STATES
from ..openapi import INTEGER, NUMBER, TEXT, Schema, lists, objects
from .desk import MAX_NAMES, OUTPUT_NAME

_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": 4096}
_MODEL: Schema = {"type": ["string", "null"], "maxLength": 255, "default": None}
_PATTERNS: Schema = {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 255}, "maxItems": 100}
_COUNT: Schema = {"type": ["integer", "null"], "minimum": 1, "maximum": 2**31 - 1, "default": None}
_FLAG: Schema = {"type": "boolean", "default": False}


def _choice(*values: str | None, default: str | None) -> Schema:
    return {"enum": list(values), "default": default}


def _share(default: float, most: float = 1.0) -> Schema:
    return {"type": "number", "minimum": 0, "maximum": most, "default": default}


OPTIONS: dict[str, Any] = {
    "model": {**_MODEL, "description": "a registered model; null for that of the server"},
    "detector": {**_MODEL, "description": "a registered detector; null for that of the server"},
    "landmarks": {**_MODEL, "description": "a registered landmark network, or none; null for that of the server"},
    "align": _choice("auto", "detect", "none", None, default=None),
    "faces": _choice("largest", "all", "one", default=defaults.FACES),
    "min_score": _share(defaults.MIN_SCORE),
    "min_iod": _share(defaults.MIN_IOD_PX, 10_000),
    "min_sharpness": _share(defaults.MIN_SHARPNESS, 1_000_000),
    "min_brightness": _share(defaults.MIN_BRIGHTNESS, 255),
    "min_contrast": _share(defaults.MIN_CONTRAST, 255),
    "min_frontal": _share(defaults.MIN_FRONTAL),
    "max_fit": {"type": ["number", "null"], "minimum": 0, "maximum": 1, "default": None},
    "pages": _choice("main", "all", default=defaults.PAGES),
    "attributes": _choice("age", "gender", "age,gender", None, default=None),
    "dtype": _choice("float32", "float16", default=defaults.DTYPE),
    "skip_duplicates": _FLAG,
    "retry": {**_FLAG, "description": "process the failed photos of a finished file again"},
    "include": _PATTERNS,
    "exclude": _PATTERNS,
    "limit": {**_COUNT, "description": "only the first photos, in scan order"},
    "batch_size": _COUNT,
    "workers": _COUNT,
}
BODY: dict[str, Any] = {
    "photos": {
        "type": "array",
        "items": _NAME,
        "minItems": 1,
        "maxItems": MAX_NAMES,
        "description": "folders and files below the folders of --photos",
    },
    "output": {
        "type": "string",
        "pattern": OUTPUT_NAME,
        "description": "name of the new file in the folder of --output",
    },
    "options": {**objects(OPTIONS), "additionalProperties": False},
}
_ERROR = objects({"code": TEXT, "detail": TEXT}, "code", "detail")
JOB = objects(
    {
        "id": TEXT,
        "state": {"enum": list(STATES)},
        "error": _ERROR,
        "summary": {"type": "object", "description": "what a finished job did"},
        "created": TEXT,
        "client": TEXT,
        "photos": lists(TEXT),
        "output": TEXT,
        "file": {"type": "string", "description": "the name of the file in other routes, once the job is finished"},
        "options": {"type": "object"},
        "progress": {
            "type": ["object", "null"],
            "properties": {
                "time": TEXT,
                "done": INTEGER,
                "total": INTEGER,
                "images_per_s": NUMBER,
                "elapsed_s": NUMBER,
                "eta_s": {"type": ["number", "null"]},
                "outcomes": {"type": "object", "additionalProperties": INTEGER},
                "bottleneck": TEXT,
                "memory_bytes": INTEGER,
                "gpu": {"type": ["object", "null"]},
            },
        },
        "last_event": INTEGER,
    },
    "id",
    "state",
    "photos",
    "output",
    "file",
    "options",
    "progress",
    "last_event",
)
JOBS = objects({"jobs": lists(JOB)}, "jobs")
FAILURES = objects(
    {
        "failures": lists(
            objects({"photo": INTEGER, "path": TEXT, "status": TEXT, "detail": TEXT}, "path", "status", "detail")
        )
    },
    "failures",
)
_ITEM = objects({"value": {"type": ["number", "null"]}, "unit": TEXT, "basis": TEXT, "words": TEXT, "problem": TEXT})
PLAN = objects(
    {
        "photographs": INTEGER,
        "model": TEXT,
        "dimension": INTEGER,
        "passed_over": {"type": "object", "additionalProperties": INTEGER},
        "fits": {"type": "boolean"},
        "time": _ITEM,
        "disk_running": _ITEM,
        "disk": _ITEM,
        "memory": _ITEM,
    },
    "photographs",
    "model",
    "fits",
)
FOLDERS = objects(
    {
        "path": TEXT,
        "parent": {"type": ["string", "null"]},
        "folders": lists(objects({"name": TEXT, "path": TEXT}, "name", "path")),
        "photos": INTEGER,
        "cut": {"type": "boolean"},
    },
    "path",
    "folders",
    "photos",
)
DELETED = objects({"id": TEXT}, "id")
