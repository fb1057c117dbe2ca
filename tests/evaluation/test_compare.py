"""Two engines: drift by hand, and what may not be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.engine import read_engine
from runtime.evaluation.compare import compare_evaluations, drift
from runtime.evaluation.embedded import EmbeddedFolder
from runtime.evaluation.evaluate import Evaluation, evaluate, measure
from runtime.faces.rules import FaceRules
from runtime.metrics.pairs import read_pairs
from runtime.pipeline.request import Request
from runtime.records import Status
from tests.support.lfw_folder import write_pairs, write_people


@pytest.fixture(scope="module")
def one(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    place = tmp_path_factory.mktemp("compare")
    pairs = read_pairs(write_pairs(place / "pairs.txt"))
    return evaluate(
        Request((str(write_people(place / "in")),), place / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")),
        pairs,
    )


def disturbed(embedded: EmbeddedFolder) -> EmbeddedFolder:
    """As another engine would have it: every vector a little off, and one photograph fewer."""
    rng = np.random.default_rng(2)
    vectors = embedded.vectors + rng.normal(0, 0.05, embedded.vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gone = int(np.flatnonzero(embedded.has_vector)[5])
    status = embedded.status.copy()
    status[gone] = Status.CORRUPT
    return replace(embedded, status=status, vectors=np.delete(vectors, 5, axis=0))


def test_an_engine_against_itself(one: Evaluation) -> None:
    found = compare_evaluations(one, one)
    assert found.drift is not None
    assert found.drift.photographs == len(one.embedded.vectors)
    assert (found.drift.minimum, found.drift.mean) == pytest.approx((1, 1))
    assert found.verdicts is not None
    assert (found.verdicts.accuracy, found.verdicts.gained, found.verdicts.lost) == (0, 0, 0)
    assert found.retrieval == (0, 0, 0)


def test_drift_is_of_photographs_that_both_embedded(one: Evaluation) -> None:
    other = disturbed(one.embedded)
    first = np.delete(one.embedded.vectors, 5, axis=0).astype(np.float64)
    cosines = (first * other.vectors).sum(axis=1)
    for found in (drift(one.embedded, other), drift(other, one.embedded)):
        assert found is not None
        assert found.photographs == len(cosines)
        assert found.minimum == pytest.approx(cosines.min())
        assert found.mean == pytest.approx(cosines.mean())
        assert found.percentile_1 == pytest.approx(np.percentile(cosines, 1))
        assert found.minimum < 0.999


def test_verdicts_and_figures_change(one: Evaluation, tmp_path: Path) -> None:
    pairs = read_pairs(write_pairs(tmp_path / "pairs.txt"))
    other = measure(disturbed(one.embedded), pairs)
    found = compare_evaluations(one, other)
    assert one.pairs is not None
    assert other.pairs is not None
    assert found.verdicts is not None
    assert found.verdicts.accuracy == pytest.approx(other.pairs.folds.accuracy - one.pairs.folds.accuracy)
    assert found.verdicts.gained - found.verdicts.lost == pytest.approx(16 * found.verdicts.accuracy)
    assert found.verdicts.lost > 0  # a photograph fewer
    back = compare_evaluations(other, one).verdicts
    assert back is not None
    assert (back.gained, back.lost) == (found.verdicts.lost, found.verdicts.gained)
    assert found.retrieval is not None
    assert found.retrieval[0] < 0


def test_embeddings_of_two_models_have_no_drift(one: Evaluation) -> None:
    contract = replace(one.embedded.contract, model_sha256="f" * 64)
    assert drift(one.embedded, replace(one.embedded, contract=contract)) is None


def test_no_photograph_in_common_has_no_drift(one: Evaluation) -> None:
    renamed = replace(one.embedded, paths=tuple(b"x" + path for path in one.embedded.paths))
    assert drift(one.embedded, renamed) is None
