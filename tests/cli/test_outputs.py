"""No command replaces one of its inputs, or a file that is plainly something else, even with --force."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from runtime.engines.engine import sidecar_path
from tests.support import encoded_images as make
from tests.support.clustered_files import people_rows, write_file
from tests.support.errors import assert_refused
from tests.support.facemill_command import facemill
from tests.support.model_files import write_model_file


@pytest.fixture
def folder(tiny_engine: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """A folder with one of each: photos, a list, an engine, a model, embedding files and their links."""
    (tmp_path / "photos").mkdir()
    for number in range(2):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=number)))
    (tmp_path / "list.txt").write_text("photos/0.jpg\nphotos/1.jpg\n")
    shutil.copy(tiny_engine, tmp_path / "e.onnx")
    shutil.copy(sidecar_path(tiny_engine), tmp_path / "e.onnx.json")
    shutil.copy(tiny_model.with_suffix(".onnx"), tmp_path / "m.onnx")
    write_model_file(tmp_path / "m.toml", name="m", file="m.onnx")
    for name in ("people.h5", "others.h5"):
        write_file(tmp_path / name, people_rows([3, 3]))
    os.link(tmp_path / "list.txt", tmp_path / "list.h5")
    os.link(tmp_path / "people.h5", tmp_path / "hard.h5")
    (tmp_path / "soft.h5").symlink_to("people.h5")
    for number, name in enumerate(("page.html", "rows.csv", "rows.parquet")):
        shutil.copy(tmp_path / ("people.h5" if number else "photos/0.jpg"), tmp_path / name)
    shutil.copy(tmp_path / "list.txt", tmp_path / "list.html")
    return tmp_path


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


RUN = ("--engine", "e.onnx", "--align", "none", "--force")
INPUT, KIND = "E-CONFIG", "E-EXISTS"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("process", "@list.txt", "-o", "list.txt", *RUN), INPUT),
        (("process", "@list.txt", "-o", "list.h5", *RUN), INPUT),
        (("process", "photos/0.jpg", "photos/1.jpg", "-o", "photos/1.jpg", *RUN), INPUT),
        (("process", "photos", "-o", "photos/1.jpg", *RUN), KIND),
        (("process", "photos", "-o", "list.txt", *RUN), KIND),
        (("process", "photos", "-o", "e.onnx", *RUN), INPUT),
        (("process", "photos", "-o", "e.onnx.json", *RUN), INPUT),
        (("process", "photos", "-o", "m.toml", "--model", "m.toml", "--align", "none", "--force"), INPUT),
        (("process", "photos", "-o", "m.onnx", "--model", "m.toml", "--align", "none", "--force"), INPUT),
        (("repair", "people.h5", "-o", "photos/1.jpg", "--force"), KIND),
        (("repair", "people.h5", "-o", "hard.h5", "--force"), INPUT),
        (("repair", "people.h5", "-o", "soft.h5", "--force"), INPUT),
        (("merge", "people.h5", "others.h5", "-o", "hard.h5", "--force"), INPUT),
        (("merge", "people.h5", "others.h5", "-o", "list.txt", "--force"), KIND),
        (("search", "people.h5", "@list.html", "--html", "list.html", "--force"), INPUT),
        (("search", "people.h5", "photos/0.jpg", "--html", "page.html", "--force"), KIND),
        (("compare", "photos/0.jpg", "photos/1.jpg", "--html", "page.html", "--force"), KIND),
        (("map", "people.h5", "-o", "page.html", "--force"), KIND),
        (("pairs", "people.h5", "--threshold", "0.9", "-o", "rows.csv", "--force"), KIND),
        (("pairs", "people.h5", "--threshold", "0.9", "-o", "new.csv", "--html", "page.html", "--force"), KIND),
        (("cluster", "people.h5", "-k", "2", "-o", "rows.csv", "--force"), KIND),
        (("export", "people.h5", "--parquet", "rows.parquet", "--force"), KIND),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_an_input_or_another_file_is_never_replaced(words: tuple[str, ...], code: str, folder: Path) -> None:
    before = content(folder)
    output = words[max(words.index(option) for option in ("-o", "--html", "--parquet") if option in words) + 1]
    named = "people.h5" if output == "soft.h5" else output  # links of an embedding file are followed
    assert_refused(facemill(*words, cwd=folder), code, named)
    assert content(folder) == before


LOGGED = ("process", "photos", "--engine", "e.onnx", "--align", "none")


@pytest.mark.parametrize(
    "words",
    [
        (*LOGGED, "-o", "new.h5", "--log", "new.h5"),
        (*LOGGED, "-o", "new.h5", "--log", "photos/../new.h5"),
        (*LOGGED, "-o", "new.h5", "--log", "photos/0.jpg"),
        (*LOGGED, "-o", "new.h5", "--log", "people.h5"),
        (*LOGGED, "-o", "new.h5", "--log", "e.onnx.json", "--engine", "e.onnx.json"),
        ("process", "@list.txt", "-o", "new.h5", "--engine", "e.onnx", "--align", "none", "--log", "list.h5"),
        ("process", "photos", "-o", "new.h5", "--model", "m.toml", "--align", "none", "--log", "m.toml"),
        ("add", "people.h5", "@list.txt", "--log", "list.txt"),
        ("attributes", "people.h5", "--log", "soft.h5"),
        ("serve", "people.h5", "--port", "0", "--log", "people.h5"),
        ("serve", "people.h5", "--port", "0", "--token-file", "list.txt", "--log", "list.txt"),
        ("serve", "people.h5", "--port", "0", "--audit", "new.log", "--log", "new.log"),
        ("serve", "--engine", "e.onnx", "--align", "none", "--port", "0", "--audit", "photos/0.jpg"),
        ("serve", "--engine", "e.onnx", "--align", "none", "--token-file", "tokens", "--audit", "tokens"),
    ],
    ids=lambda words: " ".join(words),
)
def test_a_log_is_appended_to_a_text_of_its_own_only(words: tuple[str, ...], folder: Path) -> None:
    (folder / "tokens").touch(0o600)
    (folder / "tokens").write_text(f"gate {'0' * 64}\n")
    before = content(folder)
    option = "--log" if "--log" in words else "--audit"
    assert_refused(facemill(*words, cwd=folder), "E-CONFIG", option, words[words.index(option) + 1])
    assert content(folder) == before


@pytest.mark.slow
def test_a_log_goes_on_after_earlier_text(folder: Path) -> None:
    for name, start in (("new.log", None), ("empty.log", ""), ("run.log", "2026-01-01 earlier\n")):
        if start is not None:
            (folder / name).write_text(start)
        for _ in range(2):
            assert facemill(*LOGGED, "-o", "new.h5", "--log", name, cwd=folder).returncode == 0
        text = (folder / name).read_text()
        assert text.startswith(start or "")
        assert text.count("scanning for photos") == 2


def test_an_engine_never_replaces_the_network_that_it_is_made_of(folder: Path) -> None:
    network = folder / "m.cpu-fp32.onnx"
    (folder / "m.onnx").rename(network)
    write_model_file(folder / "m.toml", name="m", file=network.name)
    before = content(folder)
    assert_refused(facemill("build-engine", "--model", "m.toml", "--output", ".", cwd=folder), INPUT, network)
    assert content(folder) == before


def test_a_report_never_replaces_the_table_of_its_evaluation(folder: Path) -> None:
    (folder / "out").mkdir()
    table = folder / "out" / "report.md"
    table.write_text("path,age\n0.jpg,30\n")
    done = facemill("evaluate", "photos", "--attributes", table, "-o", "out", "--force", cwd=folder)
    assert_refused(done, INPUT, table)


BLOCKS = {
    "pipe": os.mkfifo,
    "folder": os.mkdir,
    "link": lambda path: os.symlink("elsewhere", path),
    "file": lambda path: path.write_text("a letter"),
}


@pytest.mark.parametrize("kind", ["pipe", "link", "file"])
def test_what_blocks_the_run_folder_is_named(kind: str, folder: Path) -> None:
    BLOCKS[kind](folder / "new.h5.parts")
    assert_refused(facemill(*LOGGED, "-o", "new.h5", cwd=folder), "E-CONFIG", "new.h5.parts", f"a {kind}", "move")


@pytest.mark.parametrize(
    "words",
    [
        (*LOGGED, "-o", "new.h5"),
        ("merge", "people.h5", "others.h5", "-o", "new.h5"),
        ("add", "new.h5", "photos"),
        ("attributes", "new.h5"),
        ("remove", "new.h5", "--path", "person0/", "--yes"),
        ("cluster", "people.h5", "--threshold", "0.9", "-o", "new.csv"),
    ],
)
def test_a_folder_with_the_temporary_name_is_named_before_the_work(words: tuple[str, ...], folder: Path) -> None:
    if words[0] in ("add", "attributes", "remove"):
        shutil.copy(folder / "people.h5", folder / "new.h5")
    blocked = folder / ("new.csv.partial" if "new.csv" in words else "new.h5.partial")
    blocked.mkdir()
    before = content(folder)
    done = facemill(*words, cwd=folder)
    assert_refused(done, KIND, blocked.name, "folder", "Move")
    assert "scanning" not in done.stderr
    assert content(folder) == before


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_decisions_that_cannot_be_read_stop_a_removal_before_anything_is_erased(
    kind: str, dry: tuple[str, ...], folder: Path
) -> None:
    BLOCKS[kind](folder / "people.h5.review")
    before = content(folder)
    done = facemill("remove", "people.h5", "--path", "person0/", "--yes", *dry, cwd=folder)
    assert_refused(done, "E-STORAGE", "people.h5.review", f"a {kind}", "move")
    assert content(folder) == before
