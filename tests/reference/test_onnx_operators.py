"""ONNX operators in PyTorch give what ONNX Runtime gives, and leave to it what they do not know."""

from __future__ import annotations

import math

import onnx_ir as ir
import pytest
import torch
from fake import normal
from graphs import parse

from harness.reference.onnx_operators import _OPERATORS, evaluate
from harness.reference.onnx_run import run_fp32

X, SCALE, BIAS = normal(2, 3, 4), normal(3, seed=1), normal(3, seed=2)
NODES = [
    ("Add", "y = Add(a, b)", {"a": X, "b": normal(3, 4, seed=1)}),
    ("Sub", "y = Sub(a, b)", {"a": X, "b": normal(3, 4, seed=1)}),
    ("Mul", "y = Mul(a, b)", {"a": X, "b": normal(1, seed=1)}),
    ("MatMul", "y = MatMul(a, b)", {"a": X, "b": normal(4, 5, seed=1)}),
    ("MatMul", "y = MatMul(a, b)", {"a": normal(4), "b": normal(4, 5, seed=1)}),
    ("MatMul", "y = MatMul(a, b)", {"a": normal(2, 1, 3, 4), "b": normal(5, 4, 3, seed=1)}),
    ("Sigmoid", "y = Sigmoid(a)", {"a": 10 * X}),
    ("Sqrt", "y = Sqrt(a)", {"a": X}),
    ("Softmax", "y = Softmax(a)", {"a": X}),
    ("Softmax", "y = Softmax <axis = 1> (a)", {"a": X.masked_fill(X < 0, -math.inf)}),
    ("Cast", "d = Cast <to = 11> (a) y = Cast <to = 1> (d)", {"a": X}),
    ("IsNaN", "n = IsNaN(a) y = Where(n, b, a)", {"a": X.sqrt(), "b": normal(1)}),
    ("Where", "y = Where(c, a, b)", {"c": X > 0, "a": X, "b": normal(4)}),
    ("Reshape", "y = Reshape(a, s)", {"a": X, "s": torch.tensor([0, -1, 2])}),
    ("Reshape", "y = Reshape <allowzero = 1> (a, s)", {"a": torch.zeros(0, 4), "s": torch.tensor([4, 0])}),
    ("Transpose", "y = Transpose(a)", {"a": X}),
    ("Transpose", "y = Transpose <perm = [1, 0, 2]> (a)", {"a": X}),
    ("InstanceNormalization", "y = InstanceNormalization(a, s, b)", {"a": X, "s": SCALE, "b": BIAS}),
    (
        "InstanceNormalization",
        "y = InstanceNormalization <epsilon = 0.5> (a, s, b)",
        {"a": normal(2, 3, 1, 5), "s": SCALE, "b": BIAS},
    ),
]
CLOSE = 1e-6
"""Ten times the largest that was seen: 1.01e-7, of a MatMul. On another processor the terms add up in another order."""
NAMES = {torch.float32: "float", torch.int64: "int64", torch.bool: "bool"}


def graph(body: str, inputs: dict[str, torch.Tensor], opset: int = 18) -> ir.Model:
    shapes = {name: ",".join(map(str, value.shape)) for name, value in inputs.items()}
    declared = ", ".join(f"{NAMES[value.dtype]}[{shapes[name]}] {name}" for name, value in inputs.items())
    return parse(f"g ({declared}) => (float y) {{ {body} }}", opset=opset)


def computed(model: ir.Model, inputs: dict[str, torch.Tensor], opset: int = 18) -> torch.Tensor | None:
    """Return ``y``, every node of the graph evaluated here; None when one is not known."""
    known = dict(inputs)
    for node in model.graph:
        made = evaluate(node, lambda value: known[str(value.name)], opset=opset)
        if made is None:
            return None
        known[str(node.outputs[0].name)] = made
    return known["y"]


def test_every_operator_is_tried():
    assert {name for name, _, _ in NODES} == set(_OPERATORS)


@pytest.mark.parametrize(("name", "body", "inputs"), NODES)
def test_an_operator_is_that_of_onnxruntime(name, body, inputs):
    model = graph(body, inputs)
    expected = run_fp32(model)(inputs)["y"]
    found = computed(model, inputs)
    assert found is not None
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    torch.testing.assert_close(found, expected, rtol=CLOSE, atol=CLOSE, equal_nan=True)


@pytest.mark.parametrize(("name", "body", "inputs"), [case for case in NODES if case[0] != "Cast"])
def test_an_operator_keeps_float64(name, body, inputs):
    double = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    found = computed(graph(body, inputs), double)
    assert found is not None
    assert found.dtype == torch.float64
    single = computed(graph(body, inputs), inputs)
    torch.testing.assert_close(found.float(), single, rtol=CLOSE, atol=CLOSE, equal_nan=True)


@pytest.mark.parametrize(
    ("body", "inputs", "opset"),
    [
        ("y = Add(a, b)", {"a": torch.ones(2, dtype=torch.int64), "b": torch.ones(2, dtype=torch.int64)}, 18),
        ("y = MatMul(a, b)", {"a": torch.ones(2, 2, dtype=torch.int64), "b": torch.ones(2, 2, dtype=torch.int64)}, 18),
        ("y = Erf(a)", {"a": X}, 18),
        ("h = Cast <to = 10> (a) y = Cast <to = 1> (h)", {"a": X}, 18),
        ("y = Softmax(a)", {"a": X}, 11),
    ],
    ids=["integers", "product of integers", "unknown", "rounded", "old"],
)
def test_what_is_not_known_is_left_to_onnxruntime(body, inputs, opset):
    assert computed(graph(body, inputs, opset), inputs, opset) is None


def test_an_operator_of_another_domain_is_another():
    node = ir.Node("other", "Add", [ir.Value(name="a"), ir.Value(name="b")])
    assert evaluate(node, lambda value: X, opset=18) is None
