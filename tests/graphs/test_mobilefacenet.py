"""The generated architecture is reproducible, has the stated size, keeps its signal and separates pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.errors import ConfigError
from runtime.graphs.mobilefacenet import generate
from tests.support.errors import raises
from tests.support.model_files import spec

PARAMETERS = {"128": 993_344, "512": 3_396_608}  # as the docstring says


@pytest.mark.slow
@pytest.mark.parametrize("form", ["128", "512"])
def test_a_seed_determines_the_network(tmp_path: Path, form: str) -> None:
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        generate(tmp_path / name, form=form, seed=seed)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


@pytest.mark.parametrize("form", ["128", "512"])
def test_parameters_and_tensors_match_the_documentation(tmp_path: Path, form: str) -> None:
    generate(tmp_path / "m.onnx", form=form, seed=0)
    graph = onnx.load(tmp_path / "m.onnx").graph
    assert sum(int(np.prod(tensor.dims)) for tensor in graph.initializer) == PARAMETERS[form]
    assert [value.name for value in (*graph.input, *graph.output)] == ["input", "embedding"]
    assert f"{PARAMETERS[form]:,}" in (generate.__doc__ or "")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["128", "512"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_different_pictures_get_different_embeddings(tmp_path: Path, form: str, seed: int) -> None:
    generate(tmp_path / "m.onnx", form=form, seed=seed)
    rows = reference_embeddings(spec(dimension=int(form)), tmp_path / "m.onnx", synthetic_crops(112, count=24))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-6)  # the signal neither vanished nor exploded
    cosines = (rows @ rows.T)[np.triu_indices(len(rows), 1)]
    assert cosines.max() < 0.98
    assert cosines.mean() < 0.8


@pytest.mark.parametrize(("form", "seed"), [("256", 0), ("128", -1), ("512", 2**32)])
def test_invalid_forms_and_seeds_are_refused(tmp_path: Path, form: str, seed: int) -> None:
    with raises(ConfigError, f"form='{form}'", f"seed={seed}"):
        generate(tmp_path / "m.onnx", form=form, seed=seed)
    assert not list(tmp_path.iterdir())
