"""The culprits of a wrong engine: those that a look named, and those that parts of the graph showed alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from harness.bisect.places import Place, Places
from harness.bisect.regions import COVER, Region
from harness.bisect.screening import Screened
from harness.compare import error_shape
from harness.graph import Values, load_plan
from harness.records import HARMLESS, Culprit, Diagnosis, ErrorStats, LayerReport
from harness.sentences import Sentence, joined
from harness.tensors import largest_finite


def look_at(report: LayerReport | None) -> Diagnosis:
    """Return what a look concluded; of one that hid the fault only that, and nothing where there was none."""
    look = report.diagnosis if report is not None else None
    if look is None:
        return Diagnosis()
    return Diagnosis(compared=look.compared, observed="hidden") if look.observed == "hidden" else look


def harmless_in(report: LayerReport | None) -> frozenset[str]:
    """Return the values of which a look saw that their error dies out before the outputs."""
    return frozenset(value.name for value in report.values if value.mark == HARMLESS) if report else frozenset()


def diagnosis_of_engine(
    look: Diagnosis,
    places: Places,
    exported: Diagnosis | None,
    values: Values,
    *,
    harmless: frozenset[str] = frozenset(),
) -> Diagnosis:
    """Return every culprit of a wrong engine, each with the operations of the part that shows it alone.

    A part may show an error that is ``harmless`` in the whole: that is no culprit. What the export gets wrong comes
    last, and is the engine's only where the engine computes a part of the exported graph wrongly.
    """
    by_name = {place.culprit: place for place in places.found if place.culprit}
    culprits = [_with_place(culprit, by_name.get(culprit.value), values) for culprit in look.culprits]
    known = {culprit.value for culprit in look.culprits}
    unnamed = [place for place in places.found if place.culprit not in known]
    shown = [of_region(it.region, values) for it in unnamed if it.smallest or len(it.region.names) == 1]
    alone = {culprit.value: culprit.alone for culprit in shown}
    culprits = [replace(it, alone=it.alone or alone.get(it.value)) for it in culprits]
    culprits += [culprit for culprit in shown if culprit.value not in harmless | known]
    others = {culprit.value: culprit for culprit in exported.culprits} if exported is not None else {}
    engines = [it for it in culprits if it.value not in others or it.alone is not None]
    return replace(
        look,
        culprits=tuple(dict.fromkeys([*engines, *others.values()])),
        complete=look.complete or places.rest_right is True,
    )


def diagnosis_of_precision(screened: Screened, values: Values, cause: str) -> Diagnosis:
    """Return the values that must stay in FP32, where PyTorch loses as much as the engine.

    ``cause`` begins with the value that the precision cannot hold first, and says why: it comes first, then those that
    cost most. Where all values lose alike, none is a culprit.
    """
    first, _, why = cause.partition(" ")
    values = {value.origin: value for value in values.values()} | {**values}
    places = {name: place for place, name in enumerate(values)}

    def rank(name: str) -> tuple[bool, float, int]:
        return name != first, -round(screened.shares[name] or 0.0, 2), places[name]

    ordered = sorted(screened.shares, key=rank) if screened.few else []
    return Diagnosis(
        culprits=tuple(
            Culprit(
                value=name, op=values[name].op, module=values[name].module, source=values[name].source,
                made_by="precision", explains=screened.shares[name], reason=why if name == first else "",
            )
            for name in ordered
        ),
        left=screened.left,
        complete=screened.few and bool(ordered),
    )  # fmt: skip


def of_region(region: Region, values: Values) -> Culprit:
    """Return the culprit that a part shows: the first of its outputs that is wrong."""
    cover = COVER if region.covered else ""
    places = {f"{name}{cover}": place for place, name in enumerate(region.names)}
    wrong = [it for it in region.result.outputs if it.verdict == "fail" and it.name in places]
    first = min(wrong, key=lambda output: places[output.name], default=None)
    value = values[first.name.removesuffix(cover) if first is not None else region.names[-1]]
    culprit = Culprit(value=value.name, op=value.op, module=value.module, source=value.source, alone=len(region.names))
    if first is None or first.stats is None or region.outcome.repeats is None or region.outcome.expected is None:
        return culprit
    actual, expected = region.outcome.repeats.worst[first.name], region.outcome.expected[first.name]
    actual, expected = (-actual, -expected) if region.covered else (actual, expected)
    another = region.outcome.repeats.another
    runs = () if another is None else (-another[first.name] if region.covered else another[first.name],)
    precision = load_plan(region.precision).computes_in
    finite = not first.stats.mismatched_nonfinite
    return replace(
        culprit,
        error=first.stats.relative_l2 if finite else None,
        floor=first.floor.relative_l2 if first.floor is not None else None,
        looks_like=error_shape(actual, expected, precision=precision, runs=runs),
        reason="" if finite else _not_finite(first.stats, largest_finite(expected), region.precision),
    )


def _not_finite(stats: ErrorStats, largest: float, precision: str) -> str:
    """Return how large a value that is not finite should have become, or how much of it is not."""
    plan = load_plan(precision)
    end = torch.finfo(getattr(torch, plan.compute_dtype)).max
    where = Sentence("first_at", first_nonfinite=list(stats.first_nonfinite)) if stats.first_nonfinite else ""
    if largest > end:
        return Sentence("reached_format_end", largest=largest, computes_in=plan.computes_in, end=end, where=where)
    return Sentence(
        "elements_not_finite", mismatched_nonfinite=stats.mismatched_nonfinite, elements=stats.elements, where=where
    )


def _with_place(culprit: Culprit, place: Place | None, values: Values) -> Culprit:
    if place is None:
        return culprit
    if not place.instead:
        return replace(culprit, alone=len(place.region.names))
    shown = of_region(place.region, values)
    inside = Sentence("seen_in_value", value=culprit.value)
    return replace(
        culprit, value=shown.value, op=shown.op, module=shown.module, source=shown.source, folded=shown.folded,
        alone=shown.alone,
        reason=joined((culprit.reason, inside)),
    )  # fmt: skip
