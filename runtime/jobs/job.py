"""One job: a folder with its request, what is wished of it, its event log and its end, under the lock of its process.

The lock says whether the process lives. No process number is stored, because another process may get it.
"""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import FacemillError, StorageError
from ..files import sync_folder, write_durable
from ..locks import Lock, is_locked
from ..regular import NOTE_BYTES, read_regular
from .events import last_event_id, last_progress
from .request import JobRequest

Wish = Literal["run", "pause", "cancel"]
StateName = Literal["waiting", "running", "pausing", "paused", "stopping", "stopped", "cancelled", "failed", "finished"]
STATES: tuple[StateName, ...] = (
    "waiting", "running", "pausing", "paused", "stopping", "stopped", "cancelled", "failed", "finished",
)  # fmt: skip

ID = re.compile(r"[0-9]{8}-[0-9]{6}-[0-9a-f]{8}")
_ALIVE: dict[str, StateName] = {"run": "running", "pause": "pausing", "cancel": "stopping"}
_AT_REST: dict[str, StateName] = {"run": "waiting", "pause": "paused", "cancel": "cancelled"}


@dataclass(frozen=True, slots=True)
class JobState:
    """What a job is doing.

    Attributes:
        name: "waiting" for its turn, "running", "pausing" and "stopping" until the work in flight is durable, "paused",
            "stopped" by a signal, "cancelled", "failed", or "finished".
        detail: why it failed or stopped; else empty.
        code: the code of the error of a failed job; else empty.
        summary: what a finished job did, see `facemill.Summary`; else None.
    """

    name: StateName
    detail: str = ""
    code: str = ""
    summary: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """The state for JSON, without what is empty."""
        error = {"code": self.code, "detail": self.detail} if self.detail else None
        return {
            "state": self.name,
            **({"error": error} if error else {}),
            **({} if self.summary is None else {"summary": self.summary}),
        }


class Job:
    """A job in its folder. Any process may read it, and wish something of it.

    Attributes:
        id: its name in routes, which sorts by the time of its start.
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.id, self.path = path.name, path

    @property
    def lock_file(self) -> Path:
        """The file that the process of the job locks."""
        return self.path / "lock"

    @property
    def log_file(self) -> Path:
        """What the process of the job says, for people."""
        return self.path / "log.txt"

    def request(self) -> JobRequest:
        """The request of the job.

        Raises:
            StorageError: it cannot be read.
        """
        path = self.path / "request.json"
        try:
            return JobRequest.decode(read_regular(path, NOTE_BYTES))
        except (OSError, ValueError) as err:
            raise StorageError(f"the request of the job {self.id}, {path}, cannot be read: {err}") from err

    def exists(self) -> bool:
        """Whether the request has been stored."""
        return (self.path / "request.json").is_file()

    def lives(self) -> bool:
        """Whether a process works on the job."""
        return is_locked(self.lock_file)

    def wish(self) -> Wish:
        """What is wished of the job; to run, if nobody has said."""
        with suppress(OSError, ValueError, KeyError):
            wish = json.loads(read_regular(self.path / "wish.json", NOTE_BYTES))["wish"]
            if wish in _AT_REST:
                return wish  # type: ignore[no-any-return]
        return "run"

    def set_wish(self, wish: Wish) -> None:
        """Wish something, durably. The process of the job sees it within half a second.

        Raises:
            StorageError, DiskFullError: it cannot be written.
        """
        self._write("wish.json", {"wish": wish})

    def end(self) -> dict[str, Any] | None:
        """How the last process of the job ended, if it could say so."""
        with suppress(OSError, ValueError):
            end = json.loads(read_regular(self.path / "end.json", NOTE_BYTES))
            if isinstance(end, dict) and end.get("state") in ("finished", "failed", "stopped"):
                return end
        return None

    def set_end(self, state: Literal["finished", "failed", "stopped"], **facts: Any) -> None:
        """Store how a process of the job ended.

        Raises:
            StorageError, DiskFullError: it cannot be written.
        """
        self._write("end.json", {"state": state, **facts})

    def clear_end(self) -> None:
        """Forget how the last process ended, because another one begins."""
        with suppress(FileNotFoundError):
            os.unlink(self.path / "end.json")
            sync_folder(self.path)

    def state(self) -> JobState:
        """What the job is doing."""
        wish, lives = self.wish(), self.lives()
        end = self.end()  # after the lock: a process that has just gone has said how it ended
        if end is not None and end["state"] == "finished":
            return JobState("finished", summary=end.get("summary"))
        if lives:
            return JobState(_ALIVE[wish])
        if end is not None and wish == "run":
            return JobState(end["state"], str(end.get("detail", "")), str(end.get("code", "")))
        return JobState(_AT_REST[wish])

    def to_dict(self) -> dict[str, Any]:
        """The job for JSON.

        Raises:
            StorageError: its request cannot be read.
        """
        request = self.request()
        progress = last_progress(self.path)
        return {
            "id": self.id,
            **self.state().to_dict(),
            "created": request.created_utc,
            "client": request.client,
            "photos": list(request.named),
            "output": Path(request.output).name,
            "file": Path(request.output).stem,
            "options": {name: getattr(request.options, name) for name in request.options.__slots__},
            "progress": progress,
            "last_event": last_event_id(self.path),
        }

    def _write(self, name: str, values: dict[str, Any]) -> None:
        write_durable(self.path / name, json.dumps(values).encode(), f"the {name} of a job", wait=True)

    def take_lock(self) -> Lock:
        """Take the lock of the job, to start its process or to delete it.

        Raises:
            LockedError: a process works on the job.
            OSError: the folder is gone.
        """
        return Lock(self.lock_file, f"the job {self.id} is running", in_place=True)


def give_up(job: Job, detail: str) -> None:
    """End a job whose process dies again and again, unless even that cannot be stored."""
    with suppress(OSError):
        job.set_end("failed", code=FacemillError.code, detail=detail)
