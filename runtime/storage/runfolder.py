"""The folder of an unfinished run, beside its output: the plan, the scan and the segments, under one lock."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import shutil
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from ..errors import ConfigError, LockedError, StorageError
from ..files import storage_error, write_durable
from .contract import EmbeddingContract

_OURS = re.compile(
    r"lock|paths|plan\.json|digests|segment-[\d-]+\.(h5|damaged)|part-[\d-]+\.npy|lists\.npz|.+\.partial"
)


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """What a run decided before its first photograph; `plan.json`.

    Attributes:
        contract: what makes two embeddings comparable; a resumed run must have the same.
        root: absolute folder of the paths, as text (surrogateescape).
        rows: number M of scanned paths.
        started_utc: ISO 8601.
        base_run_id: `run_id` of the finished file whose failed photographs this run retries; "" for none.
        settings: the tuned or given batch size and workers.
        forced: started with --force; the same command resumes it instead of starting over again.
        plan_id: ties segments, and the finished file, to the plan.
    """

    contract: EmbeddingContract
    root: str
    rows: int
    started_utc: str
    base_run_id: str = ""
    settings: dict[str, int] = field(default_factory=dict)
    forced: bool = False
    plan_id: str = field(default_factory=lambda: secrets.token_hex(8))


def folder_of(output: Path) -> Path:
    """Where the run that makes a file keeps what is unfinished."""
    return output.parent / f"{output.name}.parts"


def read_plan(folder: Path) -> StoredPlan | None:
    """The plan of the unfinished run in a folder, or None when there is none.

    Raises:
        StorageError: it is there and damaged.
    """
    path = folder / "plan.json"
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return StoredPlan(**{**plan, "contract": EmbeddingContract.from_dict(plan["contract"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as err:
        raise StorageError(
            f"the plan of the unfinished run, {path}, cannot be read ({err}). Start over with --force"
        ) from err


class RunFolder:
    """`<output>.parts`, locked for this process. Owned by `with`; a kill releases the lock.

    Attributes:
        path: the folder.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = folder_of(output)
        self._lock = self._take_lock()
        strangers = sorted(name for name in os.listdir(self.path) if not _OURS.fullmatch(name))
        if strangers:
            os.close(self._lock)
            raise ConfigError(
                f"{self.path} is where facemill keeps an unfinished run, and contains another file: {strangers[0]!r}. "
                f"Move that away, or name another file with -o"
            )

    @property
    def paths_file(self) -> Path:
        """Where the scan is kept (sources.pathtable)."""
        return self.path / "paths"

    def _take_lock(self) -> int:
        lock = self.path / "lock"
        while True:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as err:
                raise storage_error(err, "the run folder", self.path) from err
            try:
                fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # a finishing run removed the folder between the two calls
            except OSError as err:
                raise storage_error(err, "the run folder", self.path) from err
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as err:
                os.close(fd)
                raise LockedError(
                    f"another run is writing {self.output} (it holds {lock}); expected: one run for an output. "
                    f"Wait for it, or name another file"
                ) from err
            if _same_file(fd, lock):
                return fd
            os.close(fd)  # a finishing run removed the folder after the file was opened

    def read_plan(self) -> StoredPlan | None:
        """The plan of an unfinished run, or None when there is none.

        Raises:
            StorageError: it is there and damaged.
        """
        return read_plan(self.path)

    def write_plan(self, plan: StoredPlan) -> None:
        """Make a plan durable; the scan must be written before."""
        write_durable(
            self.path / "plan.json",
            json.dumps({**asdict(plan), "contract": plan.contract.to_dict()}, indent=2).encode(),
            "the plan",
        )

    def refuse_unfinished(self) -> None:
        """Refuse to replace a file that an unfinished run is about to make, or builds on.

        Raises:
            ConfigError: there is one.
        """
        if (self.path / "plan.json").exists():
            raise ConfigError(
                f"{self.path} holds an unfinished run that makes {self.output}. Finish it with the "
                f"command that started it, or delete that folder to discard it"
            )

    def clear(self) -> None:
        """Remove everything but the lock."""
        (self.path / "plan.json").unlink(missing_ok=True)  # first: without it, the rest means nothing
        for entry in self.path.iterdir():
            if entry.name != "lock":
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder: the run is finished, or never began."""
        self.clear()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lock >= 0 and not (self.path / "plan.json").exists():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        self._lock = -1


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False
