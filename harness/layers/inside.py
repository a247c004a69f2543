"""Inside a kernel, or between two values that were observed: its operations replayed one by one in the format.

The inputs are the engine's own. Each operation is computed in the reference's precision and in the plan's from the same
tensors, and what follows reads the result in the plan's precision, as in the kernel: the difference is what this
operation loses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.graph import Value
from harness.layers.local_error import LARGEST, Reached, local_error, made_here, reached, saturated
from harness.layers.observation import Unobserved
from harness.layers.observer import KeptError, Observer
from harness.reference import Evaluators, nodes_between

if TYPE_CHECKING:
    import torch

MOST_STEPS = 64
"""Operations of one kernel that are replayed; a longer way between two observed values is not gone into."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One operation inside a kernel."""

    value: Value
    depth: int
    kept: KeptError = field(repr=False)
    """What it loses in the format."""
    error: float
    """The same as a relative L2 error."""
    nonfinite: bool
    """Whether the format gives what is no number from numbers."""
    reached: Reached | None = None
    """Where it leaves the range of the format."""


def steps_inside(before: Unobserved, observer: Observer, name: str, errors: Iterable[KeptError]) -> list[Step]:
    """Return what each operation loses between the values that were observed and this one, itself the last.

    ``errors`` make the evaluators' values those of the engine. Nothing is returned for a value of one operation.
    """
    inner = _inner(before, observer, name)
    if len(inner) < 2 or len(inner) > MOST_STEPS:
        return []
    own = observer.depths[name]
    known = sorted(
        (kept for kept in errors if observer.depths[kept.name] < own), key=lambda it: observer.depths[it.name]
    )
    plan, asked = before.opened.plan, [*(kept.name for kept in known), *inner, name]
    evaluators = before.prepared.graph.evaluators(before.inputs, plan, asked)
    for kept in known:
        _observe(evaluators, kept)
        evaluators.done([kept.name])
    steps = []
    for number, node in enumerate(inner):
        high, low = (evaluators.value(it, node) for it in (evaluators.replay, evaluators.replay_low))
        if high is None or low is None:
            continue
        shown = name if number == len(inner) - 1 else node
        if high.is_floating_point() and high.numel():
            steps.append(_step(observer, shown, high, low, number))
        evaluators.observe(node, low)
        evaluators.done([node])
    return steps


def _inner(before: Unobserved, observer: Observer, name: str) -> list[str]:
    """Return the nodes between the observed values and this one, in the order to run them, itself the last."""
    graph = before.prepared.graph.run_graph
    canonical = observer.evaluators.canonical
    nodes = {node.name: node for node in graph.graph.nodes}
    wanted = nodes.get(canonical(name))
    if wanted is None:
        return []
    seen = {canonical(other) for other, finding in observer.findings.items() if finding.status == "compared"}
    known = {nodes[other] for other in seen if other in nodes} - {wanted}
    known |= {node for node in nodes.values() if node.op != "call_function" or node.name in graph.computed_constants}
    return [node.name for node in nodes_between(wanted, known)]


def _step(observer: Observer, name: str, high: torch.Tensor, low: torch.Tensor, number: int) -> Step:
    precision = observer.precision
    expected = saturated(high, low, LARGEST[precision])
    local = local_error(low, expected)
    error, own = made_here(low, expected, local, unlimited=high, end=LARGEST[precision])
    value = observer.values[name]
    return Step(
        value=value, depth=observer.depths[name], error=local.relative, nonfinite=bool(local.nonfinite),
        kept=KeptError(local.relative, -number, name, error, own),
        reached=reached(high, precision) if local.nonfinite else None,
    )  # fmt: skip


def _observe(evaluators: Evaluators, kept: KeptError) -> None:
    """Let the replays read what the engine had: what is computed from the values before it, and its own error."""
    value = evaluators.value(evaluators.replay, kept.name)
    if value is not None:
        evaluators.observe(kept.name, kept.added_to(value))
