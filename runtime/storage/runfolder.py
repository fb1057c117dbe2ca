"""The folder of an unfinished run, beside its output: plan, scan and segments, under one lock."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

from ..contents import HDF5
from ..errors import ConfigError, FacemillError, LockedError, StorageError
from ..files import (
    is_trusted,
    make_folder,
    restrict_folder,
    storage_error,
    sweep_temporary,
    sync_folder,
    write_durable,
)
from ..locks import Lock
from ..outputs import check_output, check_parent, refuse_blocked, what_stands_at
from ..regular import NOTE_BYTES, AnyPath, read_regular
from .contract import EmbeddingContract
from .opening import refuse_system_error

_OURS = re.compile(
    r"lock|paths|plan\.json|digests|segment-[\d-]+\.(h5|damaged)|part-[\d-]+\.npy|lists\.npz|outputs\.json|.+\.partial"
)

_T = TypeVar("_T")

logger = logging.getLogger(__name__)


def utc_now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The decisions of a run before its first photo, stored as `plan.json`.

    Attributes:
        contract: the settings that all rows share; a resumed run must have the same.
        root: absolute folder of the paths, as text (surrogateescape).
        rows: number M of scanned paths.
        paths_sha256: digest of their list; empty for a run of an older version.
        started_utc: ISO 8601.
        base_run_id: `run_id` of the finished file whose failed photos this run retries; empty for none.
        settings: the tuned or given batch size and workers.
        forced: whether --force started it; the same command then resumes it instead of starting over again.
        inputs: digest of what was named, see `sources.scan.digest_inputs`: --force with other photos starts over.
        disks: absolute folders of the photos that were disks of their own, as text; see `sources.disks`.
        plan_id: identifies the segments, and the finished file, of the plan.
    """

    contract: EmbeddingContract
    root: str
    rows: int
    started_utc: str
    base_run_id: str = ""
    settings: dict[str, int] = field(default_factory=dict)
    forced: bool = False
    paths_sha256: str = ""
    inputs: str = ""
    disks: list[str] = field(default_factory=list)
    plan_id: str = field(default_factory=lambda: secrets.token_hex(8))


def folder_of(output: Path) -> Path:
    """The folder for the unfinished run that makes a file."""
    return output.parent / f"{output.name}.parts"


def read_plan(folder: Path) -> StoredPlan | None:
    """Read the plan of the unfinished run in a folder; None without one.

    Raises:
        StorageError: the plan is damaged, or the machine cannot read it.
    """
    path = folder / "plan.json"
    try:
        plan = decode_plan(read_regular(path, NOTE_BYTES))
        return StoredPlan(**{**plan, "contract": EmbeddingContract.from_dict(plan["contract"])})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, KeyError, TypeError, ValueError) as err:
        refuse_system_error(err, path)
        raise StorageError(
            f"the plan of the unfinished run, {path}, is damaged ({err}). Restore it from a copy, or start over with "
            f"--force"
        ) from err


def check_new_file(output: Path, *, force: bool, inputs: Iterable[AnyPath] = ()) -> None:
    """Check, before the work, that a new embedding file can be written; see `outputs.check_output`.

    Raises:
        ConfigError, OutputExistsError: see `outputs.check_output`.
    """
    if not force:
        sweep_leftovers(output)
    check_output(output, "the embedding file", force=force, kind=HDF5, inputs=inputs)


def sweep_leftovers(output: Path) -> None:
    """Remove what a writer left that was killed, or lost its power, right after it had finished its file.

    That is its folder, and the temporary name of the file: a power cut may keep the new name without dropping the old.
    A folder that is in use, holds an unfinished run or a file that facemill did not write stays.
    """
    sweep_temporary(output)
    folder = folder_of(output)
    if folder.is_dir() and not (folder / "plan.json").exists():
        with suppress(FacemillError), RunFolder(output):
            pass


def drop_attribute_parts(file: Path) -> None:
    """Remove what a stopped `facemill attributes` had read of a file that was replaced: no command can use it any more.

    A folder that is in use stays.
    """
    output = Path(f"{os.path.realpath(file)}.attributes")
    if folder_of(output).is_dir():
        with suppress(FacemillError), RunFolder(output, like=file) as folder:
            folder.remove()


def encode_plan(plan: Mapping[str, Any]) -> bytes:
    """A plan as JSON, with a checksum."""
    content = json.loads(json.dumps(plan))
    return json.dumps({**content, "checksum": _checksum(content)}, indent=2).encode()


def decode_plan(data: bytes) -> dict[str, Any]:
    """The plan that `encode_plan` wrote. One of an older version has no checksum.

    Raises:
        ValueError: it is damaged.
    """
    plan = json.loads(data)
    if not isinstance(plan, dict):
        raise ValueError(f"it is {plan!r:.80}; expected: an object")
    checksum = plan.pop("checksum", None)
    if checksum is not None and checksum != _checksum(plan):
        raise ValueError("its checksum differs")
    return plan


def _checksum(plan: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()


class RunFolder:
    """`<output>.parts`, locked for this process. Used in a `with` block; the lock ends with the process.

    Attributes:
        output: the file that the run makes.
        path: the folder. It and its files get no wider permissions than the source files of the run.
    """

    def __init__(self, output: Path, *, like: Path | Sequence[Path] = (), busy: str = "") -> None:
        """Create the folder and take the lock.

        Args:
            output: the file that the run makes; an existing one is added to `like`.
            like: the source files of the run.
            busy: what another holder of the lock is doing, for a command that has no output to name.
        Raises:
            LockedError: another run writes the output.
            ConfigError: the folder of the output does not exist, or the run folder holds a file that facemill did not
                write, or other users could have written it.
            StorageError: the folder cannot be created.
        """
        check_parent(output)
        refuse_blocked(output)
        self.output = output
        self.path = folder_of(output)
        self._busy = busy
        sources = [*([like] if isinstance(like, Path) else like), *([output] if output.exists() else [])]
        self._lock: Lock | None = self._take_lock(sources)
        try:
            foreign = sorted(name for name in os.listdir(self.path) if not _OURS.fullmatch(name))
            if foreign:
                raise ConfigError(
                    f"{self.path} is facemill's folder for an unfinished run, but it holds a different file: "
                    f"{foreign[0]!r}. Move that file away, or name a different output with -o"
                )
            restrict_folder(self.path, like=sources)
        except OSError as err:
            self._lock.release()
            raise storage_error(err, "the run folder", self.path) from err
        except ConfigError:
            with suppress(OSError):  # a refusal leaves nothing behind
                os.unlink(self.path / "lock")
            self._lock.release()
            raise

    @property
    def paths_file(self) -> Path:
        """The file of the scan (sources.pathtable)."""
        return self.path / "paths"

    def _take_lock(self, sources: Sequence[Path]) -> Lock:
        # A new folder gets the owner and group of the first source: they may write in it if they may write the source.
        model = sources[0] if sources else None
        is_new = False
        while True:
            try:
                is_new = not os.path.lexists(self.path)
                kind = what_stands_at(self.path)
                if kind not in ("", "a folder"):
                    raise ConfigError(
                        f"{self.path} is {kind}; expected: nothing, or facemill's folder for an unfinished run. Look "
                        f"at it and move it away, or name a different output with -o"
                    )
                make_folder(self.path, like=sources)
                if not is_trusted(self.path, beside=model) and self.path.exists():
                    if is_new:
                        with suppress(OSError):
                            self.path.rmdir()
                    raise ConfigError(
                        f"{self.path} is a link, or belongs to another user, or others may write in it; expected: a "
                        f"folder in which only you and the owner of the file can write. Look at it and remove it (or: "
                        f"chmod go-w), or name a different output with -o"
                    )
                with suppress(FileNotFoundError):  # a finishing run has just removed the folder
                    busy = self._busy or f"another run is writing {self.output}"
                    return Lock(self.path / "lock", busy, in_place=bool(self._busy))
            except LockedError:
                raise
            except OSError as err:
                if is_new:  # an empty folder would look like a run
                    with suppress(OSError):
                        (self.path / "lock").unlink(missing_ok=True)
                        self.path.rmdir()
                raise storage_error(err, "the run folder", self.path) from err

    def read_plan(self) -> StoredPlan | None:
        """Read the plan of an unfinished run; None without one.

        Raises:
            StorageError: the plan is damaged.
        """
        return read_plan(self.path)

    def write_plan(self, plan: StoredPlan) -> None:
        """Write a plan durably; write the scan before it."""
        data = encode_plan({**asdict(plan), "contract": plan.contract.to_dict()})
        write_durable(self.path / "plan.json", data, "the plan", like=self.path)

    def refuse_unfinished(self) -> None:
        """Refuse to replace a file that an unfinished run will write or read.

        Raises:
            ConfigError: an unfinished run exists.
        """
        if (self.path / "plan.json").exists():
            raise ConfigError(
                f"{self.path} holds an unfinished run for {self.output}. Resume it with the command that started it, "
                f"or delete that folder to discard it"
            )

    def clear(self) -> None:
        """Remove everything but the lock."""
        plan = self.path / "plan.json"
        if plan.exists():  # first: without the plan, the rest has no meaning
            plan.unlink()
            sync_folder(self.path)  # a power cut must not keep the plan and lose the rest
        # The note of the outputs last: until it is gone, the same command knows them as its own.
        for entry in sorted(self.path.iterdir(), key=lambda entry: entry.name == "outputs.json"):
            if entry.name == "outputs.json":
                sync_folder(self.path)  # a power cut must not keep the rest and lose the note
            if entry.name != "lock":
                entry.unlink()

    def remove(self) -> None:
        """Remove the folder of a run that is finished, or never started."""
        self.clear()
        _remove_folder(self.path)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._lock is None:
            return
        sweep_temporary(self.output)  # none of another writer: they hold the lock of this folder
        if not (self.path / "plan.json").exists():
            _remove_folder(self.path)
        self._lock.release()
        self._lock = None


def _remove_folder(folder: Path) -> None:
    """Remove a run folder that this process has locked. The result is whole by now: what cannot be removed is logged.

    The lock goes last: until then no other run takes the folder.
    """
    try:
        for name in _try_twice(os.listdir, folder):
            if name != "lock":
                _try_twice(os.unlink, folder / name)
        _try_twice(os.unlink, folder / "lock")
        _try_twice(os.rmdir, folder)
    except FileNotFoundError:
        pass  # `remove` has removed it
    except OSError as err:
        if err.errno != errno.ENOTEMPTY:  # another run has taken it
            logger.warning("%s cannot be removed (%s). The next run of the same output removes it", folder, err)


def _try_twice(step: Callable[[Path], _T], path: Path) -> _T:
    """Take a step again if it fails: a network file system may be away for a moment."""
    try:
        return step(path)
    except FileNotFoundError:
        raise
    except OSError:
        return step(path)
