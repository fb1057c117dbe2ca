"""A state-space network: convolutions to patches, selective scans over them in both directions, and the mean.

The scan uses only products and sums, so that it exports to ONNX unchanged. Decays are below 1 and nothing is divided,
so the scan is as exact as the loop that it replaces.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbones import ACTIVATIONS, conv

STATE = 8  # numbers of state per channel
KERNEL = 4  # positions that a channel sees before the scan
GRID = 7  # patches per side of a 112x112 image
DEPTH = 5  # blocks


def selective_scan(decay: Tensor, entry: Tensor, chunk: int) -> Tensor:
    """Compute h[t] = decay[t] * h[t - 1] + entry[t] with h[-1] = 0, in 2 * sqrt(L) steps instead of L.

    All chunks are scanned in parallel, each from a zero state. Then the last states are carried from chunk to chunk,
    and the carried states are added with their decay.

    Args:
        decay, entry: (N, L, ...) float, decay in 0..1.
        chunk: positions per chunk; divides L.
    Returns:
        (N, L, ...), the states.
    Source: Gu & Dao 2023, arXiv:2312.00752, equation 2a; Blelloch 1990, Prefix Sums and Their Applications.
    """
    a = decay.unflatten(1, (-1, chunk))  # (N, L / chunk, chunk, ...)
    b = entry.unflatten(1, (-1, chunk))
    states, decays = [b[:, :, 0]], [a[:, :, 0]]
    for t in range(1, chunk):
        states.append(a[:, :, t] * states[-1] + b[:, :, t])
        decays.append(a[:, :, t] * decays[-1])
    carried = [states[-1][:, 0] * 0]  # not a constant: the exporter would fix its N
    for c in range(a.shape[1] - 1):
        carried.append(decays[-1][:, c] * carried[-1] + states[-1][:, c])
    scanned = torch.stack(states, 2) + torch.stack(decays, 2) * torch.stack(carried, 1).unsqueeze(2)
    return scanned.flatten(1, 2)


class MambaBlock(nn.Module):
    """Normalise, widen, convolve, scan forward and backward, gate, narrow, and add.

    Args:
        channels: channels of input and output.
    Source: Gu & Dao 2023, arXiv:2312.00752, figure 3; both directions as in Zhu et al. 2024, arXiv:2401.09417.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner, rank = 2 * channels, channels // 16
        self.inner, self.rank = inner, rank
        self.norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 2 * inner, bias=False)
        self.near = nn.Conv1d(2 * inner, 2 * inner, KERNEL, padding=KERNEL - 1, groups=2 * inner)
        self.select = nn.Conv1d(2 * inner, 2 * (rank + 2 * STATE), 1, groups=2, bias=False)
        self.pace = nn.Conv1d(2 * rank, 2 * inner, 1, groups=2)
        # One dimension, because such parameters do not decay (state.new_state).
        self.log_rate = nn.Parameter(torch.arange(1.0, STATE + 1).log().repeat(2 * inner))
        self.skip = nn.Parameter(torch.ones(2 * inner))
        self.narrow = nn.Linear(inner, channels, bias=False)
        with torch.no_grad():  # paces from 0.001 to 0.1, evenly in their logarithm, through softplus
            pace = torch.exp(torch.rand(2 * inner) * math.log(100) + math.log(0.001))
            self.pace.bias.copy_(pace + torch.log(-torch.expm1(-pace)))  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """(N, L, C) to (N, L, C), where L is a square."""
        length = x.shape[1]
        inward, gate = self.widen(self.norm(x)).split(self.inner, 2)  # (N, L, E) each
        both_ways = torch.cat([inward, inward.flip(1)], 2).transpose(1, 2)  # (N, 2E, L)
        inputs = functional.silu(self.near(both_ways)[..., :length])
        forward, backward = self._scan(inputs).split(self.inner, 2)
        y: Tensor = self.narrow((forward + backward.flip(1)) * functional.silu(gate))
        return x + y

    def _scan(self, inputs: Tensor) -> Tensor:
        """(N, 2E, L) to (N, L, 2E), in float32, because a state is a long product."""
        length = inputs.shape[2]
        chosen = self.select(inputs).unflatten(1, (2, -1))  # (N, 2, R + 2S, L)
        pace = functional.softplus(self.pace(chosen[:, :, : self.rank].flatten(1, 2)).float())  # (N, 2E, L)
        into, out = chosen[:, :, self.rank :].float().permute(0, 3, 1, 2).split(STATE, 3)  # (N, L, 2, S) each
        inputs = inputs.float().transpose(1, 2)  # (N, L, 2E)
        pace = pace.transpose(1, 2)
        rate = -torch.exp(self.log_rate).view(2, self.inner, STATE)
        decay = torch.exp(pace.unflatten(2, (2, -1)).unsqueeze(-1) * rate)  # (N, L, 2, E, S)
        entry = (pace * inputs).unflatten(2, (2, -1)).unsqueeze(-1) * into.unsqueeze(3)
        states = selective_scan(decay, entry, math.isqrt(length))
        return (states * out.unsqueeze(3)).sum(-1).flatten(2) + inputs * self.skip


class MambaFace(nn.Module):
    """(N, 3, S, S) in -1..1 to (N, D), not normalised; S / 16 patches a side, rounded up.

    Inputs smaller than 112 have fewer patches; the learned 7x7 position embeddings are interpolated for them.

    Args:
        dimension: D.
        width: multiplies every number of channels, 192 in the blocks; a multiple of 1/12.
        activation: activation of the convolutions: "relu", "relu6" or "prelu".
    """

    def __init__(self, dimension: int = 512, width: float = 1.0, activation: str = "relu") -> None:
        super().__init__()
        act = ACTIVATIONS[activation]
        steps = [3, *(round(channels * width) for channels in (32, 64, 96, 192))]
        channels = steps[-1]
        self.patches = nn.Sequential(*(conv(a, b, 3, 2, 1, act) for a, b in pairwise(steps)))
        self.places = nn.Parameter(torch.randn(1, channels, GRID, GRID) * 0.02)
        self.blocks = nn.Sequential(*(MambaBlock(channels) for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(channels)
        self.embed = nn.Sequential(conv(channels, dimension, 1, 1, 1, None), nn.Flatten())

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images)  # (N, C, S / 16, S / 16)
        places = self.places
        if x.shape[-1] != GRID:
            places = functional.interpolate(places, size=x.shape[-2:], mode="bilinear", align_corners=False)
        x = self.blocks((x + places).flatten(2).transpose(1, 2))  # (N, L, C)
        y: Tensor = self.embed(self.norm(x).mean(1)[:, :, None, None])  # (N, D)
        return y
