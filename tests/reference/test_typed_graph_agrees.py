"""The graph that engines are built from and the interpreter give every value the same dtype, bodies included."""

from __future__ import annotations

import pytest
import torch
from graphs import parse

from harness.graph import apply
from harness.reference import onnx_run_graph, run_graph

NUMBERS = {1: torch.float32, 10: torch.float16, 16: torch.bfloat16, 11: torch.float64, 7: torch.int64, 9: torch.bool}
GRAPHS = {
    "doubles inside": """g (float[4, 6] x) => (float[4, 6] y) <double[6] w = {1, 2, 3, 4, 5, 6}> {
        d = Cast<to = 11>(x) a = Mul(d, w) e = Exp(a) c = Cast<to = 1>(e) y = Tanh(c) }""",
    "a table of doubles": """g (float[4, 6] x) => (float[4] y) <double[6] w = {1, 2, 3, 4, 5, 6}> {
        i = ArgMax<axis = 1, keepdims = 0>(x) d = Gather(w, i) e = Neg(d) y = Cast<to = 1>(e) }""",
    "filled": """g (float[4, 6] x) => (float[4, 6] y) {
        s = Shape(x) c = ConstantOfShape<value = float[1] {2}>(s) z = ConstantOfShape(s)
        a = Mul(x, c) y = Add(a, z) }""",
    "filled with doubles": """g (float[4, 6] x) => (double[4, 6] y) {
        s = Shape(x) c = ConstantOfShape<value = double[1] {2}>(s) y = Exp(c) }""",
    "no float16": """g (float[4, 6] x) => (float[4, 6] y)
        <int64 axis = {1}, float start = {0}, float end = {6}, float by = {1}> {
        r = Range(start, end, by) a = Mul(x, r) c = CumSum(a, axis) y = Exp(c) }""",
    "decisions": """g (float[4, 6] x) => (float[4, 6] y, int64[4, 2] i)
        <int64[1] k = {2}, float[6] w = {1, 2, 3, 4, 5, 6}> {
        a = Mul(x, w) v, i = TopK(a, k) b = Greater(a, w) n = IsNaN(a) o = Or(b, n) y = Where(o, a, x) }""",
    "branches": """g (float[4, 6] x, bool t) => (float[4, 6] y) <float[6] w = {1, 2, 3, 4, 5, 6}> { h = Exp(x)
        z = If(t) <then_branch = a () => (float[4, 6] p) { k = Mul(h, w) p = Tanh(k) },
                   else_branch = b () => (float[4, 6] q) { q = Neg(h) }> y = Mul(z, h) }""",
    "a loop": """g (float[4, 6] x) => (float[4, 6] y, float[L, 4, 6] all) <int64 n = {3}, bool go = {1}> {
        y, all = Loop(n, go, x) <body = step (int64 i, bool c, float[4, 6] h) => (bool d, float[4, 6] k, float[4, 6] e)
            { d = Identity(c) j = Cast<to = 1>(i) a = Add(h, j) k = Tanh(a) e = Exp(k) }> }""",
    "quantised": """g (float[4, 6] x) => (float[4, 6] y) <float s = {0.1}, int8 z = {3}> {
        a = Exp(x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Mul(d, d) }""",
    "normalised": """g (float[1, 3, 8] x) => (float[1, 3, 8] y) <float[3] s = {1, 2, 3}, float[3] v = {1, 1, 2}> {
        a = BatchNormalization(x, s, s, v, v) b = InstanceNormalization(a, s, v) y = Softmax(b) }""",
}  # fmt: skip


@pytest.mark.parametrize("low", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", GRAPHS)
def test_every_value_has_the_dtype_of_the_engines_graph(name: str, low: str) -> None:
    model = parse(GRAPHS[name])
    shape = [int(size) for size in model.graph.inputs[0].shape or ()]
    inputs = {"x": torch.randn(shape, generator=torch.Generator().manual_seed(0)), "t": torch.tensor(True)}
    seen: dict[str, torch.dtype] = {}
    run_graph(
        onnx_run_graph(model), {str(it.name): inputs[str(it.name)] for it in model.graph.inputs},
        dtype=getattr(torch, low), on_value=lambda value, tensor: seen.update({value: tensor.dtype}),
    )  # fmt: skip
    typed = apply(model, {}, default=low).model
    made = {str(value.name): value.dtype for node in typed.graph.all_nodes() for value in node.outputs}
    suffix = {"float16": "fp16", "bfloat16": "bf16"}[low]
    declared = {value: made.get(f"{value}_{suffix}", made.get(value)) for value in seen}  # an output is cast back
    assert len(seen) >= 3
    assert {value: NUMBERS[int(dtype)] for value, dtype in declared.items() if dtype in NUMBERS} == {
        value: dtype for value, dtype in seen.items() if declared[value] in NUMBERS
    }
