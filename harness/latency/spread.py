"""How far times scatter: the runs of one process, its fellows, and sessions of one engine that did not change."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, variance

from harness.errors import NotJudged
from harness.latency.estimate import CONFIDENCE, FEWEST_SESSIONS, Limits, t_quantile
from harness.latency.sessions import flags, flaw_of, graph_modes, log_figures
from harness.records import Metric, Session, Summary

POWER = 0.9
"""With which the smallest change is found."""
PERCENTILES = {90: 100, 95: 200, 99: 1000}
"""The samples that a percentile needs, so that ten lie beyond it."""


def summarise(samples_ms: Sequence[float]) -> Summary:
    """Return the summary of the times of one process, in milliseconds.

    The median of an even number of samples is the mean of the middle two. A percentile is an element of the sorted
    sample, the smallest that at least p % of it do not exceed, as in trtexec; none is interpolated, and none is given
    below ``PERCENTILES`` samples. ``low`` and ``high`` are order statistics that cover the median with at least 95 %
    for independent samples of any distribution; below six samples there are none such, and they are the extremes.
    ``cv`` has the standard deviation with n - 1. Raises NotJudged when a time is not positive and finite.
    """
    import numpy as np

    times = np.sort(np.asarray(samples_ms, dtype=np.float64))
    n = len(times)
    if not n:
        raise ValueError("no sample to summarise")
    if not (np.isfinite(times).all() and times[0] > 0):
        wrong = next(value for value in samples_ms if not (math.isfinite(value) and value > 0))
        raise NotJudged(f"one of {n} samples is {wrong} ms, which is no time: the timer of this device cannot be used")
    low = _low_rank(n)
    mean = float(times.mean())
    tails: Mapping[int, float | None] = {
        p: float(times[n - 1 - n * (100 - p) // 100]) if n >= fewest else None for p, fewest in PERCENTILES.items()
    }
    return Summary(
        n=n,
        median=float(np.median(times)),
        low=float(times[low]),
        high=float(times[n - 1 - low]),
        mean=mean,
        minimum=float(times[0]),
        cv=float(times.std(ddof=1)) / mean if n > 1 else 0.0,
        p90=tails[90],
        p95=tails[95],
        p99=tails[99],
    )


def _low_rank(n: int) -> int:
    """Return the index of the order statistic below which the median lies with at most 2.5 %: binomial, p = 1/2."""
    from scipy.special import bdtrik

    return max(math.ceil(float(bdtrik((1 - CONFIDENCE) / 2, n, 0.5))) - 1, 0)


@dataclass(frozen=True, kw_only=True)
class AA:
    """What a machine can tell apart, from sessions of one engine that did not change. Spreads are relative."""

    sd_within: float
    """Of single runs in one process: root mean square of the coefficients of variation."""
    sd_process: float
    """Of process medians in one session, pooled; the sampling error of the medians is in it."""
    sd_session: float | None
    """Between sessions, beyond what their processes explain (one-way random effects); None with one session."""
    smallest_change: float
    """Slow-down that is called ``regressed`` nine times in ten, with these sessions as the baseline."""
    sessions: int
    processes: int
    """Per session; the fewest, where they differ."""
    notes: tuple[str, ...] = ()
    """Which sessions were left out and why; what else a reader must know."""


def smallest_change(sessions: Sequence[Session]) -> AA:
    """Return the spreads of one unchanged engine, and the smallest slow-down that ``compare_sessions`` would find.

    With four sessions or more, the ratio of distance to standard error follows Student's noncentral t; the change is
    where its probability to lie beyond the limit is ``POWER``. Below, the interval over processes is widened by the
    normal quantile of ``POWER`` times the spread of both levels, as far as it is known. It is an estimate: from four
    sessions the spread between sessions is itself known to about 40 %. Raises ValueError for sessions
    of several benchmarks or machines and NotJudged when none can be used.
    """
    if len({(session.benchmark, session.machine.key) for session in sessions}) > 1:
        raise ValueError("an A/A study is about one benchmark on one machine")
    chosen: Metric = "gpu_ms" if all(s.metric == "gpu_ms" for s in sessions) else "end_to_end_ms"
    sound = [session for session in sessions if not flaw_of(session, chosen)]
    flaws = {session.id: flaw_of(session, chosen) or _other_graph(session, sound[0], chosen) for session in sessions}
    usable = [session for session in sessions if not flaws[session.id]]
    notes = [f"session {name} left out: {flaw}" for name, flaw in flaws.items() if flaw]
    if not usable:
        raise NotJudged(f"no session can tell how far this machine scatters: {'; '.join(notes) or 'none was measured'}")
    for field in ("engine_sha256", "kernels_sha256"):
        if len({getattr(session, field) for session in usable}) > 1:
            notes.append(f"engine changed between the sessions ({field}): this is no A/A study")
    if len(usable) < FEWEST_SESSIONS:
        notes.append(
            f"only {len(usable)} of {FEWEST_SESSIONS} sessions: the spread between sessions is hardly known, and the "
            "smallest change is a lower bound"
        )
    logs = [log_figures(session, chosen, "median") for session in usable]
    k = min(len(values) for values in logs)
    within = fmean(variance(values) for values in logs)
    means = variance([fmean(values) for values in logs]) if len(logs) > 1 else None
    return AA(
        sd_within=math.sqrt(fmean(getattr(run, chosen).cv ** 2 for session in usable for run in session.runs)),
        sd_process=math.sqrt(within),
        sd_session=None if means is None else math.sqrt(max(means - within / k, 0.0)),
        smallest_change=_detectable(logs),
        sessions=len(usable),
        processes=k,
        notes=(*notes, *flags(usable)),
    )


def _other_graph(session: Session, first: Session, metric: Metric) -> str:
    """Return that only one of them replayed a CUDA graph, which is another measurement; or an empty string."""
    if metric != "gpu_ms" or graph_modes(session) == graph_modes(first):
        return ""
    return f"session {first.id} and this one do not both replay a CUDA graph"


def _detectable(logs: list[list[float]]) -> float:
    from scipy.special import nctdtrinc, ndtri

    sessions, k = len(logs), min(len(values) for values in logs)
    within = fmean(variance(values) for values in logs)
    between = variance([median(values) for values in logs]) if sessions > 1 else 0.0
    level, margin = (1 + CONFIDENCE) / 2, Limits().regress
    if sessions >= FEWEST_SESSIONS:
        error = math.sqrt(between / sessions + max(between, within / k))
        distance = float(nctdtrinc(sessions - 1, 1 - POWER, t_quantile(sessions - 1, level))) * error
        return math.expm1(math.log1p(max(margin, math.sqrt(between))) + distance)
    error = math.sqrt(within / k * (1 + 1 / sessions))
    scatter = math.sqrt(max(between, within / k) * (1 + 1 / sessions))
    distance = t_quantile(k * (sessions + 1) - 2, level) * error + float(ndtri(POWER)) * scatter
    return math.expm1(math.log1p(margin) + distance)
