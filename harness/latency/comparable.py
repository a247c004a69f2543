"""Which sessions can be compared, and the figure of a process that is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal

from harness.records import Metric, ProcessRun, Session, Summary
from harness.sentences import Sentence, joined

FEWEST_PROCESSES = 2
"""Fewer have no spread."""
CLOCK_CHANGE = 1.01
"""A clock that differs by more is noted."""
_MAY_VARY = ("uuid", "persistence", "pcie_generation", "pcie_width", "max_sm_mhz", "confidential_compute")
"""Facts of a machine that are not in its key."""
Figure = Literal["median", "cycles", "p99"]


def why_unusable(session: Session, metric: Metric) -> str:
    """Return why a session cannot be compared, or an empty string."""
    if session.invalid:
        return Sentence("invalid_environment", invalid=list(session.invalid))
    if len(session.runs) < FEWEST_PROCESSES:
        return Sentence("too_few_processes", count=len(session.runs), least=FEWEST_PROCESSES)
    if metric == "gpu_ms" and len(graph_modes(session)) > 1:
        return Sentence("graphs_mixed")
    for number, run in enumerate(session.runs, 1):
        if _positive(run, metric, "median") is None:
            summary = getattr(run, metric)
            return Sentence("median_no_time", number=number, metric=metric, summary=summary and summary.median)
    return ""


def why_incomparable(new: Session, old: Session) -> str:
    """Return why two sessions of one benchmark cannot be compared, or an empty string."""
    if old.id == new.id:
        return Sentence("is_itself")
    if old.machine.key != new.machine.key:
        facts = _facts_words(new.machine.facts, old.machine.facts)
        return Sentence(
            "other_machine",
            facts=joined(facts) or Sentence("machine_keys", here=new.machine.key, there=old.machine.key),
        )
    if old.metric != new.metric:
        return Sentence("other_metric", metric=old.metric, metric_2=new.metric)
    if new.metric == "gpu_ms" and graph_modes(old) != graph_modes(new):
        reasons = {run.graph_failure for run in (*new.runs, *old.runs) if run.graph_failure}
        return Sentence("graph_one_side", reasons="; ".join(sorted(reasons)) or Sentence("no_reason_recorded"))
    return ""


def changed_facts(new: Session, old: Session) -> str:
    """Return what differs, where it is the same device of the same host; empty for another one, or another backend."""
    mine, theirs = new.machine.facts, old.machine.facts
    same = ("host", "uuid", "gpu", "cpu", "backend", "backend_version")
    if new.machine.key == old.machine.key or not mine.get("host") or any(mine.get(n) != theirs.get(n) for n in same):
        return ""
    return joined(_facts_words(mine, theirs))


def _facts_words(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        Sentence("here_and_there", name=name, get=mine.get(name), get_2=theirs.get(name))
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]


def difference_notes(new: Session, old: list[Session]) -> list[str]:
    """Return notes on what differs from every session of the baseline: engine, weights, inputs, clocks, the device."""
    notes: list[str] = []
    for field, words in (
        ("engine_sha256", Sentence("engine_file_changed")),
        ("kernels_sha256", Sentence("engine_kernels_changed")),
        ("weights", Sentence("other_weights")),
        ("inputs", Sentence("other_inputs")),
    ):
        mine, theirs = getattr(new, field), sorted({getattr(session, field) for session in old} - {""})
        if mine and theirs and mine not in theirs:
            notes.append(
                Sentence("differs_from_baseline", words=words, mine=mine[:12], theirs=[other[:12] for other in theirs])
            )
    for field, words in (("sm_mhz", Sentence("sm_clock")), ("memory_mhz", Sentence("memory_clock"))):
        here, there = ([getattr(run.conditions, field) for one in ones for run in one.runs] for ones in ([new], old))
        if all(here) and all(there) and not 1 / CLOCK_CHANGE < median(here) / median(there) < CLOCK_CHANGE:
            notes.append(Sentence("clock_changed", words=words, median=median(here), median_2=median(there)))
    for name in _MAY_VARY:
        mine, others = new.machine.facts.get(name), {one.machine.facts.get(name) for one in old}
        if mine not in others:
            notes.append(Sentence("machine_changed", name=name, mine=mine, map=list(map(str, others))))
    return notes


def flag_notes(new: Sequence[Session], old: Sequence[Session] = ()) -> list[str]:
    """Return the flags of the processes as notes, each with the number of processes."""
    notes: list[str] = []
    for sessions, where in ((new, ""), (old, Sentence("of_the_baseline"))):
        runs = [run for session in sessions for run in session.runs]
        for flag in dict.fromkeys(flag for run in runs for flag in run.flags):
            notes.append(
                Sentence(
                    "flag_in_processes",
                    flag=flag,
                    sum=sum(flag in run.flags for run in runs),
                    count=len(runs),
                    where=where,
                )
            )
    return notes


def graph_modes(session: Session) -> set[bool]:
    """Return whether the processes replayed a CUDA graph: both answers where they differ."""
    return {run.graph for run in session.runs}


def power_capped(*sessions: Session) -> bool:
    """Return whether the power limit was reached in most processes."""
    return fmean(run.conditions.power_capped for session in sessions for run in session.runs) > 0.5


def log_figures(session: Session, metric: Metric, figure: Figure) -> list[float]:
    """Return the logarithm of a figure of every process; empty when one of them lacks it."""
    values = [_positive(run, metric, figure) for run in session.runs]
    known = [math.log(value) for value in values if value is not None]
    return known if len(known) == len(values) else []


def _positive(run: ProcessRun, metric: Metric, figure: Figure) -> float | None:
    """Return a figure of a process if it is positive and finite, else None."""
    summary: Summary | None = getattr(run, metric)
    value = summary and (summary.p99 if figure == "p99" else summary.median)
    if value and figure == "cycles":
        value *= run.conditions.sm_mhz or 0.0
    return value if value and value > 0 and math.isfinite(value) else None
