"""The calls of our code fit the signatures of TensorRT's Python bindings, which nothing else checks without a GPU."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "runtime" / "engines" / "tensorrt").glob("*.py"))

# Methods that our code calls, and their classes.
CLASSES = {
    "create_network": "Builder",
    "create_builder_config": "Builder",
    "create_optimization_profile": "Builder",
    "build_serialized_network": "Builder",
    "parse": "OnnxParser",
    "get_error": "OnnxParser",
    "get_input": "INetworkDefinition",
    "get_output": "INetworkDefinition",
    "clear_flag": "IBuilderConfig",
    "add_optimization_profile": "IBuilderConfig",
    "set_compute_capability": "IBuilderConfig",
    "set_shape": "IOptimizationProfile",
    "deserialize_cuda_engine": "Runtime",
    "get_engine_validity": "Runtime",
    "create_execution_context": "ICudaEngine",
    "create_runtime_config": "ICudaEngine",
    "get_tensor_name": "ICudaEngine",
    "get_tensor_dtype": "ICudaEngine",
    "create_runtime_cache": "IRuntimeConfig",
    "set_runtime_cache": "IRuntimeConfig",
    "serialize": "IRuntimeCache",
    "set_tensor_address": "IExecutionContext",
    "set_input_shape": "IExecutionContext",
    "execute_async_v3": "IExecutionContext",
}
# Numbers of arguments that `tensorrt` 10 and 11 accept, from the bindings in TensorRT's repository
# (python/src/infer/pyCore.cpp, python/src/parsers/pyOnnx.cpp). The other methods are those of tensorrt_rtx alone.
TENSORRT = {
    "create_network": (0, 1),
    "create_builder_config": (0, 0),
    "create_optimization_profile": (0, 0),
    "build_serialized_network": (2, 2),
    "parse": (1, 2),
    "get_error": (1, 1),
    "get_input": (1, 1),
    "get_output": (1, 1),
    "clear_flag": (1, 1),
    "add_optimization_profile": (1, 1),
    "set_shape": (4, 4),
    "deserialize_cuda_engine": (1, 1),
    "create_execution_context": (0, 1),
    "get_tensor_name": (1, 1),
    "get_tensor_dtype": (1, 1),
    "set_tensor_address": (2, 2),
    "set_input_shape": (2, 2),
    "execute_async_v3": (1, 1),
}

STARRED = {"create_execution_context": (0, 1), "set_shape": (4, 4)}  # arguments of our calls with *arguments


def calls() -> dict[str, set[tuple[int, int]]]:
    """For each method the fewest and the most arguments of each of our calls."""
    found: dict[str, set[tuple[int, int]]] = {name: set() for name in CLASSES}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in CLASSES:
                name = node.func.attr
                assert not node.keywords, f"{path.name}: {name} is called with names, which differ between versions"
                starred = any(isinstance(argument, ast.Starred) for argument in node.args)
                found[name].add(STARRED[name] if starred else (len(node.args), len(node.args)))
    return found


def accepted(documentation: str) -> list[tuple[int, int]]:
    """The fewest and the most arguments of each overload in the docstring of a binding."""
    overloads = []
    for arguments in re.findall(r"^(?:\d+\. )?\w+\(self: [\w.:]+(?:, )?(.*)\) -> ", documentation, re.MULTILINE):
        names = re.findall(r"(?:^|, )(\w+): (?:[^=]*?)(=|(?=, \w+: )|$)", arguments)
        overloads.append((sum(not default for _, default in names), len(names)))
    return overloads


def test_signatures_are_read_from_docstrings() -> None:
    assert accepted("create_network(self: a.b.Builder, flags: typing.SupportsInt = 0) -> a.b.Network") == [(0, 1)]
    assert accepted("parse(self: a.OnnxParser, model: typing.Buffer, path: str = None) -> bool") == [(1, 2)]
    assert accepted("1. f(self: a.B, name: str, shape: tuple) -> bool\n\n2. f(self: a.B) -> bool") == [(2, 2), (0, 0)]


def test_every_method_of_the_list_is_called() -> None:
    assert [name for name, found in calls().items() if not found] == []
    assert set(TENSORRT) <= set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_our_calls_fit_tensorrt_rtx(name: str) -> None:
    trt = pytest.importorskip(
        "tensorrt_rtx", reason="the extra rtx is not installed: pip install tensorrt-rtx", exc_type=ImportError
    )
    overloads = accepted(getattr(getattr(trt, CLASSES[name]), name).__doc__)
    assert overloads
    for fewest, most in calls()[name]:
        for count in {fewest, most}:
            assert any(low <= count <= high for low, high in overloads), f"{name} with {count} arguments"


@pytest.mark.parametrize("name", TENSORRT)
def test_our_calls_fit_tensorrt(name: str) -> None:
    low, high = TENSORRT[name]
    for fewest, most in calls()[name]:
        assert low <= most
        assert fewest <= most <= high
