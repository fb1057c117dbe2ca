"""DALI on a stream of the CUDA stand-in: its CPU graph decodes, and the photos arrive when the stream gets there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime.images.jpeg_runs import JpegRuns
from tests.support.cuda_stand_in import LateStream, ShimDriver


class LateList:
    """A TensorListGPU of photos, in device memory that is poisoned as soon as the list is dropped.

    It is filled from a temporary that the next decode writes at once, whatever the stream still has to do: the JPEG
    hardware of an H100 does not wait for the stream that it is given.
    """

    def __init__(self, decoded: Any, stream: LateStream, temporaries: dict[int, Any]) -> None:
        arrays = [np.array(decoded[i]) for i in range(len(decoded))]
        self._shapes = [array.shape for array in arrays]
        content = np.concatenate([array.reshape(-1) for array in arrays])
        temporary = temporaries.setdefault(id(stream), np.zeros(1 << 25, np.uint8))
        temporary[: len(content)] = content
        self._memory = stream.own.allocate(stream.own.live, len(content), 0xEE)
        self._offsets = np.cumsum([0, *(array.size for array in arrays)])
        address, count = self._memory.ctypes.data, len(content)
        memory = self._memory[:]

        def fill() -> None:
            memory[:] = temporary[:count]

        stream.add(fill, (address, count, "DALI", True))

    def shape(self) -> list[tuple[int, ...]]:
        """The shape of each photo."""
        return self._shapes

    def __len__(self) -> int:
        return len(self._shapes)

    def __getitem__(self, i: int) -> _Item:
        return _Item(self._memory.ctypes.data + int(self._offsets[i]))


class _Item:
    """One photo of a list."""

    def __init__(self, address: int) -> None:
        self._address = address

    def data_ptr(self) -> int:
        """The address of its first pixel."""
        return self._address


def decode_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make DALI decode on the streams of the stand-in where it is given one."""
    execute, temporaries = JpegRuns._execute, dict[int, Any]()

    def execute_late(pipe: Any, files: list[bytes], stream: int | None) -> tuple[Any, ...]:
        outputs = execute(pipe, files, None)
        if stream is None:
            return outputs
        return tuple(LateList(output, ShimDriver.streams[stream], temporaries) for output in outputs)

    monkeypatch.setattr(JpegRuns, "_execute", staticmethod(execute_late))
