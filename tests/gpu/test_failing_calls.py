"""Every call of the driver fails in turn while a stage opens, embeds a batch and closes: nothing leaks or hangs."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.errors import EngineError
from runtime.graphs.prepare import prepare_graph
from runtime.records import Encoded
from tests.support import encoded_images as make
from tests.support.cuda_stand_in import ShimDriver
from tests.support.gpu_stages import open_crop_stage
from tests.support.late_dali import decode_late
from tests.support.model_files import info, save_cnn, spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dependencies of DALI warn about deprecations
    pytest.importorskip("nvidia.dali", reason="DALI is not installed: pip install nvidia-dali-cuda120")

INFO = info(backend="tensorrt", backend_version="tensorrt shim", profile=(1, 4, 4))
PHOTOS = [make.encode(make.scene(130, 120, seed)) for seed in range(4)]
CALLS = (
    *("allocate", "allocate_pinned", "new_stream", "new_event", "upload", "download", "record", "synchronize"),
    *("synchronize_event", "elapsed_s", "compile", "function", "launch"),
)


class FailingDriver(ShimDriver):
    """A driver of which one call fails, and with it, as after an error of the GPU, every later one.

    Attributes:
        calls: names of the calls so far.
    """

    def __init__(self, folder: Path, failing: int, *, sticky: bool) -> None:
        super().__init__(folder)
        self.calls: list[str] = []
        self._failing, self._sticky = failing, sticky
        for name in CALLS:
            setattr(self, name, self._counted(name, getattr(self, name)))

    def _counted(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.calls.append(name)
            number = len(self.calls)
            if number == self._failing or (self._sticky and number > self._failing > 0):
                raise EngineError(f"call {number} failed")
            return call(*arguments, **options)

        return counted


def embed_once(driver: ShimDriver, engine: bytes) -> None:
    """Open the stage, embed one batch and close it."""
    with open_crop_stage(driver, (engine, INFO), batch_size=4, slots=1) as stage:
        stage.warm_up()
        stage(Encoded(np.arange(4), files=tuple(PHOTOS)))


@pytest.mark.slow
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "from there on"])
def test_a_failing_call_is_told_first_and_leaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sticky: bool
) -> None:
    decode_late(monkeypatch)
    engine = prepare_graph(save_cnn(tmp_path / "m.onnx"), spec(), "fp32").SerializeToString()
    good = FailingDriver(tmp_path, 0, sticky=False)
    embed_once(good, engine)
    assert set(good.calls) >= {"allocate", "allocate_pinned", "new_stream", "upload", "download", "launch", "record"}
    for number in range(1, len(good.calls) + 1):
        driver = FailingDriver(tmp_path, number, sticky=sticky)
        with pytest.raises(EngineError, match=f"call {number} failed"):
            embed_once(driver, engine)
        driver.own.used.clear()  # work that no stream did, because waiting failed, holds what it would have used
        gc.collect()
        assert not driver.own.live, f"call {number} ({good.calls[number - 1]}): device memory is left"
