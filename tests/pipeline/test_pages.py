"""`--pages all`: the faces of every page of a photo, and one outcome of the photo."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from runtime.engines.backends import open_runner
from runtime.engines.engine import Engine, read_engine
from runtime.engines.runner import Runner
from runtime.errors import ConfigError
from runtime.faces.rules import FaceRules
from runtime.images.decode import MAX_PAGES, Limits
from runtime.pipeline import face_work
from runtime.pipeline.contract import contract_of, face_rules_of
from runtime.pipeline.face_work import crop_stages
from runtime.pipeline.request import Request
from runtime.records import Crops, Encoded, Outcome, Status
from runtime.storage.contract import Guard
from tests.support import encoded_images as make
from tests.support.errors import assert_names, raises
from tests.support.model_files import spec
from tests.support.red_square_detector import build_red_squares, picture
from tests.support.tiff_files import damage_page, pages_tiff

LEFT = picture(400, 300, (30, 120, 90), seed=1)
RIGHT = picture(400, 300, (170, 220, 90), seed=2)
ONE_SMALL = picture(400, 300, (120, 160, 46), seed=4)  # a view for every face takes a large square for several
TWO_SMALL = picture(400, 300, (30, 50, 43), (190, 230, 48), seed=3)
NOBODY = picture(400, 300)
RULES = FaceRules("detect", min_iod=0, pages="all", max_fit=0.5)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return build_red_squares(tmp_path_factory.mktemp("red"))


@pytest.fixture(scope="module")
def runner(detector: Engine) -> Runner:
    return open_runner(detector)


def find_crops(runner: Runner, *files: bytes, rules: FaceRules = RULES, limits: Limits | None = None) -> Crops:
    batch = Encoded(np.arange(10, 10 + len(files)), (Outcome(3, Status.UNREADABLE, "gone"),), files=files)
    return crop_stages(spec(channel_order="rgb"), limits or Limits(), rules, runner)(batch)


def rows_of(crops: Crops) -> list[tuple[int, int, int]]:
    """Photo, page and face_index of each crop."""
    assert crops.faces is not None
    pages, ranks = crops.faces["page"].tolist(), crops.faces["face_index"].tolist()
    return list(zip(crops.rows.tolist(), pages, ranks, strict=True))


@pytest.mark.slow
def test_every_page_with_a_face_has_the_crop_that_it_has_as_a_photo(runner: Runner) -> None:
    scan = pages_tiff(LEFT, NOBODY, RIGHT, previews=True)
    crops = find_crops(runner, make.encode(RIGHT, "PNG"), scan, make.encode(LEFT, "PNG"))
    assert rows_of(crops) == [(10, 1, 0), (11, 1, 0), (11, 3, 1), (12, 1, 0)]
    assert crops.face_counts == {10: 1, 11: 2, 12: 1}
    assert [outcome.row for outcome in crops.outcomes] == [3]
    np.testing.assert_array_equal(crops.images[1], crops.images[3])
    np.testing.assert_array_equal(crops.images[2], crops.images[0])
    assert crops.faces is not None
    for field in ("box", "landmarks", "score", "iod", "sharpness"):
        np.testing.assert_array_equal(crops.faces[field][[1, 2]], crops.faces[field][[3, 0]])
    assert_names(crops.notes[11], "page 2 of 3", "no-face")
    assert crops.notes.keys() == {11}


def test_the_main_page_stays_the_default(runner: Runner) -> None:
    crops = find_crops(runner, pages_tiff(LEFT, RIGHT), rules=replace(RULES, pages="main"))
    assert rows_of(crops) == [(10, 0, 0)]
    assert crops.notes == {10: "page 1 of 2"}


@pytest.mark.slow
def test_ranks_go_on_from_page_to_page(runner: Runner) -> None:
    crops = find_crops(runner, pages_tiff(TWO_SMALL, NOBODY, TWO_SMALL), rules=replace(RULES, policy="all"))
    assert rows_of(crops) == [(10, 1, 0), (10, 1, 1), (10, 3, 2), (10, 3, 3)]
    assert crops.face_counts == {10: 4}


@pytest.mark.slow
def test_a_page_is_judged_like_a_photo(runner: Runner) -> None:
    crops = find_crops(runner, pages_tiff(TWO_SMALL, ONE_SMALL), rules=replace(RULES, policy="one"))
    assert rows_of(crops) == [(10, 2, 0)]
    assert_names(crops.notes[10], "page 1 of 2", "multiple-faces")
    half = np.ascontiguousarray(RIGHT[::2, ::2])
    both = find_crops(runner, pages_tiff(half[:180], LEFT)).faces  # no preview, which would have the same shape
    assert both is not None
    limit = float(both["iod"].mean())
    assert both["iod"][0] < limit < both["iod"][1]
    crops = find_crops(runner, pages_tiff(half[:180], LEFT), rules=replace(RULES, min_iod=limit))
    assert rows_of(crops) == [(10, 2, 0)]
    assert_names(crops.notes[10], "page 1 of 2", "low-quality")


def test_a_damaged_page_costs_only_its_own_row(runner: Runner) -> None:
    for page, kept in ((0, 2), (1, 1)):
        crops = find_crops(runner, damage_page(pages_tiff(LEFT, RIGHT), page))
        assert rows_of(crops) == [(10, kept, 0)]
        assert_names(crops.notes[10], f"page {page + 1} of 2", "corrupt")


@pytest.mark.slow
def test_a_photo_without_a_good_page_has_the_outcome_that_says_most(runner: Runner) -> None:
    blank, damaged = pages_tiff(NOBODY, NOBODY, NOBODY), damage_page(pages_tiff(NOBODY, LEFT), 1)
    crops = find_crops(runner, blank, damaged)
    assert rows_of(crops) == []
    outcomes = {outcome.row: outcome for outcome in crops.outcomes}
    assert outcomes[10].status is Status.NO_FACE
    assert_names(outcomes[10].detail, "pages 1 to 3 of 3")
    assert outcomes[11].status is Status.CORRUPT
    assert_names(outcomes[11].detail, "page 1 of 2", "no-face", "page 2 of 2", "corrupt")
    assert crops.face_counts == {10: 0, 11: 0}
    assert len(crops) == 3


def test_limits_hold_for_each_page(runner: Runner) -> None:
    large = picture(800, 600, (60, 240, 180))
    crops = find_crops(runner, pages_tiff(LEFT, large), limits=Limits(max_pixels=200_000))
    assert rows_of(crops) == [(10, 1, 0)]
    assert_names(crops.notes[10], "page 2 of 2", "unsupported", 200_000)


@pytest.mark.slow
def test_too_many_pages_are_unsupported(runner: Runner) -> None:
    small = picture(64, 48)
    crops = find_crops(runner, pages_tiff(*[small] * (MAX_PAGES + 1)), pages_tiff(*[small] * MAX_PAGES))
    outcomes = {outcome.row: outcome for outcome in crops.outcomes}
    assert outcomes[10].status is Status.UNSUPPORTED
    assert_names(outcomes[10].detail, MAX_PAGES + 1, MAX_PAGES)
    assert outcomes[11].status is Status.NO_FACE


@pytest.mark.slow
def test_pages_that_are_too_large_together_are_unsupported(runner: Runner) -> None:
    limits = Limits(max_pixels=64 * 48)
    page = picture(64, 48)
    crops = find_crops(runner, pages_tiff(*[page] * 10), pages_tiff(*[page] * 11), limits=limits)
    outcomes = {outcome.row: outcome for outcome in crops.outcomes}
    assert outcomes[10].status is Status.NO_FACE
    assert outcomes[11].status is Status.UNSUPPORTED
    assert_names(outcomes[11].detail, 11, 64 * 48)


@pytest.mark.slow
def test_a_detail_names_runs_of_pages(runner: Runner) -> None:
    crops = find_crops(runner, pages_tiff(NOBODY, LEFT, NOBODY, NOBODY, NOBODY))
    assert_names(crops.notes[10], "pages 1, 3 to 5 of 5")


@pytest.mark.slow
def test_too_many_faces_are_unsupported(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_work, "_MAX_FACES", 2)
    crops = find_crops(runner, pages_tiff(LEFT, RIGHT, LEFT), pages_tiff(LEFT, RIGHT))
    assert rows_of(crops) == [(11, 1, 0), (11, 2, 1)]
    (outcome,) = (outcome for outcome in crops.outcomes if outcome.row == 10)
    assert outcome.status is Status.UNSUPPORTED


def test_the_contract_names_all_pages_and_not_the_main_page(
    detector: Engine, tiny_engine: Path, tmp_path: Path
) -> None:
    request = Request((), tmp_path / "o.h5", read_engine(tiny_engine), detector, RULES)
    everything = contract_of(request, request.engine.info, "/in")
    main = contract_of(replace(request, faces=replace(RULES, pages="main")), request.engine.info, "/in")
    assert everything.to_dict().keys() - main.to_dict().keys() == {"pages"}
    assert everything.differences(main, Guard.RUN) == ["pages: 'all' in the file, 'main' now"]
    assert main.differences(everything, Guard.FILE) == ["pages: 'main' in the file, 'all' now"]
    assert everything.differences(main, Guard.SCORES) == []
    assert face_rules_of(everything) == RULES
    assert face_rules_of(main) == replace(RULES, pages="main")


def test_rules_and_decoders_that_know_no_pages_are_refused(detector: Engine, tiny_engine: Path, tmp_path: Path) -> None:
    with raises(ConfigError, "--pages", "all", "--align", "none"):
        FaceRules("none", pages="all")
    with raises(ConfigError, "--pages", "every", "main", "all"):
        FaceRules(pages="every")
    with raises(ConfigError, "--decoder dali", "--pages all", "opencv"):
        Request((), tmp_path / "o.h5", read_engine(tiny_engine), detector, RULES, decoder="dali")
