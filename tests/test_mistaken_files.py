"""Files in place of a model or a result are named: pointers, pages, unsorted nodes, an unfinished run."""

from __future__ import annotations

import resource
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.errors import ModelError, StorageError
from runtime.graphs.graph import read_graph, sort_nodes
from runtime.modelspec import list_specs
from runtime.modelstore import check_weights
from runtime.storage.file import EmbeddingFile
from tests.support import encoded_images as make
from tests.support.errors import assert_names, assert_refused, raises, warnings_in
from tests.support.facemill_command import facemill, facemill_process
from tests.support.model_files import write_model_file

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n"
PAGE = b"\n<!DOCTYPE html><html><body>Sign in</body></html>"


@pytest.mark.parametrize(("content", "kind"), [(POINTER, "git lfs pull"), (PAGE, "HTML"), (b"\x08", "truncated")])
def test_a_file_in_place_of_a_model_is_named(content: bytes, kind: str, tmp_path: Path) -> None:
    weights = tmp_path / "m.onnx"
    weights.write_bytes(content)
    with raises(ModelError, weights, kind):
        read_graph(weights)


def test_a_pointer_with_a_checksum_is_also_named(tmp_path: Path) -> None:
    from runtime.modelspec import load_spec

    (tmp_path / "m.onnx").write_bytes(POINTER)
    spec = load_spec(str(write_model_file(tmp_path / "m.toml", name="m", file="m.onnx", sha256="0" * 64)))
    with raises(ModelError, "Git LFS", "0" * 64):
        check_weights(spec, tmp_path / "m.onnx")


def test_unsorted_nodes_are_sorted_and_the_model_is_accepted(tiny_model: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_model.with_suffix(".onnx"))
    nodes = list(model.graph.node)
    names = [node.op_type for node in nodes]
    reversed_nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in reversed(nodes)]
    del model.graph.node[:]
    model.graph.node.extend(reversed_nodes)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(model)
    onnx.save(model, tmp_path / "m.onnx")
    assert [node.op_type for node in read_graph(tmp_path / "m.onnx").graph.node] == names


def test_a_cycle_and_an_unknown_operator_are_named_by_their_cause(tmp_path: Path) -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    for nodes, cause in (
        ([helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Add", ["a", "a"], ["b"])], "topologically"),
        ([helper.make_node("NoSuchOperator", ["x"], ["y"])], "NoSuchOperator"),
    ):
        graph = helper.make_graph(nodes, "g", ends[:1], ends[1:])
        before = [node.SerializeToString() for node in graph.node]
        sort_nodes(graph)
        assert [node.SerializeToString() for node in graph.node] == before
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "m.onnx")
        with pytest.raises(ModelError) as caught:
            read_graph(tmp_path / "m.onnx")
        assert cause in str(caught.value)
        assert "damaged" not in str(caught.value)


def test_another_toml_file_does_not_stop_the_list_of_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    usual = len(list_specs())
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    (tmp_path / "broken.toml").write_text("no toml [")
    monkeypatch.setenv("FACEMILL_MODELS", str(tmp_path))
    assert len(list_specs()) == usual
    assert_names(" ".join(warnings_in(caplog)), "pyproject.toml", "broken.toml")
    assert facemill("models", "list", FACEMILL_MODELS=tmp_path).returncode == 0


def test_a_search_during_a_run_says_so(tmp_path: Path) -> None:
    parts = tmp_path / "o.h5.parts"
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    with raises(StorageError, tmp_path / "o.h5", "a run is writing it"):
        EmbeddingFile(tmp_path / "o.h5")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["process", "verify", "map", "doctor", "ui"])
@pytest.mark.parametrize("limit", [8, 12, 63])
def test_too_few_file_descriptors_are_named_before_the_work(command: str, limit: int, tmp_path: Path) -> None:
    result = facemill_process(command, tmp_path, preexec_fn=partial(limit_files, limit, limit))
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert_names(line, "E-MACHINE", f"{limit} files", 64, "ulimit -n 4096")


@pytest.mark.slow
def test_a_low_limit_of_files_is_raised_where_the_system_allows_it(
    tiny_engine: Path, photos: Path, tmp_path: Path
) -> None:
    result = facemill_process(
        *("process", photos / "1", "-o", tmp_path / "o.h5", "--engine", tiny_engine, "--align", "none"),
        preexec_fn=partial(limit_files, 12, 4096),
    )
    assert result.returncode == 0, result.stderr


def limit_files(now: int, most: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (now, most))


def zero_network(folder: Path, bias: float) -> Path:
    """A model that answers zeros, or this bias above a red mean of 0.5 only."""
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["y"]),
        ],
        "zeros",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 16])],
        [
            numpy_helper.from_array(np.full((3, 16), bias, np.float32), "w"),
            numpy_helper.from_array(np.full(16, bias / 2, np.float32), "b"),
        ],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), folder / "zeros.onnx"
    )
    return write_model_file(folder / "zeros.toml", name="zeros", file="zeros.onnx")


@pytest.mark.slow
def test_a_network_that_answers_zeros_is_told(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, level in (("dark", 5), ("light", 230)):
        (photos / f"{name}.png").write_bytes(make.encode(np.full((112, 112, 3), level, np.uint8), "PNG"))
    options = ("-o", tmp_path / "o.h5", "--align", "none")
    dead = facemill("process", photos, *options, "--model", zero_network(tmp_path, 0.0))
    assert_refused(dead, "E-MODEL", "zeros.onnx")
    partly = facemill("process", photos, *options, "--model", zero_network(tmp_path, 1.0))
    assert partly.returncode == 0, partly.stderr
    assert "1 of the embeddings of this run are zeros" in partly.stderr
