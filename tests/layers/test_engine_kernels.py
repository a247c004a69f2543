"""Which values the kernels of an engine may write, of small graphs and of a recorded engine."""

from __future__ import annotations

import json
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

from harness.backends.inspector import Kernel, read_kernels
from harness.graph import onnx_file
from harness.graph.typed import apply
from harness.graph.values import Value, Values
from harness.layers.engine_kernels import Candidates, EngineKernels

CLIP = Path(__file__).parents[1] / "data" / "clip2_fp16_kernels.json"


def kernel(*nodes: str, index: int = 0, reads: tuple[str, ...] = (), writes: tuple[str, ...] = ("t",)) -> Kernel:
    return Kernel(index=index, name=f"kernel_{index}", nodes=nodes, reads=reads, writes=writes)


CHAIN = """
g (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}, float[1] half = {0.5}>
{ a = MatMul(x, w)  b = Mul(a, half)  c = Transpose <perm = [1, 0]> (b)  d = Exp(a)  e = Transpose <perm = [1, 0]> (c)
  y = Add(d, e) }
"""


def named_graph(body: str) -> ir.Model:
    """Return a graph whose nodes are named after what they make."""
    model = ir.from_onnx_text(f'<ir_version: 9, opset_import: ["" : 18]>\n{body}')
    for node in model.graph:
        node.name = f"node_{node.outputs[0].name}"
    return model


def engine(model: ir.Model, *kernels: Kernel, values: Values | None = None) -> EngineKernels:
    return EngineKernels.of(model, onnx_file.onnx_values(model) if values is None else values, kernels)


def test_candidates_of_a_kernel():
    made = engine(
        named_graph(CHAIN), kernel("node_a"), kernel("node_d", "node_b", "node_c", "node_e", "node_y", index=1)
    )
    product, rest = made.candidates
    assert (product.leaving, product.inside, product.read) == (("a",), (), ("x",))
    assert set(product.after) == {"b", "c", "e"}
    assert (rest.leaving, rest.inside, rest.read) == (("y",), ("b", "c", "d", "e"), ("a",))
    assert rest.names == ("y", "b", "c", "d", "e", "a")
    assert made.inputs == {"x"}


def test_the_product_of_two_variable_values_is_no_constant_factor():
    body = "g (float[2] x) => (float[2] y) { a = Exp(x)  y = Mul(a, x) }"
    assert engine(named_graph(body), kernel("node_a")).candidates[0].after == ()


def test_what_a_later_kernel_works_on_too_is_unfinished():
    made = engine(named_graph(CHAIN), kernel("node_a", "node_d"), kernel("node_d", "node_y", index=1))
    assert made.candidates[0].unfinished == {"d"}
    assert made.candidates[1].unfinished == frozenset()


def test_a_kernel_without_nodes_may_copy_what_the_kernels_before_it_wrote():
    copy = Kernel(index=1, name="copy", nodes=(), reads=("t", "weights"), writes=("u",))
    made = engine(named_graph(CHAIN), kernel("node_a", "node_b"), copy)
    assert made.candidates[1] == Candidates(read=("a", "b"))


def test_every_value_is_fused_into_the_last_kernel_that_works_on_it():
    made = engine(named_graph(CHAIN), kernel("node_a", "node_d"), kernel("node_d", index=1))
    assert made.computed_in == {"a": "kernel_0", "d": "kernel_1"}


def test_nodes_that_the_graph_has_not_are_no_candidates():
    assert engine(named_graph(CHAIN), kernel("node_of_the_builder")).candidates == [Candidates()]


def test_what_is_computed_from_constants_is_no_candidate():
    body = "g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { c = Exp(w)  d = Neg(c)  y = Add(x, d) }"
    made = engine(named_graph(body), kernel("node_c"), kernel("node_d", "node_y", index=1))
    assert made.candidates == [Candidates(), Candidates(leaving=("y",), read=("x",))]


def test_what_a_body_reads_is_read_by_its_node():
    body = """g (float[2] x, bool flag) => (float[2] y) {
        a = Exp(x)
        b = Neg(a)
        y = If (flag) <then_branch = t () => (float[2] p) { p = Exp(a) },
                       else_branch = e () => (float[2] q) { q = Exp(b) }>
    }"""
    made = engine(named_graph(body), kernel("node_a", "node_b"), kernel("node_y", index=1))
    assert made.candidates[0].leaving == ("a", "b")
    assert set(made.candidates[1].read) == {"flag", "a", "b"}


def typed(body: str, **dtypes: str) -> EngineKernels:
    """Return the kernels of a graph in FP16 but for these values, each node in a kernel of its own."""
    model = named_graph(body)
    values = onnx_file.onnx_values(model)
    graph = apply(model, dtypes, default="float16").model
    return EngineKernels.of(graph, values, [kernel(str(node.name), index=i) for i, node in enumerate(graph.graph)])


def test_a_value_and_its_casts_are_one_value():
    made = typed("g (float[2] x) => (float[2] y) { a = Exp(x)  b = Sin(a)  y = Cos(b) }", b="float32")
    assert made.dtypes["x"] == {torch.float32, torch.float16}
    assert made.dtypes["a"] == {torch.float16, torch.float32}
    assert made.dtypes["y"] == {torch.float32, torch.float16}
    names = {name for candidates in made.candidates for name in candidates.names}
    assert names == {"x", "a", "b", "y"}


def test_the_cast_of_an_output_belongs_to_the_output():
    made = typed("g (float[2] x) => (float[2] y) { y = Exp(x) }")
    by_node = {found.nodes[0]: candidates for found, candidates in zip(made.kernels, made.candidates, strict=True)}
    assert by_node["node_y"].leaving == ("y",)


# An engine of TensorRT for RTX: a CLIP text encoder of two layers, FP16, on an H200


def inspected(*layers: dict[str, object]) -> str:
    return json.dumps({"Layers": layers})


@pytest.fixture(scope="module")
def clip() -> dict[str, object]:
    """Return what was recorded: the inspector's layers, the taps, and the graph's nodes and values, without tensors."""
    recorded: dict[str, object] = json.loads(CLIP.read_text(encoding="utf-8"))
    return recorded


def clip_graph(recorded: dict[str, object]) -> tuple[ir.Model, Values]:
    """Return the typed graph, of which only nodes, names and dtypes were kept, and the value table."""
    values: dict[str, ir.Value] = {}

    def value(name: str) -> ir.Value:
        dtype = ir.DataType(recorded["dtypes"].get(name, 0)) if name in recorded["dtypes"] else None
        return values.setdefault(name, ir.Value(name=name, type=ir.TensorType(dtype) if dtype else None))

    nodes = []
    inputs = [value(name) for name in recorded["inputs"]]
    for name, op, reads, writes in recorded["nodes"]:
        entering = [value(read) if read else None for read in reads]
        nodes.append(ir.Node("", op, entering, outputs=[value(made) for made in writes], name=name))
    constants = [value(name) for name in recorded["initializers"]]
    outputs = [value(name) for name in recorded["outputs"]]
    graph = ir.Graph(inputs, outputs, nodes=nodes, initializers=constants, opset_imports={"": 18}, name="clip")
    table = {name: Value(name=name, origin=name, op="") for name in recorded["values"]}
    return ir.Model(graph, ir_version=10), table


def test_nodes_of_a_recorded_engine_are_nodes_of_its_graph(clip):
    graph, _ = clip_graph(clip)
    nodes = {str(node.name) for node in graph.graph}
    kernels = read_kernels(inspected(*clip["layers"]))
    assert len(kernels) == 25
    assert {node for found in kernels for node in found.nodes} <= nodes


def test_every_float_tensor_of_a_recorded_engine_has_candidates(clip):
    graph, values = clip_graph(clip)
    made = EngineKernels.of(graph, values, read_kernels(inspected(*clip["layers"])))
    writer = {name: found for found in made.kernels for name in found.writes}
    floats = [name for name, dtype in clip["taps"].items() if dtype in ("HALF", "FLOAT") and name in writer]
    assert len(floats) > 20
    without = [name for name in floats if not made.candidates[writer[name].index].names]
    assert without == []
    named = {name for candidates in made.candidates for name in candidates.names}
    assert named <= {*values, *made.inputs}


def test_fused_kernels_of_a_recorded_engine_hold_every_variable_value(clip):
    graph, values = clip_graph(clip)
    made = EngineKernels.of(graph, values, read_kernels(inspected(*clip["layers"])))
    products = {str(node.outputs[0].name) for node in graph.graph if node.op_type == "MatMul"}
    assert products
    assert products <= set(made.computed_in)
