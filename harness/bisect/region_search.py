"""Where in the graph an engine's fault is: the smallest part that shows it when it is built alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from harness.bisect.candidates import suspects_in
from harness.bisect.context import Context
from harness.bisect.questions import computes_in_tf32, is_only_tf32
from harness.bisect.regions import RegionFound, Regions
from harness.graph import is_fp32, load_plan
from harness.records import LayerReport, Result, is_nonfinite
from harness.subject import Target

_MOST_SUSPECTS = 3


def search_region(context: Context, target: Target, result: Result, report: LayerReport | None) -> RegionFound:
    """Return the smallest part of the graph that shows the fault of a wrong engine.

    ``result`` is the verdict on the whole engine, ``report`` its values, where they could be observed. The values that
    the report blames are tried first, then halves of the graph. For an engine that gives NaN only while no values are
    observed, the report blames another fault: half of the budget goes to parts that give NaN, before what it blames.
    """
    plan = load_plan(target.precision)
    larger_than_tf32 = is_fp32(plan) and not is_only_tf32(target, result.outputs)

    def shows_fault(found: Result) -> bool:
        return found.verdict == "fail" and not (larger_than_tf32 and computes_in_tf32(target, found.outputs))

    def among(shows: Callable[[Result], bool]) -> Regions:
        return Regions(
            context.run, context.request.case, target, folder=context.request.folder / "regions", shows=shows,
            budget=context.budget,
        )  # fmt: skip

    regions = among(shows_fault)
    blamed = partial(_around_suspects, regions, report)
    if report is not None and not report.trusted and is_nonfinite(result):
        attempts = [partial(_by_halving, context, target, among(is_nonfinite), share=2), blamed]
    else:
        attempts = [blamed, partial(_by_halving, context, target, regions, share=1)]
    return _first_found(attempts)


def _first_found(attempts: Sequence[Callable[[], RegionFound]]) -> RegionFound:
    """Return what the first attempt found that found anything."""
    complete = True
    for attempt in attempts:
        found = attempt()
        complete &= found.complete
        if found.region is not None or found.interrupted:
            break
    return RegionFound(region=found.region, complete=complete, interrupted=found.interrupted)


def _around_suspects(regions: Regions, report: LayerReport | None) -> RegionFound:
    if report is None:
        return RegionFound()
    known = {value.name for value in report.values if value.status == "compared"}
    names = [value.name for value in suspects_in(report) if value.name in regions.order]
    return regions.around_suspects(names[:_MOST_SUSPECTS], known)


def _by_halving(context: Context, target: Target, regions: Regions, *, share: int) -> RegionFound:
    context.request.say(target, "looking for the smallest part of the graph that fails on its own")
    return regions.by_halving(max(1, context.budget.left // share))
