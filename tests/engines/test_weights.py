"""Weights are generated once or read from a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from runtime.engines.parity import reference_embeddings, synthetic_crops
from runtime.engines.weights import weights_for
from runtime.modelspec import Generator, load_spec
from tests.support.model_files import save_cnn, spec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FACEMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["random-128", "random-512"])
def test_a_shipped_random_model_is_generated_once(cache: Path, name: str) -> None:
    model = load_spec(name)
    path = weights_for(model)
    assert path.is_relative_to(cache)
    written = path.stat().st_mtime_ns
    assert weights_for(model) == path
    assert path.stat().st_mtime_ns == written
    assert not model.trained
    assert reference_embeddings(model, path, synthetic_crops(112, count=2)).shape == (2, model.dimension)


@pytest.mark.slow
def test_each_seed_and_form_has_its_own_cache_entry(cache: Path) -> None:
    models = [spec(generator=Generator(form, seed)) for form in ("128", "512") for seed in (0, 1)]
    assert len({weights_for(model).read_bytes() for model in models}) == 4


def test_weights_next_to_the_model_file_are_used(cache: Path, tmp_path: Path) -> None:
    weights = save_cnn(tmp_path / "model.onnx")
    assert weights_for(spec(folder=tmp_path)) == weights


@pytest.mark.slow
def test_concurrent_first_runs_generate_the_same_weights(cache: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from runtime.engines.weights import weights_for\n"
        "from runtime.modelspec import Generator, load_spec\n"
        "import hashlib; print(hashlib.sha256(weights_for(load_spec('random-128')).read_bytes()).hexdigest())\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(ROOT)], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
