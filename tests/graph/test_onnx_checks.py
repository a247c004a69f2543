"""Graphs that are no graphs: each is refused with the node's name."""

from __future__ import annotations

import onnx
import pytest
from onnx import parser

from harness import UsageError
from harness.graph.onnx_file import open_onnx

HEAD = '<ir_version: 9, opset_import: ["" : 18]>'


@pytest.fixture
def opened(tmp_path):
    """Return a function that opens a model given as text."""

    def open_text(text):
        onnx.save(parser.parse_model(f"{HEAD} {text}"), tmp_path / "m.onnx")
        return open_onnx(tmp_path / "m.onnx")

    return open_text


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Exp(a) y = Add(a, b) }", ("cycle", "Add")),
        ("g (float[2] x) => (float[2] y) { y = Add(x, y) }", ("cycle", "Add")),
        ("g (float[2] x) => (float[2] y) { y = Add(x, z) }", ("'z'", "nothing computes")),
        ("g (float[2] x) => (float[2] y) { z = Exp(x) }", ("'y'", "nothing")),
        ("g (float[2] x) => (float[2] y) { y = com.foo.Bar(x) }", ("'com.foo'", "Bar")),
    ],
)
def test_a_graph_that_cannot_be_computed_is_refused(opened, text, facts):
    with pytest.raises(UsageError) as refused:
        opened(text)
    assert all(fact in str(refused.value) for fact in facts)


def test_nodes_in_another_order_are_sorted(opened):
    model = opened("g (float[2] x) => (float[2] y) { y = Add(a, x) a = Exp(x) }")
    assert [node.op_type for node in model.graph] == ["Exp", "Add"]


def test_a_value_of_the_graph_around_may_be_read_inside_a_branch(opened):
    model = opened(
        "g (bool c, float[2] x) => (float[2] y) { a = Exp(x) y = If (c) "
        "<then_branch = t () => (float[2] z) { z = Neg(a) }, else_branch = e () => (float[2] w) { w = Identity(a) }> }"
    )
    assert [node.op_type for node in model.graph] == ["Exp", "If"]
