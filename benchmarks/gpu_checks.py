"""The first steps of gpu_acceptance.py: check each part of the GPU path alone against its reference."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any

import material
import numpy as np
from gpu_setting import (
    Findings,
    Setting,
    build_detector,
    combine,
    is_installed,
    require,
    require_tensorrt,
    run_benchmark,
    run_tests,
    wait_for_photos,
)
from gpu_throughput import DiscardedCrops

_KERNELS = "align or preprocess or kernels"


def device(setting: Setting) -> Findings:
    """Report the GPU, the driver and the packages, and measure the speed of copies."""
    require(setting)
    from runtime.cuda.device import find_gpu

    gpu = find_gpu()
    query = [
        "nvidia-smi",
        "--query-gpu=name,driver_version,memory.total,memory.free,compute_cap",
        "--format=csv,noheader",
    ]
    try:
        text = subprocess.run(query, capture_output=True, text=True, timeout=30).stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as err:
        text = f"nvidia-smi: {err}"
    findings: Findings = {
        "outcome": "passed",
        "device": f"{gpu.name} {gpu.compute_capability}" if gpu else "rehearsal",
        "summary": text or "nvidia-smi printed nothing",
        "cores": len(os.sched_getaffinity(0)),
    }
    if gpu and is_installed("cupy"):
        findings["copies"] = _measure_copies()
        findings["summary"] += "; " + ", ".join(f"{name} {rate:.1f} GB/s" for name, rate in findings["copies"].items())
    return findings


def _measure_copies() -> dict[str, float]:
    """Measure copies between page-locked memory and the device, in GB/s."""
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
    """Test streams, events, buffers and copies with every installed driver."""
    require(setting, "cupy")
    tests = ["tests/cuda/test_contract.py", "tests/cuda/test_driver.py"]
    return run_tests(setting, *tests, "-k", f"not ({_KERNELS})", *_gpu_marker(setting))


def kernels(setting: Setting) -> Findings:
    """Test our kernels against their references, and measure their speed."""
    require(setting, "cupy")
    tests = run_tests(setting, "tests/cuda/test_contract.py", "-k", _KERNELS, *_gpu_marker(setting))
    if setting.rehearse:
        return tests
    setting.save_findings(tests)
    measured = run_benchmark(setting, "gpu_kernels.py")
    findings = combine(tests, {**measured, "summary": f"{len(measured['rows'])} figures in the notes"})
    # The speed of kernels that were not tested is no pass.
    return (
        {**findings, "outcome": "skipped"}
        if tests["outcome"] == "skipped" and findings["outcome"] == "passed"
        else findings
    )


def _gpu_marker(setting: Setting) -> list[str]:
    return [] if setting.rehearse else ["-m", "gpu"]


class CropCollector(DiscardedCrops):
    """Collect crops of DALI's photos, made on the host; crops of the CPU decoder are dropped."""

    def __init__(self) -> None:
        self.crops: list[Any] = []

    def put_run(self, place: int, photos: Any) -> None:
        from tests.oracles.preprocess import preprocess_bytes

        host = photos.as_cpu()
        self.crops.append(preprocess_bytes([np.array(host[i]) for i in range(len(host))], size=112))


def dali(setting: Setting) -> Findings:
    """Compare DALI on the GPU with `decode_image`, crop by crop, and measure the cost of a damaged file."""
    require(setting, "nvidia.dali", *([] if setting.rehearse else ["cupy"]))
    from runtime.images.dali_crops import DaliDecoder
    from runtime.images.decode import decode_image
    from runtime.images.jpeg_runs import DaliOptions

    tests = (
        run_tests(setting, "tests/images/test_dali_crops.py", *_gpu_marker(setting)) if not setting.rehearse else None
    )
    wait_for_photos(setting)
    device, differences, cost = "cpu" if setting.rehearse else "mixed", {}, ""
    for kind in ("crops", "portraits"):
        files = [path.read_bytes() for path in sorted(setting.photo_folder(kind).rglob("*.jpg"))[1:300]]
        files = [data for data in files if data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"]
        with DaliDecoder(112, options=DaliOptions(device=device)) as decoder:
            collector = CropCollector()
            placed = decoder.decode(files, collector)
            cost = cost or _time_damaged_batch(decoder, files[:64])
        ours = np.concatenate(collector.crops).astype(int)
        expected = np.stack([decode_image(files[i], size=112) for i in placed.indices[: len(ours)]]).astype(int)
        differences[kind] = float(np.abs(ours - expected).mean())
    differences |= _compare_photos(setting)
    text = ", ".join(f"{kind} {value:.2f}" for kind, value in differences.items())
    measured = {
        "outcome": "passed" if max(differences.values()) < 2 else "failed",
        "summary": f"mean difference to OpenCV in grey levels (expected: under 2): {text}",
        "differences": differences,
        "notes": [cost, *_measure_hardware_shares(setting)],
    }
    return combine(tests, measured) if tests else measured


def _measure_hardware_shares(setting: Setting) -> list[str]:
    """Measure portraits per second of one decoder by the share of work for the GPU's JPEG engines."""
    from runtime.images.jpeg_runs import DaliOptions, JpegRuns

    files = [path.read_bytes() for path in sorted(setting.photo_folder("portraits").rglob("*.jpg"))[1:257]]
    rates = []
    for share in (0.0, 0.65, 0.9, 1.0):
        device = "cpu" if setting.rehearse else "mixed"
        options = DaliOptions(device, batch_size=256, threads=8, hardware=share)
        with JpegRuns(lambda dali, encoded, images: (images,), "rgb", options) as runs:
            took = []
            for _ in range(6):
                began = time.perf_counter()
                count = sum(len(run.indices) for run in runs.run(files))
                took.append(time.perf_counter() - began)
            rates.append(f"{share}: {count / sorted(took[1:])[2]:,.0f}")
    return [
        f"portraits/s of one decoder by the share of work for the JPEG engines (hw_decoder_load): {', '.join(rates)}"
    ]


def _time_damaged_batch(decoder: Any, files: list[bytes]) -> str:
    """Time an intact batch, and the same batch with a damage that only decoding reveals."""
    table = files[0].index(b"\xff\xc4") + 5  # the number of Huffman codes of each length; 255 of each is impossible
    damaged = [files[0][:table] + bytes([255] * 16) + files[0][table + 16 :], *files[1:]]
    took = []
    for batch in (files, files, damaged):
        began = time.perf_counter()
        decoder.decode(batch, DiscardedCrops())
        took.append(1000 * (time.perf_counter() - began))
    return f"a batch of {len(files)}: {took[1]:.1f} ms; with a damaged file, which DALI names: {took[2]:.1f} ms"


def _compare_photos(setting: Setting) -> dict[str, float]:
    """Compare DALI's photos and views with `decode_photo` and `draw`: mean differences in grey levels."""
    from runtime.faces.finder import View, draw
    from runtime.images.dali_photos import DaliPhotos
    from runtime.images.decode import decode_photo
    from runtime.images.jpeg_runs import DaliOptions

    paths = sorted(setting.photo_folder("portraits").rglob("*.jpg"))[1:200]
    files = [data for data in (path.read_bytes() for path in paths) if data[-2:] == b"\xff\xd9"]
    photos, views = [], []
    options = DaliOptions(device="cpu" if setting.rehearse else "mixed")
    with DaliPhotos((160,), 640, options=options) as decoder:
        for run in decoder.decode(files):
            held, canvases = run.held.as_cpu(), np.array(run.canvases[0].held[1].as_cpu())
            for position, (i, canvas) in enumerate(zip(run.indices, canvases, strict=True)):
                expected, drawn = decode_photo(files[i], long_side=640).pixels, np.zeros_like(canvas)
                draw(expected, View(160), drawn)
                photos.append(np.abs(np.array(held[position]).astype(int) - expected).mean())
                views.append(np.abs(canvas.astype(int) - drawn).mean())
    return {"photographs": float(np.mean(photos)), "views": float(np.mean(views))}


def engine(setting: Setting) -> Findings:
    """Build and load the engine and check its types and parity, at every precision."""
    require_tensorrt(setting)
    from runtime.errors import FacemillError

    notes: list[str] = []
    built: dict[str, dict[str, Any]] = {}
    failed = False
    for precision in ("fp32",) if setting.rehearse else ("fp16", "fp32"):
        began = time.perf_counter()
        try:
            engine = material.build(setting.model, setting.data, setting.backend, precision)
        except FacemillError as err:
            notes.append(f"{precision}: {type(err).__name__}: {err}")
            failed = failed or precision == "fp16"  # a refusal of fp32 is no failure: Turing refuses it
            continue
        info = engine.info
        built[precision] = {
            "file": engine.path.name,
            "megabytes": round(engine.path.stat().st_size / 1e6, 2),
            "parity_mean": info.parity.mean,
            "parity_min": info.parity.minimum,
            "context_megabytes": round(info.context_bytes / 1e6, 1),
            "backend_version": info.backend_version,
            "device": info.device,
            "refused": info.refused,
            "seconds": round(time.perf_counter() - began, 1),
        }
        notes.append(f"{precision}: {built[precision]}")
        setting.save_findings(
            {"outcome": "failed", "summary": f"only {precision} was built", "notes": notes, "built": built}
        )
    main = built.get("fp16") or built.get("fp32")
    if main is None:
        return {"outcome": "failed", "summary": "no engine was built; see the notes", "notes": notes}
    accurate = setting.rehearse or main["parity_mean"] >= 0.9995
    return {
        "outcome": "passed" if accurate and not failed else "failed",
        "summary": f"{main['file']}: cosine to FP32 mean {main['parity_mean']:.6f} (expected: 0.9995), min "
        f"{main['parity_min']:.6f}; {main['backend_version']} for {main['device']}",
        "notes": notes,
        "built": built,
    }


def runner(setting: Setting) -> Findings:
    """Run the tests of all runners on the TensorRT runner."""
    require(setting, *([] if setting.rehearse else ["cupy"]))
    names = ("tensorrt/test_slot", "test_runners", "tensorrt/test_shim")
    tests = [f"tests/engines/{name}.py" for name in names]
    return run_tests(setting, *tests, *_gpu_marker(setting))


def detector(setting: Setting) -> Findings:
    """Build and load the detector's engine, and compare its answers to views of portraits with ONNX Runtime's."""
    require_tensorrt(setting)
    from runtime.engines.backends import open_runner
    from runtime.engines.parity import weigh_by_score
    from runtime.faces.detectors import decoder_of
    from runtime.faces.finder import FindRules, View, decode_output, draw
    from runtime.images.decode import decode_photo

    wait_for_photos(setting)
    engines = [build_detector(setting, backend) for backend in (setting.backend, "cpu")]
    info = engines[0].info
    paths = sorted(setting.photo_folder("portraits").rglob("*.jpg"))[1:40]
    files = [data for data in (path.read_bytes() for path in paths) if data[-2:] == b"\xff\xd9"][:32]
    notes, cosines = [], []
    with open_runner(engines[0]) as ours, open_runner(engines[1]) as reference:
        for side in (160, 224, 448):
            canvases = np.zeros((len(files), side, side, 3), np.uint8)
            for data, canvas in zip(files, canvases, strict=True):
                pixels = decode_photo(data, long_side=640, channel_order=info.channel_order).pixels
                draw(pixels, View(side), canvas)
            raw = [runner.infer(canvases) for runner in (ours, reference)]
            a, b = (weigh_by_score(answer.astype(np.float64)) for answer in raw)
            cosine = (a * b).sum(axis=1) / np.maximum(np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1), 1e-300)
            cosines.append(float(cosine.min()))
            counts = [sum(map(len, decode_output(x, decoder_of(info.decode), FindRules(), side, side))) for x in raw]
            notes.append(f"views of {side}: smallest cosine {cosine.min():.6f}; {counts[0]} faces, CPU {counts[1]}")
    return {
        "outcome": "passed" if min(cosines) >= 0.999 else "failed",
        "summary": f"{engines[0].path.name}: smallest cosine to "
        f"ONNX Runtime's answers {min(cosines):.5f} (expected: 0.999); "
        f"{info.precision}, {info.backend_version}",
        "notes": notes,
    }
