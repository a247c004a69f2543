"""Which sessions can be compared, and the figure of a process that is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Literal

from harness.records import Metric, ProcessRun, Session, Summary

FEWEST_PROCESSES = 2
"""Fewer have no spread."""
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
        mine, theirs = new.machine.facts, old.machine.facts
        facts = [
            f"{name} {mine.get(name)} here, {theirs.get(name)} there"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]
        return f"it is of another machine ({'; '.join(facts) or f'{new.machine.key} here, {old.machine.key} there'})"
    if old.metric != new.metric:
        return f"it measured {old.metric}, this session {new.metric}"
    if new.metric == "gpu_ms" and graph_modes(old) != graph_modes(new):
        reasons = {run.graph_failure for run in (*new.runs, *old.runs) if run.graph_failure}
        return f"one replayed a CUDA graph and the other did not ({'; '.join(sorted(reasons)) or 'no reason recorded'})"
    return ""


def difference_notes(new: Session, old: list[Session]) -> list[str]:
    """Return notes on an engine, weights or inputs that differ from every session of the baseline."""
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
