"""The stages of the GPU path on the stand-ins for CUDA and TensorRT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from runtime.cuda.kernels import Kernels
from runtime.engines.engine import EngineInfo
from runtime.engines.tensorrt.runner import TensorRTRunner
from runtime.faces.rules import FaceRules
from runtime.faces.selection import LONG_SIDE
from runtime.images.dali_crops import DaliDecoder
from runtime.images.dali_photos import DaliPhotos
from runtime.images.decode import Limits
from runtime.images.jpeg_runs import DaliOptions
from runtime.pipeline.gpu_embed import CropResources, EmbedPhotos
from runtime.pipeline.gpu_faces import EmbedFaces, FaceResources
from runtime.pipeline.gpu_fill import Shrink, Warp
from runtime.pipeline.stages import StageClock
from tests.support.cuda_stand_in import ShimDriver, checked
from tests.support.tensorrt_stand_in import tensorrt_module

SHIM = {"backend": "tensorrt", "backend_version": "tensorrt shim"}


@contextmanager
def open_crop_stage(
    driver: ShimDriver,
    engine: tuple[bytes, EngineInfo],
    *,
    batch_size: int = 8,
    slots: int = 2,
    batch_pixels: int = 10**6,
) -> Iterator[EmbedPhotos]:
    """Open an EmbedPhotos; a misuse of the stand-in is raised at the end at the latest."""
    clocks = StageClock("decode", slots), StageClock("infer", slots)
    runner = TensorRTRunner(*engine, slots=slots, driver=driver, trt=tensorrt_module())
    with checked(driver), runner, ExitStack() as stack:
        own, kernels = stack.enter_context, Kernels(driver)
        options = DaliOptions(batch_size=batch_size, batch_pixels=batch_pixels)
        resources = [
            CropResources(
                own(DaliDecoder(112, options=options)), own(Shrink(driver, kernels, size=112, capacity=batch_size))
            )
            for _ in range(slots)
        ]
        yield EmbedPhotos(runner, resources, batch_size, clocks)


@contextmanager
def open_face_stage(
    embedder: tuple[bytes, EngineInfo],
    finder: tuple[bytes, EngineInfo],
    compiled: Path,
    rules: FaceRules,
    batch_size: int = 8,
    slots: int = 2,
    pixels: int = 1 << 25,
    landmarks: tuple[bytes, EngineInfo] | None = None,
) -> Iterator[EmbedFaces]:
    """Open an EmbedFaces, as `open_crop_stage` does."""
    driver = ShimDriver(compiled)
    opening: dict[str, Any] = {"slots": slots, "driver": driver, "trt": tensorrt_module()}
    infos = (
        replace(engine_info[1], **SHIM, profile=profile)
        for engine_info, profile in ((embedder, (1, 8, 16)), (finder, (1, 2, 4)))
    )
    with (
        checked(driver),
        TensorRTRunner(embedder[0], next(infos), **opening) as runner,
        TensorRTRunner(finder[0], next(infos), **opening) as detector_runner,
        ExitStack() as stack,
    ):
        enter, order = stack.enter_context, finder[1].channel_order
        options = DaliOptions(batch_size=batch_size, batch_pixels=pixels, threads=1)
        look_runner, square_warps = None, [None] * slots
        if landmarks is not None:
            look_info = replace(landmarks[1], **SHIM, profile=(1, 2, 4))
            look_runner = enter(TensorRTRunner(landmarks[0], look_info, **opening))
            squares = {"size": look_info.size, "reverse": order != look_info.channel_order, "capacity": 4}
            square_warps = [enter(Warp(driver, Kernels(driver), **squares)) for _ in range(slots)]
        warping = {"size": 112, "reverse": order != embedder[1].channel_order, "capacity": batch_size}
        sides, kernels = [view.long_side for view in rules.find.views], Kernels(driver)
        resources = [
            FaceResources(
                enter(DaliPhotos(sides, LONG_SIDE, order, options)),
                enter(Warp(driver, kernels, **warping)),
                square_warp,
            )
            for square_warp in square_warps
        ]
        clocks = StageClock("decode", slots), StageClock("detect", slots), StageClock("infer", slots)
        yield EmbedFaces(runner, detector_runner, resources, rules, batch_size, Limits(), clocks, look_runner)
