"""From times to a verdict: is a session slower than its baseline, and would it say so of two equal sessions.

The unit of every test is one figure per process, never one run: the runs of a process share its clock, its memory
layout and its temperature, so that tests over pooled runs call two equal engines different three times in four. A
process is represented by the logarithm of its median, a session by the median over its processes. With four sessions
or more in the baseline, the spread between sessions is known and the new session is held against the prediction
interval for one more of them; with fewer, Welch's interval over processes stands in, and fails nobody.
``python benchmarks/latency_verdict.py`` prints how often each rule is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median, variance
from typing import Literal

from harness.errors import NotJudged, UsageError
from harness.timings import Comparison, LatencyVerdict, Metric, ProcessRun, Session, Summary

CONFIDENCE = 0.95
"""Of every interval; a one-sided error of 2.5 % in the direction that matters."""
FEWEST_SESSIONS = 4
"""Below it the spread between sessions is not known and the baseline is young."""
FEWEST_PROCESSES = 2
PERCENTILES = {90: 100, 95: 200, 99: 1000}
"""The samples that a percentile needs, so that ten lie beyond it."""
P99_MARGIN, P99_EQUIVALENT = 0.05, 0.15
"""The tail is noisier than the median and has bounds of its own; it is reported and never decides."""
WIDEST_LOG = 700.0
"""exp() of more overflows; an interval that wide says nothing anyway."""

Figure = Literal["median", "cycles", "p99"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What counts as a change and what as none."""

    regress: float = 0.01
    """A regression is a ratio surely above 1 + this; the measured spread between sessions is its floor."""
    equivalent: float = 0.03
    """Equivalent is a ratio surely within 1 / (1 + this) and 1 + this."""

    def __post_init__(self) -> None:
        if not (0 <= self.regress < 1 and 0 < self.equivalent < 1):  # NaN fails both
            raise UsageError(
                f"the margin of a regression is {self.regress} and that of equivalence {self.equivalent}; "
                "give fractions between 0 and 1, such as 0.01 and 0.03"
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The logarithm of a ratio new / old, and how surely it is known."""

    delta: float
    error: float
    """Standard error of ``delta``."""
    freedom: float
    """Degrees of freedom of Student's t."""
    spread: float
    """Standard deviation between sessions; 0 where it is not known."""
    words: str
    """What the interval is made of."""

    def interval(self) -> tuple[float, float, float]:
        """Return the ratio and both ends of its 95 % interval."""
        half = _t_quantile(self.freedom, (1 + CONFIDENCE) / 2) * self.error if self.error else 0.0
        low, high = max(self.delta - half, -WIDEST_LOG), min(self.delta + half, WIDEST_LOG)
        return math.exp(self.delta), math.exp(low), math.exp(high)

    def p_value(self, margin: float) -> float:
        """Return the one-sided p value of a ratio no further from 1 than the margin, in the direction seen."""
        beyond = abs(self.delta) - math.log(margin)
        if not self.error:
            return 0.0 if beyond > 0 else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.freedom, -beyond / self.error))


def compare_sessions(
    new: Session,
    baseline: Sequence[Session],
    *,
    previous: Session | None = None,
    regress_margin: float = 0.01,
    equivalent_within: float = 0.03,
    metric: Metric | None = None,
) -> Comparison:
    """Return whether a session regressed against the sessions of its baseline, which must be of the same benchmark.

    ``previous`` is the session before this one: a regression is ``repeated`` when it had regressed too, by the same
    rule. Baseline sessions that cannot be compared (another machine, metric or graph mode, an invalid environment, this
    session itself) are left out with a note; when none is left, the verdict is ``no_baseline``. Raises ValueError for
    sessions of another benchmark and UsageError for limits that make no sense.
    """
    limits = Limits(regress=regress_margin, equivalent=equivalent_within)
    for other in (*baseline, *([previous] if previous else ())):
        if other.benchmark != new.benchmark:
            raise ValueError(f"session {other.id} is of {other.benchmark}, not of {new.benchmark}")
    result = _against(new, baseline, limits, metric)
    if result.verdict != "regressed" or previous is None:
        return result
    if previous.id == new.id:
        raise ValueError(f"session {new.id} cannot be the one before itself")
    before = _against(previous, baseline, limits, metric)
    note = f"the session before ({previous.id}) was {before.verdict}"
    young = len(result.baseline) < FEWEST_SESSIONS or len(before.baseline) < FEWEST_SESSIONS
    repeated = before.verdict == "regressed" and not young
    return replace(result, repeated=repeated, notes=(*result.notes, note))


def compare_in_turns(
    a: Session,
    b: Session,
    *,
    regress_margin: float = 0.01,
    equivalent_within: float = 0.03,
    metric: Metric | None = None,
) -> Comparison:
    """Return how ``a`` compares with ``b``, measured in turns (A B B A) on one machine: Welch over log process medians.

    The ratio is time of ``a`` over time of ``b``; ``speed_up`` turns it round. Without ``metric`` it is GPU time where
    both have it, otherwise end to end. Raises ValueError for sessions of two machines.
    """
    limits = Limits(regress=regress_margin, equivalent=equivalent_within)
    if a.machine.key != b.machine.key:
        raise ValueError(f"sessions {a.id} and {b.id} were not measured in turns: they are of two machines")
    chosen: Metric = metric or (a.metric if a.metric == b.metric else "end_to_end_ms")
    notes = [] if metric or a.metric == b.metric else [f"GPU time is missing in {a.id} or {b.id}: compared end to end"]
    for session in (a, b):
        flaw = _flaw(session, chosen)
        if flaw:
            verdict: LatencyVerdict = "invalid_environment" if session.invalid else "inconclusive"
            return _undecided(verdict, chosen, f"session {session.id}: {flaw}", notes)
    if _graph(a) != _graph(b):
        notes.append("a CUDA graph on one side only")
    return _judge(a, [b], limits, chosen, notes)


def speed_up(comparison: Comparison) -> tuple[float, float, float] | None:
    """Return old time over new time (above 1 is faster) with its 95 % interval; None without a ratio."""
    if comparison.ratio is None or comparison.low is None or comparison.high is None:
        return None
    return 1 / comparison.ratio, 1 / comparison.high, 1 / comparison.low


def holm(comparisons: Sequence[Comparison]) -> tuple[Comparison, ...]:
    """Return the comparisons of one run, in their order, with Holm's correction for their number.

    A ``regressed`` or ``improved`` that does not stand among so many tests becomes ``inconclusive``; no verdict
    gets sharper. The family is every comparison that was tested (Holm, Scandinavian Journal of Statistics 1979).
    """
    tested = sorted((c.p_value, index) for index, c in enumerate(comparisons) if c.p_value is not None)
    adjusted = list(comparisons)
    level, p_adjusted = (1 - CONFIDENCE) / 2, 0.0
    for rank, (p_value, index) in enumerate(tested):
        p_adjusted = max(p_adjusted, min(p_value * (len(tested) - rank), 1.0))
        one = comparisons[index]
        if p_adjusted > level and one.verdict in ("regressed", "improved"):
            rule = (
                f"{one.rule}; alone it would be {one.verdict}, but among {len(tested)} benchmarks Holm's p is "
                f"{p_adjusted:.3g}, above {level:.3g}"
            )
            adjusted[index] = replace(one, verdict="inconclusive", repeated=False, rule=rule)
    return tuple(adjusted)


def _against(new: Session, baseline: Sequence[Session], limits: Limits, metric: Metric | None) -> Comparison:
    chosen: Metric = metric or new.metric
    flaw = _flaw(new, chosen)
    if flaw:
        return _undecided("invalid_environment" if new.invalid else "inconclusive", chosen, flaw, _flags([new]))
    usable: dict[str, Session] = {}
    notes = []
    for old in baseline:
        why_not = _mismatch(new, old, metric) or _flaw(old, chosen)
        if why_not:
            notes.append(f"baseline session {old.id} left out: {why_not}")
        else:
            usable[old.id] = old
    sessions = list(usable.values())
    if not sessions:
        reason = "none of the baseline's sessions can be compared" if baseline else "no session was accepted yet"
        return _undecided("no_baseline", chosen, reason, [*notes, *_advice(new, baseline, chosen), *_flags([new])])
    if len(sessions) < FEWEST_SESSIONS:
        notes.append(f"baseline young: {len(sessions)} of {FEWEST_SESSIONS} sessions, so no regression counts yet")
    return _judge(new, sessions, limits, chosen, [*notes, *_differences(new, sessions), *_flags([new], sessions)])


def _judge(new: Session, old: list[Session], limits: Limits, metric: Metric, notes: list[str]) -> Comparison:
    """Return the verdict on a session against sessions that can all be compared with it."""
    times = _logs(new, metric, "median"), [_logs(session, metric, "median") for session in old]
    estimate = _estimate(*times)
    verdict = _decide(estimate, limits)
    rule = _sentence(estimate, limits, verdict)
    cycles = _other(new, old, metric, "cycles")
    if cycles:
        verdict, rule, notes = _confirm(verdict, rule, cycles, limits, notes, _capped(new) != _capped(*old))
    twin = _hodges_lehmann(times[0], [value for values in times[1] for value in values])
    if abs(twin - estimate.delta) > math.log(_margin(estimate, limits)) / 2:
        notes = [*notes, f"the Hodges-Lehmann ratio, which outliers do not move, disagrees: {math.exp(twin):.5g}"]
    tail = _other(new, old, metric, "p99")
    if tail:
        p99 = _decide(tail, Limits(regress=P99_MARGIN, equivalent=P99_EQUIVALENT))
        notes = [*notes, f"p99 {p99} {_numbers(tail)}"] if p99 in ("regressed", "improved") else notes
    ratio, low, high = estimate.interval()
    return Comparison(
        verdict=verdict,
        ratio=ratio,
        low=low,
        high=high,
        metric=metric,
        rule=rule,
        baseline=tuple(session.id for session in old),
        notes=tuple(notes),
        p_value=estimate.p_value(_margin(estimate, limits)),
    )


def _confirm(
    verdict: LatencyVerdict, rule: str, cycles: Estimate, limits: Limits, notes: list[str], capped: bool
) -> tuple[LatencyVerdict, str, list[str]]:
    """Return verdict, rule and notes once clock cycles (time x SM clock) have been judged by the same rule."""
    in_cycles = _decide(cycles, limits)
    numbers = f"in clock cycles {_numbers(cycles)}"
    if verdict == "regressed" and in_cycles == "equivalent":
        return "slower_clock", f"slower in time, {rule}; but equivalent {numbers}", notes
    if capped:
        notes = [*notes, "the power limit was reached on one side only"]
        if verdict in ("regressed", "improved") and in_cycles != verdict:
            rule = f"{rule}; {verdict} in time, but under another power limit it must hold {numbers}, which it does not"
            return "inconclusive", rule, notes
    if in_cycles not in (verdict, "inconclusive"):
        notes = [*notes, f"{in_cycles} {numbers}: the clocks differ"]
    return verdict, rule, notes


def _estimate(new: list[float], old: list[list[float]]) -> Estimate:
    return _predict(new, old) if len(old) >= FEWEST_SESSIONS else welch(new, [value for s in old for value in s])


def _predict(new: list[float], old: list[list[float]]) -> Estimate:
    """Return the estimate by the prediction interval for one more session, from log values per process and session.

    Random effects: sessions scatter by s_b about their mean, so a new one lies within t x s_b sqrt(1 + 1/S) of it. Its
    own error is never less than what its processes show, s_p / sqrt(k): of the baseline's and its own, the larger.
    """
    values = [median(session) for session in old]
    between = variance(values)
    within = max(fmean(variance(session) for session in old), variance(new))
    error = math.sqrt(between / len(old) + max(between, within / len(new)))
    words = (
        f"95 % prediction interval from {len(old)} sessions (spread {math.sqrt(between):.2%}) "
        f"for {len(new)} processes (spread {math.sqrt(within):.2%})"
    )
    delta = median(new) - fmean(values)
    return Estimate(delta=delta, error=error, freedom=len(old) - 1, spread=math.sqrt(between), words=words)


def welch(new: Sequence[float], old: Sequence[float]) -> Estimate:
    """Return the estimate from log values per process, at least two a side, of two spreads (Welch, Biometrika 1947)."""
    parts = variance(new) / len(new), variance(old) / len(old)
    total = sum(parts)
    bottom = parts[0] ** 2 / (len(new) - 1) + parts[1] ** 2 / (len(old) - 1)
    freedom = total**2 / bottom if bottom else float(len(new) + len(old) - 2)
    words = f"95 % Welch interval over {len(new)} against {len(old)} processes"
    delta = fmean(new) - fmean(old)
    return Estimate(delta=delta, error=math.sqrt(total), freedom=freedom, spread=0.0, words=words)


def _decide(estimate: Estimate, limits: Limits) -> LatencyVerdict:
    _, low, high = estimate.interval()
    margin, same = _margin(estimate, limits), 1 + limits.equivalent
    if low > margin:
        return "regressed"
    if high < 1 / margin:
        return "improved"
    return "equivalent" if 1 / same < low and high < same else "inconclusive"


def _margin(estimate: Estimate, limits: Limits) -> float:
    return 1 + max(limits.regress, estimate.spread)


def _numbers(estimate: Estimate) -> str:
    ratio, low, high = estimate.interval()
    return f"{ratio:.5g} [{low:.5g}, {high:.5g}]"


def _sentence(estimate: Estimate, limits: Limits, verdict: LatencyVerdict) -> str:
    margin, same = _margin(estimate, limits), 1 + limits.equivalent
    where = {
        "regressed": f"wholly above {margin:.5g}",
        "improved": f"wholly below {1 / margin:.5g}",
        "equivalent": f"within {1 / same:.5g} and {same:.5g}",
    }.get(verdict, f"neither beyond {1 / margin:.5g} or {margin:.5g} nor within {1 / same:.5g} and {same:.5g}")
    return f"{_numbers(estimate)}, {estimate.words}: {where}"


def _undecided(verdict: LatencyVerdict, metric: Metric, rule: str, notes: Sequence[str]) -> Comparison:
    return Comparison(verdict=verdict, ratio=None, low=None, high=None, metric=metric, rule=rule, notes=tuple(notes))


def _flaw(session: Session, metric: Metric) -> str:
    """Return why a session can be compared with nothing, or an empty string."""
    if session.invalid:
        return f"invalid environment: {'; '.join(session.invalid)}"
    if len(session.runs) < FEWEST_PROCESSES:
        return f"only {len(session.runs)} processes were measured; at least {FEWEST_PROCESSES} are needed"
    if metric == "gpu_ms" and len(_graph(session)) > 1:
        return "some of its processes replayed a CUDA graph and some did not"
    for number, run in enumerate(session.runs, 1):
        if _positive(run, metric, "median") is None:
            summary = getattr(run, metric)
            return f"process {number} has the {metric} median {summary and summary.median}, which is no time"
    return ""


def _mismatch(new: Session, old: Session, metric: Metric | None) -> str:
    """Return what keeps two sessions of one benchmark from being compared, or an empty string."""
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
    if metric is None and old.metric != new.metric:
        return f"it measured {old.metric}, this session {new.metric}"
    if (metric or new.metric) == "gpu_ms" and _graph(old) != _graph(new):
        reasons = {run.graph_failure for run in (*new.runs, *old.runs) if run.graph_failure}
        return f"one replayed a CUDA graph and the other did not ({'; '.join(sorted(reasons)) or 'no reason recorded'})"
    return ""


def _advice(new: Session, baseline: Sequence[Session], metric: Metric) -> list[str]:
    """Return a note on sessions of the same class of machine, which advise and never decide."""
    same = [s for s in baseline if s.machine.class_key == new.machine.class_key and s.machine.key != new.machine.key]
    same = [session for session in same if _graph(session) == _graph(new) and not _flaw(session, metric)]
    if not same or not new.machine.class_key:
        return []
    logs = [_logs(session, metric, "median") for session in same]
    return [f"advice only, machine of the same class: {_numbers(_estimate(_logs(new, metric, 'median'), logs))}"]


def _differences(new: Session, old: list[Session]) -> list[str]:
    """Return notes on what else differs from every session of the baseline."""
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


def _flags(new: Sequence[Session], old: Sequence[Session] = ()) -> list[str]:
    """Return the flags of the processes as notes, with how many carry each."""
    notes = []
    for sessions, where in ((new, ""), (old, " of the baseline")):
        runs = [run for session in sessions for run in session.runs]
        for flag in dict.fromkeys(flag for run in runs for flag in run.flags):
            notes.append(f"{flag} in {sum(flag in run.flags for run in runs)} of {len(runs)} processes{where}")
    return notes


def _graph(session: Session) -> set[bool]:
    return {run.graph for run in session.runs}


def _capped(*sessions: Session) -> bool:
    """Return whether the power limit was reached in most processes."""
    return fmean(run.conditions.power_capped for session in sessions for run in session.runs) > 0.5


def _positive(run: ProcessRun, metric: Metric, figure: Figure) -> float | None:
    """Return one figure of a process if it is a positive finite number; JSON turns NaN to None."""
    summary: Summary | None = getattr(run, metric)
    value = summary and (summary.p99 if figure == "p99" else summary.median)
    if value and figure == "cycles":
        value *= run.conditions.sm_mhz or 0.0
    return value if value and value > 0 and math.isfinite(value) else None


def _logs(session: Session, metric: Metric, figure: Figure) -> list[float]:
    """Return the logarithm of a figure of every process; empty when one of them has not got it."""
    values = [_positive(run, metric, figure) for run in session.runs]
    known = [math.log(value) for value in values if value is not None]
    return known if len(known) == len(values) else []


def _other(new: Session, old: list[Session], metric: Metric, figure: Figure) -> Estimate | None:
    """Return the estimate for a figure that every process of every session must have; None where one has not."""
    mine, theirs = _logs(new, metric, figure), [_logs(session, metric, figure) for session in old]
    return _estimate(mine, theirs) if mine and all(theirs) else None


def _hodges_lehmann(new: Sequence[float], old: Sequence[float]) -> float:
    """Return the median over all pairs of new - old (Hodges and Lehmann, Annals of Mathematical Statistics 1963)."""
    return median(a - b for a in new for b in old)


def _t_quantile(freedom: float, probability: float) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))


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


def smallest_change(
    sessions: Sequence[Session], *, regress_margin: float = 0.01, power: float = 0.9, metric: Metric | None = None
) -> AA:
    """Return the spreads of one unchanged engine, and the smallest slow-down that ``compare_sessions`` would find.

    With four sessions or more, the ratio of distance to standard error follows Student's noncentral t; the change is
    where its probability to lie beyond the limit is ``power``. Below, the interval over processes is widened by the
    normal quantile of ``power`` times the spread of both levels, as far as it is known. It is an estimate: from four
    sessions the spread between sessions is itself known to about 40 %. Raises ValueError for sessions
    of several benchmarks or machines and NotJudged when none can be used.
    """
    if len({(session.benchmark, session.machine.key) for session in sessions}) > 1:
        raise ValueError("an A/A study is about one benchmark on one machine")
    chosen: Metric = metric or ("gpu_ms" if all(s.metric == "gpu_ms" for s in sessions) else "end_to_end_ms")
    flaws = {session.id: _flaw(session, chosen) for session in sessions}
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
    logs = [_logs(session, chosen, "median") for session in usable]
    k = min(len(values) for values in logs)
    within = fmean(variance(values) for values in logs)
    means = variance([fmean(values) for values in logs]) if len(logs) > 1 else None
    return AA(
        sd_within=math.sqrt(fmean(getattr(run, chosen).cv ** 2 for session in usable for run in session.runs)),
        sd_process=math.sqrt(within),
        sd_session=None if means is None else math.sqrt(max(means - within / k, 0.0)),
        smallest_change=_detectable(logs, regress_margin, power),
        sessions=len(usable),
        processes=k,
        notes=(*notes, *_flags(usable)),
    )


def _detectable(logs: list[list[float]], margin: float, power: float) -> float:
    from scipy.special import nctdtrinc, ndtri

    sessions, k = len(logs), min(len(values) for values in logs)
    within = fmean(variance(values) for values in logs)
    between = variance([median(values) for values in logs]) if sessions > 1 else 0.0
    level = (1 + CONFIDENCE) / 2
    if sessions >= FEWEST_SESSIONS:
        error = math.sqrt(between / sessions + max(between, within / k))
        distance = float(nctdtrinc(sessions - 1, 1 - power, _t_quantile(sessions - 1, level))) * error
        return math.expm1(math.log1p(max(margin, math.sqrt(between))) + distance)
    error = math.sqrt(within / k * (1 + 1 / sessions))
    scatter = math.sqrt(max(between, within / k) * (1 + 1 / sessions))
    distance = _t_quantile(k * (sessions + 1) - 2, level) * error + float(ndtri(power)) * scatter
    return math.expm1(math.log1p(margin) + distance)
