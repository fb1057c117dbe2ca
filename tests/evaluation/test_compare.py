"""Compare two engines: drift computed by hand, and inputs that cannot be compared."""

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
def evaluation(tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("compare")
    pairs = read_pairs(write_pairs(folder / "pairs.txt"))
    return evaluate(
        Request(
            (str(write_people(folder / "in")),), folder / "o.h5", read_engine(tiny_engine), faces=FaceRules("none")
        ),
        pairs,
    )


def perturb(embedded: EmbeddedFolder) -> EmbeddedFolder:
    """Imitate another engine: change every vector a little and remove one photo."""
    rng = np.random.default_rng(2)
    vectors = embedded.vectors + rng.normal(0, 0.05, embedded.vectors.shape).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gone = int(np.flatnonzero(embedded.has_vector)[5])
    status = embedded.status.copy()
    status[gone] = Status.CORRUPT
    return replace(embedded, status=status, vectors=np.delete(vectors, 5, axis=0))


@pytest.mark.slow
def test_an_engine_does_not_drift_from_itself(evaluation: Evaluation) -> None:
    comparison = compare_evaluations(evaluation, evaluation)
    assert comparison.drift is not None
    assert comparison.drift.photographs == len(evaluation.embedded.vectors)
    assert (comparison.drift.minimum, comparison.drift.mean) == pytest.approx((1, 1))
    assert comparison.verdicts is not None
    assert (comparison.verdicts.accuracy, comparison.verdicts.gained, comparison.verdicts.lost) == (0, 0, 0)
    assert comparison.retrieval == (0, 0, 0)


def test_drift_covers_photos_that_both_engines_embedded(evaluation: Evaluation) -> None:
    perturbed = perturb(evaluation.embedded)
    first = np.delete(evaluation.embedded.vectors, 5, axis=0).astype(np.float64)
    cosines = (first * perturbed.vectors).sum(axis=1)
    for drifts in (drift(evaluation.embedded, perturbed), drift(perturbed, evaluation.embedded)):
        assert drifts is not None
        assert drifts.photographs == len(cosines)
        assert drifts.minimum == pytest.approx(cosines.min())
        assert drifts.mean == pytest.approx(cosines.mean())
        assert drifts.percentile_1 == pytest.approx(np.percentile(cosines, 1))
        assert drifts.minimum < 0.999


def test_verdicts_and_figures_change(evaluation: Evaluation, tmp_path: Path) -> None:
    pairs = read_pairs(write_pairs(tmp_path / "pairs.txt"))
    perturbed = measure(perturb(evaluation.embedded), pairs)
    comparison = compare_evaluations(evaluation, perturbed)
    assert evaluation.pairs is not None
    assert perturbed.pairs is not None
    assert comparison.verdicts is not None
    assert comparison.verdicts.accuracy == pytest.approx(
        perturbed.pairs.folds.accuracy - evaluation.pairs.folds.accuracy
    )
    assert comparison.verdicts.gained - comparison.verdicts.lost == pytest.approx(16 * comparison.verdicts.accuracy)
    assert comparison.verdicts.lost > 0  # one photo is missing
    back = compare_evaluations(perturbed, evaluation).verdicts
    assert back is not None
    assert (back.gained, back.lost) == (comparison.verdicts.lost, comparison.verdicts.gained)
    assert comparison.retrieval is not None
    assert comparison.retrieval[0] < 0


def test_two_models_have_no_drift(evaluation: Evaluation) -> None:
    contract = replace(evaluation.embedded.contract, model_sha256="f" * 64)
    assert drift(evaluation.embedded, replace(evaluation.embedded, contract=contract)) is None


def test_without_common_photos_there_is_no_drift(evaluation: Evaluation) -> None:
    renamed = replace(evaluation.embedded, paths=tuple(b"x" + path for path in evaluation.embedded.paths))
    assert drift(evaluation.embedded, renamed) is None
