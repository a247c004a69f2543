"""What is timed: contestants, each an engine or PyTorch in one way, on a workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from harness.backends import BACKENDS, Engine, Kernel, TapSession, key_hash, lost_gpu
from harness.errors import EngineFailed, NotJudged, ParityError, TookTooLong, UsageError
from harness.latency.options import BASELINES, Options
from harness.latency.sizes import Sizes, resized, size_label
from harness.records import Attempt, NotMeasured, Runner, Verdict, contestant_name
from harness.sentences import Sentence
from harness.subject import PLAIN_PRECISIONS, Subject
from harness.tensors import Tensors
from harness.verify import OpenTarget, Run


@dataclass(frozen=True, kw_only=True, eq=False)
class Contestant:
    """An engine, or PyTorch in one way."""

    backend: str
    precision: str
    runner: Runner
    device_name: str
    """A GPU's name, or ``CPU``."""
    version: str
    """Of the backend."""
    plan_source: str = ""
    """Which plan file the precision is; empty for a plain one."""
    opened: OpenTarget | None = None
    """None for a baseline, which gets no verdict."""
    engine: Engine | None = None
    kernels_sha256: str = ""
    failed: tuple[Attempt, ...] = ()
    """The attempts to make it ready that failed before."""
    is_control: bool = False
    """Whether it is the accepted engine, that a new one is measured in turns with."""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.device_name == "CPU" else "cuda"

    @property
    def name(self) -> str:
        """``rtx-fp16``, ``rtx-fp16 as accepted``, ``eager fp32``, ``compile fp32``."""
        name = contestant_name(self.runner, self.backend, self.precision)
        return Sentence("as_accepted", name=name) if self.is_control else name

    @property
    def is_baseline(self) -> bool:
        """Whether it is PyTorch as a baseline."""
        return self.opened is None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """One case of a subject at one size."""

    run: Run
    case: str
    sizes: Sizes

    @cached_property
    def inputs(self) -> Tensors:
        """The case's inputs at these sizes."""
        return resized(self.run.prepared.inputs[self.case], self.subject.dynamic, self.sizes)

    @property
    def subject(self) -> Subject:
        """The subject."""
        return self.run.subject

    def say(self, words: str) -> None:
        """Print a line of progress."""
        label = size_label(self.sizes)
        self.run.settings.progress(f"{self.subject.name}/{self.case}{f' {label}' if label else ''} {words}")

    def not_measured(
        self,
        error: ParityError,
        *,
        backend: str,
        precision: str,
        plan_source: str = "",
        runner: Runner = "engine",
        baseline: bool = False,
        failed_attempts: tuple[Attempt, ...] = (),
    ) -> NotMeasured:
        """Return why a contestant has no figures; EngineFailed makes it a failure, except of a baseline."""
        return NotMeasured(
            subject=self.subject.name, source=self.subject.source, case=self.case, backend=backend,
            precision=precision, plan_source=plan_source, runner=runner,
            sizes=dict(self.sizes), reason=str(error), failed=isinstance(error, EngineFailed) and not baseline,
            baseline=baseline, failure=error.failure, limit=error.option if isinstance(error, TookTooLong) else "",
            failed_attempts=failed_attempts,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NotOpened:
    """An engine that could not be made ready."""

    error: ParityError
    failed: tuple[Attempt, ...]
    """The attempts that failed before."""


def open_contestant(opened: OpenTarget) -> Contestant | NotOpened:
    """Return the contestant, its engine built or found, or why there is none, after all attempts that it may have.

    Raises UsageError, which concerns more than this target.
    """
    settings, failed = opened.run.settings, list[Attempt]()
    while True:
        try:
            return replace(_open_contestant(opened), failed=tuple(failed))
        except UsageError:
            raise
        except ParityError as error:
            if len(failed) == settings.retries or error.failure not in settings.retry_on or lost_gpu():
                return NotOpened(error=error, failed=tuple(failed))
            failed.append(attempt_of(error))
            opened.say(f"attempt {len(failed)} of {settings.retries + 1} ended ({error.failure}): {error}")
            opened.renew(anew=error.failure == "timeout")


def attempt_of(error: ParityError) -> Attempt:
    """Return the record of an attempt that ended in an error."""
    verdict: Verdict = "fail" if isinstance(error, EngineFailed) else "not_judged"
    return Attempt(verdict=verdict, failure=error.failure, reason=str(error))


def _open_contestant(opened: OpenTarget) -> Contestant:
    backend, target = opened.backend, opened.target
    if reason := backend.unavailable() or backend.cannot_run():
        raise NotJudged(reason)
    contestant = Contestant(
        backend=backend.name, precision=target.precision_name, runner="engine", device_name=opened.device_name,
        version=backend.version(), opened=opened, plan_source=opened.plan_source,
    )  # fmt: skip
    if backend.name == "torch":
        if opened.run.subject.onnx is not None:
            raise NotJudged(Sentence("pytorch_onnx_file", onnx_file=opened.run.subject.onnx_file))
        if target.precision not in PLAIN_PRECISIONS:
            raise NotJudged(Sentence("pytorch_plan", precisions=list(PLAIN_PRECISIONS), precision=target.precision))
        return replace(contestant, runner="eager")
    engine, session = opened.build(), opened.load()
    sha256 = kernels_sha256(session.kernels()) if isinstance(session, TapSession) else ""
    free_engine(opened)
    return replace(contestant, engine=engine, kernels_sha256=sha256)


def baselines(subject: Subject, contestants: Sequence[Contestant], options: Options) -> list[Contestant]:
    """Return the PyTorch baselines that are not contestants already; none for an ONNX file."""
    if not contestants or subject.onnx is not None:
        return []
    names = options.baselines
    if names is None:
        names = ("eager-fp32", "eager-fp16", "compile") if contestants[0].device == "cuda" else ("eager-fp32",)
    present = {(contestant.runner, contestant.precision) for contestant in contestants}
    wanted = [BASELINES[name] for name in dict.fromkeys(names)]
    return [
        Contestant(
            backend="torch", precision=precision, runner=runner, device_name=contestants[0].device_name,
            version=BACKENDS["torch"].version(),
        )
        for runner, precision in wanted
        if (runner, precision) not in present
    ]  # fmt: skip


def free_engine(opened: OpenTarget) -> None:
    """Free the engine while others measure; without the cache that would delete its file, so it stays loaded."""
    if opened.keeps:
        opened.free()


def kernels_sha256(kernels: Sequence[Kernel]) -> str:
    """Return a hash of an engine's kernels, their names and tactics; empty for none."""
    return key_hash({"kernels": [[kernel.name, *kernel.tactic] for kernel in kernels]}) if kernels else ""
