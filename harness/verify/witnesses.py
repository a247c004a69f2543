"""The truth has two witnesses: the reference is held against an independent computation of the same model."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from harness.compare import FAITHFUL, distance
from harness.errors import NotJudged
from harness.reference import ProgramEvaluator
from harness.sentences import Sentence
from harness.tensors import Tensors
from harness.verify.quantised import flips_explain
from harness.verify.subject_graph import SubjectGraph

EXPLAINED = 16.0
"""An ill-conditioned model loses more in FP32: two computations may differ by this many times what one loses."""

FEW_TIES = 0.01
"""Share of indices that two FP32 computations may decide otherwise where the values they are decided by agree."""


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """Where two computations part."""

    value: str
    """The first value on which they disagree, in the order of the graph; or the output."""
    ours: float
    """The element that differs most, as the reference has it."""
    theirs: float
    """The same element, as the witness has it."""


class Disagree(NotJudged):
    """Two computations of the reference differ."""


def require_agreement(
    graph: SubjectGraph,
    inputs: Tensors,
    outputs: Tensors,
    *,
    exact: Callable[[], Tensors],
    counted: Callable[[Tensors], Tensors] = lambda outputs: outputs,
) -> tuple[str, ...]:
    """Hold the FP32 reference against the graph's witness; return notes.

    ``exact`` gives the FP64 truth, and is asked for only where the two differ by more than FP32 usually does;
    ``counted`` gives outputs with 0 for what does not count. Raises Disagree, naming the first value on which they
    disagree.
    """
    witness = graph.witness(inputs)
    if isinstance(witness, str):
        return (Sentence("one_witness", witness=witness),)
    witness, outputs = counted(witness), counted(outputs)
    errors = {name: distance(witness[name], tensor) for name, tensor in outputs.items()}
    wrong = {name: error for name, error in errors.items() if not error <= FAITHFUL}
    if wrong:
        truth = counted(exact())
        wrong = {name: e for name, e in wrong.items() if not e <= EXPLAINED * distance(outputs[name], truth[name])}
    if not wrong:
        return ()
    if graph.is_quantised and flips_explain(graph, inputs, outputs, witness):
        worst = max(wrong.values())
        return (Sentence("witness_flips", witness_name=graph.witness_name, worst=worst),)
    output = max(wrong, key=lambda name: wrong[name])
    found = _first(graph, inputs, wrong[output])
    if found is None and all(e <= FEW_TIES and not outputs[name].is_floating_point() for name, e in wrong.items()):
        return (Sentence("witness_decides", witness_name=graph.witness_name, wrong=wrong[output], output=output),)
    found = found or _at_worst(output, outputs[output], witness[output])
    raise Disagree(
        Sentence(
            "witnesses_disagree",
            value=found.value,
            computed_by=graph.computed_by,
            ours=found.ours,
            witness_name=graph.witness_name,
            theirs=found.theirs,
            output=output,
            wrong=wrong[output],
        )
    )


def _first(graph: SubjectGraph, inputs: Tensors, error: float) -> Disagreement | None:
    """Return the first value of floats on which the two disagree, by a good part of what the output differs."""
    names = graph.witness_value_names()
    ours = ProgramEvaluator(
        graph.run_graph, inputs, dtype=torch.float32, device=graph.device, asked=names, weights=graph.weights
    )
    limit = max(FAITHFUL, min(error, 1.0) / 16)
    for name, theirs in graph.witness_values(inputs):
        value = ours.value(name)
        known = value is not None and value.is_floating_point() and value.shape == theirs.shape
        if known and value is not None and not distance(theirs, value) <= limit:
            return _at_worst(name, value, theirs)
        ours.done(name)
    return None


def _at_worst(name: str, ours: torch.Tensor, theirs: torch.Tensor) -> Disagreement:
    if ours.shape != theirs.shape or not ours.numel():
        return Disagreement(value=name, ours=float(ours.numel()), theirs=float(theirs.numel()))
    mine, other = (tensor.detach().double().cpu().flatten() for tensor in (ours, theirs))
    apart = torch.where(mine == other, 0.0, (mine - other).abs())
    at = int(apart.nan_to_num(nan=math.inf).argmax())
    return Disagreement(value=name, ours=mine[at].item(), theirs=other[at].item())
