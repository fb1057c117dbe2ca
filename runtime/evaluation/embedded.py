"""Embed a folder of known people with the product's own pipeline."""

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
from ..files import sweep_temporary, write_durable
from ..interrupt import Control
from ..metrics.pairs import LabelledPairs
from ..pipeline.request import Request
from ..pipeline.run import process
from ..pipeline.summary import Summary
from ..progress import Listener
from ..records import Status
from ..regular import NOTE_BYTES, read_regular
from ..sources.scan import scan
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.format import offsets


@dataclass(frozen=True, slots=True)
class EmbeddedFolder:
    """M photos of a folder, of which N are embedded.

    Attributes:
        file: the embedding file.
        metadata: attributes of its `/metadata`.
        contract: contract of its rows.
        paths: M paths below the folder, in scan order.
        status: (M,) uint8, see records.Status.
        person: (M,) int64: number of the sub-folder that a photo is in or below; -1 for none.
        vectors: (N, D) float32, unit rows of the photos with status EMBEDDED.
        summary: summary of the run that made or reused the file, with the rates of the run that made it, 0 if unknown;
            None if only the file was read.
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
    def has_vector(self) -> NDArray[np.bool_]:
        """(M,) bool: whether a photo has a vector. N are true."""
        return np.asarray(self.status == Status.EMBEDDED, np.bool_)

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of photos by outcome."""
        counts = np.bincount(self.status, minlength=len(Status))
        return {status.label: int(counts[status]) for status in Status if counts[status]}

    def rows(self, names: Iterable[str]) -> NDArray[np.int64]:
        """Find scan rows by name without extension, `Ada_Smith/Ada_Smith_0001`; -1 for photos not in the folder.

        Raises:
            ConfigError: two files differ only in their extension, so the name is ambiguous.
        """
        rows_by_stem = _by_stem(self.paths)
        matches = [rows_by_stem.get(os.fsencode(name), ()) for name in names]
        for rows in matches:
            if len(rows) > 1:
                first, second = (os.fsdecode(self.paths[row]) for row in rows[:2])
                raise ConfigError(
                    f"the pairs file may mean {first} or {second}; expected: one file per photo. Move one of them away"
                )
        return np.array([rows[0] if rows else -1 for rows in matches], np.int64)


def embed_folder(
    request: Request, *, listener: Listener | None = None, control: Control | None = None
) -> EmbeddedFolder:
    """Run the pipeline on a folder, or reuse its finished file, and read the embeddings.

    Args:
        request: one input folder; the output is kept.
        listener, control: see `pipeline.run.process`.
    Raises:
        FacemillError: the run failed, or its file is damaged.
    """
    summary = process(request, listener=listener, control=control)
    embedded = read_embedded(request.output)
    return replace(embedded, summary=_with_speed(summary, embedded))


def _with_speed(summary: Summary, embedded: EmbeddedFolder) -> Summary:
    """Keep the measured speed beside the file, or read it back for a run that reused the file and measured nothing."""
    speed_file, run_id = embedded.file.with_suffix(".speed.json"), embedded.metadata["run_id"]
    if summary.processed:
        speed = {"run_id": run_id, "images_per_s": summary.images_per_s, "stages": summary.stages}
        write_durable(speed_file, json.dumps(speed).encode(), "the measured speed", like=embedded.file)
        return summary
    sweep_temporary(speed_file)
    try:
        speed = json.loads(read_regular(speed_file, NOTE_BYTES))
        if speed["run_id"] == run_id:  # otherwise the file was replaced since
            return replace(summary, images_per_s=speed["images_per_s"], stages=speed["stages"])
    except (OSError, KeyError, TypeError, ValueError):
        pass  # only the speed is lost
    return summary


def read_embedded(file: Path) -> EmbeddedFolder:
    """Read the photos and vectors of an embedding file. A photo with several faces has the vector of its first face.

    Raises:
        StorageError: the file is damaged, or is not a finished embedding file.
    """
    with EmbeddingFile(file) as embeddings:
        status, paths = embeddings.status, tuple(embeddings.scanned_paths())
        first = offsets(embeddings.vector_counts)[status == Status.EMBEDDED]
        vectors = embeddings.vectors if len(first) == embeddings.rows else embeddings.vectors[first]
        return EmbeddedFolder(
            file, embeddings.metadata, embeddings.contract, paths, status, _number_people(paths), vectors
        )


def check_folder(folder: Path, pairs: LabelledPairs | None) -> None:
    """Check, before any photo is embedded, that there is something to measure.

    Raises:
        ConfigError: it is not a folder, it holds no photo of the pairs, or, without pairs, it does not hold two
            sub-folders with photos.
        SourceError: the folder cannot be read, or holds no photo.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder; expected: a folder with a sub-folder of photos per person")
    paths = scan([str(folder)]).names
    if pairs is not None:
        rows_by_stem = _by_stem(paths)
        if not any(os.fsencode(name) in rows_by_stem for name in (*pairs.left, *pairs.right)):
            raise ConfigError(
                f"{folder} holds no photo of the pairs file; expected: {pairs.left[0]}.jpg (or another extension) and "
                f"so on. Name the folder that holds the people's folders"
            )
        return
    person = _number_people(paths)
    if len(np.unique(person[person >= 0])) < 2:
        raise ConfigError(
            f"{folder} does not hold two sub-folders with photos; expected: one sub-folder per person. Or name a file "
            f"of pairs to judge with --pairs"
        )


def _by_stem(paths: Iterable[bytes]) -> dict[bytes, list[int]]:
    """Group scan rows by path without extension."""
    rows: dict[bytes, list[int]] = {}
    for row, path in enumerate(paths):
        rows.setdefault(os.path.splitext(path)[0], []).append(row)
    return rows


def _number_people(paths: Iterable[bytes]) -> NDArray[np.int64]:
    """Number the people by first sub-folder: (M,) int64, -1 for a photo in no sub-folder."""
    numbers: dict[bytes, int] = {}
    return np.array(
        [numbers.setdefault(path.split(b"/")[0], len(numbers)) if b"/" in path else -1 for path in paths], np.int64
    )
