"""Element types of an ONNX graph: inferred where they are missing, and changed for a whole graph."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from harness.errors import NotJudged, first_line
from harness.graph.constants import convert
from harness.graph.dtypes import BFLOAT16, DOUBLE, FLOAT, FLOAT16, HALF, NAMES
from harness.graph.ir import copy_model, graph_values, is_tensor, plain_model
from harness.isolated import Crashed, NoMemory, Raised, infer_shapes
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence

if TYPE_CHECKING:
    import onnx

INFERENCE_BYTES = 2**30
_DTYPE_ATTRIBUTES = {
    "Cast": "to",
    "EyeLike": "dtype",
    "Bernoulli": "dtype",
    "RandomNormal": "dtype",
    "RandomUniform": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniformLike": "dtype",
    "SequenceEmpty": "dtype",
    "BlackmanWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
    "DequantizeLinear": "output_dtype",
}
# Without their attribute these follow an input; the others of the table give FLOAT.
_FOLLOWS_INPUT = {"EyeLike", "Bernoulli", "RandomNormalLike", "RandomUniformLike", "DequantizeLinear"}


def promote(model: ir.Model) -> ir.Model:
    """Return a model with every float16 and bfloat16 value, weight, input and output in float32; it is only read.

    It is the given one where that has no such value.
    """
    plain = plain_model(model)
    if not _may_hold(plain, HALF):
        return plain
    copy = copy_model(model)
    retype(copy, {FLOAT16: FLOAT, BFLOAT16: FLOAT})
    return copy


def to_float64(model: ir.Model) -> ir.Model:
    """Return a copy with every float value, weight, input and output in float64, for ``onnx.reference``.

    The inside of group normalisation included: ONNX defines its statistics as FP32 unless the node says otherwise.
    """
    copy = copy_model(model)
    retype(copy, {FLOAT: DOUBLE, FLOAT16: DOUBLE, BFLOAT16: DOUBLE})
    for node in copy.graph.all_nodes():
        if node.op_type == "GroupNormalization" and node.domain == "" and copy.opset_imports.get("", 0) >= 21:
            node.attributes.add(ir.AttrInt64("stash_type", DOUBLE))
    return copy


def infer_types(model: ir.Model) -> None:
    """Fill in the types and shapes that a model lacks, in place, by ONNX shape inference without the large weights."""
    skeleton = model.clone()
    for value in list(skeleton.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _SHAPE_ELEMENTS:
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            del skeleton.graph.initializers[str(value.name)]
            if not value.is_graph_input():
                skeleton.graph.inputs.append(value)
    try:
        proto = _inferred(ir.to_proto(skeleton))
    except Raised as error:
        raise NotJudged(Sentence("inference_refuses", said=first_line(error))) from error
    for graph, inferred in zip(model.graphs(), ir.from_proto(proto).graphs(), strict=True):
        known = {value.name: value for value in graph_values(inferred)}
        for value in graph_values(graph):
            found = known.get(value.name)
            if found is not None:
                value.type = value.type or found.type
                value.shape = value.shape if value.shape is not None else found.shape


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with shapes, as far as they follow from values too where that takes no gigabyte.

    Values are propagated element by element, unknown ones as well: a vector of 10^12 would take all memory.
    """
    import onnx

    serialized = proto.SerializeToString()
    try:
        found = infer_shapes(serialized, values=True, most_bytes=INFERENCE_BYTES)
    except (Crashed, NoMemory):
        found = infer_shapes(serialized, values=False, most_bytes=INFERENCE_BYTES)
    return onnx.load_from_string(found)


def complete_types(model: ir.Model, *, needed: bool) -> None:
    """Fill in missing dtypes; raises NotJudged when one stays unknown and is needed."""
    if _untyped(model) is None:
        return
    infer_types(model)
    value = _untyped(model)
    if value is not None and (needed or any(item.dtype in HALF for item in graph_values(model.graph))):
        node = value.producer()
        assert node is not None
        where = "" if node.graph is model.graph else Sentence("inside_body")
        raise NotJudged(
            Sentence(
                "value_untyped",
                name=value.name,
                where=where,
                name_2=node.name,
                domain=node.domain or "ai.onnx",
                op_type=node.op_type,
            )
        )


def _untyped(model: ir.Model) -> ir.Value | None:
    nodes = model.graph.all_nodes()  # those of bodies too
    return next((value for node in nodes for value in node.outputs if value.name and value.type is None), None)


def is_switchable(value: ir.Value) -> bool:
    """Return whether a value is a tensor of float32, float16 or bfloat16, whose dtype a plan may change."""
    return value.dtype in NAMES and is_tensor(value)


def make_cast(node: ir.Node) -> None:
    """Turn a CastLike into a Cast; its dtype attribute is set afterwards."""
    node.op_type = "Cast"
    node.resize_inputs(1)


def set_dtype_attribute(node: ir.Node, dtype: int) -> None:
    """Write the dtype of a node's float output into its attribute, where the op has one."""
    if node.op_type in _DTYPE_ATTRIBUTES:
        node.attributes.add(ir.AttrInt64(_DTYPE_ATTRIBUTES[node.op_type], dtype))
    elif node.op_type == "ConstantOfShape":
        node.attributes.add(ir.AttrTensor("value", convert(_fill_tensor(node), dtype)))


def _fill_tensor(node: ir.Node) -> ir.TensorProtocol:
    """Return the value a ConstantOfShape fills with; float zero where it has none."""
    value = node.attributes.get("value")
    return ir.Tensor(np.zeros(1, np.float32)) if value is None else value.as_tensor()


def _may_hold(model: ir.Model, dtypes: Collection[int]) -> bool:
    """Return whether anything in a model has one of these dtypes, or may have: a value without a type, no tensor."""
    for graph in model.graphs():
        values = (value for value in graph_values(graph) if value.name)
        if any(not isinstance(value.type, ir.TensorType) or value.type.dtype in dtypes for value in values):
            return True
        if any(tensor is not None and tensor.dtype in dtypes for tensor in _constants(graph)):
            return True
        for node in graph:
            given = node.attributes.get(_DTYPE_ATTRIBUTES.get(node.op_type, ""))
            if given is not None and given.value in dtypes:
                return True
    return False


def _constants(graph: ir.Graph) -> Iterator[ir.TensorProtocol | None]:
    """Yield the tensors of a graph's initializers and of its nodes' attributes."""
    yield from (value.const_value for value in graph.initializers.values())
    attributes = (attribute for node in graph for attribute in node.attributes.values())
    yield from (attribute.value for attribute in attributes if attribute.type == ir.AttributeType.TENSOR)


def retype(model: ir.Model, mapping: Mapping[int, int]) -> None:
    """Replace dtypes throughout a model and its subgraphs."""
    for graph in list(model.graphs()):
        for value in graph_values(graph):
            value.type = _retyped(value.type, mapping)
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and int(tensor.dtype) in mapping:
                value.const_value = convert(tensor, mapping[int(tensor.dtype)])
        for node in graph:
            if node.domain == "":
                _retype_attributes(node, mapping)


def _retyped(kind: ir.TypeProtocol | None, mapping: Mapping[int, int]) -> ir.TypeProtocol | None:
    if isinstance(kind, ir.TensorType):
        return ir.TensorType(ir.DataType(mapping.get(int(kind.dtype), int(kind.dtype))))
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        inner = _retyped(kind.elem_type, mapping)
        assert inner is not None
        return type(kind)(inner)
    return kind


def _retype_attributes(node: ir.Node, mapping: Mapping[int, int]) -> None:
    if node.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        if tensor is not None and int(tensor.dtype) in mapping:
            node.attributes.clear()
            node.attributes.add(ir.AttrTensor("value", convert(tensor, mapping[int(tensor.dtype)])))
    elif node.op_type == "ConstantOfShape":
        dtype = int(_fill_tensor(node).dtype)
        if dtype in mapping:
            set_dtype_attribute(node, mapping[dtype])
    elif node.op_type in _DTYPE_ATTRIBUTES:
        given = node.attributes.get(_DTYPE_ATTRIBUTES[node.op_type])
        if given is None and node.op_type in _FOLLOWS_INPUT:
            return
        dtype = FLOAT if given is None else given.as_int()
        if dtype in mapping:
            set_dtype_attribute(node, mapping[dtype])


# Larger constants are weights; smaller ones are shapes and axes, whose values shape inference needs.
_SHAPE_ELEMENTS = 256
