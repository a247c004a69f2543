"""One subject on one target: its engine is built or found in the cache, loaded on first use, and freed at the end."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from harness import limits
from harness.backends import BACKENDS, BuildReport, BuildRequest, CompilesOnLoad, Engine, Session, Starter, engine_cache
from harness.code_version import code_sha256, package_versions
from harness.errors import EngineRefused, NotJudged, ParityError, UsageError, is_disk_full, unknown_name
from harness.graph import (
    Applied,
    Plan,
    apply,
    computes_in,
    load_plan,
    open_onnx,
    save_for_now,
    why_refused,
    with_outputs,
)
from harness.machine import commit
from harness.records import Result
from harness.sentences import Sentence
from harness.settings import Settings
from harness.subject import NAMED_PRECISIONS, Subject, Target
from harness.temporary import temporary_folder
from harness.tensors import Tensors
from harness.verify.prepare import Prepared, prepare
from harness.verify.refused import with_operator
from harness.verify.run import Repeats
from harness.verify.steps import Steps
from harness.verify.subject_graph import value_dtypes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What verifying one case on one target gave."""

    result: Result
    """The verdict, as it is recorded."""
    repeats: Repeats | None = None
    """The outputs that were judged; None where nothing ran."""
    expected: Tensors | None = None
    """What they were held against; None where nothing ran."""


class Run:
    """One subject in one process: what all its targets share is made once."""

    def __init__(self, subject: Subject, settings: Settings, *, limit: float | None = None) -> None:
        self.subject, self.settings = subject, settings
        self.limit = settings.limit if limit is None else limit
        """The relative L2 error that every output may have, in place of the limits derived or declared."""
        self.engines = engine_cache(settings)
        self._leaving: dict[tuple[str, ...], Run] = {}
        self._beside: dict[str, Run] = {}
        self._problem: ParityError | None = None

    @property
    def prepared(self) -> Prepared:
        """The prepared subject; a failure is kept, so that the next target does not prepare it again."""
        if self._problem is not None:
            raise self._problem
        try:
            return self._prepared
        except ParityError as error:
            self._problem = error
            raise

    @cached_property
    def _prepared(self) -> Prepared:
        with limits.doing("preparing the model"):
            return prepare(self.subject, self.settings)

    @cached_property
    def unquantised(self) -> Prepared:
        """The unquantised subject, prepared when the cost of quantisation is first asked for."""
        assert self.subject.against is not None
        with limits.doing("preparing the unquantised model"):
            return prepare(self.subject.against, self.settings)

    def leaving(self, names: tuple[str, ...]) -> Run:
        """Return this run, or where a plan leaves operators of a QDQ file unquantised, that of the file without these.

        Raises UsageError for a module: its Q/DQ are written when it is exported.
        """
        if not names or names == self.subject.quant_exclude:
            return self
        if self.subject.onnx is None:
            raise UsageError(f"{self.subject.name} is a module; quant_exclude of a plan is for an ONNX file with Q/DQ")
        if names not in self._leaving:
            subject = dataclasses.replace(self.subject, quant_exclude=names)
            self._leaving[names] = Run(subject, self.settings, limit=self.limit)
        return self._leaving[names]

    def beside(self, subject: Subject) -> Run:
        """Return the run of another subject with the same settings, made once: the other engine of a chain."""
        if subject.name not in self._beside:
            self._beside[subject.name] = Run(subject, self.settings)
        return self._beside[subject.name]

    @cached_property
    def commit(self) -> str:
        """The commit of the suite's repository, asked once: git takes longer than a small engine."""
        return commit(self.settings.root)

    def renew(self, *, anew: bool) -> None:
        """Prepare the subject again where that failed before, or ``anew`` where it did not."""
        if anew or self._problem is not None:
            self.__dict__.pop("_prepared", None)
        self._problem = None

    @contextlib.contextmanager
    def target(self, target: Target) -> Iterator[OpenTarget]:
        """Open a target; leaving frees its engine."""
        with contextlib.ExitStack() as stack:
            yield OpenTarget(self, target, stack)


class OpenTarget:
    """One target while it is open."""

    def __init__(self, run: Run, target: Target, stack: contextlib.ExitStack) -> None:
        if target.backend not in BACKENDS:
            raise unknown_name("backend", target.backend, BACKENDS)
        self.target = target
        self.backend = BACKENDS[target.backend]
        self.plan = plan_of(target, run.subject)
        self.run = run.leaving(self.plan.quant_exclude)
        self.steps = Steps(self.backend.name)
        self.engine: Engine | None = None
        self.session: Session | None = None
        self.outcomes: dict[str, Outcome] = {}
        """The outcomes so far, by case."""
        self.seen: dict[str, Any] = {}
        """What an engine gave whose codes are outputs, by case: see :mod:`harness.verify.codes`."""
        self._stack = stack
        self._beside: dict[str, OpenTarget] = {}
        self._problem: ParityError | None = None

    @property
    def is_pytorch(self) -> bool:
        """Whether the target is PyTorch itself, which has no engine: its outputs are the floor."""
        return self.backend.name == "torch"

    @cached_property
    def plan_source(self) -> str:
        """As ``Target.plan_source``, when the target was opened."""
        return self.target.plan_source(self.run.settings.root)

    def check(self) -> None:
        """Raise NotJudged where nothing can be computed on this target, UsageError for a plan that names nothing."""
        if reason := self.backend.unavailable():
            raise NotJudged(reason)
        if (computes := self.plan.computes_in) not in self.backend.precisions:
            raise NotJudged(Sentence("cannot_compute_in", name=self.backend.name, computes=computes))
        if isinstance(self.backend, Starter):
            self.backend.start_ahead()
        graph, subject = self.run.prepared.graph, self.run.subject
        value_dtypes(graph, self.plan)  # an error even where the engine is in the cache
        known = {*graph.output_names, *NAMED_PRECISIONS, self.plan.name, *(it.precision_name for it in subject.targets)}
        for name in subject.tolerances:
            if name not in known:
                raise UsageError(f"{subject.name}: tolerances=: {unknown_name('output or precision', name, known)}")

    def build(self) -> Engine:
        """Build the engine, or find it in the cache. Raises NotJudged where that is impossible."""
        if self.engine is None:
            self._keep_problem(self._build)
        assert self.engine is not None
        return self.engine

    def load(self) -> Session:
        """Return the engine, built and loaded. Raises NotJudged where it cannot run, and what loading raises."""
        if self.session is None:
            self._keep_problem(self._load)
        assert self.session is not None
        return self.session

    def inputs(self, case: str) -> Tensors:
        """Return the inputs of a case by name, as the engine takes them: nested ones are flat."""
        return self.as_taken(self.run.prepared.inputs[case])

    def as_taken(self, inputs: Tensors) -> Tensors:
        """Return inputs in the dtypes that the engine takes: those of the file, where that stays typed as it is."""
        dtypes = self.run.prepared.graph.input_dtypes if self.plan.as_file else {}
        return {name: tensor.to(dtypes.get(name, tensor.dtype)) for name, tensor in inputs.items()}

    def declared(self, case: str) -> dict[str, torch.dtype]:
        """Return the dtype that every output of the engine has."""
        prepared = self.run.prepared
        own = prepared.graph.output_dtypes if self.plan.as_file else {}
        return {name: own.get(name, dtype) for name, dtype in prepared.references.dtypes(case).items()}

    def free(self) -> None:
        """Free the engine's memory; it is loaded again when it is needed, and outcomes are kept."""
        self._stack.close()
        self.session = None

    def renew(self, *, anew: bool) -> None:
        """Make ready for another attempt: load the engine again, and build it where that failed.

        The subject is prepared again where that failed, or ``anew``.
        """
        self.free()
        self.engine = self._problem = None
        self.run.renew(anew=anew)

    def beside(self, subject: Subject) -> OpenTarget:
        """Return another subject on the same target, opened once and freed with this one."""
        if subject.name not in self._beside:
            self._beside[subject.name] = OpenTarget(self.run.beside(subject), self.target, contextlib.ExitStack())
        self._stack.callback(self._beside[subject.name].free)
        return self._beside[subject.name]

    @contextlib.contextmanager
    def observed(self, *, taps: bool = False, marked: Sequence[str] = ()) -> Iterator[Session]:
        """Build and load this target's engine once more, with taps, and free it at the end.

        ``taps`` marks unfused tensors as debug tensors, ``marked`` makes these values of the graph outputs as well.
        Raises what building and loading raise.
        """
        engine = self.steps.run("building", lambda: self._make_engine(taps=taps, marked=tuple(marked)))
        if reason := self.backend.cannot_run():
            raise NotJudged(Sentence("built_not_run", reason=reason))
        with self.steps.run("loading", lambda: self.backend.load(engine.path)) as session:
            yield session

    @property
    def keeps(self) -> bool:
        """Whether its engines go into the cache: not with ``--no-engine-cache``, nor where no key holds all of it."""
        return self.run.settings.engine_cache and not self.run.prepared.foreign

    def is_built(self) -> bool:
        """Return whether the engine is in the cache already."""
        return self.run.engines.holds(self._key(), name=self._name)

    def say(self, words: str, case: str = "") -> None:
        """Say what is happening."""
        where = f"{self.run.subject.name}/{case}" if case else self.run.subject.name
        self.run.settings.progress(f"{where} [{self.target}]: {words}")

    @property
    def device_name(self) -> str:
        """Where the engine runs: a GPU's name, or ``CPU``."""
        return torch.cuda.get_device_name() if self.on_gpu else "CPU"

    @property
    def gpu_uuid(self) -> str:
        """The UUID of the GPU on which the engine runs, as nvidia-smi shows it; empty on the CPU."""
        if not self.on_gpu:
            return ""
        return f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"

    @property
    def on_gpu(self) -> bool:
        """Whether the engine runs on a GPU."""
        if self.is_pytorch:
            return self.run.prepared.graph.device.type == "cuda"
        return self.backend.name != "ort-cpu" and torch.cuda.is_available()

    def _keep_problem(self, step: Any) -> None:
        """Run a step once: what it raises is raised again without trying again."""
        if self._problem is not None:
            raise self._problem
        try:
            step()
        except ParityError as error:
            self._problem = error
            raise

    def _build(self) -> None:
        self.check()
        if self.is_pytorch:
            raise NotJudged(Sentence("no_engines", name=self.backend.name))
        self.engine = self.steps.run("building", self._make_engine)

    def _load(self) -> None:
        engine = self.build()
        if reason := self.backend.cannot_run():
            count = engine.report.network_layers
            layers = "" if count is None else Sentence("layers_before_fusion", count=count)
            raise NotJudged(Sentence("built_not_run_size", reason=reason, bytes=engine.bytes / 1e6, layers=layers))
        self.say("loading the engine")
        self.session = self._stack.enter_context(self.steps.run("loading", lambda: self.backend.load(engine.path)))

    @property
    def _name(self) -> str:
        return f"{self.run.subject.name}-{self.target}"

    def _key(self, *, taps: bool = False, marked: tuple[str, ...] = ()) -> dict[str, Any]:
        """Return everything the engine depends on."""
        prepared = self.run.prepared
        identity = prepared.graph.identity
        return {
            "weights": identity.weights_sha256,
            "program": identity.program_sha256,
            "exporter": dict(identity.exporter),
            "plan": [self.plan.dtype, self.plan.tf32, sorted(self.plan.keep_fp32)],
            **({"as_file": True} if self.plan.as_file else {}),
            **({"kept": sorted(kept)} if (kept := prepared.graph.kept_for_range(self.plan)) else {}),
            "code": code_sha256(),
            "packages": package_versions(),
            "backend": self.backend.name,
            "machine": dict(self.backend.cache_key()),
            "shapes": {name: dataclasses.asdict(shape) for name, shape in prepared.shapes.items()},
            **({"taps": True} if taps else {}),
            **({"marked": list(marked)} if marked else {}),
        }

    def _make_engine(self, *, taps: bool = False, marked: tuple[str, ...] = ()) -> Engine:
        """Return an engine from the cache, built where it is not there."""
        settings, prepared = self.run.settings, self.run.prepared
        shapes = prepared.shapes

        def build(engine: Path) -> BuildReport:
            if words := why_refused(prepared.program.model, self.backend.name):
                raise EngineRefused(Sentence("not_built_for", name=self.backend.name, words=words))
            self.say(f"building the engine{' with taps' if taps or marked else ''}")
            whose = f"{self.run.subject.name} [{self.target}]"
            with limits.build(whose), temporary_folder() as folder:
                graph = folder / "graph.onnx"
                notes, weights = self._write_graph(graph, marked)
                request = BuildRequest(onnx=graph, weights=weights, tf32=self.plan.tf32, shapes=shapes, taps=taps)
                try:
                    report = self.backend.build(request, engine, settings)
                except EngineRefused as error:
                    raise with_operator(error, prepared.program.values, self.plan) from error
                return dataclasses.replace(report, notes=(*notes, *report.notes))

        key = self._key(taps=taps, marked=marked)
        with limits.doing("waiting for the engine"):
            engine = self.run.engines.get(key, build, use_cache=self.keeps, progress=settings.progress, name=self._name)
        if not self.keeps:
            self._stack.callback(engine.discard)
        elif self.run.engines.remote is not None and isinstance(self.backend, CompilesOnLoad):
            runtime = engine.path, self.backend.runtime_key(), settings.progress
            self.run.engines.fetch_runtime(*runtime)
            self._stack.callback(self.run.engines.offer_runtime, *runtime)  # once the session, opened later, is closed
        return engine

    def _write_graph(self, path: Path, marked: Sequence[str]) -> tuple[tuple[str, ...], dict[str, Path]]:
        try:
            return write_graph(self.run.prepared, self.plan, path, marked=marked, linked=True)
        except OSError as error:
            if not is_disk_full(error):
                raise
            where = f"{tempfile.gettempdir()} for the graph of {self.run.subject.name}"
            raise NotJudged(Sentence("no_space_left", where=where)) from error


def plan_of(target: Target, subject: Subject) -> Plan:
    """Return the plan of a target. Raises UsageError for an unknown one, and for ``file`` where there is no file."""
    plan = load_plan(target.precision)
    if not plan.as_file:
        return plan
    if subject.onnx is None:
        what = Sentence("file_typed_as_is", precision=target.precision)
        raise UsageError(f"{what}, and {subject.name} is a module; give another")
    try:
        return load_plan(target.precision, file_computes_in=computes_in(open_onnx(subject.onnx_file)))
    except NotJudged:  # there is no file here; preparing the subject says so
        return plan


def typed_graph(prepared: Prepared, plan: Plan) -> Applied:
    """Return the graph that an engine of a plan is built from: typed by the plan, or the file as it is."""
    if plan.as_file:
        return Applied(model=prepared.graph.file_model, notes=(), counts={})
    return apply(prepared.program.model, value_dtypes(prepared.graph, plan), default=plan.compute_dtype)


def write_graph(
    prepared: Prepared, plan: Plan, path: Path, *, marked: Sequence[str] = (), linked: bool = False
) -> tuple[tuple[str, ...], dict[str, Path]]:
    """Write the graph typed by a plan into a temporary folder, and return what the typing had to note.

    ``marked`` names values that become outputs as well. With ``linked``, weights that lie in a file already are not
    written again, and these files are returned too; see :func:`harness.graph.save_for_now`.
    """
    typed = typed_graph(prepared, plan)
    model = with_outputs(typed.model, marked) if marked else typed.model
    links = save_for_now(model, path, linked=linked)
    kept = prepared.graph.kept_for_range(plan)
    if not kept:
        return typed.notes, links
    names: str = ", ".join(sorted(kept)[:5])
    if len(kept) > 5:
        names += Sentence("and_others")
    why = Sentence("kept_for_constant", computes_in=plan.computes_in, names=names)
    return (why, *typed.notes), links
