"""Shared by the tests of training/: skip without its extra, generated crops, settings and checkpoints."""

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
    """Import PyTorch; skips the calling module unless the whole extra is installed, which `training` needs to start."""
    for name in ("hydra", "openvino", "pytorch_metric_learning", "tensorboard"):
        pytest.importorskip(name, reason=_REASON, exc_type=ImportError)
    return pytest.importorskip("torch", reason=_REASON, exc_type=ImportError)


def write_tar(path: Path, members: Mapping[str, tuple[int, int]]) -> None:
    """Write a tar of 112x112 crops; `members` maps each name to the person and shot to draw."""
    with tarfile.open(path, "w") as archive:
        for name, (person, shot) in members.items():
            content = encode(0, person, shot, (112, 112))
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def compose(name: str, overrides: Sequence[str]) -> Any:
    """Load the settings of a command of training/: `conf/<name>.yaml` with overrides from the command line."""
    import hydra

    with hydra.initialize_config_dir(version_base=None, config_dir=str(ROOT / "training" / "conf")):
        return hydra.compose(name, list(overrides))


def settings_of(name: str, overrides: Mapping[str, Any]) -> Any:
    """Load the settings of `conf/<name>.yaml` with overrides by name."""
    return compose(name, [f"{key}={value}" for key, value in overrides.items()])


def write_checkpoint(path: Path, backbone: Mapping[str, Any]) -> Path:
    """Write a checkpoint of an untrained network whose batch norms have seen 48 images; returns its path."""
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
