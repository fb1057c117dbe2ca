"""The structure of the code: allowed imports, maximum module size, and what works without optional packages."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RUNTIME = ROOT / "runtime"
MODULES = sorted(RUNTIME.rglob("*.py"))

# A package may import itself and packages of a lower layer.
LAYERS = {
    "errors": 0,
    "schema": 0,
    "access": 0,
    "regular": 0,
    "contents": 0,
    "outputs": 1,
    "locks": 1,
    "files": 2,
    "libcuda": 0,
    "defaults": 0,
    "csvtable": 0,
    "__init__": 16,
    "records": 1,
    "counts": 1,
    "extras": 1,
    "text": 1,
    "metrics": 1,
    "interrupt": 1,
    "retries": 2,
    "assets": 2,
    "progress": 2,
    "sources": 3,
    "fetch": 3,
    "tree": 3,
    "folders": 4,
    "modelspec": 3,
    "modelstore": 4,
    "images": 5,
    "cuda": 5,
    "storage": 6,
    "demo": 6,
    "faces": 6,
    "receipts": 7,
    "attributes": 7,
    "index": 7,
    "review": 7,
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
    "filters": 12,
    "api": 13,
    "jobs": 14,
    "server": 15,
    "web": 16,
    "cli": 17,
}

# numpy is not among them: every record holds arrays.
BLOCKED = (
    "cupy", "cv2", "faiss", "fastapi", "h5py", "jinja2", "markupsafe", "matplotlib", "nvidia", "onnx", "onnxruntime",
    "platformdirs", "plotly", "prometheus_client", "pyarrow", "pycuda", "pydantic", "python_multipart", "qdrant_client",
    "rich", "scipy", "simplejpeg", "sklearn", "starlette", "tensorrt", "tensorrt_rtx", "uvicorn",
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


@cache
def syntax_tree(path: Path) -> list[ast.AST]:
    """Parse a module; return all its nodes."""
    return list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def room(path: Path) -> str:
    return path.relative_to(RUNTIME).with_suffix("").parts[0]


def relative_imports(path: Path) -> list[str]:
    """Return the packages that a module imports relatively, anywhere in the file, except for type checking."""
    parts = path.relative_to(RUNTIME).with_suffix("").parts
    rooms = []
    for node in syntax_tree(path):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = parts[: len(parts) - node.level]
            target = [*base, *(node.module.split(".") if node.module else [])]
            rooms += [target[0]] if target else [alias.name for alias in node.names]
    return rooms


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_imports_point_one_way(path: Path) -> None:
    importer = room(path)
    assert importer in LAYERS, f"a new room: give {importer} a layer"
    for imported in relative_imports(path):
        if imported in ("__version__", importer):
            continue
        assert LAYERS[imported] < LAYERS[importer], f"{importer} must not import {imported}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_modules_import_themselves_relatively_and_stay_below_400_lines(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 400, "split it: one noun a module"
    for node in syntax_tree(path):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names.append(node.module or "")
        assert not [n for n in names if n.split(".")[0] in ("runtime", "facemill")]
        assert not [n for n in names if n.split(".")[0] in ("pickle", "marshal", "shelve", "dill")]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(RUNTIME)))
def test_nothing_is_unpickled(path: Path) -> None:
    for node in syntax_tree(path):
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


SCRIPTS = ["build_engine.py", "process.py", "search.py", "evaluate.py"]
# A single interpreter prints every help: blocked packages stay blocked for the next command.
ALL_HELPS = f"""
import contextlib, io, json, runpy
from runtime.cli.app import main
def output_of(show):
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            show()
        except SystemExit as end:
            assert not end.code, end.code
    return output.getvalue()
helps = {{}}
for script in {SCRIPTS!r}:
    sys.argv = [script, "--help"]
    helps[script] = output_of(lambda: runpy.run_path({str(ROOT)!r} + "/" + script, run_name="__main__"))
for command in {["", *commands()]!r}:
    helps[command] = output_of(lambda: main([command, "--help"] if command else ["--help"]))
print(json.dumps(helps))
"""


def run_blocked(code: str) -> str:
    """Run a program in an interpreter that cannot import heavy packages; return its output."""
    result = subprocess.run([sys.executable, "-c", BLOCKER + code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def helps() -> dict[str, str]:
    """The --help output of each command and script without any heavy package."""
    texts: dict[str, str] = json.loads(run_blocked(ALL_HELPS))
    return texts


@pytest.mark.slow
def test_every_module_imports_without_any_heavy_package() -> None:
    # The routes are made of FastAPI's classes; only `facemill serve` imports these rooms, after it has found the extra.
    modules = [path for path in MODULES if room(path) not in ("server", "web")]
    names = [".".join(("runtime", *p.relative_to(RUNTIME).with_suffix("").parts)) for p in modules]
    names = [n.removesuffix(".__init__") for n in names]
    run_blocked(f"import importlib\nfor name in {names!r}: importlib.import_module(name)")


@pytest.mark.parametrize("command", ["", *commands(), *SCRIPTS])
def test_every_help_works_without_any_heavy_package(command: str, helps: dict[str, str]) -> None:
    assert helps[command].startswith("Usage:")


def test_help_imports_no_array_package() -> None:
    code = "import sys; sys.argv = ['process.py', '--help']\nimport runtime.cli.process\nprint('numpy' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert result.stdout.strip() == "False", result.stderr


# Library code leaves the state of the process alone: a server or a notebook has threads that rely on it. What remains:
PROCESS_WIDE_STATE = {
    (
        "cuda/device.py",
        "environ",
    ): "CUDA reads CUDA_VISIBLE_DEVICES once; `process --devices` alone sets it, at its start",
    ("pipeline/processes.py", "environ"): "a worker process of our own sets its own, before CUDA starts in it",
    ("pipeline/processes.py", "setNumThreads"): "the same worker process",
    ("cli/common.py", "setNumThreads"): "the process belongs to the command, and it is set back",
    ("jobs/work.py", "setNumThreads"): "the process of a job is one of our own",
    ("extras.py", "environ"): "ONNX Runtime reads its switch of telemetry while it is imported, and it is set back",
    ("cli/limits.py", "setrlimit"): "a command raises its own limit of open files, before its work",
    ("storage/child.py", "setrlimit"): "a child process of our own limits itself, before it reads a file",
    ("index/rerank.py", "omp_set_num_threads"): "OpenMP keeps this number for each thread, and it is set back",
}
SETTERS = {
    *("chdir", "fchdir", "chroot", "putenv", "unsetenv", "setrlimit", "setlocale", "umask"),
    *("setNumThreads", "omp_set_num_threads", "set_num_threads", "setUseOptimized"),
}


def process_wide_state(path: Path) -> set[str]:
    """Return what a module changes for its whole process: names of setters, and `environ`."""
    setters = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[ast.AST] = []
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            setters |= {name} & SETTERS
            if name in ("setdefault", "update", "pop", "clear", "popitem") and isinstance(node.func, ast.Attribute):
                targets = [node.func.value]
        elif isinstance(node, (ast.Assign, ast.Delete)):
            targets = [target.value for target in node.targets if isinstance(target, ast.Subscript)]
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)) and isinstance(node.target, ast.Subscript):
            targets = [node.target.value]
        if any(
            isinstance(target, (ast.Attribute, ast.Name)) and re.search(r"\benviron\b", ast.unparse(target))
            for target in targets
        ):
            setters.add("environ")
    return setters


@pytest.mark.slow
def test_modules_do_not_change_process_wide_state() -> None:
    changed = {
        (path.relative_to(RUNTIME).as_posix(), setter) for path in MODULES for setter in process_wide_state(path)
    }
    assert "umask" not in {setter for _, setter in changed}, "pass `like=` to a writer of files.py"
    assert changed == set(PROCESS_WIDE_STATE), "keep it in an object, or name it there with a reason"


def test_changes_of_process_wide_state_are_recognised(tmp_path: Path) -> None:
    for code, setter in (
        ("os.umask(0)", "umask"),
        ("from os import umask\numask(0)", "umask"),
        ("os.environ['A'] = 'b'", "environ"),
        ("del os.environ['A']", "environ"),
        ("os.environ.setdefault('A', 'b')", "environ"),
        ("cv2.setNumThreads(1)", "setNumThreads"),
    ):
        (tmp_path / "a.py").write_text(code)
        assert process_wide_state(tmp_path / "a.py") == {setter}
    (tmp_path / "a.py").write_text("x = os.environ.get('A')\ny = os.environ['A']\nz = {}\nz['a'] = 1\nz.update(y)")
    assert process_wide_state(tmp_path / "a.py") == set()


# Files are written by files.py alone, so that durability, locks, temporary names and permissions have one place.
OWN_WRITERS = {
    "files.py": "the place",
    "access.py": "sets who may read an open file",
    "locks.py": "opens files to lock them",
    "folders.py": "exchanges whole folders by rename",
    "tree.py": "writes in an open folder, whatever its path leads to by now",
    "receipts/receipt.py": "syncs its lines before what they name is in its place",
    "jobs/events.py": "appends to the log of a job, takes half a line back, and renames a long log",
    "storage/segments.py": "sets a damaged segment aside by rename",
    "storage/deletion.py": "renames a folder before it deletes it",
    "cli/demo.py": "writes a folder for a demo",
    "cli/streams.py": "opens /dev/null in the place of a closed stream",
    "demo/portraits.py": "draws pictures for a demo",
    "doctor/examine.py": "measures the disk",
}


def own_writes(path: Path) -> set[str]:
    """Return the calls by which a module writes to the disk directly."""
    calls = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            calls |= {"fcntl"} & set(names)
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        calls |= {function} & {"os.replace", "os.rename", "os.fdopen", "os.fsync", "os.chmod", "os.fchmod"}
        if isinstance(node.func, ast.Attribute):
            calls |= {node.func.attr} & {"write_text", "write_bytes", "rename", "chmod", "touch"}
        if function == "open" or (function.endswith(".open") and function != "os.open"):
            values = [*node.args[function == "open" :], *(keyword.value for keyword in node.keywords)]
            modes = [value.value for value in values if isinstance(value, ast.Constant)]
            calls |= {f"open {mode}" for mode in modes if re.fullmatch("[rbt+]*[wax+][rbt+]*", str(mode))}
        if function == "os.open" and re.search("O_(CREAT|WRONLY|RDWR)", ast.unparse(node)):
            calls.add("os.open")
    return calls


@pytest.mark.slow
def test_files_are_written_by_one_module() -> None:
    writers = {path.relative_to(RUNTIME).as_posix(): own_writes(path) for path in MODULES}
    unlisted = {name: how for name, how in writers.items() if how and name not in OWN_WRITERS}
    assert not unlisted, "use durable_file, write_durable, NewFile or synced_file of files.py"


def test_own_writes_are_recognised(tmp_path: Path) -> None:
    for code in (
        "open('a', 'w')",
        "path.open('ab')",
        "path.write_text('a')",
        "os.replace(a, b)",
        "import fcntl",
        "os.open(a, os.O_CREAT)",
    ):
        (tmp_path / "a.py").write_text(code)
        assert own_writes(tmp_path / "a.py")
    (tmp_path / "a.py").write_text(
        "open('a')\npath.open('rb')\nos.open('a', os.O_RDONLY)\n'a'.replace('a', 'b')\nGallery.open(file)"
    )
    assert own_writes(tmp_path / "a.py") == set()


# Files that a user or a file names, or that lie beside one, are opened by regular.py alone: a pipe would keep its
# reader waiting for ever. What remains:
OWN_READERS = {
    "access.py": "reads /proc",
    "locks.py": "reads /proc",
    "progress.py": "reads /proc",
    "storage/child.py": "reads /proc",
    "estimate/machine.py": "reads /proc and /sys",
    "doctor/examine.py": "reads /proc",
    "engines/onnxruntime/runner.py": "reads /proc",
    "sources/disks.py": "reads /proc",
    "jobs/events.py": "reads the log that it keeps open itself",
    "cuda/kernels.py": "a file of the package",
    "pages/page.py": "a file of the package",
    "server/openapi.py": "a file of the package",
    "web/models_page.py": "a file of the package",
    "web/static.py": "a file of the package",
    "cli/demo.py": "a picture that the demo has just drawn",
    "cli/streams.py": "a pipe of the command itself",
}


def own_reads(path: Path) -> set[str]:
    """Return the calls by which a module opens a path to read it, other than by an open descriptor."""
    calls = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        function = ast.unparse(node.func)
        if isinstance(node.func, ast.Attribute):
            calls |= {node.func.attr} & {"read_text", "read_bytes"}
        if function == "open" or function.endswith((".open", "np.load")):
            opened = ast.unparse(node.args[0]) if node.args else ""
            modes = [
                value.value
                for value in [*node.args, *(k.value for k in node.keywords)]
                if isinstance(value, ast.Constant)
            ]
            reads = function == "open" or "rb" in modes
            if reads and not re.match(r"(open_regular|_create)\(|fd\b", opened):
                calls.add(function)
    return calls


@pytest.mark.slow
def test_files_are_read_by_one_module() -> None:
    readers = {path.relative_to(RUNTIME).as_posix(): own_reads(path) for path in MODULES}
    assert {name for name, how in readers.items() if how} == set(OWN_READERS), "use read_regular of regular.py"


def test_own_reads_are_recognised(tmp_path: Path) -> None:
    for code in ("open(path)", "open(path, 'rb')", "path.open('rb')", "path.read_text()", "path.read_bytes()"):
        (tmp_path / "a.py").write_text(code)
        assert own_reads(tmp_path / "a.py")
    (tmp_path / "a.py").write_text("open(open_regular(path), 'rb')\nopen(fd, 'rb')\nFile.open(a)\nopen(fd)")
    assert own_reads(tmp_path / "a.py") == set()
