"""Add age and gender to a finished file: read its photos again, or ask a head about its embeddings.

The answers so far are kept beside the file until it is replaced, so that a stopped job goes on where it was.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..attributes.answers import read_answers, unread_rows
from ..engines.backends import open_runner
from ..engines.build import rebuild_if_stale
from ..errors import ConfigError, Interrupted, SourceError, StorageError
from ..index.samerows import same_rows, sweep_cards
from ..interrupt import Control, RunControl, pause
from ..outputs import refuse_blocked
from ..pairs.checkpoint import checkpoint_plan_path
from ..pipeline.contract import limits_of
from ..pipeline.request import AttributeReader, check_attribute_engine
from ..pipeline.settings import usable_cores
from ..pipeline.stages import Chain, Pipeline, Stage, StageClock
from ..pipeline.work import ReadAttributes
from ..progress import Listener, Reporter, track
from ..records import ATTRIBUTE_FIELDS, unread_attributes
from ..sources.scan import source_of_paths
from ..sources.source import FileSource
from ..storage.contract import EmbeddingContract
from ..storage.dataset import edit_file
from ..storage.file import EmbeddingFile
from ..storage.format import append_attributes, create_attributes
from ..storage.opening import check_regular
from ..storage.runfolder import sweep_leftovers
from .attribute_parts import AttributeParts
from .recrop import CropAgain, FacesOfFile, StoredFaces

logger = logging.getLogger(__name__)

_BATCH_PHOTOS = 32
_BLOCK_PHOTOS = 65_536  # whose paths are read at once
_SAVE_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Attributed:
    """The result of adding attributes to a file.

    Attributes:
        rows: rows of the file.
        read: rows whose attributes were read by this call.
        resumed: rows whose attributes a stopped call had read before.
        kept: rows that were to be read again and could not, and so keep their earlier attributes.
        unread: rows without attributes, because their photo is gone, has changed or cannot be read any more.
        names: the attributes that the file has, "age" and "gender".
        model: the network or head that read them.
        source: "photos" or "embeddings".
        elapsed_s: time in seconds.
    """

    rows: int
    read: int
    resumed: int
    kept: int
    unread: int
    names: tuple[str, ...]
    model: str
    source: str
    elapsed_s: float

    def to_dict(self) -> dict[str, Any]:
        """The result for JSON."""
        return asdict(self)


def add_attributes(
    file: Path,
    reader: AttributeReader,
    *,
    exclude: Sequence[str] = (),
    force: bool = False,
    replace_others: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Attributed:
    """Add attributes to a file. After a kill the file is unchanged or complete; the same call goes on.

    Rows that have the same attributes by the same network are not read again. No answer is lost, unless
    `replace_others` allows it: a row that cannot be read again keeps its answer, and attributes that are not named
    stay.

    Args:
        file: a finished file; a link is followed.
        reader: what reads them.
        exclude: patterns of photos that are not read; see `sources.kinds.Patterns`.
        force: read all rows again.
        replace_others: replace the answers of another network or source. The file names one network, so a row that
            cannot be read again loses its answer.
        listener: shows the progress; None logs a line every five seconds.
        control: pauses and stops the job; None for neither.
    Raises:
        ConfigError: the engine takes other crops than those of the file; or the file has answers of another network or
            source, and `replace_others` is not given.
        SourceError: the folder of the photos is gone, or one of their disks, or none of them can be read; the file is
            unchanged.
        MachineError: the machine cannot read a photo now; what was read is kept.
        Interrupted: the control stopped the job; what was read is kept.
        LockedError, DiskFullError, StorageError: the file is unchanged.
    """
    start_s, path = time.monotonic(), Path(os.path.realpath(file))
    check_regular(path)
    refuse_blocked(path)
    # The lock first: a job that has just ended must not be overwritten with what was read from the file before.
    with AttributeParts(path) as parts, EmbeddingFile(path) as gallery:
        reader = _complete(reader, gallery)
        contract = _contract_with(reader, gallery.contract)
        attributes = _earlier_answers(gallery, contract, replace_others=replace_others)
        unread = unread_rows(attributes, reader.names)
        todo = np.arange(gallery.rows) if force else np.flatnonzero(unread)
        answers, resumed = unread_attributes(len(todo)), 0
        if len(todo) and reader.head is not None:
            answers = _read_embeddings(gallery, reader, listener)[todo]
        elif len(todo):
            parts.resume({"source": gallery.source, **reader.contract_fields(), "faces": len(todo)})
            with _photos_of(gallery, todo, parts, exclude) as photos:
                answers, resumed = _read_photos(gallery, photos, reader, todo, parts, listener, control or RunControl())
        answered = ~unread_rows(answers, reader.names)
        if reader.engine is not None and len(todo) == gallery.rows > 0 and not answered.any():
            parts.remove()
            raise SourceError(
                f"none of the {gallery.rows:,} faces of {file} could be read again below "
                f"{os.fsdecode(gallery.root)}, and nothing was changed; expected: the photos where they were. "
                f"Without them: --from embeddings"
            )
        kept = int((~answered & ~unread[todo]).sum())
        attributes[todo[answered]] = answers[answered]
        if answered.any() or contract != gallery.contract:
            _write(path, gallery, contract, reader, attributes)
        else:
            _sweep(path)
        parts.remove()
        by_the_stopped, total = int(answered[:resumed].sum()), int(answered.sum())
        counts = {"read": total - by_the_stopped, "resumed": by_the_stopped, "kept": kept}
        return Attributed(
            gallery.rows,
            **counts,
            unread=int(unread_rows(attributes, reader.names).sum()),
            names=reader.names,
            model=contract.attribute_model or "",
            source=contract.attribute_source or "photos",
            elapsed_s=time.monotonic() - start_s,
        )


def _complete(reader: AttributeReader, gallery: EmbeddingFile) -> AttributeReader:
    """A reader whose engine this machine can run, and that also reads the other attributes of the file."""
    if reader.engine is not None:
        reader = replace(reader, engine=rebuild_if_stale(reader.engine))
        assert reader.engine is not None
        check_attribute_engine(reader.engine.info, int(str(gallery.contract.crop).partition("x")[0]))
    names = (*reader.names, *gallery.contract.attributes_read)
    return replace(reader, names=tuple(name for name in ATTRIBUTE_FIELDS if name in names))


def _earlier_answers(gallery: EmbeddingFile, contract: EmbeddingContract, *, replace_others: bool) -> NDArray[np.void]:
    """(N,) ATTRIBUTES: the answers that stay unless a row is read again; a new array.

    Raises:
        ConfigError: they are of another network or source, and may not be replaced.
    """
    stored, known = gallery.contract, gallery.attributes
    if known is None:
        return unread_attributes(gallery.rows)
    ours = (contract.attribute_sha256, contract.attribute_source)
    if ours == (stored.attribute_sha256, stored.attribute_source):
        return np.array(known)
    answered = int((~unread_rows(known, ["age"]) | ~unread_rows(known, ["gender"])).sum())
    if answered and not replace_others:
        raise ConfigError(
            f"{gallery.path} has {' and '.join(stored.attributes_read)} of {answered:,} faces from {_origin(stored)}, "
            f"and a file has the answers of one network from one source; requested: from {_origin(contract)}. Replace "
            f"them all with --replace: a face that cannot be read again then loses its answer. Nothing was changed"
        )
    return unread_attributes(gallery.rows)


def _origin(contract: EmbeddingContract) -> str:
    model = f"{contract.attribute_model} ({(contract.attribute_sha256 or '')[:8]})"
    return f"{contract.attribute_source or 'photos'} by {model}"


def _contract_with(reader: AttributeReader, contract: EmbeddingContract) -> EmbeddingContract:
    named: dict[str, Any] = {**dict.fromkeys(_FIELDS), **reader.contract_fields()}
    return replace(contract, **named)


_FIELDS = ("attribute_names", "attribute_model", "attribute_sha256", "attribute_source")


def _read_embeddings(gallery: EmbeddingFile, reader: AttributeReader, listener: Listener | None) -> NDArray[np.void]:
    """(N,) ATTRIBUTES of all rows, from their embeddings."""
    assert reader.head is not None
    attributes, start = unread_attributes(gallery.rows), 0
    for block in track(gallery.blocks(), "attributes", gallery.rows, unit="rows", listener=listener):
        stop = start + len(block)
        attributes[start:stop] = read_answers(reader.head.answer(block), reader.names)
        start = stop
    return attributes


@contextmanager
def _photos_of(
    gallery: EmbeddingFile, rows: NDArray[np.int64], parts: AttributeParts, exclude: Sequence[str]
) -> Iterator[FileSource]:
    """The photos of rows, on the disks on which they lay when the job began. A row of the source is a photo."""
    first = rows[_starts(gallery.photo_numbers()[rows])]
    blocks = (first[start : start + _BLOCK_PHOTOS].tolist() for start in range(0, len(first), _BLOCK_PHOTOS))
    with parts.photos(name for block in blocks for name in gallery.photo_names(block)) as names:
        source = source_of_paths(gallery.root, names, limits_of(gallery.contract).max_bytes, exclude)
        source.check_same_disks(parts.disks)
        parts.begin(source.disks.folders if source.disks else ())
        yield source


def _starts(photos: NDArray[np.int64]) -> NDArray[np.int64]:
    """The first face of each photo, of faces in the order of their photos."""
    return np.flatnonzero(np.diff(photos, prepend=-1))


def _read_photos(
    gallery: EmbeddingFile,
    source: FileSource,
    reader: AttributeReader,
    todo: NDArray[np.int64],
    parts: AttributeParts,
    listener: Listener | None,
    control: Control,
) -> tuple[NDArray[np.void], int]:
    """(F,) ATTRIBUTES of rows, from their photos, and the number of the first rows that an interrupted job has read."""
    attributes = unread_attributes(len(todo))
    for start, stop, values in parts.load():
        attributes[start:stop] = values
    resumed = parts.done
    assert reader.engine is not None
    clock = StageClock("read", usable_cores())
    with ExitStack() as stack:
        runner = stack.enter_context(open_runner(reader.engine, threads=1))
        read = ReadAttributes(runner, reader.names, runner.info.channel_order)
        work = CropAgain(source, limits_of(gallery.contract), runner.info.size, runner.info.channel_order, read)
        chain = Chain.of(Stage(clock, work, 2 * clock.workers))
        batches = _batches(gallery, todo, parts.done, control)
        pipeline = stack.enter_context(Pipeline(batches, chain, lambda pause_s: pause(pause_s, control)))
        reporter = stack.enter_context(
            Reporter("attributes", len(todo), done=parts.done, unit="faces", listener=listener)
        )
        stop = parts.done
        saved_s = time.monotonic()
        try:
            for batch in pipeline.ready(every_s=1.0):
                if batch is not None:
                    assert batch.attributes is not None
                    start, stop = stop, stop + len(batch.attributes)
                    attributes[start:stop] = batch.attributes
                    reporter.advance(stop - start)
                if time.monotonic() - saved_s >= _SAVE_EVERY_S:
                    parts.save(attributes[:stop])
                    saved_s = time.monotonic()
        except BaseException:
            _save_after_failure(parts, attributes[:stop])
            raise
        parts.save(attributes[:stop])
    if stop < len(todo):
        raise Interrupted(
            f"stopped after {stop:,} of {len(todo):,} faces; their attributes are kept. Run the same command again to "
            f"resume",
            control.signum,
        )
    return attributes, resumed


def _save_after_failure(parts: AttributeParts, attributes: NDArray[np.void]) -> None:
    """Keep what was read. An error here is logged, because the first error says why the job stopped."""
    try:
        parts.save(attributes)
    except StorageError as err:
        logger.warning("the last attributes cannot be kept, and their faces are read again: %s", err)


def _batches(gallery: EmbeddingFile, todo: NDArray[np.int64], done: int, control: Control) -> Iterator[StoredFaces]:
    """Yield the faces to read again, with all faces of a photo in one batch, until the job is stopped."""
    faces = FacesOfFile(gallery)
    starts = _starts(gallery.photo_numbers()[todo])
    stops = np.append(starts[1:], len(todo))
    photos = np.repeat(np.arange(len(starts)), stops - starts)  # (F,) rows of the source
    for first in range(int(np.searchsorted(starts, done)), len(starts), _BATCH_PHOTOS):
        if not control.wait():
            return
        start, stop = int(starts[first]), int(stops[min(first + _BATCH_PHOTOS, len(stops)) - 1])
        yield faces.read(todo[start:stop], photos[start:stop])


def _sweep(path: Path) -> None:
    """Remove what a job has left that was killed right after it had replaced the file."""
    sweep_leftovers(path)
    sweep_cards(path, checkpoint_plan_path(path))


def _write(
    path: Path,
    gallery: EmbeddingFile,
    contract: EmbeddingContract,
    reader: AttributeReader,
    attributes: NDArray[np.void],
) -> None:
    """Write the columns and the contract into the file, which a copy replaces. Indexes beside it stay valid.

    Raises:
        StorageError: the file was replaced meanwhile.
    """
    logger.info("writing %s", path)
    with same_rows(path, checkpoint_plan_path(path)), edit_file(path) as target:
        metadata = target["metadata"].attrs
        if metadata["run_id"] != gallery.metadata["run_id"] or len(target["embeddings"]) != len(attributes):
            raise StorageError(f"{path} changed while its faces were read. Run the same command again")
        if "attributes" in target:
            del target["attributes"]
        create_attributes(target, reader.names)
        append_attributes(target, attributes)
        for name in (*_FIELDS, "attribute_engine"):
            if name in metadata:
                del metadata[name]
        metadata.update({**contract.attributes(), **reader.metadata(), "tool_version": __version__})
