"""All jobs of a folder: start, list, pause, resume, cancel. Several servers may use one folder."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from ..errors import ConfigError, LockedError, OutputExistsError, RequestError, StorageError
from ..files import is_trusted, make_folder, storage_error, write_durable
from ..locks import Lock
from ..outputs import check_parent
from ..storage.runfolder import RunFolder, folder_of
from .job import ID, Job
from .request import JobRequest

_MAX_UNFINISHED = 100  # jobs that wait, run or are paused
_OVER = ("finished", "cancelled", "failed")


class JobStore:
    """The jobs of a folder. All methods may be called by several threads and processes.

    Attributes:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder, or create it.

        Raises:
            ConfigError: its parent does not exist, or other users could have written jobs into it.
            StorageError: it cannot be created.
        """
        self.path = path.absolute()
        try:
            check_parent(self.path, "the folder of jobs", other="another one with --jobs")
            make_folder(self.path)
        except OSError as err:
            raise storage_error(err, "the folder of jobs", self.path) from err
        if not is_trusted(self.path):
            raise ConfigError(
                f"{self.path} is a link, or belongs to another user, or others may write in it; expected: a folder in "
                f"which only you can write, because its jobs run as you. Run: chmod go-w {self.path}, or name another "
                f"folder with --jobs"
            )

    def jobs(self) -> list[Job]:
        """All jobs, oldest first.

        Raises:
            StorageError: the folder cannot be read.
        """
        try:
            names = sorted(name for name in os.listdir(self.path) if ID.fullmatch(name))
        except OSError as err:
            raise StorageError(f"the folder of jobs, {self.path}, cannot be read: {err.strerror}") from err
        return [job for job in (Job(self.path / name) for name in names) if job.exists()]

    def find(self, job_id: str) -> Job | None:
        """The job of an id; None if there is none. An id is no path."""
        if not ID.fullmatch(job_id):
            return None
        job = Job(self.path / job_id)
        return job if job.exists() else None

    def add(self, request: JobRequest) -> tuple[Job, bool]:
        """Store a new job, which waits for its turn.

        Args:
            request: the request. With a key that its client used before, the job of that time is returned.
        Returns:
            The job, and whether it is new.
        Raises:
            RequestError: the key was used for another request.
            OutputExistsError: the output exists, and no failures are to be retried.
            LockedError: another job makes the same file, or there are too many.
            StorageError, DiskFullError: the job cannot be stored.
        """
        with self.lock():
            unfinished = 0
            for job, other in self._requests():
                if request.key and (other.client, other.key) == (request.client, request.key):
                    if _same(request, other):
                        return job, False
                    raise RequestError(
                        f"the key {request.key!r:.60} was sent before, with another request; expected: a new "
                        f"Idempotency-Key"
                    )
                if job.state().name not in _OVER:
                    unfinished += 1
                    if other.output == request.output:
                        raise LockedError(
                            f"the job {job.id} makes {Path(request.output).name}. Wait until it has ended, cancel it, "
                            f"or name another output"
                        )
            if unfinished >= _MAX_UNFINISHED:
                raise LockedError(f"{unfinished} jobs are not finished. Wait until one has ended, or cancel one")
            if os.path.lexists(request.output) and not request.options.retry:
                raise OutputExistsError(
                    f"{Path(request.output).name} exists. Name another output, or set retry to process its failed "
                    f"photos again"
                )
            return self._store(request), True

    def _requests(self) -> Iterator[tuple[Job, JobRequest]]:
        """Yield the jobs with their requests. A damaged job is no reason to refuse another, and is left out."""
        for job in self.jobs():
            try:
                request = job.request()
            except StorageError:
                continue
            yield job, request

    def _store(self, request: JobRequest) -> Job:
        now = datetime.now(timezone.utc)
        job = Job(self.path / f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(4)}")
        try:
            make_folder(job.path)
        except OSError as err:
            raise storage_error(err, "the folder of a job", job.path) from err
        stored = replace(request, created_utc=now.isoformat(timespec="seconds"))
        try:
            write_durable(job.path / "request.json", stored.encode(), "the request of a job")
        except BaseException:
            shutil.rmtree(job.path, ignore_errors=True)  # a job without a request is none
            raise
        return job

    def pause(self, job: Job) -> None:
        """Pause a job: it stops when the work in flight is durable, and frees its memory.

        Raises:
            LockedError: it has ended already.
            StorageError: the wish cannot be stored.
        """
        self._refuse(job, "pause", *_OVER)
        job.set_wish("pause")

    def resume(self, job: Job) -> None:
        """Let a job go on that was paused, stopped or cancelled, or that failed. It waits for its turn.

        Raises:
            LockedError: it is finished, or another job makes the same file.
            StorageError: the wish cannot be stored.
        """
        self._refuse(job, "resume", "finished")
        with self.lock():
            output = job.request().output
            for other, request in self._requests():
                if other.id != job.id and request.output == output and other.state().name not in _OVER:
                    raise LockedError(f"the job {other.id} makes {Path(output).name}. Wait until it has ended")
            with suppress(LockedError), job.take_lock():  # of one that runs, or is about to pause, nothing is stored
                job.clear_end()
            job.set_wish("run")

    def cancel(self, job: Job) -> None:
        """Stop a job for good. Photos that are done stay in the run folder of its output.

        Raises:
            LockedError: it is finished.
            StorageError: the wish cannot be stored.
        """
        self._refuse(job, "cancel", "finished")
        job.set_wish("cancel")

    def delete(self, job: Job) -> None:
        """Forget a job that has ended, and delete the photos done of an unfinished file. A finished file stays.

        Raises:
            LockedError: the job has not ended.
            StorageError: something cannot be deleted.
        """
        self._refuse(job, "delete", "waiting", "running", "pausing", "stopping", "paused", "stopped")
        with self.lock(), job.take_lock():
            state, output = job.state().name, Path(job.request().output)
            if state != "finished" and folder_of(output).is_dir():
                with RunFolder(output) as folder:
                    folder.remove()
            try:
                os.unlink(job.path / "request.json")  # first: without it, the rest is no job
                for name in os.listdir(job.path):
                    os.unlink(job.path / name)
                os.rmdir(job.path)
            except OSError as err:
                raise storage_error(err, "the folder of a job", job.path) from err

    def lock(self) -> Lock:
        """The lock of the folder, for a `with` block in which jobs are stored or started."""
        return Lock(self.path / "lock", "another server changes the jobs", wait=True, in_place=True)

    def _refuse(self, job: Job, action: str, *names: str) -> None:
        state = job.state().name
        if state in names:
            raise LockedError(f"the job {job.id} is {state}; expected: one that you can {action}")


def _same(first: JobRequest, second: JobRequest) -> bool:
    """Whether two requests ask for the same; the time and the settings of the server do not count."""
    keys = ("photos", "output", "options")
    one, other = asdict(first), asdict(second)
    return all(one[key] == other[key] for key in keys)
