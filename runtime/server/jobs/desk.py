"""What a server lets its clients do with jobs: which photos they may name, and where files may appear."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import AccessError, BusyError, ConfigError, LockedError, RequestError
from ...jobs.job import Job
from ...jobs.planning import plan
from ...jobs.request import JobOptions, JobRequest, engines_of
from ...jobs.store import JobStore
from ...jobs.supervisor import Supervisor
from ..problems import Refusal
from ..settings import ServerSettings, path_below

MAX_NAMES = 1000  # folders and files of a job
OUTPUT_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"
_JOBS = ".facemill-jobs"


@dataclass(frozen=True)
class JobStart:
    """The body of a start: folders and files below the roots, the name of the file, and options of `process`."""

    photos: tuple[str, ...]
    output: str
    options: JobOptions = field(default_factory=JobOptions)


class ServerJobs:
    """The jobs of a server. Owned by `with`, whose end leaves them running. Methods block, so call them in a thread."""

    def __init__(self, settings: ServerSettings, on_finished: Callable[[Path], None]) -> None:
        """Open the folder of the jobs, and resume those that a crash or the end of the machine stopped.

        Args:
            settings: the settings of the server.
            on_finished: called with the embedding file of each finished job.
        Raises:
            ConfigError, StorageError: the folder cannot be used.
        """
        self._settings, self._on_finished = settings, on_finished
        self._store: JobStore | None = None
        self._plans = 0
        self._ending = False
        self._paths: dict[str, str] = {}
        if settings.output is not None:
            self._output = Path(os.path.realpath(settings.output))
            self._store = JobStore(settings.jobs or self._output / _JOBS)
            self._supervisor = Supervisor(self._store, self._open_finished)
        self._owned = ExitStack()

    @property
    def can_start(self) -> bool:
        """Whether the operator has named a folder of photos and a folder for files."""
        return self._store is not None and bool(self._settings.roots)

    def list(self) -> list[Job]:
        """All jobs, newest first."""
        return [] if self._store is None else self._store.jobs()[::-1]

    def find(self, job_id: str) -> Job:
        """The job of an id.

        Raises:
            Refusal: there is none.
        """
        job = None if self._store is None else self._store.find(job_id)
        if job is None:
            raise Refusal(404, RequestError(f"no job is named {job_id!r:.60}; expected: an id that /api/v1/jobs lists"))
        return job

    def start(self, body: JobStart, *, client: str, key: str, taken: dict[str, Path]) -> tuple[Job, bool]:
        """Store a job, which begins when its turn comes.

        Args:
            body: what the client asks for.
            client, key: the client, and its key of this request; empty for none.
            taken: the files of the server by name, which no job may hide.
        Returns:
            The job, and whether it is new: the same key brings the same job.
        Raises:
            AccessError: photos are outside the roots, or the operator allows no jobs.
            ConfigError: an option or the name of the file cannot be used.
            LockedError, OutputExistsError: see `JobStore.add`.
        """
        request = self.request_of(body, client=client, key=key)
        output = Path(request.output)
        if taken.get(output.stem, output) != output:
            raise LockedError(f"the server answers for another file named {output.stem!r}. Name another output")
        assert self._store is not None
        job, is_new = self._store.add(request)
        self._supervisor.wake()
        return job, is_new

    def plan(self, body: JobStart) -> dict[str, Any]:
        """Estimate a job, see `jobs.planning.plan`. One plan is made at a time, because it measures the machine.

        Raises:
            BusyError: another plan is being made.
        """
        request = self.request_of(body, client="", key="")
        if self._plans:
            raise BusyError("another job is being planned. Send the request again in some seconds")
        self._plans += 1
        try:
            return plan(request, lambda: self._ending)
        finally:
            self._plans -= 1

    def change(self, job: Job, action: str) -> None:
        """Do "pause", "resume", "cancel" or "delete" with a job.

        Raises:
            LockedError: the state of the job does not allow it.
            StorageError: it cannot be stored.
        """
        assert self._store is not None
        getattr(self._store, action)(job)
        self._supervisor.wake()

    def request_of(self, body: JobStart, *, client: str, key: str) -> JobRequest:
        """The request of a job, with real paths.

        Raises:
            AccessError, ConfigError: see `start`.
        """
        settings = self._settings
        if self._store is None:
            raise AccessError("this server makes no files. Start it with --output FOLDER, and --photos FOLDER")
        if not 0 < len(body.photos) <= MAX_NAMES:
            raise ConfigError(f"photos are {len(body.photos)} names; expected: 1 to {MAX_NAMES}")
        body.options.check()
        return JobRequest(
            photos=tuple(os.fspath(self.photo_path(name)) for name in body.photos),
            output=os.fspath(self._output_path(body.output)),
            within=tuple(os.path.realpath(root) for root in settings.roots),
            named=body.photos,
            options=body.options,
            engines=engines_of(settings.engines),
            max_bytes=settings.limits.max_bytes,
            max_pixels=settings.limits.max_pixels,
            segment_rows=settings.segments.max_rows,
            segment_seconds=settings.segments.max_seconds,
            client=client,
            key=key,
        )

    def photo_path(self, name: str) -> Path:
        """The real path of photos below the roots.

        Raises:
            AccessError: they are elsewhere, or do not exist.
        """
        path = None if ".." in name.split("/") else path_below(self._settings.roots, name)
        if path is None:
            where = "it is outside the folders of --photos" if self._settings.roots else "no folder of photos is open"
            raise AccessError(f"{name!r:.200} cannot be read: {where}, or it does not exist")
        return path

    def _output_path(self, name: str) -> Path:
        """The path of a new file: a plain name in the folder of outputs, no link out of it."""
        if not re.fullmatch(OUTPUT_NAME, name) or name.endswith("\n"):
            raise ConfigError(
                f"output is {name!r:.120}; expected: a name of up to 100 letters, digits, spaces, dots, - and _, "
                f"without a folder"
            )
        path = self._output / (name if name.endswith(".h5") else f"{name}.h5")
        if path.is_symlink():
            raise AccessError(f"{path.name} is a link; expected: the name of a file, or a new name")
        return path

    def _open_finished(self, job: Job) -> None:
        self._on_finished(Path(job.request().output))

    def stop(self) -> None:
        """Start no more jobs, because the server ends."""
        self._ending = True
        if self._store is not None:
            self._supervisor.stop()

    @property
    def is_ending(self) -> bool:
        """Whether the server ends."""
        return self._ending

    def __enter__(self) -> ServerJobs:
        if self._store is not None:
            self._owned.enter_context(self._supervisor)
        return self

    def __exit__(self, *exc: object) -> None:
        self._ending = True
        self._owned.close()
