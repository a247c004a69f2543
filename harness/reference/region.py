"""A small part of an ONNX graph, run many times over: what follows from other decisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from harness.errors import NotJudged, first_line
from harness.graph import extract
from harness.lazy import onnx_ir as ir
from harness.reference.interpreter import CANNOT_RUN, run_graph
from harness.reference.onnx_calls import onnx_run_graph
from harness.sentences import Sentence
from harness.tensors import Tensors


class Region:
    """Computes values of a graph, by name, from values before them, on the CPU: in FP64 with ``double``, else FP32."""

    def __init__(self, model: ir.Model, inputs: Sequence[str], outputs: Sequence[str], *, double: bool) -> None:
        self._dtype = torch.float64 if double else torch.float32
        self._passed_on = [name for name in outputs if name in inputs]
        computed = [name for name in outputs if name not in inputs]
        self._graph = onnx_run_graph(extract(model, list(inputs), computed)) if computed else None

    def run(self, values: Mapping[str, torch.Tensor]) -> Tensors:
        """Return the outputs, floats in the precision of the region. Raises NotJudged where a node cannot be run."""
        given = {name: tensor.to(self._dtype) if tensor.is_floating_point() else tensor
                 for name, tensor in values.items()}  # fmt: skip
        found: Tensors = {name: given[name] for name in self._passed_on}
        if self._graph is None:
            return found
        try:
            return found | run_graph(self._graph, given, dtype=self._dtype, device=torch.device("cpu"))
        except CANNOT_RUN as error:
            raise NotJudged(Sentence("decisions_not_computed", said=first_line(error))) from error
