"""What the tests of training/ share: its extra, without which they skip, and tars of generated crops."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.demo.portraits import encode
from runtime.engines.parity import synthetic_crops
from tests.support.facemill_command import ROOT

_REASON = "the extra train is not installed: pip install -e '.[cpu,train]'"


def torch_of_extra() -> Any:
    """PyTorch; skips the module that asks unless all of the extra is there, as `training` does not start without it."""
    for name in ("hydra", "openvino", "pytorch_metric_learning", "tensorboard"):
        pytest.importorskip(name, reason=_REASON, exc_type=ImportError)
    return pytest.importorskip("torch", reason=_REASON, exc_type=ImportError)


def write_tar(path: Path, members: Mapping[str, tuple[int, int]]) -> None:
    """A tar of crops, 112x112: of each name the person and the shot that are drawn."""
    with tarfile.open(path, "w") as archive:
        for name, (person, shot) in members.items():
            content = encode(0, person, shot, (112, 112))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def compose(name: str, overrides: Sequence[str]) -> Any:
    """The settings of a command of training/: of `conf/<name>.yaml`, with what is said on its command line."""
    import hydra

    with hydra.initialize_config_dir(version_base=None, config_dir=str(ROOT / "training" / "conf")):
        return hydra.compose(name, list(overrides))


def settings_of(name: str, overrides: Mapping[str, Any]) -> Any:
    """The same, of values by name."""
    return compose(name, [f"{key}={value}" for key, value in overrides.items()])


def write_checkpoint(path: Path, backbone: Mapping[str, Any]) -> Path:
    """Of a network that has learned nothing, but whose batch norms have seen 48 pictures; returns the path."""
    import torch

    from training.backbones import build_backbone, normalise
    from training.state import new_state

    torch.manual_seed(0)
    state = new_state(build_backbone(**backbone), 0.0)
    crops = torch.from_numpy(synthetic_crops(112, count=16, seed=1)).permute(0, 3, 1, 2)
    for _ in range(3):
        state.student.train()(normalise(crops))
        state.average(0.5)
    state.samples = 48
    state.save(path, {"backbone": dict(backbone)})
    return path
