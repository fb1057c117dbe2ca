"""Add photos to a finished file, with the engine and settings of its rows.

A run, resumable like every run, embeds them into `<file>.adding`, which is then joined with the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.build import rebuild_if_stale
from ..engines.engine import Engine
from ..errors import ContractError
from ..interrupt import Control
from ..pipeline.contract import contract_of, face_rules_of, limits_of
from ..pipeline.request import Request, RunOptions
from ..pipeline.run import process
from ..progress import Listener
from ..records import Status
from ..search.file_rules import find_attributes, find_detector, find_engine, find_landmarks
from ..sources.kinds import Patterns
from ..sources.scan import scan
from ..sources.source import FileSource
from ..storage.contract import Guard
from ..storage.dataset import assemble
from ..storage.file import EmbeddingFile
from ..storage.format import count_outcomes
from ..storage.ledger import Part
from ..storage.opening import check_regular
from ..storage.runfolder import RunFolder, sweep_leftovers
from ..storage.segments import SegmentRules
from .join import common_root, joined_metadata, mark_duplicates, prefix_below
from .rewrite import metadata_after, rewriting

logger = logging.getLogger(__name__)

_FAILED = [int(status) for status in Status if status.failed]


@dataclass(frozen=True, slots=True)
class Added:
    """The result of an addition.

    Attributes:
        scanned: photos found in the inputs.
        known: photos of these that the file had already.
        added: photos that are new in the file; with `retry`, also those with a new outcome.
        outcomes: the added photos by outcome.
        photographs, embeddings: numbers in the file after the addition.
        root: folder that all its paths are below after the addition.
        root_before: the same before the addition.
        dropped: datasets of other programs, removed from the file because its rows changed.
        passed_over: number of files and folders that the scan left out, by ending or pattern.
    """

    scanned: int
    known: int
    added: int
    outcomes: dict[str, int]
    photographs: int
    embeddings: int
    root: str
    root_before: str
    dropped: tuple[str, ...]
    passed_over: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def add(
    file: Path,
    inputs: Sequence[str],
    *,
    engine: Engine | None = None,
    retry: bool = False,
    patterns: Patterns | None = None,
    within: Sequence[str] = (),
    rules: SegmentRules | None = None,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Added:
    """Embed the photos that a file does not have, and add them to it.

    After a kill the file is unchanged, or has the added photos; the same call resumes.

    Args:
        file: a finished file; a link is followed.
        inputs: folders, files and @lists, as for `process`.
        engine: None for the engine that the file names.
        retry: also embed again the photos that failed.
        patterns: names of files and folders to take and to leave out; None for the usual ones.
        within: folders that no photo and no link may lead out of; none for no such limit.
        rules: limits of the segments of the run.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the run; None for neither.
    Raises:
        AccessError: a photo or a link leads out of `within`.
        ContractError: the engine's embeddings cannot be stored in the file.
        EngineError, SourceError, StorageError: an engine, the inputs or the file cannot be used.
        Interrupted: the control stopped the run; the same call resumes it.
    """
    path = Path(os.path.realpath(file))
    check_regular(path)
    with RunFolder(path) as folder:
        folder.refuse_unfinished()
        addition = _Addition(folder)
        addition.join()  # an interrupted addition may have completed its run
        request = _request(path, inputs, addition.output, engine, rules or SegmentRules())
        logger.info("looking for photos")
        source = scan(inputs, max_bytes=request.limits.max_bytes, patterns=patterns, within=within)
        listed = new = _without_known(path, source, retry=retry)
        while new.names:
            logger.info("%d of %d photos are new", len(new.names), len(source.names))
            try:
                process(replace(request, inputs=new), listener=listener, control=control)
            except ContractError as err:
                raise ContractError(
                    f"an earlier addition to {path} was interrupted, and this one differs from it ({err.message}). "
                    f"Resume the earlier one with its command, or delete {addition.output}.parts to discard it"
                ) from err
            addition.join()
            new = _without_known(path, source)  # photos that appeared after an interrupted run had started
        return addition.report(len(source.names), len(listed.names), dict(source.passed_over))


class _Addition:
    """The run that embeds the new photos, and its result.

    Attributes:
        output: the file that the run writes.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.output
        with EmbeddingFile(self._path) as base:
            self._root = base.root
        self.output = self._path.with_name(self._path.name + ".adding")
        self._outcomes: dict[str, int] = {}
        self._dropped: dict[str, None] = {}

    def join(self) -> None:
        """Join the output of the run with the file, if it exists. Joining twice does no harm."""
        if not self.output.is_file():
            sweep_leftovers(self.output)
            return
        with EmbeddingFile(self._path) as base, EmbeddingFile(self.output) as run:
            root = common_root([base.root, run.root])
            before, after = prefix_below(root, base.root), prefix_below(root, run.root)
            retried = np.zeros(len(base.status), bool)
            failed = np.isin(base.status, _FAILED)
            listed = [after + name for name in run.scanned_paths()]
            retried[[row for _, row in _common_paths(listed, (before + name for name in base.scanned_paths()))]] = True
            parts = [Part.of(base, ~(retried & failed), before), Part.of(run, prefix=after)]
            with rewriting(self._folder, parts, prefer_first=True) as new:
                mark_duplicates(new.ledger, new.paths)
                added = new.ledger.source == 1
                if added.any():
                    metadata = metadata_after(joined_metadata([base, run], root), new.ledger)
                    logger.info("writing %s", self._path)
                    assemble(self._path, new.ledger, new.paths, metadata, base.dtype)
                    self._note(new.ledger.status[added], base)
            # A run that was killed after it had written its file leaves its folder.
            with RunFolder(self.output, like=self._path) as leftover:
                plan = leftover.read_plan()
                if plan is not None and plan.plan_id == run.metadata["plan_id"]:
                    leftover.remove()
        self.output.unlink()

    def _note(self, status: np.ndarray[Any, Any], base: EmbeddingFile) -> None:
        for label, count in count_outcomes(status).items():
            self._outcomes[label] = self._outcomes.get(label, 0) + count
        self._dropped |= dict.fromkeys(base.foreign_datasets())

    def report(self, scanned: int, new: int, passed_over: dict[str, int]) -> Added:
        with EmbeddingFile(self._path) as now:
            return Added(
                scanned,
                scanned - new,
                sum(self._outcomes.values()),
                self._outcomes,
                len(now.status),
                int(now.vector_counts.sum()),
                os.fsdecode(now.root),
                os.fsdecode(self._root),
                tuple(self._dropped),
                passed_over,
            )


def _request(path: Path, inputs: Sequence[str], output: Path, engine: Engine | None, rules: SegmentRules) -> Request:
    """Make the request of a run whose rows can be stored in the file.

    Raises:
        ContractError: the engine, the detector or the landmark network makes rows of a different kind.
        EngineError: an engine is missing.
    """
    with EmbeddingFile(path) as file:
        contract, engine, attributes = file.contract, find_engine(file, engine), find_attributes(file)
        detector, landmarks = find_detector(file), find_landmarks(file)
    request = Request(
        tuple(inputs),
        output,
        rebuild_if_stale(engine),
        skip_duplicates=contract.skip_duplicates,
        dtype=contract.dtype,
        limits=limits_of(contract),
        run=RunOptions(segments=rules),
        decoder="opencv" if contract.decoder == "opencv" else "auto",
        faces=face_rules_of(contract),
        like=(path,),
        detector=rebuild_if_stale(detector) if detector else None,
        landmarks=rebuild_if_stale(landmarks) if landmarks else None,
        attributes=attributes,
    )
    different = contract.differences(contract_of(request, request.engine.info, ""), Guard.FILE, both=True)
    if different:
        raise ContractError(
            f"rows of {request.engine} cannot be stored in {path} ({'; '.join(different)}); expected: the same "
            f"values. Pass the engine that made the file with --engine"
        )
    return request


def _without_known(path: Path, source: FileSource, *, retry: bool = False) -> FileSource:
    """The photos of a source that the file does not have; with `retry`, also those that failed.

    Their root is the root of the file after the addition.
    """
    with EmbeddingFile(path) as base:
        root = common_root([base.root, source.root])
        prefix, prefix_of_file = prefix_below(root, source.root), prefix_below(root, base.root)
        names_below = (prefix + name for name in source.names) if prefix else source.names
        listed = list(dict.fromkeys(names_below))
        in_file = np.zeros(len(listed), bool)
        for position, row in _common_paths(listed, (prefix_of_file + name for name in base.scanned_paths())):
            in_file[position] |= not (retry and base.status[row] in _FAILED)
    names = [name for name, present in zip(listed, in_file.tolist(), strict=True) if not present]
    return replace(source, root=root, names=names)


def _common_paths(listed: Sequence[bytes], stored: Iterator[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the positions in both sorted sequences of each path that they share."""
    position = 0
    for row, path in enumerate(stored):
        while position < len(listed) and listed[position] < path:
            position += 1
        if position == len(listed):
            return
        if listed[position] == path:
            yield position, row
