"""A contract in words names what was decided, whatever the options of the run were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import runtime as facemill
from runtime.faces.rules import FaceRules
from runtime.web.contract_words import contract_words
from tests.support import encoded_images as make


def test_the_words_follow_the_contract(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(make.encode(make.scene(112, 112, seed=1)))
    facemill.process(folder, tmp_path / "a.h5", engine=tiny_engine, faces=FaceRules("none"))
    with facemill.open(tmp_path / "a.h5") as file:
        contract = file.contract
    words = dict(contract_words(contract))
    assert str(folder) in words["Photos"]
    assert "taken whole" in words["Faces"]
    assert "Detector" not in words
    changed = replace(
        contract,
        align="detect",
        faces="all",
        detector="yunet",
        detector_precision="fp16",
        min_iod=24.0,
        min_sharpness=0.0,
        limit=1000,
    )
    words = dict(contract_words(changed))
    assert words["Faces"].startswith("every face of each photo")
    assert words["Detector"].startswith("yunet, fp16")
    assert "below 24 pixels" in words["Left out"]
    assert "sharpness" not in words["Left out"]
    assert "the first 1,000" in words["Photos"]
