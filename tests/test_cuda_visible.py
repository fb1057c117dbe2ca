"""Which GPUs a process sees."""

from __future__ import annotations

import os

import pytest

from runtime.cuda.visible import choose_gpus, shown_as
from runtime.errors import ConfigError


@pytest.mark.parametrize(
    ("shown", "devices", "names", "counted"),
    [
        (None, "0,1", "0,1", "0,1"),
        (None, "3,1", "3,1", "0,1"),
        (None, "2,2", "2", "0,0"),
        ("5,GPU-ab12,7", "2,0", "7,5", "0,1"),
        ("5,6", "1", "6", "0"),
        ("5", "cpu,cpu", "5", "cpu,cpu"),
    ],
)
def test_only_the_named_gpus_are_seen(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, devices: str, names: str, counted: str
) -> None:
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    found = choose_gpus(devices.split(","))
    assert ",".join(found) == counted
    assert os.environ["CUDA_VISIBLE_DEVICES"] == names
    if "cpu" not in found:
        assert [shown_as(device) for device in found] == [names.split(",")[int(device)] for device in found]


def test_a_gpu_that_is_hidden_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with pytest.raises(ConfigError, match="--devices names GPU 2, and CUDA_VISIBLE_DEVICES=1,2 shows 2"):
        choose_gpus(["0", "2"])
