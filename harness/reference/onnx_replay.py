"""Run an ONNX graph node by node, on demand, with an engine's own values in the place of computed ones.

It is the :class:`harness.reference.Evaluator` of a subject without a PyTorch program. Every node runs alone, in ONNX
Runtime on the CPU.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, Self

import numpy as np
import onnx_ir as ir
import torch

from harness.errors import EngineFailed, UsageError, unknown_name
from harness.reference.node_runner import NodeRunner
from harness.reference.node_values import as_array, as_tensor, declared_array, read


class OnnxEvaluator:
    """One run of a model in one precision on the CPU, computed as far as values are asked for.

    ``dtype`` is ``float32`` or ``float64``. With ``default`` (``float32``, ``float16``, ``bfloat16``), ``dtypes`` or
    ``tf32`` it is FP32 arithmetic rounded like that plan, as by :func:`harness.graph.rounding`, and its values are
    float32. The values in ``keep`` can be asked for at any time until :meth:`done`; any other is freed as soon as all
    that read it have run. Those that share a ``runner`` share its sessions and typed graphs. A MatMul may differ in its
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
        return as_tensor(self._compute(value))

    def observe(self, name: str, tensor: torch.Tensor) -> None:
        """Let what is computed from now on read this tensor, in the dtype the evaluator computes the value in.

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
        self._env[value] = as_array(tensor, computed.dtype)

    def done(self, name: str) -> None:
        value = self._view.values.get(name)
        if value is not None:
            self._asked.discard(value)
            self._free_if_read(value)

    def outputs(self) -> dict[str, torch.Tensor]:
        """Compute the rest and return the outputs by their declared names; they are never freed."""
        found = {str(value.name): as_tensor(self._compute(value)) for value in self._view.model.graph.outputs}
        return {name: tensor for name, tensor in found.items() if tensor is not None}

    def fork(self) -> Self:
        fork = copy.copy(self)
        fork._env, fork._unread = dict(self._env), self._unread.copy()
        fork._asked, fork._freed = set(self._asked), set(self._freed)
        return fork

    @property
    def held(self) -> int:
        """How many computed values the evaluator holds; weights and network inputs are not counted."""
        return len(self._env) - len(self._inputs)

    def _compute(self, wanted: ir.Value) -> Any:
        for node in self._view.nodes_between(wanted, self._env):
            self._env.update(self._runner.run_on(self._view.model, node, self._env))
            for value in self._view.reads[node]:
                self._unread[value] -= 1
                self._free_if_read(value)
            for value in node.outputs:
                if value is not wanted:
                    self._free_if_read(value)
        return read(wanted, self._env)

    def _free_if_read(self, value: ir.Value) -> None:
        needed = self._unread[value] > 0 or value in self._asked or value in self._outputs or value in self._inputs
        if value in self._env and not needed:
            del self._env[value]
            self._freed.add(value)


def _feeds(graph: ir.Graph, inputs: Mapping[str, torch.Tensor]) -> dict[ir.Value, Any]:
    declared = {str(value.name): value for value in graph.inputs}
    for name in inputs:
        if name not in declared:
            raise unknown_name("input", name, declared)
    if missing := sorted(set(declared) - set(inputs)):
        raise UsageError(f"input {missing[0]!r} is missing; the model declares {', '.join(declared)}")
    return {value: declared_array(inputs[name], value) for name, value in declared.items()}
