"""A folder of known people, embedded by the product's own pipeline."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..files import write_durable
from ..interrupt import Control
from ..metrics.pairs import LabelledPairs
from ..pipeline.request import Request
from ..pipeline.run import process
from ..pipeline.summary import Summary
from ..progress import Listener
from ..records import Status
from ..sources.scan import scan
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.format import offsets


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """What became of M photographs, of which N were embedded.

    Attributes:
        file: the embedding file.
        metadata: attributes of its `/metadata`.
        contract: what all rows have in common.
        paths: M paths below the folder, in scan order.
        status: (M,) uint8, see records.Status.
        person: (M,) int64: the number of the sub-folder that a photograph lies in or below; -1 for none.
        vectors: (N, D) float32, unit rows, of those whose status is EMBEDDED.
        summary: of the run that found or made the file, with the speeds of the one that made it, 0 where nobody knows
            them any more; None where only the file is known.
    """

    file: Path
    metadata: Mapping[str, Any]
    contract: EmbeddingContract
    paths: tuple[bytes, ...]
    status: NDArray[np.uint8]
    person: NDArray[np.int64]
    vectors: NDArray[np.float32]
    summary: Summary | None = None

    @property
    def here(self) -> NDArray[np.bool_]:
        """(M,) bool, N of them true."""
        return np.asarray(self.status == Status.EMBEDDED, np.bool_)

    @property
    def outcomes(self) -> dict[str, int]:
        """Photographs by outcome."""
        counts = np.bincount(self.status, minlength=len(Status))
        return {status.label: int(counts[status]) for status in Status if counts[status]}

    def rows(self, photographs: Iterable[str]) -> NDArray[np.int64]:
        """Scan rows of photographs named without extension: `Ada_Smith/Ada_Smith_0001`; -1 for those not in the folder.

        Raises:
            ConfigError: two files differ in their extension alone, so that a name means both.
        """
        known = _by_stem(self.paths)
        found = [known.get(os.fsencode(name), ()) for name in photographs]
        for rows in found:
            if len(rows) > 1:
                one, other = (os.fsdecode(self.paths[row]) for row in rows[:2])
                raise ConfigError(
                    f"the pairs file may mean {one} or {other}; wanted: one file a photograph. Move one of them away"
                )
        return np.array([rows[0] if rows else -1 for rows in found], np.int64)


def embed_folder(
    request: Request, *, listener: Listener | None = None, control: Control | None = None
) -> EmbeddedFolder:
    """Run the pipeline on a folder, or find its file whole, and read what it made.

    Args:
        request: one folder of inputs; the output is kept.
        listener, control: see `pipeline.run.process`.
    Raises:
        FacemillError: the run failed, or its file is damaged.
    """
    summary = process(request, listener=listener, control=control)
    found = read_embedded(request.output)
    return replace(found, summary=_with_speed(summary, found))


def _with_speed(summary: Summary, found: EmbeddedFolder) -> Summary:
    """A run that found its file whole measured nothing: its speeds are those that were kept beside the file."""
    kept, run_id = found.file.with_suffix(".speed.json"), found.metadata["run_id"]
    if summary.processed:
        speed = {"run_id": run_id, "images_per_s": summary.images_per_s, "stages": summary.stages}
        write_durable(kept, json.dumps(speed).encode(), "the measured speed", like=found.file)
        return summary
    try:
        speed = json.loads(kept.read_text(encoding="utf-8"))
        if speed["run_id"] == run_id:  # and not of a file that was replaced since
            return replace(summary, images_per_s=speed["images_per_s"], stages=speed["stages"])
    except (OSError, KeyError, TypeError, ValueError):
        pass  # only a speed is lost: the figures do without
    return summary


def read_embedded(file: Path) -> EmbeddedFolder:
    """What an embedding file says of its photographs; of one with several faces, the first, which it is of.

    Raises:
        StorageError: it is no finished embedding file, or damaged.
    """
    with EmbeddingFile(file) as embedded:
        status, paths = embedded.status, tuple(embedded.scanned_paths())
        first = offsets(embedded.vector_counts)[status == Status.EMBEDDED]
        vectors = embedded.vectors if len(first) == embedded.rows else embedded.vectors[first]
        return EmbeddedFolder(file, embedded.metadata, embedded.contract, paths, status, _people(paths), vectors)


def check_folder(folder: Path, pairs: LabelledPairs | None) -> None:
    """Say before the photographs are embedded, not after, that there would be nothing to measure.

    Raises:
        ConfigError: it is no folder, no photograph of the pairs is in it, or, without pairs, no two photographs lie in
            one sub-folder and no two in different ones.
        SourceError: it cannot be read, or holds no photograph.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; wanted: one with a sub-folder of photographs for each person")
    paths = scan([str(folder)]).names
    if pairs is not None:
        known = _by_stem(paths)
        if not any(os.fsencode(name) in known for name in (*pairs.left, *pairs.right)):
            raise ConfigError(
                f"no photograph of the pairs file is in {folder}; wanted: {pairs.left[0]}.jpg (or another extension) "
                f"and so on. Name the folder that the people's folders are in"
            )
        return
    person = _people(paths)
    if len(np.unique(person[person >= 0])) < 2:
        raise ConfigError(
            f"{folder} holds no two sub-folders with photographs; wanted: one sub-folder a person, so that it is known "
            f"who is who. Or give pairs to judge with --pairs"
        )


def _by_stem(paths: Iterable[bytes]) -> dict[bytes, list[int]]:
    """Scan rows by path without extension."""
    found: dict[bytes, list[int]] = {}
    for row, path in enumerate(paths):
        found.setdefault(os.path.splitext(path)[0], []).append(row)
    return found


def _people(paths: Iterable[bytes]) -> NDArray[np.int64]:
    """(M,) int64: paths of one sub-folder get one number; -1 for those in no sub-folder."""
    numbers: dict[bytes, int] = {}
    return np.array(
        [numbers.setdefault(path.split(b"/")[0], len(numbers)) if b"/" in path else -1 for path in paths], np.int64
    )
