"""What the range of a format does to a model: constants that it cannot hold, and the operator that overflows first."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial

import torch
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from harness.compare import FAITHFUL, distance, relative_l2
from harness.reference import Evaluator, ProgramEvaluator, RunGraph, run_graph
from harness.sentences import Sentence
from harness.tensors import Tensors, largest_finite

UNUSABLE = 0.1
"""A value of which low precision loses more than this is named as the first that it cannot hold."""


def kept_for_range(
    run: RunGraph,
    dtype: torch.dtype,
    cases: Callable[[], Iterable[tuple[str, Tensors]]],
    *,
    counted: Callable[[str, Tensors], Tensors],
    weights: Mapping[str, torch.Tensor],
    device: torch.device,
) -> frozenset[str]:
    """Return the nodes that stay in FP32 since saturating a constant to a format changes the result of a case.

    A mask of FP32's lowest number absorbs every score it is added to; one of -65504 does not. Where that shows in an
    output, what reads such a constant keeps FP32, and so does what reads a value that FP16 cannot hold, until values
    are small again: after the softmax.
    """
    limit = torch.finfo(dtype).max
    readers: set[str] = set()
    for graph in run.with_bodies():
        beyond = _constants_beyond(graph, weights if graph is run else {}, limit)
        computed = _computed_beyond(graph, weights if graph is run else {}, device, limit)
        nodes = (node for node in graph.graph.nodes if node.op == "call_function")
        readers |= computed | {node.name for node in nodes if _reads(node, beyond | computed, limit)}
    if not readers:
        return frozenset()
    kept: set[str] = set()
    for case, inputs in cases():
        compute = partial(run_graph, run, inputs, dtype=torch.float32, device=device, weights=weights)
        largest: dict[str, float] = {}

        def note(name: str, tensor: torch.Tensor, largest: dict[str, float] = largest) -> None:
            if tensor.is_floating_point() and tensor.numel():
                largest[name] = max(largest.get(name, 0.0), largest_finite(tensor))

        expected, saturated = (counted(case, outputs) for outputs in (compute(on_value=note), compute(saturate=dtype)))
        if any(not distance(saturated[name], tensor) <= FAITHFUL for name, tensor in expected.items()):
            kept |= _spread(run, readers, {name for name, most in largest.items() if most > limit})
    return frozenset(kept)


def _constants_beyond(run: RunGraph, weights: Mapping[str, torch.Tensor], limit: float) -> set[str]:
    """Return the placeholders of constants that a format cannot hold."""
    names = {placeholder: source.name for placeholder, source in run.sources.items()}
    given = {placeholder: weights.get(name, run.weights.get(name)) for placeholder, name in names.items()}
    return {
        placeholder
        for placeholder, tensor in given.items()
        if isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float32 and largest_finite(tensor) > limit
    }


def _computed_beyond(
    run: RunGraph, weights: Mapping[str, torch.Tensor], device: torch.device, limit: float
) -> set[str]:
    """Return the nodes that compute from constants alone what a format cannot hold."""
    names = run.computed_constants & run.floats
    evaluator = ProgramEvaluator(run, {}, dtype=torch.float32, device=device, weights=weights, asked=names)
    values = ((name, evaluator.value(name)) for name in names)
    return {name for name, value in values if value is not None and largest_finite(value) > limit}


def _reads(node: Node, beyond: set[str], limit: float) -> bool:
    """Return whether a node reads a constant that a format cannot hold."""
    numbers = (abs(item) for item in tree_leaves((node.args, node.kwargs)) if isinstance(item, float))
    read = (item.name in beyond for item in node.all_input_nodes)
    return any(limit < number < math.inf for number in numbers) or any(read)


def _spread(run: RunGraph, readers: set[str], large: set[str]) -> set[str]:
    """Return the readers, and what reads a kept value that is too large, in the order of the graph."""
    kept: set[str] = set()
    for graph in reversed(list(run.with_bodies())):  # what a body gives is large in the graph around it
        for node in graph.graph.nodes:
            if node.op != "call_function":
                continue
            several = node.target is operator.getitem  # one result of several, which have no size together
            given = (item.name in kept and (several or item.name in large) for item in node.all_input_nodes)
            bodies: list[RunGraph] = getattr(node.target, "run_graphs", [])
            if node.name in readers or any(given) or any(name in kept for it in bodies for name in it.result_names):
                kept.add(node.name)
    return kept


def first_beyond(run: RunGraph, evaluators: Callable[[Collection[str]], tuple[Evaluator, Evaluator]]) -> str:
    """Return which value low precision cannot hold first, and why: ``pow_1 overflows (9.2e+05 in FP32, beyond 65504)``.

    Where it is infinite or NaN within the range of the format, what it reads there is said: ``log is -inf at [0, 3]
    (-23 in FP32), where it reads add: 0 (1e-10 in FP32)``. ``evaluators(names)`` gives one in FP32 and one in the
    precision that keep these values.
    """
    high, low = evaluators([node.name for node in run.graph.nodes if node.name in run.floats])
    for node, expected, found in _in_both(run, high, low):
        trouble = _trouble(found, expected)
        if trouble and isinstance(trouble, str):
            return Sentence("value_trouble", name=node.name, trouble=trouble)
        if trouble:
            read = [item.name for item in node.all_input_nodes if item.name in run.floats]
            value = Sentence("value_at", at=_at(found, trouble), index=list(trouble), at_2=_at(expected, trouble))
            return Sentence(
                "value_is",
                name=node.name,
                value=value,
                lost_before=_lost_before(*evaluators(read), read, trouble, expected.shape),
            )
    return ""


def held_wide(run: RunGraph, high: Evaluator, low: Evaluator) -> frozenset[str]:
    """Return the nodes that low precision cannot hold, each computed from what FP32 gives for those before it.

    What FP32 gives is read as far as the format holds it: what reads a value beyond the range is one of them too, until
    values fit again.
    """
    kept = set()
    for node, expected, found in _in_both(run, high, low):
        if _trouble(found, expected):
            kept.add(node.name)
            end = torch.finfo(found.dtype).max if found.is_floating_point() else math.inf
            low.observe(node.name, expected.clamp(-end, end))
    return frozenset(kept)


def _in_both(run: RunGraph, high: Evaluator, low: Evaluator) -> Iterator[tuple[Node, torch.Tensor, torch.Tensor]]:
    """Yield the nodes of floats in the order of the graph, each with its value in both where these can be compared."""
    for node in run.graph.nodes:
        if node.name not in run.floats:
            continue
        expected, found = high.value(node.name), low.value(node.name)
        if expected is not None and found is not None and expected.shape == found.shape and expected.numel():
            yield node, expected, found
        high.done(node.name)
        low.done(node.name)


def _at(tensor: torch.Tensor, place: tuple[int, ...]) -> float:
    return float(tensor[place])


def _lost_before(
    high: Evaluator, low: Evaluator, names: Iterable[str], place: tuple[int, ...], shape: torch.Size
) -> str:
    """Return which of the values read at a place is 0 in low precision alone."""
    for name in names:
        expected, found = high.value(name), low.value(name)
        if expected is not None and found is not None and expected.shape == found.shape == shape:
            lost = _at(expected, place)
            if lost and not _at(found, place):
                return Sentence("where_it_reads", name=name, lost=lost)
    return ""


def _trouble(low: torch.Tensor, expected: torch.Tensor) -> str | tuple[int, ...]:
    """Return what low precision does to a value: the first place of an infinity within its range, else words."""
    found, end = low.float(), torch.finfo(low.dtype).max if low.is_floating_point() else math.inf
    finite = expected.isfinite()
    lost = finite & ~found.isfinite()
    if bool(lost.any()):
        largest = expected[finite].abs().max().item()
        if largest > end:
            return Sentence("overflows", largest=largest, end=end)
        return tuple(lost.nonzero()[0].tolist()) or Sentence("is_not_finite")
    nonzero = finite & (expected != 0)
    if bool(nonzero.any()) and int((nonzero & (found == 0)).sum()) * 2 > int(nonzero.sum()):
        return Sentence("underflows", item=expected[nonzero].abs().max().item())
    error = relative_l2(found[finite], expected[finite])
    return Sentence("loses", error=error) if error > UNUSABLE else ""


_STEPS_BACK = 8
"""Nodes from an output of zeros back to the difference that it is: reshapes and the like between them."""


def terms_of(run: RunGraph, output: str, evaluator: Callable[[Collection[str]], Evaluator]) -> float:
    """Return the largest magnitude of what an output of zeros is computed from: of the terms that cancel in it.

    What reads zeros alone is passed over. ``evaluator(names)`` gives one that keeps these values.
    """
    nodes = {node.name: node for node in run.graph.nodes}
    near = [nodes[run.outputs[output]]]
    for _ in range(_STEPS_BACK):
        near += [item for node in near for item in node.all_input_nodes if item not in near]
    values = evaluator([node.name for node in near])
    node = near[0]
    for _ in range(_STEPS_BACK):
        read = [(item, values.value(item.name)) for item in node.all_input_nodes]
        sizes = [(largest_finite(it), item) for item, it in read if it is not None and it.is_floating_point()]
        if not sizes or max(size for size, _ in sizes) > 0:
            return max((size for size, _ in sizes), default=0.0)
        node = sizes[0][1]
    return 0.0
