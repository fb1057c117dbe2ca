"""The last steps of gpu_acceptance.py: whole jobs on the GPU, against the same on the CPU, and their speed."""

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
    both,
    build_detector,
    need,
    run_benchmark,
    run_tests,
    wait_for_photographs,
)

if TYPE_CHECKING:
    from runtime.engines.engine import Engine

REFERENCE = 4000  # photographs that the CPU does too: a seeded sample
AGREE = 0.005  # landmarks of one face, in units of the distance between the eyes: 0.2 pixels of its crop


def _need_pipeline(setting: Setting) -> None:
    need(setting, *([] if setting.rehearse else ["cupy", "nvidia.dali"]))
    wait_for_photographs(setting)


def sample(photos: Path, count: int, folder: Path) -> str:
    """A list of some photographs of a folder, as an input of `process`; the same ones every time."""
    paths = sorted(photos.rglob("*.jpg"))
    chosen = sorted(random.Random(0).sample(paths, min(count, len(paths))))
    listing = folder / "sample.txt"
    listing.write_text("\n".join(map(str, chosen)) + "\n")
    return f"@{listing}"


def end_to_end(setting: Setting) -> Findings:
    """The whole main job, and a sample of it on the CPU: outcomes, and cosines of all rows of the sample."""
    _need_pipeline(setting)
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request, RunOptions
    from runtime.pipeline.run import process

    mine = material.build(setting.model, setting.data, setting.backend)
    reference = material.build(setting.model, setting.data, "cpu", "fp32")
    notes: list[str] = []
    good, lowest = True, 1.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for kind in SIZES:
            photos = setting.photographs(kind)
            outputs = folder / f"{kind}.h5", folder / f"{kind}-cpu.h5"
            done = process(Request((str(photos),), outputs[0], mine, faces=FaceRules("none")))
            chosen = sample(photos, REFERENCE, folder)
            wanted = process(
                Request((chosen,), outputs[1], reference, run=RunOptions(batch_size=32), faces=FaceRules("none"))
            )
            cosines, others = _compare(*outputs)
            lowest = min(lowest, float(cosines.min()))
            good = good and not others and len(cosines) == wanted.outcomes["embedded"]
            notes.append(
                f"{kind}: {done.outcomes}, decoder {_decoder_of(outputs[0])}; of "
                f"{sum(wanted.outcomes.values()):,} that the CPU did too {len(cosines):,} have "
                f"vectors in both and {others} another outcome; cosine min "
                f"{cosines.min():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}, mean {cosines.mean():.6f}; "
                f"{done.images_per_s:,.0f} images/s, CPU {wanted.images_per_s:,.0f}"
            )
            setting.keep({"outcome": "failed", "summary": f"done with {kind} alone", "notes": notes})
    return {
        "outcome": "passed" if good and lowest >= 0.999 else "failed",
        "summary": f"2 x {setting.count:,} photographs, 1 % damaged: smallest cosine {lowest:.5f} (wanted: 0.999)",
        "notes": notes,
    }


def _outcomes(path: Path) -> tuple[dict[str, int], dict[str, int]]:
    """Of a file: every photograph's status, and the row of those that have one."""
    import h5py

    with h5py.File(path) as file:
        statuses = dict(zip(file["outcomes/path"].asstr()[:], file["outcomes/status"][:].tolist(), strict=True))
        rows = {name: row for row, name in enumerate(file["image_paths"].asstr()[:])}
    return statuses, rows


def _compare(whole: Path, part: Path) -> tuple[Any, int]:
    """Cosines of the photographs that have rows in both files, and how many of the part ended otherwise."""
    import h5py

    (statuses, rows), (wanted, some) = _outcomes(whole), _outcomes(part)
    others = sum(statuses.get(name) != status for name, status in wanted.items())
    names = sorted(some.keys() & rows.keys())
    with h5py.File(whole) as a, h5py.File(part) as b:
        mine = a["embeddings"][:][[rows[name] for name in names]]
        reference = b["embeddings"][:][[some[name] for name in names]]
    return np.einsum("nd,nd->n", mine, reference), others


def _decoder_of(path: Path) -> str:
    import h5py

    with h5py.File(path) as file:
        return str(file["metadata"].attrs["decoder"])


def faces(setting: Setting) -> Findings:
    """The main job on portraits, faces found, aligned and embedded on the GPU, against the same job on the CPU."""
    _need_pipeline(setting)
    from runtime.faces.rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    rules = FaceRules("detect")
    with tempfile.TemporaryDirectory() as folder:
        photos = (sample(setting.photographs("portraits"), REFERENCE, Path(folder)),)
        outputs, done = [Path(folder) / "gpu.h5", Path(folder) / "cpu.h5"], []
        for output, backend, precision in zip(outputs, (setting.backend, "cpu"), ("auto", "fp32"), strict=True):
            embeds = material.build(setting.model, setting.data, backend, precision)
            finds = build_detector(setting, backend)
            done.append(process(Request(photos, output, embeds, faces=rules, detector=finds)))
        cosines, off, other = _compare_faces(*outputs)
    agree = off < AGREE
    lowest = float(cosines[agree].min()) if agree.any() else 0.0
    good = other <= 0.001 and lowest >= 0.999 and agree.mean() >= 0.9
    return {
        "outcome": "passed" if good else "failed",
        "summary": f"{len(cosines):,} faces in both, another outcome in {other:.2%} (wanted: 0.1 %); landmarks within "
        f"{AGREE} of the eyes' distance in {agree.mean():.1%} (wanted: 90 %), smallest cosine of those {lowest:.5f} "
        f"(wanted: 0.999)",
        "notes": [
            f"{done[0].outcomes} (CPU: {done[1].outcomes}); {done[0].images_per_s:,.0f} images/s, CPU "
            f"{done[1].images_per_s:,.0f}; by stage {done[0].stages}",
            f"all faces: cosine min {cosines.min():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}, mean "
            f"{cosines.mean():.6f}; landmarks off by {np.median(off):.5f} (median), at most {off.max():.4f}",
        ],
    }


def _compare_faces(one: Path, other: Path) -> tuple[Any, Any, float]:
    """Of photographs with a face in both files the cosines, and how far landmarks are apart, in distances between the
    eyes; and the part of all photographs whose outcome differs."""
    import h5py

    with h5py.File(one) as a, h5py.File(other) as b:
        status = [file["outcomes/status"][:] for file in (a, b)]
        _, *both = np.intersect1d(a["image_paths"][:], b["image_paths"][:], return_indices=True)
        rows = [file["embeddings"][:][which] for file, which in zip((a, b), both, strict=True)]
        points = [file["faces/landmarks"][:][which] for file, which in zip((a, b), both, strict=True)]
        iod = b["faces/iod"][:][both[1]]
    off = np.abs(points[0] - points[1]).max(axis=(1, 2)) / iod
    return np.einsum("nd,nd->n", *rows), off, float((status[0] != status[1]).mean())


def search(setting: Setting) -> Findings:
    """FAISS on the GPU against exact search."""
    need(setting, "faiss")
    import faiss

    if not setting.rehearse and not (hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus()):
        raise SkipStep(f"the installed faiss {faiss.__version__} has no GPU")
    tests = run_tests(setting, "tests/index/test_sources.py", *([] if setting.rehearse else ["-m", "gpu"]))
    setting.keep(tests)
    how = ["--device", "cpu", "--rows", "20000"] if setting.rehearse else []
    measured = run_benchmark(setting, "search_gpu.py", *how)
    if not measured["rows"]:
        return both(tests, {**measured, "outcome": "failed", "summary": "nothing was measured"})
    first = measured["rows"][0]
    fast = setting.rehearse or (float(first["one query ms"]) < 10 and float(first["recall"]) == 1.0)
    summary = (
        f"{first['rows are']}: {float(first['one query ms']):.2f} ms a query (wanted: under 10), recall "
        f"{float(first['recall']):.4f} (wanted: 1)"
    )
    return both(tests, {**measured, "outcome": measured["outcome"] if fast else "failed", "summary": summary})


def benchmark(setting: Setting) -> Findings:
    """The pipeline beside decoding alone and the engine alone; as many rounds as there is time for."""
    _need_pipeline(setting)
    from gpu_faces import measure_faces
    from gpu_throughput import measure

    path = material.build(setting.model, setting.data, setting.backend)
    try:
        finder: Engine | None = build_detector(setting, setting.backend)
        skipped = []
    except SkipStep as err:
        finder, skipped = None, [f"portraits with detection: not measured, {err}"]
    parts: dict[str, dict[str, Any]] = {}
    share = setting.seconds_left / (3 if finder else 2)
    with tempfile.TemporaryDirectory() as folder:
        how: dict[str, Any] = {"rounds": 1 if setting.rehearse else 5, "count": setting.count, "folder": Path(folder)}
        for kind, repeat in (("crops", 1 if setting.rehearse else 5), ("portraits", 1 if setting.rehearse else 2)):

            def keep(found: dict[str, Any], kind: str = kind) -> None:
                parts[kind] = found
                setting.keep(_verdict(setting, parts, [*skipped, "stopped before all was measured"]))

            measure(path, setting.photographs(kind), repeat=repeat, seconds=0.8 * share, keep=keep, **how)
        if finder:
            kind = "portraits with detection"
            found = measure_faces(path, finder, setting.photographs("portraits"), repeat=1, seconds=0.8 * share, **how)
            parts[kind] = found
    return _verdict(setting, parts, skipped)


def _verdict(setting: Setting, parts: dict[str, dict[str, Any]], notes: list[str]) -> Findings:
    """What the rates so far say."""
    lines, good = [], True
    for kind, found in parts.items():
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found["medians"].items())
        idle = "not measured" if found["idle"] is None else f"{found['idle']:.1%}"
        idle = f"; idle when inference binds {idle} (wanted: under 5 %)" if kind == "crops" else ""
        busy = "" if found["busy"] is None else f"; the GPU is busy for {found['busy']:.1%} of the pipeline's time"
        lines.append(
            f"{kind}: {rates} images/s, medians of {len(found['rounds']['whole pipeline'])} rounds; "
            f"{found['of the ceiling']:.3f} of the ceiling (wanted: 0.90), which is {found['binding']}{idle}{busy}; "
            f"{found['settings']}"
        )
        if kind in SIZES:  # with detection one thread decodes, detects and embeds in turn: stated, not judged
            good = good and found["of the ceiling"] >= 0.9
    whole = parts["crops"]["medians"]["whole pipeline"]
    idle = parts["crops"]["idle"]
    good = good and whole >= 20_000 and "portraits" in parts and idle is not None and idle < 0.05
    summary = f"{whole:,.0f} crops/s (wanted: 20,000), {parts['crops']['of the ceiling']:.3f} of the ceiling"
    if portraits := parts.get("portraits"):
        rate = portraits["medians"]["whole pipeline"]
        summary += f"; {rate:,.0f} portraits/s, {portraits['of the ceiling']:.3f} of the ceiling"
    outcome = "passed" if setting.rehearse or good else "failed"
    return {"outcome": outcome, "summary": summary, "notes": [*lines, *notes], "rates": parts}
