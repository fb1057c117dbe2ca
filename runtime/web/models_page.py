"""The page *Models*: what each network is for, its licence, its accuracy, and whether its file is on this machine."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from ..modelspec import TASKS, ModelSpec, list_specs
from ..modelstore import find_weights
from ..text import size
from .layout import page

_TITLES = {
    "embed": "Embed faces",
    "detect": "Detect faces",
    "landmarks": "Find landmarks again",
    "attributes": "Estimate age and gender",
}


def models_page() -> APIRouter:
    """The page `/models`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/models")
    def models(request: Request) -> Response:
        specs = list_specs()
        groups = [(_TITLES[task], [_facts(spec) for spec in specs if spec.task == task]) for task in TASKS]
        return page(request, "models", title="Models", groups=[group for group in groups if group[1]])

    return router


def _facts(spec: ModelSpec) -> dict[str, Any]:
    path = None if spec.generator else find_weights(spec)
    card = spec.folder / f"{spec.name}.md"
    return {
        "name": spec.name,
        "title": spec.title,
        "licence": spec.licence,
        "accuracy": spec.accuracy,
        "source": spec.accuracy_source,
        "trained": spec.trained,
        "numbers": spec.dimension if spec.task == "embed" else 0,
        "size": size(spec.size_bytes) if spec.size_bytes else "",
        "threshold": spec.threshold,
        "threshold_source": spec.threshold_source,
        "place": "generated when needed" if spec.generator else str(path or ""),
        "fetch": f"facemill models fetch {spec.name}" if spec.url else "",
        "card": card.read_text("utf-8") if card.is_file() else "",
    }
