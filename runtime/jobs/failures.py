"""The last photos that failed, with their reasons: from the finished file, or from the segments of the run."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..records import Status
from ..sources.pathtable import PathTable
from ..storage.file import EmbeddingFile
from ..storage.opening import DAMAGE, open_hdf5
from ..storage.outcomes import NOT_EMBEDDED, PhotoOutcome, read_outcomes
from ..storage.runfolder import folder_of
from ..storage.segments import segment_files


def last_failures(output: Path, count: int) -> list[PhotoOutcome]:
    """The last photos that were not embedded, newest first.

    A running job adds them with each segment, once a minute at least. Nothing is changed, whatever another process does
    with the file.

    Args:
        output: the embedding file of a job, finished or not.
        count: most photos to return.
    Raises:
        StorageError: the file is damaged.
    """
    folder = folder_of(output)
    try:
        plan = os.stat(folder / "plan.json").st_mtime_ns
        segments = tuple(segment_files(folder))
        return list(_of_segments(folder, plan, segments, count)) if segments else []
    except (OSError, ValueError):  # there is no run, or it has just finished and its folder goes
        return _of_file(output, count) if output.exists() else []


def _of_file(output: Path, count: int) -> list[PhotoOutcome]:
    with EmbeddingFile(output) as file:
        return list(read_outcomes(file, NOT_EMBEDDED, last=count))[::-1]


@lru_cache(maxsize=16)
def _of_segments(folder: Path, plan: int, segments: tuple[Path, ...], count: int) -> tuple[PhotoOutcome, ...]:
    """Read the failures of a run; of the same plan and segments only once, because a list of millions of names is long.

    Raises:
        OSError, ValueError: the list of names is gone.
    """
    failures: list[PhotoOutcome] = []
    with PathTable(folder / "paths") as names:
        for path in reversed(segments):
            with suppress(*DAMAGE):  # the next run sets a damaged segment aside
                failures += _of_segment(path, names, count - len(failures))
            if len(failures) >= count:
                break
    return tuple(failures)


def _of_segment(path: Path, names: PathTable, count: int) -> list[PhotoOutcome]:
    with open_hdf5(path) as file:
        outcomes = file["outcomes"]
        status = outcomes["status"][:]
        chosen = np.flatnonzero(np.isin(status, NOT_EMBEDDED))[::-1][:count]
        if not len(chosen):
            return []
        start, stop = int(chosen[-1]), int(chosen[0]) + 1
        rows, details = outcomes["row"][start:stop].tolist(), outcomes["detail"][start:stop].tolist()
    return [
        PhotoOutcome(
            rows[index - start],
            names[rows[index - start]].decode("utf-8", "backslashreplace"),
            Status(int(status[index])),
            details[index - start].decode("utf-8", "replace"),
        )
        for index in chosen.tolist()
    ]
