"""A graph in one precision, whose values are found by their names in the model it was made from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import torch

from harness.errors import UsageError, unknown_name
from harness.graph import apply, constant_of, copy_model, emulate, infer_types, promote, to_float64, used_values

_MARK = "parity.values"
_LOW_PRECISIONS = {"FLOAT16": torch.float16, "BFLOAT16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class PrecisionView:
    """A graph in one precision, seen by the names of the model it was made from."""

    model: ir.Model
    """The graph itself."""
    values: Mapping[str, ir.Value]
    """Name in the given model -> what the readers of that value read here; in low precision its rounded twin."""
    reads: Mapping[ir.Node, tuple[ir.Value, ...]]
    """What every node reads, captured values included."""
    rounded: Mapping[str, torch.dtype]
    """The values that are rounded to float16 or bfloat16, by name."""

    def nodes_between(self, wanted: ir.Value, known: Collection[ir.Value]) -> list[ir.Node]:
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
                pending.extend((read, False) for read in self.reads[node])
        return ordered


def make_view(
    model: ir.Model, *, dtype: str, dtypes: Mapping[str, str], default: str | None, tf32: bool
) -> PrecisionView:
    """Return a model in one precision; what every node computed in the model is found again by a mark on the node.

    ``dtype`` is ``float32`` or ``float64``; with ``dtypes``, ``default`` or ``tf32`` it is FP32 arithmetic that rounds
    like them. Raises UsageError for another dtype, NotJudged where a value's dtype is not known.
    """
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
            name: _LOW_PRECISIONS[value.dtype.name]
            for name, value in typed.items()
            if value.dtype is not None and value.dtype.name in _LOW_PRECISIONS
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
    return PrecisionView(model=made, values=values, reads=reads, rounded=rounded)


def _marked_values(graph: ir.Graph) -> dict[str, ir.Value]:
    """Return what the marked nodes compute, by name in the model that was marked."""
    pairs = (
        (name, value) for node in graph for name, value in zip(node.meta.get(_MARK, ()), node.outputs, strict=False)
    )
    return {name: value for name, value in pairs if name}


def _as_read(value: ir.Value) -> ir.Value:
    """Return what the readers of a value read: where emulation rounds it, the output of the second of two Casts."""
    readers = list(value.consumers())
    if len(readers) == 1 and rounds_to(readers[0]):
        (back,) = readers[0].outputs[0].consumers()
        return back.outputs[0]
    return value


def rounds_to(node: ir.Node) -> torch.dtype | None:
    """Return the dtype to which a Cast of emulation rounds; all other float16 and bfloat16 has been promoted."""
    if node.op_type != "Cast" or node.domain != "":
        return None
    return _LOW_PRECISIONS.get(ir.DataType(node.attributes["to"].as_int()).name)
