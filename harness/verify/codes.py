"""The verdict on a quantised engine: its codes, its outputs given these codes, and how far right engines are apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch

from harness import limits
from harness.compare import bitwise_equal, compare
from harness.errors import EngineRefused, NotJudged
from harness.graph import Plan
from harness.quantised import ARITHMETIC, DIVIDES, RUNS, Gains, Quantised, judge_codes, last_results, quantisers, spread
from harness.records import CodesResult, ErrorStats, OutputResult, QuantiserResult, Verdict
from harness.sentences import Sentence
from harness.tensors import Tensors, like
from harness.verify.judging import compare_outputs, judge_outputs, judge_tensors, tolerance_for
from harness.verify.parts import FACTOR
from harness.verify.quantised import quantised_case
from harness.verify.settling import settle
from harness.verify.target import OpenTarget


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What an engine gave whose codes are outputs as well."""

    codes: Tensors
    """By the name of their Q."""
    outputs: Tensors
    inside: Tensors
    """Results that no code comes after, by name."""
    unseen: Mapping[str, str]
    """Why other quantisers cannot be seen."""


def judge_quantised(
    opened: OpenTarget, case: str, actual: Tensors, plan: Plan
) -> tuple[tuple[OutputResult, ...], CodesResult]:
    """Return the verdict on the outputs and on the codes of a quantised engine.

    Outputs are held against the exact graph with the engine's own codes in it, which leaves no flip to excuse, and
    against the flip floor: what rounding alone does to them by way of the codes.
    """
    prepared = opened.run.prepared
    backend = ARITHMETIC.get(opened.backend.name, DIVIDES)
    counted = partial(prepared.valid.counted, case)
    graph_case = quantised_case(prepared.graph, prepared.inputs[case], plan, backend)
    seen = _see(opened, case, actual)
    opened.say(f"holding the codes of {len(seen.codes)} quantisers against exact ones", case)
    with limits.step("judging codes"):
        own_exact = graph_case.run(seen.codes, also=seen.inside) if seen.outputs else {}
        gains = Gains(counted(own_exact))
        found = judge_codes(graph_case, seen.codes, seen.unseen, gains=gains, also=tuple(seen.inside))
        exact = counted(_declared(graph_case.run(), actual))
        moved = [counted(_declared(outputs, actual)) for outputs in spread(graph_case)]
    same = all(bitwise_equal(seen.outputs[name], tensor) for name, tensor in actual.items()) if seen.outputs else False
    own = (
        _with_own_codes(opened, case, plan, graph_case, seen, own_exact, gains)
        if seen.outputs and not seen.unseen
        else {}
    )
    verdict, reason = _of_all(found)
    actual = counted(actual)
    tolerances = {name: tolerance_for(name, opened.run.limit, opened.run.subject.tolerances, plan) for name in actual}
    outputs = []
    for name, tensor in actual.items():
        if not (tensor.is_floating_point() and tensor.numel()) or tolerances[name] is not None:
            floor = moved[0] if tolerances[name] is None else _farthest(name, moved, exact)
            outputs += [own[name]] if name in own and tolerances[name] is None else _as_others(
                opened, case, plan, {name: tensor}, {name: exact[name]}, {name: floor[name]}
            )  # fmt: skip
            continue
        excused = same and verdict == "pass" and name in own and own[name].verdict == "pass"
        outputs.append(_of_output(name, tensor, exact[name], [it[name] for it in moved], own.get(name), excused))
    codes = CodesResult(
        verdict=verdict, reason=reason, quantisers=found, same_bits=same, reciprocal=backend.reciprocal, runs=RUNS,
        decides=not all(tolerances.values()),
    )  # fmt: skip
    return tuple(outputs), codes


def _declared(outputs: Tensors, actual: Tensors) -> Tensors:
    """Return outputs in their order, integers in the dtypes that an engine gives."""
    return {
        name: outputs[name] if tensor.is_floating_point() else outputs[name].to(tensor.dtype)
        for name, tensor in actual.items()
    }


def _see(opened: OpenTarget, case: str, actual: Tensors) -> Seen:
    """Run an engine of which the codes are outputs as well."""
    if case in opened.seen:
        known: Seen = opened.seen[case]
        return known
    run_graph = opened.run.prepared.graph.run_graph
    names, inside = quantisers(run_graph), last_results(run_graph)
    try:
        with opened.observed(marked=[*names, *inside]) as session:
            made = opened.steps.run("running", lambda: session.run(opened.inputs(case)))
            made = {name: tensor.to(opened.run.prepared.graph.device) for name, tensor in made.items()}
    except (EngineRefused, NotJudged) as error:
        limits.check(met=True)
        opened.seen[case] = Seen(codes={}, outputs={}, inside={}, unseen=dict.fromkeys(names, str(error)))
    else:
        codes = {name: made[name].clone() for name in names}
        outputs = like(actual, {name: made[name].clone() for name in actual})
        values = {name: made[name].clone() for name in inside}
        opened.seen[case] = Seen(codes=codes, outputs=outputs, inside=values, unseen={})
    seen: Seen = opened.seen[case]
    return seen


def _with_own_codes(
    opened: OpenTarget, case: str, plan: Plan, graph_case: Quantised, seen: Seen, exact: Tensors, gains: Gains
) -> dict[str, OutputResult]:
    """Return the verdict on every output of the engine in which codes are seen, given its own codes.

    What no code comes after is judged as an output is, and both by their gains: an output that comes from what is wrong
    is wrong.
    """
    counted = partial(opened.run.prepared.valid.counted, case)
    moved = graph_case.moved(seen.codes, also=seen.inside)
    expected, floor = (counted(_declared(it, seen.outputs)) for it in (exact, moved))
    found = _as_others(opened, case, plan, counted(seen.outputs), expected, floor)
    wrong = {name: gains.wrong(name, tensor) for name, tensor in {**seen.outputs, **seen.inside}.items()}
    for name, tensor in seen.inside.items():
        judged = judge_tensors(name, tensor, exact[name], moved[name], precision=plan.computes_in)
        wrong[name] = wrong[name] or (judged.reason if judged.verdict == "fail" else "")
    for name, outputs in last_results(graph_case.graph).items():
        for output in outputs if wrong.get(name) else ():
            wrong[output] = wrong[output] or Sentence("comes_from_wrong", name=name, reason=wrong[name])
    return {
        it.name: replace(it, verdict="fail", reason=wrong[it.name]) if it.verdict == "pass" and wrong[it.name] else it
        for it in found
    }


def _as_others(
    opened: OpenTarget, case: str, plan: Plan, actual: Tensors, expected: Tensors, floor: Tensors
) -> list[OutputResult]:
    """Return the verdict on outputs as on those of any engine."""
    settled = settle(opened.run.prepared, case, plan, actual, expected, floor)
    compared = compare_outputs(
        actual, settled.expected, settled.floor, precision=plan.computes_in, decisions=settled.decisions
    )
    return list(judge_outputs(opened, case, compared, plan))


def _farthest(name: str, moved: list[Tensors], exact: Tensors) -> Tensors:
    return max(moved, key=lambda outputs: compare(outputs[name], exact[name]).relative_l2)


def _of_output(
    name: str, actual: torch.Tensor, exact: torch.Tensor, moved: list[torch.Tensor], own: OutputResult | None,
    excused: bool,
) -> OutputResult:  # fmt: skip
    """Return the verdict on one output of floats by the flip floor, and by its own codes where they are seen."""
    stats = compare(actual, exact, name=name)
    floors = [compare(tensor, exact) for tensor in moved]
    floor = max(floors, key=lambda it: it.relative_l2)
    limit = {
        "relative_l2": FACTOR * floor.relative_l2, "max_absolute": FACTOR * max(it.absolute["max"] for it in floors),
    }  # fmt: skip
    beyond = not (stats.relative_l2 <= limit["relative_l2"] and stats.absolute["max"] <= limit["max_absolute"])
    flips = Sentence("flip_floor", relative_l2=floor.relative_l2, count=len(moved), relative_l2_2=limit["relative_l2"])
    text = Sentence("error_flips", relative_l2=stats.relative_l2, flips=flips)
    if own is not None and own.verdict != "pass":
        words = Sentence("own_codes_against", reason=own.reason, text=text)
        return replace(own, stats=own.stats or stats, reason=words)
    if bad := _not_finite(stats):
        return OutputResult(name=name, verdict=bad[0], reason=bad[1], stats=stats, floor=floor)
    if beyond and not excused:
        return OutputResult(name=name, verdict="fail", reason=text, stats=stats, floor=floor, allowed=limit)
    if own is not None and own.stats is not None:
        text += Sentence("own_codes", relative_l2=own.stats.relative_l2)
    text += Sentence("flips_explained") if beyond else ""
    limit = {} if beyond else limit
    return OutputResult(name=name, verdict="pass", reason=text, stats=stats, floor=floor, allowed=limit)


def _not_finite(stats: ErrorStats) -> tuple[Verdict, str] | None:
    if stats.nan_expected:
        return "not_judged", Sentence("exact_graph_nan", nan_expected=stats.nan_expected)
    if stats.mismatched_nonfinite:
        return "fail", Sentence(
            "elements_finite_one_side", mismatched_nonfinite=stats.mismatched_nonfinite, elements=stats.elements
        )
    if stats.zero_expected and stats.zero_actual:
        return (
            "not_judged",
            Sentence("zeros_prove_nothing_codes"),
        )
    return None


def _of_all(found: tuple[QuantiserResult, ...]) -> tuple[Verdict, str]:
    """Return the verdict on all quantisers, and the first that is wrong or the counts of all."""
    wrong = [one for one in found if one.verdict == "fail"]
    if wrong:
        more = Sentence("quantisers_wrong", count=len(wrong), count_2=len(found)) if len(wrong) > 1 else ""
        return "fail", Sentence("codes_of", name=wrong[0].name, reason=wrong[0].reason, more=more)
    judged = [one for one in found if one.verdict == "pass"]
    if not judged:
        return "not_judged", Sentence("no_code_seen", reason=found[0].reason)
    elements, one_apart = sum(one.elements for one in judged), sum(one.one_apart for one in judged)
    expected = sum(one.explained for one in judged)
    words = Sentence("codes_one_apart", one_apart=one_apart, elements=elements, count=len(judged))
    unseen = Sentence("quantisers_unseen", count=len(found) - len(judged)) if len(judged) < len(found) else ""
    return "pass", Sentence("none_two_apart", words=words, expected=expected, unseen=unseen)
