"""Graphs and modules that want more memory than there is: refused with the number, and never the system's choice."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from harness import memory
from harness.cli import main
from harness.errors import NotJudged

HALF_GIB = 2**29
N = 10**12


@pytest.fixture
def half_a_gib():
    with memory.at_most(0.5):
        yield


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def write(path: Path, nodes: Sequence[onnx.NodeProto], constants: dict[str, np.ndarray]) -> Path:
    """Write a graph from x [4] to y [4], the largest element of what the nodes make, c, added to x."""
    ends = [
        helper.make_node("Cast", ["c"], ["c_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["c_float"], ["largest"], keepdims=0),
        helper.make_node("Add", ["x", "largest"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "xy")
    kept = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([*nodes, *ends], "graph", [x], [y], kept)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return path


def node(op: str, *inputs: str, out: str = "c", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, list(inputs), [out], **attributes)


BY_SHAPE = {
    "ConstantOfShape": ([node("ConstantOfShape", "s")], {"s": whole(N)}),
    "Expand": ([node("Expand", "x", "s")], {"s": whole(N // 4, 4)}),
    "Tile": ([node("Tile", "x", "s")], {"s": whole(N // 4)}),
    "Pad": ([node("Pad", "x", "s")], {"s": whole(0, N - 4)}),
    "Resize": (
        [node("Reshape", "x", "r", out="image"), node("Resize", "image", "", "", "s")],
        {"r": whole(1, 1, 2, 2), "s": whole(1, 1, 10**6, 10**6)},
    ),
    "MatMul": (
        [
            node("Tile", "x", "s", out="long"),
            node("Reshape", "long", "r", out="column"),
            node("Reshape", "long", "q", out="row"),
            node("MatMul", "column", "row"),
        ],
        {"s": whole(25 * 10**4), "r": whole(-1, 1), "q": whole(1, -1)},
    ),
}
COMPUTED_SHAPE = (
    [node("Shape", "x", out="four"), node("Mul", "four", "s", out="m"), node("ConstantOfShape", "m")],
    {"s": whole(N // 4)},
)


@pytest.mark.parametrize("name", BY_SHAPE)
def test_a_value_that_is_too_large_by_its_shape_is_refused_before_it_is_made(tmp_path, capsys, monkeypatch, name: str):
    monkeypatch.setattr("harness.graph.types.INFERENCE_BYTES", 2**26)  # what shape inference takes of it, for the speed
    model = write(tmp_path / "m.onnx", *BY_SHAPE[name])
    assert verify(model, tmp_path) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert f"m.onnx: value 'c' ({name}) of shape" in said
    assert "takes 4,000,000,000,000 bytes, and" in said


def verify(model: Path, folder: Path, *options: str) -> int:
    return main(["verify", str(model), "-b", "ort-cpu", "-p", "fp32", "--engines", str(folder / "e"), *options])


def test_a_range_is_refused_before_shape_inference_counts_it(tmp_path: Path, capsys):
    ends = {"a": np.array(0), "b": np.array(N), "s": np.array(1)}
    model = write(tmp_path / "m.onnx", [node("Range", "a", "b", "s")], ends)
    assert verify(model, tmp_path) == 3
    assert "the Range that computes c counts 1,000,000,000,000 numbers, and" in capsys.readouterr().err


def growing(**loop: object) -> onnx.NodeProto:
    """Return a Loop that doubles the length of x in each step."""
    body = helper.make_graph(
        [node("Identity", "go", out="go_on"), node("Concat", "v", "v", out="vv", axis=0)],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, [None]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("vv", TensorProto.FLOAT, [None]),
        ],
    )
    return node("Loop", "steps", "", "x", body=body)


def by_the_inputs(size: float) -> tuple[list[onnx.NodeProto], dict[str, np.ndarray]]:
    """Return nodes that repeat x as often as its own values say: at least ``size`` times."""
    nodes = [
        node("Abs", "x", out="a"),
        node("ReduceMax", "a", out="most", keepdims=0),
        node("Add", "most", "one", out="more"),
        node("Mul", "more", "size", out="times"),
        node("Cast", "times", out="count", to=TensorProto.INT64),
        node("Reshape", "count", "flat", out="s"),
        node("Tile", "x", "s"),
    ]
    return nodes, {"one": np.float32(1), "size": np.array(size, np.float32), "flat": whole(1)}


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [([growing()], {"steps": np.array(60)}), by_the_inputs(1e12), COMPUTED_SHAPE],
    ids=["a loop that concatenates", "a shape that the inputs decide", "a vector that shape inference runs into"],
)
def test_what_only_a_run_shows_ends_with_the_number(tmp_path: Path, capsys, monkeypatch, nodes, constants):
    monkeypatch.setattr("harness.graph.types.INFERENCE_BYTES", 2**26)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    assert verify(write(tmp_path / "m.onnx", nodes, constants), tmp_path, "--memory", "0.5", "--timeout", "60") == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "ran out of memory: it wanted " in said or "of shape [1000000000000] takes 4,000,000,000,000" in said
    assert "536,870,912 bytes are free" in said
    assert resource.getrlimit(resource.RLIMIT_DATA) == limits


def test_an_allocation_beyond_the_limit_fails_and_the_limit_is_lifted(half_a_gib):
    before = resource.getrlimit(resource.RLIMIT_DATA)
    refused = pytest.raises(NotJudged, match=r"^clip ran out of memory: it wanted 1,073,741,824 bytes more")
    with refused, memory.guarded("clip"):
        torch.empty(2**30, dtype=torch.uint8)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with memory.guarded("clip"):
        torch.zeros(2**20)


def test_a_guard_within_another_leaves_its_limit(half_a_gib):
    with memory.guarded("outer"):
        limit = resource.getrlimit(resource.RLIMIT_DATA)
        with memory.guarded("inner"):
            assert resource.getrlimit(resource.RLIMIT_DATA) == limit
        assert resource.getrlimit(resource.RLIMIT_DATA) == limit


def test_where_there_is_a_gpu_there_is_no_limit(half_a_gib, monkeypatch):
    monkeypatch.setattr(memory, "_no_gpu", lambda: False)
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory.guarded("clip"):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


def wrapped(error: Exception) -> Exception:
    """Return what an exporter makes of it: another error, that comes from this one."""
    outer = ValueError("the exporter has failed")
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (MemoryError(), ""),
        (
            RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 8000 bytes. Error code 12"),
            "8,000",
        ),
        (RuntimeError("std::bad_alloc"), ""),
        (OSError(12, "Cannot allocate memory"), ""),
        (wrapped(MemoryError("Unable to allocate 3.64 TiB")), ""),
    ],
)
def test_want_of_memory_is_known_by_what_it_says(error, wanted):
    with pytest.raises(NotJudged, match=r"^clip ran out of memory: ") as raised, memory.in_words("clip"):
        raise error
    assert (f"it wanted {wanted} bytes more" in str(raised.value)) == bool(wanted)


@pytest.mark.parametrize("error", [ValueError("another"), OSError(28, "No space left"), NotJudged("no GPU")])
def test_other_errors_stay_what_they_are(error):
    with pytest.raises(type(error)) as raised, memory.in_words("clip"):
        raise error
    assert raised.value is error


def test_the_variable_limits_what_is_free(monkeypatch):
    monkeypatch.setenv("PARITY_MEMORY", "0.25")
    assert memory.available_bytes() == 2**28
    monkeypatch.setenv("PARITY_MEMORY", "a lot")
    assert memory.available_bytes() > 2**28
    with memory.at_most(0.5):
        assert memory.available_bytes() == HALF_GIB


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much"])
def test_what_is_no_memory(text, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["verify", "x", "--memory", text])
    assert ended.value.code == 2
    assert f"{text!r} is not a number of GiB" in capsys.readouterr().err
