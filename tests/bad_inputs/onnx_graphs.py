"""Graphs of ONNX files: cyclic, dangling, of a foreign domain, of sizes that no tensor has."""

from __future__ import annotations

from bad_inputs.row import VERIFY, Row, model

ROWS = (
    Row("cycle", model("g (float[2] x) => (float[2] y) { a = Add(x, b) b = Exp(a) y = Add(a, b) }"), VERIFY, 2, ("m.onnx", "cycle", "Add")),
    Row("cycle of one node", model("g (float[2] x) => (float[2] y) { y = Add(x, y) }"), VERIFY, 2, ("cycle", "Add")),
    Row("dangling input of a node", model("g (float[2] x) => (float[2] y) { y = Add(x, z) }"), VERIFY, 2, ("'z'", "nothing computes")),
    Row("dangling output", model("g (float[2] x) => (float[2] y) { z = Exp(x) }"), VERIFY, 2, ("'y'", "nothing")),
    Row("one value computed twice", model("g (float[2] x) => (float[2] y) { y = Exp(x) y = Neg(x) }"), VERIFY, 2, ("m.onnx", "'y'", "redeclared")),
    Row("domain without an opset", model("g (float[2] x) => (float[2] y) { y = com.foo.Bar(x) }"), VERIFY, 2, ("'com.foo'", "Bar", "opset")),
    Row("input of strings", model("g (string[2] x) => (string[2] y) { y = Identity(x) }"), VERIFY, 2, ("'x'", "numbers")),
    Row("open dimension", model("g (float[n, 2] x) => (float[n, 2] y) { y = Relu(x) }"), VERIFY, 2, ("'n'", "--shape x=2,2")),
)  # fmt: skip
