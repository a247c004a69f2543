"""The values that decisions are made of, in the reference's precision and in the engine's."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property

import torch

from harness.errors import NotJudged
from harness.graph import Plan, constant_of, elements_of, is_fp32
from harness.lazy import onnx_ir as ir
from harness.reference import Evaluators
from harness.sentences import Sentence
from harness.tensors import Tensors
from harness.verify.deciders import Decider, value_of
from harness.verify.margins import Deciding, roundoff_of
from harness.verify.subject_graph import SubjectGraph

_LOW = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class DecidingValues:
    """Values of one case by name, on the CPU; ``asked`` are all that will be needed.

    Raises NotJudged where the precision cannot be computed here, or nothing computes a value.
    """

    def __init__(
        self, graph: SubjectGraph, model: ir.Model, inputs: Tensors, plan: Plan, asked: Collection[str]
    ) -> None:
        self._model, self._inputs, self._plan = model, inputs, plan
        self.double = is_fp32(plan)
        """Whether the reference is FP64."""
        computed = [name for name in dict.fromkeys(asked) if name not in inputs and self._constant(name) is None]
        self._graph, self._computed = graph, computed
        self._kept: dict[tuple[str, bool], torch.Tensor] = {}

    @cached_property
    def _evaluators(self) -> Evaluators:
        return self._graph.evaluators(self._inputs, self._plan, self._computed)

    def reference(self, name: str) -> torch.Tensor:
        """Return a value in the reference's precision."""
        return self._value(name, low=False)

    def floor(self, name: str) -> torch.Tensor:
        """Return a value as PyTorch computes it in the engine's precision."""
        return self._value(name, low=True)

    def replace(self, reference: Tensors, floor: Tensors) -> None:
        """Let values be these from now on: those of another order."""
        self._kept |= {(name, False): tensor for name, tensor in reference.items()}
        self._kept |= {(name, True): tensor for name, tensor in floor.items()}

    def read_by(self, decider: Decider) -> dict[str, Deciding]:
        """Return what a node decides by."""
        return {name: self.deciding(name) for name in decider.reads}

    def deciding(self, name: str) -> Deciding:
        """Return a value in both, with one rounding of its format."""
        reference = self.reference(name).double()
        dtype = self._plan.compute_dtype
        if self._constant(name) is not None:
            exact = reference.to(_LOW[dtype]).double() if dtype in _LOW else reference
            return Deciding(reference=reference, floor=exact, roundoff=0.0)
        floor = self.floor(name)
        if name not in self._inputs:  # a plan, or an operator, may keep it in FP32
            dtype = str(floor.dtype).removeprefix("torch.")
        return Deciding(reference=reference, floor=floor.double(), roundoff=roundoff_of(dtype, tf32=self._plan.tf32))

    def _constant(self, name: str) -> torch.Tensor | None:
        tensor = constant_of(value_of(self._model, name))
        return None if tensor is None else torch.from_numpy(elements_of(tensor).copy())

    def _value(self, name: str, *, low: bool) -> torch.Tensor:
        if (name, low) not in self._kept:
            found = self._inputs.get(name)
            found = self._constant(name) if found is None else found
            if found is None:
                evaluator = self._evaluators.floor if low else self._evaluators.reference
                found = self._evaluators.value(evaluator, name)
            if found is None:
                raise NotJudged(Sentence("only_engine_computes", name=name))
            self._kept[name, low] = found.detach().cpu()
        return self._kept[name, low]
