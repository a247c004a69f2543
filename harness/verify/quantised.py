"""A quantised graph on the inputs of a case, as a plan types it and a backend computes it."""

from __future__ import annotations

from harness.compare import UNIT_ROUNDOFF, compare
from harness.graph import PRECISIONS, Plan, load_plan
from harness.quantised import DIVIDES, Arithmetic, Quantised, spread
from harness.tensors import Tensors
from harness.verify.parts import FACTOR
from harness.verify.subject_graph import SubjectGraph, value_dtypes


def quantised_case(graph: SubjectGraph, inputs: Tensors, plan: Plan, backend: Arithmetic = DIVIDES) -> Quantised:
    """Return a quantised graph on these inputs, rounded as a plan types it."""
    own = UNIT_ROUNDOFF[plan.computes_in]
    typed = value_dtypes(graph, plan)
    roundoffs = {name: UNIT_ROUNDOFF[PRECISIONS[dtype]] for name, dtype in typed.items()}
    names = {node.name for node in graph.run_graph.graph.nodes}
    whole = {} if plan.as_file else dict.fromkeys(names - set(roundoffs) - graph.run_graph.exact, own)
    return Quantised(
        graph=graph.run_graph, inputs=inputs, roundoffs={**whole, **roundoffs}, backend=backend,
        accumulator=UNIT_ROUNDOFF["tf32" if plan.tf32 else "fp32"],
        scaling=own if plan.as_file else UNIT_ROUNDOFF["fp32"],
        options={"device": graph.device, "weights": graph.weights},
    )  # fmt: skip


def flips_explain(graph: SubjectGraph, inputs: Tensors, one: Tensors, other: Tensors) -> bool:
    """Return whether two computations of a quantised graph are no farther apart than rounding by way of codes takes."""
    case = quantised_case(graph, inputs, load_plan("fp32"))
    exact = case.run()
    moved = spread(case)
    for name, tensor in one.items():
        if not tensor.is_floating_point():
            continue
        apart = compare(other[name], tensor).relative_l2
        if not apart <= FACTOR * max(compare(it[name], exact[name]).relative_l2 for it in moved):
            return False
    return True
