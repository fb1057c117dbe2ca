"""Calibration crops: a seeded sample, decoded in the same way as in a run."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from runtime.api.calibration import gather_calibration
from runtime.errors import ConfigError, SourceError
from runtime.faces.finder import FindRules, draw
from runtime.images.decode import decode_image, decode_photo
from tests.support import encoded_images as make
from tests.support.errors import assert_names, raises
from tests.support.model_files import spec


def test_the_seed_decides_which_crops_are_drawn(photos: Path) -> None:
    sample_a, sample_b, sample_seed_1 = (
        gather_calibration([str(photos)], spec(), count=100, seed=seed) for seed in (0, 0, 1)
    )
    assert str(sample_a) == str(sample_b)
    np.testing.assert_array_equal(sample_a.crops, sample_b.crops)
    assert (sample_a.seed, sample_seed_1.seed) == (0, 1)
    drawn, again = ({crop.tobytes() for crop in sample.crops} for sample in (sample_a, sample_seed_1))
    assert len(drawn) == len(again) == 100
    assert len(drawn & again) < 50  # of 594


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_crops_equal_those_that_a_run_embeds(photos: Path, order: str) -> None:
    calibration = gather_calibration([str(photos)], spec(size=64, channel_order=order), count=1000)
    intact = [path for path in sorted(photos.rglob("*.jpg")) if int(path.stem[1:]) % 100 != 50]
    expected = {decode_image(path.read_bytes(), size=64, channel_order=order).tobytes() for path in intact}
    assert {crop.tobytes() for crop in calibration.crops} == expected
    assert calibration.crops.shape == (594, 64, 64, 3)


@pytest.mark.slow
@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_a_detector_is_calibrated_on_its_first_view(photos: Path, order: str) -> None:
    """Compare with whole photos, reduced to the detector's first view on a black canvas."""
    calibration = gather_calibration(
        [str(photos)], spec(size=224, channel_order=order, task="detect", decode="yunet"), count=1000
    )
    view = FindRules().views[0]
    expected = set()
    for path in sorted(photos.rglob("*.jpg")):
        if int(path.stem[1:]) % 100 != 50:
            photo = decode_photo(path.read_bytes(), long_side=640, channel_order=order).pixels
            canvas = np.zeros((view.long_side, view.long_side, 3), np.uint8)
            draw(photo, view, canvas)
            expected.add(canvas.tobytes())
    assert {image.tobytes() for image in calibration.crops} == expected
    assert calibration.crops.shape == (594, 160, 160, 3)


def test_unreadable_photos_are_skipped_and_counted(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "runtime")
    assert len(gather_calibration([str(photos)], spec(), count=594).crops) == 594
    assert_names(caplog.text, 594, 600, photos, 6)


def test_a_sample_is_drawn_from_all_of_the_scan(photos: Path) -> None:
    """A sample of the first files would be biased: photos of one session are next to each other."""
    calibration = gather_calibration([str(photos)], spec(), count=64)
    paths = sorted(photos.rglob("*.jpg"))
    at = {decode_image(p.read_bytes(), size=112).tobytes(): i for i, p in enumerate(paths) if _decode_canvas(p)}
    rows = [at[crop.tobytes()] for crop in calibration.crops]
    assert min(rows) < 100
    assert max(rows) > 500


def _decode_canvas(path: Path) -> bool:
    return int(path.stem[1:]) % 100 != 50


def test_a_list_of_paths_is_accepted(photos: Path, tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(photos.rglob("*.jpg")) if _decode_canvas(path)][:80]
    (tmp_path / "list.txt").write_text("\n".join(paths))
    assert len(gather_calibration([f"@{tmp_path / 'list.txt'}"], spec()).crops) == 80


def test_too_few_photos_are_refused(tmp_path: Path) -> None:
    for i in range(70):
        data = make.encode(make.scene(40, 30, seed=i))
        (tmp_path / f"{i}.jpg").write_bytes(data if i < 63 else data[:100])
    with raises(ConfigError, 63, 64):
        gather_calibration([str(tmp_path)], spec())
    with raises(SourceError, tmp_path / "none"):
        gather_calibration([str(tmp_path / "none")], spec())


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_numpy_does_not_accept_is_refused(photos: Path, seed: int) -> None:
    with raises(ConfigError, "seed"):
        gather_calibration([str(photos)], spec(), seed=seed)
