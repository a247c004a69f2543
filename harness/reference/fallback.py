"""A single ONNX node that PyTorch does not compute: ONNX Runtime on the CPU, and ``onnx.reference`` last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from harness.errors import NotJudged, first_line
from harness.graph import promote, to_float64
from harness.isolated import Model, Raised
from harness.lazy import onnx
from harness.lazy import onnx_ir as ir
from harness.reference.witness import as_array, load, tensor_of
from harness.sentences import Sentence

Run = Callable[[dict[str, Any]], Any]
_HALVES = (torch.float16, torch.bfloat16)


def run_elsewhere(
    node: ir.Node, opsets: Mapping[str, int], inputs: Sequence[Any], captured: Mapping[str, Any], *, double: bool
) -> Any:
    """Return the output of a node, or a tuple of several, on the device of its inputs.

    Raises NotImplementedError for float16 and bfloat16, which the caller computes in FP32; NotJudged, with the node,
    where nobody runs it or FP64 is left.
    """
    values = [*inputs, *captured.values()]
    tensors = [value for value in values if isinstance(value, torch.Tensor)]
    if any(tensor.dtype in _HALVES for tensor in tensors):
        raise NotImplementedError(f"{node.op_type} in low precision")
    names = [f"in_{index}" for index in range(len(inputs))]
    given = {**dict(zip(names, inputs, strict=True)), **captured}
    feeds = {name: _array(value, double) for name, value in given.items() if value is not None}
    proto = _single(node, opsets, feeds)
    model = to_float64(ir.from_proto(proto)) if double else promote(ir.from_proto(proto))
    serialized = ir.to_proto(model).SerializeToString(deterministic=True)
    try:
        results = _loaded(serialized)(feeds)
    except Raised as error:
        raise NotJudged(Sentence("nothing_computes", where=_where(node), said=first_line(error))) from error
    device = tensors[0].device if tensors else torch.device("cpu")
    named = iter(results)
    outputs = tuple(_checked(node, next(named), double, device) if value.name else None for value in node.outputs)
    return outputs if len(outputs) > 1 else outputs[0]


@lru_cache(maxsize=256)
def _loaded(serialized: bytes) -> Run:
    """Load a model of one node; nodes that differ only in names share it."""
    try:
        model = load(serialized, threads=1)
    except Raised as error:
        refusal = first_line(error)
        try:
            model = Model(library="onnx.reference", model=as_array(serialized))
        except Raised as error:
            raise Raised(Sentence("refusal_reference", refusal=refusal, said=first_line(error))) from error
    return lambda feeds: model.run(feeds)[0]


def _single(node: ir.Node, opsets: Mapping[str, int], feeds: Mapping[str, Any]) -> onnx.ModelProto:
    """Return a model of one node; its inputs have the dtypes and ranks of what is fed, its sizes stay open."""
    proto = ir.serde.serialize_node(node)
    proto.ClearField("name")
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    for index, name in enumerate(proto.input):
        proto.input[index] = f"in_{index}" if name else ""
    for index, name in enumerate(proto.output):
        proto.output[index] = f"out_{index}" if name else ""
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [_declared(name, value) for name, value in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(opsets.items())]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=min(onnx.IR_VERSION, 10))


def _declared(name: str, value: Any) -> onnx.ValueInfoProto:
    if isinstance(value, list):
        element = onnx.helper.np_dtype_to_tensor_dtype(value[0].dtype) if value else onnx.TensorProto.FLOAT
        return onnx.helper.make_tensor_sequence_value_info(name, element, None)
    return onnx.helper.make_tensor_value_info(
        name, onnx.helper.np_dtype_to_tensor_dtype(value.dtype), [None] * value.ndim
    )


def _array(value: Any, double: bool) -> Any:
    """Return a value as ONNX Runtime takes it: an array, or a list of arrays for a sequence."""
    if isinstance(value, list):
        return [_array(item, double) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    if double and value.dtype == torch.float32:
        value = value.double()
    try:
        return value.detach().cpu().contiguous().numpy()
    except TypeError as error:
        raise NotJudged(Sentence("no_form_for_ort", dtype=value.dtype)) from error


def _checked(node: ir.Node, result: Any, double: bool, device: torch.device) -> Any:
    if isinstance(result, list):
        return [_checked(node, item, double, device) for item in result]
    array = np.asarray(result, order="C")  # onnx.reference gives views that run backwards
    if array.dtype.kind not in "fiubc":
        return array
    if double and array.dtype == np.float32:
        raise NotJudged(Sentence("fp64_left", where=_where(node)))
    return tensor_of(array).to(device)


def _where(node: ir.Node) -> str:
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{op} (value {next((value.name for value in node.outputs if value.name), '')!r})"
