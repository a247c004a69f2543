"""Which sessions can be compared, and the figure of a process that is compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import Any, Literal

from harness.records import Metric, ProcessRun, Session, Summary

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
        return f"invalid environment: {'; '.join(session.invalid)}"
    if len(session.runs) < FEWEST_PROCESSES:
        return f"only {len(session.runs)} processes were measured; at least {FEWEST_PROCESSES} are needed"
    if metric == "gpu_ms" and len(graph_modes(session)) > 1:
        return "some of its processes replayed a CUDA graph and some did not"
    for number, run in enumerate(session.runs, 1):
        if _positive(run, metric, "median") is None:
            summary = getattr(run, metric)
            return f"process {number} has the {metric} median {summary and summary.median}, which is no time"
    return ""


def why_incomparable(new: Session, old: Session) -> str:
    """Return why two sessions of one benchmark cannot be compared, or an empty string."""
    if old.id == new.id:
        return "it is this session itself"
    if old.machine.key != new.machine.key:
        facts = _facts_words(new.machine.facts, old.machine.facts)
        return f"it is of another machine ({'; '.join(facts) or f'{new.machine.key} here, {old.machine.key} there'})"
    if old.metric != new.metric:
        return f"it measured {old.metric}, this session {new.metric}"
    if new.metric == "gpu_ms" and graph_modes(old) != graph_modes(new):
        reasons = {run.graph_failure for run in (*new.runs, *old.runs) if run.graph_failure}
        return f"one replayed a CUDA graph and the other did not ({'; '.join(sorted(reasons)) or 'no reason recorded'})"
    return ""


def changed_facts(new: Session, old: Session) -> str:
    """Return what differs, where it is the same device of the same host; empty for another one, or another backend."""
    mine, theirs = new.machine.facts, old.machine.facts
    same = ("host", "uuid", "gpu", "cpu", "backend", "backend_version")
    if new.machine.key == old.machine.key or not mine.get("host") or any(mine.get(n) != theirs.get(n) for n in same):
        return ""
    return "; ".join(_facts_words(mine, theirs))


def _facts_words(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [
        f"{name} {mine.get(name)} here, {theirs.get(name)} there"
        for name in sorted({*mine, *theirs})
        if mine.get(name) != theirs.get(name)
    ]


def difference_notes(new: Session, old: list[Session]) -> list[str]:
    """Return notes on what differs from every session of the baseline: engine, weights, inputs, clocks, the device."""
    notes = []
    for field, words in (
        ("engine_sha256", "engine changed: its file"),
        ("kernels_sha256", "engine changed: its kernels"),
        ("weights", "other weights"),
        ("inputs", "other inputs"),
    ):
        mine, theirs = getattr(new, field), sorted({getattr(session, field) for session in old} - {""})
        if mine and theirs and mine not in theirs:
            notes.append(f"{words}: {mine[:12]} here, {', '.join(other[:12] for other in theirs)} in the baseline")
    for field, words in (("sm_mhz", "SM clock"), ("memory_mhz", "memory clock")):
        here, there = ([getattr(run.conditions, field) for one in ones for run in one.runs] for ones in ([new], old))
        if all(here) and all(there) and not 1 / CLOCK_CHANGE < median(here) / median(there) < CLOCK_CHANGE:
            notes.append(f"{words} changed: {median(here):.0f} MHz here, {median(there):.0f} MHz in the baseline")
    for name in _MAY_VARY:
        mine, others = new.machine.facts.get(name), {one.machine.facts.get(name) for one in old}
        if mine not in others:
            notes.append(f"the machine's {name} changed: {mine} here, {', '.join(map(str, others))} in the baseline")
    return notes


def flag_notes(new: Sequence[Session], old: Sequence[Session] = ()) -> list[str]:
    """Return the flags of the processes as notes, each with the number of processes."""
    notes = []
    for sessions, where in ((new, ""), (old, " of the baseline")):
        runs = [run for session in sessions for run in session.runs]
        for flag in dict.fromkeys(flag for run in runs for flag in run.flags):
            notes.append(f"{flag} in {sum(flag in run.flags for run in runs)} of {len(runs)} processes{where}")
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
