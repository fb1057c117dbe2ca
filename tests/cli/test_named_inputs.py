"""What was named decides about a forced run; what is no regular file is refused at once; Ctrl-C always ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.engines.engine import sidecar_path
from tests.support import encoded_images as make
from tests.support.embedding_files import contents
from tests.support.errors import assert_names, assert_refused
from tests.support.facemill_command import ROOT, facemill, facemill_process, start_facemill
from tests.support.model_files import write_model_file

# Ends the process at the first moment when a segment is durable.
KILLED = """
import os, signal, sys
sys.path.insert(0, {root!r})
from runtime.storage.segments import SegmentWriter
commit = SegmentWriter.commit
def killed(self):
    commit(self)
    os.kill(os.getpid(), signal.SIGKILL)
SegmentWriter.commit = killed
from runtime.cli.app import main
main({arguments!r})
"""


def photo_list(folder: Path, name: str, numbers: range) -> Path:
    for number in numbers:
        (folder / f"{number}.jpg").write_bytes(make.encode(make.scene(112, 112, seed=number)))
    listing = folder / name
    listing.write_text("".join(f"{number}.jpg\n" for number in numbers))
    return listing


def command(listing: object, output: Path, engine: Path, *more: object) -> list[str]:
    run = ("process", listing, "-o", output, "--engine", engine, "--align", "none", "--force", *more)
    return [str(word) for word in run]


def kill(arguments: list[str]) -> None:
    program = KILLED.format(root=str(ROOT), arguments=arguments)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr


def paths(output: Path) -> int:
    return int(contents(output)["outcomes/path"][0][0])


@pytest.mark.slow
def test_a_forced_run_on_other_photos_starts_over(tiny_engine: Path, tmp_path: Path) -> None:
    one, two = photo_list(tmp_path, "1.txt", range(3)), photo_list(tmp_path, "2.txt", range(5))
    output = tmp_path / "o.h5"
    kill(command(f"@{one}", output, tiny_engine))
    assert facemill(*command(f"@{two}", output, tiny_engine)).returncode == 0
    assert paths(output) == 5


@pytest.mark.slow
def test_a_forced_run_on_an_edited_list_starts_over(tiny_engine: Path, tmp_path: Path) -> None:
    listing, output = photo_list(tmp_path, "1.txt", range(3)), tmp_path / "o.h5"
    kill(command(f"@{listing}", output, tiny_engine))
    photo_list(tmp_path, "1.txt", range(4))
    assert facemill(*command(f"@{listing}", output, tiny_engine)).returncode == 0
    assert paths(output) == 4


@pytest.mark.slow
def test_the_same_forced_run_goes_on_even_if_a_photo_appeared(tiny_engine: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    photo_list(folder, "1.txt", range(3))
    arguments = command(folder, tmp_path / "o.h5", tiny_engine)
    kill(arguments)
    photo_list(folder, "1.txt", range(4))
    done = facemill(*arguments)
    assert done.returncode == 0
    assert "1 new photos" in done.stderr
    assert paths(tmp_path / "o.h5") == 3


@pytest.mark.slow
@pytest.mark.parametrize("special", ["pipe", "/dev/zero", "/dev/null"])
@pytest.mark.parametrize(
    "words",
    [
        ("process", "@{0}"),
        ("search", "{file}", "@{0}"),
        ("add", "{file}", "@{0}"),
        ("remove", "{file}", "--paths-from", "{0}", "--yes"),
        ("search", "{0}", "x.jpg"),
        ("verify", "{0}"),
        ("evaluate", "people", "--align", "none", "--pairs", "{0}"),
        ("evaluate", "people", "--align", "none", "--attributes", "{0}"),
        ("serve", "{file}", "--port", "0", "--token-file", "{0}"),
        ("process", ".", "--model", "{toml}"),
        ("process", ".", "--model", "{model}"),
    ],
)
def test_what_is_no_regular_file_is_refused_at_once(
    special: str, words: tuple[str, ...], tiny_engine: Path, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    target = tmp_path / special  # an absolute name stays as it is
    if any("{toml}" in word for word in words) and special != "pipe":
        (tmp_path / "special.toml").symlink_to(special)
    elif any("{toml}" in word for word in words):
        os.mkfifo(tmp_path / "special.toml")
    write_model_file(tmp_path / "m.toml", name="m", file="m.onnx")
    (tmp_path / "m.onnx").symlink_to(target)
    listing = photo_list(tmp_path, "1.txt", range(2))
    for person in ("a", "b"):
        (tmp_path / "people" / person).mkdir(parents=True)
        photo_list(tmp_path / "people" / person, "1.txt", range(2))
    assert facemill(*command(f"@{listing}", tmp_path / "o.h5", tiny_engine)).returncode == 0
    places = {"file": tmp_path / "o.h5", "toml": tmp_path / "special.toml", "model": tmp_path / "m.toml"}
    arguments = [word.format(target, **places) for word in words]
    done = facemill_process(*arguments, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60)
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    refusal = next((line for line in done.stderr.splitlines() if line.startswith("E-")), done.stderr)
    assert_names(refusal, "m" if "{model}" in words else places["toml"] if "{toml}" in words else target)


GIANT = 30 << 30  # bytes of a sparse file


def special_engine(folder: Path, kind: str, good: Path) -> Path:
    """An engine that is a pipe or a giant, or whose sidecar is a pipe, a device or a giant."""
    engine, sidecar = folder / "e.onnx", folder / "e.onnx.json"
    engine.touch()
    if kind in ("pipe", "giant"):
        engine.unlink()
        sidecar.write_bytes(sidecar_path(good).read_bytes())
    if kind.startswith("pipe"):
        os.mkfifo(sidecar if "sidecar" in kind else engine)
    elif kind.startswith("device"):
        sidecar.symlink_to("/dev/zero")
    else:
        place = sidecar if "sidecar" in kind else engine
        place.touch()
        os.truncate(place, GIANT)
    return engine


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "giant", "pipe as sidecar", "device as sidecar", "giant as sidecar"])
def test_an_engine_that_is_no_usual_file_is_refused_at_once(kind: str, tiny_engine: Path, tmp_path: Path) -> None:
    """Named on the command line, and by an embedding file for each of its engines."""
    engine = special_engine(tmp_path, kind, tiny_engine)
    listing = photo_list(tmp_path, "1.txt", range(1))
    assert facemill(*command(f"@{listing}", tmp_path / "o.h5", tiny_engine)).returncode == 0
    with h5py.File(tmp_path / "o.h5", "r+") as file:
        file["metadata"].attrs["engine"] = str(engine)
    for arguments in (command(f"@{listing}", tmp_path / "p.h5", engine), ["search", "o.h5", "0.jpg"]):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = facemill_process(*arguments, cwd=tmp_path, env=environment, timeout=60)
        named = engine.with_name("e.onnx.json") if "sidecar" in kind else engine
        assert_refused(done, "E-ENGINE", named)
    assert not (tmp_path / "p.h5.parts").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("process", "{0}/photos", "-o", "{0}/a/b/o.h5", "--engine", "{engine}"),
        ("cluster", "{0}/o.h5", "-k", "1", "--folders", "{0}/a/b/f"),
        ("cluster", "{0}/o.h5", "-k", "1", "--sheets", "{0}/a/b/f"),
        ("merge", "{0}/o.h5", "{0}/p.h5", "-o", "{0}/a/b/m.h5"),
        ("build-engine", "--output", "{0}/a/b/engines"),
        ("evaluate", "{0}/photos", "-o", "{0}/a/b/report"),
        ("export", "{0}/o.h5", "--npy", "{0}/a/b/npy"),
    ],
)
def test_an_output_makes_no_chain_of_folders(words: tuple[str, ...], tiny_engine: Path, tmp_path: Path) -> None:
    for person in ("1", "2"):
        (tmp_path / "photos" / person).mkdir(parents=True)
        photo_list(tmp_path / "photos" / person, "list.txt", range(2))
    for output in ("o.h5", "p.h5"):
        arguments = command(tmp_path / "photos", tmp_path / output, tiny_engine)
        assert facemill(*arguments).returncode == 0
    done = facemill(*(word.format(tmp_path, engine=tiny_engine) for word in words))
    assert_refused(done, "E-CONFIG", tmp_path / "a" / "b", "mkdir")
    assert not (tmp_path / "a").exists()


def endless_model(folder: Path) -> Path:
    """A model whose network never answers: it contains a loop without an end."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Add", ["v", "one"], ["w"])],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    rng = np.random.default_rng(0)
    weights = {"k": rng.standard_normal((8, 3, 16, 16)), "m": rng.standard_normal((392, 16)), "z": np.zeros(1)}
    graph = helper.make_graph(
        [
            helper.make_node("Loop", ["", "true", "z"], ["endless"], body=body),
            helper.make_node("Conv", ["image", "k"], ["features"], strides=[16, 16]),
            helper.make_node("Flatten", ["features"], ["flat"]),
            helper.make_node("MatMul", ["flat", "m"], ["sum"]),
            helper.make_node("Add", ["sum", "endless"], ["vector"]),
        ],
        "endless",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, ["n", 16])],
        [
            *(numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()),
            numpy_helper.from_array(np.array(True), "true"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "endless.onnx"
    )
    names = {"name": "endless", "file": "endless.onnx", "input_name": "image", "output_name": "vector"}
    return write_model_file(folder / "endless.toml", **names)


def processor_seconds(pid: int) -> float:
    """Processor time of all threads of a process so far, see proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.slow
def test_ctrl_c_ends_a_command_whose_library_never_comes_back(tmp_path: Path) -> None:
    model = endless_model(tmp_path)
    with start_facemill("build-engine", "--model", model, "--output", tmp_path / "engines") as process:
        while processor_seconds(process.pid) < 4:  # the start takes less, so that the rest is the endless network
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
