"""The pages *Create dataset* and *Jobs*: plan and start a job; follow jobs, pause, resume and stop them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from .. import defaults
from ..errors import StorageError
from ..jobs.job import ID, Job
from ..jobs.request import JobOptions
from ..modelspec import list_specs
from ..modelstore import find_weights
from ..server.problems import Refusal
from ..server.service import Service
from .layout import page

_MAX_JOBS = 100  # in the list; the routes have the others

# Limits of a face: name, label, largest value, step.
_LIMITS = (
    ("min_score", "Minimum detection confidence, 0 to 1", 1, 0.01),
    ("min_iod", "Minimum distance between the eyes, pixels", 10_000, 1),
    ("min_sharpness", "Minimum sharpness", 1_000_000, 1),
    ("min_brightness", "Minimum mean grey level, 0 to 255", 255, 1),
    ("min_contrast", "Minimum range of grey levels, 0 to 255", 255, 1),
    ("min_frontal", "Minimum frontal pose, 0 to 1", 1, 0.01),
)


def jobs_pages(service: Service) -> APIRouter:
    """The pages `/create` and `/jobs`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/create")
    def create(request: Request) -> Response:
        options = asdict(JobOptions())
        return page(
            request,
            "create",
            title="Create dataset",
            styles=("jobs",),
            modules=("create",),
            can_start=service.jobs.can_start,
            has_roots=bool(service.settings.roots),
            models=_models("embed"),
            detectors=_models("detect"),
            limits=[(name, label, most, step, options[name]) for name, label, most, step in _LIMITS],
            output=defaults.OUTPUT.removesuffix(".h5"),
        )

    @router.get("/jobs")
    def jobs(request: Request) -> Response:
        listed = [facts for job in service.jobs.list()[:_MAX_JOBS] if (facts := _facts(job))]
        wanted = request.query_params.get("id", "")
        chosen = next((facts for facts in listed if facts["id"] == wanted), None)
        if wanted and chosen is None and ID.fullmatch(wanted):
            chosen = _find(service, wanted)
        if wanted and chosen is None:
            return RedirectResponse("/jobs", 303)
        chosen = chosen or (listed[0] if listed else None)
        return page(
            request,
            "jobs",
            title="Jobs",
            styles=("jobs",),
            modules=("jobs",),
            can_start=service.jobs.can_start,
            jobs=listed,
            job=chosen,
        )

    return router


def _models(task: str) -> list[dict[str, str]]:
    """The models of a task whose files are on this machine."""
    specs = [spec for spec in list_specs(left_out=[]) if spec.task == task and spec.trained]
    return [
        {"name": spec.name, "title": f"{spec.title} ({spec.licence})"}
        for spec in specs
        if find_weights(spec) is not None
    ]


def _find(service: Service, job_id: str) -> dict[str, Any] | None:
    try:
        return _facts(service.jobs.find(job_id))
    except Refusal:
        return None


def _facts(job: Job) -> dict[str, Any] | None:
    try:
        return job.to_dict()
    except StorageError:  # deleted just now
        return None
