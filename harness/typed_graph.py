"""The typed graph: every value of an ONNX graph in its assigned dtype, with Casts where dtypes meet.

TensorRT networks are strongly typed: precision is a property of the graph. :func:`apply` writes an assignment into it;
:func:`emulate` makes the FP32 graph that rounds like the same assignment, the floor of a subject that exists only as an
ONNX file. All functions work on a copy and share its weights.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

from harness.errors import NotJudged
from harness.onnx_graph import constant_of, copy_model, elements_of, graph_values, inner_graphs, is_tensor

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

# Element types, as in onnx.TensorProto.DataType; onnx itself is imported only where a graph is handled.
_FLOAT, _FLOAT16, _DOUBLE, _BFLOAT16 = 1, 10, 11, 16
_ONNX = {"float32": _FLOAT, "float16": _FLOAT16, "bfloat16": _BFLOAT16}
_SHORT = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
_NAMES = {number: name for name, number in _ONNX.items()}
_HALF = (_FLOAT16, _BFLOAT16)

# Rounding a scale moves the quantisation grid, and the scale of a bias underflows in float16.
_EXACT = {"QuantizeLinear", "DequantizeLinear"}
# Inputs that hold sizes, positions or counts rather than values: float16 counts only up to 2048.
_NATURAL_INPUTS = {"Resize": (1, 2), "Upsample": (1,), "OneHot": (0, 1)}
# These read only the shape of their input, or convert it themselves.
_ANY_INPUT = {"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Cast"}
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
# Rounding again what was rounded before changes nothing.
_MOVES_DATA = {
    *("Reshape", "Transpose", "Slice", "Concat", "Gather", "GatherElements", "GatherND", "Expand", "Unsqueeze"),
    *("Squeeze", "Split", "Identity", "Flatten", "Tile", "DepthToSpace", "SpaceToDepth", "Relu", "Neg", "Abs"),
    *("Where", "MaxPool"),
}
_TF32_OPS = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"}
_LAZY_ELEMENTS = 2**16
_OUTSIDE: WeakKeyDictionary[ir.TensorProtocol, dict[int, int]] = WeakKeyDictionary()
"""How many elements of a constant are beyond a dtype: each engine and lane asks again, and weights take seconds."""
# Shapes, axes and the like: shape inference must see their values.
_SHAPE_ELEMENTS = 256


@dataclass(frozen=True, kw_only=True)
class Applied:
    """A typed graph and what a reader must know about it."""

    model: ir.Model
    """The typed graph; the model it was made from is unchanged."""
    notes: tuple[str, ...]
    """Saturated constants and nodes that stayed in FP32, one sentence each."""
    counts: Mapping[str, int]
    """How many computed float values have each dtype."""


def apply(model: ir.Model, dtypes: Mapping[str, str], *, default: str) -> Applied:
    """Return a copy of the model in which every value has its assigned dtype, with Casts where dtypes meet.

    ``dtypes`` maps value names to ``float32``, ``float16`` or ``bfloat16``; values without an entry get ``default``.
    Network inputs and outputs keep their names and dtypes; integers, booleans and float64 are left alone. Constants are
    converted, and saturate at the largest finite number as PyTorch's own masks do. Raises NotJudged when the dtype of a
    value cannot be known.
    """
    typed = copy_model(model)
    _complete_types(typed, needed=default != "float32" or any(dtype != "float32" for dtype in dtypes.values()))
    typer = _Typer(typed, dtypes, default)
    for node in list(typed.graph):
        typer.visit(node)
    typer.restore_outputs()
    typer.drop_unused()
    return Applied(model=typed, notes=typer.notes(), counts=dict(typer.counts))


def promote(model: ir.Model) -> ir.Model:
    """Return a copy with every float16 and bfloat16 value, weight, input and output in float32."""
    copy = copy_model(model)
    _retype(copy, {_FLOAT16: _FLOAT, _BFLOAT16: _FLOAT})
    return copy


def to_float64(model: ir.Model) -> ir.Model:
    """Return a copy with every float value, weight, input and output in float64, for ``onnx.reference``.

    The inside of group normalisation included: ONNX defines its statistics as FP32 unless the node says otherwise.
    """
    import onnx_ir as ir

    copy = copy_model(model)
    _retype(copy, {_FLOAT: _DOUBLE, _FLOAT16: _DOUBLE, _BFLOAT16: _DOUBLE})
    for node in copy.graph.all_nodes():
        if node.op_type == "GroupNormalization" and node.domain == "" and copy.opset_imports.get("", 0) >= 21:
            node.attributes.add(ir.AttrInt64("stash_type", _DOUBLE))
    return copy


def emulate(model: ir.Model, dtypes: Mapping[str, str], *, default: str = "float32", tf32: bool = False) -> ir.Model:
    """Return a graph in FP32 arithmetic that rounds like the plan, with FP32 inputs and outputs.

    Wherever the typed graph holds float16 or bfloat16, the value passes through Cast(low) and Cast(float32): one
    rounding per operation, FP32 inside it. With ``tf32`` the operands of matrix products and convolutions are rounded
    to 11 significant bits by Veltkamp's splitting (Dekker 1971), which overflows above 4e34.
    """
    typed = apply(model, dtypes, default=default).model
    rounded = [
        (value, value.dtype)
        for node in typed.graph
        for value in node.outputs
        if node.op_type not in _MOVES_DATA and value.dtype in _HALF and is_tensor(value)
    ]
    operands = _tf32_operands(typed.graph) if tf32 else []
    _retype(typed, {_FLOAT16: _FLOAT, _BFLOAT16: _FLOAT})
    names = _Names(typed)
    for value, low in rounded:
        _insert_rounding(typed.graph, value, low, names)
    split: dict[ir.Value, ir.Value] = {}
    for node, index in operands:
        operand = node.inputs[index]
        assert operand is not None
        if operand not in split:
            split[operand] = _insert_splitting(typed.graph, operand, names)
        node.replace_input_with(index, split[operand])
    return typed


class _Names:
    """Value names that are not taken yet."""

    def __init__(self, model: ir.Model) -> None:
        self._taken = {value.name for graph in model.graphs() for value in graph_values(graph)}

    def fresh(self, name: str) -> str:
        """Return the name, numbered if it is taken."""
        candidate, number = name, 1
        while candidate in self._taken:
            number += 1
            candidate = f"{name}_{number}"
        self._taken.add(candidate)
        return candidate


class _Typer:
    """Gives the values of one graph their dtypes, node by node in graph order."""

    def __init__(self, model: ir.Model, dtypes: Mapping[str, str], default: str) -> None:
        self.graph = model.graph
        self.counts: Counter[str] = Counter()
        self._opset = model.opset_imports.get("", 1)
        self._dtypes = dtypes
        self._default = default
        self._names = _Names(model)
        self._declared = [value.dtype for value in model.graph.outputs]
        self._natural: dict[ir.Value, int] = {}
        self._made: dict[tuple[ir.Value, int], ir.Value] = {}
        self._kept: Counter[tuple[str, str]] = Counter()
        self._saturated: dict[tuple[str, int], list[str]] = defaultdict(list)

    def visit(self, node: ir.Node) -> None:
        """Give one node its compute dtype: cast its inputs, set its attributes and the dtypes of its outputs."""
        if node.op_type == "Constant" and node.domain == "":
            return
        reason = self._reason_to_leave(node)
        if reason is not None:
            self._leave(node, reason)
            return
        signature = _signature(node.op_type, self._opset)
        assert signature is not None
        dtype = self._compute_dtype(node)
        if node.op_type == "CastLike" and _is_switchable(node.outputs[0]):
            _make_cast(node)
        for index, value in enumerate(node.inputs):
            if value is None or not _is_switchable(value) or node.op_type in _ANY_INPUT:
                continue
            if index in _NATURAL_INPUTS.get(node.op_type, ()):
                wanted = self._natural_dtype(value)
            else:
                wanted = dtype if signature.input_takes_half(index) else _FLOAT
            node.replace_input_with(index, self._as(value, wanted))
        for index, value in enumerate(node.outputs):
            if _is_switchable(value):
                self._set_dtype(value, dtype if signature.output_takes_half(index) else _FLOAT)
        if any(_is_switchable(value) for value in node.outputs):
            _set_dtype_attribute(node, dtype)

    def restore_outputs(self) -> None:
        """Cast the network outputs back to their declared dtypes, under their own names."""
        for index, (value, declared) in enumerate(zip(list(self.graph.outputs), self._declared, strict=True)):
            if declared is None or value.dtype == declared:
                continue
            name = str(value.name)
            cast = self._as(value, declared)
            value.name = self._names.fresh(f"{name}_{_SHORT[_NAMES[int(value.dtype or 0)]]}")
            cast.name = name
            self.graph.outputs[index] = cast

    def drop_unused(self) -> None:
        """Remove the constants of which only converted copies are used."""
        for value in {value for value, _ in self._made if constant_of(value) is not None}:
            if value.uses() or value.is_graph_output():
                continue
            producer = value.producer()
            if producer is None:
                del self.graph.initializers[str(value.name)]
            else:
                self.graph.remove(producer, safe=True)

    def notes(self) -> tuple[str, ...]:
        """Return one sentence for each kind of thing a reader must know."""
        kept = [f"{_many(count, f'{op} node')} kept in FP32: {why}" for (op, why), count in sorted(self._kept.items())]
        saturated = [
            f"{_many(len(found), 'constant')} saturated to +-{limit}: {', '.join(found)}"
            for (limit, _), found in sorted(self._saturated.items())
        ]
        return (*saturated, *kept)

    def _compute_dtype(self, node: ir.Node) -> int:
        wanted = {self._assigned(value) for value in node.outputs if _is_switchable(value)}
        if not wanted:
            # A comparison or an index: the widest of what it reads, so that no value is rounded for its sake.
            inputs = [value for value in node.inputs if value is not None and _is_switchable(value)]
            wanted = {int(value.dtype or 0) for value in inputs if constant_of(value) is None}
        return wanted.pop() if len(wanted) == 1 else _FLOAT

    def _assigned(self, value: ir.Value) -> int:
        return _ONNX[self._dtypes.get(str(value.name), self._default)]

    def _reason_to_leave(self, node: ir.Node) -> str | None:
        """Return why a node is left as it is, or None."""
        if any(True for _ in inner_graphs(node)):
            return "its subgraphs are not converted"
        signature = _signature(node.op_type, self._opset) if node.domain == "" else None
        if signature is None:
            return f"ONNX does not define it (domain {node.domain or 'ai.onnx'})"
        touched = [value for value in (*node.inputs, *node.outputs) if value is not None and value.type is not None]
        if not all(is_tensor(value) for value in touched):
            return "it works on sequences"
        if node.op_type in _EXACT:
            return "a scale must not be rounded"
        if node.op_type == "Range" or (_is_switchable(node.outputs[0]) and not signature.output_takes_half(0)):
            return "ONNX defines no float16 for it"
        return None

    def _leave(self, node: ir.Node, reason: str) -> None:
        """Feed a node, and whatever its subgraphs capture, in the dtypes of the original graph."""
        for index, value in enumerate(node.inputs):
            if value is not None and _is_switchable(value):
                node.replace_input_with(index, self._as(value, self._natural_dtype(value)))
        for inner in (inner for graph in inner_graphs(node) for inner in graph.all_nodes()):
            for index, value in enumerate(inner.inputs):
                if value in self._natural and _is_switchable(value):
                    inner.replace_input_with(index, self._as(value, self._natural_dtype(value)))
        floats = [value for value in node.outputs if _is_switchable(value)]
        for value in floats:
            self._set_dtype(value, int(value.dtype or 0))
        if any(self._assigned(value) != value.dtype for value in floats):
            self._kept[node.op_type, reason] += 1

    def _set_dtype(self, value: ir.Value, dtype: int) -> None:
        import onnx_ir as ir

        self._natural[value] = int(value.dtype or 0)
        value.type = ir.TensorType(
            ir.DataType(dtype)
        )  # setting value.dtype would change a type shared with the original
        self.counts[_NAMES[dtype]] += 1

    def _natural_dtype(self, value: ir.Value) -> int:
        return self._natural.get(value, int(value.dtype or 0))

    def _as(self, value: ir.Value, dtype: int) -> ir.Value:
        """Return the value in another dtype: itself, a converted constant, or a Cast right after its producer."""
        if value.dtype == dtype:
            return value
        if (value, dtype) not in self._made:
            tensor = constant_of(value)
            made = self._cast(value, dtype) if tensor is None else self._converted(value, tensor, dtype)
            self._made[value, dtype] = made
        return self._made[value, dtype]

    def _cast(self, value: ir.Value, dtype: int) -> ir.Value:
        name = self._names.fresh(f"{value.name}_as_{_SHORT[_NAMES[dtype]]}")
        cast = _node("Cast", [value], name, dtype, to=dtype)
        _insert_after(self.graph, value, [cast])
        return cast.outputs[0]

    def _converted(self, value: ir.Value, tensor: ir.TensorProtocol, dtype: int) -> ir.Value:
        name = self._names.fresh(f"{value.name}_{_SHORT[_NAMES[dtype]]}")
        if outside := _count_outside(tensor, dtype):
            limit = f"{_largest(dtype):.5g}"
            what = f"{elements_of(tensor).item():.3g}" if tensor.size == 1 else f"{outside} elements"
            self._saturated[limit, dtype].append(f"{value.name} ({what})")
        return _add_initializer(self.graph, name, _convert(tensor, dtype))


class _Signature(NamedTuple):
    """Which inputs and outputs of an ONNX op may be float16."""

    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]

    def input_takes_half(self, index: int) -> bool:
        return bool(self.inputs) and self.inputs[min(index, len(self.inputs) - 1)]

    def output_takes_half(self, index: int) -> bool:
        return bool(self.outputs) and self.outputs[min(index, len(self.outputs) - 1)]


@cache
def _signature(op: str, opset: int) -> _Signature | None:
    """Return the signature by the op's schema, or None when ONNX has none.

    Where a schema has float16, bfloat16 is taken as allowed too: TensorRT does, and ONNX catches up later.
    """
    from onnx import defs

    try:
        schema = defs.get_schema(op, opset, "")
    except defs.SchemaError:
        return None
    sides = (schema.inputs, schema.outputs)
    inputs, outputs = (tuple("tensor(float16)" in formal.types for formal in side) for side in sides)
    return _Signature(inputs, outputs)


def infer_types(model: ir.Model) -> None:
    """Fill in the types and shapes that a model lacks, in place, by ONNX shape inference without the large weights."""
    import onnx
    import onnx_ir as ir

    skeleton = model.clone()
    for value in list(skeleton.graph.initializers.values()):
        tensor = value.const_value
        if tensor is not None and tensor.size > _SHAPE_ELEMENTS:
            value.shape, value.type = ir.Shape(tensor.shape.numpy()), ir.TensorType(tensor.dtype)
            del skeleton.graph.initializers[str(value.name)]
            if not value.is_graph_input():
                skeleton.graph.inputs.append(value)
    proto = onnx.shape_inference.infer_shapes(ir.to_proto(skeleton), strict_mode=False, data_prop=True)
    for graph, inferred in zip(model.graphs(), ir.from_proto(proto).graphs(), strict=True):
        known = {value.name: value for value in graph_values(inferred)}
        for value in graph_values(graph):
            found = known.get(value.name)
            if found is not None:
                value.type = value.type or found.type
                value.shape = value.shape if value.shape is not None else found.shape


def _complete_types(model: ir.Model, *, needed: bool) -> None:
    """Fill in missing dtypes; raises NotJudged when one stays unknown and is needed."""
    if _untyped(model.graph) is None:
        return
    infer_types(model)
    value = _untyped(model.graph)
    if value is not None and (needed or any(item.dtype in _HALF for item in graph_values(model.graph))):
        node = value.producer()
        assert node is not None
        raise NotJudged(
            f"the dtype of value {value.name!r} is not known: ONNX cannot infer it for node {node.name!r} "
            f"({node.domain or 'ai.onnx'}.{node.op_type}); add its value_info to the file"
        )


def _untyped(graph: ir.Graph) -> ir.Value | None:
    return next((value for node in graph for value in node.outputs if value.name and value.type is None), None)


def _is_switchable(value: ir.Value) -> bool:
    return value.dtype in _NAMES and is_tensor(value)


def _node(op: str, inputs: list[ir.Value], name: str, dtype: int, **attributes: int) -> ir.Node:
    """Return a node whose one output bears its name, with the shape of its first input."""
    import onnx_ir as ir

    output = ir.Value(name=name, shape=inputs[0].shape, type=ir.TensorType(ir.DataType(dtype)))
    attrs = [ir.AttrInt64(key, value) for key, value in attributes.items()]
    return ir.Node("", op, inputs, attrs, outputs=[output], name=name)


def _insert_after(graph: ir.Graph, value: ir.Value, nodes: list[ir.Node]) -> None:
    """Insert nodes right after a value's producer, or at the head of the graph for a network input."""
    producer = value.producer()
    if producer is not None:
        producer.append(nodes)
    elif len(graph):
        graph.insert_before(graph[0], nodes)
    else:
        graph.extend(nodes)


def _add_initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    import onnx_ir as ir

    tensor.name = name
    shape = ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    return value


def _largest(dtype: int) -> float:
    import onnx_ir as ir

    return float(ir.DataType(dtype).max)


def _count_outside(tensor: ir.TensorProtocol, dtype: int) -> int:
    """Return how many finite elements are beyond the largest finite number of a dtype."""
    if dtype not in _HALF or tensor.dtype != _FLOAT or not tensor.size:
        return 0
    counts = _OUTSIDE.setdefault(tensor, {})
    if dtype not in counts:
        counts[dtype] = _count(elements_of(tensor), _largest(dtype))
    return counts[dtype]


def _count(array: np.ndarray[Any, Any], limit: float) -> int:
    import numpy as np

    if -limit <= array.min() and array.max() <= limit:  # False where there is a NaN
        return 0
    return int(np.count_nonzero(np.isfinite(array) & (np.abs(array) > limit)))


def _convert(tensor: ir.TensorProtocol, dtype: int) -> ir.TensorProtocol:
    """Return a tensor in another float dtype, finite numbers saturated; a large one is converted when it is read."""
    import onnx_ir as ir

    target = ir.DataType(dtype)
    if tensor.size < _LAZY_ELEMENTS:
        return ir.Tensor(_convert_array(tensor, target), dtype=target)
    shape = ir.Shape(tensor.shape.numpy())
    return ir.LazyTensor(lambda: ir.Tensor(_convert_array(tensor, target), dtype=target), dtype=target, shape=shape)


def _convert_array(tensor: ir.TensorProtocol, target: ir.DataType) -> np.ndarray[Any, Any]:
    import numpy as np

    array = elements_of(tensor)
    if _count_outside(tensor, int(target)):
        limit = _largest(int(target))
        array = np.where(np.isfinite(array), np.clip(array, -limit, limit), array)
    return array.astype(target.numpy())


def _make_cast(node: ir.Node) -> None:
    """Turn a CastLike into a Cast; its dtype attribute is set afterwards."""
    node.op_type = "Cast"
    node.resize_inputs(1)


def _set_dtype_attribute(node: ir.Node, dtype: int) -> None:
    """Write the dtype of a node's float output into its attribute, where the op has one."""
    import onnx_ir as ir

    if node.op_type in _DTYPE_ATTRIBUTES:
        node.attributes.add(ir.AttrInt64(_DTYPE_ATTRIBUTES[node.op_type], dtype))
    elif node.op_type == "ConstantOfShape":
        node.attributes.add(ir.AttrTensor("value", _convert(_fill_tensor(node), dtype)))


def _fill_tensor(node: ir.Node) -> ir.TensorProtocol:
    """Return the value a ConstantOfShape fills with; float zero where it has none."""
    import numpy as np
    import onnx_ir as ir

    value = node.attributes.get("value")
    return ir.Tensor(np.zeros(1, np.float32)) if value is None else value.as_tensor()


def _retype(model: ir.Model, mapping: Mapping[int, int]) -> None:
    """Replace dtypes throughout a model and its subgraphs."""
    for graph in list(model.graphs()):
        for value in graph_values(graph):
            value.type = _retyped(value.type, mapping)
        for value in graph.initializers.values():
            tensor = value.const_value
            if tensor is not None and int(tensor.dtype) in mapping:
                value.const_value = _convert(tensor, mapping[int(tensor.dtype)])
        for node in graph:
            if node.domain == "":
                _retype_attributes(node, mapping)


def _retyped(kind: ir.TypeProtocol | None, mapping: Mapping[int, int]) -> ir.TypeProtocol | None:
    import onnx_ir as ir

    if isinstance(kind, ir.TensorType):
        return ir.TensorType(ir.DataType(mapping.get(int(kind.dtype), int(kind.dtype))))
    if isinstance(kind, (ir.SequenceType, ir.OptionalType)):
        inner = _retyped(kind.elem_type, mapping)
        assert inner is not None
        return type(kind)(inner)
    return kind


def _retype_attributes(node: ir.Node, mapping: Mapping[int, int]) -> None:
    import onnx_ir as ir

    if node.op_type == "Constant":
        tensor = ir.convenience.get_const_tensor(node.outputs[0])
        if tensor is not None and int(tensor.dtype) in mapping:
            node.attributes.clear()
            node.attributes.add(ir.AttrTensor("value", _convert(tensor, mapping[int(tensor.dtype)])))
    elif node.op_type == "ConstantOfShape":
        dtype = int(_fill_tensor(node).dtype)
        if dtype in mapping:
            _set_dtype_attribute(node, mapping[dtype])
    elif node.op_type in _DTYPE_ATTRIBUTES:
        given = node.attributes.get(_DTYPE_ATTRIBUTES[node.op_type])
        if given is None and node.op_type in _FOLLOWS_INPUT:
            return
        dtype = _FLOAT if given is None else given.as_int()
        if dtype in mapping:
            _set_dtype_attribute(node, mapping[dtype])


def _tf32_operands(graph: ir.Graph) -> list[tuple[ir.Node, int]]:
    """Return the FP32 operands of matrix products and convolutions, without their biases, as (node, input index)."""
    products = [node for node in graph if node.op_type in _TF32_OPS and node.domain == ""]
    return [
        (node, index)
        for node in products
        for index, value in enumerate(node.inputs if node.op_type == "Einsum" else node.inputs[:2])
        if value is not None and value.dtype == _FLOAT
    ]


def _insert_rounding(graph: ir.Graph, value: ir.Value, low: int, names: _Names) -> None:
    """Pass a value through Cast(low) and Cast(float32) before anything reads it; a network output keeps its name."""
    uses = list(value.uses())
    is_output = value.is_graph_output()
    name = str(value.name)
    down = _node("Cast", [value], names.fresh(f"{name}_in_{_SHORT[_NAMES[low]]}"), low, to=low)
    up = _node("Cast", [down.outputs[0]], names.fresh(f"{name}_rounded"), _FLOAT, to=_FLOAT)
    _insert_after(graph, value, [down, up])
    for user, index in uses:
        user.replace_input_with(index, up.outputs[0])
    if is_output:
        for index, output in enumerate(list(graph.outputs)):
            if output is value:
                graph.outputs[index] = up.outputs[0]
        value.name, up.outputs[0].name = names.fresh(f"{name}_exact"), name


def _insert_splitting(graph: ir.Graph, value: ir.Value, names: _Names) -> ir.Value:
    """Return the value rounded to 11 significant bits: c = x * (2^13 + 1), high = c - (c - x)."""
    import numpy as np
    import onnx_ir as ir

    name = f"{value.name}_tf32"
    tensor = constant_of(value)
    if tensor is not None:
        array = elements_of(tensor)
        scaled = array * np.float32(2**13 + 1)
        return _add_initializer(graph, names.fresh(name), ir.Tensor(scaled - (scaled - array)))
    factor = _splitter(graph, names)
    scaled_node = _node("Mul", [value, factor], names.fresh(f"{name}_scaled"), _FLOAT)
    rest = _node("Sub", [scaled_node.outputs[0], value], names.fresh(f"{name}_rest"), _FLOAT)
    high = _node("Sub", [scaled_node.outputs[0], rest.outputs[0]], names.fresh(name), _FLOAT)
    _insert_after(graph, value, [scaled_node, rest, high])
    return high.outputs[0]


def _splitter(graph: ir.Graph, names: _Names) -> ir.Value:
    import numpy as np
    import onnx_ir as ir

    name = "parity_tf32_splitter"
    if name not in graph.initializers:
        return _add_initializer(graph, names.fresh(name), ir.Tensor(np.array(2**13 + 1, np.float32)))
    return graph.initializers[name]


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
