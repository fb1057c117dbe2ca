"""Where a run computes, and the random numbers there."""

from __future__ import annotations

import torch
from torch import Generator


def use_device(name: str) -> torch.device:
    """Make and compute all tensors there from now on.

    Args:
        name: as PyTorch names it, such as "cpu" or "cuda:1"; "auto" is a GPU where there is one.
    Raises:
        ValueError: there is no such device.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise ValueError(f"device is {name!r}; wanted: auto, cpu or cuda: {str(err).splitlines()[0]}") from err
    torch.set_default_device(device)
    return device


def random_numbers(seed: int) -> Generator:
    """A generator of the device in use. CPU and GPU draw other numbers of one seed."""
    return Generator(torch.get_default_device()).manual_seed(seed)
