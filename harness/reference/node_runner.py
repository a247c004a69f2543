"""Run single nodes of an ONNX graph in a dtype: in PyTorch, ONNX Runtime or ``onnx.reference``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from harness.errors import NotJudged, first_line
from harness.graph import captured_values
from harness.reference.node_values import Computed, as_tensor, read
from harness.reference.precision_view import PrecisionView, make_view, rounds_to
from harness.reference.runtimes import cpu_session, reference_evaluator

# Worth more than one thread. Every session has threads of its own, and there is a session for each kind of node.
_HEAVY = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "If", "Loop", "Scan", "LSTM", "GRU", "RNN"}
Evaluate = Callable[[dict[str, Any]], Sequence[Any]]


class NodeRunner:
    """Runs nodes one at a time in ONNX Runtime, without graph optimisation, and keeps what evaluators have in common.

    Nodes that differ only in names share a session. In FP64, where ONNX Runtime lacks many
    kernels, ``onnx.reference`` takes over.
    """

    def __init__(self) -> None:
        self._loaded: dict[bytes, Evaluate] = {}
        self._views: dict[tuple[Any, ...], tuple[ir.Model, PrecisionView]] = {}

    def view(
        self, model: ir.Model, *, dtype: str, dtypes: Mapping[str, str], default: str | None, tf32: bool
    ) -> PrecisionView:
        """Return a model in one precision, made once, since no evaluator changes it."""
        key = (id(model), dtype, frozenset(dtypes.items()), default, tf32)
        if key not in self._views:  # kept with the model: an id is given again after it
            self._views[key] = model, make_view(model, dtype=dtype, dtypes=dtypes, default=default, tf32=tf32)
        return self._views[key][1]

    def run(self, model: ir.Model, node: ir.Node, inputs: Sequence[Any], captured: Mapping[str, Any]) -> list[Any]:
        """Return a node's outputs, an absent one as None.

        ``inputs`` are arrays (lists for sequences, None for an absent input) in the node's order, ``captured`` what its
        subgraphs read of the graphs around them, by name. Raises NotJudged, naming the node, when it cannot run.
        """
        names = [f"parity_in_{index}" for index in range(len(inputs))]
        feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None} | dict(captured)
        proto = _single(model, node, feeds)
        key = proto.SerializeToString(deterministic=True)
        if key not in self._loaded:
            self._loaded[key] = _load(node, proto, key, feeds)
        try:
            results = iter(self._loaded[key](feeds))
        except Exception as error:
            raise NotJudged(f"{_where(node)} cannot be run on the CPU: {first_line(error)}") from error
        return [_checked(node, value, next(results)) if value.name else None for value in node.outputs]

    def run_on(self, model: ir.Model, node: ir.Node, computed: Computed) -> dict[ir.Value, Any]:
        """Return a node's outputs, computed from what is known. Raises NotJudged as :meth:`run` does."""
        if low := rounds_to(node):
            # Kept as float32: the Cast back that follows is then one that changes nothing, and numpy has no bfloat16.
            tensor = as_tensor(read(node.inputs[0], computed))
            assert tensor is not None
            return {node.outputs[0]: tensor.to(low).to(torch.float32).numpy()}
        inputs = [None if value is None else read(value, computed) for value in node.inputs]
        captured = {str(value.name): read(value, computed) for value in captured_values(node)}
        results = self.run(model, node, inputs, captured)
        return {value: result for value, result in zip(node.outputs, results, strict=True) if value.name}

    @property
    def sessions(self) -> int:
        """How many different nodes were loaded."""
        return len(self._loaded)


def _single(model: ir.Model, node: ir.Node, feeds: Mapping[str, Any]) -> onnx.ModelProto:
    """Return a model of one node; its inputs have the dtypes and ranks of what is fed, its sizes stay open."""
    proto = ir.serde.serialize_node(node)
    proto.ClearField("name")
    proto.ClearField("doc_string")
    del proto.metadata_props[:]
    for index, name in enumerate(proto.input):
        proto.input[index] = f"parity_in_{index}" if name else ""
    for index, name in enumerate(proto.output):
        proto.output[index] = f"parity_out_{index}" if name else ""
    sequences = {f"parity_in_{index}": value for index, value in enumerate(node.inputs)}
    graph = onnx.helper.make_graph(
        [proto],
        "node",
        [_declared(name, array, sequences.get(name)) for name, array in feeds.items()],
        [onnx.ValueInfoProto(name=name) for name in proto.output if name],
    )
    opsets = [onnx.helper.make_opsetid(domain, version) for domain, version in sorted(model.opset_imports.items())]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=model.ir_version)


def _declared(name: str, array: Any, value: ir.Value | None) -> onnx.ValueInfoProto:
    if isinstance(array, np.ndarray):
        return onnx.helper.make_tensor_value_info(
            name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
        )
    if value is None or value.type is None:
        raise NotJudged(f"value {value.name if value else name!r} is no tensor, and its type is not known")
    info: onnx.ValueInfoProto = ir.serde.serialize_value(value)
    info.name = name
    return info


def _load(node: ir.Node, proto: onnx.ModelProto, serialized: bytes, feeds: Mapping[str, Any]) -> Evaluate:
    """Load a node into ONNX Runtime, or where it lacks a kernel for FP64 into ``onnx.reference``."""
    double = any(isinstance(array, np.ndarray) and array.dtype == np.float64 for array in feeds.values())
    try:
        session = cpu_session(serialized, threads=0 if node.op_type in _HEAVY else 1)
        if double:
            session.run(None, feeds)  # an LSTM loads, and says only now that it has no kernel for FP64
    except Exception as error:
        if double:
            return _load_reference(node, proto)
        raise NotJudged(f"ONNX Runtime does not load {_where(node)}: {first_line(error)}") from error
    return lambda feeds: session.run(None, feeds)


def _load_reference(node: ir.Node, proto: onnx.ModelProto) -> Evaluate:
    try:
        evaluator = reference_evaluator(proto)
    except Exception as error:
        raise NotJudged(
            f"neither ONNX Runtime nor onnx.reference evaluates {_where(node)} in FP64: {first_line(error)}"
        ) from error
    return lambda feeds: list(evaluator.run(None, feeds))


def _checked(node: ir.Node, value: ir.Value, result: Any) -> Any:
    """Return a result as an array; raises NotJudged when it has left the dtype of the graph."""
    if isinstance(result, list):
        return result
    array = np.asarray(result)
    if value.dtype == ir.DataType.DOUBLE and array.dtype != np.float64:
        raise NotJudged(f"onnx.reference leaves FP64 in {_where(node)} (value {value.name!r}: {array.dtype})")
    return array


def _where(node: ir.Node) -> str:
    op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return f"{op} (node {node.name!r}, value {node.outputs[0].name!r})"
