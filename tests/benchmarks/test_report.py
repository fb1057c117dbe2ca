"""A results file names every package that its figures depend on."""

from __future__ import annotations

import report

from runtime.extras import EXTRAS


def test_the_versions_of_all_packages_for_a_gpu_are_told() -> None:
    wanted = {
        name.strip("'").split("[")[0]
        for extra in ("cpu", "gpu", "gpu13", "rtx", "rtx13")
        for name in EXTRAS[extra].split()
    }
    wanted |= {EXTRAS["tensorrt"], EXTRAS["pycuda"], "tensorrt-rtx", "nvidia-nvimgcodec-cu12", "nvidia-nvimgcodec-cu13"}
    assert wanted <= set(report._PACKAGES)
