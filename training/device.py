"""The device of a run, and its random numbers."""

from __future__ import annotations

import torch
from torch import Generator


def use_device(name: str) -> torch.device:
    """Create and compute all tensors on a device from now on.

    Args:
        name: PyTorch's name, such as "cpu" or "cuda:1"; "auto" is a GPU if there is one, else the CPU.
    Raises:
        ValueError: the device does not exist.
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as err:
        raise ValueError(f"device is {name!r}; expected: auto, cpu or cuda: {str(err).splitlines()[0]}") from err
    torch.set_default_device(device)
    return device


def random_numbers(seed: int) -> Generator:
    """Make a random generator of the device in use. CPU and GPU draw different numbers from one seed."""
    return Generator(torch.get_default_device()).manual_seed(seed)
