"""From a subject and a target to a verdict: the one module that knows the order of the steps."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness import compare, onnx_graph, typed_graph
from harness.backends import BACKENDS
from harness.backends.base import BuildRequest, Session
from harness.engines import Engine, EngineCache
from harness.environment import commit
from harness.errors import EngineFailed, NotJudged, ParityError, UsageError, unknown_name
from harness.export import Tensors
from harness.onnx_file import save_model
from harness.precision import Plan, is_fp32, load_plan
from harness.prepare import Floor, Prepared, prepare
from harness.reference import StaleReference, sha256_of
from harness.results import OutputResult, Provenance, Result, Verdict, overall
from harness.settings import Settings
from harness.subgraph import with_outputs
from harness.subject import Subject, Target
from harness.tolerance import judge
from harness.values import save_values

# An engine built from a graph that another version of the typing pass wrote is another engine.
TYPING_CODE = hashlib.sha256(
    b"".join(Path(str(module.__file__)).read_bytes() for module in (onnx_graph, typed_graph))
).hexdigest()


def verify(
    subject: Subject,
    *,
    targets: Sequence[Target],
    cases: Sequence[str],
    settings: Settings,
    judge: Callable[[TargetRun, str], Result] | None = None,
) -> Iterator[Result]:
    """Yield one result per target and case; an engine is freed before the next one is built.

    ``judge`` gives the result of an opened target and a case, by default its verdict. Trouble with a backend or a
    subject is a result (``fail`` or ``not_judged``). UsageError is raised.
    """
    run = Run(subject, settings)
    for target in targets:
        with run.target(target) as opened:
            for case in cases:
                yield opened.judge(case) if judge is None else judge(opened, case)


def update_references(subject: Subject, cases: Sequence[str], settings: Settings) -> list[Path]:
    """Compute and store the FP32 reference and the FP64 truth of these cases; return the files written."""
    run = Run(subject, dataclasses.replace(settings, update_references=True))
    return [run.save_reference(case) for case in cases]


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
        self._problem: ParityError | None = None
        self._opened = False
        self._outputs: dict[str, tuple[Tensors, float | None]] = {}

    def judge(self, case: str) -> Result:
        """Return the verdict on one case. Raises UsageError only."""
        started = time.perf_counter()
        outputs: tuple[OutputResult, ...] = ()
        spread: float | None = None
        notes: list[str] = []
        try:
            actual, spread = self._run_twice(case)
            outputs, notes = self._judge_outputs(case, actual)
            verdict: Verdict = overall(output.verdict for output in outputs)
            reason = _worst(outputs, verdict)
            if spread is not None and verdict == "pass":
                notes.append(f"not repeatable: two runs of the engine differ by {spread:.3g}; the worse one is judged")
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
            provenance=self._provenance(case),
            outputs=outputs,
            repeatable=(spread is None) if case in self._outputs else None,
            notes=tuple(dict.fromkeys([*self.notes, *notes])),
            next_step=self._next_step(case) if verdict == "fail" else "",
            timings_s={"judge": time.perf_counter() - started},
        )

    def outputs(self, case: str) -> tuple[Tensors, Tensors] | None:
        """Return (actual, expected) outputs for task metrics, or None when the engine did not run."""
        try:
            return self._run_twice(case)[0], self.run.expected(case, self.plan)
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
        computes = _format(self.plan)
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
        self.engine = self._guard("building", self._build_engine)
        self.notes += self.engine.report.notes
        if reason := self.backend.cannot_run():
            layers = "".join(f", {note}" for note in self.engine.report.notes if "network layers" in note)
            raise _BuiltNotRun(f"built, not run ({reason}): {self.engine.bytes / 1e6:.1f} MB{layers}")
        path = self.engine.path
        self.run.settings.progress(f"{prepared.subject.name} [{self.target}]: loading the engine")
        self.session = self.stack.enter_context(self._guard("loading", lambda: self.backend.load(path)))
        self.layers = getattr(self.session, "layers", None)

    @contextlib.contextmanager
    def observed(self, *, taps: bool = False, marked: Sequence[str] = ()) -> Iterator[Session]:
        """Build and load this target's engine once more, made to be looked into, and free it at the end.

        ``taps`` marks unfused tensors as debug tensors, ``marked`` makes these values of the graph outputs as well.
        Raises what building and loading raise.
        """
        engine = self._guard("building", lambda: self._build_engine(taps=taps, marked=tuple(marked)))
        if reason := self.backend.cannot_run():
            raise NotJudged(f"built, not run ({reason})")
        path = engine.path
        with self._guard("loading", lambda: self.backend.load(path)) as session:
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

    def guard(self, doing: str, step: Callable[[], Any]) -> Any:
        """Run a backend's step; an exception it did not foresee becomes a ParityError."""
        return self._guard(doing, step)

    def _key(self, *, taps: bool, marked: tuple[str, ...]) -> dict[str, Any]:
        """Return everything the engine depends on."""
        prepared = self.run.prepared
        return {
            "weights": prepared.weights_sha256,
            "program": prepared.program_sha256,
            "exporter": prepared.exporter(),
            "plan": [self.plan.dtype, self.plan.tf32, sorted(self.plan.keep_fp32)],
            "typing_code": TYPING_CODE,
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
                notes = write_graph(prepared, self.plan, graph, marked=marked)
                request = BuildRequest(
                    onnx=graph,
                    precision=self.target.precision_name,
                    tf32=self.plan.tf32,
                    shapes=shapes,
                    taps=taps,
                )
                report = self.backend.build(request, engine, settings)
                self.run.built += 1
                return dataclasses.replace(report, notes=(*notes, *report.notes))

        name = f"{prepared.subject.name}-{self.target}"
        cached, progress = settings.engine_cache, settings.progress
        engine = self.run.cache.get(key, build, use_cache=cached, progress=progress, name=name)
        if not settings.engine_cache:
            self.stack.callback(engine.discard)
        return engine

    def _guard(self, doing: str, step: Callable[[], Any]) -> Any:
        """Run a backend's step; an exception it did not foresee becomes a result, so the other targets still run."""
        try:
            return step()
        except (ParityError, KeyboardInterrupt):
            raise
        except torch.cuda.OutOfMemoryError as error:
            raise NotJudged(f"out of GPU memory while {doing} the {self.backend.name} engine: {error}") from error
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                where = error.filename or tempfile.gettempdir()
                raise NotJudged(f"the disk is full while {doing} the {self.backend.name} engine ({where})") from error
            what = f"{doing} the {self.backend.name} engine raised {type(error).__name__}"
            raise EngineFailed(f"{what}: {error}") from error

    def _run_twice(self, case: str) -> tuple[Tensors, float | None]:
        """Return the outputs of the worse of two runs, and how far the runs are apart (None for the same bits)."""
        if case in self._outputs:
            return self._outputs[case]
        self._open()
        if self.backend.name == "torch":
            floor = self.run.floor(case, self.plan)
            self._outputs[case] = floor.outputs, None
            return self._outputs[case]
        expected = self.run.expected(case, self.plan)
        self.run.settings.progress(f"{self.run.subject.name}/{case} [{self.target}]: running the engine")
        first, second = self._run_once(case), self._run_once(case)
        check_outputs(first, self.run.prepared.output_dtypes(case), self.run.prepared.inputs(case))
        check_outputs(second, self.run.prepared.output_dtypes(case), first | self.run.prepared.inputs(case))
        first, second = _like(first, expected), _like(second, expected)
        if all(compare.bitwise_equal(first[name], second[name]) for name in first):
            self._outputs[case] = first, None
            return self._outputs[case]
        errors = [_total_error(run, expected) for run in (first, second)]
        worse = second if errors[1] > errors[0] else first
        self._outputs[case] = worse, _total_error(first, second)
        return self._outputs[case]

    def _run_once(self, case: str) -> Tensors:
        assert self.session is not None
        session, inputs = self.session, self.run.prepared.inputs(case)
        outputs: Tensors = self._guard("running", lambda: session.run(inputs))
        return outputs

    def _judge_outputs(self, case: str, actual: Tensors) -> tuple[tuple[OutputResult, ...], list[str]]:
        expected = self.run.expected(case, self.plan)
        floor_outputs, notes = self._floor(case)
        results = []
        for name, tensor in expected.items():
            try:
                stats = compare.compare(actual[name], tensor, name=name)
            except EngineFailed as error:
                results.append(OutputResult(name=name, verdict="fail", reason=str(error)))
                continue
            floor = compare.compare(floor_outputs[name], tensor, name=name) if floor_outputs else None
            options: dict[str, Any] = {
                "precision": _format(self.plan),
                "floor": floor,
                "tolerance": self._tolerance(name),
                "is_floor": self.backend.name == "torch",
                "floor_name": self.run.prepared.floor_name(self.plan),
            }
            result = judge(name, stats, **options)
            if result.verdict == "fail" and is_fp32(self.plan) and (tf32 := self._tf32_floor(case, name, tensor)):
                result = judge(name, stats, **options, tf32_floor=tf32)
            results.append(result)
        return tuple(results), notes

    def _floor(self, case: str) -> tuple[Tensors | None, list[str]]:
        """Return the floor's outputs, or None and why there are none (an explicit tolerance may still judge)."""
        if is_fp32(self.plan):
            return self.run.prepared.reference(case, "fp32"), []
        try:
            floor = self.run.floor(case, self.plan)
        except NotJudged as error:
            return None, [f"no floor: {error}"]
        return floor.outputs, list(floor.notes)

    def _tf32_floor(self, case: str, name: str, expected: torch.Tensor) -> compare.ErrorStats | None:
        plan = load_plan("tf32")
        try:
            floor = self.run.floor(case, plan)
        except NotJudged:
            return None  # without a GPU there is no TF32; judge() then goes by its size
        return compare.compare(floor.outputs[name], expected, name=name)

    def _tolerance(self, output: str) -> Any:
        tolerances = self.run.subject.tolerances
        # A plan of fp16 may lose what fp16 may lose.
        return (
            tolerances.get(output) or tolerances.get(self.target.precision_name) or tolerances.get(_format(self.plan))
        )

    def _provenance(self, case: str) -> Provenance | None:
        try:
            prepared = self.run.prepared
            truth = "fp64" if is_fp32(self.plan) else "fp32"
            return Provenance(
                weights=self.run.subject.weights,
                weights_source=self.run.subject.weights_source,
                weights_sha256=prepared.weights_sha256,
                inputs=self.run.subject.inputs,
                inputs_sha256=sha256_of(prepared.inputs(case)),
                program_sha256=prepared.program_sha256,
                commit=self.run.commit,
                reference=prepared.reference_words(case, truth),
                device=self.device_name(),
                plan={"dtype": _format(self.plan), "keep_fp32": list(self.plan.keep_fp32)},
            )
        except ParityError:
            return None  # the reason of the result says what kept the subject from being prepared

    def device_name(self) -> str:
        """Return where the engine runs: a GPU's name, or ``CPU``."""
        return torch.cuda.get_device_name() if self._on_gpu() else "CPU"

    def _on_gpu(self) -> bool:
        if self.backend.name == "torch":
            return next(iter(self.run.prepared.inputs(next(iter(self.run.subject.cases))).values())).is_cuda
        return self.backend.name != "ort-cpu" and torch.cuda.is_available()

    def _next_step(self, case: str) -> str:
        """Return the command that goes on from a failure: to whose fault it is, and a plan that passes."""
        subject = self.run.subject.onnx or self.run.subject.locator or self.run.subject.name
        only = f" --case {case}" if len(self.run.subject.cases) > 1 else ""
        return f"parity bisect {subject} -b {self.backend.name} -p {self.target.precision}{only}"


class _BuiltNotRun(NotJudged):
    """The engine was built, and there is nothing here to run it on."""


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


def write_graph(prepared: Prepared, plan: Plan, path: Path, *, marked: Sequence[str] = ()) -> tuple[str, ...]:
    """Write the typed graph and, beside it, the value table; return what the typing had to note.

    ``marked`` names values that become outputs as well.
    """
    applied = typed_graph.apply(prepared.program.model, prepared.dtypes(plan), default=plan.compute_dtype)
    model = with_outputs(applied.model, marked) if marked else applied.model
    save_model(model, path)
    save_values(prepared.program.values, path.with_suffix(".values.json"))
    return applied.notes


def _format(plan: Plan) -> str:
    """Return the format that a plan's low-precision values compute in."""
    return "tf32" if plan.tf32 else plan.dtype


def _like(actual: Tensors, expected: Tensors) -> Tensors:
    """Return the outputs on the reference's device."""
    return {name: tensor.to(expected[name].device) for name, tensor in actual.items()}


def _total_error(actual: Tensors, expected: Tensors) -> float:
    """Return the largest relative L2 error of any output; infinite where shapes or non-finite elements differ."""
    errors = []
    for name, tensor in expected.items():
        if actual[name].shape != tensor.shape:
            return float("inf")
        stats = compare.compare(actual[name], tensor, name=name)
        errors.append(float("inf") if stats.mismatched_nonfinite else stats.relative_l2)
    return max(errors, default=float("inf"))


def _worst(outputs: Sequence[OutputResult], verdict: Verdict) -> str:
    """Return the reason of the output that decided: the one with the largest error among those of that verdict."""
    deciding = [output for output in outputs if output.verdict == verdict]
    if not deciding:
        return "no output was compared"
    chosen = max(deciding, key=lambda output: output.stats.relative_l2 if output.stats else float("inf"))
    return f"{chosen.name}: {chosen.reason}"
