"""Contestants: an engine, or PyTorch in one way, each timed in fresh processes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from harness.backends import BACKENDS, Engine, Kernel, TapSession, key_hash
from harness.errors import NotJudged, ParityError, UsageError
from harness.latency.options import BASELINES, Options
from harness.records import Runner, contestant_name
from harness.subject import PLAIN_PRECISIONS, Subject
from harness.verify import OpenTarget


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
    opened: OpenTarget | None = None
    """None for a baseline, which is measured to compare with and gets no verdict."""
    engine: Engine | None = None
    kernels_sha256: str = ""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.device_name == "CPU" else "cuda"

    @property
    def name(self) -> str:
        """``rtx-fp16``, ``eager fp32``, ``compile fp32``."""
        return contestant_name(self.runner, self.backend, self.precision)

    @property
    def is_baseline(self) -> bool:
        """Whether it is PyTorch that is only compared with."""
        return self.opened is None


def open_contestant(opened: OpenTarget) -> Contestant | ParityError:
    """Return the contestant, its engine built or found, or why there is none. Raises UsageError.

    A UsageError is not about this target alone.
    """
    try:
        return _open_contestant(opened)
    except UsageError:
        raise
    except ParityError as error:
        return error


def _open_contestant(opened: OpenTarget) -> Contestant:
    backend, target = opened.backend, opened.target
    if reason := backend.unavailable() or backend.cannot_run():
        raise NotJudged(reason)
    contestant = Contestant(
        backend=backend.name, precision=target.precision_name, runner="engine", device_name=opened.device_name,
        version=backend.version(), opened=opened,
    )  # fmt: skip
    if backend.name == "torch":
        if opened.run.subject.onnx is not None:
            raise NotJudged(f"PyTorch cannot be timed: {opened.run.subject.onnx} is an ONNX file, not a module")
        if target.precision not in PLAIN_PRECISIONS:
            raise NotJudged(f"PyTorch is timed in {', '.join(PLAIN_PRECISIONS)}, not by the plan {target.precision}")
        return replace(contestant, runner="eager")
    engine, session = opened.build(), opened.load()
    sha256 = kernels_sha256(session.kernels()) if isinstance(session, TapSession) else ""
    free_engine(opened)
    return replace(contestant, engine=engine, kernels_sha256=sha256)


def baselines(subject: Subject, contestants: Sequence[Contestant], options: Options) -> list[Contestant]:
    """Return the PyTorch baselines that are not among the contestants already; an ONNX file has none."""
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
    """Free the engine while others measure; one that is not cached would be deleted, so it stays."""
    if opened.run.settings.engine_cache:
        opened.free()


def kernels_sha256(kernels: Sequence[Kernel]) -> str:
    """Return a hash of an engine's kernels, their names and tactics; empty for none."""
    return key_hash({"kernels": [[kernel.name, *kernel.tactic] for kernel in kernels]}) if kernels else ""
