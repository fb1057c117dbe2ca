"""A results file lists every package that its figures depend on."""

from __future__ import annotations

import report

from runtime.extras import EXTRAS


def test_the_versions_of_all_gpu_packages_are_reported() -> None:
    expected = {
        name.strip("'").split("[")[0]
        for extra in ("cpu", "gpu", "gpu13", "rtx", "rtx13")
        for name in EXTRAS[extra].split()
    }
    expected |= {
        EXTRAS["tensorrt"],
        EXTRAS["pycuda"],
        "tensorrt-rtx",
        "nvidia-nvimgcodec-cu12",
        "nvidia-nvimgcodec-cu13",
    }
    assert expected <= set(report._PACKAGES)
