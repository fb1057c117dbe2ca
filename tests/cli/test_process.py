"""The process command: its file, its output, its refusals."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest

from runtime.engines.engine import read_engine, sidecar_path
from runtime.images.decode import decode_image
from runtime.pipeline.request import UNTRAINED_WARNING
from tests.support import encoded_images as make
from tests.support.errors import USAGE, Values, assert_refused
from tests.support.facemill_command import ROOT, facemill, summary
from tests.support.interrupted_runs import assert_same_file
from tests.support.model_files import copy_engine


@pytest.mark.slow
def test_a_folder_becomes_a_file(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.h5"
    result = facemill("process", photos, "-o", output, "--engine", tiny_engine, "--json")
    counts = summary(result)
    assert counts["scanned"] == 600
    assert counts["embedded"] == 594
    assert counts["outcomes"] == {"embedded": 594, "corrupt": 6}
    assert counts["images_per_s"] > 0
    assert counts["model"] == "tiny"
    assert {"read", "decode", "infer", "write"} <= counts["stages"].keys()
    assert "594 of 600" in result.stderr
    assert UNTRAINED_WARNING in result.stderr
    assert sorted(os.listdir(tmp_path)) == ["out.h5"]
    with h5py.File(output) as file:
        assert file["embeddings"].shape == (594, 16)
        assert file["embeddings"].dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(file["embeddings"][:], axis=1), 1, atol=1e-6)
        paths = file["image_paths"].asstr()[:].tolist()
        assert paths == sorted(paths)
        metadata = dict(file["metadata"].attrs)
        assert (metadata["align"], metadata["detector"]) == ("auto", "facemill-det")
        assert metadata["root"] == str(photos)
        assert metadata["model"] == "tiny"
        assert metadata["model_sha256"] == counts["model_sha256"]
        assert not metadata["trained"]
        assert metadata["count_corrupt"] == 6
        assert metadata["warning"] == UNTRAINED_WARNING


@pytest.mark.slow
def test_embeddings_agree_with_plain_onnxruntime(
    photos: Path, tiny_model: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.h5"
    assert facemill("process", photos / "3", "-o", output, "--engine", tiny_engine).returncode == 0
    session = onnxruntime.InferenceSession(tiny_model.with_suffix(".onnx"), providers=["CPUExecutionProvider"])
    with h5py.File(output) as file:
        for row, path in enumerate(file["image_paths"].asstr()[:]):
            crop = decode_image((photos / "3" / path).read_bytes(), size=112)
            tensor = (crop.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 127.5
            expected = session.run(None, {"image": tensor})[0][0]
            assert file["embeddings"][row] @ expected / np.linalg.norm(expected) > 0.99999


def write_difficult_files(folder: Path) -> dict[str, str]:
    """Write one file of each difficult kind; returns the expected outcome of each."""
    pixels = make.scene(150, 120)
    good = make.encode(pixels)
    files = {
        "cmyk.jpg": make.cmyk_jpeg(pixels),
        "progressive.jpg": make.encode(pixels, progressive=True),
        "grey.jpeg": make.encode(pixels[..., 0]),
        "sixteen.png": make.png16(pixels[..., 0].astype(np.uint16) << 8),
        "alpha.png": make.encode(np.dstack([pixels, pixels[..., 0]]), "PNG"),
        "x.bmp": make.encode(pixels, "BMP"),
        "x.webp": make.encode(pixels, "WEBP"),
        "UPPER.TIF": make.encode(pixels, "TIFF"),
        "grüße-世界-😀.jpg": good,
        "x" * 250 + ".jpg": good,
        "/".join(["deep" * 20] * 12) + "/y.jpg": good,
        "line\nbreak\x1b[31m.jpg": good,
    }
    files |= {f"exif{i}.jpg": make.encode(make.STORED[i](pixels), orientation=i) for i in range(1, 9)}
    expected = dict.fromkeys(files, "embedded")
    bad = {
        "truncated.jpg": (good[: len(good) // 2], "corrupt"),
        "zero.jpg": (b"", "corrupt"),
        "text.jpg": (b"hello", "unsupported"),
        "bomb.png": (make.png_bomb(50_000, 50_000), "unsupported"),
    }
    files |= {name: data for name, (data, _) in bad.items()}
    expected |= {name: outcome for name, (_, outcome) in bad.items()}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / os.fsdecode(b"latin-\xe9.jpg")).write_bytes(good)
    expected["latin-\\xe9.jpg"] = "embedded"
    os.mkfifo(folder / "pipe.jpg")
    expected["pipe.jpg"] = "unreadable"
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    expected["dangling.jpg"] = "unreadable"
    return expected


def read_outcomes(path: Path) -> dict[str, str]:
    from runtime.records import Status

    with h5py.File(path) as file:
        group = file["outcomes"]
        pairs = zip(group["path"].asstr()[:], group["status"][:], strict=True)
        return {name: Status(int(status)).label for name, status in pairs}


def test_every_difficult_file_has_its_outcome(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    expected = write_difficult_files(folder)
    output = tmp_path / "out.h5"
    # The photos show no face: without alignment, every decodable file is embedded.
    result = facemill("process", folder, "-o", output, "--engine", tiny_engine, "--align", "none")
    assert result.returncode == 0, result.stderr
    assert read_outcomes(output) == expected
    with h5py.File(output) as file:  # eight orientations of one image
        row_of = {name: i for i, name in enumerate(file["image_paths"].asstr()[:])}
        vectors = file["embeddings"][:][[row_of[f"exif{i}.jpg"] for i in range(1, 9)]]
    assert (vectors @ vectors.T).min() > 0.999


OTHER_USER_CODE = """
import os, sys
sys.path.insert(0, {root!r})
from runtime.cli.process import main
# The first call imports everything as root, because the other user cannot read this interpreter's packages.
options = ["--engine", {engine!r}, "--align", "none"]
main([{photo!r}, "-o", {writable!r} + "/root.h5", *options], standalone_mode=False)
os.setuid(65534)
main([{folder!r}, "-o", {writable!r} + "/o.h5", *options])
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user without permission")
def test_an_unreadable_file_is_an_outcome(tiny_engine: Path, tmp_path: Path) -> None:
    folder, engines, writable = tmp_path / "photos", tmp_path / "engines", tmp_path / "writable"
    for directory in (folder, engines, writable):
        directory.mkdir()
    for name in ("1.jpg", "2.jpg"):
        (folder / name).write_bytes(make.encode(make.scene(112, 112)))
    (folder / "1.jpg").chmod(0)
    for file in (tiny_engine, sidecar_path(tiny_engine)):
        shutil.copy(file, engines)
    os.chown(writable, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents[:3]):  # pytest-xdist adds one parent folder
        parent.chmod(parent.stat().st_mode | 0o055)
    engine = engines / tiny_engine.name
    values = {"root": ROOT, "photo": folder / "2.jpg", "folder": folder, "writable": writable, "engine": engine}
    code = OTHER_USER_CODE.format(**{name: str(value) for name, value in values.items()})
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "FACEMILL_CACHE": str(writable)},
    )
    assert result.returncode == 0, result.stderr
    assert read_outcomes(writable / "o.h5") == {"1.jpg": "unreadable", "2.jpg": "embedded"}


@pytest.mark.slow
def test_a_repeated_command_does_nothing(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    arguments = (photos / "1", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--json")
    first = summary(facemill("process", *arguments))
    content_before = (tmp_path / "o.h5").read_bytes()
    result = facemill("process", *arguments)
    repeated = summary(result)
    assert repeated["verdict"] == "nothing to do"
    assert repeated["outcomes"] == first["outcomes"]
    assert repeated["processed"] == 0
    assert (tmp_path / "o.h5").read_bytes() == content_before


@pytest.mark.slow
def test_retry_processes_only_failed_photos(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    files = {f"{i}.jpg": make.encode(make.scene(112, 112, seed=i)) for i in range(6)}
    for name, data in files.items():
        (folder / name).write_bytes(data)
    arguments = ("process", folder, "--engine", tiny_engine, "--json", "-o")
    assert facemill(*arguments, tmp_path / "whole.h5").returncode == 0
    (folder / "2.jpg").write_bytes(files["2.jpg"][:500])
    (folder / "4.jpg").unlink()
    (folder / "4.jpg").symlink_to("gone")
    output = tmp_path / "o.h5"
    assert summary(facemill(*arguments, output))["embedded"] == 4
    (folder / "2.jpg").write_bytes(files["2.jpg"])
    (folder / "4.jpg").unlink()
    (folder / "4.jpg").write_bytes(files["4.jpg"])
    assert summary(facemill(*arguments, output))["embedded"] == 4
    repeated = summary(facemill(*arguments, output, "--retry"))
    assert (repeated["embedded"], repeated["processed"]) == (6, 2)
    assert_same_file(output, tmp_path / "whole.h5")


@pytest.mark.slow
def test_duplicates_are_skipped_and_name_their_original(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    data = make.encode(make.scene(112, 112))
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).write_bytes(data if name != "b.jpg" else make.encode(make.scene(112, 112, seed=1)))
    result = facemill(
        "process", folder, "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--skip-duplicates", "--json"
    )
    assert summary(result)["outcomes"] == {"embedded": 2, "duplicate": 1}
    with h5py.File(tmp_path / "o.h5") as file:
        assert file["outcomes/detail"].asstr()[2] == "the same file as a.jpg"


@pytest.mark.slow
def test_a_changed_setting_is_refused_with_both_values(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    arguments = ("process", photos / "1", "-o", tmp_path / "o.h5", "--engine", tiny_engine)
    assert facemill(*arguments).returncode == 0
    content_before = (tmp_path / "o.h5").read_bytes()
    for extra, values in (
        (("--dtype", "float16"), ("dtype", "float32", "float16")),
        (("--limit", 3), ("limit", 0, 3)),
    ):
        assert_refused(facemill(*arguments, *extra), "E-CONTRACT", *values)
    other_engine = tmp_path / "other.onnx"
    info = read_engine(tiny_engine).info
    copy_engine(tiny_engine, other_engine, model_sha256="f" * 64)
    result = facemill("process", photos / "1", "-o", tmp_path / "o.h5", "--engine", other_engine)
    assert_refused(result, "E-CONTRACT", "model_sha256", info.model_sha256, "f" * 64)
    assert (tmp_path / "o.h5").read_bytes() == content_before


@pytest.mark.slow
def test_a_file_that_may_be_damaged_is_overwritten_only_with_force(
    photos: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    output = tmp_path / "people.h5"
    output.write_bytes(b"\0damaged")
    arguments = ("process", photos / "1", "-o", output, "--engine", tiny_engine)
    result = facemill(*arguments)
    assert_refused(result, "E-STORAGE", output, "-o", "--force")
    assert output.read_bytes() == b"\0damaged"
    assert facemill(*arguments, "--force").returncode == 0
    assert len(read_outcomes(output)) == 86


@pytest.mark.slow
def test_a_failed_first_run_does_not_fix_the_settings(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output = tmp_path / "o.h5"
    arguments = ("process", photos / "1", "-o", output, "--engine", tiny_engine)
    result = facemill(*arguments, "--batch-size", 5000)
    assert_refused(result, "E-CONFIG", "--batch-size", 5000, 1, 256)
    damaged = tmp_path / "damaged.onnx"  # this engine fails only after the plan is written
    copy_engine(tiny_engine, damaged, model_sha256="f" * 64)
    damaged.write_bytes(b"damaged")
    assert facemill("process", photos / "1", "-o", output, "--engine", damaged).returncode == 1
    assert facemill(*arguments).returncode == 0


@pytest.mark.parametrize("output", ["", ".", "folder"])
def test_an_output_that_is_a_folder_is_refused_before_any_work(
    output: str, photos: Path, tiny_engine: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    result = facemill("process", photos / "1", "-o", output, "--engine", tiny_engine, "--force", cwd=tmp_path)
    assert_refused(result, "E-CONFIG", output)
    assert os.listdir(tmp_path) == ["folder"]


@pytest.mark.slow
def test_an_output_that_is_a_link_is_followed(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.h5").symlink_to(tmp_path / "disk" / "real.h5")
    assert facemill("process", photos / "1", "-o", tmp_path / "link.h5", "--engine", tiny_engine).returncode == 0
    assert (tmp_path / "link.h5").is_symlink()
    assert len(read_outcomes(tmp_path / "disk" / "real.h5")) == 86


def test_a_parts_folder_with_foreign_files_is_refused(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    foreign_folder = tmp_path / "o.h5.parts"
    (foreign_folder / "letters").mkdir(parents=True)
    result = facemill("process", photos / "1", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--force")
    assert_refused(result, "E-CONFIG", foreign_folder, "letters", "-o")
    assert (foreign_folder / "letters").is_dir()


def test_limit_strict_float16_and_log_work_together(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    output, log = tmp_path / "o.h5", tmp_path / "run.log"
    result = facemill("process", photos, "-o", output, "--engine", tiny_engine, "--limit", 10, "--strict", "--dtype",
               "float16", "--log", log, "--batch-size", 3, "--workers", 1, "--json")  # fmt: skip
    failed = list(read_outcomes(output).values()).count("corrupt")
    assert result.returncode == (1 if failed else 0)
    assert json.loads(result.stdout)["scanned"] == 10
    assert log.stat().st_size > 0
    with h5py.File(output) as file:
        assert file["embeddings"].dtype == np.float16


def test_strict_exits_1_when_a_photo_failed(tiny_engine: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"")
    result = facemill("process", tmp_path / "x.jpg", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--strict")
    assert result.returncode == 1
    assert read_outcomes(tmp_path / "o.h5") == {"x.jpg": "corrupt"}


@pytest.mark.slow
def test_list_files_and_single_files_give_the_same_rows(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    names = sorted((photos / "2").iterdir())
    (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
    for output, inputs in (("a.h5", [f"@{tmp_path / 'list.txt'}"]), ("b.h5", names), ("c.h5", [photos / "2"])):
        assert facemill("process", *inputs, "-o", tmp_path / output, "--engine", tiny_engine).returncode == 0
    assert_same_file(tmp_path / "a.h5", tmp_path / "b.h5")
    assert_same_file(tmp_path / "a.h5", tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("arguments", "code", "values"),
    [
        ((), USAGE, ("PHOTOS...",)),
        (("nowhere",), "E-SOURCE", ("nowhere",)),
        (("@nowhere.txt",), "E-SOURCE", ("nowhere.txt",)),
        ((".", "--batch-size", "0"), USAGE, ("--batch-size", 0, "auto")),
        ((".", "--workers", "many"), USAGE, ("--workers", "many", "auto")),
        ((".", "--engine", "e", "--model", "m"), USAGE, ("--engine", "--model")),
        ((".", "--engine", "nowhere.onnx"), "E-ENGINE", ("nowhere.onnx", "facemill build-engine")),
        ((".", "--model", "nosuchmodel"), "E-MODEL", ("nosuchmodel",)),
        ((".", "-o", "/proc/none/x.h5"), "E-CONFIG", ("/proc/none",)),
    ],
)
def test_wrong_arguments_are_refused(
    arguments: tuple[str, ...], code: str, values: Values, tiny_engine: Path, tmp_path: Path
) -> None:
    if "--engine" not in arguments and "--model" not in arguments:
        arguments = (*arguments, "--engine", str(tiny_engine))
    result = facemill("process", *arguments, cwd=tmp_path)
    assert_refused(result, code, *values)


def test_a_damaged_engine_is_refused(photos: Path, tiny_engine: Path, tmp_path: Path) -> None:
    other_engine = tmp_path / tiny_engine.name
    copy_engine(tiny_engine, other_engine)
    other_engine.write_bytes(tiny_engine.read_bytes()[:-10])
    result = facemill("process", photos / "1", "-o", tmp_path / "o.h5", "--engine", other_engine)
    assert_refused(result, "E-ENGINE", other_engine, "sha256")
