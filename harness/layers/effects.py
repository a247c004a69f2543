"""What observing did to the outputs of an engine, and what its discrete decisions do to them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.compare import bitwise_equal, relative_l2, total_error
from harness.layers.observation import Observation, Unobserved
from harness.records import OutputEffect, OutputResult, Result
from harness.tensors import Tensors


def observer_effects(before: Unobserved, observed: Sequence[Tensors]) -> tuple[OutputEffect, ...]:
    """Return how far the outputs of the observed engines are from those of the unobserved one."""
    errors = {output.name: _error(output) for output in before.result.outputs}
    effects = []
    for name, unobserved in before.outputs.items():
        outputs = [tensors[name] for tensors in observed]
        same = all(bitwise_equal(output, unobserved) for output in outputs)
        difference = 0.0 if same else max((relative_l2(output, unobserved) for output in outputs), default=math.inf)
        effects.append(OutputEffect(name=name, identical=same, difference=difference, error=errors[name]))
    return tuple(effects)


def decision_notes(before: Unobserved, observation: Observation) -> tuple[str, ...]:
    """Return the error against a reference with the engine's own discrete decisions (argmax, top-k), if any differ."""
    decisions, canonical = observation.observer.decisions, observation.observer.evaluators.canonical
    if not decisions:
        return ()
    evaluator = before.prepared.graph.evaluator(before.inputs)
    for name, decision in decisions.items():
        evaluator.observe(canonical(name), decision)
    error, with_decisions = output_error(before.result), total_error(before.outputs, evaluator.outputs())
    return (
        f"discrete decisions differ ({', '.join(decisions)}): the relative error of the outputs is {error:.3g} against "
        f"the reference, {with_decisions:.3g} against one with the engine's decisions",
    )


def output_error(result: Result) -> float:
    """Return the largest relative L2 error of the outputs; infinite where one cannot be compared or is not finite."""
    return max((_error(output) for output in result.outputs), default=math.inf)


def _error(output: OutputResult) -> float:
    stats = output.stats
    return math.inf if stats is None or stats.mismatched_nonfinite else stats.relative_l2
