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
    why = f": {cause}" if cause else ""
    if not region:
        return f"PyTorch {precision} is as wrong{why}; no set of values kept in FP32 makes it right"
    if not few:
        return f"PyTorch {precision} is as wrong{why}; no value is out of line: all of them lose alike"
    return f"PyTorch {precision} is as wrong{why}; with {shortened(region)} in FP32 it is right"


def engine_finding(found: Findings) -> str:
    """Return the finding where PyTorch is right and the engine is not: the culprits first."""
    backend = found.target.backend
    culprits = found.diagnosis.culprits if found.diagnosis is not None else ()
    where = f"{_places(culprits)}; " if culprits else ""
    if found.only_tf32:
        return f"{where}{backend} computes FP32 in TF32; its error has the size of TF32's"
    why = ", because its kernels overlap" if found.races else ""
    where = where or (f"{_within(found)}; " if found.part is not None else "")
    unknown = "" if where or found.interrupted else "; where it goes wrong could not be narrowed down"
    return f"{where}PyTorch in {found.base_plan.computes_in} is right and {backend} is not{why}{unknown}"


def _within(found: Findings) -> str:
    """Return the smallest part so far, where it is not known which of its values is wrong."""
    names = found.region
    return f"it goes wrong within {len(names)} operations, {names[0]} to {names[-1]}"


def export_finding(diagnosis: Diagnosis) -> str:
    """Return the finding where the export is at fault."""
    return f"the ONNX graph already differs from PyTorch in {_places(diagnosis.culprits)}"


def _places(culprits: Sequence[Culprit]) -> str:
    """Return the first culprits by name and place; their figures are in the record, and in the first lines of it."""
    more = f"; and {len(culprits) - MOST_CULPRITS} more" if len(culprits) > MOST_CULPRITS else ""
    return "; ".join(map(described, culprits[:MOST_CULPRITS])) + more


def undecided(check: ExportCheck) -> str:
    """Return why neither the export nor the engine can be blamed."""
    value = check.undecided[0]
    return (
        f"{value.name} ({value.op}) differs from PyTorch, and only ONNX Runtime computes what it became in the graph: "
        "whether the graph or the library is wrong cannot be told"
    )


def described(culprit: Culprit) -> str:
    """Return a culprit with its operator, module and source: ``gelu_1, aten.gelu in layers.1 (net.py:7)``."""
    where = f" in {culprit.module}" if culprit.module else ""
    source = f" ({culprit.source})" if culprit.source else ""
    folded = f", or in {shortened(culprit.folded)}, which was folded into it" if culprit.folded else ""
    return f"{culprit.value}, {culprit.op}{where}{source}{folded}"


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
        action = f"use FP32, or another version of {found.target.backend}"
        meaning = "keeping values in FP32 does not avoid the fault"
        advice.append(Advice(indicator="no plan passed", meaning=meaning, action=action))
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
    indicator="the outputs change when kernels run one at a time",
    meaning="kernels of the engine overlap that must not: one reads what another has not written yet",
    action="until that is repaired, run with CUDA_LAUNCH_BLOCKING=1",
)
_NOTHING_RIGHT = Advice(
    indicator="PyTorch is wrong even with everything in FP32",
    meaning="the limit is below the error of FP32 itself",
    action="give a larger --limit",
)
_ROUNDING = ("tf32_rounding", "fp16_rounding", "bf16_rounding")
"""Shapes of an error that a kernel makes by being less exact, and by nothing else."""
_REPORT = "report it to the developers of {backend} with the reproducer"


def _on_export(diagnosis: Diagnosis) -> Advice:
    names = [culprit.value for culprit in diagnosis.culprits]
    return Advice(
        indicator=f"the ONNX graph, computed exactly, differs from PyTorch in {shortened(names)}",
        meaning=f"{diagnosis.culprits[0].op} was translated to something else",
        action="rewrite that operation in the model, or use another version of PyTorch's exporter",
    )


def _on_precision(found: Findings, precision: str) -> Advice:
    return Advice(
        indicator=f"PyTorch {precision} fails as the engine does",
        meaning=f"{precision} itself cannot represent these values well enough; the engine is not at fault",
        action="use the plan" if found.plan is not None else f"keep {shortened(found.region)} in FP32",
    )


def _on_tf32(found: Findings) -> Advice:
    backend = found.target.backend
    report = f"; {_REPORT.format(backend=backend)}" if found.reproducer else ""
    return Advice(
        indicator="the error has the size of TF32's",
        meaning=f"{backend} rounds the factors of FP32 products to 11 bits here; the model is not at fault",
        action=f"use -p tf32, or use another backend where FP32 matters{report}",
    )


def _on_engine(found: Findings, precision: str) -> Advice:
    backend = found.target.backend
    actions = ["use the plan"] if found.plan is not None else []
    actions += [_REPORT.format(backend=backend)] if found.reproducer else []
    return Advice(
        indicator=f"PyTorch {precision} is right, the engine is not",
        meaning=f"a kernel of {backend} is at fault, not the model and not the format",
        action=", and ".join(actions) or f"use another version of {backend}",
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
        several = f"{len(culprits)} value{'s' * (len(culprits) > 1)}"
        advice.append(
            Advice(
                indicator=f"{op} makes {several} wrong: {_figures(worst, found.base_plan.computes_in)}",
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
        return f"{culprit.value}, {culprit.reason or 'no figure'}"
    own = f"; PyTorch's own {precision} error there is {culprit.floor:.3g}" if culprit.floor is not None else ""
    return f"{culprit.value} by {culprit.error:.3g}{own}"


def _meaning(culprit: Culprit, found: Findings) -> str:
    """Return what the shape of an error says; without one, how large it is."""
    kind = culprit.looks_like.kind if culprit.looks_like is not None else "unknown"
    kernels, precision = f"the kernels of {found.target.backend} for it", found.base_plan.computes_in
    if kind in _ROUNDING:
        return f"{kernels} are less exact than {precision}"
    if kind == "non_finite":
        return f"{kernels} give what is not finite, where PyTorch {precision} does not"
    if kind == "unknown":
        times = _times(culprit)
        return f"{kernels} are wrong" + (
            f", by {times:.3g} times what {precision} costs" if math.isfinite(times) else ""
        )
    return f"{kernels} compute something else: this is no rounding"


def _keep(found: Findings, worst: Culprit, count: int) -> str:
    """Return what a plan can do about an operator that makes ``count`` values wrong."""
    if is_fp32(found.base_plan):
        return "no plan can help: it is in FP32 already"
    if found.base_plan.tf32:
        return "ask for -p fp32"
    every, worst_alone = f"op:{worst.op}", f"value:{worst.value}"
    smallest = every if count > 1 else worst_alone
    if found.plan is not None:
        return f'keep "{every}" in FP32' if every in found.plan else "nothing beyond the plan, which passes"
    failed = {pattern for trial in found.trials if trial.passed is False for pattern in trial.keep_fp32}
    if tried := failed & {every, smallest}:
        return f'keeping "{min(tried)}" in FP32 was tried and is not enough'
    return f'keep "{smallest}" in FP32'
