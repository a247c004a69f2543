"""What observing did to the outputs of an engine, and what its local errors do to them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from harness.compare import bitwise_equal, relative_l2, total_error
from harness.layers.observation import Observation, Unobserved
from harness.layers.observer import Observer
from harness.records import HARMLESS, OutputEffect, OutputResult, Result, ValueFinding
from harness.reference import Evaluator
from harness.tensors import Tensors
from harness.verify import FACTOR


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


def propagate(before: Unobserved, observer: Observer) -> list[ValueFinding]:
    """Return the findings in dataflow order; the largest local errors have their effect on the outputs."""
    findings = dict(observer.findings)
    # In dataflow order what comes before them all is computed once; of two errors of one value the larger is last.
    errors = sorted(observer.errors, key=lambda kept: (observer.depths[kept.name], kept.ratio))
    if errors:
        before.opened.say(f"propagating the {len(errors)} largest local errors to the outputs", before.case)
    evaluator = before.prepared.graph.evaluator(before.inputs)
    expected = evaluator.fork().outputs() if errors else {}
    for kept in errors:
        effect = _effect(evaluator, observer.evaluators.canonical(kept.name), kept.error, expected)
        finding = findings[kept.name]
        harmless = finding.mark == "suspect" and effect <= _harmless_effect(before.result)
        findings[kept.name] = replace(finding, effect=effect, mark=HARMLESS if harmless else finding.mark)
    if before.result.verdict == "pass":
        for name, finding in findings.items():
            if finding.mark == "nonfinite" and finding.status == "compared":
                reason = f"{finding.reason}; it does not reach the outputs, which are right"
                findings[name] = replace(finding, mark=HARMLESS, reason=reason)
    return sorted(findings.values(), key=lambda finding: finding.depth)


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


def _effect(evaluator: Evaluator, name: str, error: torch.Tensor, expected: Tensors) -> float:
    """Return the relative L2 error of the outputs when this error is added to one value."""
    value = evaluator.value(name)
    if value is None:  # what only the ONNX graph has may be computed from what PyTorch has freed
        return math.nan
    disturbed = evaluator.fork()
    disturbed.observe(name, value + error.reshape(value.shape).to(value.dtype))
    return total_error(disturbed.outputs(), expected)


def _harmless_effect(result: Result) -> float:
    """Return an effect too small to change a verdict: the smallest floor of the outputs over FACTOR."""
    floors = [output.floor.relative_l2 for output in result.outputs if output.floor is not None]
    return min(floors, default=0.0) / FACTOR


def _error(output: OutputResult) -> float:
    stats = output.stats
    return math.inf if stats is None or stats.mismatched_nonfinite else stats.relative_l2
