"""The ratio of two sets of times, its interval, and the verdict that follows.

The unit is one figure per process, never one run: the runs of a process share its clock, its memory layout and its
temperature, so tests over pooled runs call two equal engines different three times in four.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from harness.errors import UsageError
from harness.records import LatencyVerdict
from harness.sentences import Sentence

CONFIDENCE = 0.95
"""Of every interval; a one-sided error of 2.5 % in the direction that matters."""
FEWEST_SESSIONS = 4
"""Of a baseline; below it the spread between sessions is not known, and no regression counts."""
MOST_SESSIONS = 32
"""Of a baseline: it says nothing of more, which would take weeks."""
POWER = 0.9
"""Probability that the smallest change is found."""
WIDEST_LOG = 700.0
"""exp() of more overflows."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The margins of a change and of equivalence."""

    regress: float = 0.01
    """A regression is an interval above 1 + this, or above 1 + the spread between sessions where that is larger."""
    equivalent: float = 0.03
    """Equivalent is an interval within 1 / (1 + this) and 1 + this."""

    def __post_init__(self) -> None:
        if not (0 <= self.regress < 1 and 0 < self.equivalent < 1):  # NaN fails both
            raise UsageError(
                f"the margin of a regression is {self.regress} and that of equivalence {self.equivalent}; "
                "give fractions between 0 and 1, such as 0.01 and 0.03"
            )


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The logarithm of a ratio new / old, with its error."""

    delta: float
    error: float
    """Standard error of ``delta``."""
    freedom: float
    """Degrees of freedom of Student's t."""
    spread: float
    """Standard deviation between sessions; 0 where it is not known."""
    words: str
    """The kind of interval and its data."""

    def interval(self) -> tuple[float, float, float]:
        """Return the ratio and both ends of its 95 % interval."""
        half = t_quantile(self.freedom, (1 + CONFIDENCE) / 2) * self.error if self.error else 0.0
        low, high = max(self.delta - half, -WIDEST_LOG), min(self.delta + half, WIDEST_LOG)
        return math.exp(self.delta), math.exp(low), math.exp(high)

    def p_value(self, margin: float) -> float:
        """Return the one-sided p value of a ratio within the margin, in the direction of ``delta``."""
        beyond = abs(self.delta) - math.log(margin)
        if not self.error:
            return 0.0 if beyond > 0 else 1.0
        from scipy.special import stdtr

        return float(stdtr(self.freedom, -beyond / self.error))


def estimate_of(new: list[float], old: list[list[float]]) -> Estimate:
    """Return the estimate from log values per process, and per process and session of the baseline."""
    return _predict(new, old) if len(old) >= FEWEST_SESSIONS else welch(new, [value for s in old for value in s])


def _predict(new: list[float], old: list[list[float]]) -> Estimate:
    """Return the estimate by the prediction interval for one more session, from log values per process and session.

    Centre and spread are the median over the sessions and Qn, which one session in four cannot move. A session's own
    error is at least that of its processes, s_p / sqrt(k), with the larger s_p of the baseline and of itself.
    """
    values = [median(session) for session in old]
    between = qn(values)
    within = math.sqrt(max(median(variance(session) for session in old), variance(new)))
    words = Sentence("prediction_interval", count=len(old), between=between, count_2=len(new), within=within)
    return Estimate(
        delta=median(new) - median(values),
        error=prediction_error(between, within, len(new), len(old)),
        freedom=freedom(len(old)),
        spread=between,
        words=words,
    )


def prediction_error(between: float, within: float, processes: int, sessions: int) -> float:
    """Return the standard error of a new session's distance from the median of others."""
    of_median = between * math.sqrt(math.pi / 2 / sessions)
    return math.hypot(of_median, max(between, within / math.sqrt(processes)))


def qn(values: Sequence[float]) -> float:
    """Return the spread by the first quartile of all distances (Rousseeuw and Croux, JASA 1993), at least 2 values.

    Scaled so that its mean square is right for normal values: Student's t is about mean squares.
    """
    n = len(values)
    half = n // 2 + 1
    distances = sorted(abs(a - b) for i, a in enumerate(values) for b in values[i + 1 :])
    # Fitted to 400000 normal samples of each size from 4 to 60, within 3 %.
    scale = 2.21914 * n / (n + (1.8 if n % 2 else 4.6))
    return scale * distances[half * (half - 1) // 2 - 1]


def freedom(sessions: int) -> float:
    """Return the degrees of freedom with which Student's t holds its level on the scale of ``qn``, from 4 values on.

    Fitted to the 97.5 % quantiles of the same samples: 1.94 for 4 sessions, 3.2 for 6, 4.5 for 8, 9.8 for 16.
    """
    return 1.28 * (sessions // 2) - 0.62


def smallest_change(between: float, within: float, processes: int, sessions: int, limits: Limits) -> float:
    """Return the slow-down that stored times alone call ``regressed`` with ``POWER``: noncentral Student's t."""
    from scipy.special import nctdtrinc

    df = freedom(sessions)
    distance = float(nctdtrinc(df, 1 - POWER, t_quantile(df, (1 + CONFIDENCE) / 2)))
    error = prediction_error(between, within, processes, sessions)
    return math.expm1(math.log1p(max(limits.regress, between)) + distance * error)


def sessions_needed(between: float, within: float, processes: int, limits: Limits) -> int | None:
    """Return how many sessions of such a spread tell the margin of equivalence apart; None where no number does."""
    numbers = range(FEWEST_SESSIONS, MOST_SESSIONS + 1)
    fits = (n for n in numbers if smallest_change(between, within, processes, n, limits) <= limits.equivalent)
    return next(fits, None)


def welch(new: Sequence[float], old: Sequence[float]) -> Estimate:
    """Return the estimate from log values per process, at least two a side (Welch, Biometrika 1947)."""
    parts = variance(new) / len(new), variance(old) / len(old)
    total = sum(parts)
    bottom = parts[0] ** 2 / (len(new) - 1) + parts[1] ** 2 / (len(old) - 1)
    freedom = total**2 / bottom if bottom else float(len(new) + len(old) - 2)
    words = Sentence("welch_interval", count=len(new), count_2=len(old))
    delta = fmean(new) - fmean(old)
    return Estimate(delta=delta, error=math.sqrt(total), freedom=freedom, spread=0.0, words=words)


def decide(estimate: Estimate, limits: Limits) -> LatencyVerdict:
    """Return ``regressed``, ``improved``, ``equivalent`` or ``inconclusive``, by where the interval lies."""
    _, low, high = estimate.interval()
    margin, same = margin_of(estimate, limits), 1 + limits.equivalent
    if low > margin:
        return "regressed"
    if high < 1 / margin:
        return "improved"
    return "equivalent" if 1 / same < low and high < same else "inconclusive"


def margin_of(estimate: Estimate, limits: Limits) -> float:
    """Return the ratio beyond which a change counts: the margin, or the spread between sessions if larger."""
    return 1 + max(limits.regress, estimate.spread)


def ratio_words(estimate: Estimate) -> str:
    ratio, low, high = estimate.interval()
    return f"{ratio:.5g} [{low:.5g}, {high:.5g}]"


def rule_words(estimate: Estimate, limits: Limits, verdict: LatencyVerdict) -> str:
    """Return the rule that decided, with its figures, in one sentence."""
    margin, same = margin_of(estimate, limits), 1 + limits.equivalent
    where = {
        "regressed": Sentence("wholly_above", margin=margin),
        "improved": Sentence("wholly_below", margin=1 / margin),
        "equivalent": Sentence("within", same=1 / same, same_2=same),
    }.get(verdict, Sentence("neither_beyond", margin=1 / margin, margin_2=margin, same=1 / same, same_2=same))
    return Sentence("ratio_rule", ratio_words=ratio_words(estimate), words=estimate.words, where=where)


def advice_on(new: list[float], old: list[list[float]], limits: Limits) -> str:
    """Return why stored times were inconclusive and what would help, in one sentence, from log values per process."""
    if len(old) < FEWEST_SESSIONS:
        return Sentence("baseline_sessions", count=len(old), least=FEWEST_SESSIONS)
    between = qn([median(session) for session in old])
    usual, mine = median(math.sqrt(variance(session)) for session in old), math.sqrt(variance(new))
    if mine > 3 * usual and mine / math.sqrt(len(new)) > between:
        scatter = Sentence("processes_scatter", mine=mine, usual=usual)
        return Sentence("end_other_programs", scatter=scatter)
    return baseline_advice(between, usual, len(new), len(old), limits) or Sentence("measure_again")


def baseline_advice(between: float, within: float, processes: int, sessions: int, limits: Limits) -> str:
    """Return that a baseline of such spreads cannot tell the margin of equivalence, and what would; empty if it can."""
    change = smallest_change(between, within, processes, sessions, limits)
    if change <= limits.equivalent:
        return ""
    what = Sentence(
        "sessions_tell", sessions=sessions, between=between, within=within, change=change, equivalent=limits.equivalent
    )
    needed = sessions_needed(between, within, processes, limits)
    if needed is None:
        what = Sentence("sessions_more_no", what=what, most=MOST_SESSIONS)
        return Sentence("lock_clocks", what=what)
    return Sentence("sessions_more", what=what, needed=needed - sessions, needed_2=needed)


def hodges_lehmann(new: Sequence[float], old: Sequence[float]) -> float:
    """Return the median over all pairs of new - old (Hodges and Lehmann, Annals of Mathematical Statistics 1963)."""
    return median(a - b for a in new for b in old)


def variance(values: Sequence[float]) -> float:
    """Return the sample variance; that of ``statistics`` is exact and thirty times as slow."""
    mean = fmean(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)


def t_quantile(freedom: float, probability: float) -> float:
    """Return the quantile of Student's t with ``freedom`` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, probability))
