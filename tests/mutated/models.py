"""Small valid models that have all that a file may have: weights of every storage, bodies, functions, metadata."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper, parser

DATA = Path(__file__).parents[1] / "data" / "onnx"
HEAD = '<ir_version: 9, opset_import: ["" : 18]>'
TEXTS = {
    "layers": HEAD
    + """ g (float[2, 4] x) => (float[2, 3] y) <float[4, 3] w = {1,2,3,4,5,6,7,8,9,10,11,12}, float[3] b = {0,1,2}> {
        h = Gemm <alpha: float = 0.5> (x, w, b)  n = Relu(h)  y = Softmax <axis: int = -1> (n) }""",
    "convolution": HEAD
    + """ g (float[1, 1, 4, 4] x) => (float[1, 1, 2, 2] y) <float[1, 1, 3, 3] w = {1,0,1,0,1,0,1,0,1}> {
        y = Conv <kernel_shape = [3, 3], pads = [0, 0, 0, 0], strides = [1, 1]> (x, w) }""",
    "branches": HEAD
    + """ g (bool c, float[2] x) => (float[2] y) { a = Exp(x) y = If (c)
        <then_branch = t () => (float[2] z) { z = Neg(a) },
        else_branch = e () => (float[2] w) { w = Identity(a) }> }""",
    "loop": HEAD
    + """ g (float[2] x) => (float[2] y) <int64 n = {3}, bool t = {1}> { y = Loop (n, t, x) <body = b
        (int64 i, bool c, float[2] a) => (bool d, float[2] z) { d = Identity(c) z = Add(a, a) }> }""",
    "shapes": HEAD
    + """ g (float[2, 3] x) => (float[3, 2] y, int64[2] s) <int64[2] k = {3, 2}> { y = Reshape(x, k) s = Shape(x) }""",
    "indices": HEAD + """ g (int64[3] i) => (float[3, 2] y) <float[4, 2] t = {1,2,3,4,5,6,7,8}> { y = Gather(t, i) }""",
    "halves": HEAD + " g (float[2] x) => (float[2] y) { h = Cast <to: int = 10> (x) y = Cast <to: int = 1> (h) }",
    "function": """<ir_version: 9, opset_import: ["" : 18, "own" : 1]> g (float[2] x) => (float[2] y) { y = own.f(x) }
        <domain: "own", opset_import: ["" : 18]> f (a) => (b) { b = Exp(a) }""",
    "reduction": HEAD
    + " g (float[2, 3] x) => (float[2] y) <int64[1] k = {1}> { y = ReduceSum <keepdims: int = 0> (x, k) }",
}


def all_models() -> dict[str, onnx.ModelProto]:
    """Return every model by name."""
    found = {name: parser.parse_model(text) for name, text in TEXTS.items()}
    ones = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")  # in raw_data, where text gives float_data
    found["convolution"].graph.initializer[0].CopyFrom(ones)
    node = found["layers"].graph.node[0]
    node.name = "/encoder/Gemm"
    for key, value in {
        "pkg.torch.onnx.name_scopes": "['', 'encoder', 'linear']",
        "pkg.torch.onnx.class_hierarchy": "['a.Net', 'torch.nn.Linear', 'aten.linear.default']",
        "pkg.torch.onnx.stack_trace": 'File "net.py", line 3, in forward',
    }.items():
        node.metadata_props.add(key=key, value=value)
    found["layers"].metadata_props.add(key="author", value="nobody")
    found["layers"].graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, [2, 3]))
    for name in ("batchnorm/bn_op15", "wiring/dup_out", "qdq_opset17/qdq_conv"):
        found[name] = onnx.load(DATA / f"{name}.onnx")
    for value in found["qdq_opset17/qdq_conv"].graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 1
    return found
