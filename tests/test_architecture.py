"""The shape of the code: which room imports which, how large a module may grow, what works with no package."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = ROOT / "runtime"
MODULES = sorted(RUNTIME.rglob("*.py"))

# A room may import rooms of a lower layer, and itself.
LAYERS = {
    "errors": 0,
    "schema": 0,
    "files": 1,
    "libcuda": 0,
    "defaults": 0,
    "__init__": 14,
    "records": 1,
    "extras": 1,
    "text": 1,
    "metrics": 1,
    "interrupt": 1,
    "assets": 2,
    "progress": 2,
    "sources": 2,
    "fetch": 3,
    "modelspec": 3,
    "modelstore": 4,
    "images": 5,
    "cuda": 5,
    "storage": 6,
    "demo": 6,
    "faces": 6,
    "index": 7,
    "graphs": 7,
    "engines": 8,
    "pipeline": 9,
    "doctor": 9,
    "search": 10,
    "pairs": 10,
    "evaluation": 10,
    "clusters": 11,
    "maintenance": 11,
    "estimate": 11,
    "export": 11,
    "pages": 12,
    "api": 13,
    "cli": 14,
}

# numpy is not among them: every record holds arrays.
BLOCKED = (
    "cupy", "cv2", "faiss", "h5py", "jinja2", "markupsafe", "matplotlib", "nvidia", "onnx", "onnxruntime",
    "platformdirs", "plotly", "pyarrow", "pycuda", "qdrant_client", "rich", "scipy", "sklearn", "tensorrt",
    "tensorrt_rtx",
)  # fmt: skip

BLOCKER = f"""
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {BLOCKED!r}:
            raise ImportError("blocked for the test: " + name)
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, {str(ROOT)!r})
"""


def room(path: Path) -> str:
    return path.relative_to(RUNTIME).with_suffix("").parts[0]


def relative_imports(path: Path) -> list[str]:
    """Rooms that a module imports relatively, wherever in the file, but not those for type checkers only."""
    parts = path.relative_to(RUNTIME).with_suffix("").parts
    rooms = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            target = [*base, *(node.module.split(".") if node.module else [])]
            rooms += [target[0]] if target else [alias.name for alias in node.names]
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_imports_point_one_way(path: Path) -> None:
    here = room(path)
    assert here in LAYERS, f"a new room: give {here} a layer"
    for there in relative_imports(path):
        if there in ("__version__", here):
            continue
        assert LAYERS[there] < LAYERS[here], f"{here} must not import {there}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_modules_import_themselves_relatively_and_stay_below_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split it: one noun a module"
    for node in ast.walk(ast.parse(text)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
        assert not [n for n in names if n.split(".")[0] in ("runtime", "facemill")]
        assert not [n for n in names if n.split(".")[0] in ("pickle", "marshal", "shelve", "dill")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_nothing_is_unpickled(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant)
            assert node.value.value is False
        if isinstance(node, ast.Attribute):
            assert node.attr not in ("unsafe_load", "load_module", "torch_load")


def commands() -> list[str]:
    """Every command of `facemill`."""
    import click

    from runtime.cli.app import main

    return main.list_commands(click.Context(main))


def run_blocked(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", BLOCKER + code], capture_output=True, text=True, timeout=120)


def test_every_module_imports_without_any_heavy_package() -> None:
    names = [".".join(("runtime", *p.relative_to(RUNTIME).with_suffix("").parts)) for p in MODULES]
    names = [n.removesuffix(".__init__") for n in names]
    done = run_blocked(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["", *commands()])
def test_every_help_works_without_any_heavy_package(command: str) -> None:
    arguments = [command, "--help"] if command else ["--help"]
    done = run_blocked(f"sys.argv = ['facemill', *{arguments!r}]\nfrom runtime.cli.app import main\nmain()\n")
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


@pytest.mark.parametrize("script", ["build_engine.py", "process.py", "search.py", "evaluate.py"])
def test_scripts_show_their_help_in_a_bare_interpreter(script: str) -> None:
    code = (
        f"import runpy\nsys.argv = [{script!r}, '--help']\nrunpy.run_path({str(ROOT / script)!r}, run_name='__main__')"
    )
    done = run_blocked(code)
    assert done.returncode == 0, done.stderr
    assert "Usage:" in done.stdout


def test_help_imports_no_array_package() -> None:
    code = "import sys; sys.argv = ['process.py', '--help']\nimport runtime.cli.process\nprint('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
