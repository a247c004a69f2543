"""From a subject and a target to a verdict: the one module that knows the order of the steps."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness import compare, graph
from harness.backends import BACKENDS, RUNS_ON_CPU, RUNS_ON_GPU, BuildRequest, Engine, EngineCache, Session
from harness.compare import total_error
from harness.errors import EngineFailed, NotJudged, ParityError, UsageError, is_disk_full, unknown_name
from harness.graph import CODE_SHA256, Plan, is_fp32, load_plan, save_model, save_values, with_outputs
from harness.machine import commit
from harness.records import NOT_REPEATABLE, OutputResult, Result, Verdict, overall
from harness.reference import StaleReference
from harness.settings import Settings
from harness.subject import Subject, Target
from harness.tensors import Tensors
from harness.verify.judging import judge_outputs, next_step, provenance, worst_reason
from harness.verify.prepare import prepare
from harness.verify.prepared import Floor, Prepared


class Run:
    """One subject in one process: export, references and floors are computed once and shared by all targets."""

    def __init__(self, subject: Subject, settings: Settings) -> None:
        self.subject, self.settings = subject, settings
        self.cache = EngineCache(settings.engines, limit_bytes=settings.engine_cache_bytes)
        self._problem: ParityError | None = None
        self._floors: dict[tuple[str, str], Floor] = {}
        self._updated: set[str] = set()
        self.built = 0
        """Engines built by this run; those from the cache do not count."""

    @cached_property
    def _prepared(self) -> Prepared:
        return prepare(self.subject, self.settings)

    @property
    def prepared(self) -> Prepared:
        """The subject made ready; a failure is kept, so that ten targets do not fail ten times as slowly."""
        if self._problem is not None:
            raise self._problem
        try:
            return self._prepared
        except ParityError as error:
            self._problem = error
            raise

    @contextlib.contextmanager
    def target(self, target: Target) -> Iterator[TargetRun]:
        """Open a target; leaving frees its engine."""
        with contextlib.ExitStack() as stack:
            yield TargetRun(self, target, stack)

    def floor(self, case: str, plan: Plan) -> Floor:
        """Return a plan's floor, computed once per case."""
        key = (case, repr(plan))
        if key not in self._floors:
            self._floors[key] = self.prepared.floor(case, plan)
        return self._floors[key]

    def expected(self, case: str, plan: Plan) -> Tensors:
        """Return what a plan's engine is held against: FP64 for an FP32 engine, else the FP32 reference."""
        if self.settings.update_references and case not in self._updated:
            self.save_reference(case)
            self._updated.add(case)
        return self.prepared.reference(case, "fp64" if is_fp32(plan) else "fp32")

    def save_reference(self, case: str) -> Path:
        """Store the FP32 reference and the FP64 truth of a case, computed by this run, and return the file."""
        save = getattr(self.prepared, "save_reference", None)
        if save is None:
            name = self.subject.name
            raise UsageError(f"{name} is an ONNX file: its reference is computed by ONNX Runtime, never stored")
        path: Path = save(case, {"commit": self.commit})
        return path

    @cached_property
    def commit(self) -> str:
        """The commit of the working folder, asked once: git takes longer than a small engine."""
        return commit(Path.cwd())


class TargetRun:
    """One target of a run: the engine is built and loaded on first use."""

    def __init__(self, run: Run, target: Target, stack: contextlib.ExitStack) -> None:
        if target.backend not in BACKENDS:
            raise unknown_name("backend", target.backend, BACKENDS)
        self.run, self.target, self.stack = run, target, stack
        self.backend = BACKENDS[target.backend]
        self.plan = load_plan(target.precision)
        self.engine: Engine | None = None
        self.layers: int | None = None
        self.session: Session | None = None
        self.notes: list[str] = []
        self.spent_s: dict[str, float] = {}
        """Seconds spent so far on building (and exporting), loading, running and tapping engines."""
        self._problem: ParityError | None = None
        self._opened = False
        self._outputs: dict[str, tuple[Tensors, str]] = {}

    def judge(self, case: str) -> Result:
        """Return the verdict on one case. Raises UsageError only."""
        started, spent = time.perf_counter(), dict(self.spent_s)
        outputs: tuple[OutputResult, ...] = ()
        differ = ""
        notes: list[str] = []
        try:
            actual, differ = self._run_repeatedly(case)
            outputs, notes = judge_outputs(self, case, actual)
            verdict: Verdict = overall(output.verdict for output in outputs)
            reason = worst_reason(outputs, verdict)
            if differ:
                notes.append(differ)
                reason += f"; {differ}" if verdict == "fail" else ""
        except (EngineFailed, StaleReference) as error:
            verdict, reason = "fail", str(error)
        except NotJudged as error:
            verdict, reason = "not_judged", str(error)
        return Result(
            subject=self.run.subject.name,
            case=case,
            backend=self.target.backend,
            precision=self.target.precision_name,
            verdict=verdict,
            reason=reason,
            engine=dataclasses.replace(self.engine.info(), layers=self.layers) if self.engine else None,
            provenance=provenance(self, case),
            outputs=outputs,
            repeatable=not differ if self.backend.name != "torch" and case in self._outputs else None,
            notes=tuple(dict.fromkeys([*self.notes, *notes])),
            next_step=next_step(self, case) if verdict == "fail" else "",
            timings_s={"judge": time.perf_counter() - started, **self.spent_since(spent)},
        )

    def outputs(self, case: str) -> tuple[Tensors, Tensors] | None:
        """Return (actual, expected) outputs for task metrics, or None when the engine did not run."""
        try:
            return self._run_repeatedly(case)[0], self.run.expected(case, self.plan)
        except (EngineFailed, NotJudged, StaleReference):
            return None

    def build(self) -> Engine:
        """Build or find the engine and return it. Raises NotJudged where that is impossible."""
        with contextlib.suppress(_BuiltNotRun):
            self._open()
        if self.engine is None:
            raise NotJudged(f"the {self.target.backend} backend has no engines")
        return self.engine

    def _open(self) -> None:
        if self._problem is not None:
            raise self._problem
        if self._opened:
            return
        try:
            self._load()
            self._opened = True
        except ParityError as error:
            self._problem = error
            raise

    def _load(self) -> None:
        if reason := self.backend.unavailable():
            raise NotJudged(reason)
        computes = self.plan.computes_in
        if computes not in self.backend.precisions:
            raise NotJudged(f"{self.backend.name} cannot compute in {computes}")
        prepared = self.run.prepared
        prepared.dtypes(self.plan)  # a plan that names nothing is an error even where its engine is in the cache
        if self.backend.name == "torch":
            if prepared.subject.onnx is not None:
                raise NotJudged(
                    f"the torch backend needs a PyTorch module, and {prepared.subject.onnx} is an ONNX file"
                )
            return
        self.engine = self.guard("building", self._build_engine)
        self.notes += self.engine.report.notes
        if reason := self.backend.cannot_run():
            layers = "".join(f", {note}" for note in self.engine.report.notes if "network layers" in note)
            raise _BuiltNotRun(f"built, not run ({reason}): {self.engine.bytes / 1e6:.1f} MB{layers}")
        path = self.engine.path
        self.run.settings.progress(f"{prepared.subject.name} [{self.target}]: loading the engine")
        self.session = self.stack.enter_context(self.guard("loading", lambda: self.backend.load(path)))
        self.layers = getattr(self.session, "layers", None)

    @contextlib.contextmanager
    def observed(self, *, taps: bool = False, marked: Sequence[str] = ()) -> Iterator[Session]:
        """Build and load this target's engine once more, made to be looked into, and free it at the end.

        ``taps`` marks unfused tensors as debug tensors, ``marked`` makes these values of the graph outputs as well.
        Raises what building and loading raise.
        """
        engine = self.guard("building", lambda: self._build_engine(taps=taps, marked=tuple(marked)))
        if reason := self.backend.cannot_run():
            raise NotJudged(f"built, not run ({reason})")
        path = engine.path
        with self.guard("loading", lambda: self.backend.load(path)) as session:
            yield session

    def is_built(self) -> bool:
        """Return whether the engine is in the cache already."""
        name = f"{self.run.prepared.subject.name}-{self.target}"
        return self.run.cache.holds(self._key(taps=False, marked=()), name=name)

    def loaded(self) -> Session:
        """Return the loaded engine. Raises NotJudged for a backend without engines, and what loading raises."""
        self._open()
        if self.session is None:
            raise NotJudged(f"the {self.target.backend} backend has no engines")
        return self.session

    def release(self) -> None:
        """Free the engine; it is loaded again when it is needed, and outputs that were seen are kept."""
        self.stack.close()
        self.session, self._opened = None, False

    def _key(self, *, taps: bool, marked: tuple[str, ...]) -> dict[str, Any]:
        """Return everything the engine depends on."""
        prepared = self.run.prepared
        return {
            "weights": prepared.weights_sha256,
            "program": prepared.program_sha256,
            "exporter": prepared.exporter(),
            "plan": [self.plan.dtype, self.plan.tf32, sorted(self.plan.keep_fp32)],
            "graph_code": CODE_SHA256,
            "backend": self.backend.name,
            "machine": dict(self.backend.cache_key()),
            "shapes": {name: dataclasses.asdict(shape) for name, shape in prepared.shapes().items()},
            **({"taps": True} if taps else {}),
            **({"marked": list(marked)} if marked else {}),
        }

    def _build_engine(self, *, taps: bool = False, marked: tuple[str, ...] = ()) -> Engine:
        settings, prepared = self.run.settings, self.run.prepared
        shapes = prepared.shapes()
        key = self._key(taps=taps, marked=marked)

        def build(engine: Path) -> Any:
            purpose = " to look into" if taps or marked else ""
            settings.progress(f"{prepared.subject.name} [{self.target}]: building the engine{purpose}")
            with tempfile.TemporaryDirectory(prefix="parity-") as folder:
                graph = Path(folder) / "graph.onnx"
                try:
                    notes = write_graph(prepared, self.plan, graph, marked=marked)
                except OSError as error:
                    if not is_disk_full(error):
                        raise
                    where = f"{tempfile.gettempdir()} for the graph of {prepared.subject.name}"
                    raise NotJudged(f"no space left in {where}; free some, or set TMPDIR to another folder") from error
                request = BuildRequest(onnx=graph, tf32=self.plan.tf32, shapes=shapes, taps=taps)
                report = self.backend.build(request, engine, settings)
                self.run.built += 1
                return dataclasses.replace(report, notes=(*notes, *report.notes))

        name = f"{prepared.subject.name}-{self.target}"
        cached, progress = settings.engine_cache, settings.progress
        engine = self.run.cache.get(key, build, use_cache=cached, progress=progress, name=name)
        if not settings.engine_cache:
            self.stack.callback(engine.discard)
        return engine

    def guard(self, doing: str, step: Callable[[], Any]) -> Any:
        """Run a backend's step; what it did not foresee becomes a ParityError, so that other targets still run."""
        started = time.perf_counter()
        try:
            return step()
        except (ParityError, KeyboardInterrupt):
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"out of GPU memory while {doing} the {self.backend.name} engine: {error}") from error
        except Exception as error:
            if isinstance(error, OSError) and is_disk_full(error):
                where = error.filename or tempfile.gettempdir()
                raise NotJudged(f"the disk is full while {doing} the {self.backend.name} engine ({where})") from error
            what = f"{doing} the {self.backend.name} engine raised {type(error).__name__}"
            raise EngineFailed(f"{what}: {error}") from error
        finally:
            self.spent_s[doing] = self.spent_s.get(doing, 0.0) + time.perf_counter() - started

    def spent_since(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return the seconds spent since ``spent_s`` was ``before``, without what took none."""
        took = {doing: seconds - before.get(doing, 0.0) for doing, seconds in self.spent_s.items()}
        return {doing: seconds for doing, seconds in took.items() if seconds > 0}

    def _run_repeatedly(self, case: str) -> tuple[Tensors, str]:
        """Return the outputs of the worst of several runs, and how the runs differ ("" where all bits are the same)."""
        if case in self._outputs:
            return self._outputs[case]
        self._open()
        if self.backend.name == "torch":
            self._outputs[case] = self.run.floor(case, self.plan).outputs, ""
            return self._outputs[case]
        expected = self.run.expected(case, self.plan)
        inputs, dtypes = self.run.prepared.inputs(case), self.run.prepared.output_dtypes(case)
        self.run.settings.progress(f"{self.run.subject.name}/{case} [{self.target}]: running the engine")
        made = self._run_once(case)
        check_outputs(made, dtypes, inputs)
        first = worst = like(made, expected)
        wrong: float | None = None  # of the worst run; asked for only where runs differ
        spread, differing, runs = 0.0, 0, RUNS_ON_GPU if self._on_gpu() else RUNS_ON_CPU
        for _ in range(runs - 1):
            again = self._run_once(case)
            check_outputs(again, dtypes, made | inputs)
            check_outputs(again, dtypes, worst)  # or this run has overwritten the one to be judged
            again = like(again, expected)
            if all(compare.bitwise_equal(again[name], first[name]) for name in first):
                continue
            differing, spread = differing + 1, max(spread, total_error(again, first))
            wrong = total_error(first, expected) if wrong is None else wrong
            if (error := total_error(again, expected)) > wrong:
                worst, wrong = again, error
        words = (
            f"{NOT_REPEATABLE}: {differing} of {runs} runs of the engine differ from the first, by up to {spread:.3g}; "
            "the worst is judged"
        )
        self._outputs[case] = worst, words if differing else ""
        return self._outputs[case]

    def _run_once(self, case: str) -> Tensors:
        assert self.session is not None
        session, inputs = self.session, self.run.prepared.inputs(case)
        outputs: Tensors = self.guard("running", lambda: session.run(inputs))
        return outputs

    def device_name(self) -> str:
        """Return where the engine runs: a GPU's name, or ``CPU``."""
        return torch.cuda.get_device_name() if self._on_gpu() else "CPU"

    def _on_gpu(self) -> bool:
        if self.backend.name == "torch":
            return next(iter(self.run.prepared.inputs(next(iter(self.run.subject.cases))).values())).is_cuda
        return self.backend.name != "ort-cpu" and torch.cuda.is_available()


class _BuiltNotRun(NotJudged):
    """The engine was built, and there is nothing here to run it on."""


def write_graph(prepared: Prepared, plan: Plan, path: Path, *, marked: Sequence[str] = ()) -> tuple[str, ...]:
    """Write the typed graph and, beside it, the value table; return what the typing had to note.

    ``marked`` names values that become outputs as well.
    """
    applied = graph.apply(prepared.program.model, prepared.dtypes(plan), default=plan.compute_dtype)
    model = with_outputs(applied.model, marked) if marked else applied.model
    save_model(model, path)
    save_values(prepared.program.values, path.with_suffix(".values.json"))
    return applied.notes


def check_outputs(actual: Tensors, declared: Mapping[str, torch.dtype], others: Tensors) -> None:
    """Raise EngineFailed when names or dtypes are not the declared ones, or memory is shared with other tensors."""
    if set(actual) != set(declared):
        missing, unexpected = sorted(set(declared) - set(actual)), sorted(set(actual) - set(declared))
        raise EngineFailed(f"outputs differ: missing {missing}, unexpected {unexpected}")
    owners = {tensor.untyped_storage().data_ptr(): name for name, tensor in others.items() if tensor.numel()}
    for name, tensor in actual.items():
        if tensor.dtype != declared[name]:
            kinds = f"is {tensor.dtype}, but {declared[name]} is declared".replace("torch.", "")
            raise EngineFailed(f"output {name!r} {kinds}")
        if tensor.numel() and (owner := owners.get(tensor.untyped_storage().data_ptr())):
            raise EngineFailed(f"output {name!r} shares its memory with {owner!r}, an input or an earlier output")


def like(actual: Tensors, expected: Tensors) -> Tensors:
    """Return the outputs on the reference's device."""
    return {name: tensor.to(expected[name].device) for name, tensor in actual.items()}
