"""The routes of jobs: start, list, look, pause, resume, cancel, delete, events, failures, plan; and of folders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from ...errors import BusyError, RequestError, StorageError
from ...jobs.failures import last_failures
from ...jobs.job import Job
from ...jobs.request import JobOptions
from ...schema import convert
from ..openapi import answers, json_body
from ..photo_routes import Key, check_parameters
from ..problems import Refusal, json_response
from ..service import Service
from .desk import JobStart
from .folders import list_folder, list_roots
from .schemas import BODY, DELETED, FAILURES, FOLDERS, JOB, JOBS, PLAN
from .stream import is_over, stream

_MAX_STREAMS = 32  # at the same time
_MAX_FAILURES = 100
_NAMES = ("photos", "output", "options")

After = Annotated[int, Query(description="Number of the last event that is known.", ge=0, le=2**53)]
LastEvent = Annotated[
    str, Header(alias="Last-Event-ID", description="The same, as browsers send it.", pattern="^[0-9]{0,15}$")
]
FolderPath = Annotated[str, Query(description="A folder below those of --photos; empty for these.", max_length=4096)]


def job_routes(service: Service) -> APIRouter:
    """The routes below `/api/v1/jobs`, and `/api/v1/folders`."""
    router = APIRouter(prefix="/api/v1", tags=["Jobs"])
    _add_start(router, service)
    _add_changes(router, service)
    _add_looks(router, service)
    return router


def _add_start(router: APIRouter, service: Service) -> None:
    async def read(request: Request) -> JobStart:
        check_parameters(request, set())
        values = await service.bodies.json(request, _NAMES)
        try:
            options = convert(
                values.get("options", {}), JobOptions
            )  # by itself, because rules of a part are not checked
            return replace(convert({**values, "options": {}}, JobStart), options=options)
        except ValueError as err:
            raise Refusal(422, RequestError(str(err))) from err

    @router.post("/jobs", responses=_created(), status_code=201, openapi_extra=json_body(BODY, "photos", "output"))
    async def start(request: Request, key: Key = "") -> Response:
        """Embed photos below the folders of `--photos` into a new file in the folder of `--output`.

        The answer comes at once. The job runs in a process of its own, which the end of the server does not stop, and
        waits while another job runs. The finished file is among the files of the server.
        """
        body, client = await read(request), request.scope["facemill.client"]
        taken = {name: Path(file.path.absolute().resolve()) for name, file in service.files.items()}
        job, is_new = await asyncio.to_thread(lambda: service.jobs.start(body, client=client, key=key, taken=taken))
        facts = await asyncio.to_thread(job.to_dict)
        request.scope["facemill.file"] = facts["file"]
        return json_response(facts, 201 if is_new else 200, {"Location": f"/api/v1/jobs/{job.id}"})

    @router.post("/jobs/plan", responses=answers(PLAN), openapi_extra=json_body(BODY, "photos", "output"))
    async def plan(request: Request) -> Response:
        """Estimate the time, disk and memory of a job in some ten seconds, and count its photos. Nothing is written."""
        body = await read(request)
        return json_response(await asyncio.to_thread(service.jobs.plan, body))


def _add_changes(router: APIRouter, service: Service) -> None:
    def change(request: Request, job_id: str, action: Literal["pause", "resume", "cancel"]) -> Response:
        check_parameters(request, set())
        job = service.jobs.find(job_id)
        service.jobs.change(job, action)
        return json_response(job.to_dict())

    @router.post("/jobs/{job_id}/pause", responses=answers(JOB))
    def pause(request: Request, job_id: str) -> Response:
        """Stop a job when the work in flight is durable, and free its memory. `resume` goes on from there."""
        return change(request, job_id, "pause")

    @router.post("/jobs/{job_id}/resume", responses=answers(JOB))
    def resume(request: Request, job_id: str) -> Response:
        """Go on with a job that is paused, stopped, cancelled or failed. Photos that are done are kept."""
        return change(request, job_id, "resume")

    @router.post("/jobs/{job_id}/cancel", responses=answers(JOB))
    def cancel(request: Request, job_id: str) -> Response:
        """End a job. Photos that are done stay on the disk until the job is deleted."""
        return change(request, job_id, "cancel")

    @router.delete("/jobs/{job_id}", responses=answers(DELETED))
    def delete(request: Request, job_id: str) -> Response:
        """Forget a job that has ended, and delete what it did of an unfinished file. A finished file stays."""
        check_parameters(request, set())
        service.jobs.change(service.jobs.find(job_id), "delete")
        return json_response({"id": job_id})


def _add_looks(router: APIRouter, service: Service) -> None:
    streams: set[object] = set()

    @router.get("/jobs", responses=answers(JOBS))
    def jobs(request: Request) -> Response:
        """List the jobs, newest first."""
        check_parameters(request, set())
        return json_response({"jobs": [facts for job in service.jobs.list() if (facts := _facts(job))]})

    @router.get("/jobs/{job_id}", responses=answers(JOB))
    def job(request: Request, job_id: str) -> Response:
        """Say what a job is doing, with its last progress."""
        check_parameters(request, set())
        return json_response(service.jobs.find(job_id).to_dict())

    @router.get("/jobs/{job_id}/failures", responses=answers(FAILURES))
    def failures(request: Request, job_id: str) -> Response:
        """List the last 100 photos that were not embedded, newest first, with the reasons.

        A running job adds them about once a minute, when they are durable.
        """
        check_parameters(request, set())
        output = Path(service.jobs.find(job_id).request().output)
        return json_response({"failures": [photo.to_dict() for photo in last_failures(output, _MAX_FAILURES)]})

    @router.get("/jobs/{job_id}/events", response_class=Response, responses=_events())
    async def events(request: Request, job_id: str, after: After = 0, last_event_id: LastEvent = "") -> Response:
        """Send the events of a job as they happen (`text/event-stream`), from the beginning or after a known event.

        Progress comes at most twice a second. A finished or cancelled job without a later event gets status 204, which
        tells browsers not to connect again.
        """
        check_parameters(request, {"after"})
        job = await asyncio.to_thread(service.jobs.find, job_id)
        known = int(last_event_id) if last_event_id else after
        if await asyncio.to_thread(is_over, job, known):
            return Response(status_code=204)
        if len(streams) >= _MAX_STREAMS:
            reason = f"{_MAX_STREAMS} clients follow jobs already. Ask for the state of the job instead"
            raise Refusal(429, BusyError(reason), {"Retry-After": "10"})

        async def counted() -> AsyncIterator[bytes]:
            mark = object()
            streams.add(mark)
            try:
                async for chunk in stream(job, known, lambda: service.is_draining):
                    yield chunk
            finally:
                streams.discard(mark)

        return StreamingResponse(counted(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @router.get("/folders", responses=answers(FOLDERS))
    def folders(request: Request, path: FolderPath = "") -> Response:
        """List the folders of `--photos`, or the folders in one below them, with the number of its own photos."""
        check_parameters(request, {"path"})
        roots = service.settings.roots
        facts = list_folder(roots, service.jobs.photo_path(path)) if path else list_roots(roots)
        return json_response(facts)


def _facts(job: Job) -> dict[str, Any] | None:
    """A job for the list; None if it has just been deleted, or is damaged."""
    try:
        return job.to_dict()
    except StorageError:
        return None


def _created() -> dict[int | str, dict[str, Any]]:
    responses = answers(JOB)
    return {
        **responses,
        200: {**responses[200], "description": "The job that the same Idempotency-Key started before."},
        201: {**responses[200], "description": "The new job."},
    }


def _events() -> dict[int | str, dict[str, Any]]:
    responses = answers(JOB)
    content = {"text/event-stream": {"schema": {"type": "string"}}}
    return {
        **responses,
        200: {"description": "The events.", "content": content},
        204: {"description": "The job is over, and no event follows."},
    }
