"""Run an ONNX graph node by node, on demand, with an engine's own values in the place of computed ones.

This is the lane of :mod:`harness.replay` for a subject without a PyTorch program, and what computes the values that
only ONNX has (a MatMul before its bias) for a subject with one. Every node runs alone in ONNX Runtime on the CPU, the
common ones of such a value in PyTorch where its inputs are.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import numpy as np
import onnx
import onnx_ir as ir
import torch

from harness.errors import EngineFailed, NotJudged, UsageError, first_line, unknown_name
from harness.onnx_graph import constant_of, copy_model, elements_of
from harness.onnx_operators import evaluate
from harness.reference import tf32
from harness.subgraph import captured_values, used_values
from harness.typed_graph import apply, emulate, infer_types, promote, to_float64

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


class OnnxLane:
    """One run of a model in one precision, as far as somebody asked for values; on the CPU.

    ``dtype`` is ``float32`` or ``float64``. With ``default`` (``float32``, ``float16``, ``bfloat16``), ``dtypes`` or
    ``tf32`` it is FP32 arithmetic rounded like that plan, as by :func:`harness.typed_graph.emulate`, and its values are
    float32. The values in ``keep`` can be asked for at any time until :meth:`done`; any other is freed as soon as all
    that read it have run. Lanes that share a ``runner`` share its sessions and typed graphs. A MatMul may differ in its
    last bits from a run of the whole graph, for which ONNX Runtime packs the weights into another kernel. Raises
    UsageError for missing and unknown inputs; what a node cannot do raises NotJudged when the value is asked for.
    """

    def __init__(
        self,
        model: ir.Model,
        inputs: Mapping[str, torch.Tensor],
        *,
        dtype: str = "float32",
        dtypes: Mapping[str, str] | None = None,
        default: str | None = None,
        tf32: bool = False,
        keep: Collection[str] = (),
        runner: NodeRunner | None = None,
    ) -> None:
        self._runner = runner or NodeRunner()
        self._view = self._runner.view(model, dtype=dtype, dtypes=dtypes or {}, default=default, tf32=tf32)
        self._env: dict[ir.Value, Any] = _feeds(self._view.model.graph, inputs)
        self._inputs = frozenset(self._env)
        self._unread = Counter(value for values in self._view.reads.values() for value in values)
        self._outputs = frozenset(self._view.model.graph.outputs)
        self._asked = {self._view.values[name] for name in keep if name in self._view.values}
        self._freed: set[ir.Value] = set()

    def value(self, name: str) -> torch.Tensor | None:
        """Return a value, computing what it needs; None when it is no tensor of numbers, unknown, or freed."""
        value = self._view.values.get(name)
        if value is None or value in self._freed:
            return None
        return _tensor(self._compute(value))

    def observe(self, name: str, tensor: torch.Tensor) -> None:
        """Let what is computed from now on read this tensor, in the dtype the lane computes the value in.

        A copy is taken. Raises UsageError for an unknown name, EngineFailed when the tensor's shape is not the
        value's or it holds floats where the value is integer.
        """
        value = self._view.values.get(name)
        if value is None:
            raise unknown_name("value", name, self._view.values)
        if value in self._freed:
            return
        computed = np.asarray(self._compute(value))
        if tuple(tensor.shape) != computed.shape:
            raise EngineFailed(
                f"the engine's value {name!r} has shape {list(tensor.shape)}, where the graph gives "
                f"{list(computed.shape)}; it is another value, or in another layout"
            )
        if tensor.dtype.is_floating_point and computed.dtype.kind != "f":
            raise EngineFailed(f"the engine's value {name!r} is {tensor.dtype}, where the graph gives {computed.dtype}")
        if name in self._view.rounded:
            tensor = tensor.to(self._view.rounded[name])
        self._env[value] = _array(tensor, computed.dtype)

    def done(self, name: str) -> None:
        """Say that nobody will ask for this value again, so that it can be freed once it has been read."""
        value = self._view.values.get(name)
        if value is not None:
            self._asked.discard(value)
            self._free_if_read(value)

    def outputs(self) -> dict[str, torch.Tensor]:
        """Compute the rest and return the outputs by their declared names; they are never freed."""
        found = {str(value.name): _tensor(self._compute(value)) for value in self._view.model.graph.outputs}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def fork(self) -> Self:
        """Return a lane that has computed what this one has; neither sees what becomes of the other."""
        fork = copy.copy(self)
        fork._env, fork._unread = dict(self._env), self._unread.copy()
        fork._asked, fork._freed = set(self._asked), set(self._freed)
        return fork

    @property
    def held(self) -> int:
        """How many computed values the lane holds; weights and network inputs are not counted."""
        return len(self._env) - len(self._inputs)

    def _compute(self, wanted: ir.Value) -> Any:
        for node in _nodes_between(self._view, wanted, self._env):
            self._env.update(_run(self._view.model, node, self._env, self._runner))
            for value in self._view.reads[node]:
                self._unread[value] -= 1
                self._free_if_read(value)
            for value in node.outputs:
                if value is not wanted:
                    self._free_if_read(value)
        return _read(wanted, self._env)

    def _free_if_read(self, value: ir.Value) -> None:
        needed = self._unread[value] > 0 or value in self._asked or value in self._outputs or value in self._inputs
        if value in self._env and not needed:
            del self._env[value]
            self._freed.add(value)


class HelperValues:
    """Computes the values of an ONNX graph that PyTorch has not from those that it has.

    ``known`` are the names PyTorch knows, ``aliases`` its names for the declared outputs of the graph; names that the
    graph lacks are of no use here and harmless. ``name in helpers`` says whether a value is one to compute.
    """

    def __init__(
        self, model: ir.Model, known: Collection[str], runner: NodeRunner, *, aliases: Mapping[str, str] | None = None
    ) -> None:
        self._model, self._runner = model, runner
        values = self._view(torch.float32).values
        names = {name: (aliases or {}).get(name, name) for name in values}
        self._known = {
            name: other for name, other in names.items() if other in known or values[name].producer() is None
        }
        graph_names = {value: name for name, value in values.items()}
        known_values = {values[name] for name in self._known}
        self._regions = {
            name: self._region(value, graph_names, known_values - {value}) for name, value in values.items()
        }
        self._names = {other: name for name, other in self._known.items()}
        self._owners: dict[str, set[str]] = defaultdict(set)
        for name, other in self._known.items():
            for part in self._regions[name].parts:
                self._owners[part].add(other)

    def __contains__(self, name: object) -> bool:
        """Return whether this is a value of the graph that PyTorch does not know."""
        return name in self._regions and name not in self._known

    def needs(self, name: str) -> tuple[str, ...]:
        """Return PyTorch's names of what a value is computed from, network inputs included.

        Raises UsageError for a name the graph has not.
        """
        if name not in self._regions:
            raise unknown_name("value", name, self._regions)
        return tuple(self._known[source] for source in self._regions[name].sources)

    def parts(self, name: str) -> frozenset[str]:
        """Return the values of this kind that lie between a value, by PyTorch's name, and what it is computed from."""
        return self._regions[self._names[name]].parts if name in self._names else frozenset()

    def owners(self, part: str) -> Collection[str]:
        """Return PyTorch's names of the values that a value of this kind is a part of."""
        return self._owners[part]

    def value(
        self,
        name: str,
        get: Callable[[str], torch.Tensor | None],
        *,
        seen: Mapping[str, torch.Tensor] = MappingProxyType({}),
        device: torch.device = _CPU,
    ) -> torch.Tensor | None:
        """Return a value computed from what ``get`` gives for :meth:`needs`, on ``device``; None if that is None.

        Its parts are taken from ``seen`` where they are there; a value that PyTorch knows, by its name, is computed
        from its parts too. The precision is that of what ``get`` gives: FP64 where that is FP64, rounded to float16 or
        bfloat16 after every node where all of it is, else FP32. Raises UsageError for an unknown name, NotJudged when
        a node cannot run or a tensor has not the shape of the graph's value.
        """
        name = self._names.get(name, name)
        if name not in self._regions:
            raise unknown_name("value", name, self._regions)
        region = self._regions[name]
        given = {source: get(self._known[source]) for source in region.sources}
        tensors = {source: tensor for source, tensor in given.items() if tensor is not None}
        if len(tensors) < len(given):
            return None
        tensors |= {part: seen[part] for part in region.parts & seen.keys()}
        dtype = _precision({tensor.dtype for tensor in tensors.values()})
        view = self._view(dtype)
        env: dict[ir.Value, Any] = {
            view.values[source]: _given(tensor, view.values[source], device) for source, tensor in tensors.items()
        }
        wanted = view.values[name]
        with torch.no_grad(), tf32(False):
            for node in _nodes_between(view, wanted, env):
                env.update(self._run_here(view, node, env, device))
        result = _here(wanted, env, device)
        if not isinstance(result, torch.Tensor):
            return None
        return result.to(dtype) if result.dtype.is_floating_point else result

    def _run_here(
        self, view: _View, node: ir.Node, env: Mapping[ir.Value, Any], device: torch.device
    ) -> dict[ir.Value, Any]:
        """Run one node where its inputs are, or in ONNX Runtime on the CPU."""

        def read(value: ir.Value | None) -> Any:
            return _here(value, env, device)

        if low := _rounds(node):
            return {node.outputs[0]: read(node.inputs[0]).to(low).to(torch.float32)}
        result = evaluate(node, read, opset=view.model.opset_imports.get("", 0))
        if result is not None:
            return {node.outputs[0]: result}
        arrays = {
            value: given.cpu().contiguous().numpy() if isinstance(given, torch.Tensor) else given
            for value in view.reads[node]
            if (given := env.get(value)) is not None
        }
        return _run(view.model, node, arrays, self._runner)

    def _view(self, dtype: torch.dtype) -> _View:
        name = "float64" if dtype == torch.float64 else "float32"
        return self._runner.view(self._model, dtype=name, dtypes={}, default=_NAMES.get(dtype), tf32=False)

    def _region(self, value: ir.Value, names: Mapping[ir.Value, str], known: Collection[ir.Value]) -> _Region:
        view = self._view(torch.float32)
        reads = dict.fromkeys(read for node in _nodes_between(view, value, known) for read in view.reads[node])
        found = [names[read] for read in reads if read in names and constant_of(read) is None]
        return _Region(
            sources=tuple(name for name in found if name in self._known),
            parts=frozenset(name for name in found if name not in self._known),
        )


@dataclass(frozen=True, kw_only=True)
class _Region:
    """What a value is computed by, as far as PyTorch knows nothing in between."""

    sources: tuple[str, ...]
    """What PyTorch knows."""
    parts: frozenset[str]
    """What only the ONNX graph has."""


class NodeRunner:
    """Runs nodes one at a time in ONNX Runtime, without graph optimisation, and keeps what lanes have in common.

    Nodes that differ only in names share a session, across lanes and layers. In FP64, where ONNX Runtime lacks many
    kernels, ``onnx.reference`` takes over.
    """

    def __init__(self) -> None:
        self._loaded: dict[bytes, Evaluate] = {}
        self._views: dict[tuple[Any, ...], tuple[ir.Model, _View]] = {}

    def view(self, model: ir.Model, *, dtype: str, dtypes: Mapping[str, str], default: str | None, tf32: bool) -> _View:
        """Return a model in one precision, made once, since no lane changes it."""
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
            raise UsageError(f"a lane that rounds like a plan computes in float32, not in {dtype}")
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


def _feeds(graph: ir.Graph, inputs: Mapping[str, torch.Tensor]) -> dict[ir.Value, Any]:
    declared = {str(value.name): value for value in graph.inputs}
    for name in inputs:
        if name not in declared:
            raise unknown_name("input", name, declared)
    if missing := sorted(set(declared) - set(inputs)):
        raise UsageError(f"input {missing[0]!r} is missing; the model declares {', '.join(declared)}")
    return {value: _given_array(inputs[name], value) for name, value in declared.items()}


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


def _given_array(tensor: torch.Tensor, value: ir.Value) -> np.ndarray[Any, Any]:
    """Return a copy of a tensor in the dtype the graph declares for a value. Raises NotJudged for another shape."""
    _check_shape(tensor, value)
    return _array(tensor, _declared_dtype(value))


def _given(tensor: torch.Tensor, value: ir.Value, device: torch.device) -> torch.Tensor:
    """Return a tensor in the dtype the graph declares for a value. Raises NotJudged when its shape is another."""
    _check_shape(tensor, value)
    wanted: torch.dtype = getattr(torch, _declared_dtype(value).name)
    return tensor.detach().to(device, wanted)


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
