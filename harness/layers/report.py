"""The report on an engine's values: all of them, the modules they belong to, and whether it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.layers.effects import output_error
from harness.layers.observation import Observation, Unobserved
from harness.layers.observer import local_ratio, worst_first
from harness.records import MARKS, Diagnosis, LayerReport, ModuleFinding, OutputEffect, ValueFinding
from harness.sentences import Sentence


def all_values(findings: Sequence[ValueFinding], observation: Observation) -> tuple[ValueFinding, ...]:
    """Return a finding for every value of the graph, in dataflow order, then the engine's extra tensors."""
    observer = observation.observer
    canonical = observer.evaluators.canonical
    seen = {finding.name for finding in findings}
    seen |= {canonical(name) for name in seen}
    unseen = []
    for name, value in observer.values.items():
        if name not in observer.depths or {name, canonical(name)} & seen:
            continue
        kernel = observation.computed_in.get(name, "")
        reason = Sentence("inside_a_kernel") if kernel else Sentence("not_delivered")
        if value.dtype and "float" not in value.dtype:
            reason = Sentence("joined_two", text=value.dtype, unknown=reason)
        unseen.append(
            ValueFinding(
                name=name, op=value.op, module=value.module, source=value.source, folded=value.folded,
                depth=observer.depths[name], status="not_delivered", reason=reason, kernel=kernel,
            )
        )  # fmt: skip
    return (*sorted([*findings, *unseen], key=lambda finding: finding.depth), *observer.extra_tensors)


def layer_report(
    before: Unobserved, *, mode: str, values: tuple[ValueFinding, ...], effects: tuple[OutputEffect, ...],
    notes: tuple[str, ...], diagnosis: Diagnosis | None,
) -> LayerReport:  # fmt: skip
    """Return the report on these values, with the modules they belong to and whether it can be trusted."""
    result, provenance = before.result, before.result.provenance
    first = next((v for v in values if v.mark == "nonfinite" and v.status == "compared"), None)
    trusted = not any(effect.observed in ("changed", "hidden") for effect in effects)
    return LayerReport(
        subject=result.subject, case=before.case, backend=result.backend, precision=result.precision,
        source=result.source, plan_source=result.plan_source, mode=mode,
        values=values, modules=tuple(_modules(values, output_error(result))), observer=effects, trusted=trusted,
        first_nonfinite=first.name if first else "", weights=provenance.weights if provenance else "",
        inputs=provenance.inputs if provenance else "", device=provenance.device if provenance else "",
        notes=(*result.notes, *notes, *_valid_note(before)), diagnosis=diagnosis,
    )  # fmt: skip


def _valid_note(before: Unobserved) -> tuple[str, ...]:
    """Return what is compared where not all elements of the outputs count."""
    if not before.opened.run.subject.valid:
        return ()
    return (Sentence("valid_inner_whole"),)


def _modules(values: Sequence[ValueFinding], output_error: float) -> list[ModuleFinding]:
    """Return one finding per module, worst first."""
    groups: dict[str, list[ValueFinding]] = {}
    for value in values:
        if value.status == "compared":
            groups.setdefault(value.module, []).append(value)
    modules = []
    for module, members in groups.items():
        worst, last = worst_first(members)[0], members[-1]
        effects = [v.effect for v in members if v.effect is not None and math.isfinite(v.effect)]
        share = sum(e * e for e in effects) / output_error**2 if effects and 0 < output_error < math.inf else None
        modules.append(
            ModuleFinding(
                module=module, values=len(members), worst=worst.name, op=worst.op, local=worst.local,
                local_floor=worst.local_floor, propagated=last.stats.relative_l2 if last.stats else None,
                floor=last.floor, share=share, mark=min((v.mark for v in members), key=MARKS.index),
            )
        )  # fmt: skip
    ratios = {value.name: local_ratio(value) for value in values}
    return sorted(modules, key=lambda module: (MARKS.index(module.mark), -ratios[module.worst]))
