"""An exported program as data: what a run that finds all in its caches needs of a module's graph without exporting it.

Weights of the module are not in it, only their names: who reads it has built the module. Nothing is unpickled; a
program with something that has no plain text is not kept.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Graph, Node

from harness.compare import bitwise_equal
from harness.graph.aten_graph import AtenGraph
from harness.graph.export import Program
from harness.graph.onnx_file import load_arrays
from harness.graph.program_hash import OWN_NAMESPACES
from harness.graph.values import Value
from harness.lazy import onnx_ir as ir
from harness.tensors import Tensors

MOST_CONSTANTS_BYTES = 2**28
"""Tensors that are no weights, such as masks and tables of angles; a program with more is exported each time."""
SMALL_BYTES = 2**10
"""Tensors of the ONNX graph below this stay in it."""
_MODULES = ("_operator", "math", "torch")
"""Modules with the functions on sizes that a traced program calls."""
_NAMES = (torch.dtype, torch.layout, torch.memory_format)
_MODEL = "onnx"
_CONSTANT, _INITIALIZER = "constant:", "initializer:"
Json = Any


class Unkept(TypeError):
    """A program holds what cannot be written as data; the text says what."""


def pack_program(program: Program, weights: Mapping[str, torch.Tensor]) -> tuple[Tensors, str]:
    """Return a program as tensors and JSON, without the module's weights. Raises Unkept."""
    aten = program.aten
    if aten is None:
        raise Unkept("a graph that was read from a file")
    tensors = {f"{_CONSTANT}{name}": tensor for name, tensor in aten.tensors.items() if name not in weights}
    alike = _Alike(weights)
    model = program.model.clone()  # shares the tensors
    shared: dict[str, list[Any]] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.Tensor) or tensor.nbytes < SMALL_BYTES:
            continue
        raw = tensor.raw if isinstance(tensor.raw, torch.Tensor) else torch.from_numpy(tensor.numpy())
        if (found := alike.find(raw)) is not None:
            shared[str(value.name)] = list(found)
        else:
            tensors[f"{_INITIALIZER}{value.name}"] = raw
        shape = ir.Shape(tensor.shape)
        value.const_value = ir.ExternalTensor("", 0, tensor.nbytes, tensor.dtype, shape=shape, name=str(tensor.name))
    if sum(tensor.nbytes for tensor in tensors.values()) > MOST_CONSTANTS_BYTES:
        raise Unkept(f"more than {MOST_CONSTANTS_BYTES} bytes of constants")
    if any(tensor.is_sparse or tensor.is_complex() for tensor in tensors.values()):
        raise Unkept("a constant that is sparse or complex")
    tensors = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    tensors[_MODEL] = torch.frombuffer(bytearray(ir.to_proto(model).SerializeToString()), dtype=torch.uint8)
    return tensors, json.dumps({
        "nodes": [_node(node) for node in aten.graph.nodes], "inputs": aten.inputs, "weights": dict(aten.weights),
        "outputs": dict(program.outputs), "values": [dataclasses.asdict(value) for value in program.values.values()],
        "shared": shared,
    })  # fmt: skip


def unpack_program(name: str, tensors: Tensors, text: str, weights: Mapping[str, torch.Tensor]) -> Program:
    """Return the program that was packed, with the module's weights in it.

    Raises Unkept where these are others, or an operator is not known here.
    """
    from onnx import ModelProto

    data = json.loads(text)
    constants = {it.removeprefix(_CONSTANT): tensors[it] for it in tensors if it.startswith(_CONSTANT)}
    known = {**weights, **constants}
    model = ir.from_proto(ModelProto.FromString(tensors[_MODEL].numpy().tobytes()))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):
            weight, transposed = data["shared"].get(value.name, (None, False))
            raw = tensors.get(f"{_INITIALIZER}{value.name}") if weight is None else weights.get(weight)
            if raw is None:
                raise Unkept(f"the weight {weight!r}, which the module has not")
            raw = raw.detach().T if transposed else raw.detach()
            value.const_value = ir.tensor_adapters.TorchTensor(raw, name=value.name)
    load_arrays(model, name)
    missing = set(data["weights"].values()) - known.keys()
    if missing:
        raise Unkept(f"the weight {min(missing)!r}, which the module has not")
    aten = AtenGraph(
        graph=_graph(data["nodes"]), inputs=tuple(data["inputs"]), weights=data["weights"],
        tensors={it: known[it] for it in data["weights"].values()},
    )  # fmt: skip
    values = (Value(**{**it, "shape": _tuple(it["shape"]), "folded": tuple(it["folded"])}) for it in data["values"])
    return Program(name=name, model=model, values={it.name: it for it in values}, outputs=data["outputs"], kept=aten)


class _Alike:
    """Finds the weight that has the same elements as a tensor, as it lies or transposed, as exporters write it."""

    def __init__(self, weights: Mapping[str, torch.Tensor]) -> None:
        self._known: dict[Any, list[tuple[str, bool, torch.Tensor]]] = {}
        for name, weight in weights.items():
            self._add(name, False, weight.detach())
            if weight.ndim == 2:
                self._add(name, True, weight.detach().T)

    def _add(self, name: str, transposed: bool, tensor: torch.Tensor) -> None:
        self._known.setdefault(self._sample(tensor), []).append((name, transposed, tensor))

    def find(self, tensor: torch.Tensor) -> tuple[str, bool] | None:
        """Return the name of the weight, and whether it is transposed; None where no weight has these elements."""
        for name, transposed, weight in self._known.get(self._sample(tensor), ()):
            if bitwise_equal(tensor, weight):
                return name, transposed
        return None

    @staticmethod
    def _sample(tensor: torch.Tensor) -> tuple[Any, ...]:
        """Return what tensors of the same elements share, and few others do."""
        ends = tensor[:1, :8] if tensor.ndim == 2 else tensor.reshape(-1)[:8]
        return tensor.dtype, tuple(tensor.shape), str(ends.tolist())


def _tuple(shape: list[int | str] | None) -> tuple[int | str, ...] | None:
    return None if shape is None else tuple(shape)


def _node(node: Node) -> Json:
    if node.op not in ("placeholder", "call_function", "output"):
        raise Unkept(f"the node {node.name}, a {node.op}")
    target = _target(node.target) if node.op == "call_function" else str(node.target)
    return [node.op, node.name, target, _encoded(node.args), _encoded(dict(node.kwargs)), _made(node.meta.get("val"))]


def _graph(nodes: list[Json]) -> Graph:
    graph, known = Graph(), dict[str, Node]()
    for op, name, target, args, kwargs, made in nodes:
        called = _function(target) if op == "call_function" else target
        node = graph.create_node(op, called, _decoded(args, known), _decoded(kwargs, known), name=name)
        if node.name != name:
            raise Unkept(f"the name {name!r}")
        node.meta["val"] = _as_made(made)
        known[name] = node
    return graph


def _target(target: Any) -> str:
    if isinstance(target, torch._ops.OpOverload) and target.namespace in OWN_NAMESPACES:
        return str(target)
    name, module = getattr(target, "__name__", ""), getattr(target, "__module__", "")
    if callable(target) and module in _MODULES and getattr(importlib.import_module(module), name, None) is target:
        return f"{module}:{name}"
    raise Unkept(f"the operator {target}")


def _function(text: str) -> Any:
    module, colon, name = text.partition(":")
    if colon and module in _MODULES:
        return getattr(importlib.import_module(module), name)
    namespace, name, overload = text.split(".")
    try:
        return getattr(getattr(getattr(torch.ops, namespace), name), overload)
    except AttributeError as error:
        raise Unkept(f"the operator {text}") from error


def _encoded(value: Any) -> Json:
    """Return an argument as JSON data: what JSON has not is an object with its kind as the key."""
    if isinstance(value, Node):
        return {"node": value.name}
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, tuple):
        return {"tuple": [_encoded(item) for item in value]}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    if isinstance(value, dict):
        return {"dict": {str(key): _encoded(item) for key, item in value.items()}}
    if isinstance(value, _NAMES):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    raise Unkept(f"an argument that is a {type(value).__qualname__}")


def _decoded(data: Json, known: Mapping[str, Node]) -> Any:
    if isinstance(data, list):
        return [_decoded(item, known) for item in data]
    if not isinstance(data, dict):
        return data
    ((kind, value),) = data.items()
    if kind == "node":
        return known[value]
    if kind == "tuple":
        return tuple(_decoded(item, known) for item in value)
    if kind == "dict":
        return {key: _decoded(item, known) for key, item in value.items()}
    return torch.device(value) if kind == "device" else getattr(torch, value)


def _made(value: Any) -> Json:
    """Return what a node makes: the dtypes of tensors, ``number`` for a size, None for what is not known."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype).removeprefix("torch.")
    if isinstance(value, (list, tuple)):
        return [_made(item) for item in value]
    return None if value is None else "number"


def _as_made(made: Json) -> Any:
    """Return something of the same kind as what a node makes."""
    if isinstance(made, list):
        return [_as_made(item) for item in made]
    if made is None or made == "number":
        return 0 if made else None
    return torch.empty((), dtype=getattr(torch, made), device="meta")
