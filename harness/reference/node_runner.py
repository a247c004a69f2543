"""Run single nodes of an ONNX graph in a dtype: in PyTorch, ONNX Runtime or ``onnx.reference``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch

from harness.errors import NotJudged, UsageError, first_line, unknown_name
from harness.graph import (
    apply,
    captured_values,
    constant_of,
    copy_model,
    elements_of,
    emulate,
    infer_types,
    promote,
    to_float64,
    used_values,
)

_MARK = "parity.values"
_HALF = {"FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}
_NAMES = {torch.float16: "float16", torch.bfloat16: "bfloat16"}
# Worth more than one thread. Every session has threads of its own, and there is a session for each kind of node.
_HEAVY = {"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum", "Attention", "If", "Loop", "Scan", "LSTM", "GRU", "RNN"}
_CPU = torch.device("cpu")
Evaluate = Callable[[dict[str, Any]], Sequence[Any]]


@dataclass(frozen=True, kw_only=True)
class _View:
    """A graph in one precision, seen by the names of the model it was made from."""

    model: ir.Model
    values: Mapping[str, ir.Value]
    """Name in the given model -> what the readers of that value read here; in low precision its rounded twin."""
    reads: Mapping[ir.Node, tuple[ir.Value, ...]]
    """What every node reads, captured values included."""
    rounded: Mapping[str, torch.dtype]
    """The values that are rounded to float16 or bfloat16, by name."""


class NodeRunner:
    """Runs nodes one at a time in ONNX Runtime, without graph optimisation, and keeps what evaluators have in common.

    Nodes that differ only in names share a session. In FP64, where ONNX Runtime lacks many
    kernels, ``onnx.reference`` takes over.
    """

    def __init__(self) -> None:
        self._loaded: dict[bytes, Evaluate] = {}
        self._views: dict[tuple[Any, ...], tuple[ir.Model, _View]] = {}

    def view(self, model: ir.Model, *, dtype: str, dtypes: Mapping[str, str], default: str | None, tf32: bool) -> _View:
        """Return a model in one precision, made once, since no evaluator changes it."""
        key = (id(model), dtype, frozenset(dtypes.items()), default, tf32)
        if key not in self._views:  # beside the model, lest its id become another's
            self._views[key] = model, _make_view(model, dtype=dtype, dtypes=dtypes, default=default, tf32=tf32)
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

    @property
    def sessions(self) -> int:
        """How many different nodes were loaded."""
        return len(self._loaded)


def _make_view(model: ir.Model, *, dtype: str, dtypes: Mapping[str, str], default: str | None, tf32: bool) -> _View:
    """Return a model in one precision; what every node computed in the model is found again by a mark on the node."""
    marked = copy_model(model)
    if any(value.type is None for node in marked.graph for value in node.outputs):
        infer_types(marked)
    for node in marked.graph:
        node.meta[_MARK] = tuple(str(value.name or "") for value in node.outputs)
    rounded: dict[str, torch.dtype] = {}
    if dtypes or tf32 or default is not None:
        if dtype != "float32":
            raise UsageError(f"an evaluator that rounds like a plan computes in float32, not in {dtype}")
        default = default or "float32"
        made = emulate(marked, dtypes, default=default, tf32=tf32)
        typed = _marked_values(apply(marked, dtypes, default=default).model.graph)
        rounded = {
            name: _HALF[value.dtype.name]
            for name, value in typed.items()
            if value.dtype is not None and value.dtype.name in _HALF
        }
    elif dtype == "float64":
        made = to_float64(marked)
    elif dtype == "float32":
        made = promote(marked)
    else:
        raise unknown_name("dtype", dtype, ["float32", "float64"])
    values = {str(value.name): value for value in made.graph.inputs}
    values |= {name: _as_read(value) for name, value in _marked_values(made.graph).items()}
    reads = {node: used_values(node) for node in made.graph}
    return _View(model=made, values=values, reads=reads, rounded=rounded)


def _marked_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return what the marked nodes compute, by name in the model that was marked."""
    pairs = (
        (name, value) for node in graph for name, value in zip(node.meta.get(_MARK, ()), node.outputs, strict=False)
    )
    return {name: value for name, value in pairs if name}


def _as_read(value: ir.Value) -> ir.Value:
    """Return what the readers of a value read: where emulation rounds it, the output of the second of two Casts."""
    readers = list(value.consumers())
    if len(readers) == 1 and _rounds(readers[0]):
        (back,) = readers[0].outputs[0].consumers()
        return back.outputs[0]
    return value


def _rounds(node: ir.Node) -> torch.dtype | None:
    """Return the dtype to which a Cast of emulation rounds; all other float16 and bfloat16 has been promoted."""
    if node.op_type != "Cast" or node.domain != "":
        return None
    return _HALF.get(ir.DataType(node.attributes["to"].as_int()).name)


def _nodes_between(view: _View, wanted: ir.Value, known: Collection[ir.Value]) -> list[ir.Node]:
    """Return the nodes to run for a value, in the order to run them, where these values are known."""
    ordered: list[ir.Node] = []
    visited: set[ir.Node] = set()
    pending = [(wanted, False)]
    while pending:
        value, ready = pending.pop()
        node = value.producer()
        if ready and node is not None:
            ordered.append(node)
        elif node is not None and node not in visited and value not in known and constant_of(value) is None:
            visited.add(node)
            pending.append((value, True))
            pending.extend((read, False) for read in view.reads[node])
    return ordered


def _run(model: ir.Model, node: ir.Node, env: Mapping[ir.Value, Any], runner: NodeRunner) -> dict[ir.Value, Any]:
    """Run one node on what its inputs are in ``env``."""
    if low := _rounds(node):
        # Kept as float32: the Cast back that follows is then one that changes nothing, and numpy has no bfloat16.
        tensor = _tensor(_read(node.inputs[0], env))
        assert tensor is not None
        return {node.outputs[0]: tensor.to(low).to(torch.float32).numpy()}
    inputs = [None if value is None else _read(value, env) for value in node.inputs]
    captured = {str(value.name): _read(value, env) for value in captured_values(node)}
    results = runner.run(model, node, inputs, captured)
    return {value: result for value, result in zip(node.outputs, results, strict=True) if value.name}


def _read(value: ir.Value | None, env: Mapping[ir.Value, Any]) -> Any:
    assert value is not None
    if value in env:
        return env[value]
    tensor = constant_of(value)
    assert tensor is not None, f"{value.name} was freed while it was still to be read"
    return elements_of(tensor)


def _precision(dtypes: Collection[torch.dtype]) -> torch.dtype:
    floats = {dtype for dtype in dtypes if dtype.is_floating_point}
    if torch.float64 in floats:
        return torch.float64
    return floats.pop() if len(floats) == 1 else torch.float32


def _here(value: ir.Value | None, env: Mapping[ir.Value, Any], device: torch.device) -> Any:
    """Return a value as a tensor on a device; what is no tensor of numbers as it is."""
    known = _read(value, env)
    tensor = known if isinstance(known, torch.Tensor) else _tensor(known)
    return known if tensor is None else tensor.to(device)


def _declared_dtype(value: ir.Value) -> np.dtype[Any]:
    return np.dtype(np.float32) if value.dtype is None else value.dtype.numpy()


def _check_shape(tensor: torch.Tensor, value: ir.Value) -> None:
    declared = value.shape
    if declared is not None and (
        len(declared) != tensor.ndim
        or any(isinstance(size, int) and size != have for size, have in zip(declared, tensor.shape, strict=True))
    ):
        raise NotJudged(f"value {value.name!r} has shape {list(tensor.shape)}, where the graph declares {declared}")


def _array(tensor: torch.Tensor, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Return a copy of a tensor as an array: what a tap hands over may be overwritten."""
    wanted: torch.dtype = getattr(torch, dtype.name)
    return tensor.detach().to("cpu", wanted, copy=True).contiguous().numpy()


def _tensor(result: Any) -> torch.Tensor | None:
    """Return an array of numbers as a tensor; None for sequences and strings."""
    if not isinstance(result, np.ndarray) or result.dtype.kind not in "fiub":
        return None
    return torch.from_numpy(result if result.flags.writeable else result.copy())


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
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.inter_op_num_threads = 1
    options.intra_op_num_threads = 0 if node.op_type in _HEAVY else 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    double = any(isinstance(array, np.ndarray) and array.dtype == np.float64 for array in feeds.values())
    try:
        session = onnxruntime.InferenceSession(serialized, options, providers=["CPUExecutionProvider"])
        if double:
            session.run(None, feeds)  # an LSTM loads, and says only now that it has no kernel for FP64
    except Exception as error:
        if double:
            return _load_reference(node, proto)
        raise NotJudged(f"ONNX Runtime does not load {_where(node)}: {first_line(error)}") from error
    return lambda feeds: session.run(None, feeds)


def _load_reference(node: ir.Node, proto: onnx.ModelProto) -> Evaluate:
    from onnx.reference import ReferenceEvaluator

    try:
        evaluator = ReferenceEvaluator(proto)
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
