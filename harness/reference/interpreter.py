"""Run an exported program in PyTorch, op by op, with a dtype per value: the reference, the truth and the floor.

The reference is FP32 with TF32 off, the truth FP64, the floor the precision plan of the engine. All three run the same
graph that the engine is built from, so a difference is the engine's and not the model's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import InputKind
from torch.fx import Interpreter, Node
from torch.utils._pytree import tree_leaves, tree_map

from harness.graph import Program
from harness.pytorch import tf32_allowed
from harness.tensors import Tensors

# Outputs kept from another version of the interpreter are other outputs.
CODE_SHA256 = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
FLOATS = (torch.float16, torch.bfloat16, torch.float32)
_VIEWS = (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default)


@dataclass
class RunNotes:
    """What a typed run had to do beyond running the ops."""

    emulated: set[str] = dataclasses.field(default_factory=set)
    """Ops without a kernel in their dtype: computed in FP32 on rounded inputs, and rounded."""
    saturated: set[str] = dataclasses.field(default_factory=set)
    """Values with a constant outside their format, which became the format's largest finite value."""

    def lines(self) -> tuple[str, ...]:
        """Return the notes as sentences."""
        lines = []
        if self.emulated:
            lines.append(f"the floor emulates {', '.join(sorted(self.emulated))} (no kernel in this precision here)")
        if self.saturated:
            plural = "s" * (len(self.saturated) > 1)
            lines.append(f"the floor saturates {len(self.saturated)} constant{plural} outside the format's range")
        return tuple(lines)


def run_program(
    program: Program,
    inputs: Mapping[str, torch.Tensor],
    *,
    dtype: torch.dtype,
    dtypes: Mapping[str, torch.dtype] | None = None,
    allow_tf32: bool = False,
    weights: Mapping[str, torch.Tensor] | None = None,
    on_value: Callable[[str, torch.Tensor], None] | None = None,
    notes: RunNotes | None = None,
) -> Tensors:
    """Run the program with every FP32 value in ``dtype``, or as ``dtypes`` says by FX name; return outputs by name.

    A value is freed after its last use; ``on_value`` sees each one as it is made. Outputs have the dtype they were
    computed in. Inputs decide the device; ``weights`` that are there already need not be copied.
    """
    device = next(iter(inputs.values())).device
    runner = TypedInterpreter(
        program, dtype=dtype, dtypes=dtypes or {}, device=device, weights=weights, on_value=on_value, notes=notes
    )
    with torch.inference_mode(), tf32_allowed(allow_tf32):
        return runner.outputs(inputs)


class TypedInterpreter(Interpreter):
    """Runs each op in the dtype its value is assigned; values that are not FP32 in the graph keep theirs."""

    def __init__(
        self,
        program: Program,
        *,
        dtype: torch.dtype,
        dtypes: Mapping[str, torch.dtype],
        device: torch.device,
        weights: Mapping[str, torch.Tensor] | None = None,
        on_value: Callable[[str, torch.Tensor], None] | None = None,
        notes: RunNotes | None = None,
    ) -> None:
        assert program.exported is not None
        super().__init__(program.exported.graph_module, garbage_collect_values=True)
        self.program, self.exported = program, program.exported
        self.dtype, self.dtypes, self.device = dtype, dtypes, device
        self.weights = weights or {}
        self.on_value, self.notes = on_value, RunNotes() if notes is None else notes

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run with these inputs and return the declared outputs by name."""
        given = self.exported.graph_signature.input_specs
        results = self.run(*(self.placeholder_value(spec, inputs) for spec in given))
        specs = self.exported.graph_signature.output_specs
        by_node = {spec.arg.name: result for spec, result in zip(specs, results, strict=True)}
        return {name: by_node[node] for name, node in self.program.outputs.items()}

    def placeholder_value(self, spec: Any, inputs: Mapping[str, torch.Tensor]) -> Any:
        """Return what a placeholder of the graph stands for: an input, a weight or a constant."""
        if spec.kind is InputKind.USER_INPUT:
            return inputs[spec.arg.name].to(self.device)
        if spec.target in self.weights:
            return self.weights[spec.target].to(self.device)
        store = self.exported.state_dict if spec.target in self.exported.state_dict else self.exported.constants
        return store[spec.target].to(self.device)

    def run_node(self, n: Node) -> Any:
        """Run one node; FX calls this."""
        if n.op != "call_function":
            return super().run_node(n)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        wanted = self.dtype_of(n)
        result = self._call(n, args, kwargs, wanted)
        if self.on_value is not None and isinstance(result, torch.Tensor):
            self.on_value(n.name, result)
        return result

    def dtype_of(self, node: Node) -> torch.dtype | None:
        """Return the dtype this node computes in; None for a node whose results are not FP32 in the graph."""
        results = [value for value in tree_leaves(node.meta.get("val")) if isinstance(value, torch.Tensor)]
        if not any(value.dtype in FLOATS for value in results):
            return None
        return self.dtypes.get(node.name, self.dtype)

    def _call(self, node: Node, args: Any, kwargs: Any, wanted: torch.dtype | None) -> Any:
        # A kernel of another device or dtype may lay its result out differently than the traced one did, and a view of
        # it may then not exist; reshape is the same mathematics.
        function: Any = torch.ops.aten.reshape.default if node.target in _VIEWS else node.target
        args, kwargs = tree_map(self._to_device, (args, kwargs))
        if wanted is None:  # comparisons, indices, shapes: on the inputs as they are, at their highest precision
            highest = self._highest((args, kwargs))
            args, kwargs = tree_map(lambda value: cast(value, highest), (args, kwargs))
            return function(*args, **kwargs)
        typed = tree_map(lambda value: self._typed(node, value, wanted), (args, kwargs))
        try:
            result = function(*typed[0], **typed[1])
        except NotImplementedError:  # what PyTorch's dispatch raises for a dtype that a kernel has not
            if wanted not in (torch.float16, torch.bfloat16):
                raise
            self.notes.emulated.add(str(node.target))
            exact = tree_map(lambda value: self._typed(node, value, torch.float32), typed)
            result = function(*exact[0], **exact[1])
        return tree_map(lambda value: cast(value, wanted), result)

    def _to_device(self, value: Any) -> Any:
        return self.device if isinstance(value, torch.device) else value

    def _highest(self, values: Any) -> torch.dtype:
        present = {value.dtype for value in tree_leaves(values) if isinstance(value, torch.Tensor)}
        for dtype in (torch.float64, torch.float32):
            if dtype in present:
                return dtype
        # FP16 and BF16 hold values the other cannot, so their common precision is FP32.
        return (
            torch.float32
            if {torch.float16, torch.bfloat16} <= present
            else next(iter(present & set(FLOATS)), self.dtype)
        )

    def _typed(self, node: Node, value: Any, wanted: torch.dtype) -> Any:
        if isinstance(value, torch.dtype):
            return wanted if value in FLOATS else value
        if isinstance(value, float) and wanted in (torch.float16, torch.bfloat16):
            # What PyTorch itself writes when the model is in this precision: finfo(dtype).min, not -inf.
            limit = torch.finfo(wanted).max
            if limit < abs(value) < float("inf"):
                self.notes.saturated.add(node.name)
                return limit if value > 0 else -limit
        return cast(value, wanted)


def cast(value: Any, dtype: torch.dtype) -> Any:
    """Cast a tensor of the graph's working precision; integers, booleans and everything else stay."""
    if isinstance(value, torch.Tensor) and (value.dtype in FLOATS or value.dtype is torch.float64):
        return value.to(dtype)
    return value
