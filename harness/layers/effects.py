"""What observing did to the outputs of an engine, and what its discrete decisions do to them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from harness.compare import bitwise_equal, relative_l2, total_error
from harness.layers.observation import Observation, Unobserved
from harness.layers.wrong_outputs import wrong_outputs
from harness.records import Observed, OutputEffect, OutputResult, Result
from harness.sentences import Sentence
from harness.tensors import Tensors
from harness.verify import judged_by, verify_case

WORST: tuple[Observed, ...] = ("unchanged", "rounding", "changed", "hidden")
"""What observing may do to an output, the worst last."""
SAME = 0.25
"""Squared share of what is wrong with an output by which the observed one may differ: half of the error."""


def observer_effects(before: Unobserved, observed: Sequence[Tensors]) -> tuple[OutputEffect, ...]:
    """Return what observing did to each output: of several engines what the worst did."""
    expected = before.counted(verify_case(before.opened, before.case).expected or {})
    wrong = {it.name: it for it in wrong_outputs(before.result.outputs, before.outputs, expected)}
    verdicts = [_verdicts(before, tensors) for tensors in observed]
    effects = []
    for output in before.result.outputs:
        name, unobserved = output.name, before.outputs[output.name]
        kinds: list[Observed] = ["unchanged"]
        pairs = zip(observed, verdicts, strict=True)
        changed = [pair for pair in pairs if not bitwise_equal(pair[0][name], unobserved)]
        for tensors, verdict in changed:
            if output.verdict == "pass":
                kinds.append("changed" if verdict[name] == "fail" else "rounding")
            elif verdict[name] == "pass":
                kinds.append("hidden")
            else:
                kinds.append("rounding" if name in wrong and wrong[name].left(tensors) <= SAME else "changed")
        effects.append(
            OutputEffect(
                name=name, identical=not changed, error=_error(output), observed=worst_observed(kinds),
                difference=max((relative_l2(tensors[name], unobserved) for tensors, _ in changed), default=0.0),
            )
        )  # fmt: skip
    return tuple(effects)


def worst_observed(kinds: Iterable[Observed]) -> Observed:
    """Return the worst of what observing did; empty where nothing was observed."""
    return max(kinds, key=WORST.index, default="")


def _verdicts(before: Unobserved, observed: Tensors) -> dict[str, str]:
    """Return the verdicts on the outputs of an observed engine, by the limits of the unobserved one."""
    if all(bitwise_equal(observed[name], tensor) for name, tensor in before.outputs.items()):
        return {output.name: output.verdict for output in before.result.outputs}
    return {output.name: output.verdict for output in judged_by(before.opened, before.case, actual=observed)}


def decision_notes(before: Unobserved, observation: Observation) -> tuple[str, ...]:
    """Return the error against a reference with the engine's own discrete decisions (argmax, top-k), if any differ."""
    decisions, canonical = observation.observer.decisions, observation.observer.evaluators.canonical
    if not decisions:
        return ()
    evaluator = before.prepared.graph.evaluator(before.inputs)
    for name, decision in decisions.items():
        evaluator.observe(canonical(name), decision)
    error, with_decisions = (
        output_error(before.result),
        total_error(before.outputs, before.counted(evaluator.outputs())),
    )
    return (
        Sentence("decisions_differ_effects", decisions=list(decisions), error=error, with_decisions=with_decisions),
    )


def output_error(result: Result) -> float:
    """Return the largest relative L2 error of the outputs; infinite where one cannot be compared or is not finite."""
    return max((_error(output) for output in result.outputs), default=math.inf)


def _error(output: OutputResult) -> float:
    stats = output.stats
    return math.inf if stats is None or stats.mismatched_nonfinite else stats.relative_l2
