"""The words of a bisection: its finding in one sentence, the advice, and the commands to run next."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence

from harness.backends import BACKENDS
from harness.bisect.context import Context
from harness.bisect.export_check import ExportCheck
from harness.bisect.findings import Findings, shortened
from harness.compare import ratio
from harness.graph import Plan, is_fp32
from harness.records import Advice, Culprit, Diagnosis
from harness.sentences import Sentence, joined

MOST_CULPRITS = 3
"""Culprits that the finding names; the record has all."""
OF_CODES = (
    "of a quantised engine the codes say where it goes wrong: each quantiser is held against the exact codes of the "
    "engine's own inputs, so the first that is wrong in the table of `parity verify --layers` has its fault between it "
    "and the quantisers before it; no plan is searched, since no plan types what is between Q and DQ"
)
MOST_OPERATORS = 3
"""Operators that advice is given on, those with the most wrong values."""


def precision_finding(plan: Plan, region: Sequence[str], *, few: bool = True, cause: str = "") -> str:
    """Return the finding where PyTorch in the same precision is as wrong.

    ``few`` says that some values stand out, ``cause`` what the precision cannot hold.
    """
    precision = plan.computes_in
    why = Sentence("since", cause=cause) if cause else ""
    if not region:
        return Sentence("precision_none_right", precision=precision, why=why)
    if not few:
        return Sentence("precision_all_alike", precision=precision, why=why)
    return Sentence("precision_region", precision=precision, why=why, region=shortened(region))


def engine_finding(found: Findings) -> str:
    """Return the finding where PyTorch is right and the engine is not: the culprits first."""
    backend = found.target.backend
    culprits = found.diagnosis.culprits if found.diagnosis is not None else ()
    where = Sentence("before", text=_places(culprits)) if culprits else ""
    if found.only_tf32:
        return Sentence("engine_tf32", where=where, backend=backend)
    why = Sentence("kernels_overlap") if found.races else ""
    where = where or (Sentence("before", text=_within(found)) if found.part is not None else "")
    unknown = "" if where or found.interrupted else Sentence("not_narrowed")
    return Sentence(
        "engine_wrong", where=where, computes_in=found.base_plan.computes_in, backend=backend, why=why, unknown=unknown
    )


def _within(found: Findings) -> str:
    """Return the smallest part so far, where it is not known which of its values is wrong."""
    names = found.region
    return Sentence("wrong_within", count=len(names), names=names[0], names_2=names[-1])


def export_finding(diagnosis: Diagnosis) -> str:
    """Return the finding where the export is at fault."""
    return Sentence("export_differs", places=_places(diagnosis.culprits))


def _places(culprits: Sequence[Culprit]) -> str:
    """Return the first culprits by name and place; their figures are in the record, and in the first lines of it."""
    more = Sentence("and_more_places", count=len(culprits) - MOST_CULPRITS) if len(culprits) > MOST_CULPRITS else ""
    return joined(map(described, culprits[:MOST_CULPRITS])) + more


def undecided(check: ExportCheck) -> str:
    """Return why neither the export nor the engine can be blamed."""
    value = check.undecided[0]
    return Sentence("undecided", name=value.name, op=value.op)


def described(culprit: Culprit) -> str:
    """Return a culprit with its operator, module and source: ``gelu_1, aten.gelu in layers.1 (net.py:7)``."""
    where = Sentence("in_module", module=culprit.module) if culprit.module else ""
    source = Sentence("source_at", source=culprit.source) if culprit.source else ""
    folded = Sentence("or_in_folded", folded=shortened(culprit.folded)) if culprit.folded else ""
    return Sentence("culprit_place", value=culprit.value, op=culprit.op, where=where, source=source, folded=folded)


def advice_on(found: Findings) -> tuple[Advice, ...]:
    """Return what the findings mean and what to do about them; a plan that failed is never advised."""
    advice = [_RACE] if found.races or found.fp32_races else []
    precision = found.base_plan.computes_in
    if found.export is not None:
        advice.append(_on_export(found.export))
    if found.kind == "precision" and found.region:
        advice.append(_on_precision(found, precision))
    elif found.screened is not None and not found.screened.interrupted:
        advice.append(_NOTHING_RIGHT)
    elif found.only_tf32:
        advice.append(_on_tf32(found))
    elif found.kind == "engine" and found.candidates is not None:
        advice += [_on_engine(found, precision), *_on_operators(found)]
    if found.plans is not None and found.plan is None and found.complete:
        action = Sentence("use_fp32", backend=found.target.backend)
        meaning = Sentence("fp32_avoids_not")
        advice.append(Advice(indicator=Sentence("no_plan_passed"), meaning=meaning, action=action))
    return tuple(advice)


def commands_for(context: Context, found: Findings) -> tuple[str, ...]:
    """Return the commands to run next, the most useful first; what was done already is not among them."""
    commands = []
    if found.only_tf32:
        commands.append(context.command("verify", "tf32"))
    if found.plan is not None and context.plan_file is not None:
        commands.append(context.command("verify", str(context.plan_file)))
    if found.reproducer:
        commands.append(shlex.join(["python", f"{found.reproducer}/reproduce.py"]))
    if found.kind == "precision" and BACKENDS[found.target.backend].tap_modes:  # no engine was looked into
        commands.append(f"{context.command('verify', found.target.precision)} --layers")
    return tuple(commands)


_RACE = Advice(
    indicator=Sentence("race_seen"),
    meaning=Sentence("race_means"),
    action=Sentence("race_action"),
)
_NOTHING_RIGHT = Advice(
    indicator=Sentence("fp32_wrong"),
    meaning=Sentence("limit_below_fp32"),
    action=Sentence("larger_limit"),
)
_ROUNDING = ("tf32_rounding", "fp16_rounding", "bf16_rounding")
"""Shapes of an error that a kernel makes by being less exact, and by nothing else."""


def _on_export(diagnosis: Diagnosis) -> Advice:
    names = [culprit.value for culprit in diagnosis.culprits]
    return Advice(
        indicator=Sentence("export_seen", names=shortened(names)),
        meaning=Sentence("export_means", op=diagnosis.culprits[0].op),
        action=Sentence("export_action"),
    )


def _on_precision(found: Findings, precision: str) -> Advice:
    return Advice(
        indicator=Sentence("precision_seen", precision=precision),
        meaning=Sentence("precision_means", precision=precision),
        action=Sentence("use_the_plan")
        if found.plan is not None
        else Sentence("keep_region", region=shortened(found.region)),
    )


def _on_tf32(found: Findings) -> Advice:
    backend = found.target.backend
    report = Sentence("then", text=Sentence("report_it", backend=backend)) if found.reproducer else ""
    return Advice(
        indicator=Sentence("tf32_seen"),
        meaning=Sentence("tf32_means", backend=backend),
        action=Sentence("tf32_action", report=report),
    )


def _on_engine(found: Findings, precision: str) -> Advice:
    backend = found.target.backend
    actions = [Sentence("use_the_plan")] if found.plan is not None else []
    actions += [Sentence("report_it", backend=backend)] if found.reproducer else []
    return Advice(
        indicator=Sentence("engine_seen", precision=precision),
        meaning=Sentence("engine_means", backend=backend),
        action=joined(actions, ", and ") or Sentence("another_version", backend=backend),
    )


def _on_operators(found: Findings) -> list[Advice]:
    """Return advice on the operators that make most values wrong."""
    operators: dict[str, list[Culprit]] = {}
    for culprit in found.diagnosis.culprits if found.diagnosis is not None else ():
        if culprit.made_by == "engine":
            operators.setdefault(culprit.op, []).append(culprit)
    advice = []
    for op, culprits in sorted(operators.items(), key=lambda entry: -len(entry[1]))[:MOST_OPERATORS]:
        worst = max(culprits, key=_times)
        advice.append(
            Advice(
                indicator=Sentence(
                    "operator_seen", op=op, count=len(culprits), figures=_figures(worst, found.base_plan.computes_in)
                ),
                meaning=_meaning(worst, found),
                action=_keep(found, worst, len(culprits)),
            )
        )
    return advice


def _times(culprit: Culprit) -> float:
    """Return how many times what PyTorch loses a culprit is wrong by; infinite where it is not finite."""
    return math.inf if culprit.error is None else ratio(culprit.error, culprit.floor or 0.0)


def _figures(culprit: Culprit, precision: str) -> str:
    if culprit.error is None:
        return Sentence("culprit_reason", value=culprit.value, reason=culprit.reason or Sentence("no_figure"))
    own = Sentence("own_error_there", precision=precision, floor=culprit.floor) if culprit.floor is not None else ""
    return Sentence("value_by", value=culprit.value, error=culprit.error, own=own)


def _meaning(culprit: Culprit, found: Findings) -> str:
    """Return what the shape of an error says; without one, how large it is."""
    kind = culprit.looks_like.kind if culprit.looks_like is not None else "unknown"
    kernels, precision = Sentence("kernels_for_it", backend=found.target.backend), found.base_plan.computes_in
    if kind in _ROUNDING:
        return Sentence("less_exact", kernels=kernels, precision=precision)
    if kind == "non_finite":
        return Sentence("kernels_nonfinite", kernels=kernels, precision=precision)
    if kind == "unknown":
        times = _times(culprit)
        return Sentence("kernels_wrong", kernels=kernels) + (
            Sentence("by_times", times=times, precision=precision) if math.isfinite(times) else ""
        )
    return Sentence("kernels_compute_else", kernels=kernels)


def _keep(found: Findings, worst: Culprit, count: int) -> str:
    """Return what a plan can do about an operator that makes ``count`` values wrong."""
    if is_fp32(found.base_plan):
        return Sentence("no_plan_helps")
    if found.base_plan.tf32:
        return Sentence("ask_fp32")
    every, worst_alone = f"op:{worst.op}", f"value:{worst.value}"
    smallest = every if count > 1 else worst_alone
    if found.plan is not None:
        return Sentence("keep_pattern", every=every) if every in found.plan else Sentence("nothing_beyond_plan")
    failed = {pattern for trial in found.trials if trial.passed is False for pattern in trial.keep_fp32}
    if tried := failed & {every, smallest}:
        return Sentence("tried_not_enough", tried=min(tried))
    return Sentence("keep_pattern", every=smallest)
