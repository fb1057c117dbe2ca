"""Evaluate engines and detectors on a folder of known people."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import defaults
from ..engines.choose import choose_detector, choose_engine, choose_landmarks, is_file_name, licence_of
from ..engines.engine import Engine, read_engine
from ..errors import Interrupted, OptionError
from ..evaluation.attach import attach_calibration, calibration_of, check_file
from ..evaluation.attributes import AttributeReport, measure_attributes, read_known
from ..evaluation.compare import compare_evaluations
from ..evaluation.detectors import figures_of
from ..evaluation.embedded import check_folder
from ..evaluation.evaluate import Evaluation
from ..evaluation.evaluate import evaluate as measure
from ..evaluation.report import Report, check_report_folder, labels_of, write_report
from ..faces.rules import FaceRules
from ..interrupt import Control
from ..metrics.pairs import read_pairs
from ..pairs.checkpoint import checkpoint_plan_path
from ..pipeline.contract import fit_limit_of, landmarks_of
from ..pipeline.plan import resumed_contract
from ..pipeline.request import Request
from ..progress import Listener
from ..records import ATTRIBUTE_FIELDS
from ..storage.contract import EmbeddingContract
from ..storage.file import EmbeddingFile
from ..storage.runfolder import utc_now
from .jobs import process


def evaluate(
    folder: Path,
    *,
    pairs: Path | None = None,
    engine: Path | None = None,
    model: str | None = None,
    backend: str = "auto",
    compare: tuple[Path, Path] | None = None,
    detector: str | None = None,
    detectors: Sequence[str] = (),
    landmarks: str | None = None,
    faces: FaceRules | None = None,
    output: Path | None = None,
    gallery: int | None = None,
    calibrate: Path | None = None,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> Report:
    """Embed the photos of known people, and measure how well they are recognised.

    Args:
        folder: a folder with one sub-folder per person.
        pairs: pairs to judge, in the format of LFW's pairs.txt; None for none.
        engine, model, backend, detector, landmarks, faces: as for `process`.
        compare: two engine files to compare with each other, instead of one engine.
        detectors: several detectors to compare with each other, instead of one.
        output: folder for the report and the embeddings; None for neither.
        gallery: number of photos in a gallery to report thresholds for; None for none.
        calibrate: write the impostor scores into this embedding file; None for none.
        force: embed again, and replace the files in the report folder.
        listener: shows the progress; None logs it.
        control: pauses and stops the run; None for neither.
    Returns:
        The figures.
    Raises:
        OptionError: options exclude each other.
        ConfigError: there is nothing to measure.
        ContractError: the embeddings say nothing of the file to calibrate.
        FacemillError: see `process`.
    """
    if detectors and (compare or calibrate):
        raise OptionError("detectors are compared; expected: neither engines to compare nor a file to calibrate")
    judged = None if pairs is None else read_pairs(pairs)
    check_folder(folder, judged)
    if output is not None:
        check_report_folder(output, folder, force=force, inputs=[] if pairs is None else [pairs])
    faces = faces or FaceRules(defaults.ALIGN)
    kept = calibrate or (output and output / ("embeddings-1.h5" if compare else "embeddings.h5"))
    resumed = (
        resumed_contract(kept, (str(folder),), force=force and calibrate is None)
        if kept and not detectors
        else EmbeddingContract()
    )
    engines: tuple[Engine, ...] = tuple(map(read_engine, compare or ()))
    engines = engines or (choose_engine(engine, model=model, backend=backend, resumed=resumed.model or ""),)
    names: list[str | None] = [*detectors] or [detector]
    backend, resumed_detector = engines[0].info.backend, resumed.detector or ""
    finders = [choose_detector(name, align=faces.align, backend=backend, resumed=resumed_detector) for name in names]
    look = choose_landmarks(landmarks, align=faces.align, backend=backend, resumed=landmarks_of(resumed))
    if faces.max_fit is None and resumed.detects_faces:
        faces = replace(faces, max_fit=fit_limit_of(resumed))
    count = max(len(engines), len(finders))
    engines, finders = (engines * count)[:count], (finders * count)[:count]
    with ExitStack() as stack:
        place = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facemill-evaluate-")))
        suffixes = [_suffix_of(name) for name in detectors] or (["-1", "-2"] if compare else [""])
        requests = [
            Request(
                (str(folder),),
                place / f"embeddings{suffix}.h5",
                engine_of_run,
                force=force,
                faces=faces,
                detector=detecting,
                landmarks=look,
            )
            for suffix, engine_of_run, detecting in zip(suffixes, engines, finders, strict=True)
        ]
        if calibrate is not None:
            check_file(calibrate, requests[0])
        try:
            evaluations: tuple[Evaluation, ...] = tuple(
                measure(request, judged, listener=listener, control=control) for request in requests
            )
        except Interrupted as err:
            if output is not None:
                raise
            raise Interrupted("stopped; what was embedded is not kept without -o REPORT_FOLDER", err.signum) from err
        measured = zip(detectors, evaluations, strict=bool(detectors))
        report = Report(
            folder=str(folder),
            pairs=str(pairs or ""),
            labels=tuple(detectors) or labels_of([engine_of_run.path for engine_of_run in engines]),
            evaluations=evaluations,
            gallery=gallery,
            comparison=compare_evaluations(*evaluations) if compare else None,
            made_utc=utc_now(),
            detectors=tuple(figures_of(name, licence_of(name), evaluation) for name, evaluation in measured),
        )
    if output is not None:
        write_report(output, report)
    if calibrate is not None:
        attach_calibration(
            calibrate, calibration_of(evaluations[0], folder, report.made_utc), checkpoint_plan_path(calibrate)
        )
    return report


def evaluate_attributes(
    folder: Path,
    labels: Path,
    *,
    engine: Path | None = None,
    model: str | None = None,
    backend: str = "auto",
    detector: str | None = None,
    faces: FaceRules | None = None,
    output: Path | None = None,
    force: bool = False,
    listener: Listener | None = None,
    control: Control | None = None,
) -> AttributeReport:
    """Read the ages and genders of the photos in a folder, and compare them with known ones.

    Args:
        folder: the photos.
        labels: CSV with the columns path (below the folder), age and gender; see `evaluation.attributes.read_known`.
        engine, model, backend, detector, faces: as for `process`.
        output: folder for the embeddings, `attributes.h5`; None to keep none.
        force: read the photos again.
        listener: shows the progress; None logs it.
        control: pauses and stops the run; None for neither.
    Returns:
        The errors, over all photos and by age, gender and group.
    Raises:
        ConfigError: the labels cannot be used, or name no photo of the folder.
        FacemillError: see `process`.
    """
    known = read_known(labels)
    if output is not None:
        check_report_folder(output, folder, force=force, inputs=[labels])
    options: dict[str, Any] = {"engine": engine, "model": model, "backend": backend, "detector": detector}
    options |= {"faces": faces, "force": force, "listener": listener, "control": control}
    with ExitStack() as stack:
        place = output or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="facemill-evaluate-")))
        file = place / "attributes.h5"
        process(folder, file, attributes=tuple(ATTRIBUTE_FIELDS), **options)
        with EmbeddingFile(file) as gallery:
            return measure_attributes(gallery, known, str(folder), str(labels))


def _suffix_of(detector: str) -> str:
    """The suffix that identifies a detector's embedding file, independent of the order and number of detectors."""
    if not is_file_name(detector):
        return f"-{detector}"
    digest = hashlib.sha256(os.fsencode(os.path.abspath(detector))).hexdigest()[
        :8
    ]  # different files may have the same name
    return f"-{Path(detector).stem}-{digest}"
