"""Loops and scans against ONNX Runtime, those that make no step at all included."""

from __future__ import annotations

import onnx
import pytest
import torch
from graphs import parse, parse_proto

from harness.errors import UsageError
from harness.graph import open_onnx
from harness.reference import onnx_run_graph, run_graph, run_onnxruntime

LOOP = """g (float[4, 6] x, int64 n) => (float[4, 6] y, float[L, 6] joined, int64[M] numbers)
    <bool go = {1}, int64[1] first = {0}, int64[1] seven = {7}> {
    y, all, counted = Loop(n, go, x) <body = step (int64 i, bool c, float[4, 6] h)
        => (bool c2, float[4, 6] k, float[4, 6] e, int64 j) { c2 = Identity(c) k = Tanh(h) e = Exp(k) j = Identity(i) }>
    total = ReduceSum<keepdims = 0>(all, first) joined = Concat<axis = 0>(total, x)
    numbers = Concat<axis = 0>(counted, seven) }"""


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_loop_gives_what_onnxruntime_gives(steps: int, dtype: torch.dtype) -> None:
    inputs = {"x": torch.randn(4, 6, generator=torch.Generator().manual_seed(0)), "n": torch.tensor(steps)}
    model = parse(LOOP)
    (expected,) = run_onnxruntime(model, inputs)
    for name, found in run_graph(onnx_run_graph(model), inputs, dtype=dtype).items():
        torch.testing.assert_close(found, expected[name].to(dtype if found.is_floating_point() else torch.int64))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_scan_over_nothing_gives_nothing_of_the_declared_sizes(axis: int) -> None:
    model = parse(f"""g (float[6] h, float[T, 6] x) => (float[6] last, y) {{ last, y = Scan (h, x)
        <num_scan_inputs = 1, scan_output_axes = [{axis}],
         body = step (float[6] a, float[6] r) => (float[6] b, float[6] o) {{ b = Add(a, r) o = Exp(b) }}> }}""")
    found = run_graph(onnx_run_graph(model), {"h": torch.ones(6), "x": torch.empty(0, 6)}, dtype=torch.float32)
    assert torch.equal(found["last"], torch.ones(6))
    assert found["y"].numel() == 0
    assert found["y"].shape[1 - axis] == 6


def test_a_body_that_gives_a_value_from_around_it_is_a_sentence(tmp_path) -> None:
    proto = parse_proto("""g (float[2] x, bool t) => (float[2] y) { e = Exp(x)
        y = If(t) <then_branch = a () => (float[2] e) { }, else_branch = b () => (float[2] q) { q = Neg(x) }> }""")
    onnx.save(proto, tmp_path / "model.onnx")
    with pytest.raises(UsageError, match=r"'e'.*Identity"):
        open_onnx(tmp_path / "model.onnx")
