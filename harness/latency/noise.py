"""The smallest change that a machine can show, from sessions of one unchanged engine."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

from harness.errors import NotJudged
from harness.latency.benchmark import repeat
from harness.latency.comparable import flag_notes, graph_modes, log_figures, why_unusable
from harness.latency.contestants import Workload
from harness.latency.estimate import (
    CONFIDENCE,
    FEWEST_SESSIONS,
    POWER,
    Limits,
    qn,
    smallest_change,
    t_quantile,
    variance,
)
from harness.latency.options import Options
from harness.latency.sizes import Sizes, case_label, check_sizes
from harness.latency.verdict import compare_sessions
from harness.records import Measured, Metric, NotMeasured, Session, contestant_name, plain
from harness.sentences import Sentence, joined
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.verify import Run

_ALONE = Sentence("one_session_only")


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The spreads of one unchanged engine on one machine, all relative, and the smallest change they show."""

    benchmark: str
    target: str
    """Engine, case and sizes, for the reader."""
    device: str
    """A GPU's name, or ``CPU``."""
    ms: float
    """Mean over the sessions of their times."""
    sd_within: float
    """Of single runs in one process: root mean square of the coefficients of variation."""
    sd_process: float
    """Of process medians in one session, pooled, including the sampling error of the medians."""
    sd_session: float | None
    """Between sessions, without the part of their processes (one-way random effects); None with one session."""
    smallest_change: float
    """Slow-down that is called ``regressed`` nine times in ten, with these sessions as the baseline."""
    sessions: int
    processes: int
    """Per session; the fewest, where they differ."""
    verdicts: dict[str, int] = field(default_factory=dict)
    """How often each verdict came out over all pairs of sessions; filled by ``noise_report``."""
    notes: tuple[str, ...] = ()
    """Which sessions were left out and why, and flags of the others."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        data: dict[str, Any] = plain(dataclasses.asdict(self))
        return data


def measure_noise(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    sizes: Sequence[Sizes],
    sessions: int,
    options: Options,
) -> Iterator[Measured | NotMeasured]:
    """Yield sessions of every engine in succession, none of them recorded."""
    for size in sizes:
        check_sizes(subject, size)
    run = Run(subject, settings)
    options = dataclasses.replace(options, throughput=False, record=False)
    for target in targets:
        with run.target(target) as opened:
            for case, size in itertools.product(cases, sizes):
                workload = Workload(run=run, case=case, sizes=size)
                yield from repeat(opened, workload, options, sessions=sessions)


def noise_report(found: Sequence[Measured | NotMeasured], *, complete: bool) -> dict[str, list[dict[str, Any]]]:
    """Return the noise of every engine as JSON: ``aa``, ``not_measured`` and ``sessions`` (docs/json.md).

    In a complete run an engine with a single session is reported as not measured.
    """
    series: dict[tuple[str, str], list[Session]] = {}
    for item in found:
        if isinstance(item, Measured):
            series.setdefault((item.session.benchmark, item.session.machine.key), []).append(item.session)
    rows = []
    without_figures = [item for item in found if isinstance(item, NotMeasured)]
    for same in series.values():
        if len(same) > 1:
            try:
                rows.append(dataclasses.replace(noise_of(same), verdicts=_pair_verdicts(same)))
            except NotJudged as error:  # all in an invalid environment
                without_figures.append(_not_measured(same[0], str(error)))
        elif complete:
            without_figures.append(_not_measured(same[0], _ALONE))
    sessions = [session for same in series.values() for session in same]
    parts: dict[str, Sequence[Noise | NotMeasured | Session]] = {
        "aa": rows, "not_measured": without_figures, "sessions": sessions,
    }  # fmt: skip
    return {name: [item.to_json() for item in items] for name, items in parts.items()}


def noise_of(sessions: Sequence[Session]) -> Noise:
    """Return the spreads of one unchanged engine, and the smallest slow-down that ``compare_sessions`` would find.

    With four sessions or more, the ratio of distance to standard error follows Student's noncentral t; the change is
    where its probability to exceed the limit is ``POWER``. With fewer, the interval over processes is widened by the
    normal quantile of ``POWER`` times the spread of both levels. It is an estimate: with four sessions the spread
    between sessions is known to about 40 %. Raises ValueError for sessions of several benchmarks or machines and
    NotJudged when none can be used.
    """
    if len({(session.benchmark, session.machine.key) for session in sessions}) > 1:
        raise ValueError("noise is that of one benchmark on one machine")
    chosen: Metric = "gpu_ms" if all(s.metric == "gpu_ms" for s in sessions) else "end_to_end_ms"
    usable, notes = _usable(sessions, chosen)
    for name in ("engine_sha256", "kernels_sha256"):
        if len({getattr(session, name) for session in usable}) > 1:
            notes.append(Sentence("engine_changed_between", name=name))
    if len(usable) < FEWEST_SESSIONS:
        notes.append(Sentence("few_for_spread", count=len(usable), least=FEWEST_SESSIONS))
    logs = [log_figures(session, chosen, "median") for session in usable]
    k = min(len(values) for values in logs)
    within = fmean(variance(values) for values in logs)
    means = variance([fmean(values) for values in logs]) if len(logs) > 1 else None
    first = sessions[0]
    return Noise(
        benchmark=first.benchmark,
        target=f"{contestant_name(first.runner, first.backend, first.precision)} {case_label(first.case, first.sizes)}",
        device=first.device,
        ms=fmean(median(session.medians(chosen)) for session in usable),
        sd_within=math.sqrt(fmean(getattr(run, chosen).cv ** 2 for session in usable for run in session.runs)),
        sd_process=math.sqrt(within),
        sd_session=None if means is None else math.sqrt(max(means - within / k, 0.0)),
        smallest_change=_detectable(logs),
        sessions=len(usable),
        processes=k,
        notes=(*notes, *flag_notes(usable)),
    )


def _pair_verdicts(sessions: Sequence[Session]) -> dict[str, int]:
    """Return how often each verdict comes out when every session is compared with every earlier one."""
    pairs = itertools.combinations(sessions, 2)
    return dict(Counter(compare_sessions(new, [old]).verdict for old, new in pairs))


def _usable(sessions: Sequence[Session], metric: Metric) -> tuple[list[Session], list[str]]:
    """Return the valid sessions, and notes on the others. Raises NotJudged where there is none."""
    sound = [session for session in sessions if not why_unusable(session, metric)]
    flaws = {
        session.id: why_unusable(session, metric) or _other_graph(session, sound[0], metric) for session in sessions
    }
    notes: list[str] = [Sentence("session_left_out", name=name, flaw=flaw) for name, flaw in flaws.items() if flaw]
    if not sound:
        raise NotJudged(Sentence("no_spread", notes=joined(notes) or Sentence("none_measured")))
    return [session for session in sessions if not flaws[session.id]], notes


def _not_measured(session: Session, reason: str) -> NotMeasured:
    return NotMeasured(
        subject=session.subject, case=session.case, backend=session.backend, precision=session.precision,
        source=session.source, plan_source=session.plan_source, runner=session.runner, sizes=session.sizes,
        reason=reason,
    )  # fmt: skip


def _other_graph(session: Session, first: Session, metric: Metric) -> str:
    """Return that only one of them replayed a CUDA graph, or an empty string."""
    if metric != "gpu_ms" or graph_modes(session) == graph_modes(first):
        return ""
    return Sentence("not_both_replay", id=first.id)


def _detectable(logs: list[list[float]]) -> float:
    from scipy.special import ndtri

    sessions, k = len(logs), min(len(values) for values in logs)
    if sessions >= FEWEST_SESSIONS:
        within = math.sqrt(median(variance(values) for values in logs))
        return smallest_change(qn([median(values) for values in logs]), within, k, sessions, Limits())
    within = fmean(variance(values) for values in logs)
    between = variance([median(values) for values in logs]) if sessions > 1 else 0.0
    error = math.sqrt(within / k * (1 + 1 / sessions))
    scatter = math.sqrt(max(between, within / k) * (1 + 1 / sessions))
    distance = t_quantile(k * (sessions + 1) - 2, (1 + CONFIDENCE) / 2) * error + float(ndtri(POWER)) * scatter
    return math.expm1(math.log1p(Limits().regress) + distance)
