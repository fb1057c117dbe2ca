"""The state-space backbone, if torch is installed: a scan equal to the loop, a file equal to the network, an engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from runtime.engines.build import build_engine
from runtime.engines.parity import synthetic_crops
from runtime.modelspec import load_spec
from runtime.modelstore import resolve_weights
from tests.support.errors import raises
from tests.support.training_extra import settings_of, torch_of_extra, write_checkpoint, write_tar

torch = torch_of_extra()

SMALL = {"name": "mamba", "dimension": 64, "width": 0.25, "activation": "relu"}


pytestmark = pytest.mark.usefixtures("one_thread")


def random(*shape: int, seed: int = 0) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("length", "chunk"), [(49, 7), (16, 4), (12, 3), (12, 12), (12, 1), (1, 1)])
def test_the_scan_equals_the_recurrence(length: int, chunk: int) -> None:
    from training.mamba import selective_scan

    decay, entry = torch.sigmoid(random(3, length, 5, 2) * 3), random(3, length, 5, 2, seed=1)
    state, expected = np.zeros((3, 5, 2)), []
    for t in range(length):
        state = decay[:, t].numpy() * state + entry[:, t].numpy()
        expected.append(state)
    states = selective_scan(decay, entry, chunk)
    assert states.dtype == torch.float64
    np.testing.assert_allclose(states.numpy(), np.stack(expected, 1), rtol=1e-12, atol=1e-13)


def test_the_scan_has_the_gradients_of_the_recurrence() -> None:
    from training.mamba import selective_scan

    decay, entry = torch.sigmoid(random(2, 9, 3)).requires_grad_(), random(2, 9, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: selective_scan(a, b, 3), (decay, entry))


def run_block_by_loop(block: Any, x: Any) -> Any:
    """Compute a block as in the paper: position by position, once in each direction."""
    from torch.nn import functional

    from training.mamba import KERNEL, STATE

    inner, rank, length = block.inner, block.rank, x.shape[1]
    wide = block.widen(block.norm(x))
    gate, total = functional.silu(wide[..., inner:]), 0
    for way in range(2):
        rows = slice(way * inner, (way + 1) * inner)
        u = wide[..., :inner] if way == 0 else wide[..., :inner].flip(1)
        kernel, bias = block.near.weight[rows, 0], block.near.bias[rows]  # (E, KERNEL)
        padded = functional.pad(u, (0, 0, KERNEL - 1, 0))
        mixed = torch.stack(
            [sum(padded[:, t + k] * kernel[:, k] for k in range(KERNEL)) + bias for t in range(length)], 1
        )
        mixed = functional.silu(mixed)
        select = block.select.weight.view(2, rank + 2 * STATE, inner)[way]
        chosen = mixed @ select.T
        pace = block.pace.weight.view(2, inner, rank)[way]
        pace = functional.softplus(chosen[..., :rank] @ pace.T + block.pace.bias[rows])  # (N, L, E)
        rate = -torch.exp(block.log_rate.view(2, inner, STATE)[way])
        state, answers = torch.zeros(len(x), inner, STATE, dtype=x.dtype), []
        for t in range(length):
            into, out = chosen[:, t, rank : rank + STATE], chosen[:, t, rank + STATE :]
            state = (
                torch.exp(pace[:, t, :, None] * rate) * state + (pace[:, t] * mixed[:, t])[..., None] * into[:, None]
            )
            answers.append((state * out[:, None]).sum(-1) + block.skip[rows] * mixed[:, t])
        y = torch.stack(answers, 1)
        total = total + (y if way == 0 else y.flip(1))
    return x + block.narrow(total * gate)


def test_a_block_equals_the_selective_state_space_model_in_both_directions() -> None:
    from training.mamba import MambaBlock

    torch.manual_seed(0)
    block = MambaBlock(32).double()
    block.log_rate.data += random(len(block.log_rate)) * 0.2
    block.skip.data += random(len(block.skip)) * 0.5
    x = random(2, 16, 32)
    # The scan itself is in float32.
    assert torch.allclose(block(x), run_block_by_loop(block, x), atol=1e-5)
    assert (block(x) - x).abs().max() > 0.01


@pytest.mark.parametrize("size", [48, 56, 80, 112])
def test_mamba_accepts_small_pictures(size: int) -> None:
    from training.backbones import build_backbone

    torch.manual_seed(0)
    model = build_backbone(**SMALL).eval()
    pictures = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pair_output, single_output = model(pictures), model(pictures[:1])
    assert pair_output.shape == (2, 64)
    assert torch.allclose(pair_output[:1], single_output, atol=1e-5)
    assert not torch.allclose(pair_output[0], pair_output[1], atol=1e-3)


def test_mamba_has_the_stated_size_and_fits_in_four_megabytes() -> None:
    from training.backbones import build_backbone, count_parameters
    from training.export import halve_weights, to_onnx

    model = build_backbone("mamba", 512, 1.0, "relu").eval()
    assert 1_000_000 < count_parameters(model) < 2_000_000
    assert len(halve_weights(to_onnx(model)).SerializeToString()) < 4_000_000
    with raises(ValueError, "vit", "mobilefacenet", "w600k_mbf", "mamba"):
        build_backbone("vit", 512, 1.0, "relu")


def test_mamba_learns_in_bfloat16() -> None:
    """Separating 16 pictures needs every part of the network."""
    from training.backbones import build_backbone, normalise

    torch.manual_seed(0)
    model = build_backbone(**SMALL).train()
    pictures = normalise(torch.from_numpy(synthetic_crops(112, count=16, seed=1)).permute(0, 3, 1, 2))
    pictures = torch.nn.functional.interpolate(pictures, size=(56, 56), mode="area")
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    losses = []
    for _ in range(30):
        with torch.autocast("cpu", torch.bfloat16):
            answers = model(pictures)
        loss = torch.nn.functional.cross_entropy(answers.float(), torch.arange(16))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_an_exported_mamba_equals_the_network_and_becomes_an_engine(tmp_path: Path) -> None:
    from training.export import export

    result = export(write_checkpoint(tmp_path / "last.pt", SMALL), tmp_path / "mine.onnx")
    assert result.gap < 1e-4
    graph = onnx.load(tmp_path / "mine.onnx")
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", 17)]
    assert not {"Scan", "Loop", "If"} & {node.op_type for node in graph.graph.node}
    spec = load_spec(str(tmp_path / "mine.toml"))
    built = build_engine(spec, resolve_weights(spec), backend="cpu", output=tmp_path / "engines")
    assert built.engine.info.parity.minimum > 0.99999


def test_mamba_is_distilled_with_growing_pictures(tmp_path: Path) -> None:
    from runtime.graphs.mobilefacenet import generate
    from training.train import DistillationTrainer

    write_tar(tmp_path / "crops.tar", {f"{person}.jpg": (person, 0) for person in range(16)})
    generate(tmp_path / "teacher.onnx", form="128", seed=3)
    overrides = {
        "data": tmp_path,
        "tars": "[crops.tar]",
        "left_out": "null",
        "run": tmp_path / "run",
        "teacher": f"{{path:{tmp_path}/teacher.onnx,size:112,channel_order:rgb,mean:127.5,std:127.5,mirror:false}}",
        "batch": 16,
        "warm_up": 64,
        "stages": "[[0,48],[320,80]]",
        "backbone": "{name:mamba,dimension:128,width:0.25}",
    }
    config = settings_of("distil", overrides)
    trainer = DistillationTrainer(config)
    losses = [trainer.step()["loss"] for _ in range(24)]
    assert np.mean(losses[-8:]) < np.mean(losses[:8]) - 0.1
