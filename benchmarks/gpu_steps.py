"""The steps of gpu_acceptance.py, in their order: each makes its own findings and knows nothing of the others."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import material
import numpy as np
from gpu_throughput import Nowhere

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"crops": (112, 112), "portraits": (300, 400)}
CORRUPT = 0.01
DETECTOR = "yunet"
FACES = 4000  # portraits: the CPU has to look for faces in them too
AGREE = 0.005  # landmarks of one face, in units of the distance between the eyes: 0.2 pixels of its crop


class SkipStep(Exception):
    """What the step needs is not here."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Where the acceptance runs.

    Attributes:
        out: folder for results.
        data: folder for photographs and engines.
        model: registered name.
        rehearse: on the CPU, small: to try the script.
    """

    out: Path
    data: Path
    model: str
    rehearse: bool

    @property
    def count(self) -> int:
        """Photographs of each size."""
        return 200 if self.rehearse else 20_000

    @property
    def backend(self) -> str:
        """What stands for the GPU."""
        return "cpu" if self.rehearse else "tensorrt"

    def photographs(self, kind: str) -> Path:
        """The folder of "crops" or "portraits"; drawn by now or waited for."""
        return material.photographs(self.data, self.count, SIZES[kind], corrupt=CORRUPT)


Findings = dict[str, Any]


def need(setting: Setting, *modules: str) -> None:
    """Skip unless there is a GPU, and these modules."""
    from runtime.engines.device import find_gpu

    missing = [module for module in modules if importlib.util.find_spec(module.partition(".")[0]) is None]
    missing += [m for m in modules if "." in m and m not in missing and not _submodule(m)]
    if missing:
        raise SkipStep(f"not installed: {', '.join(missing)}")
    if find_gpu() is None and not setting.rehearse:
        raise SkipStep("no NVIDIA GPU with a driver")


def _submodule(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def start_drawing(setting: Setting) -> subprocess.Popen[bytes]:
    """Draw the photographs beside the first steps, which need the GPU and few cores."""
    code = (
        "import material, sys; from pathlib import Path\n"
        f"for size in {tuple(SIZES.values())}:\n"
        f"    material.photographs(Path(sys.argv[1]), {setting.count}, size, corrupt={CORRUPT})\n"
    )
    command = [sys.executable, "-c", code, str(setting.data)]
    return subprocess.Popen(command, cwd=ROOT / "benchmarks", stdout=subprocess.DEVNULL, start_new_session=True)


def wait_for_photographs(setting: Setting, seconds: float = 120) -> None:
    """Until both sets are complete.

    Raises:
        SkipStep: they are not, by then.
    """
    end = time.monotonic() + seconds
    while len(list(setting.data.glob(f"portraits-*-{setting.count}-0-{CORRUPT}/.complete"))) < len(SIZES):
        if time.monotonic() > end:
            raise SkipStep(f"the photographs were not drawn in {seconds:.0f} s")
        time.sleep(0.5)


def run_tests(*arguments: str) -> Findings:
    """pytest in a process of its own; failed ones are named."""
    if importlib.util.find_spec("pytest") is None:
        raise SkipStep("not installed: pytest")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", "-rfEs", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT)
    print(done.stdout[-20_000:], done.stderr[-5_000:])
    words = (done.stdout.strip().splitlines() or [done.stderr.strip()[-300:]])[-1].strip("= ")
    bad = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    ran = int((re.findall(r"(\d+) passed", words) or ["0"])[0])
    outcome = "failed" if done.returncode not in (0, 5) or bad else "passed" if ran else "skipped"
    return {"outcome": outcome, "summary": words, "notes": bad[:20]}


def device(setting: Setting) -> Findings:
    """Which GPU, driver and packages; the speed of copies."""
    need(setting)
    from runtime.engines.device import find_gpu

    gpu = find_gpu()
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,memory.free,compute_cap",
        "--format=csv,noheader",
    ]
    try:
        words = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    except OSError as err:
        words = f"nvidia-smi: {err}"
    found: Findings = {
        "outcome": "passed",
        "device": f"{gpu.name} {gpu.compute_capability}" if gpu else "rehearsal",
        "summary": words or "nvidia-smi says nothing",
        "cores": len(os.sched_getaffinity(0)),
    }
    if gpu and importlib.util.find_spec("cupy"):
        found["copies"] = _copies()
        found["summary"] += "; " + ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in found["copies"].items())
    return found


def _copies() -> dict[str, float]:
    """GB/s between page-locked memory and the device."""
    from runtime.cuda.driver import open_driver
    from runtime.cuda.resources import DeviceBuffer, Event, PinnedBuffer, Stream

    nbytes, rates = 1 << 28, {}
    with (
        open_driver() as driver,
        PinnedBuffer(driver, nbytes) as pinned,
        DeviceBuffer(driver, nbytes) as buffer,
        Stream(driver) as stream,
        Event(driver, timing=True) as start,
        Event(driver, timing=True) as stop,
    ):
        host = pinned.view((nbytes,), np.uint8)
        host[:] = np.random.default_rng(0).integers(0, 256, nbytes, dtype=np.uint8)
        for name, copy in (
            ("to the device", lambda: stream.upload(host, buffer)),
            ("from the device", lambda: stream.download(buffer, host)),
        ):
            for _ in range(3):
                stream.record(start)
                copy()
                stream.record(stop)
                stop.synchronize()
            rates[name] = nbytes / stop.seconds_since(start) / 1e9
    return rates


def contract(setting: Setting) -> Findings:
    """Streams, events, buffers and copies, through every driver that is installed."""
    need(setting, "cupy")
    return run_tests(
        "tests/test_cuda_contract.py", "tests/test_cuda_driver.py", "-k", "not align and not l2norm and not preprocess"
    )


def kernels(setting: Setting) -> Findings:
    """Our kernels against what defines them, and their speed."""
    need(setting, "cupy")
    found = run_tests("tests/test_cuda_contract.py", "-k", "align or l2norm or preprocess or kernels")
    if not setting.rehearse and found["outcome"] == "passed":
        command = [sys.executable, "benchmarks/gpu_kernels.py", "--data", str(setting.data), "--out", str(setting.out)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT, timeout=60)
        print(done.stdout[-5_000:], done.stderr[-5_000:])
        lines = [line for line in done.stdout.splitlines() if line.startswith("| ") and "what" not in line]
        found["notes"] += lines if done.returncode == 0 else [f"gpu_kernels.py: {done.stderr.strip()[-300:]}"]
    return found


class Kept(Nowhere):
    """DALI's crops, copied to the host; those of the CPU decoder are dropped."""

    def __init__(self, taken: list[Any]) -> None:
        self._taken = taken

    def put_run(self, place: int, crops: Any) -> None:
        self._taken.append(crops.as_cpu().as_array().copy())


def dali(setting: Setting) -> Findings:
    """DALI on the GPU against `decode_image`, crop by crop."""
    need(setting, "nvidia.dali", *([] if setting.rehearse else ["cupy"]))
    from runtime.images.decode import decode_image
    from runtime.images.decode_dali import DaliDecoder

    wait_for_photographs(setting)
    found = run_tests("tests/test_images_decode_dali.py", "-m", "gpu" if not setting.rehearse else "not gpu")
    differences = {}
    for kind in SIZES:
        files = [path.read_bytes() for path in sorted(setting.photographs(kind).rglob("*.jpg"))[1:400]]
        files = [data for data in files if data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"]
        taken: list[Any] = []
        with DaliDecoder(112, device="cpu" if setting.rehearse else "mixed") as decoder:
            placed = decoder.decode(files, Kept(taken))
        mine = np.concatenate(taken).astype(int)
        wanted = np.stack([decode_image(files[i], size=112) for i in placed.indices[: len(mine)]]).astype(int)
        differences[kind] = float(np.abs(mine - wanted).mean())
    differences |= _photographs(setting)
    worst = max(differences.values())
    words = ", ".join(f"{kind} {value:.2f}" for kind, value in differences.items())
    outcome = found["outcome"] if worst < 2 else "failed"
    return {
        **found,
        "outcome": outcome,
        "summary": f"{found['summary']}; mean difference to OpenCV in grey levels (wanted: under 2): {words}",
        "differences": differences,
    }


def _photographs(setting: Setting) -> dict[str, float]:
    """Whole photographs and their views from DALI, against `decode_photo` and `draw`: mean differences, grey levels."""
    from runtime.images.decode import decode_photo
    from runtime.images.finder import View, draw
    from runtime.images.photos_dali import DaliPhotos

    paths = sorted(setting.photographs("portraits").rglob("*.jpg"))[1:200]
    files = [data for data in (path.read_bytes() for path in paths) if data[-2:] == b"\xff\xd9"]
    photos, views = [], []
    with DaliPhotos((160,), 640, device="cpu" if setting.rehearse else "mixed") as decoder:
        for run in decoder.decode(files):
            held, canvases = run.held.as_cpu(), np.array(run.canvases[0].held[1].as_cpu())
            for place, (i, canvas) in enumerate(zip(run.indices, canvases, strict=True)):
                wanted, drawn = decode_photo(files[i], long_side=640).pixels, np.zeros_like(canvas)
                draw(wanted, View(160), drawn)
                photos.append(np.abs(np.array(held[place]).astype(int) - wanted).mean())
                views.append(np.abs(canvas.astype(int) - drawn).mean())
    return {"photographs": float(np.mean(photos)), "views": float(np.mean(views))}


def build_detector(setting: Setting, backend: str) -> Path:
    """The detector's engine.

    Raises:
        SkipStep: its model is neither here nor to be fetched.
    """
    from runtime.errors import FetchError, ModelUnavailableError

    try:
        return material.build(DETECTOR, setting.data, backend)
    except (FetchError, ModelUnavailableError) as err:
        raise SkipStep(f"{DETECTOR} is not here: {err}".splitlines()[0]) from err


def detector(setting: Setting) -> Findings:
    """The detector's engine: built, loaded, and its answers to views of portraits against ONNX Runtime's."""
    need(setting, *([] if setting.rehearse else ["cupy"]))
    if not (setting.rehearse or importlib.util.find_spec("tensorrt") or importlib.util.find_spec("tensorrt_rtx")):
        raise SkipStep("not installed: tensorrt, tensorrt_rtx")
    from runtime.engines.open import open_runner
    from runtime.engines.parity import weighted
    from runtime.engines.sidecar import read_sidecar
    from runtime.images.decode import decode_photo
    from runtime.images.finder import FindRules, View, draw, read_answer

    wait_for_photographs(setting)
    engines = [build_detector(setting, backend) for backend in (setting.backend, "cpu")]
    info = read_sidecar(engines[0])
    paths = sorted(setting.photographs("portraits").rglob("*.jpg"))[1:40]
    files = [data for data in (path.read_bytes() for path in paths) if data[-2:] == b"\xff\xd9"][:32]
    notes, cosines = [], []
    with open_runner(engines[0]) as mine, open_runner(engines[1]) as reference:
        for side in (160, 224, 448):
            canvases = np.zeros((len(files), side, side, 3), np.uint8)
            for data, canvas in zip(files, canvases, strict=True):
                pixels = decode_photo(data, long_side=640, channel_order=info.channel_order).pixels
                draw(pixels, View(side), canvas)
            raw = [runner.infer(canvases) for runner in (mine, reference)]
            a, b = (weighted(answer.astype(np.float64)) for answer in raw)
            cosine = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
            cosines.append(float(cosine.min()))
            found = [sum(map(len, read_answer(one, info.detector, FindRules(), side, side))) for one in raw]
            notes.append(f"views of {side}: smallest cosine {cosine.min():.6f}; {found[0]} faces, CPU {found[1]}")
    return {
        "outcome": "passed" if min(cosines) >= 0.999 else "failed",
        "summary": f"{engines[0].name}: smallest cosine to ONNX Runtime's answers {min(cosines):.5f} (wanted: 0.999); "
        f"{info.precision}, {info.backend_version}",
        "notes": notes,
    }


def engine(setting: Setting) -> Findings:
    """Build, load, types and parity, at every precision."""
    need(setting, *([] if setting.rehearse else ["cupy"]))
    if not (setting.rehearse or importlib.util.find_spec("tensorrt") or importlib.util.find_spec("tensorrt_rtx")):
        raise SkipStep("not installed: tensorrt, tensorrt_rtx")
    from runtime.engines.sidecar import read_sidecar
    from runtime.errors import FacemillError

    notes, built, trouble = [], {}, False
    for precision in ("fp32",) if setting.rehearse else ("fp16", "fp32"):
        began = time.perf_counter()
        try:
            path = material.build(setting.model, setting.data, setting.backend, precision)
        except FacemillError as err:
            notes.append(f"{precision}: {type(err).__name__}: {err}")
            trouble = trouble or precision == "fp16"  # fp32 is refused on Turing, and no more than that
            continue
        info = read_sidecar(path)
        built[precision] = {
            "file": path.name,
            "megabytes": round(path.stat().st_size / 1e6, 2),
            "parity_mean": info.parity_mean,
            "parity_min": info.parity_min,
            "context_megabytes": round(info.context_bytes / 1e6, 1),
            "backend_version": info.backend_version,
            "device": info.device,
            "seconds": round(time.perf_counter() - began, 1),
        }
        notes.append(f"{precision}: {built[precision]}")
    main = built.get("fp16") or built.get("fp32")
    if main is None:
        return {"outcome": "failed", "summary": "no engine was built: see the notes", "notes": notes}
    enough = setting.rehearse or main["parity_mean"] >= 0.9995
    return {
        "outcome": "passed" if enough and not trouble else "failed",
        "summary": f"{main['file']}: cosine to FP32 mean {main['parity_mean']:.6f} (wanted: 0.9995), min "
        f"{main['parity_min']:.6f}; {main['backend_version']} for {main['device']}",
        "notes": notes,
        "built": built,
    }


def runner(setting: Setting) -> Findings:
    """What every runner has to do, on the TensorRT one."""
    need(setting, *([] if setting.rehearse else ["cupy"]))
    tests = ["tests/test_engines_slot.py", "tests/test_engines_runners.py", "tests/test_engines_tensorrt.py"]
    return run_tests(*tests, *([] if setting.rehearse else ["-m", "gpu"]))


def end_to_end(setting: Setting) -> Findings:
    """The whole main job against the same job on the CPU: outcomes, and cosines of all rows."""
    need(setting, *([] if setting.rehearse else ["cupy", "nvidia.dali"]))
    import h5py

    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    wait_for_photographs(setting)
    mine = material.build(setting.model, setting.data, setting.backend)
    reference = material.build(setting.model, setting.data, "cpu", "fp32")
    notes, good, lowest = [], True, 1.0
    with tempfile.TemporaryDirectory() as folder:
        for kind in SIZES:
            photos = (str(setting.photographs(kind)),)
            outputs = Path(folder) / f"{kind}.h5", Path(folder) / f"{kind}-cpu.h5"
            done = process(Request(photos, outputs[0], mine))
            wanted = process(Request(photos, outputs[1], reference))
            with h5py.File(outputs[0]) as a, h5py.File(outputs[1]) as b:
                same = (a["outcomes/status"][:] == b["outcomes/status"][:]).all()
                same = same and (a["image_paths"][:] == b["image_paths"][:]).all()
                cosines = np.einsum("nd,nd->n", a["embeddings"][:], b["embeddings"][:]) if same else np.zeros(1)
                decoder = a["metadata"].attrs["decoder"]
            lowest = min(lowest, float(cosines.min()))
            good = good and bool(same) and cosines.min() >= 0.999
            notes.append(
                f"{kind}: {done.outcomes} (CPU: {wanted.outcomes}), decoder {decoder}; cosine to the CPU's rows: min "
                f"{cosines.min():.5f}, 1st percentile {np.percentile(cosines, 1):.5f}, mean {cosines.mean():.6f}; "
                f"{done.images_per_s:,.0f} images/s, CPU {wanted.images_per_s:,.0f}"
            )
    summary = f"2 x {setting.count:,} photographs, 1 % damaged: smallest cosine {lowest:.5f} (wanted: 0.999)"
    return {"outcome": "passed" if good else "failed", "summary": summary, "notes": notes}


def faces(setting: Setting) -> Findings:
    """The main job on portraits, faces found, aligned and embedded on the GPU, against the same job on the CPU."""
    need(setting, *([] if setting.rehearse else ["cupy", "nvidia.dali"]))
    from runtime.pipeline.face_rules import FaceRules
    from runtime.pipeline.request import Request
    from runtime.pipeline.run import process

    wait_for_photographs(setting)
    photos, rules = (str(setting.photographs("portraits")),), FaceRules("detect")
    with tempfile.TemporaryDirectory() as folder:
        outputs, done = [Path(folder) / "gpu.h5", Path(folder) / "cpu.h5"], []
        for output, backend, precision in zip(outputs, (setting.backend, "cpu"), ("auto", "fp32"), strict=True):
            embeds = material.build(setting.model, setting.data, backend, precision)
            finds = build_detector(setting, backend)
            done.append(process(Request(photos, output, embeds, faces=rules, detector=finds, limit=FACES)))
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
    found = run_tests("tests/test_index_sources.py", *([] if setting.rehearse else ["-m", "gpu"]))
    command = [sys.executable, "benchmarks/search_gpu.py", "--out", str(setting.out)]
    command += ["--device", "cpu", "--rows", "20000"] if setting.rehearse else []
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", cwd=ROOT, timeout=150)
    print(done.stdout[-5_000:], done.stderr[-5_000:])
    lines = [line for line in done.stdout.splitlines() if line.startswith("| ")][1:]
    if done.returncode:
        return {**found, "outcome": "failed", "notes": [*found["notes"], done.stderr.strip()[-500:]]}
    return {
        **found,
        "summary": f"{found['summary']}; see the notes for 5,000,000 x 512",
        "notes": [*found["notes"], *lines],
    }


def benchmark(setting: Setting) -> Findings:
    """The pipeline beside decoding alone and the engine alone."""
    need(setting, *([] if setting.rehearse else ["cupy", "nvidia.dali"]))
    from gpu_throughput import measure

    wait_for_photographs(setting)
    path = material.build(setting.model, setting.data, setting.backend)
    notes, details, good = [], {}, True
    for kind, repeat in (("crops", 5), ("portraits", 2)):
        with tempfile.TemporaryDirectory() as folder:
            found = measure(
                path,
                setting.photographs(kind),
                count=setting.count,
                repeat=1 if setting.rehearse else repeat,
                rounds=1 if setting.rehearse else 5,
                folder=Path(folder),
            )
        details[kind] = found
        rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found["medians"].items())
        idle = (
            ""
            if found["idle"] is None
            else f"; idle when inference binds {100 * found['idle']:.1f} % (wanted: under 5)"
        )
        notes.append(
            f"{kind}: {rates} images/s; {found['of the ceiling']:.3f} of the ceiling (wanted: 0.90), which is "
            f"{found['binding']}{idle}; {found['settings']}"
        )
        good = good and found["of the ceiling"] >= 0.9
    notes.append(_faces_rates(setting, path, details))
    whole = details["crops"]["medians"]["whole pipeline"]
    good = setting.rehearse or (good and whole >= 20_000)
    return {
        "outcome": "passed" if good else "failed",
        "summary": f"{whole:,.0f} crops/s (wanted: 20,000), {details['crops']['of the ceiling']:.3f} of the ceiling; "
        f"{details['portraits']['medians']['whole pipeline']:,.0f} portraits/s, "
        f"{details['portraits']['of the ceiling']:.3f} of the ceiling",
        "notes": notes,
        "rates": details,
    }


def _faces_rates(setting: Setting, engine: Path, details: dict[str, Any]) -> str:
    """Portraits with detection, beside their parts; added to the details."""
    from gpu_faces import measure_faces

    try:
        finder = build_detector(setting, setting.backend)
    except SkipStep as err:
        return f"portraits with detection: not measured, {err}"
    with tempfile.TemporaryDirectory() as folder:
        how = {"count": setting.count, "repeat": 1, "rounds": 1 if setting.rehearse else 2, "folder": Path(folder)}
        found = measure_faces(engine, finder, setting.photographs("portraits"), **how)
    details["portraits with detection"] = found
    rates = ", ".join(f"{name} {rate:,.0f}" for name, rate in found["medians"].items())
    return (
        f"portraits with detection: {rates} images/s; {found['of the ceiling']:.3f} of the ceiling, which is "
        f"{found['binding']}; {found['settings']}"
    )


@dataclass(frozen=True, slots=True)
class Step:
    """What to do, and how long it may take, seconds."""

    work: Callable[[Setting], Findings]
    limit_s: float


STEPS: dict[str, Step] = {
    "device": Step(device, 30),
    "contract": Step(contract, 45),
    "kernels": Step(kernels, 90),
    "dali": Step(dali, 90),
    "engine": Step(engine, 90),
    "runner": Step(runner, 60),
    "detector": Step(detector, 60),
    "end-to-end": Step(end_to_end, 120),
    "faces": Step(faces, 90),
    "search": Step(search, 160),
    "benchmark": Step(benchmark, 190),
}
