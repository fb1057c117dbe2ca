"""Jobs that make and change embedding files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import defaults
from ..attributes.answers import attribute_names
from ..attributes.head import find_head
from ..cuda.device import choose_gpus
from ..engines.choose import choose_attributes, choose_detector, choose_engine, choose_landmarks, model_files
from ..engines.engine import Engine, EngineInfo, read_engine
from ..errors import ConfigError
from ..faces.rules import FaceRules
from ..images.decode import Limits
from ..interrupt import Control
from ..maintenance import add as adding
from ..maintenance.add import Added
from ..maintenance.receipt import Receipt
from ..maintenance.removal_plan import RemovalPlan, unknown_names
from ..maintenance.remove import Removal
from ..outputs import check_name, refuse_inputs
from ..pipeline import run as running
from ..pipeline.contract import fit_limit_of, landmarks_of
from ..pipeline.plan import resumed_contract
from ..pipeline.request import FROM_EMBEDDINGS, AttributeReader, Request, RunOptions
from ..pipeline.summary import Summary
from ..progress import Listener
from ..records import Status
from ..sources.kinds import Patterns
from ..sources.source import Source
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.outcomes import NOT_EMBEDDED, PhotoOutcome, read_outcomes
from ..storage.segments import SegmentRules

PathLike = str | os.PathLike[str]

logger = logging.getLogger(__name__)


def open(file: PathLike) -> EmbeddingFile:
    """Open a finished embedding file for reading: its vectors, paths, faces and outcomes. Own it by `with`.

    Args:
        file: a file that `process` made.
    Raises:
        StorageError: the file is missing or damaged, or is not an embedding file.

    Example:
        >>> import facemill
        >>> with facemill.open("people.h5") as file:
        ...     print(file.vectors.shape, file.paths[0], file.outcomes)
        (12, 512) person0/0.jpg {'embedded': 12}
    """
    return EmbeddingFile(Path(file))


def outcomes(file: PathLike, statuses: Collection[Status] = NOT_EMBEDDED) -> Iterator[PhotoOutcome]:
    """Yield the photos of a file that have one of some outcomes, in scan order, each with the reason.

    Args:
        file: a file that `process` made.
        statuses: the outcomes; by default all but `Status.EMBEDDED`.
    Raises:
        StorageError: the file is missing or damaged, or is not an embedding file.

    Example:
        >>> import facemill
        >>> [outcome.to_dict() for outcome in facemill.outcomes("people.h5")]
        []
    """
    with EmbeddingFile(Path(file)) as opened:
        yield from read_outcomes(opened, statuses)


def process(
    photos: PathLike | Sequence[PathLike] | Source,
    output: PathLike = defaults.OUTPUT,
    *,
    engine: PathLike | Engine | None = None,
    model: str | None = None,
    backend: str = "auto",
    detector: PathLike | Engine | None = None,
    landmarks: PathLike | Engine | None = None,
    faces: FaceRules | None = None,
    attributes: str | Sequence[str] | None = None,
    device: str = "auto",
    decoder: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    skip_duplicates: bool = False,
    retry: bool = False,
    patterns: Patterns | None = None,
    within: Sequence[PathLike] = (),
    limit: int | None = None,
    max_unreadable: int = defaults.MAX_UNREADABLE,
    dtype: str = defaults.DTYPE,
    limits: Limits | None = None,
    segments: SegmentRules | None = None,
    force: bool = False,
    mode: int | None = None,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Summary:
    """Embed photos into one searchable file. A run that was stopped or killed is resumed by the same call.

    Args:
        photos: folders (with all folders below), files, and `@list.txt` (one path per line); or a source.
        output: the embedding file.
        engine: an engine file; None to choose by model and backend.
        model: a registered name or a model file (`PATH.toml`); None for the default of this machine, or the model of
            the file that is resumed.
        backend: "cpu", "cuda", "tensorrt", or "auto" for the fastest on this machine.
        detector: a registered name, a model file or an engine file; None as for `model`.
        landmarks: the network that looks at each face once more: as for `detector`, or "none" to crop by the landmarks
            of the detector.
        faces: rules for detecting and selecting faces; None for the defaults of the command line.
        attributes: what to read from each face: "age", "gender" or both, as "age,gender" or a list; None for neither,
            or those of the file that is resumed. Read docs/attributes.md before you use them.
        device: "cpu", "gpu" (the first one) or the number of a GPU; several, separated by commas, get one process each.
            "auto" for one process on the device of the engine.
        decoder: "opencv", "dali" (on the GPU, for a TensorRT engine), or "auto".
        batch_size: images in one call of the engine; None to measure the best number.
        workers: threads that decode; None to measure the best number.
        skip_duplicates: embed files that are the same, byte for byte, only once.
        retry: process failed photos again.
        patterns: names of files and folders to take and to leave out; None for the usual ones.
        within: folders that no photo and no link may lead out of; none for no such limit.
        limit: process only the first N photos, in scan order.
        max_unreadable: stop where more photos in a row cannot be read, before anything is recorded for them: their disk
            or folder may be gone. 0 for no limit.
        dtype: type of the stored embeddings, "float32" or "float16".
        limits: larger photos are refused before decoding.
        segments: limits of the segments of the run.
        force: start over, and replace the output once the new file is complete.
        mode: permission bits of the output, such as 0o640. None: only you can read it, or whoever can read the file
            that it replaces. Everything made from the file later can be read by the same users.
        listener: shows the progress; None logs it.
        control: pauses and stops the run, from another thread or by signals; None for neither.
    Returns:
        The outcomes of the photos, and the rates of the run.
    Raises:
        ConfigError: options exclude each other, or a value is out of range.
        ContractError: an unfinished or finished run has different settings.
        SourceError: no photos were found, or a folder cannot be read.
        AccessError: a photo or a link leads out of `within`.
        EngineError, ModelError: an engine cannot be loaded or built, or a model is unknown or unavailable.
        StorageError, DiskFullError, LockedError: the output cannot be written.
        Interrupted: the control stopped the run; all finished results are on disk.

    Example:
        >>> import facemill
        >>> summary = facemill.process("photos/", "people.h5", model="facemill-512", detector="facemill-det")
        >>> summary.embedded, summary.outcomes
        (12, {'embedded': 12})
    """
    for name, value, kind in (
        ("faces", faces, FaceRules),
        ("limits", limits, Limits),
        ("patterns", patterns, Patterns),
    ):
        if value is not None and not isinstance(value, kind):
            raise ConfigError(f"{name} is {value!r:.100}; expected: {kind.__name__}, such as {kind()}")
    devices = _devices(device)
    backend = "cpu" if engine is None and backend == "auto" and "cpu" in devices else backend
    faces = faces or FaceRules(defaults.ALIGN)
    inputs = _inputs(photos)
    check_name(Path(os.path.realpath(output)))
    refuse_inputs(Path(output), model_files(model, detector, landmarks))
    resumed = resumed_contract(Path(output), inputs, patterns, force=force)
    chosen = choose_engine(engine, model=model, backend=backend, resumed=resumed.model or "")
    if faces.max_fit is None and resumed.detects_faces:
        faces = replace(faces, max_fit=fit_limit_of(resumed))
    finding: dict[str, Any] = {"align": faces.align, "backend": chosen.info.backend}
    request = Request(
        inputs=inputs,
        output=Path(output),
        engine=chosen,
        detector=choose_detector(detector, **finding, resumed=resumed.detector or ""),
        landmarks=choose_landmarks(landmarks, **finding, resumed=landmarks_of(resumed)),
        attributes=_attribute_reader(attributes, resumed, chosen.info),
        faces=faces,
        limits=limits or Limits(),
        patterns=patterns or Patterns(),
        within=tuple(os.fspath(folder) for folder in within),
        limit=limit,
        decoder=decoder,
        dtype=dtype,
        skip_duplicates=skip_duplicates,
        retry=retry,
        force=force,
        mode=mode,
        run=RunOptions(batch_size, workers, devices, segments or SegmentRules(), max_unreadable),
    )
    summary = running.process(request, listener=listener, control=control)
    info = chosen.info
    return replace(summary, model=info.model, model_sha256=info.model_sha256, output=os.fspath(output))


def _attribute_reader(
    attributes: str | Sequence[str] | None, resumed: EmbeddingContract, info: EngineInfo
) -> AttributeReader | None:
    """What reads the attributes that are named, or those of the file that is resumed; None for none."""
    names = resumed.attributes_read if attributes is None else parse_attributes(attributes)
    if not names:
        return None
    if attributes is None and resumed.attribute_source == FROM_EMBEDDINGS:
        return AttributeReader(names, head=find_head(info.model, info.model_sha256))
    return AttributeReader(names, choose_attributes(info.backend))


def parse_attributes(attributes: str | Sequence[str]) -> tuple[str, ...]:
    """The attributes that a caller names, in the order of ATTRIBUTE_FIELDS.

    Raises:
        ConfigError: a name is unknown.
    """
    try:
        return attribute_names(attributes if isinstance(attributes, str) else ",".join(attributes))
    except ValueError as err:
        raise ConfigError(f"attributes: {err}") from err


def _devices(device: str) -> tuple[str, ...]:
    """The device of each process; none for one process on the device of the engine.

    Raises:
        ConfigError: a device is unknown, or is not on this machine.
    """
    if device == "auto":
        return ()
    return choose_gpus(["0" if name.strip() == "gpu" else name for name in device.split(",")])


def _inputs(photos: PathLike | Sequence[PathLike] | Source) -> tuple[str, ...] | Source:
    """Convert paths to text; a source is returned unchanged."""
    if isinstance(photos, (str, os.PathLike, Sequence)):
        return path_list(photos)
    if not hasattr(photos, "with_names"):
        raise ConfigError(f"the photos are a {type(photos).__name__}; expected: paths, or a source like MemorySource")
    return photos


def path_list(paths: PathLike | Sequence[PathLike]) -> tuple[str, ...]:
    """Convert paths to text; a single path becomes a list of one.

    Raises:
        ConfigError: one is no path.
    """
    several = [paths] if isinstance(paths, (str, os.PathLike)) else paths
    for path in several:
        if not isinstance(path, (str, os.PathLike)):
            raise ConfigError(
                f"the photos hold a {type(path).__name__}; expected: paths. Photos in memory need a source, such as "
                f"facemill.MemorySource(photos, names)"
            )
    return tuple(os.fspath(path) for path in several)


def add(
    file: PathLike,
    photos: PathLike | Sequence[PathLike],
    *,
    engine: PathLike | Engine | None = None,
    retry: bool = False,
    patterns: Patterns | None = None,
    within: Sequence[PathLike] = (),
    segments: SegmentRules | None = None,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Added:
    """Embed the photos that a file does not have, and add them to it.

    The photos are embedded with the engine and settings of the file. After a crash the file is unchanged, or has the
    photos; the same call resumes.

    Args:
        file: a finished embedding file.
        photos: folders, files and `@list.txt`, as for `process`.
        engine: an engine file, if the engine that the file names is missing.
        retry: also embed again the photos that failed.
        patterns: names of files and folders to take and to leave out; None for the usual ones.
        within: folders that no photo and no link may lead out of; none for no such limit.
        segments: limits of the segments of the run.
        listener: shows the progress; None logs it.
        control: pauses and stops the run; None for neither.
    Returns:
        The outcomes of the photos, and the size of the file.
    Raises:
        AccessError: a photo or a link leads out of `within`.
        ContractError: the engine's embeddings cannot be stored in the file.
        SourceError: no photos were found, or a folder cannot be read.
        EngineError: an engine cannot be loaded or built.
        StorageError: the file cannot be read or written.
        Interrupted: the control stopped the run; all finished results are on disk.

    Example:
        >>> import facemill
        >>> added = facemill.add("people.h5", "photos/")
        >>> added.added, added.known
        (0, 12)
    """
    given = engine if engine is None or isinstance(engine, Engine) else read_engine(Path(engine))
    return adding.add(
        Path(file),
        path_list(photos),
        engine=given,
        retry=retry,
        patterns=patterns,
        within=[os.fspath(folder) for folder in within],
        rules=segments,
        listener=listener,
        control=control,
    )


def remove(
    file: PathLike,
    names: PathLike | bytes | Sequence[PathLike | bytes],
    *,
    ignore_missing: bool = False,
    keep_pages: bool = False,
    receipt: PathLike | None = None,
    name_paths: bool = False,
    dry_run: bool = False,
    confirm: Callable[[RemovalPlan], bool] = lambda plan: True,
) -> Receipt | None:
    """Erase photos from a file and from everything that was made from it. The photos themselves are not deleted.

    A new file replaces the old one. Indexes, pages, lists and folders that facemill made from it are deleted. After a
    crash the same call completes the removal.

    Args:
        file: a finished embedding file.
        names: photos, and folders of photos, as `/image_paths` names them or absolute.
        ignore_missing: ignore names that are not in the file.
        keep_pages: leave pages, lists and folders that show photos of the file.
        receipt: file for the receipt; None for `FILE.removed-TIME.json`. The key of its digests is beside it, `.key`.
        name_paths: write the removed paths into the receipt; else it holds only their digests.
        dry_run: call `confirm` with the plan and change nothing.
        confirm: called with the plan if a photo is selected; nothing is changed if it returns False.
    Returns:
        The receipt; that of an earlier removal if the names were removed before. None if nothing was removed.
    Raises:
        ConfigError: names are not in the file.
        OutputExistsError: the receipt exists.
        UnfinishedError: the photos are removed from the file, and something made from it could not be deleted. The
            same call goes on.
        StorageError, DiskFullError, LockedError: the file is unchanged.

    Example:
        >>> import facemill
        >>> receipt = facemill.remove("people.h5", "person0/")
        >>> receipt.removed_photographs, receipt.photographs_after
        (3, 9)
    """
    several = [names] if isinstance(names, (str, bytes, os.PathLike)) else names
    asked = [os.fsencode(name) for name in several]
    if not asked and not ignore_missing:
        raise ConfigError("no name was given, and nothing was removed; expected: at least one photo or folder")
    receipt_path = None if receipt is None else Path(receipt)
    with Removal(Path(file)) as removal:
        facts: dict[str, Any] = {}
        if not dry_run:
            facts = removal.finish_earlier(asked, receipt_path, keep_pages=keep_pages)
            if facts:
                logger.info("completed a removal that was interrupted: %s", facts["receipt"])
        plan = removal.find(asked, keep_pages=keep_pages)
        if plan.missing and not ignore_missing:
            earlier = removal.find_earlier(plan, receipt_path)
            if not earlier:
                raise unknown_names(plan)
            logger.info("removed before, on %s: %s", earlier["begun_utc"], earlier["receipt"])
            facts = facts or earlier
        if not plan.is_empty:
            if not confirm(plan) or dry_run:
                return None
            facts = removal.erase(plan, asked, receipt=receipt_path, keep_pages=keep_pages, name_paths=name_paths)
        return Receipt.of(facts) if facts else None
