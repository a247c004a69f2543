"""The comparison of every value of an engine with PyTorch's, from observing to the report."""

from __future__ import annotations

import contextlib
import time
from dataclasses import replace

from harness import limits
from harness.errors import NotJudged, ParityError, UsageError
from harness.layers.diagnosis import diagnose
from harness.layers.effects import decision_notes, observer_effects, worst_observed
from harness.layers.observation import Unobserved, observe_outputs, observe_pytorch, observe_unfused
from harness.layers.report import all_values, layer_report
from harness.memory import guarded
from harness.records import LayerReport, Result
from harness.sentences import Sentence
from harness.verify import OpenTarget, verify_case


def compare_layers(opened: OpenTarget, case: str, *, mode: str = "") -> LayerReport:
    """Return the layer report of a target's engine, for one case.

    ``mode`` is ``unfused`` (the tensors between kernels, which leaves the engine as it is), ``outputs`` (values as
    outputs of further engines) or ``outputs:PATTERN`` (only these; as in a precision plan). Without one, the first mode
    the backend has. Raises NotJudged when the engine cannot be observed, UsageError for an unknown mode.
    """
    started, spent = time.perf_counter(), dict(opened.steps.spent_s)
    chosen, pattern = choose_mode(opened, mode)
    outcome = verify_case(opened, case)
    if outcome.repeats is None:
        raise NotJudged(outcome.result.reason)
    judged = opened.run.prepared.valid.counted(case, outcome.repeats.worst)
    before = Unobserved(opened=opened, case=case, result=outcome.result, outputs=judged)
    opened.free()  # the engine under test is freed before the one to observe is loaded
    if opened.is_pytorch:
        chosen, observation = "values", observe_pytorch(before)
    elif chosen == "unfused":
        observation = observe_unfused(before)
    else:
        observation = observe_outputs(before, pattern)
    effects = observer_effects(before, [before.counted(outputs) for outputs in observation.outputs])
    findings, diagnosis = diagnose(before, observation.observer)
    notes = (*observation.notes, *decision_notes(before, observation))
    if diagnosis is not None:
        failed = {output.name for output in outcome.result.outputs if output.verdict != "pass"}
        seen = worst_observed(effect.observed for effect in effects if effect.name in failed)
        diagnosis = replace(diagnosis, observed=seen)
    report = layer_report(
        before, mode=chosen, values=all_values(findings, observation), effects=effects, notes=notes, diagnosis=diagnosis
    )
    timings = {"layers": time.perf_counter() - started, **opened.steps.since(spent)}
    return replace(report, timings_s=timings)


def judge_with_layers(opened: OpenTarget, case: str, *, mode: str = "") -> Result:
    """Return a verdict with the layer report, or with a note why there is none.

    Raises UsageError for an unknown mode, before anything is built.
    """
    with contextlib.suppress(NotJudged):  # that becomes a note, beside a verdict
        choose_mode(opened, mode)
    result = verify_case(opened, case).result
    try:
        with limits.work(result.subject, "observing its values"), guarded(f"{result.subject}/{case}"):
            return replace(result, layers=compare_layers(opened, case, mode=mode))
    except UsageError:
        raise
    except ParityError as error:
        return replace(result, notes=(*result.notes, f"no layers: {error}"))


def choose_mode(opened: OpenTarget, mode: str) -> tuple[str, str]:
    """Return the tap mode and its pattern.

    Raises UsageError for an unknown mode, NotJudged for one that the backend has not.
    """
    kind, colon, pattern = mode.partition(":")
    known = opened.backend.tap_modes
    if mode and (kind not in ("unfused", "outputs") or (colon and kind != "outputs")):
        raise UsageError(f"unknown --layers mode {mode!r}; give unfused, outputs, or outputs:PATTERN")
    if not known:
        raise NotJudged(Sentence("values_not_observed", name=opened.backend.name))
    if not mode:
        return known[0], ""
    if kind not in known:
        raise NotJudged(Sentence("no_taps", name=opened.backend.name, kind=kind, known=known[0]))
    return kind, pattern
