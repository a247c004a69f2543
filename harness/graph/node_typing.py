"""How a plan may type one node: which of its inputs and outputs may be in low precision, and why it is left alone."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from harness.graph.ir import inner_graphs, is_tensor
from harness.graph.types import is_switchable
from harness.lazy import onnx_ir as ir
from harness.sentences import Sentence

# Rounding a scale moves the quantisation grid, and the scale of a bias underflows in float16.
_EXACT = {"QuantizeLinear", "DequantizeLinear"}
# Inputs that hold sizes, positions or counts rather than values: float16 counts only up to 2048.
_NATURAL_INPUTS = {"Resize": (1, 2), "Upsample": (1,), "OneHot": (0, 1)}
# These read only the shape of their input, or convert it themselves.
_ANY_INPUT = {"Shape", "Size", "EyeLike", "RandomNormalLike", "RandomUniformLike", "Cast"}


class InputKind(enum.Enum):
    """In what an input is read."""

    COMPUTE = "in the dtype the node computes in"
    FLOAT = "in FP32, since ONNX allows no other"
    NATURAL = "in the dtype of the original graph"
    ANY = "as it is"


@dataclass(frozen=True, kw_only=True)
class NodeTyping:
    """What a plan may do with one node."""

    reason: str = ""
    """Why the node stays in the dtypes of the original graph; empty where a plan decides."""
    has_bodies: bool = False
    """It is control flow: its bodies are typed inside, itself passes on what they give."""
    op: str = ""
    halves: _Signature | None = None
    """By its schema; None for a node that is left alone."""

    def input_kind(self, index: int) -> InputKind:
        """Return in what an input is read."""
        if self.op in _ANY_INPUT:
            return InputKind.ANY
        if self.halves is None or index in _NATURAL_INPUTS.get(self.op, ()):
            return InputKind.NATURAL
        return InputKind.COMPUTE if self.halves.input_takes_half(index) else InputKind.FLOAT

    def output_takes_half(self, index: int) -> bool:
        """Return whether an output may be in low precision."""
        return self.halves is not None and self.halves.output_takes_half(index)


def node_typing(node: ir.Node, opset: int) -> NodeTyping:
    """Return what a plan may do with a node of a graph in which dtypes are known."""
    if any(True for _ in inner_graphs(node)):
        return NodeTyping(has_bodies=True, op=node.op_type)
    signature = _signature(node.op_type, opset) if node.domain == "" else None
    if signature is None:
        return NodeTyping(reason=Sentence("not_defined_by_onnx", domain=node.domain or "ai.onnx"))
    touched = [value for value in (*node.inputs, *node.outputs) if value is not None and value.type is not None]
    if not all(is_tensor(value) for value in touched):
        return NodeTyping(reason=Sentence("works_on_sequences"))
    if node.op_type in _EXACT:
        return NodeTyping(reason=Sentence("scale_not_rounded"))
    if node.op_type == "Range" or (is_switchable(node.outputs[0]) and not signature.output_takes_half(0)):
        return NodeTyping(reason=Sentence("no_float16_of_it"))
    return NodeTyping(op=node.op_type, halves=signature)


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
