"""Which of the machine's GPUs a process sees: CUDA reads it once, when it starts."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..errors import ConfigError


def choose_gpus(devices: Sequence[str]) -> tuple[str, ...]:
    """Hide all GPUs but the named ones from this process and those that it starts. To be called before CUDA is used.

    Args:
        devices: "cpu", or numbers of GPUs as CUDA counts them now; one may stand there twice, for two processes.
    Returns:
        The same, as CUDA will count: the first named GPU is 0.
    Raises:
        ConfigError: CUDA_VISIBLE_DEVICES shows fewer GPUs than that.
    """
    named = [device for device in devices if device.isdecimal()]
    if not named:
        return tuple(devices)
    shown = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    last = max(map(int, named))
    if shown and last >= len(shown):
        raise ConfigError(
            f"--devices names GPU {last}, and CUDA_VISIBLE_DEVICES={','.join(shown)} shows {len(shown)}; "
            f"wanted: numbers below that"
        )
    chosen = list(dict.fromkeys(named))
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(shown[int(device)] if shown else device for device in chosen)
    return tuple(str(chosen.index(device)) if device in chosen else device for device in devices)


def shown_as(device: str) -> str:
    """CUDA_VISIBLE_DEVICES for a process that is to see one GPU of those that this one sees."""
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    return shown.split(",")[int(device)] if shown else device
