"""The examples in the documents work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.facemill_command import ROOT, facemill
from tests.support.portrait_people import write_people_photos

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md"]


def blocks(path: Path, language: str) -> list[str]:
    """Return the fenced code blocks of a document."""
    text = path.read_text(encoding="utf-8")
    matches = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", code, flags=re.MULTILINE) for indent, code in matches]


@pytest.fixture(scope="module")
def folder(photos: Path, tiny_engine: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an embedding file, named as in the documents."""
    root = tmp_path_factory.mktemp("documents")
    assert facemill("process", photos, "-o", root / "people.h5", "--engine", tiny_engine).returncode == 0
    shutil.copy(root / "people.h5", root / "facial_embeddings.h5")
    return root


@pytest.fixture(scope="module")
def portraits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos of the library examples."""
    root = tmp_path_factory.mktemp("portraits")
    write_people_photos(root, people=4, shots=3)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.name)
def test_python_in_the_documents_runs(path: Path, folder: Path, portraits: Path) -> None:
    working_folder = portraits if path.name in ("README.md", "python.md") else folder
    for code in blocks(path, "python"):
        result = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=working_folder, timeout=120
        )
        assert result.returncode == 0, f"{code}\n{result.stderr}"
        assert result.stdout.strip()


@pytest.mark.slow
def test_the_output_of_the_reader_example_is_correct(folder: Path) -> None:
    (code,) = blocks(ROOT / "docs" / "format.md", "python")
    assert len(code.strip().splitlines()) <= 10
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder, timeout=60)
    lines = result.stdout.splitlines()
    assert lines[0] == "tiny (594, 16)"
    assert lines[1].startswith("1.000 0/p0000.jpg")


@pytest.mark.slow
def test_the_diagrams_match_the_code() -> None:
    result = subprocess.run([sys.executable, ROOT / "docs" / "draw.py", "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = set(re.findall(r"^ +- .+: (\S+\.md)$", config, re.MULTILINE))
    assert pages == {path.name for path in (ROOT / "docs").glob("*.md")}


def test_every_error_code_is_documented() -> None:
    from runtime import errors

    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^\| `(E-[A-Z-]+)` \| `(\w+)` \|", text, re.MULTILINE))
    classes = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.FacemillError)]
    assert documented == {c.code: c.__name__ for c in classes}


def test_the_readme_fits_its_limits() -> None:
    lines = README.splitlines()
    assert len(lines) < 200
    assert [line for line in lines if len(line) > 120] == []


def test_ci_runs_the_commands_of_the_readme() -> None:
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ("make check", "make test"):
        assert command in ci
        assert command in README
    assert "make demo" in README


def shown_commands() -> list[tuple[str, str]]:
    """(document, command line) of every facemill command in a console block."""
    commands = []
    for path in SHOWN:
        for block in blocks(path, "console"):
            for line in re.findall(r"^\$ (?:nohup )?(?:\.venv/bin/)?facemill (.+)$", block, re.MULTILINE):
                commands.append((path.name, line))
    return commands


@pytest.mark.parametrize(("document", "line"), shown_commands())
def test_every_documented_option_exists(document: str, line: str) -> None:
    import click
    from click.testing import CliRunner

    from runtime.cli.app import main

    arguments = line.split()
    result = CliRunner().invoke(main, [arguments[0], "--help"])
    assert result.exit_code == 0, f"{document}: {line}"
    if isinstance(main.get_command(click.Context(main), arguments[0]), click.Group):
        return
    for option in re.findall(r"(?<!\S)(--?[a-z][a-z-]*)", line):
        assert option in result.output, f"{document}: {line}"


@pytest.mark.slow
def test_every_command_and_option_is_documented() -> None:
    """Each command is in the README, each has an example in its help."""
    import click

    from runtime.cli.app import main

    environment = {**os.environ, "COLUMNS": "100"}
    for command in main.list_commands(click.Context(main)):
        assert f"facemill {command}" in README
        result = subprocess.run(
            [sys.executable, "-m", "runtime.cli.app", command, "--help"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=60,
        )
        assert "Examples:" in result.stdout


@pytest.mark.parametrize("path", SHOWN, ids=lambda p: p.name)
def test_links_between_documents_are_valid(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target
