"""The public names, a light import, and every example in a docstring."""

from __future__ import annotations

import ast
import doctest
import inspect
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import runtime as facemill
from runtime.errors import ConfigError
from tests.support.portrait_people import write_people_photos

ROOT = Path(__file__).resolve().parents[1]
PEOPLE, SHOTS = 4, 3
JOBS = (
    "process",
    "open",
    "find_pairs",
    "cluster",
    "add",
    "remove",
)  # the examples change the file, so the order matters


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Portraits of people who do not exist, and an embedding file of them."""
    root = tmp_path_factory.mktemp("api")
    write_people_photos(root, PEOPLE, SHOTS)
    facemill.process(root / "photos", root / "people.h5")
    return root


@pytest.fixture
def working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "facemill", facemill)
    return folder


def run_examples(text: str, name: str) -> int:
    """Run the examples of a docstring as a user would type them; returns how many there are."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    output: list[str] = []
    runner.run(test, out=output.append)
    assert runner.failures == 0, "".join(output)
    return len(test.examples)


@pytest.mark.slow
def test_the_example_of_the_package_runs(working_folder: Path) -> None:
    assert run_examples(inspect.getdoc(facemill) or "", "facemill") >= 3


def callables() -> list[str]:
    """List public names in the order of their examples. EmbeddingFile's example runs in storage/test_file.py."""
    names = [name for name in facemill.__all__ if name != "EmbeddingFile"]
    return sorted(names, key=lambda name: (JOBS.index(name) if name in JOBS else -1, name))


@pytest.mark.slow
@pytest.mark.parametrize("name", callables())
def test_each_public_name_has_a_docstring_with_a_running_example(working_folder: Path, name: str) -> None:
    text = inspect.getdoc(getattr(facemill, name)) or ""
    count = run_examples(text, name)
    if name[0].islower() or name in ("FaceEmbedder", "Search"):
        assert count >= 2, f"{name} has no example"
    else:
        assert len(text) > 20


def test_public_names_are_equal_for_type_checkers_and_at_run_time() -> None:
    assert sorted(facemill.__all__) == sorted(facemill._HOME)
    assert set(facemill.__all__) <= set(dir(facemill))
    tree = ast.parse((ROOT / "runtime" / "__init__.py").read_text(encoding="utf-8"))
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level
        for alias in node.names
    }
    assert typed == facemill._HOME
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = facemill.nothing


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, runtime; print(sorted(name for name in sys.modules if name.startswith(('numpy', 'runtime.'))))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.stdout.strip() == "[]", result.stderr


@pytest.mark.slow
def test_a_photo_may_be_a_path_bytes_or_an_array(working_folder: Path) -> None:
    path = working_folder / "photos" / "person1" / "0.jpg"
    pixels = np.ascontiguousarray(cv2.imread(str(path))[..., ::-1])
    with facemill.FaceEmbedder() as embedder:
        of_path, of_bytes, of_array = embedder.embed([path, path.read_bytes(), pixels])
        same = embedder.compare(path, path.read_bytes())
    np.testing.assert_array_equal(of_path.vector, of_bytes.vector)
    assert float(of_path.vector @ of_array.vector) > 0.999  # the JPEG decoder itself makes large photos smaller
    assert same.score == pytest.approx(1, abs=1e-6)
    assert same.to_dict()["verdict"] == same.verdict
    (detection,) = facemill.detect(path)
    assert detection.faces[0].box == pytest.approx(of_path.face.box, abs=15)  # different views of the photo
    with facemill.Search("people.h5") as search:
        by_path, by_bytes, by_array = search.find([path, path.read_bytes(), pixels], k=4)
    assert by_path.hits[0].path == by_array.hits[0].path == "person1/0.jpg"
    assert by_bytes.hits == by_path.hits


@pytest.mark.slow
def test_results_are_json(working_folder: Path) -> None:
    photo = "photos/person2/1.jpg"
    results = [
        facemill.embed(photo)[0],
        facemill.detect(photo)[0],
        facemill.compare(photo, "photos/person0/0.jpg", file="people.h5"),
        facemill.find_pairs("people.h5", threshold=-1),
        facemill.cluster("people.h5", people=2, write_column=False),
    ]
    with facemill.Search("people.h5") as search:
        results += search.find([photo, b"no photo"])
    for result in results:
        line = json.dumps(result.to_dict())
        assert json.loads(line) == result.to_dict()


@pytest.mark.slow
def test_a_photo_that_cannot_be_embedded_has_its_error(working_folder: Path) -> None:
    missing, text = facemill.embed(["none.jpg", b"text"])
    assert missing.error.startswith("unreadable: ")
    assert text.error.startswith("unsupported: ")
    assert facemill.detect(b"text")[0].error == text.error
    assert facemill.compare("none.jpg", b"text").score is None


@pytest.mark.parametrize(
    "call",
    [
        lambda: facemill.embed("a.jpg", engine="a.onnx", model="tiny"),
        lambda: facemill.find_pairs("people.h5", threshold=0.5, expected_false=1),
        lambda: facemill.cluster("people.h5", people=3, threshold=0.5),
        lambda: facemill.remove("people.h5", []),
        lambda: facemill.detect("a.jpg", min_score=3),
    ],
)
def test_options_that_do_not_go_together_are_refused(working_folder: Path, call: object) -> None:
    with pytest.raises(ConfigError):
        call()  # type: ignore[operator]
