"""Latency as data: what one process measured, what one session recorded, and how two sessions compare.

All times are milliseconds. docs/json.md documents the JSON; docs/measuring.md says how the figures come about.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from harness.errors import Failure
from harness.machine import Machine
from harness.records.accuracy import Attempt
from harness.records.data import JsonRecord, TargetRecord, plain
from harness.records.known import Known

LatencyVerdict = Literal[
    "regressed",
    "improved",
    "equivalent",
    "inconclusive",
    "machine_changed",
    "slower_clock",
    "invalid_environment",
    "no_baseline",
]
Runner = Literal["engine", "eager", "compile"]
Metric = Literal["gpu_ms", "end_to_end_ms"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One sample of times, summarised. Percentiles are None where the sample is too small to carry them."""

    n: int
    """Number of times."""
    median: float
    """In milliseconds, as all of them."""
    low: float
    """Lower end of the 95 % confidence interval of the median, from order statistics."""
    high: float
    """Upper end of it."""
    mean: float
    """Arithmetic mean."""
    minimum: float
    """The shortest."""
    cv: float
    """Standard deviation over mean."""
    p90: float | None = None
    """From 100 samples on."""
    p95: float | None = None
    """From 200 samples on."""
    p99: float | None = None
    """From 1000 samples on."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """What the device did while one process measured; None where the driver does not tell."""

    sm_mhz: float | None = None
    """Mean SM clock over the blocks."""
    memory_mhz: float | None = None
    """Mean memory clock over the blocks."""
    power_w: float | None = None
    """Mean power over the blocks."""
    temperature_c: float | None = None
    """Mean temperature over the blocks."""
    power_capped: bool = False
    """The power limit slowed the clock: part of normal operation, but a baseline must agree on it."""
    discarded_blocks: int = 0
    """Blocks thrown away because the hardware slowed itself down."""


@dataclass(frozen=True, kw_only=True)
class ProcessRun:
    """One fresh process that loaded one engine (or module) and timed it. The process is the unit of statistics."""

    started_at: str
    """UTC, ISO 8601."""
    gpu_ms: Summary | None
    """Between CUDA events around the launch; None on the CPU."""
    end_to_end_ms: Summary
    """Host clock, one run at a time: inputs to the device, run, outputs back."""
    enqueue_ms: Summary | None
    """Host time to launch one run without a CUDA graph; None on the CPU."""
    throughput_per_s: float | None = None
    """Runs per second under load, which the first process of a session measures; None for the others."""
    streams: int = 1
    """Contexts or streams that made the load."""
    graph: bool = False
    """Whether ``gpu_ms`` was measured by replaying a CUDA graph."""
    graph_failure: str = ""
    """Why the capture failed, where it was asked for and failed."""
    inner: int = 1
    """Runs between one pair of events, so that a sample is long enough to be measured."""
    warm_up_ms: float = 0.0
    """Time spent on runs that do not count."""
    load_ms: float = 0.0
    """Time to load the engine or module."""
    first_sample_ms: float | None = None
    """From the start of the process to its first sample, without the wait for its turn; None where not known."""
    device_bytes: int | None = None
    """GPU memory that loading and running took; None where it cannot be told."""
    locked_mhz: int | None = None
    """Clock that the GPU's multiprocessors were held at; None where they were free."""
    conditions: Conditions = field(default_factory=Conditions)
    """What the device did meanwhile."""
    flags: tuple[str, ...] = ()
    """What a reader must know: ``warm-up unstable``, ``unstable`` (CV above 2.5 %), ``clock jumped``."""
    invalid: tuple[str, ...] = ()
    """Sentences why these figures say nothing of the engine: a foreign process, throttling; empty when they count."""


def contestant_name(runner: Runner, backend: str, precision: str) -> str:
    """Return ``rtx-fp16`` for an engine, ``eager fp32`` or ``compile fp32`` for PyTorch."""
    return f"{backend}-{precision}" if runner == "engine" else f"{runner} {precision}"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One measurement of one engine (or module) at one size: several processes, one record of the history."""

    id: str
    """Unique; a session is never written twice."""
    recorded_at: str
    """UTC, ISO 8601."""
    subject: str
    """The subject's name."""
    case: str
    """The case's name."""
    backend: str
    """As after ``-b``; ``torch`` for PyTorch eager and compiled."""
    precision: str
    """A plain precision, or the stem of a plan file."""
    source: str = ""
    """As in a result: another file that declares a subject of this name is another series."""
    plan_source: str = ""
    """The same of the plan."""
    runner: Runner = "engine"
    """``engine``, or how PyTorch ran: ``eager`` or ``compile``."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of the dynamic dimensions by symbol, such as ``{"batch": 4}``; empty for the case as it is."""
    graph: bool = False
    """Whether CUDA graphs were asked for."""
    l2: Literal["warm", "flush"] = "warm"
    """Whether the L2 cache was left warm or flushed between runs."""
    runs: tuple[ProcessRun, ...] = ()
    """The processes, in the order they ran."""
    machine: Machine
    """What it was measured on."""
    engine_sha256: str = ""
    """Hash of the engine file; empty for PyTorch."""
    engine_bytes: int | None = None
    """Size of the engine file; None for PyTorch."""
    kernels_sha256: str = ""
    """Digest of the engine's kernels, where the backend tells: another digest is another engine."""
    weights: str = ""
    """``trained``, ``random`` or ``file``."""
    inputs: str = ""
    """``real`` or ``random``."""
    device: str = ""
    """A GPU's name, or ``CPU``."""
    commit: str = ""
    """The commit of the repository, with ``+changes``; empty outside git."""
    versions: dict[str, str] = field(default_factory=dict)
    """Versions by name: PyTorch and the backend."""
    notes: tuple[str, ...] = ()
    """What a reader must know beside the figures."""
    group: str = ""
    """The same for all sessions that were measured in turns; empty in records from before it was kept."""

    @property
    def benchmark(self) -> str:
        """What is measured, without machine and time: sessions of one benchmark are one series."""
        sizes = ",".join(f"{name}={size}" for name, size in sorted(self.sizes.items()))
        how = f"{'graph' if self.graph else 'no-graph'}/{self.l2}"
        named = f"{self.subject}/{self.case}[{sizes}]/{self.backend}-{self.precision}/{self.runner}/{how}"
        return "/".join(part for part in (named, self.source, self.plan_source) if part)

    @property
    def metric(self) -> Metric:
        """The figure that verdicts are about: GPU time, or on the CPU the time of one run."""
        return "gpu_ms" if self.runs and all(run.gpu_ms for run in self.runs) else "end_to_end_ms"

    @property
    def invalid(self) -> tuple[str, ...]:
        """Why the session's times do not count; empty when they do."""
        return tuple(dict.fromkeys(reason for run in self.runs for reason in run.invalid))

    def medians(self, metric: Metric | None = None) -> tuple[float, ...]:
        """Return the median of every process that counts, in milliseconds."""
        summaries = [getattr(run, metric or self.metric) for run in self.runs if not run.invalid]
        return tuple(summary.median for summary in summaries if summary is not None)

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys, and ``benchmark`` and ``metric`` beside the fields."""
        data: dict[str, Any] = plain({**dataclasses.asdict(self), "benchmark": self.benchmark, "metric": self.metric})
        return data


@dataclass(frozen=True, kw_only=True)
class Acceptance(JsonRecord):
    """Sessions that a person made the baseline, and why."""

    id: str
    """Unique."""
    accepted_at: str
    """UTC, ISO 8601."""
    benchmark: str
    """The series whose baseline it is, as ``Session.benchmark``."""
    machine_key: str
    """The machine whose baseline it is."""
    sessions: tuple[str, ...]
    """Ids."""
    why: str
    """The reason that was given."""
    who: str = ""
    """Who gave it; may be empty."""
    commit: str = ""
    """The commit of the repository, with ``+changes``; empty outside git."""


@dataclass(frozen=True, kw_only=True)
class SecondLook(JsonRecord):
    """A suspicious engine measured again in the same run, in turns (A B B A) with a control."""

    control: str
    """``accepted engine``, or PyTorch by the name of the contestant, such as ``eager fp32``."""
    control_sha256: str = ""
    """Of the accepted engine's file; empty for PyTorch."""
    processes: int
    """Fresh ones of each side."""
    ratio: float
    """Engine over control; with PyTorch over the same ratio when the baseline was accepted. Above 1 is slower."""
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end of it."""
    p_value: float
    """Of a slow-down beyond the margin; at most the design's error rate where it is confirmed."""
    control_ratio: float | None = None
    """The control's time now over that of the baseline: away from 1 the machine has changed; None where not known."""


@dataclass(frozen=True, kw_only=True)
class Age(JsonRecord):
    """What became of a series since its baseline was accepted, the new session left out."""

    days: float
    """Between the newest accepted session and the new one."""
    sessions: int
    """Valid ones recorded since."""
    change: float | None = None
    """Median of the last few of them over that of the baseline, less 1; None where there is none."""
    trend: float | None = None
    """Change from the baseline to the last by a line through all, where it is one (Mann-Kendall); None where not."""


@dataclass(frozen=True, kw_only=True)
class Comparison(JsonRecord):
    """One session against a baseline, or one engine against another in the same session."""

    verdict: LatencyVerdict
    """What the rule decided."""
    ratio: float | None
    """New over old; above 1 is slower: of the second look, where there was one. None without a baseline."""
    low: float | None
    """Lower end of the 95 % interval of the ratio."""
    high: float | None
    """Upper end of it."""
    metric: str = ""
    """``gpu_ms``, ``end_to_end_ms``, or the same in clock cycles."""
    rule: str = ""
    """The rule that decided, with its numbers, in one sentence."""
    baseline: tuple[str, ...] = ()
    """Ids of the baseline's sessions."""
    repeated: bool = False
    """Whether a second look in the same run found it again: only then a regression is a failure."""
    notes: tuple[str, ...] = ()
    """``engine changed``, too few baseline sessions: what a reader must know."""
    p_value: float | None = None
    """One-sided, of a change beyond the margin in the direction seen; None where nothing was tested."""
    next_step: str = ""
    """What to do where the verdict is no clear answer; empty where it is one."""
    second_look: SecondLook | None = None
    """The second measurement; None where there was none."""
    age: Age | None = None
    """Of the baseline; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class KernelTime:
    """One kernel (or, on ONNX Runtime, node) of one engine."""

    name: str
    """The engine's own name for it."""
    ms: float
    """Median time of one run."""
    share: float
    """Of the sum over all kernels, which is more than the engine's own time: every kernel was timed apart."""
    module: str = ""
    """Dotted path of the PyTorch module that it computes; empty where it is not known."""
    nodes: tuple[str, ...] = ()
    """ONNX nodes inside it."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One session with its verdict, as ``parity bench`` and ``test_latency`` give it."""

    session: Session
    """What was measured."""
    comparison: Comparison
    """How it compares with the baseline."""
    speed_up: dict[str, float] = field(default_factory=dict)
    """Time of a PyTorch baseline over this one's, by name (``eager fp32``), measured in turns with it."""
    speed_up_intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """The 95 % interval of each."""
    kernels: tuple[KernelTime, ...] = ()
    """Slowest first; empty where nothing was profiled."""
    baseline: bool = False
    """Whether it is PyTorch that was only to be compared with: no verdict is about it."""
    next_step: str = ""
    """What to type next; empty where there is nothing."""
    owner: str = ""
    """As in a result."""
    known: Known | None = None
    """The entry of the ledger about this latency, whether it holds or not; None where there is none."""
    failed_attempts: tuple[Attempt, ...] = ()
    """The attempts that failed before this one."""

    def to_json(self) -> dict[str, Any]:
        """Return plain data with the documented keys."""
        return {
            "session": self.session.to_json(),
            "comparison": self.comparison.to_json(),
            "speed_up": plain(self.speed_up),
            "speed_up_intervals": plain(self.speed_up_intervals),
            "kernels": plain([dataclasses.asdict(kernel) for kernel in self.kernels]),
            "baseline": self.baseline,
            "next_step": self.next_step,
            "owner": self.owner,
            "known": self.known.to_json() if self.known else None,
            "failed_attempts": [dataclasses.asdict(attempt) for attempt in self.failed_attempts],
        }


def utc(text: str) -> str:
    """Return a time as UTC with microseconds, so that the order of the text is the order in time.

    A time without a zone is UTC. Raises ValueError for anything that is not a time in ISO 8601.
    """
    time = datetime.fromisoformat(text)
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True, kw_only=True)
class NotMeasured(TargetRecord):
    """What could not be timed, and why."""

    runner: Runner = "engine"
    """``engine``, or how PyTorch ran: ``eager`` or ``compile``."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes of the dynamic dimensions by symbol."""
    reason: str
    """One sentence."""
    failed: bool = False
    """Whether the engine itself misbehaved: that is a failure, not a missing figure."""
    baseline: bool = False
    """Whether it is PyTorch that was only to be compared with: no requirement is about it."""
    owner: str = ""
    """As in a result."""
    known: Known | None = None
    """The entry of the ledger because of which it was not launched; None for any other reason."""
    failure: Failure = ""
    """What class of failure it is, as of a verdict on outputs."""
    limit: str = ""
    """The option whose time was over; empty where none was."""
    failed_attempts: tuple[Attempt, ...] = ()
    """The attempts that failed before this one."""
