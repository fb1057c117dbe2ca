"""`cluster` and `pairs`, killed between their outputs: the same command goes on, and knows its own outputs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from tests.support.clustered_files import people_rows, write_file
from tests.support.errors import assert_refused
from tests.support.facemill_command import ROOT, facemill

CLUSTER = ("-o", "{0}/list.csv", "--folders", "{0}/folders", "--sheets", "{0}/sheets")
COMMANDS = {
    "pairs": ("pairs", "{0}/people.h5", "--threshold", "0.5", "-o", "{0}/pairs.csv", "--html", "{0}/pairs.html"),
    "cluster": ("cluster", "{0}/people.h5", "--threshold", "0.5", *CLUSTER),
    "cluster -k": ("cluster", "{0}/people.h5", "-k", "4", *CLUSTER),
}
# Every step that changes a name: renames, new folders, links and deletions. The process is killed before one of them.
KILLER = """
import os, signal, sys
sys.path.insert(0, {root!r})
left = {number}
def killing(function):
    def wrapped(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return wrapped
for name in ("replace", "rename", "mkdir", "symlink", "unlink", "rmdir"):
    setattr(os, name, killing(getattr(os, name)))
from runtime.cli.app import main
main({arguments!r})
"""


def arguments_of(command: str, folder: Path) -> list[str]:
    return [word.format(folder) for word in COMMANDS[command]]


@pytest.fixture
def people(tmp_path: Path) -> Path:
    return write_file(tmp_path / "people.h5", people_rows([3, 2, 2, 1], noise=0.1))


def tree(folder: Path) -> dict[str, bytes | None]:
    """All files below a folder and their content, without the embedding file and its list of pages."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
        if not path.relative_to(folder).parts[0].startswith("people.h5")
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_the_same_command_goes_on_after_a_kill_at_every_step(command: str, people: Path, tmp_path: Path) -> None:
    original = people.read_bytes()
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "people.h5").write_bytes(original)
    assert facemill(*arguments_of(command, whole)).returncode == 0
    expected = tree(whole)
    number, kills = 0, 0
    while True:
        number += 1 if command == "pairs" else 2
        here = tmp_path / f"{number}"
        here.mkdir()
        (here / "people.h5").write_bytes(original)
        arguments = arguments_of(command, here)
        program = KILLER.format(root=str(ROOT), number=number, arguments=arguments)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, done.stderr
            break
        kills += 1
        if tree(here).keys() == expected.keys() and not list(here.glob("people.h5.*.parts/outputs.json")):
            continue  # killed after its last step: it is finished
        again = facemill(*arguments)
        assert again.returncode == 0, (number, again.stderr)
        assert tree(here).keys() == expected.keys()
        assert tree(here).get("list.csv") == expected.get("list.csv")
        assert tree(here).get("pairs.csv") == expected.get("pairs.csv")
        with h5py.File(here / "people.h5") as file:
            assert ("cluster" in file) == (command != "pairs")
        assert not list(here.glob("*.parts"))
    assert kills > 10


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_file_that_somebody_else_put_there_is_never_replaced(command: str, people: Path, tmp_path: Path) -> None:
    arguments = arguments_of(command, tmp_path)
    first = Path(arguments[arguments.index("-o") + 1])
    # The first rename that gives an output its name is the last step of this process.
    program = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r}); replace = os.replace\n"
        f"def kill(source, target):\n    replace(source, target)\n"
        f"    if str(target) == {str(first)!r}: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"os.replace = kill\nfrom runtime.cli.app import main\nmain({arguments!r})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    content = first.read_bytes()
    first.unlink()
    first.write_bytes(content)  # equal, but not ours
    assert_refused(facemill(*arguments), "E-EXISTS", first)
    os.unlink(first)
    assert facemill(*arguments).returncode == 0
    assert first.read_bytes() == content


@pytest.mark.slow
def test_another_job_does_not_own_the_outputs(people: Path, tmp_path: Path) -> None:
    arguments = arguments_of("pairs", tmp_path)
    program = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from runtime.pages import pairs_page\n"
        "def kill(*a, **b): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pairs_page.render = kill\nfrom runtime.cli.app import main\nmain({arguments!r})"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert (tmp_path / "pairs.csv").exists()
    assert_refused(facemill(*arguments, "--page-pairs", 3), "E-EXISTS", tmp_path / "pairs.csv")
    assert facemill(*arguments).returncode == 0


@pytest.mark.slow
def test_an_unfinished_search_stays_when_k_means_runs(people: Path, tmp_path: Path) -> None:
    parts = tmp_path / "people.h5.pairs.parts"
    arguments = arguments_of("pairs", tmp_path)
    program = (
        f"import os, signal, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from runtime.api import pairs\n"
        "def kill(*a, **b): os.kill(os.getpid(), signal.SIGKILL)\n"
        f"pairs.PairTable = kill\nfrom runtime.cli.app import main\nmain({arguments!r})"
    )
    subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    before = sorted(os.listdir(parts))
    assert facemill("cluster", people, "-k", 3).returncode == 0
    assert sorted(os.listdir(parts)) == before
    assert "resuming" in facemill(*arguments).stderr
