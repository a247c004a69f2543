"""Contestants: engines and PyTorch, timed in fresh processes that take turns."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file

from harness.backends import BACKENDS, Engine, TapSession, read_kernels
from harness.errors import EngineFailed, NotJudged, ParityError
from harness.latency.kernels import digest, join_kernels, node_modules
from harness.latency.measure import kernel_times
from harness.latency.processes import Worker
from harness.latency.sizes import Sizes, resized, size_label
from harness.machine import NOT_LOCKED, machine, open_gpu
from harness.records import KernelTime, NotMeasured, ProcessRun, Runner, Session
from harness.subject import PLAIN_PRECISIONS, Subject
from harness.tensors import Tensors
from harness.verify import OpenTarget, Run

PROCESSES = 5
MOST_PROCESSES = 15
"""An inconclusive comparison gets more processes, up to so many."""
AT_ONCE = 16
"""Processes that wait at a time, imports done, for their turn: each holds some hundred MB."""
BASELINES: Mapping[str, tuple[Runner, str]] = {
    "eager-fp32": ("eager", "fp32"),
    "eager-tf32": ("eager", "tf32"),
    "eager-fp16": ("eager", "fp16"),
    "eager-bf16": ("eager", "bf16"),
    "compile": ("compile", "fp32"),
    "compile-fp16": ("compile", "fp16"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to measure."""

    processes: int = PROCESSES
    baselines: tuple[str, ...] | None = None
    """Names of ``BASELINES``; None for eager FP32, and on a GPU eager FP16 and torch.compile as well."""
    graph: bool = True
    """Replay a CUDA graph of the engine; PyTorch runs as it is."""
    l2: Literal["warm", "flush"] = "warm"
    throughput: bool = True
    kernels: bool = False
    """Time every kernel as well."""
    record: bool = True
    lock_clocks: int | None = None
    """MHz; None leaves the clocks alone."""
    suites: Path = Path("suites")
    """Where a process looks for the subject that is a suite's name."""
    locator: str = ""
    """What a process finds the subject by, where that is neither its own locator nor its name."""
    effort: Mapping[str, Any] | None = None
    """Times of ``latency_sampling.Effort`` that are to be others; None for its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One contestant: an engine, or PyTorch in one way."""

    backend: str
    precision: str
    runner: Runner
    device_name: str
    """A GPU's name, or ``CPU``."""
    version: str
    """Of the backend."""
    opened: OpenTarget | None = None
    """None for a baseline, which is measured to compare with and not judged."""
    engine: Engine | None = None
    kernels_sha256: str = ""

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return "cpu" if self.device_name == "CPU" else "cuda"

    @property
    def name(self) -> str:
        """``rtx-fp16``, ``eager fp32``, ``compile fp32``."""
        return f"{self.backend}-{self.precision}" if self.runner == "engine" else f"{self.runner} {self.precision}"


def open_entry(opened: OpenTarget) -> Entry:
    """Build or find a target's engine and return the contestant. Raises NotJudged where it cannot run here."""
    backend, target = opened.backend, opened.target
    if reason := backend.unavailable() or backend.cannot_run():
        raise NotJudged(reason)
    entry = Entry(
        backend=backend.name, precision=target.precision_name, runner="engine", device_name=opened.device_name,
        version=backend.version(), opened=opened,
    )  # fmt: skip
    if backend.name == "torch":
        if opened.run.subject.onnx is not None:
            raise NotJudged(f"PyTorch cannot be timed: {opened.run.subject.onnx} is an ONNX file, not a module")
        if target.precision not in PLAIN_PRECISIONS:
            raise NotJudged(f"PyTorch is timed in {', '.join(PLAIN_PRECISIONS)}, not by the plan {target.precision}")
        return replace(entry, runner="eager")
    engine, session = opened.build(), opened.load()
    kernels_sha256 = digest(session.kernels()) if isinstance(session, TapSession) else ""
    _free(opened)
    return replace(entry, engine=engine, kernels_sha256=kernels_sha256)


def baselines(subject: Subject, entries: Sequence[Entry], options: Options) -> list[Entry]:
    """Return the PyTorch baselines that are not among the contestants already; an ONNX file has none."""
    if not entries or subject.onnx is not None:
        return []
    names = options.baselines
    if names is None:
        names = ("eager-fp32", "eager-fp16", "compile") if entries[0].device == "cuda" else ("eager-fp32",)
    present = {(entry.runner, entry.precision) for entry in entries}
    wanted = [BASELINES[name] for name in dict.fromkeys(names)]
    return [
        Entry(
            backend="torch", precision=precision, runner=runner, device_name=entries[0].device_name,
            version=BACKENDS["torch"].version(),
        )
        for runner, precision in wanted
        if (runner, precision) not in present
    ]  # fmt: skip


def not_measured(
    subject: Subject, case: str, sizes: Sizes, backend: str, precision: str, error: ParityError,
    *, runner: Runner = "engine", baseline: bool = False,
) -> NotMeasured:  # fmt: skip
    """Return why one contestant has no figures; an engine that misbehaves has failed, a baseline never."""
    return NotMeasured(
        subject=subject.name, case=case, backend=backend, precision=precision, runner=runner, sizes=dict(sizes),
        reason=str(error), failed=isinstance(error, EngineFailed) and not baseline, baseline=baseline,
    )  # fmt: skip


class Group:
    """Contestants at one case and size: their processes, and what these found."""

    def __init__(self, run: Run, entries: Sequence[Entry], case: str, sizes: Sizes, options: Options) -> None:
        self.run, self.entries, self.case, self.sizes, self.options = run, list(entries), case, dict(sizes), options
        self.runs: dict[Entry, list[ProcessRun]] = {entry: [] for entry in entries}
        self.problems: dict[Entry, NotMeasured] = {}
        self._ids = {entry: uuid.uuid4().hex for entry in entries}

    @cached_property
    def inputs(self) -> Tensors:
        """The case's inputs at these sizes."""
        return resized(self.run.prepared.inputs[self.case], self.run.subject.dynamic, self.sizes)

    def measured(self) -> list[Entry]:
        """Return the contestants that have figures: at least two processes, and none that failed."""
        return [entry for entry in self.entries if entry not in self.problems and len(self.runs[entry]) > 1]

    def extendable(self) -> list[Entry]:
        """Return the contestants that may get more processes."""
        return [entry for entry in self.measured() if self.left(entry) > 0]

    def left(self, entry: Entry) -> int:
        """Return how many processes a contestant may still get."""
        return MOST_PROCESSES - len(self.runs[entry])

    def take_turns(self, rounds: int, only: Sequence[Entry] = ()) -> None:
        """Measure in fresh processes, forwards in one round and backwards in the next; failures become problems."""
        entries = [entry for entry in only or self.entries if entry not in self.problems]
        order = list(turns(entries, rounds))
        with tempfile.TemporaryDirectory(prefix="parity-bench-") as folder:
            inputs = Path(folder) / "inputs.safetensors"
            # safetensors takes no tensors that share memory, and one input may be given under two names.
            save_file({name: tensor.cpu().contiguous().clone() for name, tensor in self.inputs.items()}, inputs)
            for start in range(0, len(order), AT_ONCE):
                requests = [
                    (order[number], self._request(order, number, inputs, Path(folder) / f"{number}.json"))
                    for number in range(start, min(start + AT_ONCE, len(order)))
                ]
                self._run_processes(requests)

    def _run_processes(self, requests: Sequence[tuple[Entry, dict[str, Any]]]) -> None:
        """Start all, wait until their imports are done, and let them measure one at a time."""
        with contextlib.ExitStack() as stack:
            if self.options.lock_clocks is not None and any(entry.device == "cuda" for entry, _ in requests):
                stack.callback(_free_clocks)  # a process that dies, or is ended, leaves its GPU locked
            workers = []
            for entry, request in requests:
                worker = Worker(request)
                stack.callback(worker.close)
                workers.append((entry, worker))
            for entry, worker in workers:
                self._guard(entry, worker.ready)
            for entry, worker in workers:
                if entry not in self.problems:
                    self._guard(entry, partial(self._measure, entry, worker))

    def _measure(self, entry: Entry, worker: Worker) -> None:
        worker.go()
        run = worker.result()
        self.runs[entry].append(run)
        summary = run.gpu_ms or run.end_to_end_ms
        self._say(f"{entry.name}: process {len(self.runs[entry])}, {summary.median:.4g} ms")

    def _guard(self, entry: Entry, step: Callable[[], None]) -> None:
        try:
            step()
        except ParityError as error:
            if entry not in self.problems:
                self.problems[entry] = self._problem(entry, error)

    def _problem(self, entry: Entry, error: ParityError) -> NotMeasured:
        return not_measured(
            self.run.subject, self.case, self.sizes, entry.backend, entry.precision, error, runner=entry.runner,
            baseline=entry.opened is None,
        )  # fmt: skip

    def _request(self, order: Sequence[Entry], number: int, inputs: Path, result: Path) -> dict[str, Any]:
        subject, options, entry = self.run.subject, self.options, order[number]
        # No verdict is about the throughput, so one process of a session is enough for it.
        loaded = options.throughput and not self.runs[entry] and entry not in order[:number]
        locator = options.locator or subject.locator or subject.name
        where = {"locator": locator, "suites": str(options.suites.resolve())}
        return {
            "runner": entry.runner,
            "backend": entry.backend,
            "precision": entry.precision,
            "engine": str(entry.engine.path.resolve()) if entry.engine else "",
            "subject": where if entry.runner != "engine" else None,
            "inputs": str(inputs),
            "device": entry.device,
            "graph": self._graph(entry),
            "l2": options.l2,
            "throughput": loaded,
            "lock_clocks": options.lock_clocks,
            "effort": dict(options.effort) if options.effort else None,
            "result": str(result),
        }

    def _graph(self, entry: Entry) -> bool:
        return self.options.graph and entry.device == "cuda" and entry.runner == "engine"

    def session(self, entry: Entry) -> Session:
        """Return what the processes of one contestant found, as a record."""
        subject, runs, engine = self.run.subject, self.runs[entry], entry.engine
        short = f"interrupted after {len(runs)} of {self.options.processes} processes"
        return Session(
            id=self._ids[entry],
            recorded_at=datetime.now(UTC).isoformat(timespec="microseconds"),
            subject=subject.name,
            case=self.case,
            backend=entry.backend,
            precision=entry.precision,
            runner=entry.runner,
            sizes=self.sizes,
            graph=self._graph(entry),
            l2=self.options.l2,
            runs=tuple(runs),
            machine=machine(entry.backend, entry.version, entry.device == "cuda", locked_mhz=self._locked_mhz(runs)),
            engine_sha256=engine.sha256 if engine else "",
            engine_bytes=engine.bytes if engine else None,
            kernels_sha256=entry.kernels_sha256,
            weights=subject.weights,
            inputs=subject.inputs,
            device=entry.device_name,
            commit=self.run.commit,
            versions={"torch": BACKENDS["torch"].version(), entry.backend: entry.version},
            notes=(short,) if len(runs) < self.options.processes else (),
        )

    def _locked_mhz(self, runs: Sequence[ProcessRun]) -> int | None:
        """Return the clock that all processes were held at: one that was only asked for would be another machine."""
        free = any(flag.startswith(NOT_LOCKED) for run in runs for flag in run.flags)
        return None if free else self.options.lock_clocks

    def kernels(self, entry: Entry) -> tuple[KernelTime, ...]:
        """Return the time of every kernel of an engine; nothing, said once, where the backend has no profiler."""
        if entry.engine is None or entry.opened is None:
            return ()
        opened = entry.opened
        try:
            session = opened.load()
            self._say(f"{entry.name}: timing its kernels")
            times = opened.steps.run("profiling", lambda: kernel_times(session, self.inputs))
            known = read_kernels(session.kernels()) if isinstance(session, TapSession) else []
            nodes = {kernel.name: kernel.nodes for kernel in known}
            return join_kernels(times, nodes, node_modules(self.run.prepared.program))
        except ParityError as error:
            self._say(f"{entry.name}: no times of kernels: {error}")
            return ()
        finally:
            _free(opened)

    def _say(self, words: str) -> None:
        label = size_label(self.sizes)
        self.run.settings.progress(f"{self.run.subject.name}/{self.case}{f' {label}' if label else ''} {words}")


def turns(entries: Sequence[Entry], rounds: int) -> Iterator[Entry]:
    """Yield A B B A A B ...: every round once through the contestants, every second one backwards."""
    for number in range(rounds):
        yield from entries if number % 2 == 0 else reversed(entries)


def _free_clocks() -> None:
    """Let the GPU's clocks go, whoever locked them."""
    with open_gpu(torch.device("cuda", torch.cuda.current_device())) as gpu:
        gpu.free_clocks()


def _free(opened: OpenTarget) -> None:
    """Free the engine while others measure; one that is not cached would be deleted, so it stays."""
    if opened.run.settings.engine_cache:
        opened.free()
