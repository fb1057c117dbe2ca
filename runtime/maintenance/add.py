"""New photographs into a finished file, embedded as its rows were.

They are embedded into `<file>.adding`, beside the file and resumable as every run, which is then joined with the file.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engines.engine import Engine
from ..engines.stale import rebuild_if_stale
from ..errors import ContractError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..interrupt import Control
from ..pipeline.request import Request, RunOptions, contract_of
from ..pipeline.run import process
from ..progress import Listener
from ..records import Status
from ..search.embedder import find_detector, find_engine
from ..sources.scan import scan
from ..sources.source import FileSource
from ..storage.comparable import all_differences
from ..storage.dataset import assemble
from ..storage.diskfile import readable_as
from ..storage.file import EmbeddingFile, check_exists
from ..storage.part import Part
from ..storage.runfolder import RunFolder
from ..storage.segments import SegmentRules
from .join import common_root, joined_metadata, of_all_rows, prefix_below
from .rewrite import metadata_after, rewriting
from .same_files import settle_duplicates

logger = logging.getLogger(__name__)

_FAILED = [int(status) for status in Status if status.failed]


@dataclass(frozen=True, slots=True)
class Added:
    """What became of an addition.

    Attributes:
        scanned: photographs found where they were looked for.
        known: of those, in the file already.
        added: photographs that came into the file; with `retry`, those whose outcome is a new one too.
        outcomes: theirs, by kind.
        photographs, embeddings: of the file now.
        root: folder that all its paths are below now.
        root_before: and were before.
        dropped: datasets that others had put into the file, and which it lost since its rows changed.
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


def add(
    file: Path,
    inputs: Sequence[str],
    *,
    engine: Engine | None = None,
    retry: bool = False,
    rules: SegmentRules | None = None,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Added:
    """Embed photographs that a file does not have, and put them into it.

    A kill at any moment leaves the file as it was, or with what was added; the same call goes on.

    Args:
        file: a finished file; a link is followed.
        inputs: folders, files and @lists, as `process` takes them.
        engine: None for the one that the file names.
        retry: embed the photographs again, of those found, that the file has with a failed outcome.
        rules: when a segment of the run ends.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the run; None for neither.
    Raises:
        ContractError: the engine's embeddings may not stand in the file.
        FacemillError: as their messages say.
        Interrupted: the control stopped the run in good order.
    """
    path = Path(os.path.realpath(file))
    check_exists(path)
    with RunFolder(path) as folder, readable_as(path):
        folder.refuse_unfinished()
        begun = _Adding(folder)
        begun.take_in()  # what an interrupted addition has finished
        request = _request(path, inputs, begun.place, engine, rules or SegmentRules())
        logger.info("looking for photographs")
        source = scan(inputs, max_bytes=request.limits.max_bytes)
        listed = new = _not_in(path, source, retry=retry)
        while new.names:
            logger.info("%d of %d photographs are new", len(new.names), len(source.names))
            try:
                process(replace(request, inputs=new), listener=listener, control=control)
            except ContractError as err:
                raise ContractError(
                    f"another addition to {path} was interrupted, and this one does not go on with it. Finish that one "
                    f"with its own command, or delete {begun.place}.parts to forget it. What differs: {err}"
                ) from err
            begun.take_in()
            new = _not_in(path, source)  # what came after an interrupted run had been begun
        return begun.report(len(source.names), len(listed.names))


class _Adding:
    """The run beside the file, and what came of it.

    Attributes:
        place: its output.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder, self._path = folder, folder.output
        with EmbeddingFile(self._path) as base:
            self._root = base.root
        self.place = self._path.with_name(self._path.name + ".adding")
        self._outcomes: dict[str, int] = {}
        self._dropped: dict[str, None] = {}

    def take_in(self) -> None:
        """Join what the run has made with the file, if there is something; doing so twice does no harm."""
        if not self.place.is_file():
            return
        with EmbeddingFile(self._path) as base, EmbeddingFile(self.place) as run:
            root = common_root([base.root, run.root])
            prefixes = [prefix_below(root, one.root) for one in (base, run)]
            again = np.zeros(len(base.status), bool)
            failed = np.isin(base.status, _FAILED)
            listed = [prefixes[1] + name for name in run.scanned_paths()]
            again[[row for _, row in _meet(listed, (prefixes[0] + name for name in base.scanned_paths()))]] = True
            parts = [Part.of(base, ~(again & failed), prefixes[0]), Part.of(run, prefix=prefixes[1])]
            with rewriting(self._folder, parts, prefer_first=True) as new:
                settle_duplicates(new.ledger, new.paths)
                mine = new.ledger.source == 1
                if mine.any():
                    metadata = metadata_after(joined_metadata([base, run], root), new.ledger)
                    logger.info("writing %s", self._path)
                    assemble(self._path, new.ledger, new.paths, metadata, base.dtype)
                    self._note(new.ledger.status[mine], base)
            with RunFolder(self.place) as leftover:  # of a run that was killed when it had made its file
                plan = leftover.read_plan()
                if plan is not None and plan.plan_id == run.metadata["plan_id"]:
                    leftover.remove()
        self.place.unlink()

    def _note(self, status: np.ndarray[Any, Any], base: EmbeddingFile) -> None:
        for one in Status:
            count = int((status == one).sum())
            if count:
                self._outcomes[one.label] = self._outcomes.get(one.label, 0) + count
        self._dropped |= dict.fromkeys(base.foreign_datasets())

    def report(self, scanned: int, new: int) -> Added:
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
            )


def _request(path: Path, inputs: Sequence[str], output: Path, engine: Engine | None, rules: SegmentRules) -> Request:
    """A run that makes rows as those of the file were made.

    Raises:
        ContractError: the engine, or the detector, makes others.
        EngineError: one is gone.
    """
    with EmbeddingFile(path) as made:
        contract, engine, detector = made.contract, find_engine(made, engine), find_detector(made)
    request = Request(
        tuple(inputs),
        output,
        rebuild_if_stale(engine),
        skip_duplicates=contract["skip_duplicates"],
        dtype=contract["dtype"],
        limits=Limits(contract["max_bytes"], contract["max_pixels"]),
        run=RunOptions(segments=rules),
        decoder="opencv" if contract["decoder"] == "opencv" else "auto",
        faces=FaceRules.of_run(contract),
        detector=rebuild_if_stale(detector) if detector else None,
    )
    stored, mine = of_all_rows(contract), of_all_rows(contract_of(request, request.engine.info, ""))
    different = all_differences(stored, mine)
    if different:
        raise ContractError(
            f"what {request.engine} embeds may not stand in {path} ({'; '.join(different)}); wanted: the same values. "
            f"Name the engine that made it with --engine"
        )
    return request


def _not_in(path: Path, source: FileSource, *, retry: bool = False) -> FileSource:
    """Of the photographs found, those that the file does not have; with `retry`, those that failed too.

    Their root is that of the file to come.
    """
    with EmbeddingFile(path) as base:
        root = common_root([base.root, source.root])
        theirs, mine = prefix_below(root, source.root), prefix_below(root, base.root)
        named = (theirs + name for name in source.names) if theirs else source.names
        listed = list(dict.fromkeys(named))
        known = np.zeros(len(listed), bool)
        for place, row in _meet(listed, (mine + name for name in base.scanned_paths())):
            known[place] |= not (retry and base.status[row] in _FAILED)
    names = [name for name, here in zip(listed, known.tolist(), strict=True) if not here]
    return replace(source, root=root, names=names)


def _meet(listed: Sequence[bytes], known: Iterator[bytes]) -> Iterator[tuple[int, int]]:
    """Where two sorted runs of paths have the same one: its places in both."""
    place = 0
    for row, path in enumerate(known):
        while place < len(listed) and listed[place] < path:
            place += 1
        if place == len(listed):
            return
        if listed[place] == path:
            yield place, row
