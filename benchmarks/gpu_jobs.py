"""The last steps of gpu_acceptance.py: compare whole jobs on the GPU with the same on the CPU, and measure speed."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import material
import numpy as np
from gpu_setting import (
    SIZES,
    Findings,
    Setting,
    SkipStep,
    build_detector,
    combine,
    require,
    run_benchmark,
    run_tests,
    wait_for_photos,
)

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

REFERENCE = 4000  # photos that the CPU processes too: a seeded sample
MAX_LANDMARK_GAP = 0.005  # divided by the distance between the eyes: 0.2 pixels of a crop


def _require_pipeline(setting: Setting) -> None:
    require(setting, *([] if setting.rehearse else ["cupy", "nvidia.dali"]))
    wait_for_photos(setting)


def sample_photos(photos: Path, count: int, folder: Path) -> str:
    """Write a list of a seeded sample of a folder's photos; returns it as an input of `process`."""
    paths = sorted(photos.rglob("*.jpg"))
    chosen = sorted(random.Random(0).sample(paths, min(count, len(paths))))
    listing = folder / "sample.txt"
    listing.write_text("\n".join(map(str, chosen)) + "\n")
    return f"@{listing}"


def end_to_end(setting: Setting) -> Findings:
    """Run the main job on the GPU and a sample of it on the CPU; compare outcomes and rows of the sample."""
    _require_pipeline(setting)
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request, RunOptions
    from runtime.pipeline.run import process

    ours = material.build(setting.model, setting.data, setting.backend)
    reference = material.build(setting.model, setting.data, "cpu", "fp32")
    notes: list[str] = []
    good, lowest = True, 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in SIZES:
            photos = setting.photo_folder(kind)
            outputs = folder / f"{kind}.h5", folder / f"{kind}-cpu.h5"
            result = process(Request((str(photos),), outputs[0], ours, faces=FaceRules("none")))
            chosen = sample_photos(photos, REFERENCE, folder)
            expected = process(
                Request((chosen,), outputs[1], reference, run=RunOptions(batch_size=32), faces=FaceRules("none"))
            )
            cosines, differing = _compare(*outputs)
            lowest = min(lowest, float(cosines.min()))
            good = good and not differing and len(cosines) == expected.outcomes["embedded"]
            notes.append(
                f"{kind}: {result.outcomes}, decoder {_decoder_of(outputs[0])}; of "
                f"{sum(expected.outcomes.values()):,} photos processed by the CPU too, {len(cosines):,} have "
                f"vectors in both files and {differing} have different outcomes; cosine min "
                f"{cosines.min():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}, mean {cosines.mean():.6f}; "
                f"{result.images_per_s:,.0f} images/s, CPU {expected.images_per_s:,.0f}"
            )
            setting.save_findings({"outcome": "failed", "summary": f"only {kind} were measured", "notes": notes})
    return {
        "outcome": "passed" if good and lowest >= 0.999 else "failed",
        "summary": f"2 x {setting.count:,} photos, 1 % damaged: smallest cosine {lowest:.5f} (expected: 0.999)",
        "notes": notes,
    }


def _outcomes(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Status of every photo of a file, and row of every photo that has one."""
    import h5py

    with h5py.File(path) as file:
        statuses = dict(zip(file["outcomes/path"].asstr()[:], file["outcomes/status"][:].tolist(), strict=True))
        rows = {name: row for row, name in enumerate(file["image_paths"].asstr()[:])}
    return statuses, rows


def _compare(full_file: Path, partial_file: Path) -> tuple[Any, int]:
    """Cosines of the photos with rows in both files, and how many photos of `partial_file` have a different outcome."""
    import h5py

    (statuses, rows), (expected, reference_rows) = _outcomes(full_file), _outcomes(partial_file)
    differing = sum(statuses.get(name) != status for name, status in expected.items())
    names = sorted(reference_rows.keys() & rows.keys())
    with h5py.File(full_file) as a, h5py.File(partial_file) as b:
        ours = a["embeddings"][:][[rows[name] for name in names]]
        reference = b["embeddings"][:][[reference_rows[name] for name in names]]
    return np.einsum("nd,nd->n", ours, reference), differing


def _decoder_of(path: Path) -> str:
    import h5py

    with h5py.File(path) as file:
        return str(file["metadata"].attrs["decoder"])


def faces(setting: Setting) -> Findings:
    """Detect, align and embed portraits on the GPU, and compare with the same job on the CPU."""
    _require_pipeline(setting)
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    rules = FaceRules("detect")
    with tempfile.TemporaryDirectory() as folder:
        photos = (sample_photos(setting.photo_folder("portraits"), REFERENCE, Path(folder)),)
        outputs, results = [Path(folder) / "gpu.h5", Path(folder) / "cpu.h5"], []
        for output, backend, precision in zip(outputs, (setting.backend, "cpu"), ("auto", "fp32"), strict=True):
            embedding_engine = material.build(setting.model, setting.data, backend, precision)
            detector_engine = build_detector(setting, backend)
            results.append(process(Request(photos, output, embedding_engine, faces=rules, detector=detector_engine)))
        cosines, gaps, differing = _compare_faces(*outputs)
    agree = gaps < MAX_LANDMARK_GAP
    lowest = float(cosines[agree].min()) if agree.any() else 0.0
    good = differing <= 0.001 and lowest >= 0.999 and agree.mean() >= 0.9
    return {
        "outcome": "passed" if good else "failed",
        "summary": f"{len(cosines):,} faces in both, different outcomes {differing:.2%} (expected: 0.1 %); "
        f"landmarks within {MAX_LANDMARK_GAP} of the eyes' distance {agree.mean():.1%} (expected: 90 %), their "
        f"smallest cosine {lowest:.5f} (expected: 0.999)",
        "notes": [
            f"{results[0].outcomes} (CPU: {results[1].outcomes}); {results[0].images_per_s:,.0f} images/s, CPU "
            f"{results[1].images_per_s:,.0f}; by stage {results[0].stages}",
            f"all faces: cosine min {cosines.min():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}, mean "
            f"{cosines.mean():.6f}; landmarks off by {np.median(gaps):.5f} (median), at most {gaps.max():.4f}",
        ],
    }


def _compare_faces(first: Path, second: Path) -> tuple[Any, Any, float]:
    """Compare photos with a face in both files.

    Returns:
        The cosines; the landmarks' largest differences, divided by the distance between the eyes; and the share of all
        photos whose outcome differs.
    """
    import h5py

    with h5py.File(first) as a, h5py.File(second) as b:
        status = [file["outcomes/status"][:] for file in (a, b)]
        _, *common = np.intersect1d(a["image_paths"][:], b["image_paths"][:], return_indices=True)
        rows = [file["embeddings"][:][index] for file, index in zip((a, b), common, strict=True)]
        points = [file["faces/landmarks"][:][index] for file, index in zip((a, b), common, strict=True)]
        iod = b["faces/iod"][:][common[1]]
    gaps = np.abs(points[0] - points[1]).max(axis=(1, 2)) / iod
    return np.einsum("nd,nd->n", *rows), gaps, float((status[0] != status[1]).mean())


def search(setting: Setting) -> Findings:
    """Compare FAISS on the GPU with exact search."""
    require(setting, "faiss")
    import faiss

    if not setting.rehearse and not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        raise SkipStep(f"the installed faiss {faiss.__version__} does not support a GPU")
    tests = run_tests(setting, "tests/index/test_sources.py", *([] if setting.rehearse else ["-m", "gpu"]))
    setting.save_findings(tests)
    options = ["--device", "cpu", "--rows", "20000"] if setting.rehearse else []
    measured = run_benchmark(setting, "search_gpu.py", *options)
    if not measured["rows"]:
        return combine(tests, {**measured, "outcome": "failed", "summary": "nothing was measured"})
    first = measured["rows"][0]
    fast = setting.rehearse or (float(first["one query ms"]) < 10 and float(first["recall"]) == 1.0)
    summary = (
        f"{first['rows are']}: {float(first['one query ms']):.2f} ms per query (expected: under 10), recall "
        f"{float(first['recall']):.4f} (expected: 1)"
    )
    return combine(tests, {**measured, "outcome": measured["outcome"] if fast else "failed", "summary": summary})


def benchmark(setting: Setting) -> Findings:
    """Compare the pipeline with decoding alone and the engine alone, in as many rounds as time allows."""
    _require_pipeline(setting)
    from gpu_faces import measure_faces
    from gpu_throughput import measure

    path = material.build(setting.model, setting.data, setting.backend)
    try:
        detector: Engine | None = build_detector(setting, setting.backend)
        skipped = []
    except SkipStep as err:
        detector, skipped = None, [f"portraits with detection: not measured, {err}"]
    parts: dict[str, dict[str, Any]] = {}
    share = setting.seconds_left / (3 if detector else 2)
    with tempfile.TemporaryDirectory() as folder:
        options: dict[str, Any] = {
            "rounds": 1 if setting.rehearse else 5,
            "count": setting.count,
            "folder": Path(folder),
        }
        for kind, repeat in (("crops", 1 if setting.rehearse else 5), ("portraits", 1 if setting.rehearse else 2)):

            def keep(figures: dict[str, Any], kind: str = kind) -> None:
                parts[kind] = figures
                setting.save_findings(_judge(setting, parts, [*skipped, "stopped before the last measurement"]))

            measure(path, setting.photo_folder(kind), repeat=repeat, seconds=0.8 * share, keep=keep, **options)
        if detector:
            kind = "portraits with detection"
            figures = measure_faces(
                path, detector, setting.photo_folder("portraits"), repeat=1, seconds=0.8 * share, **options
            )
            parts[kind] = figures
    return _judge(setting, parts, skipped)


def _judge(setting: Setting, parts: dict[str, dict[str, Any]], notes: list[str]) -> Findings:
    """Judge the rates measured so far."""
    lines, good = [], True
    for kind, figures in parts.items():
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in figures["medians"].items())
        idle = "not measured" if figures["idle"] is None else f"{figures['idle']:.1%}"
        idle = f"; idle when inference is the bottleneck {idle} (expected: under 5 %)" if kind == "crops" else ""
        busy = "" if figures["busy"] is None else f"; the GPU is busy for {figures['busy']:.1%} of the pipeline's time"
        lines.append(
            f"{kind}: {rates} images/s, medians of {len(figures['rounds']['whole pipeline'])} rounds; "
            f"{figures['of the ceiling']:.3f} of the ceiling (expected: 0.90), which is "
            f"{figures['binding']}{idle}{busy}; {figures['settings']}"
        )
        if kind in SIZES:  # not judged with detection, where one thread decodes, detects and embeds in turn
            good = good and figures["of the ceiling"] >= 0.9
    crops_per_s = parts["crops"]["medians"]["whole pipeline"]
    idle = parts["crops"]["idle"]
    good = good and crops_per_s >= 20_000 and "portraits" in parts and idle is not None and idle < 0.05
    summary = f"{crops_per_s:,.0f} crops/s (expected: 20,000), {parts['crops']['of the ceiling']:.3f} of the ceiling"
    if portraits := parts.get("portraits"):
        rate = portraits["medians"]["whole pipeline"]
        summary += f"; {rate:,.0f} portraits/s, {portraits['of the ceiling']:.3f} of the ceiling"
    outcome = "passed" if setting.rehearse or good else "failed"
    return {"outcome": outcome, "summary": summary, "notes": [*lines, *notes], "rates": parts}
