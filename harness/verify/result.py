"""From what was found of one case to the record of it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence

from harness.errors import ParityError
from harness.graph import is_fp32
from harness.records import Attempt, CodesResult, EngineInfo, OutputResult, Provenance, Result, Verdict, attempts_note
from harness.sentences import Sentence
from harness.tensors import sha256_of
from harness.verify.target import OpenTarget


def engine_info(opened: OpenTarget) -> EngineInfo | None:
    """Return what is known of the target's engine; None where there is none."""
    if opened.engine is None:
        return None
    layers = opened.session.layers if opened.session is not None else None
    return dataclasses.replace(opened.engine.info(), layers=layers)


def provenance(opened: OpenTarget, case: str) -> Provenance | None:
    """Return what a reader needs to trust the figures; None where the subject could not be prepared."""
    subject, plan = opened.run.subject, opened.plan
    try:
        prepared = opened.run.prepared
        exact = is_fp32(plan) or prepared.graph.is_quantised
        return Provenance(
            weights=subject.weights,
            weights_source=subject.weights_source,
            weights_sha256=prepared.graph.identity.weights_sha256,
            inputs=subject.inputs,
            inputs_sha256=sha256_of(prepared.inputs[case]),
            program_sha256=prepared.graph.identity.program_sha256,
            commit=opened.run.commit,
            reference=prepared.references.words(case, "fp64" if exact else "fp32"),
            device=opened.device_name,
            gpu=opened.gpu_uuid,
            plan={"dtype": plan.computes_in, "keep_fp32": list(plan.keep_fp32)},
            valid_sha256=prepared.valid.sha256(case),
            module=prepared.graph.module_state,
        )
    except ParityError:
        return None  # the reason of the result says what kept the subject from being prepared


def next_step(opened: OpenTarget, case: str) -> str:
    """Return the command that goes on from a failure: to whose fault it is, and a plan that passes."""
    subject = opened.run.subject
    only = ["--case", case] if len(subject.cases) > 1 or case in subject.range_cases else []
    limit = [] if opened.run.limit is None else ["--limit", str(opened.run.limit)]
    retyped = opened.plan.as_file and not opened.run.prepared.graph.is_quantised
    precision = opened.plan.computes_in if retyped else opened.target.precision
    options = shlex.join(["-b", opened.backend.name, "-p", precision, *only, *limit])
    return f"parity bisect {subject.as_typed} {options}"


def with_attempts(result: Result, tried: Sequence[Attempt], allowed: int) -> Result:
    """Return the result of the last of several attempts with all of them, and a note that says so."""
    note = attempts_note([dataclasses.asdict(one) for one in tried], allowed)
    return dataclasses.replace(result, attempts=tuple(tried), attempts_allowed=allowed, notes=(note, *result.notes))


def worst_reason(outputs: Sequence[OutputResult], verdict: Verdict, codes: CodesResult | None = None) -> str:
    """Return the reason of the output that decided: of those of that verdict the one farthest beyond its limit.

    A wrong decision, and what could not be compared, come before any error; right decisions after it.
    """
    if codes is not None and codes.decides and codes.verdict == verdict != "pass":
        return codes.reason  # it says where: what follows in the graph is wrong for that
    deciding = [output for output in outputs if output.verdict == verdict]
    if not deciding:
        return Sentence("no_output_compared")
    without = float("-inf") if verdict == "pass" else float("inf")
    chosen = max(deciding, key=lambda output: _excess(output) if output.stats else without)
    return Sentence("of", name=chosen.name, reason=chosen.reason)


def _excess(output: OutputResult) -> float:
    """Return how many times its limit the worst part of an output loses, or the error of the whole without parts."""
    worst = [abs(part.error) / part.allowed if part.allowed else float("inf") for part in output.parts]
    return max(worst) if worst else output.stats.relative_l2 if output.stats else 0.0
