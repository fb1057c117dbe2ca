"""Which GPUs a process sees."""

from __future__ import annotations

import os

import pytest

from runtime.cuda import device
from runtime.cuda.device import choose_gpus, visible_devices_for
from runtime.errors import OptionError
from tests.support.errors import raises


@pytest.fixture(autouse=True)
def all_gpus_present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let CUDA find every GPU that it is given."""
    monkeypatch.setattr(device, "count_gpus", lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))


@pytest.mark.parametrize(
    ("shown", "devices", "names", "counted"),
    [
        (None, "0,1", "0,1", "0,1"),
        (None, "3,1", "3,1", "0,1"),
        (None, "2,2", "2", "0,0"),
        ("5,GPU-ab12,7", "2,0", "7,5", "0,1"),
        ("5,6", "1", "6", "0"),
        ("5", "cpu,cpu", "5", "cpu,cpu"),
        (None, "00,0", "0", "0,0"),
        (None, "0, 1 ,01", "0,1", "0,1,1"),
        (" 5, 6", "1", "6", "0"),
        ("", "cpu", "", "cpu"),
    ],
)
def test_only_the_named_gpus_are_visible(
    monkeypatch: pytest.MonkeyPatch, shown: str | None, devices: str, names: str, counted: str
) -> None:
    if shown is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    gpus = choose_gpus(devices.split(","))
    assert ",".join(gpus) == counted
    assert os.environ["CUDA_VISIBLE_DEVICES"] == names
    if "cpu" not in gpus:
        assert [visible_devices_for(device) for device in gpus] == [names.split(",")[int(device)] for device in gpus]


def test_a_hidden_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with raises(OptionError, "--device", "GPU 2", "CUDA_VISIBLE_DEVICES=1,2"):
        choose_gpus(["0", "2"])


@pytest.mark.parametrize("shown", ["", "-1", "-1,0"])
def test_hidden_gpus_stay_hidden(monkeypatch: pytest.MonkeyPatch, shown: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert visible_devices_for("0") == ""
    with raises(OptionError, "GPU 0", "CUDA_VISIBLE_DEVICES=", 0):
        choose_gpus(["0"])
    assert os.environ["CUDA_VISIBLE_DEVICES"] == shown


@pytest.mark.parametrize(
    ("count", "devices", "gpu"),
    [(0, ["3"], "GPU 3"), (1, ["0", "2", "7"], "GPU 2")],
)
def test_a_missing_gpu_is_refused(monkeypatch: pytest.MonkeyPatch, count: int, devices: list[str], gpu: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # monkeypatch restores it after any change by choose_gpus
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(device, "count_gpus", lambda: count)
    with raises(OptionError, "--device", gpu):
        choose_gpus(devices)
