"""An ONNX model's hash: every graph, function, attribute and tensor of it counts, and where it lies does not."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from harness.graph import graph_sha256, open_onnx


def model() -> onnx.ModelProto:
    """Return a model with a weight, a branch in a branch, two functions and a string."""
    one = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])

    def body(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return helper.make_graph(list(nodes), name, [], [helper.make_tensor_value_info(f"{name}_y", 1, [2])])

    def constant(name: str, value: float) -> onnx.NodeProto:
        return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.float32([value, value])))

    inner = helper.make_node(
        "If", ["flag"], ["outer_y"],
        then_branch=body("deep", constant("deep_y", 2.5)), else_branch=body("shallow", constant("shallow_y", 3.5)),
    )  # fmt: skip
    branch = helper.make_node(
        "If", ["flag"], ["chosen"], then_branch=body("outer", inner), else_branch=body("other", constant("other_y", 1)),
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    scale = helper.make_function(
        "own", "Scale", ["a"], ["b"],
        [
            helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32([4.5]))),
            helper.make_node("Mul", ["a", "k"], ["b"]),
        ],
        opsets[:1],
    )  # fmt: skip
    leak = helper.make_function(
        "own", "Leak", ["a"], ["b"], [helper.make_node("LeakyRelu", ["a"], ["b"])], opsets[:1], ["alpha"]
    )
    leak.node[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=1))
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"], name="sum_node"),
        branch,
        helper.make_node("Add", ["sum", "chosen"], ["both"]),
        helper.make_node("Scale", ["both"], ["scaled"], domain="own"),
        helper.make_node("Leak", ["scaled"], ["y"], domain="own", alpha=0.25),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, [2]), helper.make_tensor_value_info("flag", TensorProto.BOOL, [])]
    weight = numpy_helper.from_array(np.float32([1, 2]), "w")
    graph = helper.make_graph(nodes, "g", inputs, [one], [weight])
    return helper.make_model(graph, opset_imports=opsets, functions=[scale, leak], ir_version=9)


def deep(m: onnx.ModelProto) -> onnx.NodeProto:
    return m.graph.node[1].attribute[1].g.node[0]


CHANGES: dict[str, Callable[[onnx.ModelProto], object]] = {
    "a weight": lambda m: m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.float32([1, 3]), "w")),
    "a constant of a branch": lambda m: (
        m.graph.node[1].attribute[0].g.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.float32([1, 9])))
    ),
    "a constant of a branch in a branch": lambda m: (
        deep(m).attribute[0].g.node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.float32([9, 9])))
    ),
    "a constant of a function": lambda m: (
        m.functions[0].node[0].attribute[0].t.CopyFrom(numpy_helper.from_array(np.float32([5.5])))
    ),
    "an operator of a function": lambda m: setattr(m.functions[0].node[1], "op_type", "Div"),
    "the operator set of a function": lambda m: setattr(m.functions[1].opset_import[0], "version", 17),
    "the order of a function's inputs": lambda m: m.functions[0].node[1].input.__setitem__(slice(0, 2), ["k", "a"]),
    "an attribute of a call": lambda m: setattr(m.graph.node[4].attribute[0], "f", 0.5),
    "an attribute that a function hands on": lambda m: (
        m.functions[1].node[0].attribute[0].CopyFrom(helper.make_attribute("alpha", 0.25))
    ),
    "the domain of a call": lambda m: setattr(m.graph.node[4], "domain", "other"),
    "a connection": lambda m: m.graph.node[2].input.__setitem__(1, "sum"),
    "an operator set": lambda m: setattr(m.opset_import[0], "version", 17),
    "the type of an input": lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.DOUBLE),
    "the type of a value": lambda m: m.graph.value_info.append(helper.make_tensor_value_info("sum", 10, [2])),
    "the shape of an output": lambda m: m.graph.output[0].type.tensor_type.shape.dim[0].Clear(),
    "the name of a node": lambda m: setattr(m.graph.node[0], "name", "another"),
    "a module path": lambda m: m.graph.node[0].metadata_props.append(
        onnx.StringStringEntryProto(key="pkg.torch.onnx.name_scopes", value="['', 'block', 'sum']")
    ),
}


def sha256(proto: onnx.ModelProto) -> str:
    import onnx_ir

    return graph_sha256(onnx_ir.from_proto(proto))


@pytest.mark.parametrize("what", CHANGES)
def test_each_part_counts(what):
    changed = model()
    CHANGES[what](changed)
    assert sha256(changed) != sha256(model())


def test_what_is_no_part_of_the_graph_does_not():
    changed = model()
    changed.graph.name, changed.producer_name, changed.doc_string = "other", "somebody", "words"
    note = onnx.StringStringEntryProto(key="pkg.torch.onnx.stack_trace", value='File "/elsewhere/net.py", line 3')
    changed.graph.node[0].metadata_props.append(note)
    functions = list(reversed([copy.deepcopy(one) for one in changed.functions]))
    del changed.functions[:]
    changed.functions.extend(functions)
    assert sha256(changed) == sha256(model())


def long_list(value: float) -> onnx.ModelProto:
    many = np.zeros(5000, np.float32)
    many[2500] = value
    node = helper.make_node("Custom", ["x"], ["y"], domain="own")
    node.attribute.append(helper.make_attribute("tensors", [numpy_helper.from_array(many, "t")]))
    node.attribute.append(helper.make_attribute("floats", [float(one) for one in many]))
    ends = [helper.make_tensor_value_info(name, 1, [2]) for name in "xy"]
    return helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), opset_imports=[])


def test_the_middle_of_a_long_list_counts():
    assert sha256(long_list(0)) == sha256(long_list(0))
    assert sha256(long_list(0)) != sha256(long_list(1))


def words(*texts: str) -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("t", TensorProto.STRING, [2], texts))
    out = helper.make_tensor_value_info("y", TensorProto.STRING, [2])
    return helper.make_model(helper.make_graph([node], "g", [], [out]), opset_imports=[helper.make_opsetid("", 18)])


def test_texts_count():
    assert sha256(words("a", "b")) == sha256(words("a", "b"))
    assert sha256(words("a", "b")) != sha256(words("ab", ""))


def external(folder, name, data, value):
    weight = numpy_helper.from_array(np.full(600, value, np.float32), "w")
    ends = [helper.make_tensor_value_info(name, 1, [600]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / name, save_as_external_data=True, location=data, size_threshold=0)
    return graph_sha256(open_onnx(folder / name))


def test_weights_in_another_file_count_by_content_and_not_by_name(tmp_path):
    first = external(tmp_path / "a", "net.onnx", "net.data", 1.5)
    assert external(tmp_path / "b", "renamed.onnx", "weights.bin", 1.5) == first
    assert external(tmp_path / "a", "net.onnx", "net.data", 2.5) != first
